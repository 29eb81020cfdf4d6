"""Affinities of photos against diffusers and transformers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from checkpoints import diffusion
from checkpoints.clip import save_clip
from checkpoints.vit import save_vit
from flax import nnx
from quick import QUICK_COMPILE

from dslo_jax import empty_prompt
from dslo_jax.attention import (
    AffinityOptions,
    AffinitySource,
    DiffusionAffinity,
    TransformerAffinity,
    downscaling_of,
    fitting_size,
    load_affinity,
)
from dslo_jax.errors import CheckpointError, OptionError


@pytest.fixture(scope="module")
def source(pipeline, tmp_path_factory):
    """That pipeline as an affinity source of 16 x 16 pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSLO_CACHE", str(tmp_path_factory.mktemp("cache")))
        return load_affinity(pipeline[0], options=AffinityOptions(size=16))


@pytest.mark.parametrize("version", [1, 2])
def test_affinity_equals_diffusers(pipeline, version, tmp_path):
    """Of folders like those of Stable Diffusion 1 and 2."""
    folder, (vae, unet, text_encoder) = pipeline
    if version == 1:
        folder = tmp_path
        parts = diffusion.save_pipeline(folder, seed=23, version=1)
        vae, unet, text_encoder = parts
    source = load_affinity(folder, options=AffinityOptions(size=24, timestep=3))
    assert source.grid == (12, 12)
    pixels = np.random.default_rng(2).uniform(size=(2, 24, 24, 3)).astype(np.float32)

    ids = torch.full((1, 77), int(_pad_id(folder)))
    ids[0, :2] = torch.tensor(_start_and_end(folder))
    with torch.inference_mode():
        context = text_encoder(ids).last_hidden_state.numpy()
    prompt = empty_prompt.load_empty_prompt(folder)
    np.testing.assert_allclose(prompt, context, atol=2e-5)
    latents = diffusion.latents_of(vae, 2 * pixels - 1)
    maps = diffusion.attention_maps(unet, latents, 3, np.repeat(context, 2, axis=0))
    expected = sum(
        0.5 * maps[f"up_blocks.1.attentions.{i}.transformer_blocks.0.attn1"].mean(1)
        for i in range(2)
    )

    graph, state = nnx.split(source)

    def call(state, pixels):
        source = nnx.merge(graph, state)
        latents = source.encode(pixels)
        return latents, source.attend(latents)

    with jax.default_matmul_precision("highest"):
        compiled = jax.jit(call, compiler_options=QUICK_COMPILE)
        found, affinity = map(np.asarray, compiled(state, pixels))
    assert np.abs(found - latents).max() <= 1e-5 * np.abs(latents).max()
    assert np.abs(affinity - expected).max() <= 5e-5 * expected.max()
    assert expected.max() > 5 / 144, "close to uniform"
    shape = jax.eval_shape(source, jax.ShapeDtypeStruct(pixels.shape, jnp.float32))
    assert shape.shape == affinity.shape


def test_layers_and_half_precision_are_options(pipeline):
    folder, _ = pipeline
    layers = (("down_blocks.0.attentions.0", 1.0), ("up_blocks.1.attentions.1", 2.0))
    options = AffinityOptions(size=8, layers=layers)
    source = load_affinity(folder, options=options, dtype=jnp.bfloat16)
    assert source.options == options
    kept = jax.tree.leaves(source.context.get_value())
    assert {array.dtype for array in kept} == {jnp.dtype(jnp.bfloat16)}
    affinity = jax.eval_shape(source, jax.ShapeDtypeStruct((3, 8, 8, 3), jnp.float32))
    assert affinity.shape == (3, 16, 16)
    assert affinity.dtype == jnp.float32


def test_other_options_share_the_networks_and_the_prompt(source):
    other = source.with_options(AffinityOptions(size=8, timestep=7))
    assert (other.grid, other.options.timestep) == ((4, 4), 7)
    assert other.unet is source.unet
    assert other.context is source.context
    assert source.grid == (8, 8), "the first one is unchanged"


def test_the_prompt_is_not_projected_again(source):
    """No photo reads the maps from the prompt to its keys and values."""
    graph, state = nnx.split(source)
    latents = jnp.zeros((1, 8, 8, 4))
    jaxpr = jax.make_jaxpr(lambda state: nnx.merge(graph, state).attend(latents))(state)
    read = {id(x) for equation in jaxpr.jaxpr.eqns for x in equation.invars}
    names = jax.tree_util.tree_flatten_with_path(state)[0]
    paths = {
        jax.tree_util.keystr(path)
        for (path, _), variable in zip(names, jaxpr.jaxpr.invars, strict=True)
        if id(variable) in read
    }
    attended = [path for path in paths if "attn2" in path]
    assert any("to_q" in path for path in attended)
    assert not any("'to_k'" in path or "'to_v'" in path for path in attended)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size": 9}, "affinity_size = 9 is not a multiple of 2"),
        ({"timestep": 1000}, r"timestep = 1000 is out of range; expected \[0, 999\]"),
        ({"temperature": 0.0}, "affinity_temperature = 0.0 is out of range"),
        (
            {"layers": (("mid_block.attentions.0", 1.0),)},
            r"affinity_layers names .*mid_block.*up_blocks\.1\.attentions\.0",
        ),
        (
            {"layers": (("up_blocks.1.attentions.0", -1.0),)},
            r"`weights` is \(-1\.0,\)",
        ),
        (
            {"layers": (("up_blocks.1.attentions.0", 1.0),) * 2},
            "affinity_layers names .*expected different names",
        ),
    ],
)
def test_senseless_options_are_refused(source, options, named):
    context = jnp.zeros((1, 77, 32))
    with pytest.raises(OptionError, match=named) as caught:
        DiffusionAffinity(source.vae, source.unet, context, AffinityOptions(**options))
    assert caught.value.code == "O01"
    with pytest.raises(OptionError, match=named):
        source.with_options(AffinityOptions(**options))


def test_photos_of_another_size_are_refused(source):
    with pytest.raises(ValueError, match="16 x 16"):
        source(jnp.zeros((1, 24, 24, 3)))


def test_foreign_networks_are_told_before_weights_are_read(tmp_path):
    diffusion.save_vae(tmp_path / "vae", seed=1)
    diffusion.save_unet(tmp_path / "unet", seed=1)
    diffusion.edit_config(tmp_path / "vae", latent_channels=16)
    (tmp_path / "vae" / diffusion.WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="latent_channels") as caught:
        load_affinity(tmp_path)
    assert caught.value.code == "W06"


def test_context_of_another_width_is_refused(tmp_path):
    diffusion.save_vae(tmp_path / "vae", seed=1)
    diffusion.save_unet(tmp_path / "unet", seed=1, context_channels=24)
    context = np.zeros((1, 77, 32), np.float32)
    empty_prompt.save_empty_prompt(context, tmp_path / empty_prompt.FILE_NAME)
    with pytest.raises(CheckpointError, match="cross_attention_dim 24") as caught:
        load_affinity(tmp_path)
    assert caught.value.code == "W06"


@pytest.fixture(scope="module")
def registers(tmp_path_factory):
    """A folder with a DINOv2 with registers, and the network that is in it."""
    folder = tmp_path_factory.mktemp("registers")
    return folder, save_vit(folder, "dinov2_with_registers", seed=3)


def test_affinity_of_a_transformer_equals_transformers(registers):
    """Heads averaged, class token and registers dropped, rows divided by their sum."""
    folder, network = registers
    source = load_affinity(folder, options=AffinityOptions(size=56))
    assert isinstance(source, TransformerAffinity)
    assert source.grid == (7, 7)
    assert source.options.layers == (("layers.2", 1.0),)
    pixels = np.random.default_rng(2).uniform(size=(2, 56, 56, 3)).astype(np.float32)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    normalised = torch.from_numpy((pixels - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        attentions = network(normalised, output_attentions=True).attentions
    expected = attentions[-1].double().mean(dim=1)[:, 4:, 4:].numpy()
    expected /= expected.sum(-1, keepdims=True)
    with jax.default_matmul_precision("highest"):
        affinity = np.asarray(jax.jit(lambda source, x: source(x))(source, pixels))
    assert np.abs(affinity - expected).max() <= 2e-5 * expected.max()
    assert expected.max() > 5 / 49, "close to uniform"


def test_other_choices_share_the_network(registers):
    source = load_affinity(registers[0], options=AffinityOptions(size=40))
    layers = (("layers.0", 1.0), ("layers.2", 3.0))
    options = AffinityOptions(size=64, layers=layers, temperature=0.5)
    other = source.with_options(options)
    assert other.options == options
    assert other.network is source.network
    assert other.encoding != source.encoding
    shape = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    encoded = jax.eval_shape(other.encode, shape)
    assert [pair.query.shape for pair in encoded] == [(1, 64, 3, 8)] * 2
    assert [pair.key.shape for pair in encoded] == [(1, 68, 3, 8)] * 2
    assert jax.eval_shape(other, shape).shape == (1, 64, 64)
    with pytest.raises(ValueError, match="64 x 64"):
        other.encode(jnp.zeros((1, 40, 40, 3)))


def test_affinity_of_a_dinov3_equals_transformers(tmp_path):
    network = save_vit(tmp_path, "dinov3_vit", seed=3, shape=(2, 24, 3))
    source = load_affinity(tmp_path, options=AffinityOptions(size=56, layers=(0, "-1")))
    assert (source.grid, source.downscaling) == ((7, 7), downscaling_of(tmp_path))
    assert source.options.layers == (("layers.0", 1.0), ("layers.1", 1.0))
    pixels = np.random.default_rng(2).uniform(size=(2, 56, 56, 3)).astype(np.float32)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    normalised = torch.from_numpy((pixels - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        attentions = network(normalised, output_attentions=True).attentions
    expected = sum(each.double().mean(dim=1)[:, 5:, 5:].numpy() for each in attentions)
    expected /= expected.sum(-1, keepdims=True)
    with jax.default_matmul_precision("highest"):
        affinity = np.asarray(jax.jit(lambda source, x: source(x))(source, pixels))
    assert np.abs(affinity - expected).max() <= 2e-5 * expected.max()
    assert set(source.work()) == {"vit", "aggregation"}


def test_a_dinov3_without_attention_is_refused(tmp_path):
    """The variants that are convolutional networks."""
    (tmp_path / "config.json").write_text('{"model_type": "dinov3_convnext"}')
    with pytest.raises(CheckpointError, match="no self-attention; take a vision") as e:
        load_affinity(tmp_path)
    assert e.value.code == "W06"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise_seed": 0}, "noise_seed = 0.*leave it at -1"),
        ({"size": 60}, "affinity_size = 60 is not a multiple of 8.*use 64"),
        ({"size": 100}, "use 64 or 128"),
        ({"timestep": 100}, "timestep = 100.*leave it at 0"),
        ({"layers": (("up_blocks.1.attentions.0", 1.0),)}, r"layers.0 ... layers.2"),
        ({"layers": (("layers.1", 1.0), ("layers.1", 2.0))}, "name each once"),
        (
            {"layers": (("layers.1", -1.0),)},
            r"`weights` is \(-1\.0,\)",
        ),
    ],
)
def test_choices_that_no_transformer_has_are_refused(registers, options, words):
    options = AffinityOptions(**{"size": 40, **options})
    with pytest.raises(OptionError, match=words) as caught:
        load_affinity(registers[0], options=options)
    assert caught.value.code == "O01"


def test_sizes_that_fit_are_near():
    assert [fitting_size(64 * patch, patch) for patch in (8, 14, 16)] == [
        512,
        896,
        1024,
    ]
    assert fitting_size(16 * 14, 14) == 448  # 224 is no multiple of 64
    assert fitting_size(16, 16) == 64


def test_a_clip_is_a_source_as_well(tmp_path):
    save_clip(tmp_path, seed=1)
    options = AffinityOptions(size=64)
    source = load_affinity(tmp_path, options=options, dtype=jnp.bfloat16)
    assert source.grid == (4, 4)
    affinity = jax.eval_shape(source, jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))
    assert (affinity.shape, affinity.dtype) == ((1, 16, 16), jnp.float32)


def test_a_folder_says_what_it_is(pipeline, registers, tmp_path):
    source = load_affinity(pipeline[0], options=AffinityOptions(size=16, timestep=3))
    assert isinstance(source, DiffusionAffinity)
    assert isinstance(source, AffinitySource)
    assert source.options.timestep == 3
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(CheckpointError, match=r"W01.*is empty; expected.*dinov2"):
        load_affinity(folder)
    (folder / "notes.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"W01.*holds notes.txt; expected.*unet/"):
        load_affinity(folder)
    (folder / "config.json").write_text('{"model_type": "swin"}')
    with pytest.raises(CheckpointError, match=r"W06.*'swin'; expected.*clip, vit"):
        load_affinity(folder)


def test_pixels_per_patch_are_known_before_anything_is_loaded(
    pipeline, registers, tmp_path
):
    (registers[0] / "model.safetensors").rename(tmp_path / "away")
    try:
        assert downscaling_of(registers[0]) == 8
    finally:
        (tmp_path / "away").rename(registers[0] / "model.safetensors")
    assert downscaling_of(pipeline[0]) == 2
    names = ("dino-b8", "dinov2-b14", "clip-b16", "sd2-base", "me/mine", "nowhere")
    assert [downscaling_of(name) for name in names] == [8, 14, 16, 8, 8, 8]


def _vocabulary(folder) -> dict[str, int]:
    return json.loads((folder / "tokenizer" / "vocab.json").read_text())


def _pad_id(folder) -> int:
    special = json.loads((folder / "tokenizer" / "special_tokens_map.json").read_text())
    return _vocabulary(folder)[special["pad_token"]]


def _start_and_end(folder) -> list[int]:
    vocabulary = _vocabulary(folder)
    return [vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]]
