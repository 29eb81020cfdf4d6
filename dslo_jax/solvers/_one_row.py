"""The exact solution of a class whose mass lies in one row.

Every column gets all of its mass from this row, so that ``plan_j = target_j``, and the
path is ``target_j * cost_j``. This is common, because suppression leaves an improbable
class one patch. If this patch has sharp attention, the kernel would lose digits.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dslo_jax.solvers._log_domain import NOTHING, log_or_nothing
from dslo_jax.solvers._rows import Problem
from dslo_jax.solvers._scaling import Known


class OneRow(NamedTuple):
    """The solution of classes with one row; other classes have meaningless values."""

    holds: Bool[Array, " classes"]
    row_log: Float[Array, "classes blocks rows"]
    column_log: Float[Array, "classes targets"]
    path: Float[Array, "classes targets"]


def solve_one_row(problem: Problem, known: Known, classes: int) -> OneRow:
    """The logarithms of the scalings after the first step of Eq. 8, and the path."""
    mass = problem.by_class(problem.source, classes)
    flat = mass.reshape(classes, -1)
    carries = flat > 0
    place = jnp.sum(jnp.where(carries, jnp.arange(flat.shape[1]), 0), axis=1)
    place = jnp.minimum(place, flat.shape[1] - 1)
    cost = problem.rows_at(place)
    exponent = problem.exponent(cost, known.shift.reshape(-1)[place])
    total = jnp.sum(flat, axis=1)
    row = log_or_nothing(total) - jax.nn.logsumexp(exponent, axis=1)
    column = log_or_nothing(problem.target)[None] - row[:, None] - exponent
    # Otherwise exponents are rounded by more than 1, or a cost is not finite.
    is_exact = known.log_range * jnp.finfo(flat.dtype).eps < 1
    return OneRow(
        (jnp.sum(carries, axis=1) == 1) & is_exact,
        jnp.where(carries, row[:, None], NOTHING).reshape(mass.shape),
        jnp.where(problem.target[None] > 0, column, NOTHING),
        problem.target[None] * cost,
    )
