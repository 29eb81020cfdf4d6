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
    platform: str = "cpu",
) -> int:
    """Memory of ``optimal_path`` in the domain ``"kernel"``, in bytes.

    It holds two blocks of the kernel, four arrays ``[classes, patches]``, and three
    ``[classes, rows]``. If not all rows are read, it also holds the rows that are read
    (one for each of the ``pairs``); or only a block of them, if they take more than
    16 MiB and are not narrower than float32. If all rows are read, a CPU also widens a
    bfloat16 affinity, which is not counted. On GPUs several blocks are one (see
    ``tuning.BLOCKS_TOGETHER``). A TPU keeps blocks in its vector memory, so that the
    prediction is too high for it.

    Args:
        classes: Number of classes of an image.
        patches: Number of patches of an image.
        support: As for ``optimal_path``.
        pairs: As for ``optimal_path``.
        itemsize: Bytes of an entry of the affinity.
        images: Number of images, mapped over with ``jax.vmap``.
        platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
    """
    reading = Reading(None if support == patches else support, pairs)
    blocks, rows = block_shape(reading.rows(patches))
    is_whole = reading == Reading() and blocks * rows == patches
    at_once = is_gathered_once(blocks * rows, patches, is_narrow=itemsize < WORD)
    gathered = 0 if is_whole else (blocks if at_once else 1) * rows * patches
    states = 4 * classes * patches + 3 * classes * blocks * rows
    together = 1
    if platform != "cpu":
        together = tuning.blocks_together(blocks, rows * patches)
    blocks_of_kernel = 2 * together * rows * patches
    return images * (itemsize * gathered + WORD * (blocks_of_kernel + states))


def velocity_bytes(
    classes: int,
    patches: int,
    *,
    itemsize: int = WORD,
    images: int = 1,
    platform: str = "cpu",
) -> int:
    """Memory of ``maximum_velocity``, in bytes.

    It holds five arrays ``[classes, patches]``, and sums in parts. A CPU also widens an
    affinity narrower than float32, and transposes it for many classes.

    Args:
        classes: Number of classes of an image.
        patches: Number of patches of an image.
        itemsize: Bytes of an entry of the affinity.
        images: Number of images, mapped over with ``jax.vmap``.
        platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
    """
    states = 5 * classes * patches
    if platform != "cpu":
        return images * WORD * (states + 2 * tuning.SUM_PARTS * patches)
    widened = patches**2 if itemsize < WORD else 0
    transposed = patches**2 if classes >= tuning.MANY else 0
    sums = sum_blocks(patches) * patches
    return images * WORD * (states + sums + widened + transposed)


def solver_bytes(
    discrepancy: Discrepancy,
    classes: int,
    patches: int,
    *,
    itemsize: int = WORD,
    images: int = 1,
    platform: str = "cpu",
) -> int | None:
    """Memory of a discrepancy, in bytes.

    Args:
        discrepancy: The fitted discrepancy; for paths, one of the ``attempts``.
        classes: Number of classes of an image.
        patches: Number of patches of an image.
        itemsize: Bytes of an entry of the affinity.
        images: Number of images, mapped over with ``jax.vmap``.
        platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``.

    Returns:
        The prediction for a velocity, or for a path in the domain ``"kernel"``;
        ``None`` for everything else.
    """
    sizes = classes, patches
    how = {"itemsize": itemsize, "images": images, "platform": platform}
    # By class, as in ``solver_work``.
    if type(discrepancy) is MaximumVelocity:
        return velocity_bytes(*sizes, **how)
    if type(discrepancy) is OptimalPath and discrepancy.domain == "kernel":
        support, pairs = discrepancy.support, discrepancy.pairs
        rows = {"support": support, "pairs": pairs}
        return path_bytes(*sizes, **rows, **how)
    return None
