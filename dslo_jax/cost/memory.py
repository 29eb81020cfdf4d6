"""Memory that a solver takes beyond its arguments and results, before it runs."""

from dslo_jax import tuning
from dslo_jax.solvers import Discrepancy, MaximumVelocity, OptimalPath, Reading
from dslo_jax.solvers._rows import block_shape, is_gathered_once
from dslo_jax.solvers.balancing import sum_blocks
from dslo_jax.work import WORD


def path_bytes(
    classes: int,
    patches: int,
    *,
    support: int | None = None,
    pairs: int | None = None,
    itemsize: int = WORD,
    images: int = 1,
) -> int:
    """Memory of ``optimal_path`` in the domain ``"kernel"``, in bytes.

    It holds two blocks of the kernel, four arrays ``[classes, patches]``, and three
    ``[classes, rows]``. If not all rows are read, it also holds the rows that are read
    (one for each of the ``pairs``); or only a block of them, if they take more than
    16 MiB and are not narrower than float32. If all rows are read, a CPU also widens a
    bfloat16 affinity, which is not counted.

    Args:
        classes: Number of classes of an image.
        patches: Number of patches of an image.
        support: As for ``optimal_path``.
        pairs: As for ``optimal_path``.
        itemsize: Bytes of an entry of the affinity.
        images: Number of images, mapped over with ``jax.vmap``.
    """
    reading = Reading(None if support == patches else support, pairs)
    blocks, rows = block_shape(reading.rows(patches))
    is_whole = reading == Reading() and blocks * rows == patches
    at_once = is_gathered_once(blocks * rows, patches, is_narrow=itemsize < WORD)
    gathered = 0 if is_whole else (blocks if at_once else 1) * rows * patches
    states = 4 * classes * patches + 3 * classes * blocks * rows
    blocks_of_kernel = 2 * rows * patches
    return images * (itemsize * gathered + WORD * (blocks_of_kernel + states))


def velocity_bytes(
    classes: int, patches: int, *, itemsize: int = WORD, images: int = 1
) -> int:
    """Memory of ``maximum_velocity``, in bytes.

    It holds five arrays ``[classes, patches]``, and the column sums of blocks of rows.
    An affinity narrower than float32 is widened, and for many classes it is transposed.

    Args:
        classes: Number of classes of an image.
        patches: Number of patches of an image.
        itemsize: Bytes of an entry of the affinity.
        images: Number of images, mapped over with ``jax.vmap``.
    """
    widened = patches**2 if itemsize < WORD else 0
    transposed = patches**2 if classes >= tuning.MANY else 0
    sums = sum_blocks(patches) * patches
    states = 5 * classes * patches
    return images * WORD * (states + sums + widened + transposed)


def solver_bytes(
    discrepancy: Discrepancy,
    classes: int,
    patches: int,
    *,
    itemsize: int = WORD,
    images: int = 1,
) -> int | None:
    """Memory of a discrepancy, in bytes.

    Args:
        discrepancy: The fitted discrepancy; for paths, one of the ``attempts``.
        classes: Number of classes of an image.
        patches: Number of patches of an image.
        itemsize: Bytes of an entry of the affinity.
        images: Number of images, mapped over with ``jax.vmap``.

    Returns:
        The prediction for a velocity, or for a path in the domain ``"kernel"``;
        ``None`` for everything else.
    """
    sizes = classes, patches
    # By class, as in ``solver_work``.
    if type(discrepancy) is MaximumVelocity:
        return velocity_bytes(*sizes, itemsize=itemsize, images=images)
    if type(discrepancy) is OptimalPath and discrepancy.domain == "kernel":
        support, pairs = discrepancy.support, discrepancy.pairs
        rows = {"support": support, "pairs": pairs}
        return path_bytes(*sizes, **rows, itemsize=itemsize, images=images)
    return None
