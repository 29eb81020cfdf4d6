"""Pixels that become background, and labels as the caller counts classes.

Published methods give a pixel to the background where no name is probable enough: in
SCLIP and ClearCLIP this is ``prob_thd`` of ``postprocess_result`` (wangf3014/SCLIP,
``clip_segmentor.py``; mc-lan/ClearCLIP, ``clearclip_segmentor.py``).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int32

from dslo_jax import ops
from dslo_jax.config import SegmenterConfig
from dslo_jax.errors import OptionError


_STRIP = 256  # rows of pixels at a time: 2 MB of a photo 2048 pixels wide


class ClassLabels(NamedTuple):
    """The labels of one photo, as indices of classes.

    Attributes:
        labels: Index of the class of every pixel.
        ties: Share of the pixels, in [0, 1], that several classes could have had.
        unsure: Share of the pixels, in [0, 1], that are background because their
            greatest probability is below the threshold; ``None`` without a threshold.
    """

    labels: Int32[np.ndarray, "height width"]
    ties: float
    unsure: float | None = None


def check_background(config: SegmenterConfig, background: int | None) -> None:
    """Refuse a threshold without a background class.

    Args:
        config: The options.
        background: Index of the background class, if there is one.

    Raises:
        OptionError: There is a threshold, and no background class (``O05``).
    """
    if config.background.is_used and background is None:
        raise OptionError(
            "O05",
            f"background_threshold = {config.background.threshold} needs a background "
            'class; call a class "background", or add one: --background sclip, in '
            "Python prompts.with_background(classes)",
        )


def find_unsure(
    confidence: Float[np.ndarray, " patches"],
    grid: tuple[int, int],
    size: tuple[int, int],
    threshold: float,
) -> Bool[np.ndarray, "height width"]:
    """Find the pixels whose greatest probability is below the threshold.

    Args:
        confidence: The greatest probability of any name in every patch, row by row.
        grid: Number of rows and of columns of the patches.
        size: Height and width of the photo; the probabilities are upsampled bilinearly.
        threshold: From 0 to 1.

    Returns:
        True for those pixels. A probability of NaN is not below anything.
    """
    down, across = (ops.resize_weights(*pair) for pair in zip(grid, size, strict=True))
    rows = np.asarray(confidence, np.float32).reshape(grid) @ across.T
    unsure = np.empty(size, bool)
    for top in range(0, size[0], _STRIP):
        strip = slice(top, top + _STRIP)
        np.less(down[strip] @ rows, np.float32(threshold), out=unsure[strip])
    return unsure


def label_classes(
    found: ops.PixelLabels,
    active: Int32[np.ndarray, " active"],
    unsure: Bool[np.ndarray, "height width"] | None = None,
    background: int | None = None,
) -> ClassLabels:
    """Turn labels that count the active classes into indices of all classes.

    Args:
        found: For each pixel a row of ``active``, and the ties.
        active: Index of each class that survived early rejection.
        unsure: The pixels that become background; ``None`` without a threshold.
        background: Index of the background class. It need not be active.
    """
    labels, tied = active[found.labels], np.asarray(found.tied)
    if unsure is None:
        return ClassLabels(labels, np.count_nonzero(tied) / labels.size)
    labels[unsure] = background
    ties = np.count_nonzero(tied & ~unsure) / labels.size
    return ClassLabels(labels, ties, np.count_nonzero(unsure) / labels.size)
