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

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from dslo_jax.errors import OptionError
from dslo_jax.logits.options import ClipOptions
from dslo_jax.ops.patches import Patches


Features = Callable[..., Float[Array, "batch patches channels"]]
"""A function of ``Patches``, one for each network, that computes features."""


class Window(NamedTuple):
    """The sliding windows of one network; all lengths are in its patches.

    Attributes:
        side: Side of a window.
        stride: Distance between two windows.
        length: Greatest number of patches of a window.
    """

    side: int
    stride: int
    length: int

    def count(self, patches: Int32[Array, " sides"]) -> Int32[Array, " sides"]:
        """Number of windows along the sides of a photo."""
        beyond = jnp.maximum(patches - self.side, 0)
        return (beyond + self.stride - 1) // self.stride + 1


class Windows(NamedTuple):
    """The sliding windows of a source of logits.

    Attributes:
        networks: Those of the source itself and, if it has one, of its proxy.
        output: Index of the network whose patches get features; see ``Cuts``.
        together: Number of windows that the networks see at once.
    """

    networks: tuple[Window, ...]
    output: int = 0
    together: int = 1

    @classmethod
    def of(cls, options: ClipOptions, sides: Sequence[int]) -> "Windows | None":
        """The windows of some options.

        Args:
            options: The options.
            sides: Side of a patch of each network, in pixels; see ``Cuts``.

        Returns:
            ``None`` if the networks see the whole photo at once.

        Raises:
            OptionError: The side or the stride of a window is not a whole number of
                patches of each network (``O01``).
        """
        if not options.window:
            return None
        found = []
        for patch in sides:
            for name in ("window", "window_stride"):
                _check_multiple(name, getattr(options, name), patch)
            side, stride = options.window // patch, options.window_stride // patch
            shorter = max(options.short_side // patch, 1)  # side of a photo, or less
            found.append(Window(side, stride, side * min(side, shorter)))
        return cls(tuple(found))

    def are_several(self, grids: Sequence[Sequence[int]]) -> bool:
        """Whether a photo is larger than one window.

        Args:
            grids: Rows and columns of the photo in patches of each network.
        """
        pairs = zip(self.networks, grids, strict=True)
        return any(max(grid) > window.side for window, grid in pairs)


def window_features(
    features: Features, photos: Sequence[Patches], windows: Windows
) -> Float[Array, "batch patches channels"]:
    """Compute the mean of the features of all windows that cover a patch.

    Args:
        features: Computes features of windows, whose RGB is in [0, 1].
        photos: The photos for each network, RGB in [0, 1].
        windows: The windows. A photo that is smaller than a window has windows of its
            own height or width.

    Returns:
        Features of every patch of every photo, in the type of ``features``. They are
        shorter than 1 where windows disagree. Those of the padding are 0.
    """
    batch = len(photos[0].grid)
    found = [
        _of_photo(
            features,
            [tuple(jnp.asarray(part)[photo] for part in each) for each in photos],
            windows,
        )
        for photo in range(batch)
    ]
    return jnp.stack(found)


class _Cut(NamedTuple):
    """Windows of one photo for one network, in sequences of the same length.

    Attributes:
        places: Number of every patch in the photo; the padding repeats the last one.
        is_real: False for the padding.
        grid: Number of rows and of columns of every window.
    """

    places: Int32[Array, "windows length"]
    is_real: Bool[Array, " length"]
    grid: Int32[Array, "windows 2"]


def _cut(
    down: Int32[Array, " windows"],
    across: Int32[Array, " windows"],
    grid: Int32[Array, " 2"],
    window: Window,
) -> _Cut:
    """Find the patches of some windows.

    Args:
        down: Which windows, counted from above.
        across: The same, counted from the left.
        grid: Number of rows and of columns of the photo.
        window: The windows of the network.
    """
    (rows, columns), (height, width) = grid, jnp.minimum(grid, window.side)
    top = jnp.minimum(down * window.stride, rows - height)[:, None]
    left = jnp.minimum(across * window.stride, columns - width)[:, None]
    slot = jnp.arange(window.length, dtype=jnp.int32)
    inside = jnp.minimum(slot, height * width - 1)[None]
    places = (top + inside // width) * columns + left + inside % width
    size = jnp.stack([height, width])[None]
    return _Cut(places, slot < height * width, jnp.repeat(size, len(down), axis=0))


def _of_photo(
    features: Features,
    photo: Sequence[tuple[Float[Array, "_ _ _ 3"], Int32[Array, " 2"]]],
    windows: Windows,
) -> Float[Array, "patches channels"]:
    """The mean features of one photo, a fixed number of windows at a time.

    Networks with patches of different sides may see the photo in slightly different
    sizes. Both have the greater number of windows, of which the last one may be
    repeated.
    """
    pairs = zip(windows.networks, photo, strict=True)
    counts = jnp.stack([window.count(grid) for window, (_, grid) in pairs])
    rows, columns = jnp.max(counts, axis=0)
    first = jnp.arange(windows.together, dtype=jnp.int32)
    patches, output = len(photo[windows.output][0]), windows.networks[windows.output]
    beyond = patches + jnp.arange(output.length, dtype=jnp.int32)

    def see(step: Int32[Array, ""]) -> tuple[Array, _Cut]:
        number = jnp.minimum(step * windows.together + first, rows * columns - 1)
        cuts = [
            _cut(number // columns, number % columns, grid, window)
            for window, (_, grid) in zip(windows.networks, photo, strict=True)
        ]
        parts = [
            Patches(pixels[cut.places], cut.grid)
            for cut, (pixels, _) in zip(cuts, photo, strict=True)
        ]
        return features(*parts), cuts[windows.output]

    def add(step: Int32[Array, ""], sums: tuple[Array, Array]) -> tuple[Array, Array]:
        found, cut = see(step)
        total, count = sums
        # One window after the other: within a window no patch occurs twice, so that the
        # order of the sums is always the same.
        for index in range(windows.together):
            exists = step * windows.together + index < rows * columns
            place = jnp.where(cut.is_real & exists, cut.places[index], beyond)
            how = {"mode": "drop", "unique_indices": True}
            total = total.at[place].add(found[index].astype(jnp.float32), **how)
            count = count.at[place].add(1.0, **how)
        return total, count

    seen = jax.eval_shape(lambda step: see(step)[0], jax.ShapeDtypeStruct((), "int32"))
    sums = jnp.zeros((patches, seen.shape[-1])), jnp.zeros(patches)
    steps = (rows * columns + windows.together - 1) // windows.together
    total, count = jax.lax.fori_loop(0, steps, add, sums)
    return (total / jnp.maximum(count, 1)[:, None]).astype(seen.dtype)


def _check_multiple(name: str, pixels: int, patch: int) -> None:
    if pixels % patch == 0:
        return
    below = pixels // patch * patch
    near = " or ".join(str(size) for size in (below, below + patch) if size)
    raise OptionError(
        "O01",
        f"{name} = {pixels} is not a multiple of the {patch} pixels of a patch of this "
        f"network; use {near}",
    )
