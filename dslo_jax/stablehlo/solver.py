"""A discrepancy alone as one pure function: sources and affinity to maps and status."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dslo_jax.solvers import Discrepancy, Solution
from dslo_jax.solvers.contract import solve_image


def solve_batch(
    discrepancy: Discrepancy,
    source: Float[Array, "batch classes patches"],
    affinity: Float[Array, "batch patches patches"] | None,
    real: Bool[Array, "batch classes"],
) -> Solution:
    """Solve all photos; further attempts run only if a class has no solution.

    The attempts are a branch of the whole batch. Within ``vmap`` a branch would compute
    both sides for every photo.

    Args:
        discrepancy: The discrepancy to solve for.
        source: As for ``Discrepancy.solve``.
        affinity: Affinity between the patches, if it is needed.
        real: False for rows of ``source`` that are padding.
    """
    first, *others = discrepancy.attempts
    solution = jax.vmap(partial(solve_image, first))(source, affinity)
    for other in others:
        unsolved = (jnp.isnan(solution.error) & real).any(axis=1)

        def again(
            known: Solution, other: Discrepancy = other, unsolved: Array = unsolved
        ) -> Solution:
            found = jax.vmap(partial(solve_image, other))(source, affinity)

            def choose(new: Array, old: Array) -> Array:
                which = unsolved.reshape(-1, *[1] * (new.ndim - 1))
                return jnp.where(which, new, old)

            return jax.tree.map(choose, found, known)

        solution = jax.lax.cond(unsolved.any(), again, lambda known: known, solution)
    return solution


class Solver:
    """A discrepancy as a function of a dict of inputs, without parameters.

    Args:
        discrepancy: The discrepancy to solve for.
    """

    def __init__(self, discrepancy: Discrepancy):
        self._discrepancy = discrepancy

    def __call__(
        self, parameters: Mapping[str, Array], inputs: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Solve for the discrepancy of a batch.

        Args:
            parameters: None, as a discrepancy has none.
            inputs: ``"source"``, and ``"affinity"`` if it is needed.
        """
        del parameters
        source = inputs["source"]
        real = jnp.ones(source.shape[:2], bool)
        found = solve_batch(self._discrepancy, source, inputs.get("affinity"), real)
        return {
            "maps": found.value,
            "reason": found.reason,
            "error": found.error,
            "num_steps": found.num_steps,
        }
