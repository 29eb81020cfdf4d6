"""Point prompts: the Markov maps of clicks into a photo.

A click is a class with all of its mass in one patch: the one that holds the pixel. The
Markov chain of this class (``solvers.maximum_velocity``) says how soon it reaches every
other patch, and so which patches belong to the same thing. Only self-attention is
needed, no words and no CLIP. The idea is that of M2N2 (Karmann and Urfalioglu, CVPR
2025, "Repurposing Stable Diffusion Attention for Training-Free Unsupervised Interactive
Segmentation"), without its flood fill and its scores.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32

from dslo_jax import images, ops
from dslo_jax.config import SegmenterConfig
from dslo_jax.errors import OptionError
from dslo_jax.images import Photo
from dslo_jax.ops.options import UpsamplingOptions
from dslo_jax.pipeline import Batch, Networks, Placement, SolverInput, Steps
from dslo_jax.pipeline.stages import Clock, Timing
from dslo_jax.prompts import ClassList
from dslo_jax.solvers import Discrepancy, MaximumVelocity, Reason


Point = tuple[int, int]
"""A pixel of a photo: ``(x, y)``, column and row, from 0 at the upper left corner."""


@dataclass(frozen=True, eq=False)
class PointMaps:
    """The Markov map of every point, and the labels that follow from them.

    Attributes:
        points: The pixels ``(x, y)`` that were clicked.
        velocity: How soon the chain of each point reaches every patch: 1 / (1 + steps),
            so 1 in the patch of the point, and near 0 where it hardly arrives.
        labels: Index into ``points`` of the point whose chain reaches the pixel first.
        num_steps: Steps of the chain of each point.
        converged: Whether the chain of each point reached every patch.
        timings: Seconds of every stage.
        notes: Remarks about the photo and the points.
        photo: The photo as it was read.
        config: The options of this result.
    """

    points: tuple[Point, ...]
    velocity: Float32[np.ndarray, "points grid_height grid_width"]
    labels: Int32[np.ndarray, "height width"]
    num_steps: tuple[int, ...]
    converged: tuple[bool, ...]
    timings: tuple[Timing, ...]
    notes: tuple[str, ...]
    photo: Photo
    config: SegmenterConfig

    def masks(self, within: float | int = 2) -> Bool[np.ndarray, "points height width"]:
        """The pixels that each point reaches within some steps of its chain.

        The velocities are upsampled with the colours of the photo and compared with
        1 / (1 + ``within``). Masks of different points may overlap. How many steps suit
        depends on the network: one whose patches attend to more others needs fewer.

        Args:
            within: Number of steps, more than 0; need not be whole.

        Raises:
            OptionError: ``within`` is not a positive number (``O01``).
        """
        if not 0 < within < math.inf:
            raise OptionError("O01", f"within = {within}; expected more than 0 steps")
        slowest = np.full_like(self.velocity[0], 1 / (1 + within))
        options = self.config.upsampling
        inside = [
            _label(np.stack([velocity, slowest]), self.photo, options) == 0
            for velocity in self.velocity
        ]
        return np.stack(inside)

    def __repr__(self) -> str:
        height, width = self.labels.shape
        points = ", ".join(map(str, self.points[:6]))
        more = ", ..." if len(self.points) > 6 else ""
        return f"PointMaps({height} x {width}: {points}{more})"


def point_maps(
    affinity: Float[Array | np.ndarray, "patches patches"],
    points: Any,
    photo: Any,
    *,
    grid: tuple[int, int] | None = None,
    config: SegmenterConfig | None = None,
    discrepancy: Discrepancy | None = None,
    **options: Any,
) -> PointMaps:
    """Compute the Markov map of every point, from self-attention of any origin.

    Args:
        affinity: Self-attention from patch (row) to patch (column); the patches are
            counted row by row.
        points: Pixels ``(x, y)`` of the photo: x is the column and y the row, from 0 at
            the upper left corner.
        photo: A path, a Pillow image or an array; the labels have its size.
        grid: Rows and columns of patches; default: a square.
        config: Options of the method; those of CLIP and of the affinity are not used.
        discrepancy: A ``MaximumVelocity``, instead of that of ``config``.
        **options: Other options by their flat names, such as ``threshold=0.5``.

    Raises:
        ValueError: The affinity does not fit the grid.
        OptionError: There is no point (``O05``), one is outside the photo (``O01``) or
            no pair of numbers (``O03``), or an option is unknown or out of range.
        ImageError: The photo cannot be used.
        SolverError: The affinity has values that no solver can use (``S03``).

    Example:
        >>> affinity = np.kron(np.eye(2), np.full((8, 8), 1 / 8)).astype(np.float32)
        >>> photo = np.zeros((32, 32, 3), np.uint8)
        >>> found = point_maps(affinity + 1e-6, [(3, 3), (3, 30)], photo)
        >>> found.labels[[0, -1], 0].tolist()  # the upper and the lower half
        [0, 1]
    """
    config = with_velocity(config or SegmenterConfig(), discrepancy, options)
    photo = images.read_photo(photo)
    clicked = check_points(points, photo)
    if np.ndim(affinity) != 2:
        raise ValueError(
            f"`affinity` has shape {np.shape(affinity)}, expected [patches, patches]"
        )
    side = math.isqrt(len(affinity))
    rows, columns = grid or (side, side)
    if affinity.shape != (rows * columns, rows * columns):
        raise ValueError(
            f"`affinity` has shape {affinity.shape}, which does not fit a grid of "
            f"{rows} x {columns} patches; pass grid=(rows, columns)"
        )
    given = jnp.asarray(affinity)[None]
    return solve_points(given, clicked, photo, (rows, columns), config, Clock())


def prompt_photo(
    networks: Networks, photo: Photo, points: Any, config: SegmenterConfig, clock: Clock
) -> PointMaps:
    """Compute the Markov maps of points with the attention of networks.

    Args:
        networks: The networks; CLIP is not run.
        photo: The photo.
        points: As for ``point_maps``.
        config: From ``with_velocity``.
        clock: Collects the timings.

    Raises:
        OptionError: As for ``point_maps``.
        SolverError: The affinity has values that no solver can use (``S03``).
        DeviceError: The device has too little memory (``D01``).
    """
    clicked = check_points(points, photo)
    batch = Batch(networks, [photo], ClassList(()), clock=clock)
    affinity = batch.affinity(config)
    assert isinstance(affinity, jax.Array)  # a Markov chain always needs one
    return solve_points(affinity, clicked, photo, batch.grid(config), config, clock)


def solve_points(
    affinity: Float[Array, "1 patches patches"],
    points: Sequence[Point],
    photo: Photo,
    grid: tuple[int, int],
    config: SegmenterConfig,
    clock: Clock,
) -> PointMaps:
    """Compute the Markov maps of points that were checked.

    Args:
        affinity: Self-attention, on the device that computes.
        points: From ``check_points``.
        photo: The photo.
        grid: Rows and columns of patches.
        config: From ``with_velocity``.
        clock: Collects the timings.

    Raises:
        SolverError: The affinity has values that no solver can use (``S03``).
    """
    steps = _Clicks(affinity, points, photo, grid, clock)
    found = steps.solved(config).solution
    (labelled,) = steps.labelled(config)
    number = len(points)
    reasons = [Reason(int(each)) for each in found.reason[0, :number]]
    return PointMaps(
        points=tuple(points),
        velocity=np.asarray(found.value[0, :number], np.float32).reshape(-1, *grid),
        labels=np.asarray(labelled.labels),
        num_steps=tuple(found.num_steps[0, :number].tolist()),
        converged=tuple(found.converged[0, :number].tolist()),
        timings=clock.timings,
        notes=photo.notes + _notes(steps.titles, steps.patches, reasons),
        photo=photo,
        config=config,
    )


def with_velocity(
    config: SegmenterConfig,
    discrepancy: Discrepancy | None,
    options: dict[str, Any],
) -> SegmenterConfig:
    """A configuration whose discrepancy is the maximum velocity, with other options.

    Raises:
        OptionError: Another discrepancy is asked for (``O03``), or an option is unknown
            or out of range.
    """
    if discrepancy is None:
        options = {"mode": MaximumVelocity.name, **options}
    config = config.with_options(discrepancy=discrepancy, **options)
    chosen = config.discrepancy
    if not isinstance(chosen, MaximumVelocity) or chosen.criterion != "saturation":
        raise OptionError(
            "O03",
            f"points have Markov maps, so the mode is 'velocity' and the criterion "
            f"'saturation'; found {chosen!r}",
        )
    return config


def check_points(points: Any, photo: Photo) -> tuple[Point, ...]:
    """The pixels of points.

    Args:
        points: Pairs ``(x, y)`` of numbers; fractions are cut off.
        photo: The photo.

    Raises:
        OptionError: There is no point (``O05``), one is no pair of numbers (``O03``),
            or one is outside the photo (``O01``).
    """
    try:
        given = np.asarray(points, np.float64)
    except (TypeError, ValueError):  # words, or rows of unequal lengths
        given = np.zeros(())
    if given.shape[:1] == (0,):
        raise OptionError("O05", "there is no point; pass pixels as [(x, y), ...]")
    if given.ndim != 2 or given.shape[1:] != (2,):
        raise OptionError(
            "O03",
            f"points = {points!r:.80}; expected pairs of numbers, [(x, y), ...], with "
            "the column first",
        )
    height, width, _ = photo.pixels.shape
    pairs = [(float(x), float(y)) for x, y in given]
    for index, (x, y) in enumerate(pairs):
        if 0 <= x < width and 0 <= y < height:
            continue
        swapped = 0 <= y < width and 0 <= x < height
        hint = f"; did you mean ({y:g}, {x:g})?" if swapped else ""
        raise OptionError(
            "O01",
            f"point {index} is ({x:g}, {y:g}), outside the photo of {width} x {height} "
            f"pixels; x is the column, from 0 to {width - 1}, and y the row, from 0 to "
            f"{height - 1}{hint}",
        )
    return tuple((int(x), int(y)) for x, y in pairs)


class _Clicks(Steps):
    """The steps for points in a photo whose affinity is given."""

    def __init__(
        self,
        affinity: Array,
        points: Sequence[Point],
        photo: Photo,
        grid: tuple[int, int],
        clock: Clock,
    ):
        (device,) = affinity.devices()
        titles = [f"point {index} at {point}" for index, point in enumerate(points)]
        super().__init__([photo], titles, Placement(device), clock=clock)
        self._affinity = affinity
        self._grid = grid
        height, width, _ = photo.pixels.shape
        rows, columns = grid
        self.patches = [
            (2 * y + 1) * rows // (2 * height) * columns
            + (2 * x + 1) * columns // (2 * width)
            for x, y in points
        ]

    def grid(self, config: SegmenterConfig) -> tuple[int, int]:
        """Rows and columns of the affinity."""
        return self._grid

    def logits(self, config: SegmenterConfig) -> Array:
        """1 in the patch of a point, 0 elsewhere."""
        one_hot = np.zeros((1, len(self.patches), math.prod(self._grid)), np.float32)
        one_hot[0, np.arange(len(self.patches)), self.patches] = 1
        return self.placement.put_batch(one_hot)

    def affinity(self, config: SegmenterConfig) -> Array:
        """The given affinity."""
        return self._affinity

    def prepared(self, config: SegmenterConfig) -> SolverInput:
        """All mass of a point in its patch: nothing is rejected or suppressed."""
        source, number = self.logits(config), len(self.patches)
        active, support, kept, non_finite = self.placement.put_batch(
            (
                np.ones((1, number), bool),
                np.array([len(set(self.patches))], np.int32),
                np.ones((1, number), np.int32),
                np.zeros((1, number), np.int32),
            )
        )
        return SolverInput(source, source, active, support, kept, non_finite)


def _label(
    maps: Float32[np.ndarray, "classes grid_height grid_width"],
    photo: Photo,
    options: UpsamplingOptions,
) -> Int32[np.ndarray, "height width"]:
    """The greatest map of every pixel, upsampled as the options say."""
    pixels = photo.pixels
    if options.upsampling == "bilinear":
        return np.asarray(ops.bilinear_labels(maps, pixels.shape[:2]).labels)
    variances: dict[str, Any] = {
        "spatial_variance": options.spatial_variance,
        "range_variance": options.range_variance,
    }
    if options.upsampling == "bilateral":
        return np.asarray(ops.joint_bilateral_labels(maps, pixels, **variances).labels)
    guide = pixels.astype(np.float32) / 255
    dense = ops.dense_bilateral_labels(jnp.asarray(maps), guide, **variances)
    return np.asarray(jax.device_get(dense.labels))


def _notes(
    titles: Sequence[str], patches: Sequence[int], reasons: Sequence[Reason]
) -> tuple[str, ...]:
    """Remarks that a person should read before trusting the maps."""
    notes, first = [], {}
    for title, patch in zip(titles, patches, strict=True):
        if patch in first:
            notes.append(f"{title} is in the same patch as {first[patch]}: equal maps")
        first.setdefault(patch, title)
    for title, reason in zip(titles, reasons, strict=True):
        if reason != Reason.CONVERGED:
            notes.append(f"the chain of {title} does not reach all. {reason.sentence}")
    return tuple(notes)
