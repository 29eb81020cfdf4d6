"""CASS: the attention graphs of a DINO are distilled into those of CLIP's last block.

Kim et al.: Distilling Spectral Graph for Object-Context Aware Open-Vocabulary Semantic
Segmentation, CVPR 2025 (arXiv 2411.17150), as in ``clip/model.py`` of MICV-yonsei/CASS
(``attn_strategy="spectral"``). Both networks must have as many heads of the same size.

Differences from that code: The singular vectors are exact, and not from a random
sketch. DINO sees the whole photo at its own aspect and with its own pixel statistics;
there it sees a square with nearly those of CLIP. Left out are the parts that are not
steps of a network: class names adapted to the photo (hierarchical groups of names,
object presence), the logit of the class token that is added to all patches, sliding
windows and PAMR. Its weights for them were chosen for each benchmark.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.dense_clip.assignment import least_cost
from dslo_jax.models.dense_clip.naclip import nearness
from dslo_jax.models.dense_clip.vanilla import before_last
from dslo_jax.models.dense_clip.variant import (
    DenseInput,
    Layers,
    PatchTokens,
    Variant,
)
from dslo_jax.ops.patches import resample_patches
from dslo_jax.work import Work, product


_COMPARED = 20  # eigenvalues of a graph: ``k_eigen``
_KEPT = 10  # rank that is left of a graph of DINO: where ``optimal_q`` always ends
_STRENGTH = 10.0  # of a graph of DINO: ``scale_factor``
# Many pairings are equally good where the spectra of one network lie above those of the
# other. This much decides between them, so that rounding does not; it is ours.
_PREFERENCE = 1e-5

Keys = Float[Array, "batch heads patches size"]
Graph = Float[Array, "patches patches"]
IsReal = Bool[Array, " patches"]


def _run(layers: Layers, photos: DenseInput) -> PatchTokens:
    """Mix the values of the last block with graphs of both networks.

    A graph is k k.T / sqrt(size), of the keys of the patches for one head; those of
    DINO are resampled to the grid of CLIP, and moved to the range of those of CLIP.

    1. Heads of both networks form pairs whose spectra differ most, in sum.
    2. A graph of DINO keeps its ten greatest eigenvalues, with a wider range, and no
       diagonal.
    3. The graph of CLIP's head is averaged with that of DINO, whose weight is ten times
       the difference of the spectra.
    4. Nearness as in NACLIP is added before the softmax. There is no class token, no
       residual and no MLP.
    """
    last = layers[-1]
    heads = last.heads(before_last(layers, photos))
    key, value = heads.key[:, :, 1:].astype(jnp.float32), heads.value[:, :, 1:]
    is_real = jnp.ones((len(key), key.shape[2]), bool)
    if photos.mask is not None:
        is_real = jnp.broadcast_to(photos.mask[:, 0, 1:], is_real.shape)
    second = _in_range(_resampled(photos, key.shape[1]), key, is_real)
    bias = jnp.broadcast_to(nearness(photos), (len(key), *nearness(photos).shape[1:]))
    mixed = jax.vmap(_mixed)(key, second, value, bias, is_real)
    return last.self_attn.join(mixed)


def _resampled(photos: DenseInput, heads: int) -> Keys:
    """The keys of the proxy on the grid of CLIP."""
    proxy = photos.proxy
    assert proxy is not None  # the registry says so
    batch, own, count, size = proxy.keys.shape
    assert own == heads, "checked with the networks"
    flat = proxy.keys.transpose(0, 2, 1, 3).reshape(batch, count, own * size)
    places = tuple(
        jnp.broadcast_to(place, (batch, place.shape[1])) for place in photos.places
    )
    keys = resample_patches(flat, proxy.grid, (places[0], places[1]), photos.grid)
    return keys.reshape(batch, -1, own, size).transpose(0, 2, 1, 3)


def _in_range(keys: Keys, wanted: Keys, is_real: Bool[Array, "batch patches"]) -> Keys:
    """Shift and scale all keys of a photo to the range of others."""
    real = is_real[:, None, :, None]
    low, high = _range(keys, real)
    least, greatest = _range(wanted, real)
    return _stretched(keys, low, high) * (greatest - least) + least


def _stretched(values: Array, low: Array, high: Array) -> Array:
    """Values at their place between two others, which may be equal."""
    return (values - low) / jnp.maximum(high - low, jnp.finfo(values.dtype).tiny)


def _range(
    values: Float[Array, "*axes"], real: Bool[Array, "*broadcast"]
) -> tuple[Array, Array]:
    """Least and greatest value of each photo, or of a graph."""
    axes = tuple(range(values.ndim - 3, values.ndim)) if values.ndim > 2 else None
    low = jnp.min(values, axis=axes, keepdims=True, initial=jnp.inf, where=real)
    high = jnp.max(values, axis=axes, keepdims=True, initial=-jnp.inf, where=real)
    return low, high


def _mixed(
    key: Float[Array, "heads patches size"],
    second: Float[Array, "heads patches size"],
    value: Float[Array, "heads patches size"],
    bias: Graph,
    is_real: IsReal,
) -> Float[Array, "heads patches size"]:
    """The mixed values of all heads of a photo, one head after the other."""
    scale = key.shape[-1] ** -0.5
    own, _ = _spectra(key, scale, is_real)
    spectra, vectors = _spectra(second, scale, is_real)
    distance = _distances(_shares(spectra), _shares(own))
    column = least_cost(1 - distance - _PREFERENCE * _preference(len(key)))
    kept = _kept(spectra, vectors)

    def mix(head: Int32[Array, ""]) -> Float[Array, "patches size"]:
        # The published code compares DINO's head i with CLIP's head j, and then takes
        # CLIP's head i with DINO's head j. We do the same.
        other = column[head]
        strength = _STRENGTH * distance[head, other]
        graph = scale * _product(key[head], key[head])
        theirs = _product(second[other] @ kept[other], second[other])
        theirs = jnp.where(jnp.eye(len(graph), dtype=bool), 0, theirs)
        pairs = is_real[:, None] & is_real[None]
        low, high = _range(theirs, pairs)
        least, greatest = _range(graph, pairs)
        theirs = _stretched(theirs, low, high) * (greatest - least) + least
        scores = (strength * theirs + graph) / (strength + 1) + bias
        weights = jax.nn.softmax(jnp.where(is_real[None], scores, -jnp.inf), axis=-1)
        return jnp.einsum(
            "pn,nc->pc",
            weights.astype(value.dtype),
            value[head],
            preferred_element_type=jnp.float32,
        )

    return jax.lax.map(mix, jnp.arange(len(key), dtype=jnp.int32))


_product = partial(jnp.einsum, "pc,nc->pn", precision=jax.lax.Precision.HIGHEST)


def _spectra(
    key: Float[Array, "heads patches size"], scale: float, is_real: IsReal
) -> tuple[Float[Array, "heads size"], Float[Array, "heads size size"]]:
    """Eigenvalues of the graphs in decreasing order, and vectors that give theirs.

    A graph K K.T of N patches has the eigenvalues of K.T K, which is only as large as
    a head, and its eigenvectors are K times those of K.T K. So no N x N matrix is
    decomposed.
    """
    key = jnp.where(is_real[None, :, None], key, 0)
    small = jnp.einsum("hpc,hpd->hcd", key, key, precision=jax.lax.Precision.HIGHEST)
    values, vectors = jnp.linalg.eigh(scale * small)
    return jnp.maximum(values[:, ::-1], 0), vectors[:, :, ::-1]


def _shares(spectra: Float[Array, "heads size"]) -> Float[Array, "heads compared"]:
    """The greatest eigenvalues, as shares of their sum."""
    greatest = spectra[:, :_COMPARED]
    return greatest / jnp.sum(greatest, axis=1, keepdims=True)


def _distances(
    first: Float[Array, "heads compared"], second: Float[Array, "heads compared"]
) -> Float[Array, "heads heads"]:
    """How much the spectra of all pairs differ, in [0, 2]."""
    return jnp.abs(first[:, None] - second[None]).sum(axis=-1)


def _preference(heads: int) -> Float[np.ndarray, "heads heads"]:
    """Fixed numbers in [0, 1) whose sums differ from pairing to pairing."""
    number = np.arange(heads * heads, dtype=np.float64).reshape(heads, heads)
    return (number * (5**0.5 - 1) / 2 % 1).astype(np.float32)


def _kept(
    spectra: Float[Array, "heads size"], vectors: Float[Array, "heads size size"]
) -> Float[Array, "heads size size"]:
    """Matrices that give the smoothed graphs: K M K.T.

    An eigenvalue s of the ten greatest becomes
    (s - least) / (greatest - least) (1.5 greatest - 0.5 least) + 0.5 least, as the
    published code does for six of its eight benchmarks. A head with fewer than ten
    channels has 0 as its tenth eigenvalue.
    """
    missing = max(_KEPT - spectra.shape[1], 0)
    values = jnp.pad(spectra, ((0, 0), (0, missing)))[:, :_KEPT]
    greatest, least = values[:, :1], values[:, -1:]
    wide = 1.5 * greatest - 0.5 * least
    changed = _stretched(values, least, greatest) * wide + 0.5 * least
    count = _KEPT - missing
    values, changed = values[:, :count], changed[:, :count]
    size = spectra.shape[1]
    # K v has the length sqrt(s sqrt(size)), so its outer product is divided by that.
    ratio = jnp.where(values > 1e-6 * greatest, changed / values, 0) * size**-0.5
    chosen = vectors[:, :, :count]
    scaled = chosen * ratio[:, None]
    return jnp.einsum(
        "hck,hdk->hcd", scaled, chosen, precision=jax.lax.Precision.HIGHEST
    )


def _work(config: ClipVisionConfig, patches: int, proxy_patches: int) -> Work:
    """Computation: keys and values of N + 1 tokens, 4 N C^2, and the output, 2 N C^2.

    In a loop over H heads of D channels: 6 N^2 D for two graphs and the mean, and
    2 N D^2 for DINO's. Beside it 2 * 2 N C D for the small matrices of both networks;
    their decomposition, about 9 D^3 for each head, is not counted.
    """
    del proxy_patches  # its keys are resampled first
    size, heads = config.hidden_size, config.num_attention_heads
    channels = size // heads
    work = product(patches + 1, size, 2 * size) + product(patches, size, size)
    work += product(channels, patches, channels).times(2 * heads)
    work += product(channels, min(_KEPT, channels), channels).times(heads)
    head = product(patches, channels, patches).times(3)
    return work + (head + product(patches, channels, channels)).looped(heads)


CASS = Variant(_run, _work, needs_proxy=True, same_heads=True)
"""Attention graphs of a DINO, distilled into those of the last block of CLIP."""
