"""Learn the weights of five self-attentions, and epsilon, from four labelled scenes.

    python -m dslo_jax.demo.learn

The source of each class is a tenth of its patches, and its path must find the others.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dslo_jax import scenes
from dslo_jax.attention import AffinityOptions, load_affinity
from dslo_jax.evaluation.sweeps.oracles import class_shares
from dslo_jax.pairs import BUNDLED
from dslo_jax.solvers import optimal_path


SIDE, GRID = 128, (32, 32)
LAYERS = [f"up_blocks.1.attentions.{k}" for k in range(3)]
LAYERS += [f"down_blocks.0.attentions.{k}" for k in range(2)]


def read(seeds):
    """Sources, the affinity of every layer, and the true shares of the classes."""
    source = load_affinity(BUNDLED["demo"] / "diffusion")
    options = partial(AffinityOptions, size=SIDE, timestep=300)
    single = (options(layers=((name, 1.0),)) for name in LAYERS)
    networks = [jax.jit(source.with_options(each)) for each in single]
    for seed in seeds:
        scene = scenes.draw_scene(seed, size=(SIDE, SIDE))
        photo = jnp.asarray(scene.pixels[None] / 255, jnp.float32)
        shares = class_shares(scene.labels, len(scenes.NAMES), GRID)
        hidden = np.random.default_rng(seed).uniform(size=shares.shape[1]) > 0.1
        source = jnp.asarray(np.where(hidden, 0, shares))
        yield source, jnp.stack([network(photo)[0] for network in networks]), shares


def loss(parameters, source, layers, shares):
    """Cross-entropy between the paths and the true shares of the classes."""
    affinity = jnp.tensordot(jax.nn.softmax(parameters["weights"]), layers, axes=1)
    path = optimal_path(source, affinity, epsilon=jnp.exp(parameters["epsilon"])).path
    return -jnp.mean(jnp.sum(shares * jax.nn.log_softmax(jnp.log(path + 1e-12), 0), 0))


if __name__ == "__main__":
    stack = partial(jax.tree.map, lambda *each: jnp.stack(each))
    few, others = (stack(*read(seeds)) for seeds in (range(4), range(4, 8)))
    mean = jax.jit(lambda p, batch: jax.vmap(loss, (None, 0, 0, 0))(p, *batch).mean())
    parameters = {"weights": jnp.zeros(len(LAYERS)), "epsilon": jnp.log(0.1)}
    optimizer, slope = optax.adam(0.2), jax.jit(jax.grad(mean))
    state = optimizer.init(parameters)
    for _ in range(20):
        print(mean(parameters, few), mean(parameters, others), parameters)  # noqa: T201
        change, state = optimizer.update(slope(parameters, few), state)
        parameters = optax.apply_updates(parameters, change)
