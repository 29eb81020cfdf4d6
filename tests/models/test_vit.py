"""DINO, DINOv2, registers and CLIP as sources of attention, against transformers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checkpoints.clip import save_clip
from checkpoints.vit import KINDS, NETWORKS, save_vit
from flax import nnx
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModel

from dslo_jax.errors import CheckpointError
from dslo_jax.models.clip_vision import load_vision
from dslo_jax.models.vit import Vit, load_vit
from dslo_jax.models.vit_config import VitConfig


TOLERANCE = 2e-5  # float32, as for CLIP
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
# The grid of training (5 x 5), a larger one, and one that is both smaller and larger,
# with a remainder.
SIZES = [(40, 40), (72, 72), (29, 63)]
# What the files on the Hub say, as far as it matters here.
PUBLISHED = {
    "vit": {"image_size": 224, "patch_size": 8, "layer_norm_eps": 1e-12},
    "dinov2": {"image_size": 518, "patch_size": 14, "mlp_ratio": 4},
    "dinov2_with_registers": {
        **{"image_size": 518, "patch_size": 14, "num_register_tokens": 4},
    },
    "giant": {
        **{"image_size": 518, "patch_size": 14, "use_swiglu_ffn": True},
        **{"hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24},
    },
}
# The MLP of DINOv2-giant.
GATED = {"use_swiglu_ffn": True, "mlp_ratio": 5}


@pytest.fixture(scope="module", params=[*KINDS, "giant", "giant_with_registers"])
def pair(request, tmp_path_factory):
    """The same checkpoint in torch and in NNX."""
    folder = tmp_path_factory.mktemp(request.param)
    kind = request.param.replace("giant", "dinov2")
    fields = {} if kind == request.param else GATED
    network = save_vit(folder, kind, seed=KINDS.index(kind), **fields)
    return network, load_vit(folder)


def photo(height, width):
    rng = np.random.default_rng(height * 1000 + width)
    return rng.random((2, height, width, 3), np.float32)


def attentions(module, pixels, wanted):
    """Of all heads of some blocks, patches by all tokens."""

    @jax.jit
    def call(module, pixels):
        return [
            jax.nn.softmax(
                jnp.einsum("bqhc,bkhc->bhqk", *pair) / pair.query.shape[-1] ** 0.5
            )
            for pair in module.queries_keys(pixels, wanted)
        ]

    with jax.default_matmul_precision("highest"):
        return call(module, pixels)


def torch_attentions(network, pixels, mean, std):
    """The attention of every block: ``[batch heads tokens tokens]``."""
    normalised = torch.from_numpy((pixels - mean) / std).permute(0, 3, 1, 2)
    options = {"output_attentions": True}
    if network.config.model_type != "dinov2_with_registers":
        options["interpolate_pos_encoding"] = True
    if network.config.model_type == "dinov2":
        del options["interpolate_pos_encoding"]  # it always does
    with torch.inference_mode():
        return [each.numpy() for each in network(normalised, **options).attentions]


def close(found, expected):
    assert found.shape == expected.shape
    assert np.abs(np.asarray(found) - expected).max() <= TOLERANCE * expected.max()


@pytest.mark.parametrize("size", SIZES)
def test_attention_equals_transformers(pair, size):
    network, vit = pair
    pixels = photo(*size)
    expected = torch_attentions(network, pixels, MEAN, STD)[-1]
    assert expected.shape[-1] == (size[0] // 8) * (size[1] // 8) + vit.others
    close(*attentions(vit, pixels, (2,)), expected[:, :, vit.others :])
    assert expected.max() > 5 / expected.shape[-1], "close to uniform"


@pytest.mark.parametrize("depth", [1, 5])
def test_gated_blocks_of_other_depths_equal_transformers(tmp_path, depth):
    """Two thirds of 5 x 22 channels are rounded twice: down to 73, up to 80."""
    network = save_vit(tmp_path, "dinov2", seed=depth, shape=(depth, 22, 2), **GATED)
    pixels = photo(29, 63)
    expected = torch_attentions(network, pixels, MEAN, STD)
    wanted = tuple(range(depth))
    for found, theirs in zip(
        attentions(load_vit(tmp_path), pixels, wanted), expected, strict=True
    ):
        close(found, theirs[:, :, 1:])


def test_registers_are_no_patches(pair):
    network, vit = pair
    expected = {"vit": 1, "dinov2": 1, "dinov2_with_registers": 4}
    assert vit.others == expected[network.config.model_type]


def inflated_positions(embeddings, height, width):
    """Bicubic in torch with the scale inflated by 0.1; DINO's way, and our CLIP's."""
    trained, side = embeddings.position_embedding.weight, 4
    grid = trained[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = tuple((length // 16 + 0.1) / side for length in (height, width))
    grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
    return torch.cat([trained[:1], grid[0].permute(1, 2, 0).flatten(0, 1)])[None]


@pytest.mark.parametrize("size", [(64, 64), (96, 80)])
def test_attention_of_clip_equals_transformers(tmp_path, size, monkeypatch):
    """Away from 4 x 4 patches transformers samples the positions without the 0.1 that
    published numbers of CLIP rest on; so the oracle is told to."""
    whole = save_clip(tmp_path, seed=4)
    whole.set_attn_implementation("eager")
    embeddings = whole.vision_model.embeddings
    if size != (64, 64):
        monkeypatch.setattr(
            embeddings,
            "interpolate_pos_encoding",
            lambda _, height, width: inflated_positions(embeddings, height, width),
        )
    pixels = photo(*size)
    expected = torch_attentions(whole.vision_model, pixels, CLIP_MEAN, CLIP_STD)
    vision = load_vision(tmp_path)
    first, last = attentions(vision, pixels, (0, 2))
    close(first, expected[0][:, :, 1:])
    close(last, expected[2][:, :, 1:])


def poisoned(module, path):
    """The module with NaN in the parameters below a path."""
    graph, state = nnx.split(module)
    flat = [
        (place, leaf.replace(leaf.get_value() * jnp.nan))
        if ".".join(map(str, place)).startswith(path)
        else (place, leaf)
        for place, leaf in nnx.to_flat_state(state)
    ]
    return nnx.merge(graph, nnx.from_flat_state(flat))


def test_nothing_after_the_last_wanted_layer_is_computed(pair):
    _, vit = pair
    pixels = photo(40, 40)
    wanted = attentions(vit, pixels, (1, 0))
    for path in ("layers.2.", "layers.1.mlp", "layers.1.self_attn.v_proj"):
        vit = poisoned(vit, path)
    for found, expected in zip(attentions(vit, pixels, (1, 0)), wanted, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert np.isnan(attentions(vit, pixels, (2,))[0]).all()


def test_one_head_is_held_at_a_time():
    config = VitConfig(
        **{"hidden_size": 24, "intermediate_size": 24, "num_hidden_layers": 3},
        **{"num_attention_heads": 6, "image_size": 256, "patch_size": 8},
    )
    graph, state = nnx.split(nnx.eval_shape(lambda: Vit(config, rngs=nnx.Rngs(0))))

    def call(state, pixels):
        return nnx.merge(graph, state).queries_keys(pixels, (2,))

    pixels = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    memory = jax.jit(call).lower(state, pixels).compile().memory_analysis()
    head = 4 * (32 * 32 + 1) ** 2
    assert memory.temp_size_in_bytes < 3 * head  # scores, weights, and small change


def test_half_precision(tmp_path):
    save_vit(tmp_path, "dinov2_with_registers", seed=1)
    vit = load_vit(tmp_path, dtype=jnp.bfloat16)
    half = {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(vit))} == half
    found = nnx.eval_shape(
        lambda vit: vit.queries_keys(jnp.zeros((1, 40, 40, 3)), (0,)), vit
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == half


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "giant" else name
        for name in PUBLISHED
    ],
)
def test_full_size_networks_have_the_parameters_of_transformers(name):
    """By their number: nothing is allocated."""
    kind = name.replace("giant", "dinov2")
    config_type, network_type, _ = NETWORKS[kind]
    with torch.device("meta"):
        theirs = network_type(config_type(**PUBLISHED[name]))
    unused = ("layernorm.", "pooler.", "embeddings.mask_token")
    expected = sum(
        value.numel()
        for name, value in theirs.named_parameters()
        if not name.startswith(unused)
    )
    values = config_type(**PUBLISHED[name]).to_dict()
    config = VitConfig.from_dict(json.loads(json.dumps(values, default=str)))
    assert config.layer_norm_eps == (1e-12 if kind == "vit" else 1e-6)
    ours = nnx.state(nnx.eval_shape(lambda: Vit(config, rngs=nnx.Rngs(0))))
    assert sum(leaf.size for leaf in jax.tree.leaves(ours)) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_config_leaves_out_is_what_transformers_assumes(kind):
    config = VitConfig.from_dict({"model_type": kind})
    theirs = NETWORKS[kind][0]()
    for field in ("hidden_size", "patch_size", "image_size", "layer_norm_eps"):
        assert getattr(config, field) == getattr(theirs, field)
    assert config.intermediate_size == 3072
    assert config.num_register_tokens == getattr(theirs, "num_register_tokens", 0)


# ---- loading -------------------------------------------------------------------------


def change_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"use_swiglu_ffn": 1}, "use_swiglu_ffn = 1"),
        ({"qkv_bias": False}, "qkv_bias = False"),
        ({"model_type": "beit"}, "wants one of vit, dinov2, dinov2_with_registers"),
        ({"model_type": ["vit"]}, r"model_type = \['vit'\]"),
        ({"num_channels": 4}, "num_channels = 4"),
        ({"hidden_act": "silu"}, "hidden_act = 'silu'"),
        ({"patch_size": [14, 16]}, r"patch_size = \[14, 16\]"),
        ({"mlp_ratio": 2.5}, "mlp_ratio = 2.5"),
        ({"num_attention_heads": 5}, "num_attention_heads = 5"),
    ],
)
def test_another_architecture_is_told_before_weights_are_read(tmp_path, fields, words):
    save_vit(tmp_path, "dinov2", seed=1)
    (tmp_path / "model.safetensors").unlink()
    change_config(tmp_path, **fields)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_vit(tmp_path)
    assert caught.value.code == "W06"
    assert str(tmp_path / "config.json") in str(caught.value)


def test_lists_of_equal_values_and_whole_floats():
    plain = {"model_type": "dinov2", "patch_size": 14, "image_size": 518}
    lists = {"patch_size": [14, 14], "image_size": [518, 518], "mlp_ratio": 4.0}
    assert VitConfig.from_dict(plain | lists) == VitConfig.from_dict(plain)
    squares = {"patch_size": {"height": 14, "width": 14}, "hidden_size": 768.0}
    assert VitConfig.from_dict(plain | squares) == VitConfig.from_dict(plain)


def test_pixels_follow_the_folder(tmp_path):
    save_vit(tmp_path, "dinov2", seed=1)
    stated = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    file = tmp_path / "processor_config.json"
    file.write_text(json.dumps({"image_processor": stated}))
    assert load_vit(tmp_path).config.pixel_mean == (0.1, 0.2, 0.3)


def change_weights(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda tensors: tensors.pop("encoder.layer.1.layer_scale1.lambda1"),
            "layers.1.self_attn.layer_scale",
        ),
        (
            lambda tensors: tensors.update(surplus=torch.zeros(1)),
            "surplus",
        ),
        (
            lambda tensors: tensors.update({"embeddings.cls_token": torch.zeros(24)}),
            "embeddings.cls_token",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, words):
    save_vit(tmp_path, "dinov2", seed=1)
    change_weights(tmp_path, change)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_vit(tmp_path)
    assert caught.value.code == "W04"


def test_a_classifier_around_the_network_is_left_out(tmp_path):
    save_vit(tmp_path / "plain", "dinov2", seed=1)
    save_vit(tmp_path / "whole", "dinov2", seed=1)

    def wrap(tensors):
        for name in list(tensors):
            tensors[f"dinov2.{name}"] = tensors.pop(name)
        tensors["classifier.weight"] = torch.zeros(2, 48)

    change_weights(tmp_path / "whole", wrap)
    plain, whole = (nnx.state(load_vit(tmp_path / name)) for name in ("plain", "whole"))
    jax.tree.map(np.testing.assert_array_equal, plain, whole)


def test_a_clip_without_words_is_enough(tmp_path):
    """As transformers' CLIPVisionModel saves it, or its variant with a projection."""
    save_clip(tmp_path / "whole", seed=1)
    theirs = CLIPVisionModel.from_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "half")
    stated = json.loads((tmp_path / "half" / "config.json").read_text())
    assert stated["model_type"] == "clip_vision_model"
    projection = {"visual_projection.weight": torch.zeros(5, 48)}
    change_weights(tmp_path / "half", lambda tensors: tensors.update(projection))
    states = [nnx.state(load_vision(tmp_path / name)) for name in ("whole", "half")]
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_half_of_a_clip_is_enough(tmp_path):
    save_clip(tmp_path, seed=1)
    names = {
        ".".join(map(str, path))
        for path, _ in nnx.to_flat_state(nnx.state(load_vision(tmp_path)))
    }
    assert not any("text" in name or "projection" in name for name in names)
    change_weights(
        tmp_path, lambda tensors: tensors.pop("vision_model.pre_layrnorm.weight")
    )
    with pytest.raises(CheckpointError, match="pre_layrnorm"):
        load_vision(tmp_path)
