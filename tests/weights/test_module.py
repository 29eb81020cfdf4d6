"""Modules that are filled from tensors: exact values, and all faults in one error."""

import tracemalloc
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from dslo_jax.errors import CheckpointError
from dslo_jax.weights import (
    load_module,
    open_weights,
    read_config,
    save_module,
)


class Sample(nnx.Module):
    """One layer of every layout, and a parameter outside any layer."""

    def __init__(self, rngs: nnx.Rngs):
        self.dense = nnx.Linear(3, 5, rngs=rngs)
        self.conv = nnx.Conv(2, 4, (3, 5), rngs=rngs)
        self.norm = nnx.LayerNorm(6, rngs=rngs)
        self.tokens = nnx.Embed(7, 8, rngs=rngs)
        self.logit_scale = nnx.Param(jnp.float32(2.5))
        self.count = nnx.Variable(jnp.arange(3, dtype=jnp.int32))


class Linear(nnx.Module):
    def __init__(self, *, rngs):
        self.dense = nnx.Linear(3, 2, use_bias=False, rngs=rngs)


def weights_of_sample() -> dict[str, np.ndarray]:
    """A tensor for each parameter of ``Sample``, in the layout of the file."""
    shapes = {
        "dense.weight": (5, 3),
        "dense.bias": (5,),
        "conv.weight": (4, 2, 3, 5),
        "conv.bias": (4,),
        "norm.weight": (6,),
        "norm.bias": (6,),
        "tokens.weight": (7, 8),
        "logit_scale": (),
    }
    rng = np.random.default_rng(0)
    weights = {
        key: np.asarray(rng.normal(size=shape), np.float32)
        for key, shape in shapes.items()
    }
    return weights | {"count": np.arange(3, dtype=np.int32)}


def weights_of_linear(**changes) -> dict[str, np.ndarray]:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    return {"dense.weight": values} | changes


def test_a_saved_module_loads_with_identical_weights(tmp_path):
    weights = weights_of_sample()
    save_module(load_module(Sample, weights), tmp_path, {"model_type": "sample"})
    assert read_config(tmp_path) == {"model_type": "sample"}
    loaded = open_weights(tmp_path)
    assert loaded.keys() == weights.keys()
    for key, value in weights.items():
        assert loaded[key].dtype == value.dtype
        assert loaded[key].shape == value.shape
        np.testing.assert_array_equal(loaded[key], value, err_msg=key)


def test_non_floating_parameters_keep_their_type(tmp_path):
    module = load_module(Sample, weights_of_sample(), dtype=jnp.bfloat16)
    assert module.count[...].dtype == jnp.int32
    assert module.dense.kernel[...].dtype == jnp.bfloat16
    save_module(module, tmp_path, {}, dtype=jnp.float16)
    types = {str(value.dtype) for value in open_weights(tmp_path).values()}
    assert types == {"int32", "float16"}


def test_the_layout_is_that_of_torch():
    torch = pytest.importorskip("torch")
    weights = weights_of_sample()
    module = load_module(Sample, weights)
    x = np.random.default_rng(0).normal(size=(1, 5, 6, 2)).astype(np.float32)
    y = torch.nn.functional.conv2d(
        torch.from_numpy(x).permute(0, 3, 1, 2),
        torch.from_numpy(weights["conv.weight"]),
        torch.from_numpy(weights["conv.bias"]),
        padding=(1, 2),
    )
    want = y.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(module.conv(jnp.asarray(x)), want, atol=1e-5)
    want = x[0, 0, :3].T @ weights["dense.weight"].T + weights["dense.bias"]
    got = module.dense(jnp.asarray(x[0, 0, :3].T))
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_saved_clip_is_the_clip_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    clip = pytest.importorskip("dslo_jax.models.clip")
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 2, "projection_dim": 12}
    config = transformers.CLIPConfig(
        text_config=small | {"vocab_size": 50},
        vision_config=small | {"image_size": 16, "patch_size": 8},
        projection_dim=12,
    )
    transformers.set_seed(0)
    source, copy = tmp_path / "source", tmp_path / "copy"
    model = transformers.CLIPModel(config)
    model.save_pretrained(source)
    save_module(clip.load_clip(source), copy, read_config(source))
    again = transformers.CLIPModel.from_pretrained(copy).state_dict()
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(again[key].numpy(), value.numpy(), err_msg=key)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, jnp.bfloat16])
@pytest.mark.parametrize("stored", [jnp.float32, jnp.bfloat16])
def test_every_floating_type_is_converted_once(tmp_path, kind, stored):
    values = np.linspace(-3, 3, 6).reshape(2, 3).astype(kind)
    save_file({"dense.weight": values}, tmp_path / "model.safetensors")
    module = load_module(Linear, open_weights(tmp_path), dtype=stored)
    assert module.dense.kernel.dtype == stored
    np.testing.assert_array_equal(module.dense.kernel[...], values.T.astype(stored))


def test_a_convolution_of_one_pixel_is_a_linear_map():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    module = load_module(Linear, {"dense.weight": values[:, :, None, None]})
    np.testing.assert_array_equal(module.dense.kernel[...], values.T)


def test_parameters_go_to_the_device_and_the_files_are_closed(tmp_path):
    save_module(load_module(Sample, weights_of_sample()), tmp_path, {})
    device = jax.devices()[-1]
    weights = open_weights(tmp_path)
    module = load_module(Sample, weights, device=device)
    assert all(
        leaf.devices() == {device} for leaf in jax.tree.leaves(nnx.state(module))
    )
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(tmp_path) not in maps.read_text()


def test_few_tensors_are_held_on_the_host():
    class Stack(nnx.Module):
        def __init__(self, *, rngs):
            self.blocks = nnx.List(
                nnx.Linear(1024, 1024, use_bias=False, rngs=rngs) for _ in range(12)
            )

    class Made(dict):
        def __getitem__(self, key):
            return np.ones((1024, 1024), np.float16)

    keys = Made.fromkeys(f"blocks.{i}.weight" for i in range(12))
    tracemalloc.start()
    module = load_module(Stack, keys)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The tensor in half and in float32, which of its numbers are finite, the tensor
    # before, which JAX may not have let go yet, and small things. What JAX copied is
    # not traced, and what is transposed it must copy.
    tensor = 1024 * 1024 * 4
    assert peak < 3 * tensor
    assert len(jax.tree.leaves(nnx.state(module))) == 12


def test_all_structural_faults_come_in_one_error():
    weights = {
        "dense.weight": np.zeros((5, 4), np.float32),
        "conv.weight": np.zeros((4, 2, 3, 5), np.int8),
        "conv.bias": np.zeros(4, np.float32),
        "norm.weight": np.full(6, np.nan, np.float32),
        "norm.bias": np.zeros(6, np.float32),
        "token.weight": np.zeros((7, 8), np.float32),
        "logit_scale": np.zeros((), np.float32),
        "count": np.zeros(3, np.int64),
    }
    with pytest.raises(CheckpointError) as caught:
        load_module(Sample, weights)
    text = str(caught.value)
    assert caught.value.code == "W04"
    assert "dense.weight: shape (5, 4) in the file, (5, 3) in the network" in text
    assert "conv.weight: int8 in the file, float32 in the network" in text
    assert "dense.bias: needed by the network" in text
    assert "tokens.weight: needed by the network" in text
    assert "token.weight: in the file, unknown to the network" in text
    assert "norm.weight: 6 of 6 are NaN or infinite" in text
    assert len(text.splitlines()) == 7


def test_many_faults_are_counted():
    weights = weights_of_linear(**{f"extra.{i}": np.zeros(1) for i in range(20)})
    with pytest.raises(CheckpointError, match="and 8 more"):
        load_module(Linear, weights)


def test_ignored_keys_are_a_written_list():
    weights = weights_of_linear(position_ids=np.arange(3))
    with pytest.raises(CheckpointError, match="position_ids: in the file"):
        load_module(Linear, weights)
    with pytest.raises(CheckpointError, match="position_ids: in the file"):
        load_module(Linear, weights, ignored=(r"position",))  # the whole key must match
    load_module(Linear, weights, ignored=(r"position_.*",))


def test_a_rename_may_not_fill_a_parameter_twice():
    weights = weights_of_linear(**{"old.weight": np.zeros((2, 3), np.float32)})
    with pytest.raises(
        CheckpointError, match=r"old.weight: the same parameter as dense"
    ):
        load_module(Linear, weights, rename=lambda key: key.replace("old", "dense"))


def test_non_finite_weights_are_named_and_counted():
    weights = weights_of_linear()
    weights["dense.weight"][0, :2] = np.nan, np.inf
    with pytest.raises(
        CheckpointError, match=r"dense.weight: 2 of 6 are NaN"
    ) as caught:
        load_module(Linear, weights)
    assert caught.value.code == "W07"


def test_an_overflow_of_the_conversion_is_found():
    weights = weights_of_linear()
    weights["dense.weight"][0, 0] = 1e6
    with pytest.raises(CheckpointError, match="1 of 6 overflow float16") as caught:
        load_module(Linear, weights, dtype=jnp.float16)
    assert caught.value.code == "W07"
    load_module(Linear, weights, dtype=jnp.bfloat16)
