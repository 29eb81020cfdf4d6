"""Options of the logits of CLIP."""

from dataclasses import dataclass
from typing import Literal

from dslo_jax.models.dense_clip.registry import ATTENTIONS
from dslo_jax.options import MAX_INT, Options, option


@dataclass(frozen=True)
class ClipOptions(Options):
    """Options of the logits of CLIP.

    Args:
        attention: Attention of the last block of CLIP's vision network.
        short_side: Shorter side of the photo for CLIP, in pixels.
        resample: Method that resizes the photo for CLIP.
        templates: ``"imagenet"`` for the 80 of OpenAI, ``"single"`` for one, or your
            own, each with one ``{}``.
    """

    attention: str = option("kk_mean", flat="clip_attention", choices=tuple(ATTENTIONS))
    short_side: int = option(336, low=1, high=MAX_INT)
    resample: Literal["antialias", "bilinear", "area"] = option("antialias")
    templates: Literal["imagenet", "single"] | tuple[str, ...] = option("imagenet")

    @property
    def needs_proxy(self) -> bool:
        """Whether the attention needs a second network."""
        return ATTENTIONS[self.attention].needs_proxy
