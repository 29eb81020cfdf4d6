"""A step of gradient descent, for all networks of the demo."""

import math
from collections.abc import Callable, Container
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array

from dslo_jax.demo.train.recipe import Metrics, OnDevice, Progress


Objective = Callable[[Any, OnDevice, Array], tuple[Array, Metrics]]
"""Function of a module, a batch and a random key to the loss and its parts."""

# The average is over about a hundred steps, because runs are short.
_AVERAGING = 0.99


def rates(highest: float, steps: int, *, warm_up: int) -> optax.Schedule:
    """A learning rate that rises for at most ``warm_up`` steps, then falls to 0."""
    warm_up = min(warm_up, steps // 10)
    return optax.warmup_cosine_decay_schedule(0.0, highest, warm_up, steps)


def descent(
    build: Callable[[], nnx.Module],
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    initial: Callable[[], nnx.State],
    seed: int,
) -> tuple[Callable[[], Progress], Callable[..., tuple[Progress, Metrics]]]:
    """The first progress and the compiled step of a recipe.

    Args:
        build: Function that makes the module; only its structure is used.
        objective: The loss.
        optimizer: Optimiser; its gradients are scaled to a norm of at most 1.
        initial: Function that makes the first parameters.
        seed: Seed of the noise of the steps.

    Returns:
        ``begin`` and ``update`` of a ``Recipe``.
    """
    graph = nnx.graphdef(nnx.eval_shape(build))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optimizer)

    def begin() -> Progress:
        params = initial()
        return Progress(params, jax.tree.map(jnp.copy, params), optimizer.init(params))

    @partial(jax.jit, donate_argnums=0)
    def update(
        progress: Progress, batch: OnDevice, step: Array
    ) -> tuple[Progress, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), step)

        def loss(params: nnx.State) -> tuple[Array, Metrics]:
            return objective(nnx.merge(graph, params), batch, key)

        slope, metrics = jax.grad(loss, has_aux=True)(progress.params)
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integers
            change, state = optimizer.update(slope, progress.optimizer, progress.params)
            params = optax.apply_updates(progress.params, change)
        average = optax.incremental_update(params, progress.average, 1 - _AVERAGING)
        return Progress(params, average, state), metrics

    return begin, update


def random_parameters(
    build: Callable[[], nnx.Module],
    seed: int | np.random.Generator,
    *,
    silent: Container[str] = (),
) -> nnx.State:
    """Random parameters from NumPy, because JAX would compile a sampler for each shape.

    The variance is one over the number of inputs. Scales are 1 and biases 0.

    Args:
        build: Function that makes the module; only its shapes are used.
        seed: Seed of the noise.
        silent: Names of layers whose kernels are 0.
    """
    rng = np.random.default_rng(seed)
    leaves = []
    for path, variable in nnx.to_flat_state(nnx.state(nnx.eval_shape(build))):
        shape = variable.get_value().shape
        *_, layer, leaf = ("", *map(str, path))
        if leaf in ("scale", "bias") or layer in silent:
            value = np.full(shape, float(leaf == "scale"), np.float32)
        else:
            inputs = max(math.prod(shape[:-1]), 1)
            value = rng.standard_normal(shape, np.float32) / math.sqrt(inputs)
        leaves.append((path, variable.replace(jnp.asarray(value))))
    return nnx.from_flat_state(leaves)


def module_of(build: Callable[[], nnx.Module], params: nnx.State) -> Any:
    """A module with these parameters."""
    return nnx.merge(nnx.graphdef(nnx.eval_shape(build)), params)
