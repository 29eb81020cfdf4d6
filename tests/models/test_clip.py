"""CLIP against transformers' torch network, block by block and end to end."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checkpoints.clip import EOS, VOCAB_SIZE, save_clip, save_text_encoder
from flax import nnx
from safetensors.torch import load_file, save_file

from dslo_jax.errors import CheckpointError
from dslo_jax.models.clip import Clip, load_clip
from dslo_jax.models.clip_config import ClipConfig, ClipTextConfig, ClipVisionConfig
from dslo_jax.models.clip_layers import attention_weights
from dslo_jax.models.clip_text import TextModel, load_text_encoder
from dslo_jax.ops import Patches, cut_patches


TOLERANCE = 2e-5  # float32, per block and end to end

# Depths, widths, heads, patches, activations, epsilons and ends of text all differ.
SHAPES = {
    "p16": {"seed": 1},
    "p14": {
        "seed": 2,
        "patch_size": 14,
        "image_size": 42,
        "vision": (2, 32, 4),
        "text": (3, 48, 3),
        "projection_dim": 40,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-3,
        "eos_token_id": 2,
        "max_position_embeddings": 32,
    },
}
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


@pytest.fixture(scope="module", params=SHAPES)
def pair(request, tmp_path_factory):
    """The same checkpoint in torch and in NNX."""
    folder = tmp_path_factory.mktemp(request.param)
    torch_clip = save_clip(folder, **SHAPES[request.param])
    return torch_clip, load_clip(folder)


one_shape = pytest.mark.parametrize("pair", ["p16"], indirect=True)


@functools.cache
def photo(height, width, batch=1):
    generator = np.random.default_rng(height * 1000 + width)
    return generator.random((batch, height, width, 3), np.float32)


def prompts(batch=3, tokens=16):
    """Ids whose ends of text lie at different places, padded with it."""
    ids = np.random.default_rng(0).integers(3, VOCAB_SIZE - 2, (batch, tokens))
    ids[:, 0] = VOCAB_SIZE - 2
    for row, end in enumerate(np.linspace(3, tokens - 1, batch).astype(int)):
        ids[row, end:] = EOS
    return ids.astype(np.int32)


@functools.partial(jax.jit, static_argnames="attention")
def dense(clip, pixels, attention):
    return clip.dense_features(pixels, attention=attention)


@jax.jit
def encode(clip, ids):
    return clip.encode_text(ids)


@jax.jit
def call(module, *arguments):
    return module(*arguments)


def close(found, expected, tolerance):
    expected = expected.detach().numpy()
    assert found.shape == expected.shape
    error = np.abs(np.asarray(found) - expected).max()
    assert error <= tolerance * max(1.0, np.abs(expected).max())


# ---------------------------------------------------------------- torch references


def torch_positions(embeddings, rows, columns):
    """Bicubic in torch, with the inflated scale; DINO's way."""
    trained = embeddings.position_embedding.weight
    side = embeddings.image_size // embeddings.patch_size
    if (rows, columns) == (side, side):
        return trained
    grid = trained[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = ((rows + 0.1) / side, (columns + 0.1) / side)
    grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
    assert grid.shape[2:] == (rows, columns)
    return torch.cat([trained[:1], grid[0].permute(1, 2, 0).flatten(0, 1)])


def torch_embed(vision, pixels):
    embeddings = vision.embeddings
    normalised = torch.tensor((pixels - MEAN) / STD).permute(0, 3, 1, 2)
    patches = embeddings.patch_embedding(normalised)
    rows, columns = patches.shape[2:]
    patches = patches.flatten(2).transpose(1, 2)
    cls = embeddings.class_embedding.expand(len(patches), 1, -1)
    positions = torch_positions(embeddings, rows, columns)
    return torch.cat([cls, patches], 1) + positions, rows, columns


# ---------------------------------------------------------------- vision


def test_vision_blocks(pair):
    network, clip = pair
    layers = network.vision_model.encoder.layers
    width = network.config.vision_config.hidden_size
    hidden = torch.randn(2, 7, width, generator=torch.Generator().manual_seed(0))
    assert len(clip.vision_model.encoder.layers) == len(layers)
    for ours, theirs in zip(clip.vision_model.encoder.layers, layers, strict=True):
        close(call(ours, hidden.numpy()), theirs(hidden, None), TOLERANCE)


@pytest.mark.parametrize("cells", [(3, 3), (4, 4), (4, 2), (5, 7), (1, 1)])
def test_vision_embeddings(pair, cells):
    network, clip = pair
    patch = network.config.vision_config.patch_size
    pixels = photo(cells[0] * patch + 3, cells[1] * patch)
    expected, *_ = torch_embed(network.vision_model, pixels)
    found = call(clip.vision_model.embeddings, pixels)
    close(found, expected, TOLERANCE)


def test_native_size_equals_transformers(pair):
    """The whole torch network itself, not a reference rewritten here."""
    network, clip = pair
    side = network.config.vision_config.image_size
    pixels = photo(side, side, batch=2)
    normalised = torch.tensor((pixels - MEAN) / STD).permute(0, 3, 1, 2)
    vision = network.vision_model
    hidden = vision(normalised).last_hidden_state[:, 1:]
    features = network.visual_projection(vision.post_layernorm(hidden))
    expected = F.normalize(features, dim=-1)
    found = dense(clip, pixels, "vanilla")
    close(found.reshape(expected.shape), expected, TOLERANCE)


@one_shape
def test_a_photo_of_a_batch_is_a_photo_alone(pair):
    _, clip = pair
    pixels = photo(70, 45, batch=2)
    both = dense(clip, pixels, "kk_mean")
    alone = dense(clip, pixels[1:], "kk_mean")
    np.testing.assert_allclose(both[1:], alone, atol=2e-6)


@one_shape
def test_partial_patches_are_not_looked_at(pair):
    network, clip = pair
    patch = network.config.vision_config.patch_size
    pixels = photo(70, 45)
    changed = pixels.copy()
    changed[:, 70 // patch * patch :] = 0
    changed[:, :, 45 // patch * patch :] = 1
    np.testing.assert_array_equal(
        dense(clip, pixels, "kk_mean"), dense(clip, changed, "kk_mean")
    )


SIZES = ((70, 45), (48, 130), (66, 66), (33, 40))
LONGEST = 40  # patches; the photos have 2 to 27


@functools.partial(jax.jit, static_argnames="attention")
def dense_patches(clip, patches, attention):
    return clip.patch_features(patches, attention=attention)


def cut(clip, photos, length=LONGEST):
    """The photos as one batch of sequences with RGB in [0, 1]."""
    side = clip.config.vision.patch_size
    cuts = [cut_patches(photo, side, length) for photo in photos]
    pixels, grids = (np.concatenate(parts) for parts in zip(*cuts, strict=True))
    return Patches(pixels.astype(np.float32) / 255, grids)


def bytes_of(size):
    rng = np.random.default_rng(size)
    return rng.integers(0, 256, (*size, 3), np.uint8)


def test_features_do_not_depend_on_the_padding(any_clip):
    """Photos of several sizes in one batch, each alone, and without padding.

    ``test_dense_clip.py`` has the same for other attentions than the default.
    """
    side = any_clip.config.vision.patch_size
    native = any_clip.config.vision.image_size
    photos = [bytes_of(size) for size in (*SIZES, (native, native))]
    together = np.asarray(dense_patches(any_clip, cut(any_clip, photos), "kk_mean"))
    assert together.shape[:2] == (len(photos), LONGEST)
    for photo, found in zip(photos, together, strict=True):
        alone = dense_patches(any_clip, cut(any_clip, [photo]), "kk_mean")[0]
        np.testing.assert_allclose(found, alone, atol=2e-6)
        pixels = photo[None].astype(np.float32) / 255
        expected = dense(any_clip, pixels, "kk_mean").reshape(-1, found.shape[-1])
        assert len(expected) == (photo.shape[0] // side) * (photo.shape[1] // side)
        np.testing.assert_allclose(found[: len(expected)], expected, atol=2e-6)


@pytest.fixture(scope="module", params=[14, 16, 32])
def any_clip(request):
    """Networks with random weights and patches of several sizes."""
    side = request.param
    vision = ClipVisionConfig(48, 64, 3, 4, image_size=3 * side, patch_size=side)
    text = ClipTextConfig(600, 32, 32, 1, 1)
    return Clip(ClipConfig(text, vision, projection_dim=24), rngs=nnx.Rngs(side))


def test_kk_mean_is_the_default():
    default = inspect.signature(Clip.dense_features).parameters["attention"].default
    assert default == "kk_mean"


def test_attention_weights_are_float32_and_sum_to_one():
    first, second = jax.random.normal(jax.random.key(0), (2, 1, 2, 5, 8), jnp.bfloat16)
    weights = attention_weights(first * 8, second * 8)
    assert weights.dtype == jnp.float32
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)


@one_shape
def test_dense_features_refuses(pair):
    _, clip = pair
    with pytest.raises(ValueError, match=r"'kk'.*vanilla, .*, maskclip"):
        clip.dense_features(jnp.asarray(photo(70, 45)), attention="kk")
    with pytest.raises(ValueError, match="`pixels` is 70 x 5, expected at least one"):
        clip.dense_features(jnp.asarray(photo(70, 5)))


# ---------------------------------------------------------------- text


def test_text_blocks(pair):
    network, clip = pair
    hidden = torch.randn(
        2,
        6,
        network.config.text_config.hidden_size,
        generator=torch.Generator().manual_seed(0),
    )
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    layers = network.text_model.encoder.layers
    for ours, theirs in zip(clip.text_model.encoder.layers, layers, strict=True):
        expected = theirs(hidden, causal[None, None])
        found = call(ours, hidden.numpy(), causal.numpy()[None])
        close(found, expected, TOLERANCE)


def test_encode_text(pair):
    network, clip = pair
    ids = prompts()
    output = network.text_model(torch.tensor(ids))
    close(call(clip.text_model, ids), output.last_hidden_state, TOLERANCE)
    features = network.text_projection(output.pooler_output)
    found = encode(clip, ids)
    assert found.dtype == jnp.float32
    close(found, F.normalize(features, dim=-1), TOLERANCE)


@pytest.mark.parametrize(("eos", "expected"), [(5, [2, 1]), (2, [4, 0])])
def test_pool(eos, expected):
    """At the first end-of-text token; in old configs, at the first highest id."""
    config = ClipTextConfig(10, 4, 4, 1, 1, eos_token_id=eos)
    text_model = nnx.eval_shape(lambda: TextModel(config, rngs=nnx.Rngs(0)))
    ids = jnp.array([[1, 3, 5, 5, 8], [7, 5, 2, 7, 0]])
    hidden = jnp.arange(10.0).reshape(2, 5, 1)
    found = text_model.pool(ids, hidden)
    assert found[:, 0].tolist() == [expected[0], 5 + expected[1]]


def test_padding_never_matters(pair):
    """Neither what it is, nor how much of it there is."""
    _, clip = pair
    ids = prompts(batch=3, tokens=16)
    ids[:, 12:] = EOS
    ids[2, 11] = EOS
    other = ids.copy()
    other[:, 12:] = 5
    expected = encode(clip, ids)
    np.testing.assert_allclose(encode(clip, other), expected, atol=1e-6)
    np.testing.assert_allclose(encode(clip, ids[:, :12]), expected, atol=1e-6)


@one_shape
def test_too_many_tokens(pair):
    _, clip = pair
    with pytest.raises(
        ValueError, match=r"`ids` has 78 tokens a row, expected at most"
    ):
        clip.encode_text(jnp.zeros((1, 78), jnp.int32))


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_text_encoder(tmp_path, prefix):
    network = save_text_encoder(tmp_path, seed=3, prefix=prefix)
    encoder = load_text_encoder(tmp_path)
    ids = prompts(batch=1, tokens=77)
    expected = network(torch.tensor(ids)).last_hidden_state
    close(call(encoder, ids), expected, TOLERANCE)


def test_the_text_half_of_a_whole_clip(tmp_path):
    """As CLIPTextModel of transformers reads it; with a projection, it is left out."""
    network = save_clip(tmp_path, seed=3)
    encoder = load_text_encoder(tmp_path)
    ids = prompts(batch=1)
    expected = network.text_model(torch.tensor(ids)).last_hidden_state
    close(call(encoder, ids), expected, TOLERANCE)


# ---------------------------------------------------------------- types and files


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("bfloat16", 0.03), ("float16", 0.005)]
)
def test_half_precision(tmp_path, dtype, tolerance):
    """Eight and eleven bits of mantissa through three layers: 0.011, 0.0018 seen."""
    save_clip(tmp_path, seed=4)
    full, half = load_clip(tmp_path), load_clip(tmp_path, dtype=jnp.dtype(dtype))
    assert half.text_projection.kernel.dtype == dtype
    for run, arguments in (
        (encode, (prompts(),)),
        (dense, (photo(70, 45), "kk_mean")),
    ):
        found, expected = run(half, *arguments), run(full, *arguments)
        assert found.dtype == jnp.float32
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, expected, atol=tolerance)


def test_old_files_with_position_ids(tmp_path):
    network = save_clip(tmp_path, seed=5)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    tensors["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(tensors, path, metadata={"format": "pt"})
    clip = load_clip(tmp_path)
    assert clip.logit_scale[...] == network.logit_scale.item()


def test_a_missing_tensor_is_named(tmp_path):
    save_clip(tmp_path, seed=5)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["visual_projection.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"visual_projection\.weight: needed"):
        load_clip(tmp_path)
