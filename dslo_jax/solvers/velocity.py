"""The maximum velocity: how soon a Markov chain reaches each patch (Eq. 10-12)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import ClassVar, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32

from dslo_jax.solvers._arguments import (
    as_arrays,
    compute_dtype,
    find_fault,
    require_affinity,
    require_choice,
    require_given,
    require_source,
    require_steps,
    require_threshold,
)
from dslo_jax.solvers._arrival import (
    Walk,
    begin_saturation,
    by_increment,
    by_saturation,
    share_missing,
)
from dslo_jax.solvers._chain import chain_of, is_at_rest, run
from dslo_jax.solvers._loop import Progress, begin, recorded
from dslo_jax.solvers._products import widened_on_cpu
from dslo_jax.solvers.balancing import scale
from dslo_jax.solvers.discrepancy import Discrepancy
from dslo_jax.solvers.solution import Reason, Solution, choose_reason


Criterion = Literal["saturation", "increment"]


class VelocitySolution(NamedTuple):
    """Velocities (Eq. 12).

    Attributes:
        velocity: High in patches that arrive early; 0 for a class that could not be
            solved.
        arrival: Steps until each patch arrives; ``max_steps`` if it does not arrive.
        num_steps: Number of steps of the chain.
        error: Share of the patches that did not arrive, or NaN.
        converged: True where every patch arrived.
        reason: Why the class ended, a ``Reason``.
        history: With ``record``, the error after each step; NaN after the last.
    """

    velocity: Float[Array, "classes patches"]
    arrival: Float[Array, "classes patches"]
    num_steps: Int[Array, " classes"]
    error: Float[Array, " classes"]
    converged: Bool[Array, " classes"]
    reason: Int32[Array, " classes"]
    history: Float[Array, "steps classes"] | None = None


def maximum_velocity(
    source: Float[Array | np.ndarray, "classes patches"],
    affinity: Float[Array | np.ndarray, "patches patches"],
    *,
    threshold: float | Float[Array, ""] = 0.3,
    criterion: Criterion = "saturation",
    balancing_steps: int = 15,
    max_steps: int = 1000,
    interpolate: bool = True,
    record: bool = False,
) -> VelocitySolution:
    """The velocity at which a Markov chain from a class reaches each patch (Eq. 10-12).

    With ``"saturation"``, the state is scaled to maximum 1 after every step. A patch
    arrives at the first step where its state exceeds the threshold. The velocity is
    1 / (1 + steps), so a patch that starts above the threshold has velocity 1. Between
    two steps the arrival is interpolated linearly. In the first step the increase of
    the state counts as ``1 - threshold``, because a suppressed patch starts at 0.

    With ``"increment"``, Eq. 12 is used as the paper prints it. The state is not
    scaled. A patch arrives at the first step that changes its state by at most the
    threshold, and the velocity is 1 / steps. A distribution over thousands of patches
    changes nowhere by 0.3, so all velocities are 1. This criterion is here for
    comparison only.

    Args:
        source: Class distributions over the patches; only ``"increment"`` depends
            on their scale.
        affinity: Non-negative attention from patch (row) to patch (column).
        threshold: The paper's tau, in (0, 1]. With 1 and ``"saturation"`` no patch
            arrives, because no scaled state exceeds 1. May be traced; its range is not
            checked then.
        criterion: Condition for the arrival of a patch.
        balancing_steps: Number of rounds of ``doubly_stochastic``.
        max_steps: Greatest number of steps of the chain. A patch that cannot be reached
            has this arrival, and its class takes this number of steps.
        interpolate: Whether arrivals are interpolated. Without, they are whole steps,
            with many ties. ``"increment"`` never interpolates.
        record: Whether to return the error after every step.

    Returns:
        Velocities and status of each class. A class without mass, or with a value
        that is negative or not finite, has ``error`` NaN. All classes have ``error``
        NaN if the affinity cannot be balanced. Source and affinity have gradients
        through the balancing and the interpolated arrivals, those of the steps taken.
        Without interpolation they are 0.

    Raises:
        ValueError: A shape or an option is out of range.

    Example:
        >>> affinity = jnp.asarray([[0.9, 0.1], [0.1, 0.9]])
        >>> found = maximum_velocity(jnp.asarray([[1.0, 0.0]]), affinity)
        >>> [round(value, 2) for value in found.velocity[0].tolist()]
        [1.0, 0.26]

    Memory:
        On GPUs and TPUs, no N x N array. On a CPU, the transposed copy of the affinity
        for 32 classes or more, and the widened copy of an affinity narrower than
        float32. Such an array takes 64 MiB at N = 4096, 1 GiB at N = 16384.
    """
    source, affinity = as_arrays(source, affinity)
    require_source(source)
    require_affinity(affinity, source)
    dtype = compute_dtype(source, affinity)
    require_threshold(threshold)
    options = MaximumVelocity(
        criterion=criterion,
        balancing_steps=balancing_steps,
        max_steps=max_steps,
        interpolate=interpolate,
    )
    solve = partial(_solve, threshold=threshold, options=options, record=record)
    return widened_on_cpu(solve, affinity, source.astype(dtype), dtype=dtype)


@dataclass(frozen=True)
class MaximumVelocity(Discrepancy):
    """The maximum velocity (Eq. 12) as a discrepancy, with the function's options.

    Args:
        threshold: The paper's tau, in (0, 1]: a patch is reached when its state
            exceeds it.
        criterion: When a patch is reached: ``saturation``, at the first step where its
            state, relative to the greatest state, exceeds the threshold; or
            ``increment``, at the first step that changes its state by at most the
            threshold (Eq. 12 as it is printed, for comparison only).
        balancing_steps: Number of rounds that scale columns and rows of the affinity to
            sum 1 before the first step, at least 1.
        max_steps: Greatest number of steps of the chain, at least 1.
        interpolate: Whether arrivals are interpolated.

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

    traced: ClassVar[tuple[str, ...]] = ("threshold",)

    threshold: float = 0.3
    criterion: Criterion = "saturation"
    balancing_steps: int = 15
    max_steps: int = 1000
    interpolate: bool = True

    def __post_init__(self):
        require_threshold(self.threshold)
        require_choice("criterion", self.criterion, get_args(Criterion))
        require_steps("balancing_steps", self.balancing_steps)
        require_steps("max_steps", self.max_steps)

    def solve(
        self,
        source: Float[Array | np.ndarray, "classes patches"],
        affinity: Float[Array | np.ndarray, "patches patches"] | None = None,
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


def _solve(
    affinity: Float[Array, "patches patches"],
    source: Float[Array, "classes patches"],
    *,
    threshold: float | Float[Array, ""],
    options: MaximumVelocity,
    record: bool,
    is_widened: bool = False,
) -> VelocitySolution:
    """Solve; the affinity may be narrower than the source (see ``widened_on_cpu``).

    The threshold of ``options`` is not used.
    """
    fault = find_fault(source)
    usable = fault == Reason.CONVERGED.value
    source = jnp.where(usable[:, None], source, 0)
    scalings, imbalance = scale(
        affinity, options.balancing_steps, is_widened=is_widened
    )
    fault = choose_reason((~usable, fault), otherwise=imbalance)
    chain = chain_of(affinity, scalings, len(source))
    axis, max_steps = chain.patch_axis, options.max_steps
    mass = source if axis == 1 else source.T
    if options.criterion == "saturation":
        start = begin_saturation(mass, axis, threshold)
        arrive = by_saturation(axis, threshold, options.interpolate)
    else:
        start = Walk(mass, jnp.full_like(mass, jnp.inf))
        arrive = by_increment(axis, threshold)
    is_solvable = fault == Reason.CONVERGED.value
    error = jnp.where(is_solvable, share_missing(start, axis), jnp.nan)
    start = begin(start, error)
    if record:
        start = recorded(start, max_steps, class_axis=1 - axis)
    final = run(arrive, chain, start, max_steps)
    reason = choose_reason(
        (~is_solvable, fault),
        (final.error == 0, Reason.CONVERGED),
        # The chain lost all of its mass to underflow.
        (jnp.isnan(final.error), Reason.UNBALANCEABLE),
        (is_at_rest(chain, final), Reason.DISCONNECTED),
        otherwise=Reason.STEP_CAP,
    )
    first = 1.0 if options.criterion == "saturation" else 0.0
    return _velocities(final, reason, max_steps, first, is_turned=axis == 0)


def _velocities(
    final: Progress,
    reason: Int32[Array, " classes"],
    max_steps: int,
    first: float,
    *,
    is_turned: bool,
) -> VelocitySolution:
    """1 / (first + arrival), with arrival ``max_steps`` if a patch did not arrive."""
    arrival, history = final.state.arrival, final.history
    arrival = arrival.T if is_turned else arrival
    if history is not None and not is_turned:
        history = history.T  # steps first
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
        history,
    )
