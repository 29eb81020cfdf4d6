"""Cases to measure on a drawn scene: discrepancies, upsampling, self-attention."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dslo_jax import ops
from dslo_jax.attention import average_attention
from dslo_jax.bench.scenes import (
    CHANNELS,
    HEADS,
    LAYERS,
    draw_maps,
    draw_queries_keys,
    draw_source,
)
from dslo_jax.bench.truth import scaled_error, true_attention, true_upsampled, truth_of
from dslo_jax.cost import Work, networks, solver_bytes, solver_work
from dslo_jax.cost.upsampling import upsampling_work
from dslo_jax.models.query_key import QueryKey
from dslo_jax.solvers import Counts, Discrepancy
from dslo_jax.solvers.contract import solve_image


Dtype = Literal["float32", "bfloat16", "float16"]


class Size(NamedTuple):
    """The size of a case.

    Attributes:
        patches: Number of patches of an image; a square number.
        classes: Number of classes of an image.
        images: Number of images that one program solves.
        dtype: Type of the affinity, or of queries and keys. Everything else is float32.
    """

    patches: int
    classes: int
    images: int
    dtype: Dtype


class Outcome(NamedTuple):
    """The result of a program; only discrepancies have steps and status."""

    values: jax.Array
    num_steps: jax.Array | None = None
    converged: jax.Array | None = None


class Scene(NamedTuple):
    """Sources and affinities to solve.

    Attributes:
        size: Size of the scene.
        sources: Class distributions over the patches.
        affinities: Affinities in float32.
        narrow: The affinities on the device, in the type to measure; without the axis
            of images if there is one image.
    """

    size: Size
    sources: Float[np.ndarray, "images classes patches"]
    affinities: Float[np.ndarray, "images patches patches"]
    narrow: jax.Array

    @property
    def itemsize(self) -> int:
        """Bytes of an entry of ``narrow``."""
        return self.narrow.dtype.itemsize


class Case(NamedTuple):
    """One function to measure, with its arguments.

    Attributes:
        function: Function of the arguments to an ``Outcome``.
        arguments: Arguments, on the host or on the device.
        truth: Function that computes the values in float64, from float32 arguments;
            ``None`` if there is none.
        error: Function of the values and the truth to their distance.
        work: Function of the numbers of steps (zeros for a closed form) to the
            computation; it returns ``None`` if there is no formula.
        predicted_bytes: Predicted memory without arguments and results; ``None`` if
            there is no prediction.
    """

    function: Callable[..., Outcome]
    arguments: Any
    truth: Callable[[], np.ndarray] | None
    error: Callable[[np.ndarray, np.ndarray], float]
    work: Callable[[Int[np.ndarray, "images classes"]], Work | None]
    predicted_bytes: int | None = None


def draw_scene(
    size: Size,
    affinities: Float[np.ndarray, "images patches patches"],
    device: jax.Device,  # pyright: ignore[reportInvalidTypeForm]
) -> Scene:
    """Draw sources for given affinities, and put the affinities on the device.

    Args:
        size: Size of the scene.
        affinities: From ``draw_affinities``.
        device: Device of ``narrow``.
    """
    narrow = _shaped(affinities).astype(jnp.dtype(size.dtype), copy=False)
    sources = np.stack(
        [draw_source(size.patches, size.classes, seed) for seed in range(size.images)]
    )
    return Scene(size, sources, affinities, jax.device_put(narrow, device))


def discrepancy_case(discrepancy: Discrepancy, scene: Scene) -> Case:
    """A discrepancy as the segmenter solves it first: fitted, and its first attempt.

    Args:
        discrepancy: Any discrepancy.
        scene: Scene to solve.
    """
    size = scene.size
    (device,) = scene.narrow.devices()
    how = {"itemsize": scene.itemsize, "platform": device.platform}
    counts = Counts.of(scene.sources, platform=device.platform)
    attempt = discrepancy.fitted(counts).attempts[0]

    def solve(source: jax.Array, affinity: jax.Array | None = None) -> Outcome:
        found = solve_image(attempt, source, affinity)
        return Outcome(found.value, found.num_steps, found.converged)

    given = (_shaped(scene.sources), scene.narrow)
    truth = truth_of(discrepancy)
    return Case(
        _per_image(solve, size),
        given if attempt.needs_affinity else given[:1],
        truth and partial(_all_images, truth.values, scene.sources, scene.affinities),
        truth.error if truth else scaled_error,
        partial(solver_work, attempt, patches=size.patches, **how),
        solver_bytes(attempt, size.classes, size.patches, **how, images=size.images),
    )


def upsampling_case(size: Size) -> Case:
    """Upsampling of the maps of all classes to the pixels of a photo."""
    maps, photos = draw_maps(size.patches, size.classes, images=size.images)
    _, height, width, _ = photos.shape

    def solve(maps: jax.Array, photo: jax.Array) -> Outcome:
        return Outcome(ops.joint_bilateral_upsample(maps, photo))

    return Case(
        _per_image(solve, size),
        (_shaped(maps), _shaped(photos)),
        partial(_all_images, true_upsampled, maps, photos),
        scaled_error,
        lambda _: upsampling_work(
            size.images, size.classes, size.patches, height * width
        ),
    )


def self_attention_case(size: Size) -> Case:
    """The affinity from queries and keys; it does not depend on classes."""
    queries, keys = draw_queries_keys(size.patches, images=size.images)
    dtype = jnp.dtype(size.dtype)

    def solve(pairs: list[QueryKey]) -> Outcome:
        return Outcome(average_attention(pairs, [1.0] * LAYERS))

    pairs = [
        QueryKey(query.astype(dtype), key.astype(dtype))
        for query, key in zip(queries, keys, strict=True)
    ]
    by_image = (part.swapaxes(0, 1) for part in (queries, keys))
    return Case(
        solve,
        (pairs,),
        partial(_all_images, true_attention, *by_image),
        scaled_error,
        lambda _: networks.averaging(
            [(HEADS, HEADS * CHANNELS)] * LAYERS,
            size.patches,
            images=size.images,
            itemsize=dtype.itemsize,
        ),
    )


def _per_image(solve: Callable[..., Outcome], size: Size) -> Callable[..., Outcome]:
    """The function itself for one image, mapped over several images."""
    return solve if size.images == 1 else jax.vmap(solve)


def _shaped(arrays: np.ndarray) -> np.ndarray:
    """The arrays without the axis of images if there is one image."""
    return arrays[0] if len(arrays) == 1 else arrays


def _all_images(truth: Callable[..., np.ndarray], *arrays: np.ndarray) -> np.ndarray:
    return np.stack([truth(*image) for image in zip(*arrays, strict=True)])
