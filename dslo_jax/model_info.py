"""The networks that a result was computed with, and where they are from."""

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that a result was computed with, as far as it is known.

    Attributes:
        name: Preset, repository, folder or file, as it was asked for.
        repository: Owner and name on the Hub; ``None`` for a folder or file.
        revision: Commit of the repository; ``None`` for a folder or file.
        files: Pairs of a file of the repository and its SHA-256. It holds the files
            whose hash the download noted; nothing is hashed for it.
    """

    name: str
    repository: str | None = None
    revision: str | None = None
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ModelInfo:
    """The networks that a result was computed with.

    Attributes:
        name: Name or folder of the pair.
        clip: The source of logits.
        attention: The source of affinities; ``None`` if none was needed.
        precision: Type of the parameters, such as ``"bfloat16"``.
        device: Kind of the device, as JAX calls it.
        proxy: The proxy of the source of logits; ``None`` if none was needed.
    """

    name: str
    clip: Checkpoint
    attention: Checkpoint | None
    precision: str
    device: str
    proxy: Checkpoint | None = None

    def used(self, *, attention: bool, proxy: bool) -> "ModelInfo":
        """The same without the networks that a result does not need."""
        return dataclasses.replace(
            self,
            attention=self.attention if attention else None,
            proxy=self.proxy if proxy else None,
        )

    @property
    def facts(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        facts = dataclasses.asdict(self)
        for part in ("clip", "attention", "proxy"):
            if facts[part] is not None:
                facts[part]["files"] = dict(facts[part]["files"])
        return facts
