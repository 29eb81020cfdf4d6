"""A batch that runs to its labels without waiting, and is checked afterwards.

On an accelerator the host would wait for results only to choose the next program. So
the surviving classes are put together on the device. How many there is room for is
chosen before anything is known, and so is the number of rows of the affinity that a
path reads. A batch that turns out to need more is solved again. See
``tuning.HOST_DECIDES_ON``.
"""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Int32

from dslo_jax import ops
from dslo_jax.ops.options import UpsamplingOptions
from dslo_jax.pipeline import checks, programs
from dslo_jax.pipeline.placement import ArrayOrShape, Placement
from dslo_jax.pipeline.programs import SolverInput
from dslo_jax.pipeline.stages import Clock
from dslo_jax.solvers import Counts, Discrepancy, Solution


class Sizes(NamedTuple):
    """What a batch is solved with, chosen before its results are known.

    Attributes:
        classes: Number of classes that there is room for.
        rows: Number of rows of the affinity that a path may read.
        attempt: Index of one of ``Discrepancy.attempts``.
    """

    classes: int
    rows: int
    attempt: int = 0


class Room:
    """The greatest sizes that batches needed so far; the next ones begin with them."""

    def __init__(self):
        self._sizes: dict[Hashable, Sizes] = {}

    def sizes(self, key: Hashable, given: SolverInput) -> Sizes:
        """The sizes for a batch.

        Args:
            key: Equal for batches with the same options.
            given: Input of the solver; only its shape is used.
        """
        _, classes, patches = given.source.shape
        smallest = Sizes(checks.class_bucket(1, classes), checks.row_bucket(1, patches))
        return self._sizes.setdefault(key, smallest)

    def grow(self, key: Hashable, needed: Sizes) -> None:
        """Note the sizes that a batch needed."""
        known = self._sizes.get(key, needed)
        self._sizes[key] = Sizes(*map(max, known, needed))


class Started(NamedTuple):
    """Maps of a batch that are being computed, on the device.

    Attributes:
        order: Index of every class that is solved for, and padding.
        counts: Number of classes of each photo that are not padding.
        solution: Maps and status of the classes in ``order``.
        active: Whether a class survived early rejection.
        support: As in ``SolverInput``.
        non_finite: As in ``SolverInput``.
    """

    order: Int32[Array | np.ndarray, "batch active"]
    counts: Int32[Array | np.ndarray, " batch"]
    solution: Solution
    active: Bool[Array | np.ndarray, "batch classes"]
    support: Int32[Array | np.ndarray, " batch"]
    non_finite: Int32[Array | np.ndarray, "batch classes"]


def start_solver(
    clock: Clock,
    placement: Placement,
    given: SolverInput,
    affinity: ArrayOrShape | None,
    discrepancy: Discrepancy,
    sizes: Sizes,
    solver: programs.Solver = programs.DISCREPANCY,
) -> Started:
    """Start the programs that solve for the surviving classes of a batch.

    Args:
        clock: The timings of the run.
        placement: The device.
        given: Input of the solver.
        affinity: Affinity between the patches, if it is needed.
        discrepancy: The discrepancy to solve for.
        sizes: What to solve with.
        solver: The program that solves for it.
    """
    _, classes, patches = given.source.shape
    if discrepancy.wants_counts:
        pairs = classes * patches  # so many that no path reads row by row
        counts = Counts(
            sizes.rows, pairs, sizes.classes, patches, 1, placement.platform
        )
        discrepancy = discrepancy.fitted(counts)
    attempt = discrepancy.attempts[sizes.attempt]
    values = given.logits if discrepancy.takes_logits else given.source
    chosen, order, counts = programs.COMPACTED(
        clock, values, given.active, size=sizes.classes
    )
    chosen = placement.put_classes(chosen)
    solution = solver(clock, chosen, affinity, discrepancy=attempt)
    solution = placement.put_batch(solution)  # no more divided by classes or patches
    return Started(
        order, counts, solution, given.active, given.support, given.non_finite
    )


def needed_sizes(found: Started, sizes: Sizes, discrepancy: Discrepancy) -> Sizes:
    """The sizes that a batch needs, which are ``sizes`` if these were enough.

    Args:
        found: What was solved with ``sizes``, on the host.
        sizes: See there.
        discrepancy: The discrepancy that was to be solved for.
    """
    patches = found.solution.value.shape[2]
    most = int(found.active.sum(axis=1).max())
    needed = sizes._replace(
        classes=max(sizes.classes, checks.class_bucket(most, found.active.shape[1]))
    )
    if discrepancy.wants_counts:
        rows = checks.row_bucket(int(found.support.max()), patches)
        needed = needed._replace(rows=max(sizes.rows, rows))
    is_last = sizes.attempt + 1 >= len(discrepancy.attempts)
    if needed != sizes or is_last:
        return needed
    failed = np.isnan(found.solution.error)
    order, counts = np.asarray(found.order), np.asarray(found.counts)
    unsolved = failed & checks.real_rows(order, counts)
    return needed._replace(attempt=sizes.attempt + bool(unsolved.any()))


def start_labels(
    clock: Clock,
    placement: Placement,
    values: Any,
    counts: Any,
    photos: Sequence[ops.PhotoLayers],
    options: UpsamplingOptions,
    call: ops.Call,
) -> Any:
    """Start the program that labels some layers of every photo.

    Args:
        clock: The timings of the run.
        placement: The device.
        values: Maps ``[photos classes patches]`` on the device.
        counts: Number of classes of each photo, on the device.
        photos: The photos, with the same grid.
        options: Options of the upsampling.
        call: The layers.

    Returns:
        ``[photos layers h w]`` codes on the device; see ``ops.label_layers``.
    """
    _, classes, patches = values.shape
    means = [photo.means for photo in photos if photo.means is not None]
    variances = np.array([options.spatial_variance, options.range_variance], np.float32)
    return programs.LAYER_LABELS(
        clock,
        values,
        counts,
        placement.put_batch(np.stack(means)) if means else None,
        placement.put_batch(ops.cut_batch(photos, call)),
        placement.put(variances),
        grid=photos[0].grid,
        together=ops.layers_together(
            call.count, len(photos), classes, patches, placement.platform
        ),
    )
