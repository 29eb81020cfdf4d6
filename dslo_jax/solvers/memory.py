"""Memory that a solver takes beyond its arguments and results, before it runs."""

from dslo_jax.solvers._scaling import BLOCK_ROWS


_WORD = 4  # bytes of float32, in which all solvers compute


def path_bytes(
    classes: int,
    patches: int,
    *,
    support: int | None = None,
    itemsize: int = _WORD,
    images: int = 1,
) -> int:
    """What ``optimal_path`` takes in the domain ``"kernel"``.

    The rows with mass, as narrow as the affinity is; two blocks of the kernel; four
    arrays ``[classes, patches]``, and three ``[classes, rows]``.

    Args:
        classes: Classes of an image.
        patches: Patches of an image.
        support: As for ``optimal_path``.
        itemsize: Bytes of an entry of the affinity.
        images: Mapped over with ``jax.vmap``.
    """
    read = patches if support is None else support
    blocks = -(-read // BLOCK_ROWS)
    rows = -(-read // blocks)
    is_whole = support is None and blocks * rows == patches
    gathered = 0 if is_whole else blocks * rows * patches * itemsize
    states = 4 * classes * patches + 3 * classes * blocks * rows
    return images * (gathered + _WORD * (2 * rows * patches + states))


def velocity_bytes(
    classes: int, patches: int, *, itemsize: int = _WORD, images: int = 1
) -> int:
    """What ``maximum_velocity`` takes.

    Five arrays ``[classes, patches]``. An affinity narrower than float32 is widened,
    and the affinities of several images are copied: the compiler transposes them for
    a batched product (seen on the CPU).

    Args:
        classes: Classes of an image.
        patches: Patches of an image.
        itemsize: Bytes of an entry of the affinity.
        images: Mapped over with ``jax.vmap``.
    """
    copies = (itemsize < _WORD) + (images > 1)
    return images * _WORD * (5 * classes * patches + copies * patches**2)
