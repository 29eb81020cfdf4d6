"""Downloading the files of a repository, and comparing them with their hashes.

This module adds two things to huggingface_hub: an interrupted download of weights is
continued by the next run, and every large file is compared with its SHA-256.
"""

import hashlib
import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from dslo_jax.errors import CheckpointError
from dslo_jax.hub.presets import Mirror
from dslo_jax.hub.repositories import (
    CONNECT_PATIENCE,
    Listing,
    RemoteFile,
    cache_folder,
    quiet_library,
    snapshot_folder,
    storage_folder,
)


logger = logging.getLogger(__name__)


def fetch(
    listing: Listing, files: Sequence[RemoteFile], cache: Path | None = None
) -> Path:
    """Download files into the cache, unless they are there already.

    Args:
        listing: The repository, at one commit.
        files: From ``needed_files``.
        cache: Folder of the downloads; the cache of huggingface_hub when ``None``.

    Returns:
        The folder that holds the files.

    Raises:
        CheckpointError: A file differs from its known hash (``W02``), or the disk has
            too little space (``W11``).
        Exception: Any error of huggingface_hub or of the network.
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
    with quiet_library():
        for file in files:
            if file.sha256 and file in missing:
                _fetch_weights(listing, file, cache)
            _link(listing, file, cache)
    return snapshot_folder(listing, cache)


def check_hashes(folder: Path, mirror: Mirror, *, fully: bool) -> int:
    """Compare the files of a folder with the known hashes of a mirror.

    Args:
        folder: A folder of the cache.
        mirror: The repository of its files.
        fully: Whether to read every byte. Otherwise the name that the cache of
            huggingface_hub gives to a file, its SHA-256, is compared; a file without
            such a name is not compared.

    Returns:
        Number of files that were compared.

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
    """A number of bytes in decimal units, such as 600 MB or 5.2 GB."""
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{max(size, 0) / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _fetch_weights(listing: Listing, file: RemoteFile, cache: Path | None) -> None:
    """Download one large file into the cache; continue an interrupted download."""
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
    """Put a file into the folder of its commit; a small file is downloaded here."""
    from huggingface_hub import constants, hf_hub_download

    hf_hub_download(
        listing.mirror.repository,
        file.name,
        revision=listing.mirror.revision,
        cache_dir=cache,
        etag_timeout=CONNECT_PATIENCE,
        endpoint=constants.ENDPOINT,
    )


def _check_pins(listing: Listing, files: Sequence[RemoteFile]) -> None:
    """Compare the hashes that the Hub announces with the known ones."""
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


def _blob(listing: Listing, file: RemoteFile, cache: Path | None) -> Path:
    return storage_folder(listing.mirror, cache) / "blobs" / file.sha256


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
