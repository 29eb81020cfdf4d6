"""The Markov chain of all classes; a class leaves it when it has arrived (Eq. 10).

A step is ``((state * row) @ A) * column``. States are ``[classes, patches]`` for few
classes and ``[patches, classes]`` for many.
"""

import itertools
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dslo_jax import tuning
from dslo_jax.solvers._arrival import Arrive, Walk
from dslo_jax.solvers._loop import Progress, Rule, begin, iterate
from dslo_jax.solvers._products import multiply, row_by_parts
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
        scaled = state * self.row[None]
        moved = tuning.by_platform(
            scaled, self.affinity, cpu=thin_product_on_cpu, other=thin_product
        )
        return moved * self.column[None]


class ManyChain(NamedTuple):
    """The transition for many classes.

    Attributes:
        matrix: The affinity; on a CPU transposed.
    """

    matrix: Float[Array, "patches patches"]
    row: Float[Array, " patches"]
    column: Float[Array, " patches"]

    patch_axis = 0

    def advance(self, state: Float[Array, "patches classes"]) -> Array:
        scaled = state * self.row[:, None]
        moved = tuning.by_platform(
            scaled, self.matrix, cpu=wide_product_on_cpu, other=wide_product
        )
        return moved * self.column[:, None]


def thin_product_on_cpu(
    state: Float[Array, "classes patches"], affinity: Float[Array, "patches patches"]
) -> Float[Array, "classes patches"]:
    """``state @ affinity`` for few classes."""
    # The product takes half the time if its thin factor lies in memory transposed, and
    # only a transposition before the barrier is kept.
    thin = jax.lax.optimization_barrier(state.T)
    return multiply(thin.T, affinity)


def thin_product(
    state: Float[Array, "classes patches"], affinity: Float[Array, "patches patches"]
) -> Float[Array, "classes patches"]:
    """The same on GPUs and TPUs."""
    if len(state) == 1:
        return row_by_parts(state[0], affinity)[None]
    return multiply(state, affinity)


def wide_product_on_cpu(
    state: Float[Array, "patches classes"], transposed: Float[Array, "patches patches"]
) -> Float[Array, "patches classes"]:
    """``transposed @ state``: up to twice as fast as a product with the affinity.

    The number of classes has to be a multiple of ``tuning.WIDTH`` for that.
    """
    _, classes = state.shape
    padding = -classes % tuning.WIDTH if classes > tuning.WIDTH else 0
    padded = jnp.pad(state, ((0, 0), (0, padding)))
    return multiply(transposed, padded)[:, :classes]


def wide_product(
    state: Float[Array, "patches classes"], affinity: Float[Array, "patches patches"]
) -> Float[Array, "patches classes"]:
    """``affinity.T @ state`` on GPUs and TPUs, which transpose as they read."""
    return multiply(affinity.T, state)


Chain = FewChain | ManyChain
"""Either form; ``patch_axis`` is the axis of the patches in its states."""


def chain_of(
    affinity: Float[Array, "patches patches"], scalings: Scalings, classes: int
) -> Chain:
    """The form of the chain that is faster for this number of classes."""
    if classes < tuning.MANY:
        return FewChain(affinity, *scalings)
    matrix = tuning.by_platform(
        affinity,
        cpu=lambda affinity: jax.lax.optimization_barrier(affinity.T),
        other=lambda affinity: affinity,
    )
    return ManyChain(matrix, *scalings)


def run(arrive: Arrive, chain: Chain, progress: Progress, max_steps: int) -> Progress:
    """Run the chain until every class has arrived.

    Some classes need many more steps than others. When the number of classes that still
    run is at most the next size in ``tuning.STAGES``, only these stay in the matrix
    product. A CPU goes on with ``tuning.CPU_STAGES``.
    """
    classes = progress.error.size
    sizes = [classes, *(size for size in tuning.STAGES if size < classes)]
    *larger, last = sizes
    smaller = [last, *(size for size in tuning.CPU_STAGES if size < last)]
    stages = partial(_run_stages, arrive, max_steps)
    progress = stages([*larger, last], chain, progress)
    return tuning.by_platform(
        chain,
        progress,
        cpu=partial(stages, [*smaller, 0]),
        other=partial(stages, [last, 0]),
    )


def _run_stages(
    arrive: Arrive, max_steps: int, sizes: list[int], chain: Chain, progress: Progress
) -> Progress:
    """Run one loop for each of ``sizes`` but the last, until the next one is reached.

    Args:
        arrive: The criterion of arrival.
        max_steps: Greatest number of steps.
        sizes: Falling numbers of classes. A loop leaves out classes that have arrived.
        chain: The chain.
        progress: Progress of all classes; at most the first size still run.
    """
    classes = progress.error.size
    # No patch is missing if the share of missing patches is below this.
    least_share = 0.5 * classes / progress.state.arrival.size
    rule = Rule(max_steps, least_share, class_axis=1 - chain.patch_axis)

    def step(chain: Chain, walk: Walk, num_steps: Array) -> tuple[Walk, Array]:
        return arrive(chain.advance(walk.state), walk, num_steps)

    for size, smaller in itertools.pairwise(sizes):
        rule = rule._replace(leave_at=smaller)
        if size == classes:
            progress = iterate(step, chain, progress, rule)
            continue
        ids = jnp.argsort(~rule.is_running(progress))[:size]
        where = ids if rule.class_axis == 0 else (..., ids)
        part = jax.tree.map(lambda leaf, where=where: leaf[where], progress)
        part = iterate(step, chain, part, rule)
        progress = jax.tree.map(
            lambda leaf, new, where=where: leaf.at[where].set(new), progress, part
        )
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
