"""The UNet against diffusers: blocks, attention maps, sizes, and its last layer."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from checkpoints import diffusion
from flax import nnx
from quick import QUICK_COMPILE
from safetensors.torch import load_file, save_file

from dslo_jax.errors import CheckpointError
from dslo_jax.models.unet import UNet, load_unet


_CONTEXT_TOKENS = 5


def _inputs(batch: int, height: int, width: int, channels: int = 24):
    random = np.random.default_rng(11)
    latents = random.standard_normal((batch, height, width, 4))
    context = random.standard_normal((batch, _CONTEXT_TOKENS, channels))
    return latents.astype(np.float32), context.astype(np.float32)


def _prompted(unet: UNet, height: int, width: int):
    """Latents of one photo, and the keys and values of a prompt."""
    latents, context = _inputs(1, height, width)
    return jnp.asarray(latents), unet.keys_values(jnp.asarray(context))


def _maps(unet: UNet, latents, context, *, timestep: int, taps: tuple[str, ...]):
    """Attention maps ``[batch heads tokens tokens]`` of each tap, in float64."""
    graph, state = nnx.split(unet)

    def call(state, latents, context):
        unet = nnx.merge(graph, state)
        given = unet.keys_values(context)
        return unet(latents, given, timestep=timestep, taps=taps)

    with jax.default_matmul_precision("highest"):
        compiled = jax.jit(call, compiler_options=QUICK_COMPILE)
        queries_keys = compiled(state, latents, context)
    maps = {}
    for path, (query, key) in queries_keys.items():
        scores = np.einsum("bqhc,bkhc->bhqk", *(np.float64(x) for x in (query, key)))
        scores = np.exp(scores / np.sqrt(query.shape[-1]))
        maps[path] = scores / scores.sum(-1, keepdims=True)
    return maps


def _error(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def _drive(generator):
    """The output of a block that is run to its end."""
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value


@pytest.mark.parametrize(
    ("options", "sides", "timestep"),
    [
        (
            {
                "channels": (16,),
                "attention": (True,),
                "heads": 4,
                "layers_per_block": 2,
            },
            (5, 7),
            0,
        ),
        # 7 -> 4 and 5 -> 3: doubling overshoots and has to be cut.
        ({"heads": [2, 8], "linear": False, "flip_sin_to_cos": False}, (7, 5), 999),
        # 9 -> 5 -> 3 beside 12 -> 6 -> 3; a level with attention below one without.
        (
            {
                "channels": (8, 16, 16),
                "attention": (True, False, True),
                "heads": [1, 2, 4],
                "freq_shift": 1,
            },
            (9, 12),
            261,
        ),
    ],
)
def test_every_attention_map_equals_diffusers(tmp_path, options, sides, timestep):
    theirs = diffusion.save_unet(tmp_path, seed=1, **options)
    unet = load_unet(tmp_path)
    latents, context = _inputs(2, *sides)
    expected = diffusion.attention_maps(theirs, latents, timestep, context)
    taps = unet.config.taps
    assert sorted(taps) == sorted(expected)
    maps = _maps(unet, latents, context, timestep=timestep, taps=taps)
    for path in taps:
        assert expected[path].max() > 3 / expected[path].shape[-1], "close to uniform"
        # Scores reach 30, so maps lose more digits than features: torch itself is up
        # to 8e-6 away from its own float64 result here.
        assert _error(maps[path], expected[path]) <= 3e-5, path


def test_every_block_equals_diffusers(tmp_path):
    theirs = diffusion.save_unet(tmp_path, seed=2, heads=[2, 4])
    graph, state = nnx.split(load_unet(tmp_path))
    latents, context = _inputs(1, 7, 6)
    names = ["conv_in", "time_embedding", "down_blocks.0", "down_blocks.1"]
    names += ["mid_block", "up_blocks.0", "up_blocks.1"]
    calls = diffusion.record(
        theirs,
        names,
        lambda: theirs(diffusion.to_nchw(latents), 40, torch.from_numpy(context)),
    )
    *_, time = calls["time_embedding"]
    keywords = {name: calls[name][1] for name in names[4:]}
    given = {
        "latents": latents,
        "context": context,
        "time": time.numpy(),
        "down_blocks.0": diffusion.to_nhwc(calls["conv_in"][2]),
        "down_blocks.1": diffusion.to_nhwc(calls["down_blocks.0"][2][0]),
        "mid_block": diffusion.to_nhwc(calls["mid_block"][0][0]),
        "up_blocks.0": diffusion.to_nhwc(keywords["up_blocks.0"]["hidden_states"]),
        "up_blocks.1": diffusion.to_nhwc(keywords["up_blocks.1"]["hidden_states"]),
        "skips": [
            [diffusion.to_nhwc(x) for x in keywords[name]["res_hidden_states_tuple"]]
            for name in ("up_blocks.0", "up_blocks.1")
        ],
    }

    def call(state, given):
        unet = nnx.merge(graph, state)
        time, context = given["time"], unet.keys_values(given["context"])
        found = {
            "conv_in": unet.conv_in(given["latents"]),
            "time_embedding": unet.time_embedding(40),
            "mid_block": _drive(
                unet.mid_block(given["mid_block"], time, context, "mid_block")
            ),
        }
        for i in range(2):
            name = f"down_blocks.{i}"
            block = unet.down_blocks[i]
            found[name] = _drive(block(given[name], time, context, name))[-1]
            name = f"up_blocks.{i}"
            up = unet.up_blocks[i](
                given[name], time, context, name, skips=given["skips"][i], size=(7, 6)
            )
            found[name] = _drive(up)
        return found

    with jax.default_matmul_precision("highest"):
        found = jax.jit(call, compiler_options=QUICK_COMPILE)(state, given)
    assert _error(np.asarray(found.pop("time_embedding")), time.numpy()) <= 2e-5
    for name, ours in found.items():
        output = calls[name][2]
        output = output[0] if isinstance(output, tuple) else output
        assert _error(np.asarray(ours), diffusion.to_nhwc(output)) <= 2e-5, name


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two levels, attention at the first: four taps with the middle block's."""
    folder = tmp_path_factory.mktemp("unet")
    diffusion.save_unet(folder, seed=3)
    return load_unet(folder)


def _traced(unet: UNet, taps: tuple[str, ...]):
    """The primitives that a call runs, and the parameters that they read."""
    graph, state = nnx.split(unet)

    def call(state, latents, context):
        return nnx.merge(graph, state)(latents, context, timestep=0, taps=taps)

    jaxpr = jax.make_jaxpr(call)(state, *_prompted(unet, 4, 4)).jaxpr
    read = {id(variable) for equation in jaxpr.eqns for variable in equation.invars}
    flat = [path for path, _ in nnx.to_flat_state(state)]
    paths = {
        ".".join(map(str, path))
        for path, variable in zip(flat, jaxpr.invars, strict=False)
        if id(variable) in read
    }
    return [equation.primitive.name for equation in jaxpr.eqns], paths


def test_nothing_after_the_last_tap_is_computed(small):
    first, *_, second, last = small.config.taps
    assert first.startswith("down_blocks.0")
    assert second.startswith("up_blocks.1")

    primitives, read = _traced(small, (first,))
    assert primitives.count("conv_general_dilated") == 3  # conv_in, one resnet
    assert "cond" not in primitives  # not even its own scores
    assert {path.split(".")[0] for path in read} == {
        "conv_in",
        "time_embedding",
        "down_blocks",
    }
    assert not any("to_out" in path or "ff" in path for path in read)

    primitives, read = _traced(small, (second,))
    everything, _ = _traced(small, (last,))
    assert len(primitives) < len(everything)
    assert not any(path.startswith("up_blocks.1.resnets.1") for path in read)
    assert any(path.startswith("up_blocks.1.resnets.0") for path in read)


def test_a_tap_holds_queries_and_keys_by_head(small):
    taps = (small.config.taps[2], small.config.taps[0])
    shapes = jax.eval_shape(
        lambda: small(*_prompted(small, 4, 6), timestep=0, taps=taps)
    )
    assert set(shapes) == set(taps)
    assert shapes[taps[1]].query.shape == (1, 24, 2, 8)
    assert shapes[taps[1]].key.shape == (1, 24, 2, 8)


@pytest.mark.parametrize("taps", [(), ("up_blocks.9.attentions.0",)])
def test_unknown_taps_are_refused_with_the_valid_ones(small, taps):
    with pytest.raises(ValueError, match=r"down_blocks\.0\.attentions\.0") as caught:
        small(*_prompted(small, 4, 4), timestep=0, taps=taps)
    assert "`taps`" in str(caught.value)


def test_files_of_every_kind_hold_the_same_network(tmp_path):
    diffusion.save_unet(tmp_path / "half", seed=7, dtype=torch.float16)
    diffusion.save_unet(
        tmp_path / "shards", seed=7, dtype=torch.float16, max_shard_size="40KB"
    )
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    half, shards = (
        dict(nnx.to_flat_state(nnx.state(load_unet(tmp_path / name))))
        for name in ("half", "shards")
    )
    assert half.keys() == shards.keys()
    for path, variable in half.items():
        assert variable.get_value().dtype == jnp.float32
        np.testing.assert_array_equal(variable.get_value(), shards[path].get_value())


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_parameters_compute_in_half_precision(tmp_path, dtype):
    diffusion.save_unet(tmp_path, seed=8)
    unet = load_unet(tmp_path, dtype=dtype)
    shapes = jax.eval_shape(
        lambda: unet(*_prompted(unet, 4, 4), timestep=0, taps=unet.config.taps)
    )
    for query, key in shapes.values():
        assert query.dtype == key.dtype == dtype


def test_a_missing_and_a_foreign_key_are_both_reported(tmp_path):
    diffusion.save_unet(tmp_path, seed=9)
    path = tmp_path / diffusion.WEIGHTS
    tensors = load_file(path)
    tensors["add_embedding.linear_1.weight"] = tensors.pop("conv_in.bias")
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as caught:
        load_unet(tmp_path)
    assert caught.value.code == "W04"
    assert "add_embedding.linear_1.weight" in str(caught.value)
    assert "conv_in.bias" in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"addition_embed_type": "text_time", "transformer_layers_per_block": [1, 2]},
        {"in_channels": 9},
        {"down_block_types": ["CrossAttnDownBlock2D", "AttnDownBlock2D"]},
        {"cross_attention_dim": [24, 32]},
        {"attention_head_dim": [2, 2, 2]},
        {"attention_head_dim": 5},
        {"num_attention_heads": [2, 4]},
        {"layers_per_block": [1, 2]},
        {"only_cross_attention": [True, False]},
        {"time_embedding_dim": 128},
        {"time_cond_proj_dim": 256},
        {"class_embeddings_concat": True},
        {"norm_num_groups": 5},
        {"norm_eps": "1e-5"},
        {"downsample_padding": 0},
        {"_class_name": "FluxTransformer2DModel"},
    ],
)
def test_foreign_architecture_is_told_before_weights_are_read(tmp_path, fields):
    diffusion.save_unet(tmp_path, seed=10)
    diffusion.edit_config(tmp_path, **fields)
    (tmp_path / diffusion.WEIGHTS).unlink()
    with pytest.raises(CheckpointError) as caught:
        load_unet(tmp_path)
    assert caught.value.code == "W06"
    assert str(tmp_path / "config.json") in str(caught.value)
    for field, value in fields.items():
        assert f"{field} = {value!r}" in str(caught.value)


def test_lists_of_equal_values_are_the_same_network(tmp_path):
    """diffusers builds it from the lists, we from what they mean."""
    lists = {
        "only_cross_attention": [False, False],
        "transformer_layers_per_block": [1, 1],
        "layers_per_block": [1, 1],
        "cross_attention_dim": [24, 24],
        "attention_head_dim": [2, 2],
        "time_embedding_dim": 64,
        "act_fn": "swish",
    }
    plain = diffusion.save_unet(tmp_path, seed=13)
    config = {**plain.config, **lists, "_use_default_values": []}
    theirs = diffusion.UNet2DConditionModel.from_config(config).eval()
    theirs.load_state_dict(plain.state_dict())
    theirs.save_config(tmp_path)
    stated = json.loads((tmp_path / "config.json").read_text())
    assert {field: stated[field] for field in lists} == lists
    latents, context = _inputs(1, 6, 6)
    expected = diffusion.attention_maps(theirs, latents, 0, context)
    unet = load_unet(tmp_path)
    maps = _maps(unet, latents, context, timestep=0, taps=unet.config.taps)
    for path, values in expected.items():
        assert _error(maps[path], values) <= 3e-5, path
