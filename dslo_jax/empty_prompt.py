"""The context of the empty prompt: one constant of a Stable Diffusion checkpoint.

Computing it needs the text encoder; the constant itself has 300 kB. It comes from the
first of these:

1. ``empty_prompt.safetensors`` in the folder of the pipeline;
2. the cache, under the identity of the pipeline;
3. the text encoder, which is loaded, used once and dropped.

For a folder in the cache of huggingface_hub, the identity is its repository and commit.
Once the context is cached, the text encoder is never downloaded again. For any other
folder, the identity is a SHA-256 of the names, sizes, modification times and first
bytes of the text encoder's files of weights, and of the full contents of its
``config.json`` and of the tokenizer's files.
"""

import hashlib
import logging
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from dslo_jax.cache.folders import root as cache_root
from dslo_jax.errors import CheckpointError
from dslo_jax.files import atomic_file
from dslo_jax.models.clip_text import load_text_encoder
from dslo_jax.prompts import load_tokenizer
from dslo_jax.weights import choose_files


logger = logging.getLogger(__name__)

FILE_NAME = "empty_prompt.safetensors"

_TENSOR = "context"
_TEXT_ENCODER = "text_encoder"
_TOKENIZER = "tokenizer"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HEAD_BYTES = 1 << 20  # more than the header of any file of weights


def load_empty_prompt(folder: Path) -> np.ndarray:
    """The context of the empty prompt of a pipeline folder.

    Args:
        folder: A diffusers pipeline.

    Returns:
        float32 ``[1 tokens channels]``: the last hidden state of the text encoder for
        an empty text, padded by the folder's tokenizer.

    Raises:
        CheckpointError: There is neither a text encoder nor a stored context
            (``W01``), the stored context is damaged (``W04``), or the text encoder or
            the tokenizer cannot be loaded.
    """
    stored = folder / FILE_NAME
    if stored.is_file():
        context = _read(stored)
        if context is None:
            raise CheckpointError(
                "W04",
                f"{stored} is damaged: expected one finite tensor {_TENSOR!r} of shape "
                "(1, tokens, channels); download it again",
            )
        return context
    has_encoder = (folder / _TEXT_ENCODER / "config.json").is_file()
    if not has_encoder and not knows_empty_prompt(folder):
        raise CheckpointError(
            "W01",
            f"{folder} has neither {_TEXT_ENCODER}/ nor {FILE_NAME}; download the "
            f"pipeline with its text encoder and its tokenizer",
        )
    cached = _cached(folder)
    context = _read(cached)
    if context is None:
        context = _encode(folder)
        if cached is None:
            return context
        try:
            save_empty_prompt(context, cached)
        except OSError as error:
            logger.warning("the empty prompt is not cached: %s", error)
    return context


def knows_empty_prompt(folder: Path) -> bool:
    """Whether the context of a pipeline is known without its text encoder.

    Args:
        folder: A diffusers pipeline, complete or not.
    """
    if (folder / FILE_NAME).is_file():
        return True
    return _hub_identity(folder) != "" and _read(_cached(folder)) is not None


def save_empty_prompt(context: np.ndarray, path: Path) -> None:
    """Write a context to a file, whole or not at all.

    Args:
        context: ``[1 tokens channels]``.
        path: File to write; its folder is created when missing.

    Raises:
        OSError: The folder cannot be written.
    """
    tensors = {_TENSOR: np.ascontiguousarray(context, np.float32)}
    with atomic_file(path) as file:
        save_file(tensors, file.name)


def _encode(folder: Path) -> np.ndarray:
    """Run the text encoder on the empty text."""
    tokenizer = load_tokenizer(folder / _TOKENIZER)
    encoder = load_text_encoder(folder / _TEXT_ENCODER)
    ids = tokenizer(
        "",
        padding="max_length",
        truncation=True,
        max_length=min(
            tokenizer.model_max_length, encoder.config.max_position_embeddings
        ),
    )["input_ids"]
    with jax.default_matmul_precision("highest"):
        return np.asarray(encoder(jnp.asarray([ids], jnp.int32)))


def _read(path: Path | None) -> np.ndarray | None:
    """The context in a file; ``None`` if the file holds no usable context."""
    if path is None:
        return None
    try:
        context = load_file(path)[_TENSOR].astype(np.float32)
    except (OSError, KeyError, TypeError, ValueError, SafetensorError):
        return None
    usable = context.ndim == 3 and len(context) == 1 and np.isfinite(context).all()
    return context if usable else None


def _cached(folder: Path) -> Path | None:
    """File in which the context of a pipeline is kept between runs, if any is."""
    root = cache_root()
    identity = _hub_identity(folder) or _fingerprint(folder)
    return root and root / f"empty-prompt-{identity}.safetensors"


def _hub_identity(folder: Path) -> str:
    """Repository and commit of a folder in huggingface_hub's cache; else empty."""
    snapshots = folder.parent
    if snapshots.name != "snapshots" or not _COMMIT.fullmatch(folder.name):
        return ""
    return f"{snapshots.parent.name.removeprefix('models--')}-{folder.name}"


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    encoder = folder / _TEXT_ENCODER
    for name in choose_files(path.name for path in encoder.iterdir()):
        status = (encoder / name).stat()
        digest.update(f"{name} {status.st_size} {status.st_mtime_ns}".encode())
        with (encoder / name).open("rb") as file:
            digest.update(file.read(_HEAD_BYTES))
    small = [folder / _TEXT_ENCODER / "config.json"]
    small += sorted((folder / _TOKENIZER).glob("*"))
    for path in small:
        if path.is_file():
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:32]
