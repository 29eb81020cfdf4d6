"""Where checkpoints come from: a folder, a preset or a repository of the Hub.

A folder is used as it is and needs no network. The mirrors of a preset are tried in
turn. What the cache holds is used without asking anybody; only configurations,
tokenizer files and safetensors are ever downloaded.
"""

import difflib
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dslo_jax.errors import CheckpointError
from dslo_jax.hub.presets import PRESETS, Kind, Mirror, Preset
from dslo_jax.models.vit_config import VIT_TYPES
from dslo_jax.weights import open_weights, read_config


class _Network(NamedTuple):
    """One network of a checkpoint: its sub-folder, file name and kinds of network."""

    folder: str
    stem: str
    field: str
    values: tuple[str, ...]


_NETWORKS: Mapping[Kind, tuple[_Network, ...]] = {
    "clip": (_Network("", "model", "model_type", ("clip",)),),
    "diffusion": (
        _Network(
            "unet", "diffusion_pytorch_model", "_class_name", ("UNet2DConditionModel",)
        ),
        _Network("vae", "diffusion_pytorch_model", "_class_name", ("AutoencoderKL",)),
        _Network("text_encoder", "model", "model_type", ("clip_text_model",)),
    ),
    "vit": (_Network("", "model", "model_type", VIT_TYPES),),
}
_TOKENIZERS: Mapping[Kind, str] = {"clip": "", "diffusion": "tokenizer"}
_MAX_NAMES_SHOWN = 8
# What a pipeline needs its text encoder for; see ``dslo_jax.empty_prompt``.
_EMPTY_PROMPT = "empty_prompt.safetensors"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_OFFER = (
    "what needs no download: the small pair that comes with dslo-jax, --model demo; it "
    "knows 20 things of its own drawn world (sky, sea, house ...), not photographs"
)


def resolve(
    name_or_path: str | Path,
    kind: Kind,
    *,
    offline: bool = False,
    cache: Path | None = None,
) -> Path:
    """Find a checkpoint, downloading it when it is nowhere on disk.

    Args:
        name_or_path: A local folder (a ``Path`` is nothing else), a preset (see
            ``PRESETS``), or a repository as ``owner/name`` or
            ``owner/name@revision``.
        kind: ``"clip"``: ``config.json`` of a CLIP model, its weights and tokenizer.
            ``"diffusion"``: a diffusers pipeline with ``unet``, ``vae``,
            ``text_encoder`` and ``tokenizer``; the last two may be replaced by
            ``empty_prompt.safetensors``. ``"vit"``: ``config.json`` and weights of a
            DINO or DINOv2. ``"attention"``: any of these; see ``attention_of``.
        offline: Open no socket. ``HF_HUB_OFFLINE=1`` in the environment does the same.
        cache: Where downloads are kept; the cache of huggingface_hub when ``None``.

    Returns:
        A folder that passes ``check_folder``.

    Raises:
        CheckpointError: The name or the checkpoint does not exist (``W01``), it is
            foreign or damaged (``W02`` ... ``W08``), access is refused (``W09``),
            nothing is cached and no socket may be opened (``W10``), the download
            failed (``W11``), or every mirror failed for reasons of its own (``W12``).
    """
    name = str(name_or_path)
    folder = os.path.expanduser(name)
    if isinstance(name_or_path, Path) or os.path.exists(folder):
        check_folder(Path(folder), kind)
        return Path(folder)
    preset = _find_preset(name, kind)
    errors: dict[Mirror, CheckpointError] = {}
    for cached in (True,) if offline or _is_offline() else (True, False):
        for mirror in preset.mirrors:
            try:
                return _obtain(name, mirror, preset, cache=cache, cached=cached)
            except CheckpointError as error:
                errors[mirror] = error
    raise _no_mirror(name, errors) from errors[preset.mirrors[-1]]


def kind_of(name: str) -> Kind | None:
    """What a preset is, or ``None`` for any other name."""
    return PRESETS[name].kind if name in PRESETS else None


def attention_of(folder: Path) -> Kind:
    """What a folder holds whose self-attention could be read; weights are not checked.

    Args:
        folder: A local folder.

    Raises:
        CheckpointError: There is nothing of the kind (``W01``), or a network of another
            architecture (``W06``).
    """
    if not folder.is_dir():
        raise CheckpointError(
            "W01", f"{folder} is not a folder{_hint(folder, 'attention')}"
        )
    if _is_pipeline(folder):
        return "diffusion"
    known: dict[str, Kind] = {"clip": "clip", **dict.fromkeys(VIT_TYPES, "vit")}
    supported = (
        "a diffusers pipeline (unet/, vae/), or a config.json whose model_type is "
        f"{', '.join(known)}"
    )
    if not (folder / "config.json").is_file():
        names = sorted(path.name for path in folder.iterdir())[:_MAX_NAMES_SHOWN]
        held = f"holds {', '.join(names)}" if names else "is empty"
        raise CheckpointError("W01", f"{folder} {held}; expected {supported}")
    found = str(read_config(folder).get("model_type"))
    if found not in known:
        raise CheckpointError(
            "W06",
            f"{folder / 'config.json'}: model_type is {found!r}; expected {supported}",
        )
    return known[found]


def check_folder(folder: Path, kind: Kind) -> None:
    """Check that a folder holds a whole checkpoint, before any network is built.

    Configurations and the headers of the weights are read, no tensors.

    Args:
        folder: A local folder.
        kind: As for ``resolve``.

    Raises:
        CheckpointError: Something is missing (``W01``, all of it is named), a network
            is of another kind (``W06``), or weights are unusable (``W03`` ... ``W08``).
    """
    if kind == "attention":
        kind = attention_of(folder)
    if not folder.is_dir():
        raise CheckpointError("W01", f"{folder} is not a folder{_hint(folder, kind)}")
    networks, needs_tokenizer = _NETWORKS[kind], kind in _TOKENIZERS
    if kind == "diffusion" and (folder / _EMPTY_PROMPT).is_file():
        networks, needs_tokenizer = networks[:-1], False
    configs = [Path(network.folder, "config.json") for network in networks]
    missing = [path.as_posix() for path in configs if not (folder / path).is_file()]
    if needs_tokenizer and not _has_tokenizer(folder / _TOKENIZERS[kind]):
        missing.append(Path(_TOKENIZERS[kind], "tokenizer.json").as_posix())
    if missing:
        raise CheckpointError(
            "W01", f"{folder} lacks {', '.join(missing)}{_hint(folder, kind)}"
        )
    for network in networks:
        found = read_config(folder / network.folder).get(network.field)
        if found is not None and found not in network.values:
            raise CheckpointError(
                "W06",
                f"{folder / network.folder / 'config.json'}: {network.field} is "
                f"{found!r}, expected {' or '.join(map(repr, network.values))}"
                f"{_hint(folder, kind)}",
            )
        open_weights(folder / network.folder)


def verify(folder: Path, hashes: Mapping[str, str]) -> None:
    """Compare files with their known sha256.

    Args:
        folder: The checkpoint.
        hashes: File, relative to the folder, to sha256 in hexadecimal.

    Raises:
        CheckpointError: A file is missing (``W01``) or differs (``W02``).
    """
    for name, wanted in hashes.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError("W01", f"{path} is missing; its sha256 is known")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != wanted.lower():
            raise CheckpointError(
                "W02",
                f"{path} is not the file it should be: sha256 {wanted} wanted, {found} "
                "found; delete it and download it again",
            )


def _has_tokenizer(folder: Path) -> bool:
    old = ("vocab.json", "merges.txt")
    whole = (folder / "tokenizer.json").is_file()
    return whole or all((folder / name).is_file() for name in old)


def _find_preset(name: str, kind: Kind) -> Preset:
    """The preset of that name, or one made of a single repository."""
    preset = PRESETS.get(name)
    if preset is not None and kind in (preset.kind, "attention"):
        return preset
    if preset is not None:
        raise CheckpointError(
            "W06", f"{name!r} is a {preset.kind} preset, expected one for {kind}"
        )
    repository, _, revision = name.partition("@")
    if _REPOSITORY.fullmatch(repository) and not repository.startswith((".", "~")):
        return Preset(kind, (Mirror(repository, revision or None),))
    if name.startswith((".", "~")) or "/" in name or "\\" in name:
        raise CheckpointError(
            "W01", f"{name!r} looks like a path but does not exist (from {Path.cwd()})"
        )
    names = [
        key for key, preset in PRESETS.items() if kind in (preset.kind, "attention")
    ]
    near = difflib.get_close_matches(name, names, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    raise CheckpointError(
        "W01",
        f"{name!r} is no folder and no preset; {meant}Presets: {', '.join(names)}",
    )


def _obtain(
    name: str, mirror: Mirror, preset: Preset, *, cache: Path | None, cached: bool
) -> Path:
    """One mirror's folder, checked, from the cache or through the network."""
    from huggingface_hub import snapshot_download

    folder, missing = Path(), ""
    for variant in ("", ".fp16"):  # half precision only where nothing else is offered
        try:
            found = snapshot_download(
                mirror.repository,
                revision=mirror.revision,
                cache_dir=cache,
                local_files_only=cached,
                allow_patterns=_patterns(preset.kind, variant),
            )
        except Exception as error:  # the network below raises errors of many families
            found = getattr(error, "snapshot_path", None) if cached else None
            if found is None:
                raise _explain(name, error, mirror, preset.kind, cache) from error
        folder = Path(found)
        try:
            check_folder(folder, preset.kind)
            verify(folder, dict(preset.hashes))
            return folder
        except CheckpointError as error:
            if error.code != "W01":
                raise
            missing = str(error).removeprefix("[W01] ")
    if cached:
        raise CheckpointError("W10", f"{missing}; {_remedy(name, preset.kind)}")
    if not any(folder.rglob("*.safetensors")):
        raise CheckpointError(
            "W05",
            f"{mirror} offers no safetensors, and other formats can run code when "
            f"opened. Convert it once: hf download {mirror.repository} --local-dir "
            "weights && python -m torch_bridge.convert weights; then pass the folder",
        )
    raise CheckpointError("W01", f"{mirror} is not whole: {missing}")


def _patterns(kind: Kind, variant: str) -> list[str]:
    """What to download: configurations, tokenizer files and safetensors."""
    kinds = tuple(_NETWORKS) if kind == "attention" else (kind,)
    networks = [network for each in kinds for network in _NETWORKS[each]]
    folders = [_TOKENIZERS[each] for each in kinds if each in _TOKENIZERS]
    folders += [network.folder for network in networks]
    patterns = ["model_index.json"]
    for folder in folders:
        patterns += [Path(folder, end).as_posix() for end in ("*.json", "*.txt")]
    for folder, stem, _, _ in networks:
        for end in (".safetensors", "-*.safetensors"):
            patterns.append(Path(folder, f"{stem}{variant}{end}").as_posix())
    return list(dict.fromkeys(patterns))


def _explain(
    name: str, error: Exception, mirror: Mirror, kind: Kind, cache: Path | None
) -> CheckpointError:
    """Say what an error of huggingface_hub means to the person.

    Its text is not repeated: it can hold an address with credentials.
    """
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError):
        if not isinstance(error.__cause__, Exception):
            return CheckpointError(
                "W10",
                f"{mirror} is not in {cache or constants.HF_HUB_CACHE} and no socket "
                f"may be opened; {_remedy(name, kind)}",
            )
        error = error.__cause__  # why the network did not help
    page = f"https://huggingface.co/{mirror.repository}"
    nor = "" if name in PRESETS else "; nor is there a folder of this name"
    status = getattr(getattr(error, "response", None), "status_code", None)
    match error:
        case errors.GatedRepoError():
            code = "W09"
            text = f"is gated: accept its conditions at {page}, then run: hf auth login"
        case _ if status == 401:
            code = "W09"
            text = (
                "is gone, private or misspelt (the Hub answers 401 to all three); if "
                f"it is private, run: hf auth login{nor}"
            )
        case errors.RevisionNotFoundError():
            code, text = "W01", "has no such revision"
        case errors.DisabledRepoError():
            code, text = "W01", "was disabled by the Hub or its owner"
        case errors.HFValidationError():
            code, text = "W01", "is no valid name of a repository"
        case _ if status == 404:
            code, text = "W01", f"is gone, or never was{nor}"
        case _ if status == 403:
            code, text = "W09", f"is closed to this account; see {page}"
        case OSError(errno=int(number)):
            code, text = "W11", f"could not be downloaded: {os.strerror(number)}"
        case _:
            reason = f"HTTP {status}" if status else type(error).__name__
            code, text = "W11", f"could not be downloaded: {reason}; try again later"
    return CheckpointError(code, f"{mirror} {text}")


def _no_mirror(name: str, errors: Mapping[Mirror, CheckpointError]) -> CheckpointError:
    """The only error, or the status of each mirror; for a preset, a way out."""
    codes = {error.code for error in errors.values()}
    code = codes.pop() if len(codes) == 1 else "W12"
    lines = [f"no mirror of {name!r} can be used:", *map(str, errors.values())]
    if len(errors) == 1:
        lines = [lines[1].removeprefix(f"[{code}] ")]
    if name in PRESETS:
        lines.append(_OFFER)
    return CheckpointError(code, "\n  ".join(lines))


def _hint(folder: Path, kind: Kind) -> str:
    """What a folder of the wrong kind seems to be."""
    if folder.is_file():
        convert = f"python -m torch_bridge.convert {folder.parent}"
        return f"; expected a model folder, not a single file (a pickle? run {convert})"
    has_config = (folder / "config.json").is_file()
    found = read_config(folder).get("model_type") if has_config else None
    if kind == "clip" and _is_pipeline(folder):
        return "; this is a diffusion pipeline, pass it with --attention"
    if kind == "clip" and found in VIT_TYPES:
        return "; this is a vision transformer, pass it with --attention"
    if kind == "diffusion" and found == "clip":
        return "; this is a CLIP folder, pass it with --clip"
    return ""


def _is_pipeline(folder: Path) -> bool:
    parts = ("unet", "vae", "model_index.json")
    return any((folder / part).exists() for part in parts)


def _remedy(name: str, kind: Kind) -> str:
    """The command that downloads what is not cached."""
    option = "" if name in PRESETS else f"--kind {kind} "
    return f"while online, run: dslo weights {option}{name}"


def _is_offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE
