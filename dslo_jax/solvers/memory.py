"""Memory that a solver takes beyond its arguments and results, before it runs."""

from dslo_jax.solvers import tuning
from dslo_jax.solvers._rows import block_shape, is_gathered_once
from dslo_jax.solvers.balancing import sum_blocks
from dslo_jax.solvers.reading import Reading


_WORD = 4  # bytes of float32, in which all solvers compute


def path_bytes(
    classes: int,
    patches: int,
    *,
    support: int | None = None,
    pairs: int | None = None,
    itemsize: int = _WORD,
    images: int = 1,
) -> int:
    """What ``optimal_path`` takes in the domain ``"kernel"``.

    Two blocks of the kernel; where not all rows are read, those that are (a row for
    each of the ``pairs``), or a block of them if they take more than 16 MiB and are not
    narrower than float32; four arrays ``[classes, patches]``, and three ``[classes,
    rows]``. Where all rows are read a CPU also widens a bfloat16 affinity, which is not
    counted.

    Args:
        classes: Classes of an image.
        patches: Patches of an image.
        support: As for ``optimal_path``.
        pairs: As for ``optimal_path``.
        itemsize: Bytes of an entry of the affinity.
        images: Mapped over with ``jax.vmap``.
    """
    reading = Reading(None if support == patches else support, pairs)
    blocks, rows = block_shape(reading.rows(patches))
    is_whole = reading == Reading() and blocks * rows == patches
    at_once = is_gathered_once(blocks * rows, patches, is_narrow=itemsize < _WORD)
    gathered = 0 if is_whole else (blocks if at_once else 1) * rows * patches
    states = 4 * classes * patches + 3 * classes * blocks * rows
    blocks_of_kernel = 2 * rows * patches
    return images * (itemsize * gathered + _WORD * (blocks_of_kernel + states))


def velocity_bytes(
    classes: int, patches: int, *, itemsize: int = _WORD, images: int = 1
) -> int:
    """What ``maximum_velocity`` takes.

    Five arrays ``[classes, patches]``, and the column sums of blocks of rows. An
    affinity narrower than float32 is widened, and many classes have it transposed.

    Args:
        classes: Classes of an image.
        patches: Patches of an image.
        itemsize: Bytes of an entry of the affinity.
        images: Mapped over with ``jax.vmap``.
    """
    widened = patches**2 if itemsize < _WORD else 0
    transposed = patches**2 if classes >= tuning.MANY else 0
    sums = sum_blocks(patches) * patches
    states = 5 * classes * patches
    return images * _WORD * (states + sums + widened + transposed)
