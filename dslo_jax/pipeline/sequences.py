"""Photos of any size as sequences of few lengths, for the source of logits."""

import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

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
    longest = min(options.short_side, MAX_LONG), MAX_LONG
    sizes = [*ASPECTS, longest]
    counts = {math.prod(photo_size(size, options, patch)) // patch**2 for size in sizes}
    return tuple(sorted(counts))


def cut_photo(pixels: np.ndarray, options: ClipOptions, patch: int) -> ops.Patches:
    """Resize a photo and cut it into a sequence of patches.

    Which length the sequence has depends on the size of this photo alone. Where the
    network sees several windows, it is always the greatest, because the windows are
    sequences of their own.

    Args:
        pixels: The photo, RGB from 0 to 255.
        options: Size for the network, its windows, and method of resizing.
        patch: Side of a patch in pixels.
    """
    size = photo_size(pixels.shape[:2], options, patch)
    rows, columns = size[0] // patch, size[1] // patch
    lengths = sequence_lengths(options, patch)
    length = next(length for length in lengths if length >= rows * columns)
    windows = Windows.of(options, patch)
    if windows is not None and windows.are_several(rows, columns):
        length = lengths[-1]
    resized = images.resize_photo(pixels, size, method=options.resample)
    return ops.cut_patches(resized, patch, length)


def turns(kinds: Sequence[Any], owned: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """In which order devices compute the features of their photos, one at a time.

    Args:
        kinds: For each photo, what its program depends on, such as the length of its
            sequence; values that have an order.
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
