"""Repositories of the Hub: what they offer, what of it is needed, and fetching it.

The cache is that of huggingface_hub, so that other programs share the files. What this
module adds to that library: it lists a repository first, so that the size is known
before anything is fetched; a file of weights that was cut off is continued by the next
run; and the content of every large file is compared with its SHA-256.
"""

import hashlib
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from dslo_jax.errors import CheckpointError
from dslo_jax.hub.folders import CONFIG_FILES, NETWORKS, TEXT_ENCODER
from dslo_jax.hub.presets import Kind, Mirror
from dslo_jax.weights import choose_files


logger = logging.getLogger(__name__)

TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.json", "merges.txt"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
_SIDE_FILES = (*CONFIG_FILES, "preprocessor_config.json", "processor_config.json")
_PATIENCE = 8.0  # seconds in which the Hub has to say what a repository holds
_CONNECT_PATIENCE = 5.0
_COMMIT = re.compile(r"[0-9a-f]{40}")

Answer = TypeVar("Answer")


class RemoteFile(NamedTuple):
    """A file that a repository offers.

    Attributes:
        name: Relative to the repository.
        size: In bytes; 0 when the Hub does not say.
        sha256: Of its content; empty for a small file, which git keeps itself.
    """

    name: str
    size: int = 0
    sha256: str = ""


class Listing(NamedTuple):
    """What a repository holds at one commit.

    Attributes:
        mirror: The repository as it was asked for.
        commit: What its revision stands for now.
        files: All of its files.
    """

    mirror: Mirror
    commit: str
    files: tuple[RemoteFile, ...]


def cache_folder(cache: Path | None = None) -> Path:
    """Where downloads are kept: the given folder, or huggingface_hub's."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE if cache is None else cache)


def is_offline() -> bool:
    """Whether the environment turns the network off (``HF_HUB_OFFLINE=1``)."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def cached_folder(mirror: Mirror, cache: Path | None = None) -> Path | None:
    """The folder of what was fetched from a repository, whole or not, or ``None``.

    No socket is opened.
    """
    storage = _storage(mirror, cache)
    commit = mirror.revision or "main"
    if not _COMMIT.fullmatch(commit):
        reference = storage / "refs" / commit
        if not reference.is_file():
            return None
        commit = reference.read_text(encoding="utf-8").strip()
    folder = storage / "snapshots" / commit
    return folder if folder.is_dir() else None


def snapshot_folder(listing: Listing, cache: Path | None = None) -> Path:
    """The folder of the cache that the files of a listing go to, there or not."""
    return _storage(listing.mirror, cache) / "snapshots" / listing.commit


def list_repository(mirror: Mirror) -> Listing:
    """Ask the Hub what a repository holds.

    Raises:
        Exception: Whatever huggingface_hub or the network raises;
            ``TimeoutError`` when there is no answer within 8 seconds.
    """
    from huggingface_hub import HfApi, constants

    api = HfApi(endpoint=constants.ENDPOINT)

    def ask() -> Any:
        return api.model_info(
            mirror.repository,
            revision=mirror.revision,
            files_metadata=True,
            timeout=_CONNECT_PATIENCE,
        )

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


def needed_files(
    listing: Listing, kind: Kind, *, half: bool, text_encoder: bool
) -> tuple[RemoteFile, ...]:
    """The files of a repository that a checkpoint of this kind consists of.

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
    wanted = {"model_index.json", "empty_prompt.safetensors"}
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


def fetch(
    listing: Listing, files: Sequence[RemoteFile], cache: Path | None = None
) -> Path:
    """Fetch files into the cache; what is there already is not fetched again.

    Args:
        listing: Where they are.
        files: From ``needed_files``.
        cache: The cache; huggingface_hub's when ``None``.

    Returns:
        The folder that holds them.

    Raises:
        CheckpointError: A file is not the one that its hash stands for (``W02``), or
            the disk has too little room (``W11``).
        Exception: Whatever huggingface_hub or the network raises.
    """
    _check_pins(listing, files)
    missing = [file for file in files if not _is_here(listing, file, cache)]
    room = cache_folder(cache)
    size = sum(file.size - _part_size(listing, file, cache) for file in missing)
    if any(file.size > 1e6 for file in missing):
        logger.info(
            "downloading %s (%s) to %s",
            listing.mirror,
            readable_size(size),
            room,
        )
    _require_space(room, size)
    with _quiet_library():
        for file in files:
            if file.sha256 and file in missing:
                _fetch_weights(listing, file, cache)
            _link(listing, file, cache)
    return snapshot_folder(listing, cache)


def check_hashes(folder: Path, mirror: Mirror, *, fully: bool) -> int:
    """Compare the files of a folder with the known hashes of a mirror.

    Args:
        folder: A folder of the cache.
        mirror: Where it came from.
        fully: Read every byte. Otherwise the name counts that huggingface_hub's cache
            gives to a file, which is its SHA-256; where there is no such name, nothing
            is compared.

    Returns:
        How many files were compared.

    Raises:
        CheckpointError: A file differs (``W02``).
    """
    compared = 0
    for name, wanted in mirror.hashes:
        path = folder / name
        if not path.exists():
            continue
        stored = path.resolve().name
        if fully:
            found = sha256_of(path)
        elif re.fullmatch(r"[0-9a-f]{64}", stored):
            found = stored
        else:
            continue
        if found != wanted:
            raise _other_content(mirror, name, wanted, found)
        compared += 1
    return compared


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def readable_size(size: int) -> str:
    """A number of bytes in decimal units: 600 MB, 5.2 GB."""
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{max(size, 0) / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _fetch_weights(listing: Listing, file: RemoteFile, cache: Path | None) -> None:
    """Fetch one large file into the cache's store; go on where a run was cut off."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    blob = _blob(listing, file, cache)
    part = _part(listing, file, cache)
    part.parent.mkdir(parents=True, exist_ok=True)
    address = hf_hub_url(
        listing.mirror.repository,
        file.name,
        revision=listing.commit,
        endpoint=constants.ENDPOINT,
    )
    with WeakFileLock(part.with_suffix(".lock")):
        if blob.exists():  # another process was faster
            return
        try:
            with part.open("ab") as opened:
                http_get(
                    address,
                    opened,
                    resume_size=opened.tell(),
                    headers=build_hf_headers(),
                    expected_size=file.size or None,
                    displayed_filename=file.name,
                )
        except KeyboardInterrupt:
            logger.info("what was downloaded is kept; the same command goes on")
            raise
        found = sha256_of(part)
        if found != file.sha256:
            part.unlink()
            raise _other_content(listing.mirror, file.name, file.sha256, found)
        part.replace(blob)
    part.with_suffix(".lock").unlink(missing_ok=True)


def _link(listing: Listing, file: RemoteFile, cache: Path | None) -> None:
    """Put a file into the folder of its commit; fetch it if it is a small one."""
    from huggingface_hub import constants, hf_hub_download

    hf_hub_download(
        listing.mirror.repository,
        file.name,
        revision=listing.mirror.revision,
        cache_dir=cache,
        etag_timeout=_CONNECT_PATIENCE,
        endpoint=constants.ENDPOINT,
    )


def _check_pins(listing: Listing, files: Sequence[RemoteFile]) -> None:
    """Compare what the Hub says of its files with what is known, before fetching."""
    pins = dict(listing.mirror.hashes)
    for file in files:
        if file.sha256 and pins.get(file.name, file.sha256) != file.sha256:
            raise _other_content(
                listing.mirror, file.name, pins[file.name], file.sha256
            )


def _other_content(
    mirror: Mirror, name: str, wanted: str, found: str
) -> CheckpointError:
    return CheckpointError(
        "W02",
        f"{name} of {mirror} is another file than this version of dslo-jax knows: "
        f"sha256 {found}, expected {wanted}. Nothing was loaded. If you trust the "
        f"repository, name it in place of the preset: {mirror}",
    )


def _require_space(folder: Path, size: int) -> None:
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if size > free:
        raise CheckpointError(
            "W11",
            f"{readable_size(size)} are to be downloaded to {folder}, but only "
            f"{readable_size(free)} are free there; make room, or set HF_HOME to a "
            "folder on another disk",
        )


def _storage(mirror: Mirror, cache: Path | None) -> Path:
    return cache_folder(cache) / f"models--{mirror.repository.replace('/', '--')}"


def _blob(listing: Listing, file: RemoteFile, cache: Path | None) -> Path:
    return _storage(listing.mirror, cache) / "blobs" / file.sha256


def _part(listing: Listing, file: RemoteFile, cache: Path | None) -> Path:
    blob = _blob(listing, file, cache)
    return blob.with_name(f"{blob.name}.dslo-part")


def _part_size(listing: Listing, file: RemoteFile, cache: Path | None) -> int:
    part = _part(listing, file, cache)
    return part.stat().st_size if file.sha256 and part.is_file() else 0


def _is_here(listing: Listing, file: RemoteFile, cache: Path | None) -> bool:
    if file.sha256 and _blob(listing, file, cache).exists():
        return True
    return (snapshot_folder(listing, cache) / file.name).exists()


def _holds_pipeline(names: Iterable[str]) -> bool:
    return any(name == "model_index.json" or name.startswith("unet/") for name in names)


def _name_in(folder: str, name: str) -> str:
    """The name of a file in this folder, or nothing for a file elsewhere."""
    parent, _, rest = name.rpartition("/")
    return rest if parent == folder else ""


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """The answer to a question, or ``TimeoutError``.

    The time-outs of the network library do not cover the search for an address, which
    can take a minute where there is no network.
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


@contextmanager
def _quiet_library():
    """Keep the lines about retries to the library; what failed is told by us."""
    library = logging.getLogger("huggingface_hub")
    before = library.level
    library.setLevel(logging.ERROR)
    try:
        yield
    finally:
        library.setLevel(before)
