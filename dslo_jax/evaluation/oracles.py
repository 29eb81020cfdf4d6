"""Steps replaced by the truth: experiments that show where the ceiling is.

``"classes"``: the classes of the photo survive early rejection, and no others.
``"seeds"``: the source of a true class is uniform over the cells that are mostly it.
``"affinity"``: a cell attends evenly to the cells of its own class.
``"map"``, ``"shares"``: the discrepancy is 1 in the cells that are mostly a class, or
the share of the cell that is; what upsampling then loses is lost to the grid.

The truth on the grid is that of the area under each cell.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from dslo_jax import ops
from dslo_jax.config import SegmenterConfig
from dslo_jax.evaluation.metrics import IGNORE
from dslo_jax.pipeline import Discrepancy, Sources, count_mass
from dslo_jax.stages import Stage


# What leaks from one segment into the others. Nothing else would ever leave a segment,
# and the balancing needs no more than a positive row.
_LEAK = 1e-9


def class_shares(
    truth: UInt8[np.ndarray, "height width"], num_classes: int, grid: tuple[int, int]
) -> Float[np.ndarray, "classes patches"]:
    """Share of the area of every cell that belongs to each class.

    Args:
        truth: Labels of the pixels; 255 belongs to no class.
        num_classes: Number of classes.
        grid: Rows and columns of cells.

    Returns:
        Float32 shares; a cell's sum to 1 less its ignored part.
    """
    rows = ops.resize_weights(truth.shape[0], grid[0], "area")
    columns = ops.resize_weights(truth.shape[1], grid[1], "area")
    belongs = truth == np.arange(num_classes, dtype=truth.dtype)[:, None, None]
    return (rows @ belongs.astype(np.float32) @ columns.T).reshape(num_classes, -1)


def classes_of(
    truth: UInt8[np.ndarray, "height width"], num_classes: int
) -> Bool[np.ndarray, " classes"]:
    """Which classes have a pixel in a photo."""
    return np.bincount(truth[truth != IGNORE], minlength=num_classes) > 0


def true_map(
    shares: Float[np.ndarray, "classes patches"],
) -> Float[np.ndarray, "classes patches"]:
    """1 in the cells that are mostly a class, 0 elsewhere and where all is ignored."""
    best = shares.argmax(axis=0)
    one_hot = best == np.arange(len(shares))[:, None]
    return (one_hot & (shares.max(axis=0) > 0)).astype(np.float32)


def true_affinity(
    shares: Float[np.ndarray, "classes patches"],
) -> Float[np.ndarray, "patches patches"]:
    """A cell attends evenly to those of its own class, and hardly to others.

    Args:
        shares: From ``class_shares``. Cells that are wholly ignored are a segment.

    Returns:
        Float32, rows sum to 1.
    """
    labels = np.where(shares.max(axis=0) > 0, shares.argmax(axis=0), IGNORE)
    same = labels[:, None] == labels[None, :]
    affinity = same / same.sum(axis=1, keepdims=True) + _LEAK
    return (affinity / affinity.sum(axis=1, keepdims=True)).astype(np.float32)


def true_seeds(
    source: Float[np.ndarray, "classes patches"],
    shares: Float[np.ndarray, "classes patches"],
) -> Float[np.ndarray, "classes patches"]:
    """The source of every class of the photo, uniform over its cells.

    Args:
        source: The estimate, kept for classes that the photo does not show.
        shares: From ``class_shares``.

    Returns:
        Rows sum to 1. A class without a cell of its own gets the cell it fills most.
    """
    cells = true_map(shares)
    lost = (cells.sum(axis=1) == 0) & (shares.max(axis=1) > 0)
    cells[lost, shares[lost].argmax(axis=1)] = 1
    count = cells.sum(axis=1, keepdims=True)
    return np.where(count > 0, cells / np.maximum(count, 1), source).astype(np.float32)


def with_classes(
    sources: Sources,
    active: Bool[Array, "batch classes"],
    *,
    config: SegmenterConfig,
) -> Sources:
    """What the solver starts from if these classes had survived early rejection.

    Args:
        sources: From ``pipeline.SOURCES``, for the logits.
        active: The survivors.
        config: Says how patches are suppressed and sources normalised.
    """

    def restart(logits, active):
        keep = ops.suppress(
            logits,
            method=config.suppression,
            threshold=config.suppression_threshold,
            active=active,
        )
        return ops.normalize(logits, keep, scale=config.source_scale)

    source = jax.vmap(restart)(sources.logits, active)
    return with_sources(sources._replace(active=active), source)


def with_sources(
    sources: Sources, source: Float[Array, "batch classes patches"]
) -> Sources:
    """Other distributions for the solver to start from, and where they have mass."""
    support, kept = count_mass(source > 0, sources.active)
    return sources._replace(source=source, support=support, kept=kept)


def solved_by_truth(
    values: Float[np.ndarray, "batch active patches"],
) -> Discrepancy:
    """Maps that no solver was needed for."""
    batch, active = values.shape[:2]
    return Discrepancy(
        jnp.asarray(values),
        jnp.zeros((batch, active), jnp.int32),
        jnp.zeros((batch, active), jnp.float32),
        jnp.ones((batch, active), bool),
    )


RESTART = Stage("logits", with_classes)
RESEED = Stage("logits", with_sources)
