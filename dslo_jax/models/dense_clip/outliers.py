"""Patches whose features are unlike those of all others, and their repair.

CLIP's late blocks use some patches to store what belongs to the whole photo. This is
the part of SC-CLIP (see ``sc_clip.py``) that replaces them.
"""

import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dslo_jax.models.dense_clip.neighbours import neighbour
from dslo_jax.models.dense_clip.variant import DenseInput, PatchTokens


# ``lof_pytorch`` in clip/model.py: neighbours of a patch, and the share of outliers.
_NEIGHBOURS = 30
_SHARE = 20  # one in twenty, "contamination" 0.05

_AROUND = [step for step in itertools.product((-1, 0, 1), repeat=2) if step != (0, 0)]


def find_outliers(
    patches: PatchTokens, is_real: Bool[Array, "#batch patches"]
) -> Bool[Array, "batch patches"]:
    """Find the patches with the largest local outlier factor, about 5 % of a photo.

    This is the factor in the code of SC-CLIP, which is simpler than that of Breunig et
    al. (SIGMOD 2000). The reach of a patch is the squared distance to its 30th nearest
    patch. Its factor is the mean of (its reach / the reach of a neighbour) over the 30
    nearest patches. Outliers have a factor above the 95 % quantile.

    Args:
        patches: Features. With up to 31 patches in a photo, the neighbours are half of
            the others: if they were all, the two greatest factors would be equal.
        is_real: False for the padding, which is never a neighbour nor an outlier.

    Memory:
        About 8 * batch * patches**2 bytes.
    """
    distances = _squared_distances(patches)
    is_self = jnp.eye(patches.shape[1], dtype=bool)[None]
    distances = jnp.where(is_real[:, None] & ~is_self, distances, jnp.inf)
    length = max(1, min(_NEIGHBOURS, patches.shape[1] - 1))
    near, neighbours = jax.lax.top_k(-distances, length)
    others = is_real.sum(axis=1, keepdims=True) - 1  # than the patch itself
    count = jnp.where(others > _NEIGHBOURS, _NEIGHBOURS, others // 2)
    count = jnp.broadcast_to(count, (len(patches), 1))
    reach = -jnp.take_along_axis(near, jnp.maximum(count - 1, 0)[..., None], axis=2)
    reach = jnp.maximum(reach[..., 0], jnp.finfo(jnp.float32).tiny)
    inverse = jnp.take_along_axis(1 / reach[:, None], neighbours, axis=2)
    is_near = jnp.arange(length)[None, None] < count[..., None]
    total = jnp.sum(inverse, axis=2, where=is_near)
    factor = reach * total / jnp.maximum(count, 1).astype(jnp.float32)
    return is_real & (factor > _quantile(factor, is_real))


def repair(
    patches: PatchTokens, is_outlier: Bool[Array, "batch patches"], photos: DenseInput
) -> PatchTokens:
    """Replace each outlier by the mean of the patches around it.

    These are the up to eight adjacent patches of the photo that are not outliers. If
    there are none, the outlier stays.

    Args:
        patches: Features.
        is_outlier: From ``find_outliers``.
        photos: Says where the patches lie.
    """
    _, number = neighbour(photos, (0, 0))
    is_outlier = jnp.take_along_axis(is_outlier, number, axis=1)  # of the padding, too
    total = jnp.zeros(patches.shape, jnp.float32)
    count = jnp.zeros((*patches.shape[:2], 1), jnp.float32)
    for step in _AROUND:
        is_inside, number = neighbour(photos, step)
        is_used = is_inside & ~jnp.take_along_axis(is_outlier, number, axis=1)
        values = jnp.take_along_axis(patches, number[..., None], axis=1)
        total += jnp.where(is_used[..., None], values, 0).astype(jnp.float32)
        count += is_used[..., None].astype(jnp.float32)
    mean = (total / jnp.maximum(count, 1)).astype(patches.dtype)
    return jnp.where(is_outlier[..., None] & (count > 0), mean, patches)


def _squared_distances(patches: PatchTokens) -> Float[Array, "batch patches patches"]:
    """Squared distances, with products of full precision: they nearly cancel."""
    patches = patches.astype(jnp.float32)
    squares = jnp.sum(patches**2, axis=-1)
    products = jnp.einsum(
        "bic,bjc->bij", patches, patches, precision=jax.lax.Precision.HIGHEST
    )
    return jnp.maximum(squares[:, :, None] + squares[:, None] - 2 * products, 0)


def _quantile(
    factor: Float[Array, "batch patches"], is_real: Bool[Array, "#batch patches"]
) -> Float[Array, "batch 1"]:
    """The greatest factor that is not above the quantile."""
    last = is_real.sum(axis=1, keepdims=True) - 1
    place = jnp.broadcast_to((_SHARE - 1) * last // _SHARE, (len(factor), 1))
    ordered = jnp.sort(jnp.where(is_real, factor, jnp.inf), axis=1)
    return jnp.take_along_axis(ordered, place, axis=1)
