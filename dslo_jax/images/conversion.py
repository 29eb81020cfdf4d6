"""Conversion of pictures and arrays to 8-bit sRGB, with a note for every change.

Pillow alone would clip deep pictures, which turns them white, and would show colours
that are hidden under full transparency. Here nothing is clipped or changed without a
note.
"""

import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from dslo_jax.errors import ImageError


_ACCEPTED = (
    "accepted: uint8 [height, width, 3], float in [0, 1] of the same shape, grey "
    "[height, width], RGBA with 4 channels, and channels first where it is unambiguous"
)
_CHANNELS = (1, 3, 4)


def to_srgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Convert a picture of any mode to RGB in the sRGB colour space.

    16-bit values are divided by 257, and floats in [0, 1] multiplied by 255. Values
    outside these ranges are scaled so that their minimum becomes 0 and their maximum
    255. Transparency is composited on white, and an embedded ICC profile is applied.

    Args:
        image: An upright, decoded picture.

    Returns:
        An RGB image of the same size, and a note for each conversion.

    Raises:
        ImageError: Float pixels hold NaN or infinity (``I06``).
    """
    notes: list[str] = []
    profile = image.info.get("icc_profile")
    if image.mode == "F" or image.mode.startswith("I"):
        image, note = _to_8_bit(image)
        notes.append(note)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("L", "LA", "La") else "RGBA")
        alpha = image.getchannel("A")
        image = image.convert(image.mode[:-1])
    colour, colour_notes = _to_rgb(image, profile)
    notes += colour_notes
    if alpha is not None and np.asarray(alpha).min() < 255:
        white = Image.new("RGB", image.size, "white")
        white.paste(colour, mask=alpha)
        colour = white
        notes.append("alpha composited on white")
    return colour, notes


def image_of_array(source: Any) -> tuple[Image.Image, list[str]]:
    """Make a picture of an array whose shape, type and range are unambiguous.

    Args:
        source: Anything that NumPy can read as an array.

    Returns:
        An L, RGB or RGBA image that shares no memory with ``source``, and a note for
        each conversion.

    Raises:
        ImageError: Shape, type or range is ambiguous (``I06``).
    """
    notes = []
    if getattr(source, "requires_grad", False):
        source = source.detach()
        notes.append("detached from its gradient")
    try:
        array = np.asarray(source)
    except Exception as error:  # ``__array__`` of another library may raise anything
        raise ImageError(
            "I06", f"{type(source).__name__} gives no array: {error}; {_ACCEPTED}"
        ) from error
    _check_type(array)
    array = _channels_last(array, notes)
    if array.dtype != np.uint8:
        array = np.rint(array.astype(np.float64) * 255).astype(np.uint8)
        notes.append("float in [0, 1] scaled to 8 bit")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return Image.fromarray(np.array(array, order="C")), notes


def _check_type(array: np.ndarray) -> None:
    if array.size == 0:
        raise _ambiguous(array, "it has no pixels")
    if array.dtype.kind == "b":
        raise _ambiguous(array, "a mask is not a photo")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise _ambiguous(array, "it holds NaN or infinity")
        if array.min() < 0 or array.max() > 1:
            raise _ambiguous(array, "floats must be in [0, 1]; divide by their scale")
    elif array.dtype != np.uint8:
        raise _ambiguous(array, "its range is unknown; scale it to uint8 or [0, 1]")


def _channels_last(array: np.ndarray, notes: list[str]) -> np.ndarray:
    if array.ndim == 2:
        return array
    if array.ndim == 4:
        raise _ambiguous(array, "it has a batch axis; give one photo at a time")
    if array.ndim != 3:
        raise _ambiguous(array, "it is not an image")
    first, last = array.shape[0] in _CHANNELS, array.shape[2] in _CHANNELS
    if first and last:
        raise _ambiguous(
            array, "channels may be first or last; give a PIL image instead"
        )
    if last:
        return array
    if first and array.shape[0] > 1:  # a leading axis of 1 could also be a batch axis
        notes.append("channels moved from first to last")
        return np.moveaxis(array, 0, 2)
    raise _ambiguous(array, "no axis holds 3 channels")


def _ambiguous(array: np.ndarray, reason: str) -> ImageError:
    values = ""
    if array.size and array.dtype.kind in "biuf":
        values = f", min {array.min()}, max {array.max()}"
    return ImageError(
        "I06",
        f"cannot take an array of shape {array.shape}, {array.dtype}{values} as a "
        f"photo: {reason}; {_ACCEPTED}",
    )


def _to_8_bit(image: Image.Image) -> tuple[Image.Image, str]:
    """Scale a grey picture of more than 8 bits, without clipping."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ImageError("I06", "the pixels hold NaN or infinity; replace them first")
    low, high = values.min(), values.max()
    if image.mode == "F" and low >= 0 and high <= 1:
        scaled, note = values * 255, "float in [0, 1] scaled to 8 bit"
    elif image.mode != "F" and low >= 0 and high <= 65535:
        scaled, note = values / 257, "16-bit scaled to 8 bit"
    else:
        scaled = (values - low) / (high - low if high > low else 1) * 255
        note = f"values from {low:g} to {high:g} stretched to 8 bit"
    return Image.fromarray(np.rint(scaled).astype(np.uint8)), note


def _to_rgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, list[str]]:
    """Apply the colour profile, or Pillow's own conversion where there is none."""
    mode, notes = image.mode, []
    if mode not in ("RGB", "L", "CMYK", "LAB"):  # no profile is made for other modes
        image = image.convert("RGB")
    if mode == "LAB":
        # Pillow's own ``convert`` has no conversion from LAB.
        source = ImageCms.createProfile("LAB")
        return _apply_profile(image, source), ["LAB converted to sRGB"]
    if profile is not None:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            name = ImageCms.getProfileDescription(source).strip()
            # Pixels that are in sRGB already are not changed at all.
            if image.mode != "RGB" or "sRGB" not in name:
                converted = _apply_profile(image, source)
                return converted, [f"ICC profile {name!r} ({mode}) converted to sRGB"]
        except (ImageCms.PyCMSError, OSError):
            notes.append("ICC profile damaged or of another colour space, ignored")
    if mode == "CMYK":
        notes.append("CMYK without a usable profile converted to RGB")
    elif mode == "L":
        notes.append("grey repeated to three channels")
    elif mode != "RGB":
        notes.append(f"{mode} converted to RGB")
    return image.convert("RGB"), notes


def _apply_profile(image: Image.Image, source: Any) -> Image.Image:
    target = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    assert converted is not None  # it is None only for in-place conversions
    return converted
