"""From class logits to sources: resampling, early rejection, NMS, normalisation."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor


Suppression = Literal["minmax", "softmax", "relative", "none"]

# The scale that CLIP was trained with: its probabilities are softmax(100 cosine).
_CLIP_SCALE = 100.0


def resize(
    values: Float[Tensor, "classes height width"], size: tuple[int, int]
) -> Float[Tensor, "classes new_height new_width"]:
    """Bilinear, pixel centres at half-integers, no antialiasing."""
    return F.interpolate(values[None], size, mode="bilinear", align_corners=False)[0]


def reject_classes(
    logits: Float[Tensor, "classes patches"], *, share: float = 0.0
) -> Int64[Tensor, " active"]:
    """The classes that win patches (Algorithm 1, line 2), in ascending order.

    More than a share of the patches; or, where none does, the most of all.
    """
    classes, wins = logits.argmax(dim=0).unique(sorted=True, return_counts=True)
    stays = wins > share * logits.shape[1]
    return classes[stays if stays.any() else wins == wins.max()]


def suppress(
    logits: Float[Tensor, "classes patches"],
    *,
    method: Suppression = "relative",
    threshold: float = 0.9,
) -> Bool[Tensor, "classes patches"]:
    """Which patches are reliable (NMS).

    A class without a reliable patch keeps its best one, or all that share first place.

    Args:
        logits: Cosines of all classes.
        method: What is compared with the threshold: the logits of a class scaled to [0,
            1] (``minmax``); the probability of the class in the patch (``softmax``);
            the same as a share of the best probability that the class has anywhere
            (``relative``).
        threshold: Confidence below which a patch is noise, in [0, 1].
    """
    if method == "none":
        return torch.ones_like(logits, dtype=torch.bool)
    rows = []
    for row in _confidence(logits, method):
        reliable = row >= threshold
        rows.append(reliable if reliable.any() else row == row.max())
    return torch.stack(rows)


def normalize(
    logits: Float[Tensor, "classes patches"],
    keep: Bool[Tensor, "classes patches"],
    *,
    scale: float = 1.0,
) -> Float[Tensor, "classes patches"]:
    """Softmax over the patches that are kept; rows sum to 1, the rest is 0."""
    masked = (scale * logits).masked_fill(~keep, -torch.inf)
    return torch.softmax(masked, dim=1)


def _confidence(logits: Tensor, method: Suppression) -> Tensor:
    if method == "minmax":
        low = logits.amin(dim=1, keepdim=True)
        spread = logits.amax(dim=1, keepdim=True) - low
        return (logits - low) / torch.where(spread > 0, spread, 1)
    # In float32 a hopeless class would underflow to a flat zero and have no best patch.
    probability = torch.softmax(_CLIP_SCALE * logits.double(), dim=0)
    if method == "softmax":
        return probability
    return probability / probability.amax(dim=1, keepdim=True)
