"""Doubly stochastic balancing and the maximum velocity (Eq. 10-12).

The transition ``diag(row) A diag(column)`` is never formed: balancing works on the two
scaling vectors, and a step of the chain is ``((state * row) @ A) * column``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32

from dslo_jax.solvers._arguments import (
    compute_dtype,
    find_fault,
    require_affinity,
    require_choice,
    require_given,
    require_source,
    require_steps,
    require_threshold,
    require_tolerance,
)
from dslo_jax.solvers._loop import Progress, begin, has_converged, is_running, iterate
from dslo_jax.solvers._products import in_parts, multiply
from dslo_jax.solvers.discrepancy import Discrepancy
from dslo_jax.solvers.solution import Reason, Solution, choose_reason


Criterion = Literal["saturation", "increment"]

MANY = 32
"""Classes from which on a transposed copy of the affinity pays for itself."""

_WIDTH = 32
"""Classes that a product on a CPU takes at once."""

_STAGES = (512, 256, 160, 128, 96, 64, 32, 16, 8, 4, 1)
"""Sizes that a batch of classes shrinks to as its members arrive."""

_SUMMED_ROWS = 128
"""Rows, at least, whose column sums one product takes."""

_PART = 4096
"""Entries of a row, at most, that one product sums up."""

_REST = 8
"""Units of rounding by which a state of 1 may move in a step of a chain at rest."""


class Transition(NamedTuple):
    """A transition matrix in row-vector convention, ``state @ T``, as its scalings.

    Attributes:
        row_scaling: Factor of each row of the affinity; 0 for a row of zeros.
        column_scaling: Factor of each column; 0 for a column of zeros.
        num_steps: Rounds taken, each of columns, then rows.
        error: Largest distance of a column sum from 1 (the rows sum to 1). NaN if
            the affinity has a row or column of zeros, or a value that is negative
            or not finite: no doubly stochastic form exists.
        converged: True if ``error`` is a number at most ``tolerance``.
        reason: Why the rounds ended, a ``Reason``.
    """

    row_scaling: Float[Array, " patches"]
    column_scaling: Float[Array, " patches"]
    num_steps: Int[Array, ""]
    error: Float[Array, ""]
    converged: Bool[Array, ""]
    reason: Int32[Array, ""]

    def matrix(
        self, affinity: Float[Array, "patches patches"]
    ) -> Float[Array, "patches patches"]:
        """The transition matrix itself, for inspection; the solvers never form it.

        Args:
            affinity: The affinity that was balanced; it is not kept here.

        Returns:
            ``T[i, j]``, the probability to go from patch i to patch j.

        Memory:
            One N x N array: 64 MiB at N = 4096, 1 GiB at N = 16384.
        """
        affinity = affinity.astype(self.row_scaling.dtype)
        return self.row_scaling[:, None] * affinity * self.column_scaling[None, :]


class VelocitySolution(NamedTuple):
    """Velocities (Eq. 12).

    Attributes:
        velocity: High where a patch arrives early; 0 for a class that could not be
            solved.
        arrival: Steps until each patch arrives; ``max_steps`` where it did not.
        num_steps: Steps of the chain.
        error: Share of the patches that did not arrive, or NaN.
        converged: True where every patch arrived.
        reason: Why the class ended, a ``Reason``.
    """

    velocity: Float[Array, "classes patches"]
    arrival: Float[Array, "classes patches"]
    num_steps: Int[Array, " classes"]
    error: Float[Array, " classes"]
    converged: Bool[Array, " classes"]
    reason: Int32[Array, " classes"]


def doubly_stochastic(
    affinity: Float[Array, "patches patches"],
    *,
    max_steps: int = 15,
    tolerance: float = 0.0,
) -> Transition:
    """Balance an affinity by iterative proportional fitting (Eq. 11).

    A round divides the columns by their sums, then the rows by theirs. Attention is
    far from balanced after the paper's 15 rounds, and more rounds change it: the
    number belongs to the definition, so nothing stops the rounds by default.

    Args:
        affinity: Non-negative, with positive row and column sums.
        max_steps: Number of rounds, or the cap on it.
        tolerance: Stops when no column sum is further than this from 1; 0 runs
            exactly ``max_steps``.

    Returns:
        The scalings of the transition, and how close it is to doubly stochastic.

    Raises:
        ValueError: The affinity is not square, or an option is out of range.

    Memory:
        No N x N array for a float32 affinity. A narrower one is widened once:
        64 MiB at N = 4096, 1 GiB at N = 16384.
    """
    if (
        affinity.ndim != 2
        or affinity.shape[0] != affinity.shape[1]
        or not affinity.size
    ):
        raise ValueError(
            f"`affinity` has shape {affinity.shape}, expected [patches, patches] with "
            "at least one patch"
        )
    require_steps("max_steps", max_steps)
    require_tolerance(tolerance)
    wide = affinity.astype(compute_dtype(affinity))
    is_widened = wide.dtype != affinity.dtype
    final, fault = _balance(wide, max_steps, tolerance, is_widened=is_widened)
    scalings: _Scalings = final.state.scalings
    converged = has_converged(final.error, tolerance)
    return Transition(
        scalings.row,
        scalings.column,
        final.num_steps,
        final.error,
        converged,
        choose_reason(
            (fault != Reason.CONVERGED.value, fault),
            (converged, Reason.CONVERGED),
            (jnp.isnan(final.error), Reason.UNBALANCEABLE),
            otherwise=Reason.STEP_CAP,
        ),
    )


def maximum_velocity(
    source: Float[Array, "classes patches"],
    affinity: Float[Array, "patches patches"],
    *,
    threshold: float = 0.3,
    criterion: Criterion = "saturation",
    balancing_steps: int = 15,
    max_steps: int = 1000,
    interpolate: bool = True,
) -> VelocitySolution:
    """How soon a Markov chain that starts at a class reaches each patch (Eq. 10-12).

    ``"saturation"``: the state is scaled to maximum 1 after every step; a patch
    arrives at the first step where its state exceeds the threshold, and the velocity
    is 1 / (1 + steps), so a patch that starts above it has velocity 1. Between two
    steps the arrival is interpolated linearly; before the first step the state is
    taken to be ``1 - threshold`` below what it becomes, since a suppressed patch
    starts at 0 whatever it is.

    ``"increment"``: Eq. 12 to the letter. The state is not scaled; a patch arrives at
    the first step that moves it by no more than the threshold, and the velocity is
    1 / steps. As a distribution over thousands of patches hardly moves by 0.3
    anywhere, all velocities are then 1. Kept for the record.

    Args:
        source: Class distributions over the patches; only ``"increment"`` depends
            on their scale.
        affinity: Non-negative attention from patch (row) to patch (column).
        threshold: The paper's tau, in (0, 1]. No scaled state exceeds 1: there,
            ``"saturation"`` leaves every patch at the cap.
        criterion: When a patch has arrived.
        balancing_steps: Rounds of ``doubly_stochastic``.
        max_steps: Cap on the steps of the chain. A patch that cannot be reached
            stays at the cap, and makes its class run this long.
        interpolate: False gives whole steps and many ties. ``"increment"`` has whole
            steps in any case.

    Returns:
        Velocities and status of each class. A class without mass, or with a value
        that is negative or not finite, has ``error`` NaN; so have all classes if
        the affinity cannot be balanced. Gradients reach source and affinity through
        the balancing and the interpolated arrivals: they are those of the steps
        taken, and 0 for whole steps.

    Raises:
        ValueError: A shape or an option is out of range.

    Memory:
        Below 32 classes no N x N array for a float32 affinity; from there on one, its
        transposed copy. A narrower affinity is widened once. Such an array takes
        64 MiB at N = 4096, 1 GiB at N = 16384.
    """
    require_source(source)
    require_affinity(affinity, source)
    _require_options(threshold, criterion, balancing_steps, max_steps)
    dtype = compute_dtype(source, affinity)
    is_widened = affinity.dtype != dtype
    source, affinity = source.astype(dtype), affinity.astype(dtype)
    fault = find_fault(source)
    usable = fault == Reason.CONVERGED.value
    source = jnp.where(usable[:, None], source, 0)
    scalings, imbalance = _scale(affinity, balancing_steps, is_widened=is_widened)
    fault = choose_reason((~usable, fault), otherwise=imbalance)
    chain = _chain(affinity, scalings, len(source))
    axis = chain.patch_axis
    mass = source if axis == 1 else source.T
    if criterion == "saturation":
        start = _begin_saturation(mass, axis, threshold)
        arrive = _by_saturation(axis, threshold, interpolate)
    else:
        start = _Walk(mass, jnp.full_like(mass, jnp.inf))
        arrive = _by_increment(axis, threshold)
    is_solvable = fault == Reason.CONVERGED.value
    error = jnp.where(is_solvable, _share_missing(start, axis), jnp.nan)
    final = _run(arrive, chain, begin(start, error), max_steps)
    reason = choose_reason(
        (~is_solvable, fault),
        (final.error == 0, Reason.CONVERGED),
        # The chain lost all of its mass to underflow.
        (jnp.isnan(final.error), Reason.UNBALANCEABLE),
        (_is_at_rest(chain, final), Reason.DISCONNECTED),
        otherwise=Reason.STEP_CAP,
    )
    arrival = final.state.arrival if axis == 1 else final.state.arrival.T
    is_counted_from_zero = criterion == "saturation"
    return _velocities(
        final, reason, arrival, max_steps, first=float(is_counted_from_zero)
    )


@dataclass(frozen=True)
class MaximumVelocity(Discrepancy):
    """The maximum velocity (Eq. 12) as a discrepancy, with the function's options.

    Args:
        threshold: See ``maximum_velocity``, and for all other options.
        criterion: When a patch has arrived.
        balancing_steps: Rounds of ``doubly_stochastic``.
        max_steps: Cap on the steps of the chain.
        interpolate: False gives whole steps and many ties.

    Raises:
        ValueError: An option is out of range.
    """

    name: ClassVar[str] = "velocity"
    flat_names: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "threshold": "threshold",
            "criterion": "criterion",
            "balancing_steps": "balancing_steps",
            "max_steps": "velocity_steps",
        }
    )

    threshold: float = 0.3
    criterion: Criterion = "saturation"
    balancing_steps: int = 15
    max_steps: int = 1000
    interpolate: bool = True

    def __post_init__(self):
        _require_options(
            self.threshold, self.criterion, self.balancing_steps, self.max_steps
        )

    def solve(
        self,
        source: Float[Array, "classes patches"],
        affinity: Float[Array, "patches patches"] | None = None,
    ) -> Solution:
        """See ``maximum_velocity``; the value is the velocity."""
        found = maximum_velocity(source, require_given(affinity), **vars(self))
        return Solution(
            found.velocity,
            found.num_steps,
            found.error,
            found.converged,
            found.reason,
        )


def _require_options(
    threshold: float, criterion: str, balancing_steps: int, max_steps: int
) -> None:
    require_threshold(threshold)
    require_choice("criterion", criterion, get_args(Criterion))
    require_steps("balancing_steps", balancing_steps)
    require_steps("max_steps", max_steps)


class _Scalings(NamedTuple):
    """Factors of the rows and columns of the affinity."""

    row: Float[Array, " patches"]
    column: Float[Array, " patches"]

    @property
    def exist(self) -> Bool[Array, ""]:
        """False if a row or column cannot be scaled to sum 1."""
        return (jnp.min(self.row) > 0) & (jnp.min(self.column) > 0)


class _Balance(NamedTuple):
    """State of the balancing loop; ``column_sums`` are those of ``row @ A``."""

    scalings: _Scalings
    column_sums: Float[Array, " patches"]


class _Chain(NamedTuple):
    """The transition as it is applied to few classes."""

    affinity: Float[Array, "patches patches"]
    row: Float[Array, " patches"]
    column: Float[Array, " patches"]

    patch_axis = 1
    """Of the states."""

    def advance(self, state: Float[Array, "classes patches"]) -> Array:
        # On a CPU the product takes half the time if its thin factor lies in memory
        # transposed, and the barrier keeps it so. (A `.T` behind it would not do.)
        thin = jax.lax.optimization_barrier((state * self.row[None]).T)
        precision = jax.lax.Precision.HIGHEST
        moved = jnp.einsum("pc,pq->cq", thin, self.affinity, precision=precision)
        return moved * self.column[None]


class _ManyChain(NamedTuple):
    """The transition as it is applied to many classes.

    A CPU multiplies by the transposed affinity up to twice as fast, if the number of
    classes is a multiple of those that its product takes at once.
    """

    transposed: Float[Array, "patches patches"]
    row: Float[Array, " patches"]
    column: Float[Array, " patches"]

    patch_axis = 0
    """Of the states."""

    def advance(self, state: Float[Array, "patches classes"]) -> Array:
        _, classes = state.shape
        padding = -classes % _WIDTH if classes > _WIDTH else 0
        scaled = jnp.pad(state * self.row[:, None], ((0, 0), (0, padding)))
        moved = multiply(self.transposed, scaled)
        return moved[:, :classes] * self.column[:, None]


class _Walk(NamedTuple):
    """State of the chain; ``arrival`` is infinite until a patch arrives.

    Classes and patches, in the order that suits the chain.
    """

    state: Float[Array, "..."]
    arrival: Float[Array, "..."]


_Arrive = Callable[[Array, _Walk, Array], tuple[_Walk, Float[Array, " classes"]]]
"""Maps the new state, the walk and the steps so far to the next walk and its error."""


def _balance(
    affinity: Float[Array, "patches patches"],
    max_steps: int,
    tolerance: float,
    *,
    is_widened: bool,
) -> tuple[Progress, Int32[Array, ""]]:
    """Eq. 11 on the scaling vectors: two passes over the affinity a round.

    Returns:
        The scalings, and what is wrong with the affinity's values: a ``Reason``.
    """

    def step(affinity: Array, state: _Balance, _: Array) -> tuple[_Balance, Array]:
        scalings = _next_scalings(affinity, state.column_sums)
        sums = _column_sums(affinity, scalings.row)
        error = jnp.max(jnp.abs(scalings.column * sums - 1))
        return _Balance(scalings, sums), jnp.where(scalings.exist, error, jnp.nan)

    least = jnp.min(affinity)
    usable = least >= 0  # not if it is NaN
    # From the affinity, not constant: with a vector that images share, vmap would copy
    # their affinities into one matrix.
    ones = jnp.full(affinity.shape[0], usable).astype(affinity.dtype)
    # What was widened would be widened again for a product of blocks.
    sums = jnp.sum(affinity, axis=0) if is_widened else _column_sums(affinity, ones)
    start = _Balance(_Scalings(ones, ones), sums)
    error = jnp.where(usable, jnp.asarray(jnp.inf, ones.dtype), jnp.nan)
    is_finite = jnp.isfinite(least) & jnp.all(jnp.isfinite(sums))
    fault = choose_reason(
        (~is_finite, Reason.AFFINITY_NOT_FINITE),
        (~usable, Reason.AFFINITY_NEGATIVE),
    )
    start = begin(start, error)
    final = iterate(step, affinity, start, max_steps=max_steps, tolerance=tolerance)
    return final, fault


def _scale(
    affinity: Float[Array, "patches patches"], rounds: int, *, is_widened: bool
) -> tuple[_Scalings, Int32[Array, ""]]:
    """The scalings after so many rounds, and why there are none: a ``Reason``.

    How far the columns then are from balanced would take another pass.
    """
    last, fault = _balance(affinity, rounds - 1, 0.0, is_widened=is_widened)
    scalings = _next_scalings(affinity, last.state.column_sums)
    exist = ~jnp.isnan(last.error) & scalings.exist
    is_faulty = fault != Reason.CONVERGED.value
    return scalings, choose_reason((is_faulty, fault), (~exist, Reason.UNBALANCEABLE))


def _next_scalings(
    affinity: Float[Array, "patches patches"], column_sums: Float[Array, " patches"]
) -> _Scalings:
    """A round of Eq. 11: divide the columns by their sums, then the rows by theirs."""
    column = _reciprocal(column_sums)
    return _Scalings(_reciprocal(_row_sums(affinity, column)), column)


def _column_sums(
    affinity: Float[Array, "patches patches"], row: Float[Array, " patches"]
) -> Float[Array, " patches"]:
    """``row @ affinity``, the sum of the products of blocks of rows.

    A CPU adds rows up one after another: thousands of them in float32 are off by 1e-5,
    and 30 such sums make a chain of 40 steps wrong in its third digit.
    """
    blocks = sum_blocks(row.size)
    affinity = affinity.reshape(blocks, -1, row.size)
    parts = multiply(row.reshape(blocks, 1, -1), affinity)
    return jnp.sum(parts, axis=(0, 1))


def sum_blocks(patches: int) -> int:
    """Number of blocks of rows whose column sums are added up."""
    sizes = range(min(_SUMMED_ROWS, patches), patches + 1)
    return patches // next(size for size in sizes if patches % size == 0)


def _row_sums(
    affinity: Float[Array, "patches patches"], column: Float[Array, " patches"]
) -> Float[Array, " patches"]:
    """``affinity @ column``; of long rows, the sum of the products with its parts.

    A CPU adds up the entries of a row in parts as wide as its vectors, which is exact
    enough for thousands of them. More parts take a tenth longer; without them the
    worst velocity of 171 classes over 9216 patches was off by 5e-4 of itself, not 7e-5.
    """
    count = -(-column.size // _PART)
    if count == 1:
        return multiply(affinity, column)
    return jnp.sum(multiply(affinity, in_parts(column, count).T), axis=1)


def _reciprocal(sums: Float[Array, " patches"]) -> Float[Array, " patches"]:
    """1 / sums, and 0 for a sum that is zero or not finite."""
    is_number = (sums > 0) & jnp.isfinite(sums)
    # 1 / 0 would make gradients NaN, although nobody reads it.
    return jnp.where(is_number, 1 / jnp.where(is_number, sums, 1), 0)


def _chain(
    affinity: Float[Array, "patches patches"], scalings: _Scalings, classes: int
) -> _Chain | _ManyChain:
    if classes < MANY:
        return _Chain(affinity, *scalings)
    return _ManyChain(jax.lax.optimization_barrier(affinity.T), *scalings)


def _begin_saturation(mass: Array, patch_axis: int, threshold: float) -> _Walk:
    peak = jnp.max(mass, axis=patch_axis, keepdims=True)
    state = mass / jnp.where(peak > 0, peak, 1)
    return _Walk(state, jnp.where(state > threshold, 0, jnp.full_like(state, jnp.inf)))


def _by_saturation(patch_axis: int, threshold: float, interpolate: bool) -> _Arrive:
    def arrive(state: Array, walk: _Walk, num_steps: Array) -> tuple[_Walk, Array]:
        peak = jnp.max(state, axis=patch_axis)
        state /= jnp.expand_dims(jnp.where(peak > 0, peak, 1), patch_axis)
        arrives = (state > threshold) & jnp.isinf(walk.arrival)
        taken = jnp.expand_dims(num_steps, patch_axis)
        arrival = (taken + 1).astype(state.dtype)
        if interpolate:
            gain = jnp.where(taken == 0, 1 - threshold, state - walk.state)
            gain = jnp.where(arrives, gain, 1)  # 0 would make gradients NaN
            # Rounding must not put a patch ahead of the step before.
            arrival -= jnp.minimum((state - threshold) / gain, 1)
        walk = _Walk(state, jnp.where(arrives, arrival, walk.arrival))
        missing = _share_missing(walk, patch_axis)
        return walk, jnp.where(peak > 0, missing, jnp.nan)

    return arrive


def _by_increment(patch_axis: int, threshold: float) -> _Arrive:
    def arrive(state: Array, walk: _Walk, num_steps: Array) -> tuple[_Walk, Array]:
        is_still = jnp.abs(state - walk.state) <= threshold
        arrival = jnp.expand_dims(num_steps + 1, patch_axis).astype(state.dtype)
        arrives = is_still & jnp.isinf(walk.arrival)
        walk = _Walk(state, jnp.where(arrives, arrival, walk.arrival))
        is_finite = jnp.isfinite(jnp.max(state, axis=patch_axis))
        missing = _share_missing(walk, patch_axis)
        return walk, jnp.where(is_finite, missing, jnp.nan)

    return arrive


def _share_missing(walk: _Walk, patch_axis: int) -> Float[Array, " classes"]:
    """Share of the patches that have not arrived."""
    missing = jnp.isinf(walk.arrival).astype(walk.state.dtype)
    return jnp.mean(missing, axis=patch_axis)


def _run(
    arrive: _Arrive, chain: _Chain | _ManyChain, progress: Progress, max_steps: int
) -> Progress:
    """Run the chain; a class that has arrived leaves the matrix product.

    Some classes need many more steps than others. Whenever those still on their way
    fit the next smaller size, only they go on.
    """
    classes = progress.error.size
    patches = progress.state.arrival.size // classes
    tolerance = 0.5 / patches  # the share is zero
    class_axis = 1 - chain.patch_axis

    def step(
        chain: _Chain | _ManyChain, walk: _Walk, num_steps: Array
    ) -> tuple[_Walk, Array]:
        return arrive(chain.advance(walk.state), walk, num_steps)

    sizes = [classes, *(size for size in _STAGES if size < classes)]
    ids = jnp.arange(classes)
    for smaller in [*sizes[1:], 0]:
        where = ids if class_axis == 0 else (..., ids)
        part = jax.tree.map(lambda leaf, where=where: leaf[where], progress)
        part = iterate(
            step,
            chain,
            part,
            max_steps=max_steps,
            tolerance=tolerance,
            leave_at=smaller,
            class_axis=class_axis,
        )
        progress = jax.tree.map(
            lambda leaf, new, where=where: leaf.at[where].set(new), progress, part
        )
        active = is_running(progress, max_steps=max_steps, tolerance=tolerance)
        ids = jnp.argsort(~active)[:smaller]
    return progress


def _is_at_rest(chain: _Chain | _ManyChain, final: Progress) -> Bool[Array, " classes"]:
    """Whether one more step would change nothing, of the classes with patches missing.

    A loop of one step, or of none if no patch is missing.
    """
    axis = chain.patch_axis

    def step(chain: _Chain | _ManyChain, state: Array, _: Array) -> tuple[Array, Array]:
        new = chain.advance(state)
        largest = jnp.max(new, axis=axis, keepdims=True)
        new /= jnp.where(largest > 0, largest, 1)
        return new, jnp.max(jnp.abs(new - state), axis=axis)

    is_missing = final.error > 0
    state = jax.lax.stop_gradient(final.state.state)
    largest = jnp.max(state, axis=axis, keepdims=True)
    state /= jnp.where(largest > 0, largest, 1)
    start = begin(state, jnp.where(is_missing, jnp.inf, jnp.nan).astype(state.dtype))
    last = iterate(step, chain, start, max_steps=1, tolerance=0.0, class_axis=1 - axis)
    return last.error <= _REST * jnp.finfo(state.dtype).eps


def _velocities(
    final: Progress,
    reason: Int32[Array, " classes"],
    arrival: Float[Array, "classes patches"],
    max_steps: int,
    first: float,
) -> VelocitySolution:
    """1 / (first + arrival), with ``max_steps`` for what did not arrive."""
    failed = jnp.isnan(final.error)[:, None]
    arrival = jnp.where(failed, jnp.inf, arrival)
    arrival = jnp.where(jnp.isinf(arrival), max_steps, arrival)
    velocity = jnp.where(failed, 0, 1 / (first + arrival))
    return VelocitySolution(
        velocity,
        arrival,
        final.num_steps,
        final.error,
        reason == Reason.CONVERGED.value,
        reason,
    )
