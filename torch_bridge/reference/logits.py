"""Steps from class logits to sources: resampling, early rejection, NMS, softmax."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor


Suppression = Literal["minmax", "softmax", "relative", "none"]

# The scale of CLIP's training: its probabilities are softmax(100 cosine).
_CLIP_SCALE = 100.0


def resize(
    values: Float[Tensor, "classes height width"], size: tuple[int, int]
) -> Float[Tensor, "classes new_height new_width"]:
    """Resize maps: bilinear, pixel centres at half-integers, without antialiasing."""
    return F.interpolate(values[None], size, mode="bilinear", align_corners=False)[0]


def reject_classes(
    logits: Float[Tensor, "classes patches"], *, share: float = 0.0
) -> Int64[Tensor, " active"]:
    """Find the classes that win patches (Algorithm 1, line 2), in ascending order.

    A class must win more than the share of the patches. If no class does, those that
    win the most stay.
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
    """Find the reliable patches of each class (NMS).

    A class without a reliable patch keeps its best patch, or all with the best value.

    Args:
        logits: Cosines of all classes.
        method: The confidence that is compared with the threshold: the logits of a
            class scaled to [0, 1] (``minmax``); the probability of the class in the
            patch (``softmax``); this probability divided by the greatest that the class
            has in any patch (``relative``).
        threshold: Confidence below which a patch is dropped, in [0, 1].
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
    """Softmax over the kept patches; rows sum to 1, and other patches are 0."""
    masked = (scale * logits).masked_fill(~keep, -torch.inf)
    return torch.softmax(masked, dim=1)


def unsure(
    cosines: Float[Tensor, "names height width"],
    grid: tuple[int, int],
    size: tuple[int, int],
    *,
    scale: float,
    threshold: float,
) -> Bool[Tensor, "photo_height photo_width"]:
    """Find the pixels in which no name is probable enough, so that they are background.

    Args:
        cosines: Cosine of every name in every patch of CLIP.
        grid: Height and width of the grid on which probabilities are computed.
        size: Height and width of the photo, to which they are enlarged.
        scale: Factor on the cosines before the softmax over the names.
        threshold: Least probability of the most probable name.
    """
    probability = torch.softmax(scale * resize(cosines, grid), dim=0).amax(dim=0)
    return resize(probability[None], size)[0] < threshold


def _confidence(logits: Tensor, method: Suppression) -> Tensor:
    if method == "minmax":
        low = logits.amin(dim=1, keepdim=True)
        spread = logits.amax(dim=1, keepdim=True) - low
        return (logits - low) / torch.where(spread > 0, spread, 1)
    # In float32 the probabilities of an improbable class would all underflow to 0, and
    # the class would have no best patch.
    probability = torch.softmax(_CLIP_SCALE * logits.double(), dim=0)
    if method == "softmax":
        return probability
    return probability / probability.amax(dim=1, keepdim=True)
