"""The compiled stages between a resized photo and its labels.

Each stage is a pure function of arrays, compiled once per shape in this process and
shared by every ``Segmenter``. The axes are ``batch`` (photos), ``names`` (synonyms),
``classes``, ``active`` (the classes that survive early rejection, padded to a bucket),
``patches`` and ``slots`` (pixels in the cell layout of ``ops.upsample``).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32, UInt8

from dslo_jax import ops, solvers
from dslo_jax.attention import AffinitySource, TransformerAffinity
from dslo_jax.config import SegmenterConfig
from dslo_jax.stages import Stage, Static


class Sources(NamedTuple):
    """What the solver starts from, for a batch of photos.

    Attributes:
        logits: Cosine of every class in every patch, in [-1, 1].
        source: Logits suppressed and normalised over the patches; rows sum to 1.
        active: Whether a class survived early rejection.
        support: Patches in which any active class has mass, per photo.
        kept: Patches in which each class has mass, active or not.
        non_finite: Patches with a NaN or infinite logit, per class.
    """

    logits: Float[Array, "batch classes patches"]
    source: Float[Array, "batch classes patches"]
    active: Bool[Array, "batch classes"]
    support: Int32[Array, " batch"]
    kept: Int32[Array, "batch classes"]
    non_finite: Int32[Array, "batch classes"]


class Discrepancy(NamedTuple):
    """The solved maps of the active classes of a batch of photos.

    Attributes:
        values: Discrepancy of every active class in every patch.
        num_steps: Solver steps taken.
        error: The solver's error, as its docstring defines it.
        converged: Whether the solver met its own criterion.
    """

    values: Float[Array, "batch active patches"]
    num_steps: Int32[Array, "batch active"]
    error: Float[Array, "batch active"]
    converged: Bool[Array, "batch active"]


def _encode_text(
    state: nnx.State, ids: Int32[Array, "prompts tokens"], *, graph: Static
) -> Float[Array, "prompts channels"]:
    return nnx.merge(graph.value, state).encode_text(ids)


def _dense_features(
    state: nnx.State,
    pixels: UInt8[Array, "batch height width 3"],
    *,
    graph: Static,
    attention: str,
) -> Float[Array, "batch grid_height grid_width channels"]:
    clip = nnx.merge(graph.value, state)
    return clip.dense_features(_unit_range(pixels), attention=attention)


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


def _prepare(
    features: Float[Array, "batch grid_height grid_width channels"],
    text: Float[Array, "names channels"],
    class_of_name: Int32[Array, " names"],
    *,
    num_classes: int,
    grid: tuple[int, int],
    early_rejection: bool,
    rejection_share: float,
    suppression: ops.Suppression,
    threshold: float,
    scale: float,
) -> Sources:
    """Cosines, class reduction, resampling, rejection, suppression, normalisation."""

    def prepare(features: Float[Array, "height width channels"]) -> Sources:
        cosines = jnp.einsum(
            "hwd,nd->nhw", features.astype(jnp.float32), text, precision="highest"
        )
        names = cosines.reshape(cosines.shape[0], -1)
        classes = ops.reduce_synonyms(names, class_of_name, num_classes)
        maps = classes.reshape(-1, *cosines.shape[1:])
        logits = ops.resize(maps, grid, "bilinear").reshape(len(classes), -1)
        if early_rejection:
            active = ops.reject_classes(logits, share=rejection_share)
        else:
            active = jnp.ones(len(logits), bool)
        keep = ops.suppress(
            logits, method=suppression, threshold=threshold, active=active
        )
        support, kept = count_mass(keep, active)
        return Sources(
            logits=logits,
            source=ops.normalize(logits, keep, scale=scale),
            active=active,
            support=support,
            kept=kept,
            non_finite=jnp.sum(~jnp.isfinite(logits), axis=1, dtype=jnp.int32),
        )

    return jax.vmap(prepare)(features)


def count_mass(
    keep: Bool[Array, "*batch classes patches"], active: Bool[Array, "*batch classes"]
) -> tuple[Int32[Array, "*batch"], Int32[Array, "*batch classes"]]:
    """``support`` and ``kept`` of ``Sources``, from the patches that carry mass."""
    used = jnp.any(keep & active[..., None], axis=-2)
    kept = jnp.sum(keep, axis=-1, dtype=jnp.int32)
    return jnp.sum(used, axis=-1, dtype=jnp.int32), kept


def _choose(
    values: Float[Array, "batch classes patches"],
    order: Int32[Array, "batch active"],
) -> Float[Array, "batch active patches"]:
    """The rows that ``order`` names, so that the solver never sees the class list."""
    return jnp.take_along_axis(values, order[:, :, None], axis=1)


def _solve(
    source: Float[Array, "batch active patches"],
    affinity: Float[Array, "batch patches patches"] | None,
    *,
    config: SegmenterConfig,
    reading: solvers.Reading,
    domain: solvers.Domain,
) -> Discrepancy:
    """The discrepancy of the active classes, for every photo at once.

    Args:
        source: Distributions over the patches; logits for the mode ``"logits"``.
        affinity: Attention between the patches; ``None`` for the modes without.
        config: Choices of the method.
        reading: See ``solvers.optimal_path``; modes without a path have no use for it.
        domain: Likewise.
    """

    def solve(source, affinity):
        match config.mode:
            case "logits":
                return _closed_form(source)
            case "kl":
                return _closed_form(
                    solvers.kl_map(source, direction=config.kl_direction)
                )
            case "path":
                return _path(source, affinity, config, reading, domain)
            case "velocity":
                return _velocity(source, affinity, config)
            case "fused":
                path = _path(source, affinity, config, reading, domain)
                return _fuse(path, _velocity(source, affinity, config))

    return jax.vmap(solve)(source, affinity)


def _closed_form(values: Float[Array, "classes patches"]) -> Discrepancy:
    """A map that no iteration led to."""
    classes = len(values)
    return Discrepancy(
        values,
        jnp.zeros(classes, jnp.int32),
        jnp.zeros(classes),
        jnp.ones(classes, bool),
    )


def _path(source, affinity, config: SegmenterConfig, reading, domain) -> Discrepancy:
    solution = solvers.optimal_path(
        source,
        affinity,
        epsilon=config.epsilon,
        max_steps=config.path_steps,
        tolerance=config.tolerance,
        norm=config.norm,
        domain=domain,
        **reading._asdict(),
    )
    return Discrepancy(
        solution.path, solution.num_steps, solution.error, solution.converged
    )


def _velocity(source, affinity, config: SegmenterConfig) -> Discrepancy:
    solution = solvers.maximum_velocity(
        source,
        affinity,
        threshold=config.threshold,
        criterion=config.criterion,
        balancing_steps=config.balancing_steps,
        max_steps=config.velocity_steps,
    )
    return Discrepancy(
        solution.velocity, solution.num_steps, solution.error, solution.converged
    )


def _fuse(path: Discrepancy, velocity: Discrepancy) -> Discrepancy:
    """Mean of both maps, each scaled to [0, 1] over all classes (Table 2, row VII).

    The error is the greater of two that measure different things; NaN in either stays.
    """

    def unit(values):
        low, high = values.min(), values.max()
        return (values - low) / jnp.where(high > low, high - low, 1.0)

    return Discrepancy(
        values=(unit(path.values) + unit(velocity.values)) / 2,
        num_steps=path.num_steps + velocity.num_steps,
        error=jnp.maximum(path.error, velocity.error),
        converged=path.converged & velocity.converged,
    )


def _label(
    values: Float[Array, "active patches"],
    count: Int32[Array, ""],
    guide: ops.GuideCells | Float[Array, "height width 3"],
    *,
    grid: tuple[int, int],
    upsampling: str,
    spatial_variance: float,
    range_variance: float,
) -> ops.PixelLabels:
    """The active class of every pixel; rows from ``count`` on are padding.

    Pixels come folded into cells, or as they are for dense upsampling.
    """
    maps = values.reshape(-1, *grid)
    real = jnp.arange(len(values)) < count
    if not isinstance(guide, ops.GuideCells):
        return ops.dense_bilateral_labels(
            maps,
            guide,
            real,
            spatial_variance=spatial_variance,
            range_variance=range_variance,
        )
    if upsampling == "bilinear":
        return ops.bilinear_labels(maps, guide, real)
    return ops.joint_bilateral_labels(
        maps,
        guide,
        real,
        spatial_variance=spatial_variance,
        range_variance=range_variance,
    )


TEXT = Stage("text", _encode_text)
FEATURES = Stage("clip", _dense_features)
LATENTS = Stage("vae", _encode_photo)
AFFINITY = Stage("unet", _attend)
QUERIES_KEYS = Stage("vit", _encode_photo)
AGGREGATION = Stage("aggregation", _attend)
SOURCES = Stage("logits", _prepare)
CHOSEN = Stage("logits", _choose)
DISCREPANCY = Stage("solver", _solve)
LABELS = Stage("labels", _label)
STAGES = (TEXT, FEATURES, LATENTS, AFFINITY, QUERIES_KEYS, AGGREGATION)
STAGES += (SOURCES, CHOSEN, DISCREPANCY, LABELS)


def stages_of(affinity: AffinitySource | None) -> tuple[Stage, Stage]:
    """The stages that encode photos for a source of affinities, and that attend."""
    if isinstance(affinity, TransformerAffinity):
        return QUERIES_KEYS, AGGREGATION
    return LATENTS, AFFINITY


def choose_photos(
    which: np.ndarray, these: Discrepancy, those: Discrepancy
) -> Discrepancy:
    """Photo by photo, ``these`` where ``which`` holds, elsewhere ``those``."""

    def leaf(this: np.ndarray, that: np.ndarray) -> np.ndarray:
        return np.where(np.expand_dims(which, tuple(range(1, this.ndim))), this, that)

    return jax.tree.map(leaf, these, those)


def num_compilations() -> int:
    """How many programs the stages have compiled in this process."""
    return sum(stage.num_compilations for stage in STAGES)
