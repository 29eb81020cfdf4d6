"""Balancing an affinity: rows and columns scaled until they sum to 1 (Eq. 11).

The transition ``diag(row) A diag(column)`` is never formed. A round of balancing
changes only the two vectors of scalings.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32

from dslo_jax import tuning
from dslo_jax.solvers._arguments import (
    as_arrays,
    compute_dtype,
    require_steps,
    require_tolerance,
)
from dslo_jax.solvers._loop import (
    Progress,
    Rule,
    begin,
    has_converged,
    iterate,
    recorded,
)
from dslo_jax.solvers._products import (
    column_by_parts,
    in_parts,
    multiply,
    row_by_parts,
    widened_on_cpu,
)
from dslo_jax.solvers.solution import Reason, choose_reason


class Transition(NamedTuple):
    """The scalings of a transition matrix ``T``, which is applied as ``state @ T``.

    Attributes:
        row_scaling: Factor of each row of the affinity; 0 for a row of zeros.
        column_scaling: Factor of each column; 0 for a column of zeros.
        num_steps: Number of rounds; a round scales the columns, then the rows.
        error: Largest distance of a column sum from 1 (the rows sum to 1). NaN if
            the affinity cannot be balanced: it has a row or column of zeros, or a value
            that is negative or not finite.
        converged: True if ``error`` is a number at most ``tolerance``.
        reason: Why the rounds ended, a ``Reason``.
        history: With ``record``, the error after each round; NaN after the last.
    """

    row_scaling: Float[Array, " patches"]
    column_scaling: Float[Array, " patches"]
    num_steps: Int[Array, ""]
    error: Float[Array, ""]
    converged: Bool[Array, ""]
    reason: Int32[Array, ""]
    history: Float[Array, " steps"] | None = None

    def matrix(
        self, affinity: Float[Array | np.ndarray, "patches patches"]
    ) -> Float[Array, "patches patches"]:
        """The transition matrix itself, for inspection; the solvers never form it.

        Args:
            affinity: The affinity that was balanced; it is not kept here.

        Returns:
            ``T[i, j]``, the probability to go from patch i to patch j.

        Memory:
            One N x N array: 64 MiB at N = 4096, 1 GiB at N = 16384.
        """
        affinity = jnp.asarray(affinity).astype(self.row_scaling.dtype)
        return self.row_scaling[:, None] * affinity * self.column_scaling[None, :]


def doubly_stochastic(
    affinity: Float[Array | np.ndarray, "patches patches"],
    *,
    max_steps: int = 15,
    tolerance: float = 0.0,
    record: bool = False,
) -> Transition:
    """Balance an affinity by iterative proportional fitting (Eq. 11).

    A round divides the columns by their sums, then the rows by their sums. Attention is
    far from balanced after the paper's 15 rounds, and more rounds change the result.
    The number of rounds is a part of the method, so by default no tolerance stops them.

    Args:
        affinity: Non-negative, with positive row and column sums.
        max_steps: Number of rounds, or the cap on it.
        tolerance: Greatest ``error`` at which the rounds stop; 0 runs exactly
            ``max_steps`` rounds.
        record: Also return the error after every round.

    Returns:
        The scalings of the transition, and how close it is to doubly stochastic.

    Raises:
        ValueError: The affinity is not square, or an option is out of range.

    Example:
        >>> affinity = jnp.asarray([[1.0, 1.0], [1.0, 3.0]])
        >>> transition = doubly_stochastic(affinity, max_steps=100, tolerance=1e-6)
        >>> transition.matrix(affinity).sum(axis=0).round(4).tolist()
        [1.0, 1.0]

    Memory:
        No N x N array. A CPU also holds the widened copy of an affinity narrower than
        float32: 64 MiB at N = 4096, 1 GiB at N = 16384.
    """
    (affinity,) = as_arrays(affinity)
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
    solve = partial(_balance, max_steps=max_steps, tolerance=tolerance, record=record)
    dtype = compute_dtype(affinity)
    final, fault = widened_on_cpu(solve, affinity, dtype=dtype)
    scalings: Scalings = final.state.scalings
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
        final.history,
    )


class Scalings(NamedTuple):
    """Factors of the rows and columns of the affinity."""

    row: Float[Array, " patches"]
    column: Float[Array, " patches"]

    @property
    def exist(self) -> Bool[Array, ""]:
        """Whether every row and column can be scaled to sum 1."""
        return (jnp.min(self.row) > 0) & (jnp.min(self.column) > 0)


class _Balance(NamedTuple):
    """State of the balancing loop; ``column_sums`` are those of ``row @ A``."""

    scalings: Scalings
    column_sums: Float[Array, " patches"]


def _balance(
    affinity: Float[Array, "patches patches"],
    max_steps: int,
    tolerance: float,
    *,
    record: bool = False,
) -> tuple[Progress, Int32[Array, ""]]:
    """Run Eq. 11 on the scalings; a round reads the affinity twice.

    Returns:
        The scalings, and the ``Reason`` if the affinity has unusable values.
    """

    def step(affinity: Array, state: _Balance, _: Array) -> tuple[_Balance, Array]:
        scalings = _next_scalings(affinity, state.column_sums)
        sums = _column_sums(affinity, scalings.row)
        error = jnp.max(jnp.abs(scalings.column * sums - 1))
        return _Balance(scalings, sums), jnp.where(scalings.exist, error, jnp.nan)

    least, sums = tuning.by_platform(
        affinity, cpu=least_and_sums_on_cpu, other=least_and_sums
    )
    usable = least >= 0  # false for NaN
    ones = jnp.full(sums.size, usable).astype(sums.dtype)
    start = _Balance(Scalings(ones, ones), sums)
    error = jnp.where(usable, jnp.asarray(jnp.inf, ones.dtype), jnp.nan)
    is_finite = jnp.isfinite(least) & jnp.all(jnp.isfinite(sums))
    fault = choose_reason(
        (~is_finite, Reason.AFFINITY_NOT_FINITE),
        (~usable, Reason.AFFINITY_NEGATIVE),
    )
    start = begin(start, error)
    start = recorded(start, max_steps) if record else start
    final = iterate(step, affinity, start, Rule(max_steps, tolerance))
    return final, fault


def scale(
    affinity: Float[Array, "patches patches"], rounds: int
) -> tuple[Scalings, Int32[Array, ""]]:
    """The scalings after a number of rounds, and the ``Reason`` if there are none.

    Their error is not computed, because that would read the affinity once more.
    """
    last, fault = _balance(affinity, rounds - 1, 0.0)
    scalings = _next_scalings(affinity, last.state.column_sums)
    exist = ~jnp.isnan(last.error) & scalings.exist
    is_faulty = fault != Reason.CONVERGED.value
    return scalings, choose_reason((is_faulty, fault), (~exist, Reason.UNBALANCEABLE))


def _next_scalings(
    affinity: Float[Array, "patches patches"], column_sums: Float[Array, " patches"]
) -> Scalings:
    """One round of Eq. 11: scale the columns by their sums, then the rows."""
    column = _reciprocal(column_sums)
    return Scalings(_reciprocal(_row_sums(affinity, column)), column)


def least_and_sums_on_cpu(
    affinity: Float[Array, "patches patches"],
) -> tuple[Float[Array, ""], Float[Array, " patches"]]:
    """The smallest entry, and the sum of every column."""
    affinity = affinity.astype(compute_dtype(affinity))
    least = jnp.min(jax.lax.stop_gradient(affinity))
    # Computed from the affinity: with a constant vector, vmap over images would copy
    # their affinities into one matrix.
    ones = jnp.full(affinity.shape[0], least >= 0).astype(affinity.dtype)
    return least, row_by_blocks(ones, affinity)


def least_and_sums(
    affinity: Float[Array, "patches patches"],
) -> tuple[Float[Array, ""], Float[Array, " patches"]]:
    """The same on GPUs and TPUs, which read the affinity once for both."""
    affinity = affinity.astype(compute_dtype(affinity))
    lowest = jnp.min(jax.lax.stop_gradient(affinity), axis=0)
    # Without the barrier a GPU reads the affinity twice.
    least = jnp.min(jax.lax.optimization_barrier(lowest))
    return least, jnp.sum(affinity, axis=0)


def _column_sums(
    affinity: Float[Array, "patches patches"], row: Float[Array, " patches"]
) -> Float[Array, " patches"]:
    """``row @ affinity``."""
    return tuning.by_platform(row, affinity, cpu=row_by_blocks, other=row_by_parts)


def row_by_blocks(
    row: Float[Array, " patches"], affinity: Float[Array, "patches patches"]
) -> Float[Array, " patches"]:
    """``row @ affinity`` on a CPU, computed for blocks of rows and added.

    A CPU adds rows one after another. In float32, the sum of thousands of rows has an
    error of 1e-5, and after 30 such sums a chain of 40 steps is wrong in the third
    digit.
    """
    blocks = sum_blocks(row.size)
    affinity = affinity.reshape(blocks, -1, row.size)
    parts = multiply(row.reshape(blocks, 1, -1), affinity)
    return jnp.sum(parts, axis=(0, 1))


def sum_blocks(patches: int) -> int:
    """Number of blocks of rows for ``row_by_blocks``."""
    sizes = range(min(tuning.SUMMED_ROWS, patches), patches + 1)
    return patches // next(size for size in sizes if patches % size == 0)


def _row_sums(
    affinity: Float[Array, "patches patches"], column: Float[Array, " patches"]
) -> Float[Array, " patches"]:
    """``affinity @ column``."""
    return tuning.by_platform(
        affinity, column, cpu=column_by_long_parts, other=column_by_parts
    )


def column_by_long_parts(
    affinity: Float[Array, "patches patches"], column: Float[Array, " patches"]
) -> Float[Array, " patches"]:
    """``affinity @ column`` on a CPU; long rows are computed in parts and added.

    A CPU adds the entries of a row in several partial sums, which is exact enough for
    thousands of entries. With more entries, parts take a tenth longer; without them,
    the largest relative error of 171 velocities over 9216 patches was 5e-4 instead of
    7e-5.
    """
    count = -(-column.size // tuning.PART)
    if count == 1:
        return multiply(affinity, column)
    return jnp.sum(multiply(affinity, in_parts(column, count).T), axis=1)


def _reciprocal(sums: Float[Array, " patches"]) -> Float[Array, " patches"]:
    """1 / sums, and 0 for a sum that is zero or not finite."""
    is_number = (sums > 0) & jnp.isfinite(sums)
    # 1 / 0 would make gradients NaN, even where its value is not used.
    return jnp.where(is_number, 1 / jnp.where(is_number, sums, 1), 0)
