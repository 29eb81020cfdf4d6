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
        suppression: Measure of confidence for the NMS; see ``ops.suppress``.
        suppression_threshold: Confidence below which a patch is dropped, in [0, 1].
        source_scale: Factor on the logits before the softmax over the patches.
    """

    early_rejection: bool = option(True)
    rejection_share: float = option(0.0, low=0, high=1)
    suppression: Suppression = option("relative")
    suppression_threshold: float = option(0.9, low=0, high=1)
    source_scale: float = option(1.0, low=MIN_FLOAT, high=MAX_FLOAT)


@dataclass(frozen=True)
class UpsamplingOptions(Options):
    """Options of the step from maps on the patch grid to labels of the pixels.

    Args:
        upsampling: ``bilateral`` (Eq. 23 from the nearest patches), ``dense`` (Eq. 23
            from all pixels of a window), or ``bilinear``.
        spatial_variance: Spatial variance of the bilateral weights, in patches squared.
        range_variance: Colour variance of the bilateral weights, RGB in [0, 1].
    """

    upsampling: Literal["bilateral", "dense", "bilinear"] = option("bilateral")
    spatial_variance: float = option(1.0, low=MIN_FLOAT, high=MAX_FLOAT)
    range_variance: float = option(0.1, low=MIN_FLOAT, high=MAX_FLOAT)
