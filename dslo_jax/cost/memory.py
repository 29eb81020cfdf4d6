"""Memory that a solver takes beyond its arguments and results, before it runs."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from dslo_jax.cost.work import WORD
from dslo_jax.solvers import (
    Discrepancy,
    MaximumVelocity,
    OptimalPath,
    Reading,
    tuning,
)
from dslo_jax.solvers._rows import block_shape, is_gathered_once
from dslo_jax.solvers.balancing import sum_blocks


def path_bytes(
    classes: int,
    patches: int,
    *,
    support: int | None = None,
    pairs: int | None = None,
    itemsize: int = WORD,
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
    at_once = is_gathered_once(blocks * rows, patches, is_narrow=itemsize < WORD)
    gathered = 0 if is_whole else (blocks if at_once else 1) * rows * patches
    states = 4 * classes * patches + 3 * classes * blocks * rows
    blocks_of_kernel = 2 * rows * patches
    return images * (itemsize * gathered + WORD * (blocks_of_kernel + states))


def velocity_bytes(
    classes: int, patches: int, *, itemsize: int = WORD, images: int = 1
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
    """What a discrepancy takes.

    Args:
        discrepancy: As it is solved with, ``fitted``; of paths one of ``attempts``.
        classes: Classes of an image.
        patches: Patches of an image.
        itemsize: Bytes of an entry of the affinity.
        images: Mapped over with ``jax.vmap``.

    Returns:
        None where nobody predicts it: for discrepancies of other classes than ours,
        those that need no affinity, two that are fused, and paths in other domains than
        ``"kernel"``.
    """
    formula = _FORMULAS.get(type(discrepancy))
    if formula is None:
        return None
    return formula(discrepancy, classes, patches, itemsize, images)


_Formula = Callable[[Any, int, int, int, int], int | None]


def _of_path(
    path: OptimalPath, classes: int, patches: int, itemsize: int, images: int
) -> int | None:
    if path.domain != "kernel":
        return None
    return path_bytes(
        classes,
        patches,
        support=path.support,
        pairs=path.pairs,
        itemsize=itemsize,
        images=images,
    )


def _of_velocity(
    _: MaximumVelocity, classes: int, patches: int, itemsize: int, images: int
) -> int:
    return velocity_bytes(classes, patches, itemsize=itemsize, images=images)


# By class, as in ``cost/solvers.py``.
_FORMULAS: Mapping[type[Discrepancy], _Formula] = MappingProxyType(
    {OptimalPath: _of_path, MaximumVelocity: _of_velocity}
)
