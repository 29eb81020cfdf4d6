"""Finding a tokenizer for a CLIP whose checkpoint has none."""

from pathlib import Path

from dslo_jax.errors import CheckpointError
from dslo_jax.hub.download import fetch
from dslo_jax.hub.folders import has_tokenizer
from dslo_jax.hub.messages import explain, is_about_download, reason_of
from dslo_jax.hub.presets import PRESETS
from dslo_jax.hub.repositories import (
    TOKENIZER_FILES,
    cached_folder,
    is_offline,
    list_repository,
)


_VOCABULARY = 49408  # number of tokens of OpenAI's tokenizer
_PRESET = "clip-b16"


def find_tokenizer(
    place: Path, vocab_size: int, *, offline: bool = False, cache: Path | None = None
) -> Path:
    """Find the folder with the tokenizer of a CLIP.

    OpenAI's checkpoints and many of open_clip have no tokenizer files. They use the
    tokenizer of OpenAI's CLIP, whose files (3 MB) are then taken from the preset
    ``clip-b16``, without its weights.

    Args:
        place: The folder or the file of the checkpoint.
        vocab_size: Number of tokens of the text network.
        offline: Whether to open no network connection.
        cache: Folder of the downloads; the cache of huggingface_hub when ``None``.

    Returns:
        The checkpoint's own folder, or that of the preset.

    Raises:
        CheckpointError: No tokenizer was found (``W08``); the message says what to do.
    """
    folder = place if place.is_dir() else place.parent
    if has_tokenizer(folder):
        return folder
    if vocab_size != _VOCABULARY:
        raise _no_tokenizer(
            folder,
            f"its text network knows {vocab_size} tokens, OpenAI's {_VOCABULARY}",
        )
    mirrors = PRESETS[_PRESET].mirrors
    for mirror in mirrors:
        cached = cached_folder(mirror, cache)
        if cached is not None and has_tokenizer(cached):
            return cached
    if offline or is_offline():
        raise _no_tokenizer(folder, "and no socket may be opened")
    try:
        listing = list_repository(mirrors[-1])
        files = [file for file in listing.files if file.name in TOKENIZER_FILES]
        return fetch(listing, files, cache)
    except Exception as error:
        if not is_about_download(error):
            raise
        raise _no_tokenizer(folder, reason_of(explain(error, mirrors[-1]))) from error


def _no_tokenizer(folder: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        "W08",
        f"{folder} has no tokenizer ({reason}); copy the tokenizer.json of your CLIP, "
        f"or its vocab.json and merges.txt, into {folder}, or for OpenAI's tokenizer "
        f"run while online: dslo weights {_PRESET}",
    )
