"""Features of class names, kept on disk: computing them takes longest of a start."""

import hashlib
import importlib.metadata
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from dslo_jax.cache import folders
from dslo_jax.cache.entries import Entries


_PACKAGE = Path(__file__).parents[1]
# What turns a name and parameters into features.
_SOURCES = (
    *("logits/*.py", "models/*.py", "pipeline/programs.py", "pipeline/stages.py"),
    *("prompts/embedding.py", "tokens.py"),
)
_LIBRARIES = ("flax", "ftfy", "numpy", "tokenizers", "transformers")
_TOKENIZER = ("*.json", "merges.txt")


class NameStore:
    """The features of names on disk, for one network and its tokenizer.

    Args:
        folder: From ``folders.private_folder``, for this network alone.
    """

    def __init__(self, folder: Path):
        self._entries = Entries(folder)

    @property
    def is_used(self) -> bool:
        """Whether features are on disk: the tokenizer has been loaded before."""
        return any(self._entries.folder.iterdir())

    @classmethod
    def of(cls, logits: Any, tokenizer: Path, device: Any) -> "NameStore | None":
        """The store of a source of logits.

        Parameters are compared by value, so that a checkpoint whose file was replaced
        is another network, whatever its name, size and times.

        Args:
            logits: A ``LogitsSource`` whose code belongs to this package.
            tokenizer: Folder of its tokenizer.
            device: The JAX device that it runs on.

        Returns:
            The store; ``None`` if the cache is switched off or cannot be used.
        """
        if folders.private_folder("names") is None:
            return None
        digest = hashlib.sha256(_circumstances().encode())
        graph = repr(nnx.graphdef(logits))  # all constants of the network
        digest.update(re.sub(r" at 0x[0-9a-f]+", "", graph).encode())
        for module in logits.networks()[logits.stages[0]]:
            for path, leaf in jax.tree.leaves_with_path(nnx.state(module)):
                values = np.ascontiguousarray(jax.device_get(leaf))
                digest.update(repr((path, values.shape, values.dtype)).encode())
                digest.update(values.reshape(-1).view(np.uint8))  # pyright: ignore[reportArgumentType]
        for path in _files(tokenizer, *_TOKENIZER):
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
        machine, network = folders.machine_key(device), digest.hexdigest()[:32]
        folder = folders.private_folder("names", machine, network)
        return folder and cls(folder)

    def read(
        self, name: str, templates: Sequence[str]
    ) -> Float[np.ndarray, " channels"] | None:
        """The features of a name; ``None`` if they are not on disk."""
        entry = self._entry(name, templates)
        content = self._entries.read(entry)
        if content is None:
            return None
        try:
            features = np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError):
            features = np.empty(0)
        usable = features.ndim == 1 and features.size and features.dtype == np.float32
        if not usable or not np.isfinite(features).all():
            self._entries.drop(entry, "it holds no features")
            return None
        return features

    def write(
        self,
        name: str,
        templates: Sequence[str],
        features: Float[np.ndarray, " channels"],
    ) -> None:
        """Keep the features of a name, unless they are not finite."""
        if np.isfinite(features).all():
            content = io.BytesIO()
            np.save(content, features, allow_pickle=False)
            self._entries.write(self._entry(name, templates), content.getvalue())

    def _entry(self, name: str, templates: Sequence[str]) -> str:
        digest = hashlib.sha256(repr((tuple(templates), name)).encode())
        return f"{digest.hexdigest()}.npy"


def _circumstances() -> str:
    """Everything besides network, tokenizer and machine that may change a feature."""
    code = hashlib.sha256()
    for path in _files(_PACKAGE, *_SOURCES):
        code.update(path.read_bytes())
    versions = [importlib.metadata.version(name) for name in _LIBRARIES]
    # XLA divides a sum among the processors.
    surroundings = [os.environ.get("XLA_FLAGS", ""), str(os.cpu_count())]
    return "\n".join([code.hexdigest(), *versions, *surroundings])


def _files(folder: Path, *patterns: str) -> list[Path]:
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file())
