"""Photos of PyTorch: tensors with the channels first, in a known range."""

import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dslo_jax import images
from dslo_jax.errors import ImageError
from dslo_jax.images import Photo
from torch_bridge.arrays import BridgeError


def photos_of(image: Any, batch: int) -> list[Photo]:
    """The photos of a batch, one for each entry.

    Args:
        image: A tensor ``[batch, 3, height, width]``, uint8 or float in [0, 1]; or a
            list of such tensors without a batch axis, of paths, of Pillow images or of
            arrays.
        batch: Number of photos that are expected.

    Raises:
        BridgeError: It has another shape or type (``B04``).
        ImageError: The values are out of range (``I06``), or a photo cannot be read.
    """
    if isinstance(image, Tensor):
        if image.ndim != 4:
            raise _wrong_image(image)
    elif not isinstance(image, list | tuple):
        raise BridgeError(
            "B04",
            f"`image` is {words_of(image)}, expected a tensor [batch, 3, height, "
            "width], or a list of photos",
        )
    if len(image) != batch:
        raise BridgeError(
            "B04",
            f"`image` has {len(image)} photos, and the logits have {batch}; pass one "
            "photo for each entry of the batch",
        )
    return [
        _photo(each) if isinstance(each, Tensor) else images.read_photo(each)
        for each in image
    ]


def _photo(image: Tensor) -> Photo:
    """A photo of a tensor ``[3, height, width]``."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise _wrong_image(image)
    if image.is_floating_point():
        _check_range(image)
        image = (image.detach().float() * 255).round()
    elif image.dtype != torch.uint8:
        raise _wrong_image(image)
    pixels = image.detach().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return images.read_photo(Image.fromarray(np.ascontiguousarray(pixels)))


def _check_range(image: Tensor) -> None:
    """Refuse (``I06``) floats that are not in [0, 1]; the error names the remedy."""
    low, high = (float(each) for each in image.detach().float().aminmax())
    if low >= 0 and high <= 1:
        return
    if not (math.isfinite(low) and math.isfinite(high)):
        remedy = "it holds NaN or infinity"
    elif low < 0:
        remedy = (
            "it looks normalised. Undo that with the mean and std of your "
            "preprocessing: (image * std + mean).clamp(0, 1), or pass the photo itself"
        )
    else:
        remedy = "divide it by 255, or pass it as uint8"
    raise ImageError(
        "I06",
        f"`image` has values from {low:.4g} to {high:.4g}, expected floats in [0, 1]; "
        f"{remedy}",
    )


def _wrong_image(image: Tensor) -> BridgeError:
    return BridgeError(
        "B04",
        f"`image` is {words_of(image)}, expected uint8 or float [batch, 3, height, "
        "width], or a list of [3, height, width]; channels come first, RGB",
    )


def words_of(value: Any) -> str:
    """Type and shape of a tensor, or the type of anything else."""
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return type(value).__name__
