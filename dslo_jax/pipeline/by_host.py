"""A batch whose next program is chosen on the host, from results of the one before.

On a CPU nothing is lost by waiting. Only the surviving classes are solved, in the
fewest rows of the affinity, and only the pixels are computed that the maps leave open.
See ``tuning.HOST_DECIDES_ON``.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import numpy as np

from dslo_jax import ops
from dslo_jax.ops.options import UpsamplingOptions
from dslo_jax.pipeline import checks, programs
from dslo_jax.pipeline.memory import Solved
from dslo_jax.pipeline.placement import ArrayOrShape, Placement
from dslo_jax.pipeline.programs import SolverInput
from dslo_jax.pipeline.stages import Clock
from dslo_jax.solvers import Discrepancy, Solution


def solve(
    clock: Clock,
    placement: Placement,
    given: SolverInput,
    affinity: ArrayOrShape | None,
    discrepancy: Discrepancy,
    solver: programs.Solver = programs.DISCREPANCY,
) -> Solved:
    """Solve for the surviving classes; a class without solution has the error NaN.

    Args:
        clock: The timings of the run.
        placement: The device.
        given: Input of the solver.
        affinity: Affinity between the patches, if it is needed.
        discrepancy: The discrepancy to solve for.
        solver: The program that solves for it.
    """
    order, counts = checks.choose_classes(placement.fetch(given.active))
    if discrepancy.wants_counts:
        needed = checks.count(given, order, counts, placement)
        discrepancy = discrepancy.fitted(needed)
    values = given.logits if discrepancy.takes_logits else given.source
    before = clock.seconds_of("solver")
    chosen = programs.CHOSEN(clock, values, *placement.put_batch((order, counts)))
    run = partial(solver, clock, placement.put_classes(chosen), affinity)
    first, *others = discrepancy.attempts
    solution = placement.fetch(run(discrepancy=first))
    for other in others:
        failed = np.isnan(solution.error) & checks.real_rows(order, counts)
        unsolved = failed.any(axis=1)
        if unsolved.any():
            again = placement.fetch(run(discrepancy=other))
            solution = _choose_photos(unsolved, again, solution)
    return Solved(order, counts, solution, clock.seconds_of("solver") - before)


def label(
    clock: Clock,
    placement: Placement,
    canvases: Iterable[ops.Canvas],
    options: UpsamplingOptions,
) -> list[ops.PixelLabels]:
    """Compute the labels of photos in tiles.

    Args:
        clock: The timings of the run.
        placement: The device.
        canvases: The photos and their maps, made as they are asked for.
        options: Options of the upsampling: bilateral or bilinear.
    """
    elsewhere = 0.0
    run_tile = _tile_program(clock, placement, options)

    def run(tile: ops.Tile) -> ops.PixelLabels:
        nonlocal elsewhere
        start = time.perf_counter()
        found = run_tile(tile)
        elsewhere += time.perf_counter() - start
        return placement.fetch(found)

    clock.announce("fold")
    start = time.perf_counter()
    found = ops.label_photos(list(canvases), run, radius=_radius(options))
    clock.add("fold", time.perf_counter() - start - elsewhere)
    return found


def canvas(
    maps: Any,
    grid: tuple[int, int],
    pixels: np.ndarray,
    means: np.ndarray | None,
) -> ops.Canvas:
    """A photo with its maps, for ``label``.

    Args:
        maps: Maps of the active classes, without padding.
        grid: Rows and columns of the maps.
        pixels: The photo, RGB from 0 to 255.
        means: Mean colour of every cell of the grid; ``None`` if the labels do not
            depend on colours.
    """
    values = np.asarray(maps, np.float32).reshape(-1, *grid)
    height, width = pixels.shape[:2]
    if means is None:
        return ops.Canvas(values, (height, width))
    return ops.Canvas(values, (height, width), ops.Colours(pixels, means))


def label_densely(
    clock: Clock,
    placement: Placement,
    values: Any,
    count: int,
    pixels: np.ndarray,
    grid: tuple[int, int],
    options: UpsamplingOptions,
) -> ops.PixelLabels:
    """Compute the labels of one photo by dense upsampling.

    Args:
        clock: The timings of the run.
        placement: The device.
        values: Maps of the active classes; rows from ``count`` on are padding.
        count: Number of active classes.
        pixels: The photo, RGB from 0 to 255.
        grid: Rows and columns of the maps.
        options: Options of the upsampling.
    """
    guide = pixels.astype(np.float32) / 255.0
    given = placement.put((values, np.int32(count), guide))
    labelled = programs.DENSE_LABELS(clock, *given, grid=grid, options=options)
    return placement.fetch(labelled)


def compile_programs(
    clock: Clock,
    placement: Placement,
    given: SolverInput,
    affinity: ArrayOrShape | None,
    discrepancy: Discrepancy,
    options: UpsamplingOptions,
) -> None:
    """Compile the programs that shapes alone determine.

    Args:
        clock: The timings of the run.
        placement: The device, for shapes only.
        given: Shapes of the input of the solver.
        affinity: Shape of the affinity, if it is needed.
        discrepancy: The discrepancy to solve for. The program of one that wants counts
            depends on them, so it is left out.
        options: Options of the upsampling.
    """
    photos, classes, _ = given.source.shape
    order = np.zeros((photos, checks.class_bucket(1, classes)), np.int32)
    counts = np.ones(photos, np.int32)
    chosen = programs.CHOSEN(clock, given.source, *placement.put_batch((order, counts)))
    if not discrepancy.wants_counts:
        first = discrepancy.attempts[0]
        chosen = placement.put_classes(chosen)
        programs.DISCREPANCY(clock, chosen, affinity, discrepancy=first)
    if options.upsampling == "dense":
        return
    run_tile = _tile_program(clock, placement, options)
    survivors = range(1, min(classes, order.shape[1]) + 1)
    for room in sorted({room for most in survivors for room in ops.rooms_for(most)}):
        run_tile(ops.empty_tile(room, _radius(options), coloured=options.is_coloured))


def _tile_program(
    clock: Clock, placement: Placement, options: UpsamplingOptions
) -> Callable[[ops.Tile], Any]:
    spatial, colour = options.spatial_variance, options.range_variance
    bilinear = options.upsampling == "bilinear"
    variances = placement.put(np.array([spatial, colour], np.float32))
    form = "hat" if bilinear else ops.form_of(spatial, colour)

    def run(tile: ops.Tile) -> Any:
        together = ops.units_together(tile.classes.shape[1], placement.platform)
        return programs.LABELS(
            clock, placement.put(tile), variances, form=form, together=together
        )

    return run


def _radius(options: UpsamplingOptions) -> int:
    return 1 if options.upsampling == "bilinear" else 2


def _choose_photos(which: np.ndarray, these: Solution, those: Solution) -> Solution:
    """For each photo, take ``these`` where ``which`` is true, else ``those``."""

    def leaf(this: np.ndarray, that: np.ndarray) -> np.ndarray:
        return np.where(np.expand_dims(which, tuple(range(1, this.ndim))), this, that)

    return jax.tree.map(leaf, these, those)
