"""ProxyCLIP: a DINO says which patches are mixed, and CLIP gives their values.

Lan et al.: ProxyCLIP, Proxy Attention Improves CLIP for Open-Vocabulary Segmentation,
ECCV 2024 (arXiv 2408.04883), as in ``open_clip/transformer.py`` of mc-lan/ProxyCLIP.
There the photo is cut into overlapping windows, which are padded to a multiple of both
patch sizes. Here the photo is whole, and each network gets it at a multiple of its own
patch size.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.dense_clip.vanilla import before_last
from dslo_jax.models.dense_clip.variant import (
    DenseInput,
    Layers,
    PatchTokens,
    ProxyFeatures,
    Variant,
)
from dslo_jax.ops.patches import places_of, resample_patches
from dslo_jax.work import Work, product


_SHIFT, _SCALE = 1.2, 3.0  # the published beta and gamma


def _run(layers: Layers, photos: DenseInput) -> PatchTokens:
    """Average the values of the last block with weights of the proxy.

    The weights are the same for all heads. They are made of the cosines s of the
    features of the proxy: softmax(3 (s - 1.2 mean(s))) over the patches for which this
    is not negative. The values are resampled to the grid of the proxy. There is no
    class token, no residual and no MLP.
    """
    proxy = photos.proxy
    assert proxy is not None  # the registry says so
    last = layers[-1]
    patches = last.layer_norm1(before_last(layers, photos)[:, 1:])
    values = last.self_attn.v_proj(patches)
    length = proxy.features.shape[1]
    values = resample_patches(
        values, photos.grid, places_of(proxy.grid, length), proxy.grid
    )
    mixed = jnp.einsum(
        "bpn,bnc->bpc",
        _weights(proxy).astype(patches.dtype),
        values.astype(patches.dtype),
        preferred_element_type=jnp.float32,
    )
    return last.self_attn.out_proj(mixed.astype(patches.dtype))


def _weights(proxy: ProxyFeatures) -> Float[Array, "batch patches patches"]:
    """Weights of all patches for each patch.

    A patch always has a weight for itself. Without this, a photo whose cosines all are
    close to their mean would have none, and the published code gives NaN.
    """
    features = proxy.features.astype(jnp.float32)
    length = jnp.linalg.norm(features, axis=-1, keepdims=True)
    features = features / jnp.maximum(length, 1e-12)
    cosines = jnp.einsum("bpc,bnc->bpn", features, features)
    real = proxy.is_real
    together = jnp.sum(jnp.where(real[..., None], features, 0), axis=1)
    number = jnp.sum(real, axis=1, dtype=jnp.float32)
    mean = jnp.sum(together**2, axis=-1) / number**2  # of the cosines of all pairs
    scores = (cosines - _SHIFT * mean[:, None, None]) * _SCALE
    itself = jnp.eye(real.shape[1], dtype=bool)[None]
    kept = ((scores >= 0) & real[:, None]) | itself
    return jax.nn.softmax(jnp.where(kept, scores, -jnp.inf), axis=-1)


def _work(config: ClipVisionConfig, patches: int, proxy_patches: int) -> Work:
    """Computation of values, 2 N C^2, cosines and means, and output, 2 M C^2.

    For M patches of the proxy, whose features are taken to have C channels, as in all
    published pairs: 4 M^2 C.
    """
    size = config.hidden_size
    work = product(patches, size, size) + product(proxy_patches, size, size)
    return work + product(proxy_patches, size, proxy_patches).times(2)


PROXYCLIP = Variant(_run, _work, needs_proxy=True, on_proxy_grid=True)
"""Attention that the features of a DINO give. Published for DINO ViT-B/8 and others."""
