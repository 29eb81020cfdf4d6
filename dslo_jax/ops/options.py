"""Options of the steps from logits to sources, and from maps to labels."""

from dataclasses import dataclass
from typing import Literal

from dslo_jax.ops.logits import Suppression
from dslo_jax.options import MAX_FLOAT, MIN_FLOAT, Options, option


@dataclass(frozen=True)
class SourceOptions(Options):
    """Options of the steps from logits to the distributions of a solver.

    Args:
        early_rejection: Drop classes that win no patch (Algorithm 1, line 2).
        rejection_share: Share of the patches, in [0, 1], that a class must exceed to
            survive early rejection; the class that wins the most always survives.
        suppression: Confidence of a class in a patch, which decides whether the class
            keeps the patch: ``relative`` (its probability among the classes, divided by
            its greatest one), ``softmax`` (that probability), ``minmax`` (its cosines,
            scaled to [0, 1]), or ``none`` (it keeps all patches).
        suppression_threshold: Confidence below which a class loses a patch, in [0, 1].
        source_scale: Factor on the logits of a class before the softmax over the
            patches, > 0.
    """

    early_rejection: bool = option(True)
    rejection_share: float = option(0.0, low=0, high=1)
    suppression: Suppression = option("relative")
    suppression_threshold: float = option(0.9, low=0, high=1)
    source_scale: float = option(1.0, low=MIN_FLOAT, high=MAX_FLOAT)


@dataclass(frozen=True)
class BackgroundOptions(Options):
    """Options of the threshold below which a pixel becomes background.

    The probability of a name in a patch is the softmax over all names of the cosine
    times ``scale``. A pixel whose greatest probability is below ``threshold`` gets the
    label of the background class, as with ``prob_thd`` of SCLIP and ClearCLIP.

    Args:
        threshold: Probability below which a pixel becomes background, from 0 (off) to
            1; it needs a background class.
        scale: Factor on the cosines before the softmax over all names, > 0.
    """

    threshold: float = option(0.0, flat="background_threshold", low=0, high=1)
    scale: float = option(40.0, flat="background_scale", low=MIN_FLOAT, high=MAX_FLOAT)

    @property
    def is_used(self) -> bool:
        """Whether any pixel may become background."""
        return self.threshold > 0


@dataclass(frozen=True)
class UpsamplingOptions(Options):
    """Options of the step from maps on the patch grid to labels of the pixels.

    Args:
        upsampling: How pixels get values from patches: ``bilateral`` (Eq. 23 from the
            nearest patches), ``dense`` (Eq. 23 from all pixels of a window, slower), or
            ``bilinear`` (without the colours of the photo).
        spatial_variance: Spatial variance of the bilateral weights, in patches squared,
            > 0.
        range_variance: Colour variance of the bilateral weights, for RGB in [0, 1],
            > 0.
    """

    upsampling: Literal["bilateral", "dense", "bilinear"] = option("bilateral")
    spatial_variance: float = option(1.0, low=MIN_FLOAT, high=MAX_FLOAT)
    range_variance: float = option(0.1, low=MIN_FLOAT, high=MAX_FLOAT)

    @property
    def is_coloured(self) -> bool:
        """Whether the labels depend on the colours of a photo."""
        return self.upsampling != "bilinear"
