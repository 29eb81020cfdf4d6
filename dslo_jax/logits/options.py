"""Options of the logits of CLIP."""

from dataclasses import dataclass
from typing import Literal

from dslo_jax.errors import OptionError
from dslo_jax.models.dense_clip.registry import ATTENTIONS
from dslo_jax.options import MAX_INT, Options, option


_MAX_SIDE = 2048  # pixels; the longer side of a photo for CLIP has no more either


@dataclass(frozen=True)
class ClipOptions(Options):
    """Options of the logits of CLIP.

    Args:
        attention: Attention of the last block of CLIP's vision network: means of
            queries and keys (``kk_mean`` ...), CLIP's own (``vanilla``), or that of a
            published method.
        short_side: Shorter side of the photo for CLIP, in pixels, up to 2048. A photo
            whose longer side would exceed 2048 pixels is resized until that side has
            2048, so its shorter side is less.
        shape: ``aspect`` keeps the aspect of the photo, ``square`` stretches it to a
            square with the side ``short_side``.
        window: Side of the sliding windows that CLIP sees, in pixels of the resized
            photo; 0 for the whole photo at once. The mean of the cosines of all windows
            that cover a patch is its cosine.
        window_stride: Distance between two windows, in pixels; used with ``window``,
            and at most as large.
        resample: Method that resizes the photo for CLIP: ``antialias`` (as Pillow),
            ``bilinear`` (as OpenCV), or ``area`` (the mean of an area).
        templates: Sentences for the class names, whose features are averaged:
            ``imagenet`` for the 80 of OpenAI, ``single`` for "a photo of a {}.", or
            your own, each with one ``{}`` for the name.
    """

    attention: str = option("kk_mean", flat="clip_attention", choices=tuple(ATTENTIONS))
    short_side: int = option(336, low=1, high=_MAX_SIDE)
    shape: Literal["aspect", "square"] = option("aspect", flat="clip_shape")
    window: int = option(0, low=0, high=MAX_INT)
    window_stride: int = option(112, low=1, high=MAX_INT)
    resample: Literal["antialias", "bilinear", "area"] = option("antialias")
    templates: Literal["imagenet", "single"] | tuple[str, ...] = option("imagenet")

    def __post_init__(self):
        super().__post_init__()
        if 0 < self.window < self.window_stride:
            raise OptionError(
                "O01",
                f"window_stride = {self.window_stride} is greater than window = "
                f"{self.window}, so that no window would see some of the patches; use "
                f"{self.window} or less",
            )

    @property
    def needs_proxy(self) -> bool:
        """Whether the attention needs a second network."""
        return ATTENTIONS[self.attention].needs_proxy
