"""Repositories of the Hub: their files, those that are needed, and their cache.

The cache is that of huggingface_hub, so that other programs share the files.
"""

import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from dslo_jax.errors import CheckpointError
from dslo_jax.hub.folders import CONFIG_FILES, NETWORKS, TEXT_ENCODER
from dslo_jax.hub.presets import Kind, Mirror
from dslo_jax.models.noise_schedule import FILE_NAME as SCHEDULE_FILE
from dslo_jax.weights import choose_files


logger = logging.getLogger(__name__)

TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.json", "merges.txt"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
CONNECT_PATIENCE = 5.0
"""Time limit of a single request to the Hub, in seconds."""

_SIDE_FILES = (*CONFIG_FILES, "preprocessor_config.json", "processor_config.json")
_PATIENCE = 8.0  # time limit of listing a repository, in seconds
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Answer = TypeVar("Answer")


class RemoteFile(NamedTuple):
    """A file that a repository offers.

    Attributes:
        name: Path relative to the repository.
        size: Size in bytes; 0 if the Hub does not state it.
        sha256: SHA-256 of its content; empty for a small file, which is not in git-lfs.
    """

    name: str
    size: int = 0
    sha256: str = ""


class Listing(NamedTuple):
    """The files of a repository at one commit.

    Attributes:
        mirror: The repository as it was requested.
        commit: The commit of its revision now.
        files: All files of the commit.
    """

    mirror: Mirror
    commit: str
    files: tuple[RemoteFile, ...]


def cache_folder(cache: Path | None = None) -> Path:
    """Folder of the downloads: the given one, or the cache of huggingface_hub."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE if cache is None else cache)


def is_offline() -> bool:
    """Whether the environment turns the network off (``HF_HUB_OFFLINE=1``)."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def cached_folder(mirror: Mirror, cache: Path | None = None) -> Path | None:
    """The folder of the downloaded files of a repository, complete or not, or ``None``.

    No network is used.
    """
    storage = storage_folder(mirror, cache)
    commit = mirror.revision or "main"
    if not _COMMIT.fullmatch(commit):
        reference = storage / "refs" / commit
        if not reference.is_file():
            return None
        commit = reference.read_text(encoding="utf-8").strip()
    folder = storage / "snapshots" / commit
    return folder if folder.is_dir() else None


def snapshot_folder(listing: Listing, cache: Path | None = None) -> Path:
    """The folder of the cache for the files of a listing; it need not exist."""
    return storage_folder(listing.mirror, cache) / "snapshots" / listing.commit


def storage_folder(mirror: Mirror, cache: Path | None) -> Path:
    """Folder in which the cache keeps the files of a repository."""
    return cache_folder(cache) / f"models--{mirror.repository.replace('/', '--')}"


def source_of(place: Path) -> Mirror | None:
    """The repository, the commit and the known hashes of a downloaded checkpoint.

    The cache of huggingface_hub names a large file by its SHA-256, so nothing is read.

    Args:
        place: A folder of a snapshot in a cache of huggingface_hub.

    Returns:
        The repository with its commit and the hashes of its large files; ``None`` if
        the folder is none of a cache.
    """
    storage = place.parent.parent
    kind, *name = storage.name.split("--")
    if place.parent.name != "snapshots" or kind != "models" or not name:
        return None
    stored = ((path, path.resolve().name) for path in sorted(place.rglob("*")))
    hashes = tuple(
        (path.relative_to(place).as_posix(), blob)
        for path, blob in stored
        if _SHA256.fullmatch(blob)
    )
    return Mirror("/".join(name), place.name, hashes)


def list_repository(mirror: Mirror) -> Listing:
    """List the files of a repository.

    Raises:
        Exception: Any error of huggingface_hub or of the network; ``TimeoutError`` if
            there is no answer within 8 seconds.
    """
    from huggingface_hub import HfApi, constants

    api = HfApi(endpoint=constants.ENDPOINT)

    def ask() -> Any:
        return api.model_info(
            mirror.repository,
            revision=mirror.revision,
            files_metadata=True,
            timeout=CONNECT_PATIENCE,
        )

    with quiet_library():
        found = _within(_PATIENCE, ask)
    if found.id and found.id != mirror.repository:
        logger.info("%s is called %s now", mirror.repository, found.id)
    files = tuple(
        RemoteFile(
            sibling.rfilename,
            sibling.size or 0,
            sibling.lfs.sha256 if sibling.lfs else "",
        )
        for sibling in found.siblings or ()
    )
    return Listing(mirror, found.sha, files)


@contextmanager
def quiet_library() -> Iterator[None]:
    """Hide what huggingface_hub logs about retries and tokens.

    Failures have errors of our own.
    """
    library = logging.getLogger("huggingface_hub")
    before = library.level
    library.setLevel(logging.ERROR)
    try:
        yield
    finally:
        library.setLevel(before)


def needed_files(
    listing: Listing, kind: Kind, *, half: bool, text_encoder: bool
) -> tuple[RemoteFile, ...]:
    """Choose the files of a repository that a checkpoint of this kind needs.

    Args:
        listing: From ``list_repository``.
        kind: As for ``resolve``.
        half: Prefer weights in half precision.
        text_encoder: Whether the text encoder of a pipeline is needed.

    Raises:
        CheckpointError: A network has no weights that can be read (``W01``).
    """
    names = [file.name for file in listing.files]
    if kind == "attention":
        kind = "diffusion" if _holds_pipeline(names) else "clip"
    wanted = {"model_index.json", "empty_prompt.safetensors", SCHEDULE_FILE}
    if kind != "vit":
        tokenizers = "tokenizer" if kind == "diffusion" else ""
        wanted |= {_join(tokenizers, name) for name in TOKENIZER_FILES}
    lacking = []
    for network in NETWORKS[kind]:
        if network == TEXT_ENCODER and not text_encoder:
            continue
        inside = [_name_in(network.folder, name) for name in names]
        chosen = choose_files(filter(None, inside), half=half)
        if not chosen:
            lacking.append(network.folder or "weights")
        for name in (*chosen, *_SIDE_FILES):
            wanted.add(_join(network.folder, name))
    if lacking:
        large = [file.name for file in listing.files if file.size > 1e6][:6]
        raise CheckpointError(
            "W01",
            f"{listing.mirror} offers no {' and no '.join(lacking)} in a format that "
            f"is read here; its large files are: {', '.join(large) or 'none'}",
        )
    return tuple(file for file in listing.files if file.name in wanted)


def _holds_pipeline(names: Iterable[str]) -> bool:
    return any(name == "model_index.json" or name.startswith("unet/") for name in names)


def _name_in(folder: str, name: str) -> str:
    """The name of a file relative to its folder; empty for a file elsewhere."""
    parent, _, rest = name.rpartition("/")
    return rest if parent == folder else ""


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """Call a function with a time limit; ``TimeoutError`` if it takes longer.

    The time-outs of the network library do not cover the look-up of a host name, which
    may take a minute where there is no network.
    """
    answers: list[Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(os.strerror(110))
    return answers[0]
