"""Errors about checkpoints that are not available: the reason, and what to do.

The text of an error of huggingface_hub is never repeated, because it may contain an
address with credentials, and because its advice is about that library. An error about a
preset has at most five lines.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from dslo_jax.errors import CheckpointError
from dslo_jax.hub.download import readable_size
from dslo_jax.hub.presets import PRESETS, Kind, Mirror, Preset
from dslo_jax.hub.repositories import cache_folder


_MEANWHILE = (
    "meanwhile, without a download: --model demo, the small pair that comes with "
    "dslo-jax; it knows 20 things of its own drawn world (sky, sea, house ...)"
)
_OPTION: Mapping[Kind, str] = {"clip": "--clip"}
_BY_HAND: Mapping[Kind, str] = {
    "clip": "{weights}, config.json, and tokenizer.json or vocab.json and merges.txt",
    "diffusion": "the folders unet, vae and text_encoder (of each config.json and the "
    ".safetensors file) and the folder tokenizer",
    "vit": "{weights} and config.json",
}
_LIBRARIES = ("huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2", "hf_xet")
_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY")


def is_about_download(error: Exception) -> bool:
    """Whether an error is about a checkpoint, a hub, a network or a disk.

    The libraries below raise errors of many classes without a common base class. Any
    other error is a bug and must not be hidden.
    """
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, CheckpointError | OSError) or library in _LIBRARIES


def reason_of(error: CheckpointError) -> str:
    """The message of an error, without its code."""
    return str(error).removeprefix(f"[{error.code}] ")


def explain(error: Exception, mirror: Mirror) -> CheckpointError:
    """Translate an error of huggingface_hub or of the network for people.

    Args:
        error: The error that was raised.
        mirror: The repository that was requested.

    Returns:
        An error of one line: ``W09`` for refused access, ``W11`` for a failed download,
        ``W01`` for a repository or file that does not exist.
    """
    if isinstance(error, CheckpointError):
        return error
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(
        error.__cause__, Exception
    ):
        error = error.__cause__  # the error of the network behind it
    page = f"{_endpoint()}/{mirror.repository}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    match error:
        case errors.GatedRepoError():
            code = "W09"
            text = f"is gated: accept its conditions at {page}, then run: hf auth login"
        case _ if status == 401:
            code = "W09"
            text = (
                "is gone, private or misspelt (the Hub answers 401 to all three); if "
                "it is private, run: hf auth login"
            )
        case errors.RevisionNotFoundError():
            code, text = "W01", "has no such revision"
        case errors.DisabledRepoError():
            code, text = "W01", "was disabled by the Hub or its owner"
        case errors.HFValidationError():
            code, text = "W01", "is no valid name of a repository"
        case _ if status == 404:
            code, text = "W01", "is gone, or never was"
        case _ if status == 403:
            code, text = "W09", f"is closed to this account; see {page}"
        case _:
            code, text = "W11", f"could not be downloaded: {_reason(error, status)}"
    return CheckpointError(code, f"{mirror} {text}")


def no_mirror(
    name: str,
    preset: Preset,
    kind: Kind,
    errors: Mapping[Mirror, CheckpointError],
    cache: Path | None,
) -> CheckpointError:
    """The error about a name whose mirrors have all failed.

    Args:
        name: The name as it was given.
        preset: The preset of this name.
        kind: The kind of checkpoint that was requested.
        errors: The error of each mirror.
        cache: Folder of the downloads.

    Returns:
        An error with the reasons. For a preset it also describes the download, how to
        do it by hand, and the networks that need none. Its code is that of the reasons,
        or ``W12`` where they differ.
    """
    codes = {error.code for error in errors.values()}
    code = codes.pop() if len(codes) == 1 else "W12"
    reasons = dict.fromkeys(map(reason_of, errors.values()))
    if name not in PRESETS:
        return CheckpointError(
            code,
            f"there is no folder {name!r} in {Path.cwd()}, and {'; '.join(reasons)}",
        )
    return CheckpointError(
        code,
        "\n  ".join(
            [
                f"{name} cannot be used: {'; '.join(reasons)}",
                *_way_on(name, preset, kind, errors, cache),
            ]
        ),
    )


def not_cached(
    name: str, preset: Preset, kind: Kind, missing: str, cache: Path | None
) -> CheckpointError:
    """The error (``W10``) about a checkpoint that is not on this machine, offline."""
    option = "" if name in PRESETS else f"--kind {kind} "
    lines = [
        f"{name}: {missing}, and no socket may be opened; while online, run: "
        f"dslo weights {option}{name}"
    ]
    if name in PRESETS:
        lines += _way_on(name, preset, kind, dict.fromkeys(preset.mirrors), cache)
    return CheckpointError("W10", "\n  ".join(lines))


def _way_on(
    name: str,
    preset: Preset,
    kind: Kind,
    mirrors: Mapping[Mirror, object],
    cache: Path | None,
) -> list[str]:
    """Lines on the download, how to do it by hand, and networks that need none."""
    first = next(iter(mirrors))
    page = f"{_endpoint()}/{first.repository}"
    revision = f"/tree/{first.revision}" if first.revision else ""
    weights = first.hashes[0][0] if first.hashes else "model.safetensors"
    files = _BY_HAND[preset.kind].format(weights=weights)
    option = _OPTION.get(kind, "--attention")
    size = readable_size(preset.megabytes * 10**6)
    return [
        f"to be downloaded: about {size}, from {page}{revision} to "
        f"{cache_folder(cache)}",
        f"by hand: copy {files} from there into a folder, such as models/{name}",
        f"and add to your command: {option} models/{name}",
        _MEANWHILE,
    ]


def _reason(error: Exception, status: int | None) -> str:
    """Reason why a download failed, in words."""
    if status == 407 or type(error).__name__ == "ProxyError":
        return f"the proxy {_proxy()} refused; check it, or unset the variable"
    if status:
        return f"the Hub answers HTTP {status}; try again later"
    host = urlsplit(_endpoint()).hostname
    through = f" through the proxy {_proxy()}" if _proxy() else ""
    if type(error).__name__ in ("ConnectError", "ConnectTimeout", "TimeoutError"):
        return f"{host} cannot be reached{through}; check the network"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return f"the connection to {host}{through} broke ({type(error).__name__})"


def _proxy() -> str:
    """The proxy that the environment names, without a password."""
    for variable in _PROXIES:
        if value := os.environ.get(variable):
            host = urlsplit(value if "//" in value else f"//{value}")
            port = f":{host.port}" if host.port else ""
            return f"{host.hostname}{port} ({variable})"
    return ""


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT
