"""The Markov chain of all classes; a class leaves it when it has arrived (Eq. 10).

A step is ``((state * row) @ A) * column``. States are ``[classes, patches]`` for few
classes and ``[patches, classes]`` for many.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dslo_jax import tuning
from dslo_jax.solvers._arrival import Arrive, Walk
from dslo_jax.solvers._loop import Progress, Rule, begin, iterate
from dslo_jax.solvers._products import multiply
from dslo_jax.solvers.balancing import Scalings


_REST = 8
"""Largest move of a chain at rest in one step, in rounding errors of 1."""


class FewChain(NamedTuple):
    """The transition for few classes."""

    affinity: Float[Array, "patches patches"]
    row: Float[Array, " patches"]
    column: Float[Array, " patches"]

    patch_axis = 1

    def advance(self, state: Float[Array, "classes patches"]) -> Array:
        # On a CPU the product takes half the time if its thin factor lies in memory
        # transposed, and only a transposition before the barrier is kept.
        thin = jax.lax.optimization_barrier((state * self.row[None]).T)
        precision = jax.lax.Precision.HIGHEST
        moved = jnp.einsum("pc,pq->cq", thin, self.affinity, precision=precision)
        return moved * self.column[None]


class ManyChain(NamedTuple):
    """The transition for many classes.

    A CPU multiplies by the transposed affinity up to twice as fast, if the number of
    classes is a multiple of ``tuning.WIDTH``.
    """

    transposed: Float[Array, "patches patches"]
    row: Float[Array, " patches"]
    column: Float[Array, " patches"]

    patch_axis = 0

    def advance(self, state: Float[Array, "patches classes"]) -> Array:
        _, classes = state.shape
        padding = -classes % tuning.WIDTH if classes > tuning.WIDTH else 0
        scaled = jnp.pad(state * self.row[:, None], ((0, 0), (0, padding)))
        moved = multiply(self.transposed, scaled)
        return moved[:, :classes] * self.column[:, None]


Chain = FewChain | ManyChain
"""Either form; ``patch_axis`` is the axis of the patches in its states."""


def chain_of(
    affinity: Float[Array, "patches patches"], scalings: Scalings, classes: int
) -> Chain:
    """The form of the chain that is faster for this number of classes."""
    if classes < tuning.MANY:
        return FewChain(affinity, *scalings)
    return ManyChain(jax.lax.optimization_barrier(affinity.T), *scalings)


def run(arrive: Arrive, chain: Chain, progress: Progress, max_steps: int) -> Progress:
    """Run the chain until every class has arrived.

    Some classes need many more steps than others. When the number of classes that still
    run is at most the next size in ``tuning.STAGES``, only these stay in the matrix
    product.
    """
    classes = progress.error.size
    patches = progress.state.arrival.size // classes
    # No patch is missing if the share of missing patches is below this.
    rule = Rule(max_steps, 0.5 / patches, class_axis=1 - chain.patch_axis)

    def step(chain: Chain, walk: Walk, num_steps: Array) -> tuple[Walk, Array]:
        return arrive(chain.advance(walk.state), walk, num_steps)

    sizes = [classes, *(size for size in tuning.STAGES if size < classes)]
    ids = jnp.arange(classes)
    for smaller in [*sizes[1:], 0]:
        where = ids if rule.class_axis == 0 else (..., ids)
        part = jax.tree.map(lambda leaf, where=where: leaf[where], progress)
        part = iterate(step, chain, part, rule._replace(leave_at=smaller))
        progress = jax.tree.map(
            lambda leaf, new, where=where: leaf.at[where].set(new), progress, part
        )
        ids = jnp.argsort(~rule.is_running(progress))[:smaller]
    return progress


def is_at_rest(chain: Chain, final: Progress) -> Bool[Array, " classes"]:
    """Whether one more step changes nothing, for each class with missing patches.

    The step is a loop of at most one step, so that it is left out if no patch is
    missing.
    """
    axis = chain.patch_axis

    def step(chain: Chain, state: Array, _: Array) -> tuple[Array, Array]:
        new = chain.advance(state)
        largest = jnp.max(new, axis=axis, keepdims=True)
        new /= jnp.where(largest > 0, largest, 1)
        return new, jnp.max(jnp.abs(new - state), axis=axis)

    is_missing = final.error > 0
    chain, state = jax.lax.stop_gradient((chain, final.state.state))
    largest = jnp.max(state, axis=axis, keepdims=True)
    state /= jnp.where(largest > 0, largest, 1)
    start = begin(state, jnp.where(is_missing, jnp.inf, jnp.nan).astype(state.dtype))
    last = iterate(step, chain, start, Rule(1, 0.0, class_axis=1 - axis))
    return last.error <= _REST * jnp.finfo(state.dtype).eps
