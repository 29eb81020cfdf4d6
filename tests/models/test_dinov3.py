"""DINOv3 as a source of attention, against transformers."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from checkpoints.vit import save_vit
from flax import nnx
from quick import QUICK_COMPILE
from safetensors.torch import load_file, save_file

from dslo_jax.errors import CheckpointError
from dslo_jax.models.dinov3 import load_dinov3
from dslo_jax.models.dinov3_config import Dinov3Config


TOLERANCE = 2e-5  # float32, as for the other vision transformers
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
# Square, and two sizes that are no whole number of patches and not square.
SIZES = [(40, 40), (29, 63), (75, 24)]
# Names of fields and values as in published files; sizes are of the ViT-B/16 and, with
# gates, of the ViT-H+/16 (huggingface/transformers, convert_dinov3_vit_to_hf.py).
PUBLISHED = {
    "architectures": ["DINOv3ViTModel"],
    "attention_dropout": 0.0,
    "drop_path_rate": 0.0,
    "hidden_act": "gelu",
    "hidden_size": 768,
    "image_size": 224,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "key_bias": False,
    "layer_norm_eps": 1e-05,
    "layerscale_value": 1.0,
    "mlp_bias": True,
    "model_type": "dinov3_vit",
    "num_attention_heads": 12,
    "num_channels": 3,
    "num_hidden_layers": 12,
    "num_register_tokens": 4,
    "patch_size": 16,
    "pos_embed_jitter": None,
    "pos_embed_rescale": 2.0,
    "pos_embed_shift": None,
    "proj_bias": True,
    "query_bias": True,
    "rope_theta": 100.0,
    "use_gated_mlp": False,
    "value_bias": True,
}
VARIANTS = {
    "plain": {},
    "gated": {
        **{"use_gated_mlp": True, "hidden_act": "silu", "intermediate_size": 40},
        **{"query_bias": False, "value_bias": False},
    },
    "unusual": {
        **{"num_register_tokens": 0, "rope_theta": 37.0, "key_bias": True},
        **{"proj_bias": False, "mlp_bias": False, "layer_norm_eps": 1e-6},
    },
}


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request, tmp_path_factory):
    """The same checkpoint in torch and in NNX."""
    folder = tmp_path_factory.mktemp(request.param)
    fields = {"shape": (3, 48, 3), **VARIANTS[request.param]}
    return save_vit(folder, "dinov3_vit", seed=4, **fields), load_dinov3(folder)


@partial(jax.jit, static_argnums=2, compiler_options=QUICK_COMPILE)
def attentions(module, pixels, wanted):
    """Of all heads of some blocks, patches by all tokens."""
    return [
        jax.nn.softmax(
            jnp.einsum("bqhc,bkhc->bhqk", *pair) / pair.query.shape[-1] ** 0.5
        )
        for pair in module.queries_keys(pixels, wanted)
    ]


@pytest.mark.parametrize("size", SIZES)
def test_attention_equals_transformers(pair, size):
    """Of every block, after the rotation; asked for in another order."""
    network, ours = pair
    pixels = np.random.default_rng(3).random((2, *size, 3), np.float32)
    normalised = torch.from_numpy((pixels - MEAN) / STD).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = network(normalised, output_attentions=True).attentions
    with jax.default_matmul_precision("highest"):
        found = attentions(ours, pixels, (2, 0, 1))
    assert ours.others == 1 + network.config.num_register_tokens
    for index, layer in zip((2, 0, 1), found, strict=True):
        theirs = expected[index][:, :, ours.others :].numpy()
        assert layer.shape == theirs.shape
        assert np.abs(np.asarray(layer) - theirs).max() <= TOLERANCE * theirs.max()
        assert theirs.max() > 3 / theirs.shape[-1], "close to uniform"


def test_half_precision_rotates_in_float32(pair):
    _, ours = pair
    graph, state = nnx.split(ours)
    state = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state)
    pixels = jnp.zeros((1, 40, 24, 3))
    (found,) = nnx.merge(graph, state).queries_keys(pixels, (0,))
    assert found.query.dtype == found.key.dtype == jnp.bfloat16
    assert found.query.shape == (1, 15, 3, 16)
    assert found.key.shape == (1, 15 + ours.others, 3, 16)


def test_what_a_published_config_means():
    found = Dinov3Config.from_dict(json.loads(json.dumps(PUBLISHED)))
    sizes = (768, 3072, 12, 12, 3, 224, 16, "gelu", 1e-5)
    assert found == Dinov3Config(*sizes, num_register_tokens=4)
    assert Dinov3Config.from_dict({**PUBLISHED, "model_type": None}) == found
    # What transformers assumes where a field is left out.
    assert Dinov3Config.from_dict({"model_type": "dinov3_vit"}) == Dinov3Config()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "dinov2"}, "model_type = 'dinov2'.*dinov3_vit"),
        ({"hidden_act": "quick_gelu"}, "hidden_act = 'quick_gelu'.*gelu or silu"),
        ({"use_gated_mlp": 1}, "use_gated_mlp = 1"),
        ({"key_bias": "no"}, "key_bias = 'no'"),
        ({"num_attention_heads": 5}, "num_attention_heads = 5"),
        ({"num_attention_heads": 24}, "multiple of 4; hidden_size is 48"),
        ({"patch_size": [16, 14]}, "patch_size"),
        ({"rope_theta": 0}, "rope_theta = 0"),
    ],
)
def test_another_architecture_is_told_before_weights_are_read(tmp_path, fields, words):
    save_vit(tmp_path, "dinov3_vit", seed=1, shape=(1, 48, 3))
    (tmp_path / "model.safetensors").unlink()
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    with pytest.raises(CheckpointError, match=words) as caught:
        load_dinov3(tmp_path)
    assert caught.value.code == "W06"


def test_both_spellings_of_the_blocks_are_read(tmp_path):
    """Published files say layer.0; transformers 5 itself says model.layer.0."""
    states = []
    for old, new in (("model.layer.", "layer."), ("layer.", "model.layer.")):
        save_vit(tmp_path, "dinov3_vit", seed=1, shape=(1, 48, 3))
        path = tmp_path / "model.safetensors"
        tensors = {
            key if key.startswith(new) else key.replace(old, new, 1): value
            for key, value in load_file(path).items()
        }
        assert any(key.startswith(f"{new}0.norm1") for key in tensors)
        save_file(tensors, path)
        states.append(nnx.state(load_dinov3(tmp_path)))
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_pixels_follow_the_folder(tmp_path):
    """The networks for satellite photos have statistics of their own."""
    save_vit(tmp_path, "dinov3_vit", seed=1, shape=(1, 48, 3))
    stated = {"image_mean": [0.43, 0.411, 0.296], "image_std": [0.213, 0.156, 0.143]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
    config = load_dinov3(tmp_path).config
    assert config.pixel_mean == (0.43, 0.411, 0.296)
    assert config.pixel_std == (0.213, 0.156, 0.143)
