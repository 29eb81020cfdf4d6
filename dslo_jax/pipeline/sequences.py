"""Photos of any size as sequences of few lengths, for the source of logits."""

import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest

import numpy as np

from dslo_jax import images, ops
from dslo_jax.images.resizing import MAX_LONG
from dslo_jax.logits import ClipOptions, Windows


ASPECTS = ((3, 4), (9, 16), (3, 8), (1, 5))
"""Height and width of the photos whose numbers of patches are the lengths of sequences,
beside the longest one. A photo of 4:3 or 16:9 is not padded at all, one of 3:2 by a
fifth, a square by a third. Every length more is a program more to compile."""


def photo_size(
    size: tuple[int, int], options: ClipOptions, patch: int
) -> tuple[int, int]:
    """Size of a photo for the network: multiples of ``patch``.

    Args:
        size: Height and width of the photo in pixels.
        options: Size and shape for the network.
        patch: Side of a patch in pixels.
    """
    if options.shape == "square":
        size = 1, 1
    return images.short_side_size(size, options.short_side, patch)


def sequence_lengths(options: ClipOptions, patch: int) -> tuple[int, ...]:
    """All lengths of sequences, in patches, in increasing order.

    Args:
        options: Size and shape for the network.
        patch: Side of a patch in pixels.

    Returns:
        The lengths; no photo has more patches than the last one. Squares have one
        length.
    """
    return tuple(sorted(set(_lengths(options, patch))))


def cut_photo(
    pixels: np.ndarray, options: ClipOptions, sides: Sequence[int]
) -> tuple[ops.Patches, ...]:
    """Resize a photo and cut it into a sequence of patches, for one or more networks.

    Which lengths the sequences have depends on the size of this photo alone. All of
    them are the first ones, or the second ones ... of their network: two networks
    together need no more programs than one. Where a network sees several windows, they
    are the last ones, because the windows are sequences of their own.

    Args:
        pixels: The photo, RGB from 0 to 255.
        options: Size for the networks, windows, and method of resizing.
        sides: Side of a patch in pixels, for each network.
    """
    photo = pixels.shape[0], pixels.shape[1]
    sizes = [photo_size(photo, options, side) for side in sides]
    lengths = [_lengths(options, side) for side in sides]
    rank = max(
        sum(length < math.prod(size) // side**2 for length in each)
        for size, side, each in zip(sizes, sides, lengths, strict=True)
    )
    windows = Windows.of(options, sides)
    grids = [(h // side, w // side) for (h, w), side in zip(sizes, sides, strict=True)]
    if windows is not None and windows.are_several(grids):
        rank = -1
    return tuple(
        ops.cut_patches(
            images.resize_photo(pixels, size, method=options.resample), side, each[rank]
        )
        for size, side, each in zip(sizes, sides, lengths, strict=True)
    )


def _lengths(options: ClipOptions, patch: int) -> list[int]:
    """The lengths in increasing order; some of tiny photos are equal."""
    longest = min(options.short_side, MAX_LONG), MAX_LONG
    sizes = (photo_size(size, options, patch) for size in (*ASPECTS, longest))
    return sorted(math.prod(size) // patch**2 for size in sizes)


def turns(
    kinds: Sequence[tuple[int, ...]], owned: Sequence[Sequence[int]]
) -> Iterator[list[int]]:
    """In which order devices compute the features of their photos, one at a time.

    Args:
        kinds: For each photo, what its program depends on: the lengths of its
            sequences, and whether the network sees windows.
        owned: For each device, its photos.

    Yields:
        For each device, a photo; all of the same kind. A device that has no photo of
        this kind left repeats that of another one.
    """
    for kind in sorted(set(kinds)):
        mine = [[photo for photo in own if kinds[photo] == kind] for own in owned]
        for turn in zip_longest(*mine):
            spare = next(photo for photo in turn if photo is not None)
            yield [spare if photo is None else photo for photo in turn]
