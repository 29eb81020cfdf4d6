"""Training of a small Stable Diffusion: an autoencoder, then a denoiser of its latents.

The training data does not contain the places of things. The autoencoder learns to
reproduce pixels. The denoiser learns to remove noise from latents, with or without a
caption. Its self-attention learns to distinguish things as a side effect, and this is
what segmentation uses.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int32, UInt8

from dslo_jax import images, prompts, scenes
from dslo_jax.demo.train.denoiser import TIMESTEPS, Autoencoder, Denoiser
from dslo_jax.demo.train.descent import (
    descent,
    module_of,
    random_parameters,
    rates,
)
from dslo_jax.demo.train.recipe import (
    Batch,
    Metrics,
    OnDevice,
    Progress,
    Recipe,
    first_seed,
)
from dslo_jax.empty_prompt import FILE_NAME, save_empty_prompt
from dslo_jax.files import write_json
from dslo_jax.models.clip import load_clip
from dslo_jax.models.clip_text import TextModel
from dslo_jax.models.unet_config import UNetConfig
from dslo_jax.models.vae import VAE, VAEConfig, load_vae
from dslo_jax.weights import save_module


class Windows(NamedTuple):
    """The pictures of one step: their side in pixels, and their number."""

    side: int
    count: int


Schedule = tuple[Windows, ...]
Pixels = UInt8[Array, "batch side side 3"]

VAE_CONFIG: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [16, 32, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "act_fn": "silu",
    "sample_size": 128,
}
UNET_CONFIG: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [64, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 2,
    "attention_head_dim": [2, 2],  # numbers of heads, of 32 channels each
    "cross_attention_dim": 128,  # of the bundled CLIP's words
    "norm_num_groups": 16,
    "use_linear_projection": True,
    "act_fn": "silu",
    "sample_size": 32,
}
# The noise of Stable Diffusion 2.
SCHEDULER_CONFIG: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": TIMESTEPS,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}

# Windows of the run in order, each for an equal share of the steps. Small windows cost
# little; the last ones show whole photos or most of a photo.
VAE_SCHEDULE: Schedule = (Windows(64, 8),)
UNET_SCHEDULE: Schedule = (Windows(64, 16),) * 3 + (Windows(128, 4),)

_WINDOWS_PER_SCENE = 2
# Range of the sides of square photos, from which windows are cut.
_PHOTO_SIDES = (112, 224)

_WARM_UP, _WEIGHT_DECAY = 100, 0.01
_KL_WEIGHT = 1e-4

# Captions of the windows of the denoiser. Some windows have none, because photos have
# none.
_VISIBLE, _NAMES = 0.01, 8
TOKENS = 56
_WORDLESS = 0.2
_LOG_VARIANCE = -6.0  # of the posterior before training
# The last layers of residual branches start at 0, so that a deep network starts like a
# shallow one.
_SILENT = ("conv2", "proj_out")
_MEASURED_BATCHES = 16  # for the scale of the latents

_DIFFUSERS = "diffusion_pytorch_model"


def autoencoder_recipe(
    folder: Path,
    *,
    steps: int,
    seed: int = 0,
    rate: float = 1e-3,
    settings: dict[str, Any] = VAE_CONFIG,
    schedule: Schedule = VAE_SCHEDULE,
) -> Recipe:
    """The training of the autoencoder.

    Args:
        folder: Folder of the pipeline; ``vae`` is written there.
        steps: Number of steps.
        seed: Seed of weights, windows and noise.
        rate: Highest learning rate.
        settings: Configuration of diffusers, without the scaling factor.
        schedule: Windows of the run.
    """
    config = VAEConfig.from_dict(settings)

    def build() -> Autoencoder:
        return Autoencoder(config, rngs=nnx.Rngs(seed))

    def batch(step: int) -> Batch:
        return draw_batch(windows_at(schedule, step, steps), step, seed)

    def save(progress: Progress) -> None:
        module = module_of(build, progress.average)
        unseen = (batch(steps + index) for index in range(_MEASURED_BATCHES))
        factor = config.scaling_factor / latent_scale(module, unseen)
        save_module(
            module,
            folder / "vae",
            settings | {"scaling_factor": factor},
            stem=_DIFFUSERS,
            dtype=jnp.float16,
        )

    def initial() -> Any:
        params: Any = random_parameters(build, seed, silent=_SILENT)
        # With noise as large as the latents, the decoder would first learn a mean
        # photo.
        bias = np.repeat(np.array([0.0, _LOG_VARIANCE], np.float32), 4)
        params["quant_conv"]["bias"].set_value(jnp.asarray(bias))
        return params

    begin, update = descent(
        build, reconstruction, _adam(rate, steps), initial=initial, seed=seed
    )
    return Recipe("autoencoder", steps, begin, batch, update, save)


def denoiser_recipe(
    folder: Path,
    *,
    steps: int,
    seed: int = 0,
    rate: float = 1e-3,
    settings: dict[str, Any] = UNET_CONFIG,
    schedule: Schedule = UNET_SCHEDULE,
    clip: Path | None = None,
) -> Recipe:
    """The training of the denoiser, after that of the autoencoder and of CLIP.

    As in Stable Diffusion, captions are read by the text encoder of a CLIP. With the
    names of what a window shows, the denoiser learns which places belong to which name.

    Args:
        folder: Folder of the pipeline with ``vae``; ``unet``, ``scheduler`` and the
            context of the empty prompt are written there.
        steps: Number of steps.
        seed: Seed of weights, windows and noise.
        rate: Highest learning rate.
        settings: Configuration of diffusers.
        schedule: Windows of the run.
        clip: Folder of the CLIP; default: ``clip`` next to ``folder``.
    """
    config = UNetConfig.from_dict(settings)
    vae = load_vae(folder / "vae")
    clip = clip or folder.parent / "clip"
    tokenizer, text = prompts.load_tokenizer(clip), load_clip(clip).text_model
    empty = prompts.tokenize(tokenizer, [""], length=TOKENS)

    def build() -> Denoiser:
        return Denoiser(config, rngs=nnx.Rngs(seed))

    def batch(step: int) -> Batch:
        windows = windows_at(schedule, step, steps)
        return draw_captioned(tokenizer, windows, step, seed)

    save = partial(save_denoiser, build, folder, settings, text, empty)
    objective = partial(denoising, vae=vae, text=text)
    initial = partial(random_parameters, build, seed, silent=_SILENT)
    begin, update = descent(
        build, objective, _adam(rate, steps), initial=initial, seed=seed
    )
    return Recipe("denoiser", steps, begin, batch, update, save)


def save_denoiser(
    build: Callable[[], Denoiser],
    folder: Path,
    settings: dict[str, Any],
    text: TextModel,
    empty: Int32[np.ndarray, "1 tokens"],
    progress: Progress,
) -> None:
    """Write ``unet``, ``scheduler`` and the context of the empty prompt."""
    save_module(
        module_of(build, progress.average),
        folder / "unet",
        settings,
        stem=_DIFFUSERS,
        dtype=jnp.float16,
    )
    save_empty_prompt(np.asarray(text(jnp.asarray(empty))), folder / FILE_NAME)
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER_CONFIG)


def windows_at(schedule: Schedule, step: int, steps: int) -> Windows:
    """The windows of a step; the schedule is spread over the run."""
    return schedule[min(step * len(schedule) // steps, len(schedule) - 1)]


def draw_batch(windows: Windows, step: int, seed: int) -> Batch:
    """Draw the pictures of a step: ``pixels``, uint8 [count side side 3]."""
    rng = np.random.default_rng((seed, step))
    return {"pixels": np.stack([each.pixels for each in _windows(rng, windows, step)])}


def draw_captioned(
    tokenizer: Any, windows: Windows, step: int, seed: int
) -> dict[str, np.ndarray]:
    """Draw the same pictures with ``captions``, int32 [count tokens]."""
    rng = np.random.default_rng((seed, step))
    shown = list(_windows(rng, windows, step))
    captions = [_caption(each, rng) for each in shown]
    return {
        "pixels": np.stack([each.pixels for each in shown]),
        "captions": prompts.tokenize(tokenizer, captions, length=TOKENS),
    }


def _caption(shown: scenes.Scene, rng: np.random.Generator) -> str:
    """A caption of a window, or an empty one."""
    if rng.random() < _WORDLESS:
        return ""
    names = scenes.scene_names(shown.labels, min_share=_VISIBLE)
    return scenes.caption(rng.permutation(names)[:_NAMES].tolist(), rng)


def _windows(
    rng: np.random.Generator, windows: Windows, step: int
) -> Iterator[scenes.Scene]:
    """Draw windows of square photos, several of each; no two steps share a scene."""
    side = windows.side
    first = first_seed(step)
    smallest, largest = _PHOTO_SIDES
    for index in range(windows.count):
        if index % _WINDOWS_PER_SCENE == 0:
            scene = scenes.draw_scene(first + index // _WINDOWS_PER_SCENE)
            length = int(rng.integers(max(smallest, side), largest + 1))
            photo = images.resize_photo(scene.pixels, (length, length))
        top, left = (int(start) for start in rng.integers(length - side + 1, size=2))
        height, width = scene.labels.shape
        yield scene._replace(
            pixels=photo[top : top + side, left : left + side],
            labels=scene.labels[
                _part(top, side, height / length), _part(left, side, width / length)
            ],
        )


def _part(start: int, count: int, scale: float) -> slice:
    """Rows or columns of the scene for those of the square photo."""
    return slice(int(start * scale), math.ceil((start + count) * scale))


def reconstruction(
    autoencoder: Autoencoder, batch: OnDevice, key: Array
) -> tuple[Float[Array, ""], Metrics]:
    """The loss of the autoencoder: error of the pixels, and divergence of the latents.

    The error is the mean absolute error of the pixels, and of the differences between
    neighbours, which makes edges sharp. The divergence is that of the posterior from a
    standard normal distribution, in nats per number of the latents.
    """
    photos = normalised(batch["pixels"])
    mean, log_variance = autoencoder.posterior(photos)
    noise = jax.random.normal(key, mean.shape)
    decoded = autoencoder.decode(mean + noise * jnp.exp(log_variance / 2))
    error = decoded - photos
    edges = sum(jnp.abs(jnp.diff(error, axis=axis)).mean() for axis in (1, 2))
    nats = (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance).mean() / 2
    metrics = {"error": jnp.abs(error).mean(), "edges": edges, "nats": nats}
    return metrics["error"] + edges / 2 + _KL_WEIGHT * nats, metrics


def denoising(
    denoiser: Denoiser,
    batch: OnDevice,
    key: Array,
    *,
    vae: VAE,
    text: TextModel,
) -> tuple[Float[Array, ""], Metrics]:
    """The loss of the denoiser: the squared error of the velocity.

    All timesteps have the same probability. With much noise, a place must attend to
    similar places; without noise, it needs only itself.
    """
    latents = vae(normalised(batch["pixels"]))
    count = len(latents)
    for_time, for_noise = jax.random.split(key)
    timesteps = jax.random.randint(for_time, (count,), 0, TIMESTEPS)
    noise = jax.random.normal(for_noise, latents.shape)
    noisy, velocity = add_noise(latents, noise, timesteps)
    predicted = denoiser.predict(noisy, text(batch["captions"]), timesteps)
    errors = jnp.square(predicted - velocity).mean(axis=(1, 2, 3))
    return errors.mean(), {"error": errors.mean()}


def add_noise(
    latents: Float[Array, "batch height width 4"],
    noise: Float[Array, "batch height width 4"],
    timesteps: Array,
) -> tuple[Float[Array, "batch height width 4"], Float[Array, "batch height width 4"]]:
    """Noisy latents, and their velocity in the sense of v-prediction.

    With a + b = 1 at every timestep, the noisy latents are sqrt(a) x + sqrt(b) n and
    the velocity is sqrt(a) n - sqrt(b) x.
    """
    start, end = (SCHEDULER_CONFIG[f"beta_{name}"] for name in ("start", "end"))
    betas = np.linspace(np.sqrt(start), np.sqrt(end), TIMESTEPS) ** 2
    kept = np.cumprod(1 - betas)
    signal, spread = (
        jnp.asarray(np.sqrt(share), jnp.float32)[timesteps][:, None, None, None]
        for share in (kept, 1 - kept)
    )
    return signal * latents + spread * noise, signal * noise - spread * latents


def latent_scale(vae: VAE, batches: Iterator[Batch]) -> float:
    """Standard deviation of the latents."""
    encode = nnx.jit(lambda vae, pixels: vae(normalised(pixels)))
    latents = [
        np.asarray(encode(vae, jnp.asarray(batch["pixels"]))).ravel()
        for batch in batches
    ]
    return float(np.concatenate(latents).std())


def _adam(rate: float, steps: int) -> optax.GradientTransformation:
    return optax.adamw(rates(rate, steps, warm_up=_WARM_UP), weight_decay=_WEIGHT_DECAY)


def normalised(pixels: Pixels) -> Float[Array, "batch side side 3"]:
    """Pixels in [-1, 1]."""
    return pixels.astype(jnp.float32) / 127.5 - 1
