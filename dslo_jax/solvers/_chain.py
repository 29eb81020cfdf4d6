"""The Markov chain of all classes, which leave it as they arrive (Eq. 10).

A step is ``((state * row) @ A) * column``. The states of few classes lie classes first,
those of many patches first.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dslo_jax.solvers import tuning
from dslo_jax.solvers._arrival import Arrive, Walk
from dslo_jax.solvers._loop import Progress, begin, is_running, iterate
from dslo_jax.solvers._products import multiply
from dslo_jax.solvers.balancing import Scalings


_REST = 8
"""Units of rounding by which a state of 1 may move in a step of a chain at rest."""


class FewChain(NamedTuple):
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


class ManyChain(NamedTuple):
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
        padding = -classes % tuning.WIDTH if classes > tuning.WIDTH else 0
        scaled = jnp.pad(state * self.row[:, None], ((0, 0), (0, padding)))
        moved = multiply(self.transposed, scaled)
        return moved[:, :classes] * self.column[:, None]


Chain = FewChain | ManyChain
"""Either form; both say where their patches are."""


def chain_of(
    affinity: Float[Array, "patches patches"], scalings: Scalings, classes: int
) -> Chain:
    """The form that is faster for so many classes."""
    if classes < tuning.MANY:
        return FewChain(affinity, *scalings)
    return ManyChain(jax.lax.optimization_barrier(affinity.T), *scalings)


def run(arrive: Arrive, chain: Chain, progress: Progress, max_steps: int) -> Progress:
    """Run the chain; a class that has arrived leaves the matrix product.

    Some classes need many more steps than others. Whenever those still on their way
    fit the next smaller size, only they go on.
    """
    classes = progress.error.size
    patches = progress.state.arrival.size // classes
    tolerance = 0.5 / patches  # the share is zero
    class_axis = 1 - chain.patch_axis

    def step(chain: Chain, walk: Walk, num_steps: Array) -> tuple[Walk, Array]:
        return arrive(chain.advance(walk.state), walk, num_steps)

    sizes = [classes, *(size for size in tuning.STAGES if size < classes)]
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


def is_at_rest(chain: Chain, final: Progress) -> Bool[Array, " classes"]:
    """Whether one more step would change nothing, of the classes with patches missing.

    A loop of one step, or of none if no patch is missing.
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
    last = iterate(step, chain, start, max_steps=1, tolerance=0.0, class_axis=1 - axis)
    return last.error <= _REST * jnp.finfo(state.dtype).eps
