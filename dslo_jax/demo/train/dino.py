"""Training of a small DINO on windows of drawn scenes, without labels and words.

A student and a teacher with the same layers see views of the same scene. The student
must say about its view what the teacher says about another one; the teacher is the
moving average of the student. Two losses of this kind train all tokens:

- The class token: the student sees large and small views, the teacher large ones
  (Caron et al.: Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021,
  arXiv 2104.14294).
- The patches: some patches of the student's large views are grey, and it must say what
  the teacher says about them (Zhou et al.: iBOT, ICLR 2022, arXiv 2111.07832).

If both said the same about everything, the losses would be small as well. The mean of
the teacher's answers is therefore taken from them, and they are sharpened.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, UInt8

from dslo_jax import images, scenes
from dslo_jax.demo.train.descent import module_of, rates
from dslo_jax.demo.train.recipe import (
    Batch,
    Metrics,
    OnDevice,
    Progress,
    Recipe,
    first_seed,
)
from dslo_jax.models.proxy import ProxyVit
from dslo_jax.models.vit import vit_spelling
from dslo_jax.models.vit_config import VitConfig
from dslo_jax.weights import save_module


class Views(NamedTuple):
    """Views of each scene of a step.

    Attributes:
        scenes: Number of scenes.
        large: Side of each of the two large views, in pixels.
        small: Side of the small views.
        count: Number of small views.
    """

    scenes: int = 24
    large: int = 64
    small: int = 32
    count: int = 3


_VIEWS = Views()
_LARGE_SIDES, _SMALL_SIDES = (38, 60), (16, 28)  # of a scene, before it is enlarged
_JITTER = 0.12  # brightness, contrast and each channel vary by about so much
_GREY, _GREY_BLOCK = 0.4, 2  # share of grey patches; side of the squares they form
_ANSWERS, _NARROW = 512, 64  # answers of a head, and channels before them
_STUDENT_HEAT, _TEACHER_HEAT = 0.1, 0.05
_TEACHER_MEMORY, _CENTRE_MEMORY = 0.992, 0.9
_MATRIX_RATE, _RATE, _WARM_UP, _WEIGHT_DECAY = 0.01, 1.5e-3, 50, 0.02
_FIRST_STEP = 300_000  # for the seeds of scenes, which no other part of training uses


def configuration() -> dict[str, Any]:
    """The Hugging Face configuration of the bundled DINO."""
    return {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 8,
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
    }


class Learner(nnx.Module):
    """A DINO with the head that only training needs.

    Args:
        config: Sizes of the DINO.
        rngs: Streams that initialise the parameters.
    """

    def __init__(self, config: VitConfig, *, rngs: nnx.Rngs):
        size = config.hidden_size
        self.network = ProxyVit(config, rngs=rngs)
        self.first = nnx.Linear(size, 2 * size, rngs=rngs)
        self.second = nnx.Linear(2 * size, _NARROW, rngs=rngs)
        self.answers = nnx.Linear(_NARROW, _ANSWERS, use_bias=False, rngs=rngs)

    def __call__(
        self, pixels: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch tokens answers"]:
        """Scores of the answers of every token, in [-1, 1]."""
        hidden = self.network(pixels)
        hidden = self.second(jax.nn.gelu(self.first(hidden)))
        answers = self.answers.kernel[...]
        hidden = hidden / jnp.linalg.norm(hidden + 1e-6, axis=-1, keepdims=True)
        answers = answers / jnp.linalg.norm(answers + 1e-6, axis=0, keepdims=True)
        return jnp.einsum("btc,ca->bta", hidden, answers)


class _Memory(NamedTuple):
    """What is carried from step to step beside the parameters."""

    optimizer: Any
    class_centre: Float[Array, " answers"]
    patch_centre: Float[Array, " answers"]


def dino_recipe(folder: Path, *, steps: int, seed: int = 0) -> Recipe:
    """The training of the bundled DINO.

    Args:
        folder: Folder for the weights, in the layout of transformers' ``ViTModel``.
        steps: Number of steps.
        seed: Seed of weights, views and grey patches.
    """
    settings = configuration()
    build = partial(_build, settings, seed)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.contrib.muon(
            rates(_MATRIX_RATE, steps, warm_up=_WARM_UP),
            adam_learning_rate=rates(_RATE, steps, warm_up=_WARM_UP),
            weight_decay=_WEIGHT_DECAY,
        ),
    )

    @jax.jit
    def initial() -> nnx.State:
        return nnx.state(build())

    def begin() -> Progress:
        params, centre = initial(), jnp.zeros(_ANSWERS)
        memory = _Memory(optimizer.init(params), centre, jnp.copy(centre))
        return Progress(params, jax.tree.map(jnp.copy, params), memory)

    def save(progress: Progress) -> None:
        network = module_of(build, progress.average).network
        save_module(network, folder, settings, dtype=jnp.float16, rename=vit_spelling)

    update = _update(build, optimizer, seed)
    batch = partial(draw_views, _VIEWS, seed=seed)
    return Recipe("dino", steps, begin, batch, update, save)


def draw_views(views: Views, step: int, *, seed: int) -> Batch:
    """Draw the views of a step.

    Returns:
        ``large`` uint8 [2 * scenes, side, side, 3], first one view of every scene and
        then the other; ``small`` uint8 [count * scenes, side, side, 3] in the same way.
    """
    rng = np.random.default_rng((seed, _FIRST_STEP + step))
    first = first_seed(_FIRST_STEP + step)
    drawn = [scenes.draw_scene(first + i).pixels for i in range(views.scenes)]

    def of_all(count: int, side: int, sides: tuple[int, int]) -> np.ndarray:
        return np.stack(
            [_view(rng, scene, side, sides) for _ in range(count) for scene in drawn]
        )

    return {
        "large": of_all(2, views.large, _LARGE_SIDES),
        "small": of_all(views.count, views.small, _SMALL_SIDES),
    }


def _view(
    rng: np.random.Generator,
    scene: UInt8[np.ndarray, "height width 3"],
    side: int,
    sides: tuple[int, int],
) -> UInt8[np.ndarray, "side side 3"]:
    """A square of a scene, resized, perhaps mirrored, in slightly other colours."""
    cut = int(rng.integers(sides[0], sides[1] + 1))
    top, left = (int(rng.integers(n - cut + 1)) for n in scene.shape[:2])
    view = images.resize_photo(scene[top : top + cut, left : left + cut], (side, side))
    if rng.random() < 0.5:
        view = view[:, ::-1]
    gain = np.exp(rng.normal(0, _JITTER, 3) / 2 + rng.normal(0, _JITTER))
    shift = rng.normal(0, 255 * _JITTER / 2)
    return np.clip(np.rint(view * gain + shift), 0, 255).astype(np.uint8)


def _update(build: Any, optimizer: optax.GradientTransformation, seed: int) -> Any:
    """The compiled step: student, teacher and centres move."""
    graph = nnx.graphdef(nnx.eval_shape(build))

    @partial(jax.jit, donate_argnums=0)
    def update(
        progress: Progress, batch: OnDevice, step: Array
    ) -> tuple[Progress, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), step)
        memory: _Memory = progress.optimizer
        large, small = (
            batch[name].astype(jnp.float32) / 255 for name in ("large", "small")
        )
        taught = nnx.merge(graph, progress.average)(large)
        told = _Told.of(taught, memory)

        def loss(params: nnx.State) -> tuple[Array, Metrics]:
            return _loss(nnx.merge(graph, params), told, large, small, key)

        slope, metrics = jax.grad(loss, has_aux=True)(progress.params)
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integers
            change, state = optimizer.update(slope, memory.optimizer, progress.params)
            params = optax.apply_updates(progress.params, change)
        average = optax.incremental_update(
            params, progress.average, 1 - _TEACHER_MEMORY
        )
        memory = _Memory(
            state,
            _moved(memory.class_centre, taught[:, :1]),
            _moved(memory.patch_centre, taught[:, 1:]),
        )
        return Progress(params, average, memory), metrics

    return update


class _Told(NamedTuple):
    """The answers of the teacher about the large views, as probabilities."""

    whole: Float[Array, "views answers"]
    patches: Float[Array, "views patches answers"]

    @classmethod
    def of(
        cls, scores: Float[Array, "views tokens answers"], memory: _Memory
    ) -> "_Told":
        def sharpened(part: Array, centre: Array) -> Array:
            centre = jnp.expand_dims(centre, range(part.ndim - 1))
            return jax.nn.softmax((part - centre) / _TEACHER_HEAT, axis=-1)

        return cls(
            sharpened(scores[:, 0], memory.class_centre),
            sharpened(scores[:, 1:], memory.patch_centre),
        )


def _loss(
    student: Learner,
    told: _Told,
    large: Float[Array, "two_views height width 3"],
    small: Float[Array, "views side side 3"],
    key: Array,
) -> tuple[Array, Metrics]:
    """Cross entropies between the answers of teacher and student."""
    patch = student.network.config.patch_size
    grey = _grey_patches(key, len(large), large.shape[1] // patch)
    mean = jnp.asarray(student.network.config.pixel_mean)
    hidden = jnp.repeat(jnp.repeat(grey, patch, axis=1), patch, axis=2)[..., None]
    about_large = jax.nn.log_softmax(
        student(jnp.where(hidden, mean[None, None, None], large)) / _STUDENT_HEAT
    )
    about_small = jax.nn.log_softmax(student(small)[:, 0] / _STUDENT_HEAT)
    first, second = jnp.split(told.whole, 2)
    swapped = jnp.concatenate([second, first])
    across = -jnp.sum(swapped * about_large[:, 0], axis=-1).mean()
    copies = len(small) // len(first)
    both = jnp.tile((first + second) / 2, (copies, 1))
    near = -jnp.sum(both * about_small, axis=-1).mean()
    each = -jnp.sum(told.patches * about_large[:, 1:], axis=-1)
    weights = grey.reshape(each.shape).astype(jnp.float32)
    patches = jnp.sum(each * weights) / jnp.sum(weights)
    views = 1 + 2 * copies  # pairs of views of one scene, as in DINO
    whole = (across + 2 * copies * near) / views
    found = told.whole.mean(axis=0)
    spread = -jnp.sum(found * jnp.log(found + 1e-9)) / math.log(_ANSWERS)
    metrics = {"whole": whole, "patches": patches, "spread": spread}
    return whole + patches, metrics


def _grey_patches(key: Array, count: int, side: int) -> Bool[Array, "count side side"]:
    """Which patches the student does not see: random squares."""
    blocks = -(-side // _GREY_BLOCK)
    drawn = jax.random.bernoulli(key, _GREY, (count, blocks, blocks))
    for axis in (1, 2):
        drawn = jnp.repeat(drawn, _GREY_BLOCK, axis=axis)
    return drawn[:, :side, :side].at[:, 0, 0].set(True)  # at least one


def _moved(
    centre: Float[Array, " answers"], scores: Float[Array, "views tokens answers"]
) -> Float[Array, " answers"]:
    mean = scores.mean(axis=(0, 1))
    return _CENTRE_MEMORY * centre + (1 - _CENTRE_MEMORY) * mean


def _build(settings: dict[str, Any], seed: int) -> Learner:
    return Learner(VitConfig.from_dict(settings), rngs=nnx.Rngs(seed))
