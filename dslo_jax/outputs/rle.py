"""Binary masks as run lengths, in the compressed text form of the COCO tools."""

import numpy as np
from jaxtyping import Bool, Int64


def encode_runs(mask: Bool[np.ndarray, "height width"]) -> str:
    """Encode a binary mask.

    Down the columns, runs of unset and set pixels alternate, unset first. From the
    fourth run on, the difference to the run before the last is stored. Every number is
    written in groups of 5 bits, the lowest first, each group as the character of code
    ``48 + bits``, plus 32 if more follow; the highest bit of the last is the sign
    (cocodataset/cocoapi, ``common/maskApi.c``).

    Args:
        mask: Where the mask is set.

    Returns:
        The ``counts`` of a segmentation in COCO's JSON; its ``size`` is the height and
        the width of the mask.
    """
    runs = run_lengths(mask.T.ravel())
    stored = runs.copy()
    stored[3:] -= runs[1:-2]
    groups, follows = [], []
    while not follows or follows[-1].any():
        groups.append(stored & 31)
        stored = stored >> 5
        follows.append(stored != np.where(groups[-1] & 16, -1, 0))
    more = np.stack(follows, axis=1)
    written = np.pad(more[:, :-1], [(0, 0), (1, 0)], constant_values=True)
    written = np.logical_and.accumulate(written, axis=1)
    characters = 48 + np.stack(groups, axis=1) + 32 * more
    return characters[written].astype(np.uint8).tobytes().decode("ascii")


def run_lengths(values: Bool[np.ndarray, " pixels"]) -> Int64[np.ndarray, " runs"]:
    """Lengths of the runs of equal values; the first is of unset values, perhaps 0.

    Args:
        values: At least one.
    """
    ends = np.flatnonzero(values[1:] != values[:-1]) + 1
    bounds = np.concatenate([[0] * (1 + int(values[0])), ends, [len(values)]])
    return np.diff(bounds)


def decode_runs(
    counts: str, height: int, width: int
) -> Bool[np.ndarray, "height width"]:
    """Decode a binary mask.

    Args:
        counts: From ``encode_runs``.
        height: Height of the mask in pixels.
        width: Width of the mask in pixels.

    Returns:
        Where the mask is set.

    Raises:
        ValueError: The text holds other characters, or its runs do not fill the mask.
    """
    groups = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    if groups.size and (groups.min() < 0 or groups.max() > 63 or groups[-1] & 32):
        raise ValueError("the run lengths are cut short or hold foreign characters")
    runs = _numbers(groups)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    if runs.sum() != height * width or (runs < 0).any():
        raise ValueError(
            f"the runs cover {runs.sum()} pixels, expected {height} x {width}"
        )
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(width, height).T


def _numbers(groups: np.ndarray) -> np.ndarray:
    """Put groups of 5 bits together to numbers with a sign."""
    ends = np.flatnonzero(groups < 32) + 1
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    lengths = ends - starts
    if not ends.size or lengths.max() > 12:  # what an int64 holds
        raise ValueError("the run lengths are empty or beyond any image")
    shifts = 5 * (np.arange(len(groups)) - np.repeat(starts, lengths))
    numbers = np.add.reduceat((groups & 31) << shifts, starts)
    negative = (groups[ends - 1] & 16) > 0
    return numbers - (negative.astype(np.int64) << 5 * lengths)
