"""Features from sliding windows, for any source of logits.

A network sees one part of the photo after the other. Windows are placed as in SCLIP
(``forward_slide`` in ``clip_segmentor.py`` of wangf3014/SCLIP), where the idea is that
of mmsegmentation: from the upper left corner in steps of the stride, the last window of
a row or column being moved back to the border of the photo.

The cosine of a word and a patch is linear in the feature of the patch. So the mean of
the features of all windows that cover a patch, not normalised again, has the mean of
their cosines with every word, and nothing that comes after the features has to know of
windows.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from dslo_jax.errors import OptionError
from dslo_jax.logits.options import ClipOptions
from dslo_jax.ops.patches import Patches


Features = Callable[[Patches], Float[Array, "batch patches channels"]]
"""A function that computes the features of the patches of some photos."""


class Windows(NamedTuple):
    """The sliding windows of a network; lengths are in patches.

    Attributes:
        side: Side of a window.
        stride: Distance between two windows.
        length: Greatest number of patches of a window.
    """

    side: int
    stride: int
    length: int

    @classmethod
    def of(cls, options: ClipOptions, patch: int) -> "Windows | None":
        """The windows of some options.

        Args:
            options: The options.
            patch: Side of a patch of the network, in pixels.

        Returns:
            ``None`` if the network sees the whole photo at once.

        Raises:
            OptionError: The side or the stride of a window is not a whole number of
                patches (``O01``).
        """
        if not options.window:
            return None
        for name in ("window", "window_stride"):
            pixels = getattr(options, name)
            if pixels % patch:
                below = pixels // patch * patch
                near = [str(size) for size in (below, below + patch) if size]
                raise OptionError(
                    "O01",
                    f"{name} = {pixels} is not a multiple of the {patch} pixels of a "
                    f"patch of this network; use {' or '.join(near)}",
                )
        side = options.window // patch
        shorter = max(options.short_side // patch, 1)  # side of a photo, or less
        return cls(side, options.window_stride // patch, side * min(side, shorter))

    def are_several(self, rows: int, columns: int) -> bool:
        """Whether a photo of so many patches is larger than one window."""
        return max(rows, columns) > self.side

    def count(self, patches: Int32[Array, ""]) -> Int32[Array, ""]:
        """Number of windows along a side of a photo."""
        beyond = jnp.maximum(patches - self.side, 0)
        return (beyond + self.stride - 1) // self.stride + 1


def window_features(
    features: Features, photos: Patches, windows: Windows, *, together: int
) -> Float[Array, "batch patches channels"]:
    """Compute the mean of the features of all windows that cover a patch.

    Args:
        features: Computes features of the windows, from RGB in [0, 1].
        photos: The photos, RGB in [0, 1].
        windows: The windows. A photo that is smaller than a window has windows of its
            own height or width.
        together: Number of windows that the network sees at once.

    Returns:
        Features of every patch of every photo, in the type of ``features``. They are
        shorter than 1 where windows disagree. Those of the padding are 0.
    """
    pairs = zip(photos.pixels, photos.grid, strict=True)
    found = [_of_photo(features, *pair, windows, together) for pair in pairs]
    return jnp.stack(found)


class _Cut(NamedTuple):
    """Windows of one photo, in sequences of the same length.

    Attributes:
        places: Number of every patch in the photo; the padding repeats the last one.
        is_real: False for the padding, and for windows beyond the last one.
        grid: Number of rows and of columns of every window.
    """

    places: Int32[Array, "windows length"]
    is_real: Bool[Array, "windows length"]
    grid: Int32[Array, "windows 2"]


def _cut(
    numbers: Int32[Array, " windows"], grid: Int32[Array, " 2"], windows: Windows
) -> _Cut:
    """Find the patches of some windows.

    Args:
        numbers: Which windows, counted row by row; beyond the last, it is repeated.
        grid: Number of rows and of columns of the photo.
        windows: The windows.
    """
    rows, columns = grid
    height, width = jnp.minimum(grid, windows.side)
    across = windows.count(columns)
    total = windows.count(rows) * across
    number = jnp.minimum(numbers, total - 1)[:, None]
    top = jnp.minimum(number // across * windows.stride, rows - height)
    left = jnp.minimum(number % across * windows.stride, columns - width)
    slot = jnp.arange(windows.length, dtype=jnp.int32)[None]
    inside = jnp.minimum(slot, height * width - 1)
    places = (top + inside // width) * columns + left + inside % width
    is_real = (slot < height * width) & (numbers < total)[:, None]
    size = jnp.stack([height, width])[None]
    return _Cut(places, is_real, jnp.repeat(size, len(numbers), axis=0))


def _of_photo(
    features: Features,
    pixels: Float[Array, "patches side side 3"],
    grid: Int32[Array, " 2"],
    windows: Windows,
    together: int,
) -> Float[Array, "patches channels"]:
    """The mean features of one photo, a fixed number of windows at a time."""
    patches = len(pixels)
    beyond = patches + jnp.arange(windows.length, dtype=jnp.int32)

    def see(step: Int32[Array, ""]) -> tuple[Array, _Cut]:
        cut = _cut(step * together + first, grid, windows)
        return features(Patches(pixels[cut.places], cut.grid)), cut

    def add(step: Int32[Array, ""], sums: tuple[Array, Array]) -> tuple[Array, Array]:
        found, cut = see(step)
        total, count = sums
        # One window after the other: within a window no patch occurs twice, so that the
        # order of the sums is always the same.
        for index in range(together):
            place = jnp.where(cut.is_real[index], cut.places[index], beyond)
            how = {"mode": "drop", "unique_indices": True}
            total = total.at[place].add(found[index].astype(jnp.float32), **how)
            count = count.at[place].add(1.0, **how)
        return total, count

    first = jnp.arange(together, dtype=jnp.int32)
    number = windows.count(grid[0]) * windows.count(grid[1])
    seen = jax.eval_shape(lambda step: see(step)[0], jax.ShapeDtypeStruct((), "int32"))
    sums = jnp.zeros((patches, seen.shape[-1])), jnp.zeros(patches)
    steps = (number + together - 1) // together
    total, count = jax.lax.fori_loop(0, steps, add, sums)
    return (total / jnp.maximum(count, 1)[:, None]).astype(seen.dtype)
