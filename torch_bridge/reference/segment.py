"""The whole method, from pixels and names to labels, stage by stage."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from dslo_jax import solvers
from dslo_jax.config import SegmenterConfig
from dslo_jax.solvers import Discrepancy
from torch_bridge.reference.clip import class_logits, text_features, window_features
from torch_bridge.reference.diffusion import (
    Diffusion,
    diffusion_affinity,
    layers_to_read,
)
from torch_bridge.reference.divergence import kl_map
from torch_bridge.reference.logits import normalize, reject_classes, resize, suppress
from torch_bridge.reference.markov import maximum_velocity
from torch_bridge.reference.sinkhorn import optimal_path
from torch_bridge.reference.upsample import (
    dense_bilateral_upsample,
    joint_bilateral_upsample,
)


class Reference(NamedTuple):
    """The labels of a photo, and all intermediate results.

    Attributes:
        labels: The class of every pixel.
        logits: Cosines of all classes on the grid of the affinity.
        affinity: Averaged self-attention.
        active: The classes that survived early rejection, ascending.
        source: Normalised logits of the active classes.
        discrepancy: Discrepancy maps of the active classes.
        upsampled: These maps at the size of the photo.
        seconds: Wall time of every stage.
    """

    labels: Int64[Tensor, "height width"]
    logits: Float[Tensor, "classes patches"]
    affinity: Float[Tensor, "patches patches"]
    active: Int64[Tensor, " active"]
    source: Float[Tensor, "active patches"]
    discrepancy: Float[Tensor, "active patches"]
    upsampled: Float[Tensor, "active height width"]
    seconds: dict[str, float]


def segment(
    photo: UInt8[Tensor, "height width 3"],
    classes: Sequence[Sequence[str]],
    clip: Any,
    tokenizer: Any,
    diffusion: Diffusion,
    *,
    clip_pixels: Float[Tensor, "clip_height clip_width 3"],
    affinity_pixels: Float[Tensor, "size size 3"],
    templates: Sequence[str],
    config: SegmenterConfig | None = None,
) -> Reference:
    """Segment a photo in eager PyTorch.

    The caller resizes the photo, so that a comparison tests the method and not the
    resampling.

    Args:
        photo: RGB; the labels have its size.
        classes: The synonyms of every class.
        clip: A ``CLIPModel``.
        tokenizer: Its ``CLIPTokenizer``.
        diffusion: The networks of the affinity.
        clip_pixels: The photo at its size for CLIP, in [0, 1].
        affinity_pixels: The photo at its size for the diffusion model, in [0, 1].
        templates: Sentences with one ``{}``, used instead of
            ``config.clip.templates``.
        config: Options of the method.

    Returns:
        Labels, intermediate results and timings.
    """
    config = config or SegmenterConfig()
    seconds: dict[str, float] = {}
    names = [name for synonyms in classes for name in synonyms]
    class_of_name = [index for index, group in enumerate(classes) for _ in group]
    text = _timed(seconds, "text", text_features, clip, tokenizer, names, templates)
    features = _timed(
        seconds,
        "clip",
        lambda: window_features(
            clip,
            clip_pixels,
            attention=config.clip.attention,
            window=config.clip.window,
            stride=config.clip.window_stride,
        ),
    )
    affinity = _timed(
        seconds,
        "affinity",
        lambda: diffusion_affinity(
            diffusion,
            affinity_pixels,
            layers=layers_to_read(diffusion.unet, config.affinity),
            timestep=config.affinity.timestep,
            temperature=config.affinity.temperature,
        ),
    )
    side = affinity_pixels.shape[0] // _latent_factor(diffusion.vae)
    result = segment_logits(
        class_logits(features, text, class_of_name),
        affinity,
        (side, side),
        photo,
        config=config,
    )
    return result._replace(seconds=seconds | result.seconds)


def segment_logits(
    logits: Float[Tensor, "classes clip_height clip_width"],
    affinity: Float[Tensor, "patches patches"],
    grid: tuple[int, int],
    photo: UInt8[Tensor, "height width 3"],
    *,
    config: SegmenterConfig | None = None,
    find_path: Callable[..., Tensor] = optimal_path,
) -> Reference:
    """Turn cosines and self-attention into labels: the steps after the networks.

    Args:
        logits: Cosine of every class in every patch of CLIP.
        affinity: Self-attention between the patches of its own grid.
        grid: Height and width of that grid.
        photo: RGB; the upsampling uses its colours.
        config: Options of the method.
        find_path: ``optimal_path``, or ``optimal_path_batched``.
    """
    config = config or SegmenterConfig()
    seconds: dict[str, float] = {}

    def prepare() -> tuple[Tensor, Tensor, Tensor]:
        flat = resize(logits, grid).flatten(1)
        every = torch.arange(len(flat), device=flat.device)
        active = (
            reject_classes(flat, share=config.source.rejection_share)
            if config.source.early_rejection
            else every
        )
        chosen = flat[active]
        keep = suppress(
            chosen,
            method=config.source.suppression,
            threshold=config.source.suppression_threshold,
        )
        return flat, active, normalize(chosen, keep, scale=config.source.source_scale)

    flat, active, source = _timed(seconds, "logits", prepare)
    discrepancy = _timed(
        seconds, "solver", solve, flat[active], source, affinity, config, find_path
    )
    maps = discrepancy.unflatten(1, grid)
    upsampled = _timed(seconds, "upsample", upsample, maps, photo, config)
    labels = _timed(seconds, "labels", lambda: active[upsampled.argmax(dim=0)])
    return Reference(
        labels, flat, affinity, active, source, discrepancy, upsampled, seconds
    )


def solve(
    logits: Float[Tensor, "classes patches"],
    source: Float[Tensor, "classes patches"],
    affinity: Float[Tensor, "patches patches"],
    config: SegmenterConfig,
    find_path: Callable[..., Tensor] = optimal_path,
) -> Float[Tensor, "classes patches"]:
    """Solve for the discrepancy of the configuration."""

    def of(discrepancy: Discrepancy) -> Tensor:
        match discrepancy:
            case solvers.Logits():
                return logits
            case solvers.Divergence(direction=direction):
                return kl_map(source, direction=direction)
            case solvers.OptimalPath() as path:
                return find_path(
                    source,
                    affinity,
                    epsilon=path.epsilon,
                    num_steps=path.max_steps,
                    norm=path.norm,
                )
            case solvers.MaximumVelocity() as velocity:
                return maximum_velocity(
                    source,
                    affinity,
                    threshold=velocity.threshold,
                    criterion=velocity.criterion,
                    balancing_rounds=velocity.balancing_steps,
                    max_steps=velocity.max_steps,
                )
            case solvers.Fused(first=first, second=second):
                return (_unit(of(first)) + _unit(of(second))) / 2
        raise ValueError(
            f"the reference has no {discrepancy.name!r}; it knows "
            f"{', '.join(solvers.DISCREPANCIES)}"
        )

    return of(config.discrepancy)


def upsample(
    maps: Float[Tensor, "classes grid_height grid_width"],
    photo: UInt8[Tensor, "height width 3"],
    config: SegmenterConfig,
) -> Float[Tensor, "classes height width"]:
    """Upsample maps from the patch grid to the size of the photo."""
    if config.upsampling.upsampling == "bilinear":
        return resize(maps, (photo.shape[0], photo.shape[1]))
    bilateral = (
        joint_bilateral_upsample
        if config.upsampling.upsampling == "bilateral"
        else dense_bilateral_upsample
    )
    return bilateral(
        maps,
        photo.to(maps.dtype) / 255,
        spatial_variance=config.upsampling.spatial_variance,
        range_variance=config.upsampling.range_variance,
    )


def _unit(values: Tensor) -> Tensor:
    """Scale to [0, 1] over all classes together, so that classes stay comparable."""
    return (values - values.min()) / (values.max() - values.min())


def _latent_factor(vae: Any) -> int:
    """Pixels per latent: every block but the last halves the size."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def _timed(
    seconds: dict[str, float], stage: str, function: Callable[..., Any], *args: Any
) -> Any:
    """Run one stage and store its wall time, including pending GPU work."""
    start = time.perf_counter()
    result = function(*args)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds[stage] = time.perf_counter() - start
    return result
