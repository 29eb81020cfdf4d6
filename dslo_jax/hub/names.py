"""Finding a checkpoint by its name: a folder, a file, a preset or a repository.

A folder or a file is used as it is, without a network. The mirrors of a preset are
tried one after another. Files in the cache are used without any request. Only
configurations, tokenizer files and one set of weights of a repository are downloaded.
"""

import os
import re
from pathlib import Path

from dslo_jax.empty_prompt import knows_empty_prompt
from dslo_jax.errors import CheckpointError, brief, did_you_mean
from dslo_jax.hub.download import check_hashes, fetch
from dslo_jax.hub.folders import check_folder, in_half
from dslo_jax.hub.messages import (
    explain,
    is_about_download,
    no_mirror,
    not_cached,
    reason_of,
)
from dslo_jax.hub.presets import PRESETS, Kind, Mirror, Preset
from dslo_jax.hub.repositories import (
    cached_folder,
    is_offline,
    list_repository,
    needed_files,
    snapshot_folder,
)


_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_UNREACHABLE = "W11"


def resolve(
    name_or_path: str | Path,
    kind: Kind,
    *,
    offline: bool = False,
    half: bool = False,
    cache: Path | None = None,
) -> Path:
    """Find a checkpoint, and download it if it is not on disk.

    The logger ``dslo_jax.hub`` reports (INFO) what is downloaded, its size, and the
    folder it is downloaded to.

    Args:
        name_or_path: A folder or file, a preset (see ``PRESETS``), or a repository as
            ``owner/name`` or ``owner/name@revision``. A ``Path`` is always a folder or
            file.
        kind: ``"clip"``: a CLIP, its configuration, and perhaps its tokenizer.
            ``"diffusion"``: a diffusers pipeline with ``unet``, ``vae``,
            ``text_encoder`` and ``tokenizer``; the last two may be replaced by
            ``empty_prompt.safetensors``, or by the context that an earlier run has
            computed from them. ``"vit"``: a DINO or DINOv2. ``"attention"``: any of
            these; see ``attention_of``.
        offline: Whether to open no network connection. ``HF_HUB_OFFLINE=1`` in the
            environment has the same effect.
        half: Whether to download weights in half precision where they are offered.
        cache: Folder of the downloads; the cache of huggingface_hub when ``None``.

    Returns:
        A folder or file that passes ``check_folder``.

    Raises:
        CheckpointError: The name or the checkpoint does not exist (``W01``), it is
            damaged or not of this kind (``W02`` ... ``W08``), access is refused
            (``W09``), it is not cached and no network may be used (``W10``), the
            download failed (``W11``), or the mirrors failed for different reasons
            (``W12``).
    """
    name = str(name_or_path)
    place = os.path.expanduser(name)
    if isinstance(name_or_path, Path) or os.path.exists(place):
        check_folder(Path(place), kind)
        return Path(place)
    preset = find_preset(name, kind)
    missing, offline = "it is not on this machine", offline or is_offline()
    for mirror in preset.mirrors:
        folder = cached_folder(mirror, cache)
        if folder is None:
            continue
        try:
            check_folder(folder, preset.kind)
            check_hashes(folder, mirror, fully=False)
        except CheckpointError as error:
            if error.code != "W01":
                raise
            missing = reason_of(error)
            continue
        if half or offline or name not in PRESETS or not in_half(folder, preset.kind):
            return folder
    if offline:
        raise not_cached(name, preset, kind, missing, cache)
    return download(name, preset, kind, half=half, cache=cache)


def download(
    name: str, preset: Preset, kind: Kind, *, half: bool, cache: Path | None = None
) -> Path:
    """Download the missing files of a checkpoint from the first mirror that works.

    Args:
        name: Name of the checkpoint, for errors.
        preset: From ``find_preset``.
        kind: As for ``resolve``.
        half: As for ``resolve``.
        cache: As for ``resolve``.

    Raises:
        CheckpointError: No mirror can be used.
    """
    errors: dict[Mirror, CheckpointError] = {}
    for mirror in preset.mirrors:
        try:
            return _obtain(mirror, preset.kind, half=half, cache=cache)
        except Exception as error:
            if not is_about_download(error):
                raise
            errors[mirror] = explain(error, mirror)
            if errors[mirror].code == _UNREACHABLE:
                break  # the other mirrors are on the same hub
    raise no_mirror(name, preset, kind, errors, cache) from errors[mirror]


def verify(name: str, folder: Path) -> int:
    """Compare every byte of a preset's files with their known hashes.

    Args:
        name: A preset; no hashes are known for other names.
        folder: The folder that ``resolve`` returned for it.

    Returns:
        Number of files that were compared.

    Raises:
        CheckpointError: A file differs (``W02``).
    """
    for mirror in PRESETS[name].mirrors if name in PRESETS else ():
        if cached_folder(mirror) == folder:
            return check_hashes(folder, mirror, fully=True)
    return 0


def kind_of(name: str) -> Kind | None:
    """Kind of a preset; ``None`` for any other name."""
    return PRESETS[name].kind if name in PRESETS else None


def find_preset(name: str, kind: Kind) -> Preset:
    """Find the preset of a name, or make one for a single repository.

    Raises:
        CheckpointError: The name is neither a preset nor a repository (``W01``), or
            the preset is of another kind (``W06``).
    """
    preset = PRESETS.get(name)
    if preset is not None and kind in (preset.kind, "attention"):
        return preset
    if preset is not None:
        raise CheckpointError(
            "W06", f"{name!r} is a {preset.kind} preset, expected one for {kind}"
        )
    repository, _, revision = name.partition("@")
    if _looks_like_path(name):
        raise CheckpointError(
            "W01",
            f"{name!r} looks like a folder or a file, and does not exist in "
            f"{Path.cwd()}{_neighbours(name)}",
        )
    if _REPOSITORY.fullmatch(repository):
        return Preset(kind, (Mirror(repository, revision or None),))
    known = [
        key for key, preset in PRESETS.items() if kind in (preset.kind, "attention")
    ]
    hint = did_you_mean(name, known, then=f"presets: {', '.join(known)}")
    raise CheckpointError(
        "W01", f"{brief(name)} is not a folder, a file or a preset; {hint}"
    )


def _obtain(mirror: Mirror, kind: Kind, *, half: bool, cache: Path | None) -> Path:
    """Download the checkpoint of one mirror, and check it."""
    listing = list_repository(mirror)
    known = knows_empty_prompt(snapshot_folder(listing, cache))
    files = needed_files(listing, kind, half=half, text_encoder=not known)
    folder = fetch(listing, files, cache)
    check_folder(folder, kind)
    return folder


def _looks_like_path(name: str) -> bool:
    """Whether a name that does not exist on disk was probably meant as a path.

    ``models/clip`` could also be a repository. It is taken as a path if there is a
    folder ``models``. ``models/clip@main`` is always a repository.
    """
    repository, at, _ = name.partition("@")
    if name.startswith((".", "~", "/")) or "\\" in name:
        return True
    if Path(name).suffix in (".pt", ".pth", ".bin", ".safetensors", ".msgpack"):
        return True
    if not _REPOSITORY.fullmatch(repository):
        return "/" in repository
    offered = {m.repository for preset in PRESETS.values() for m in preset.mirrors}
    return not at and repository not in offered and Path(name).parent.is_dir()


def _neighbours(name: str) -> str:
    """Hints for a missing path: files in its folder, and how to name a repository."""
    parent = Path(os.path.expanduser(name)).parent
    held = ""
    if parent.is_dir() and parent != Path():
        names = sorted(path.name for path in parent.iterdir())[:8]
        held = f"; {parent} holds {', '.join(names) or 'nothing'}"
    if _REPOSITORY.fullmatch(name) and not name.startswith("."):
        held += f"; for the repository of that name write {name}@main"
    return held
