"""The compiled programs between a resized photo and its labels.

Each is a pure function of arrays, compiled once per shape in this process and shared by
every ``Segmenter``. The axes are ``batch`` (photos), ``names`` (synonyms),
``classes``, ``active`` (the classes that survive early rejection, and padding) and
``patches``; labels have the axes of ``ops.tiles``.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32, UInt8

from dslo_jax import ops
from dslo_jax.logits import Windows, window_features
from dslo_jax.ops.options import SourceOptions, UpsamplingOptions
from dslo_jax.pipeline.numbers import Numbers, join
from dslo_jax.pipeline.stages import Stage, Static
from dslo_jax.solvers import Discrepancy, Solution
from dslo_jax.solvers.contract import solve_image


class SolverInput(NamedTuple):
    """The input of a solver, for a batch of photos.

    Attributes:
        logits: Cosine of every class in every patch, in [-1, 1].
        source: Logits suppressed and normalised over the patches; rows sum to 1.
        active: Whether a class survived early rejection.
        support: Number of patches in which any active class has mass, for each photo.
        kept: Number of patches in which a class has mass, for each class.
        non_finite: Number of patches with a NaN or infinite logit, for each class.
    """

    logits: Float[Array, "batch classes patches"]
    source: Float[Array, "batch classes patches"]
    active: Bool[Array, "batch classes"]
    support: Int32[Array, " batch"]
    kept: Int32[Array, "batch classes"]
    non_finite: Int32[Array, "batch classes"]


class PhotoFeatures(NamedTuple):
    """Features of the patches of a batch of photos.

    Attributes:
        features: The patches of each photo, and padding. Each array has one photo of
            each device; all together have the photos of the batch in their order.
        grids: Number of rows and of columns of each photo, in patches.
    """

    features: tuple[Float[Array, "parts longest channels"], ...]
    grids: Int32[Array, "batch 2"]


def _encode_text(
    state: nnx.State, ids: Int32[Array, "prompts tokens"], *, graph: Static
) -> Float[Array, "prompts channels"]:
    return nnx.merge(graph.value, state).embed(ids)


def _dense_features(
    state: nnx.State,
    *cuts: ops.Patches,
    graph: Static,
    attention: str,
    longest: int,
    windows: Windows | None = None,
) -> Float[Array, "1 longest channels"]:
    """Compute features of one photo, padded to the longest sequence.

    So whatever comes next is compiled once, and not for every length of sequences.

    Args:
        state: Parameters of the network.
        cuts: The photo, RGB from 0 to 255, cut for the source and, if it has one, for
            its proxy.
        graph: The network.
        attention: Attention of its last block.
        longest: Length of the result.
        windows: The windows that the network sees; ``None`` for the whole photo.
    """
    cuts = tuple(
        each._replace(pixels=_unit_range(jnp.asarray(each.pixels))) for each in cuts
    )
    network = nnx.merge(graph.value, state)

    def see(patches: ops.Patches, *proxy: ops.Patches) -> Array:
        return network.features(patches, attention, *proxy)

    features = see(*cuts) if windows is None else window_features(see, cuts, windows)
    return jnp.pad(features, ((0, 0), (0, longest - features.shape[1]), (0, 0)))


def _encode_photo(
    state: nnx.State, pixels: UInt8[Array, "batch size size 3"], *, graph: Static
) -> Any:
    return nnx.merge(graph.value, state).encode(_unit_range(pixels))


def _attend(
    state: nnx.State, encoded: Any, *, graph: Static
) -> Float[Array, "batch patches patches"]:
    return nnx.merge(graph.value, state).attend(encoded)


def _unit_range(pixels: UInt8[Array, "*axes"]) -> Float[Array, "*axes"]:
    return pixels.astype(jnp.float32) / 255.0


def _match(
    photos: PhotoFeatures,
    text: Float[Array, "names channels"],
    class_of_name: Int32[Array, " names"],
    *,
    num_classes: int,
    grid: tuple[int, int],
) -> Float[Array, "batch classes patches"]:
    """Compute cosines of classes, on the grid of the affinity."""

    def match(
        features: Float[Array, "longest channels"], native: Int32[Array, " 2"]
    ) -> Float[Array, "classes patches"]:
        cosines = jnp.einsum(
            "nd,pd->np", text, features.astype(jnp.float32), precision="highest"
        )
        classes = ops.reduce_synonyms(cosines, class_of_name, num_classes)
        return ops.resize_patches(classes.T, native, grid).T

    return jax.vmap(match)(jnp.concatenate(photos.features), photos.grids)


def _confidence(
    photos: PhotoFeatures,
    text: Float[Array, "names channels"],
    *,
    scale: float,
    grid: tuple[int, int],
) -> Float[Array, "batch patches"]:
    """Compute the greatest probability of any name, on the grid of the affinity."""

    def confidence(
        features: Float[Array, "longest channels"], native: Int32[Array, " 2"]
    ) -> Float[Array, " patches"]:
        cosines = jnp.einsum(
            "nd,pd->np", text, features.astype(jnp.float32), precision="highest"
        )
        names = ops.resize_patches(cosines.T, native, grid).T
        return ops.greatest_probability(names, scale=scale)

    return jax.vmap(confidence)(jnp.concatenate(photos.features), photos.grids)


def _confidence_of_logits(
    logits: Float[Array, "batch classes patches"], *, scale: float
) -> Float[Array, "batch patches"]:
    """Compute the greatest probability of any class, where names are not known."""
    return jax.vmap(partial(ops.greatest_probability, scale=scale))(logits)


def _prepare(
    logits: Float[Array, "batch classes patches"],
    active: Bool[Array, "batch classes"] | None = None,
    *,
    options: SourceOptions,
) -> SolverInput:
    """Prepare logits for a solver: early rejection, suppression, normalisation.

    Args:
        logits: Logit of every class in every patch.
        active: The active classes; ``None`` to choose them by early rejection.
        options: Options of the three steps.
    """

    def prepare(logits, active):
        if active is None and options.early_rejection:
            active = ops.reject_classes(logits, share=options.rejection_share)
        elif active is None:
            active = jnp.ones(len(logits), bool)
        keep = ops.suppress(
            logits,
            method=options.suppression,
            threshold=options.suppression_threshold,
            active=active,
        )
        support, kept = count_mass(keep, active)
        return SolverInput(
            logits=logits,
            source=ops.normalize(logits, keep, scale=options.source_scale),
            active=active,
            support=support,
            kept=kept,
            non_finite=jnp.sum(~jnp.isfinite(logits), axis=1, dtype=jnp.int32),
        )

    if active is None:
        return jax.vmap(lambda each: prepare(each, None))(logits)
    return jax.vmap(prepare)(logits, active)


def count_mass(
    keep: Bool[Array, "*batch classes patches"], active: Bool[Array, "*batch classes"]
) -> tuple[Int32[Array, "*batch"], Int32[Array, "*batch classes"]]:
    """Compute ``support`` and ``kept`` of ``SolverInput`` from patches with mass."""
    used = jnp.any(keep & active[..., None], axis=-2)
    kept = jnp.sum(keep, axis=-1, dtype=jnp.int32)
    return jnp.sum(used, axis=-1, dtype=jnp.int32), kept


def _choose(
    values: Float[Array, "batch classes patches"],
    order: Int32[Array, "batch active"],
    counts: Int32[Array, " batch"],
) -> Float[Array, "batch active patches"]:
    """Take the rows of ``order``, so that the solver depends only on their number.

    The padding, rows from ``counts`` on, becomes zero.
    """
    chosen = jnp.take_along_axis(values, order[:, :, None], axis=1)
    number = jnp.arange(order.shape[1], dtype=counts.dtype)
    is_real = number[None] < counts[:, None]
    return jnp.where(is_real[:, :, None], chosen, 0)


def _compact(
    values: Float[Array, "batch classes patches"],
    active: Bool[Array, "batch classes"],
    *,
    size: int,
) -> tuple[
    Float[Array, "batch active patches"],
    Int32[Array, "batch active"],
    Int32[Array, " batch"],
]:
    """Choose the active classes, and take their rows; see ``_choose``.

    Args:
        values: Values of all classes.
        active: Whether a class survived early rejection.
        size: Number of rows; classes beyond it are left out.

    Returns:
        The rows, the index of each, and the number of rows that are not padding.
    """
    place = jnp.cumsum(active, axis=1, dtype=jnp.int32) - 1
    row = jnp.arange(size, dtype=jnp.int32)[None, :, None]
    is_here = active[:, None] & (place[:, None] == row)
    index = jnp.arange(active.shape[1], dtype=jnp.int32)[None, None]
    order = jnp.sum(jnp.where(is_here, index, 0), axis=2)
    counts = jnp.minimum(jnp.sum(active, axis=1, dtype=jnp.int32), size)
    return _choose(values, order, counts), order, counts


def _solve(
    source: Float[Array, "batch active patches"],
    affinity: Float[Array, "batch patches patches"] | None,
    *,
    discrepancy: Discrepancy,
) -> Solution:
    """Solve for the discrepancy of the active classes, for all photos at once.

    Args:
        source: Distributions over the patches, or logits; see ``Discrepancy``.
        affinity: Affinity between the patches; ``None`` if it is not needed.
        discrepancy: The discrepancy to solve for.
    """
    return jax.vmap(partial(solve_image, discrepancy))(source, affinity)


def _solve_adjusted(
    source: Float[Array, "batch active patches"],
    affinity: Float[Array, "batch patches patches"] | None,
    numbers: Numbers,
    *,
    discrepancy: Discrepancy,
) -> Solution:
    """Solve for a discrepancy whose numbers are inputs; see ``adjustable``."""
    joined = join(discrepancy, numbers)
    return jax.vmap(partial(solve_image, joined))(source, affinity)


def _label_densely(
    values: Float[Array, "active patches"],
    count: Int32[Array, ""],
    guide: Float[Array, "height width 3"],
    *,
    grid: tuple[int, int],
    options: UpsamplingOptions,
) -> ops.PixelLabels:
    """Compute the label of every pixel of one photo by dense upsampling.

    Args:
        values: Maps of the active classes; rows from ``count`` on are padding.
        count: Number of active classes.
        guide: The photo, RGB in [0, 1].
        grid: Rows and columns of the maps.
        options: Options of the upsampling.
    """
    return ops.dense_bilateral_labels(
        values.reshape(-1, *grid),
        guide,
        jnp.arange(len(values)) < count,
        spatial_variance=options.spatial_variance,
        range_variance=options.range_variance,
    )


Solver = Callable[..., Solution]
"""A function like ``DISCREPANCY``: of a clock, a source, an affinity, and the
``discrepancy`` to solve for."""

LOGITS = Stage("logits", _match)
SOURCES = Stage("logits", _prepare)
CONFIDENCE = Stage("logits", _confidence)
CONFIDENCE_OF_LOGITS = Stage("logits", _confidence_of_logits)
CHOSEN = Stage("logits", _choose)
COMPACTED = Stage("logits", _compact)
DISCREPANCY = Stage("solver", _solve)
ADJUSTABLE = Stage("solver", _solve_adjusted)
LABELS = Stage("labels", ops.label_tile)
LAYER_LABELS = Stage("labels", ops.label_layers)
DENSE_LABELS = Stage("labels", _label_densely)
_LABELS = LABELS, LAYER_LABELS, DENSE_LABELS
_PARTS = {
    "embed": _encode_text,
    "features": _dense_features,
    "encode": _encode_photo,
    "attend": _attend,
}
_OF_NETWORKS: dict[tuple[str, str], Stage] = {}


def network_stage(part: str, name: str) -> Stage:
    """The stage that runs one method of a network; one for each name of a stage.

    Args:
        part: The method: ``"embed"`` or ``"features"`` of a source of logits,
            ``"encode"`` or ``"attend"`` of a source of affinities.
        name: Name of the stage; see ``stages`` of the sources.
    """
    key = part, name
    if key not in _OF_NETWORKS:
        _OF_NETWORKS[key] = Stage(name, _PARTS[part])
    return _OF_NETWORKS[key]


def all_stages() -> tuple[Stage, ...]:
    """All stages that exist in this process so far."""
    before = LOGITS, SOURCES, CONFIDENCE, CONFIDENCE_OF_LOGITS, CHOSEN, COMPACTED
    solvers = DISCREPANCY, ADJUSTABLE
    return (*_OF_NETWORKS.values(), *before, *solvers, *_LABELS)


def num_compilations() -> int:
    """Number of programs that all stages have compiled in this process."""
    return sum(stage.num_compilations for stage in all_stages())


def forget_programs() -> None:
    """Free the memory of all programs; they are compiled again when needed.

    A process that serves any options for months would otherwise keep ever more.
    """
    for stage in all_stages():
        stage.forget_programs()
