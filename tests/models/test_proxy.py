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
from scipy.optimize import linear_sum_assignment
from transformers import ViTModel

from dslo_jax.demo.train.dino import configuration
from dslo_jax.models.clip import load_clip
from dslo_jax.models.dense_clip import rf_clip
from dslo_jax.models.dense_clip.assignment import least_cost
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
SMALLER = ((40, 40), (64, 24))  # the grid of training, and a narrower one
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


@pytest.mark.parametrize(
    ("kind", "size"),
    [*((kind, (72, 104)) for kind in KINDS), *((KINDS[0], s) for s in SMALLER)],
)
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
        seed=11,
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


def torch_embedded(vision, pixels):
    """CLIP's tokens before the first block, and the grid."""
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
    return vision.pre_layrnorm(tokens + positions), (rows, columns)


def torch_tokens(vision, pixels):
    """CLIP's tokens before the last block, and the grid."""
    hidden, grid = torch_embedded(vision, pixels)
    for layer in vision.encoder.layers[:-1]:
        hidden = layer(hidden, None)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    return hidden, grid


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


def head_of(tensor, heads):
    """[tokens, channels] to [heads, tokens, size]."""
    return tensor.unflatten(-1, (heads, -1)).transpose(0, 1)


def torch_nearness(grid):
    """exp(-d^2 / 50) of all pairs of patches at a distance of d."""
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    place = torch.stack([rows.flatten(), columns.flatten()], -1).float()
    return torch.exp(-(torch.cdist(place, place) ** 2) / 50)


@torch.no_grad()
def torch_cass(clip, proxy, pixels, others):
    """The definition of CASS, with singular vectors that are exact."""
    hidden, grid = torch_tokens(clip.vision_model, pixels)
    last = clip.vision_model.encoder.layers[-1]
    heads = last.self_attn.num_heads
    normed = last.layer_norm1(hidden)[0, 1:]
    key, value = (
        head_of(layer(normed), heads)
        for layer in (last.self_attn.k_proj, last.self_attn.v_proj)
    )
    seen = {}
    name = next(
        name
        for name, _ in reversed(list(proxy.named_modules()))
        if name.endswith(("attention.key", "k_proj"))
    )
    layer = proxy.get_submodule(name)
    hook = layer.register_forward_hook(lambda *call: seen.update(key=call[-1]))
    torch_proxy(proxy, pixels)
    hook.remove()
    size = [length // proxy.config.patch_size for length in pixels.shape[:2]]
    theirs = seen["key"][:, others:].transpose(1, 2).unflatten(2, size)
    theirs = F.interpolate(theirs, size=grid, mode="bilinear", align_corners=False)
    theirs = head_of(theirs[0].flatten(1).T, heads)
    theirs = (theirs - theirs.min()) / (theirs.max() - theirs.min())
    theirs = theirs * (key.max() - key.min()) + key.min()
    scale = key.shape[-1] ** -0.5
    own, second = (scale * x @ x.transpose(1, 2) for x in (key, theirs))
    shares = []
    for graphs in (second, own):
        spectra = torch.linalg.eigvalsh(graphs.double()).flip(1)[:, :20]
        shares.append(F.normalize(F.normalize(spectra, dim=1), p=1, dim=1))
    distance = torch.cdist(*shares, p=1)
    # Several pairings are equally good here; ours differ by a fixed preference.
    number = torch.arange(heads**2).double().reshape(heads, heads)
    preferred = distance + 1e-5 * (number * (5**0.5 - 1) / 2 % 1)
    rows, columns = linear_sum_assignment((1 - preferred).numpy())
    mixed = []
    for i, j in zip(rows, columns, strict=True):
        u, s, v = torch.linalg.svd(second[j].double())
        u, s, v = u[:, :10], s[:10], v[:10]
        s = (s - s.min()) / (s.max() - s.min()) * (
            1.5 * s.max() - 0.5 * s.min()
        ) + 0.5 * s.min()
        graph = (u * s @ v).fill_diagonal_(0)
        graph = (graph - graph.min()) / (graph.max() - graph.min())
        graph = graph * (own[i].max() - own[i].min()) + own[i].min()
        strength = 10 * distance[i, j]
        score = (strength * graph + own[i]) / (strength + 1) + torch_nearness(grid)
        mixed.append(score.softmax(-1).float() @ value[i])
    return torch_finish(clip, torch.cat(mixed, -1)[None])


CHANNELS, LEAST_SHARE = (3, 17, 40), 1.4  # the published 5 is for more channels


def torch_denoised(tokens, grid):
    """Move patches with a strong channel towards the mean of 3 x 3 patches."""
    patches = tokens[:, 1:]
    above = patches - patches.min(-1, keepdim=True)[0]
    share = above / above.sum(-1, keepdim=True)
    strongest = share[..., list(CHANNELS)].max(-1, keepdim=True)[0]
    limit = LEAST_SHARE / patches.shape[-1]
    assert (strongest - limit).abs().min() > 1e-7, "a rounding could decide"
    assert 0.02 < (strongest > limit).float().mean() < 0.98
    around = F.avg_pool2d(patches.transpose(1, 2).unflatten(2, grid), 3, 1, padding=1)
    around = around.flatten(2).transpose(1, 2)
    patches = torch.where(strongest > limit, 0.6 * patches + 0.4 * around, patches)
    return torch.cat([tokens[:, :1], patches], 1)


@torch.no_grad()
def torch_rf_clip(clip, _, pixels, __):
    """The definition of RF-CLIP, block by block, with every attention at once."""
    vision = clip.vision_model
    layers = vision.encoder.layers
    hidden, grid = torch_embedded(vision, pixels)
    heads = layers[0].self_attn.num_heads
    states, attentions = [], []

    def keys_attend(layer, tokens):
        key = head_of(layer.self_attn.k_proj(layer.layer_norm1(tokens))[0], heads)
        return (key @ key.transpose(1, 2) * key.shape[-1] ** -0.5).softmax(-1)

    for layer in layers:
        before = hidden
        attentions.append(keys_attend(layer, hidden))
        hidden = layer(hidden, None)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        hidden = torch_denoised(hidden, grid)
        states.append(hidden)
    guide = torch.stack(states).mean(0)
    cosines = F.normalize(guide[0, 1:], dim=-1)
    cosines = cosines @ cosines.T
    assert (cosines - 0.4).abs().min() > 2e-6, "a rounding could decide"
    cosines = cosines.masked_fill(cosines < 0.4, 0)
    decoded = []
    for tokens in (before, guide):
        tokens = torch.cat([tokens[:, :1], cosines @ tokens[:, 1:]], 1)
        value = layers[-1].self_attn.v_proj(layers[-1].layer_norm1(tokens))
        value = head_of(value[0, 1:], heads)
        weights = torch.stack([*attentions[:-1], keys_attend(layers[-1], tokens)])
        decoded.append(weights.mean(0)[:, 1:, 1:] @ value)
    mixed = torch.stack(decoded).mean(0).transpose(0, 1).flatten(1)
    return torch_finish(clip, mixed[None])


REFERENCES = {
    "proxyclip": torch_proxyclip,
    "cass": torch_cass,
    "rf-clip": torch_rf_clip,
}


@pytest.mark.parametrize("attention", REFERENCES)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * ("dinov2" in name))
        for name in PAIRS
    ],
)
def test_a_variant_equals_its_definition(name, attention, tmp_path, monkeypatch):
    shape = 48, PAIRS[name][3]
    monkeypatch.setattr(rf_clip, "_CHANNELS", {shape: CHANNELS})
    monkeypatch.setattr(rf_clip, "_LEAST_SHARE", LEAST_SHARE)
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


@pytest.mark.parametrize("size", [1, 2, 3, 12, 16])
def test_the_best_pairs_are_those_of_scipy(size):
    rng = np.random.default_rng(size)
    solve = jax.jit(least_cost)
    for cost in rng.normal(size=(20, size, size)).astype(np.float32):
        _, expected = linear_sum_assignment(cost)
        np.testing.assert_array_equal(solve(cost), expected)


@pytest.mark.parametrize("attention", REFERENCES)
def test_bfloat16(attention, tmp_path, monkeypatch):
    """Every second patch at least is closer than 3 degrees."""
    monkeypatch.setattr(rf_clip, "_CHANNELS", {(48, 3): CHANNELS})
    _, _, *wide = pair_of("p16 and dino p8", tmp_path)
    folders = (load_clip, "clip"), (load_proxy, "proxy")
    narrow = [load(tmp_path / name, dtype=jnp.bfloat16) for load, name in folders]
    pixels = photo(*SIZE)
    cuts = padded(pixels, 16, 3), padded(pixels, 8, 3)
    found, expected = (dense(*pair, *cuts, attention) for pair in (narrow, wide))
    assert found.dtype == jnp.float32
    cosines = np.sum(found * expected, axis=-1)
    assert np.median(cosines) > np.cos(np.radians(3))


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
