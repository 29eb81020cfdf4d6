"""CLIP with a DINO as proxy: padding, parity with plain torch, and the DINO itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checkpoints.clip import save_clip
from checkpoints.vit import KINDS, save_vit
from flax import nnx
from transformers import ViTModel

from dslo_jax.demo.train.dino import configuration
from dslo_jax.models.clip import load_clip
from dslo_jax.models.proxy import ProxyVit, load_proxy
from dslo_jax.models.vit import vit_spelling
from dslo_jax.models.vit_config import VitConfig
from dslo_jax.ops import Patches, cut_patches
from dslo_jax.weights import save_module


TOLERANCE = 2e-5  # absolute, on features of length 1
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
# Patches of CLIP, patches of the proxy, its kind, depths of both.
PAIRS = {
    "p16 and dino p8": (16, 8, "vit", 3, 2),
    "p14 and dinov2 p14": (14, 14, "dinov2", 2, 4),
    "p16 and registers p14": (16, 14, "dinov2_with_registers", 4, 3),
}
SIZE = (112, 224)  # a multiple of all patch sizes; not square


def photo(height, width):
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def unit_range(pixels):
    return pixels.astype(np.float32) / 255


def padded(pixels, side, more):
    """A photo as a sequence with padding, in [0, 1]."""
    count = (pixels.shape[0] // side) * (pixels.shape[1] // side)
    cut = cut_patches(pixels, side, count + more)
    return Patches(jnp.asarray(unit_range(cut.pixels)), jnp.asarray(cut.grid))


def normalised(pixels, mean, std):
    return torch.from_numpy((unit_range(pixels) - mean) / std).permute(2, 0, 1)[None]


def torch_proxy(network, pixels):
    """Tokens after the last layer norm, in transformers."""
    options = {}
    if network.config.model_type == "vit":
        options["interpolate_pos_encoding"] = True
    with torch.inference_mode():
        return network(normalised(pixels, MEAN, STD), **options).last_hidden_state


@functools.partial(jax.jit, static_argnames="attention")
def dense(clip, proxy, patches, more, attention):
    features = proxy.of_patches(more)
    return clip.patch_features(patches, attention=attention, proxy=features)


of_patches = jax.jit(lambda network, patches: network.of_patches(patches))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(40, 40), (72, 104), (64, 24)])
def test_features_of_a_padded_sequence_equal_transformers(kind, size, tmp_path):
    """Larger and smaller grids than that of training (5 x 5), and both at once."""
    network = save_vit(tmp_path, kind, seed=3)
    proxy, pixels = load_proxy(tmp_path), photo(*size)
    expected = torch_proxy(network, pixels)[0, proxy.others :].numpy()
    patches = padded(pixels, 8, 5)
    with jax.default_matmul_precision("highest"):
        found = of_patches(proxy, patches)
    count = len(expected)
    error = np.abs(np.asarray(found.features)[0, :count] - expected).max()
    assert error <= TOLERANCE * np.abs(expected).max()
    assert int(found.is_real.sum()) == count
    with jax.default_matmul_precision("highest"):
        tokens = jax.jit(lambda network, x: network(x))(proxy, unit_range(pixels)[None])
    np.testing.assert_allclose(
        tokens[0, proxy.others :], found.features[0, :count], atol=1e-4
    )


def pair_of(name, folder):
    """CLIP and proxy, each in torch and here."""
    side, second, kind, depth, proxy_depth = PAIRS[name]
    theirs = save_clip(
        folder / "clip",
        seed=5,
        patch_size=side,
        image_size=side * 4,
        vision=(depth, 48, 3),
    )
    proxy = save_vit(
        folder / "proxy",
        kind,
        seed=9,
        patch_size=second,
        image_size=second * 5,
        shape=(proxy_depth, 48, 3),
    )
    mine = load_clip(folder / "clip"), load_proxy(folder / "proxy")
    return theirs, proxy, *mine


def torch_tokens(vision, pixels):
    """CLIP's tokens before the last block, and the grid."""
    embeddings = vision.embeddings
    patches = embeddings.patch_embedding(normalised(pixels, CLIP_MEAN, CLIP_STD))
    rows, columns = patches.shape[2:]
    trained = embeddings.position_embedding.weight
    side = embeddings.image_size // embeddings.patch_size
    grid = trained[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = ((rows + 0.1) / side, (columns + 0.1) / side)
    grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
    positions = torch.cat([trained[:1], grid[0].flatten(1).T])
    tokens = torch.cat(
        [embeddings.class_embedding[None, None], patches.flatten(2).transpose(1, 2)], 1
    )
    hidden = vision.pre_layrnorm(tokens + positions)
    for layer in vision.encoder.layers[:-1]:
        hidden = layer(hidden, None)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    return hidden, (rows, columns)


@torch.no_grad()
def torch_finish(clip, mixed):
    """From the mixed values of the last block to features of length 1."""
    vision = clip.vision_model
    hidden = vision.encoder.layers[-1].self_attn.out_proj(mixed)
    hidden = clip.visual_projection(vision.post_layernorm(hidden))
    return F.normalize(hidden, dim=-1)[0].numpy()


@torch.no_grad()
def torch_proxyclip(clip, proxy, pixels, others):
    """The definition of ProxyCLIP, for one photo."""
    hidden, grid = torch_tokens(clip.vision_model, pixels)
    last = clip.vision_model.encoder.layers[-1]
    value = last.self_attn.v_proj(last.layer_norm1(hidden))[:, 1:]
    size = [length // proxy.config.patch_size for length in pixels.shape[:2]]
    value = value.transpose(1, 2).unflatten(2, grid)
    value = F.interpolate(value, size=size, mode="bilinear", align_corners=False)
    features = F.normalize(torch_proxy(proxy, pixels)[0, others:], dim=-1)
    score = features @ features.T
    score = (score - 1.2 * score.mean()) * 3
    assert score.abs().min() > 1e-6, "a rounding could decide"
    score = score.masked_fill(score < 0, -torch.inf)
    return torch_finish(clip, score.softmax(-1) @ value.flatten(2).transpose(1, 2))


REFERENCES = {"proxyclip": torch_proxyclip}


@pytest.mark.parametrize("attention", REFERENCES)
@pytest.mark.parametrize("name", PAIRS)
def test_a_variant_equals_its_definition(name, attention, tmp_path):
    theirs, proxy, clip, vit = pair_of(name, tmp_path)
    pixels = photo(*SIZE)
    expected = REFERENCES[attention](theirs, proxy, pixels, vit.others)
    side, second = PAIRS[name][:2]
    for more in (0, 7):
        with jax.default_matmul_precision("highest"):
            found = dense(
                clip,
                vit,
                padded(pixels, side, more),
                padded(pixels, second, 2 * more),
                attention,
            )
        error = np.abs(np.asarray(found)[0, : len(expected)] - expected).max()
        assert error <= TOLERANCE, more


def test_a_patch_attends_to_itself_where_all_are_alike(tmp_path):
    """The published code has no weight for any patch here."""
    _, _, clip, vit = pair_of("p16 and dino p8", tmp_path)
    pixels = np.full((32, 48, 3), 128, np.uint8)
    vit.embeddings.position_embeddings[...] *= 0
    found = dense(clip, vit, padded(pixels, 16, 0), padded(pixels, 8, 3), "proxyclip")
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-5)


def test_a_dino_of_ours_is_a_dino_of_transformers(tmp_path):
    config = configuration()
    network = ProxyVit(VitConfig.from_dict(config), rngs=nnx.Rngs(0))
    save_module(network, tmp_path, config, rename=vit_spelling)
    theirs, told = ViTModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not told["unexpected_keys"]
    assert all(key.startswith("pooler") for key in told["missing_keys"])
    pixels = photo(96, 96)
    expected = torch_proxy(theirs.eval(), pixels)
    np.testing.assert_allclose(
        network(jnp.asarray(unit_range(pixels))[None]), expected.numpy(), atol=1e-4
    )
