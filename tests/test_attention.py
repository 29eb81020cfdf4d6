"""Affinities of photos against diffusers, and the context of the empty prompt."""

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
    average_attention,
    downscaling_of,
    fitting_size,
    load_affinity,
)
from dslo_jax.errors import CheckpointError, OptionError
from dslo_jax.models.query_key import QueryKey


def _layers(*heads: int, batch: int = 1, patches: int = 12) -> list[QueryKey]:
    random = np.random.default_rng(5)
    return [
        QueryKey(
            *(
                jnp.asarray(
                    2 * random.standard_normal((batch, patches, count, 7)), "f4"
                )
                for _ in range(2)
            )
        )
        for count in heads
    ]


def _loop(layers, weights, temperature: float = 1.0) -> np.ndarray:
    """The definition of the affinity, one row at a time, in float64."""
    batch, patches, _, channels = layers[0].query.shape
    affinity = np.zeros((batch, patches, patches))
    for (query, key), weight in zip(layers, weights, strict=True):
        query, key = np.float64(query), np.float64(key)
        for b, i, h in np.ndindex(batch, patches, query.shape[2]):
            row = np.exp(key[b, :, h] @ query[b, i, h] / np.sqrt(channels))
            affinity[b, i] += weight * row / row.sum() / query.shape[2]
    # The softmax of log A / t is A^(1/t) over its sum.
    affinity = np.exp(np.log(affinity) / temperature)
    return affinity / affinity.sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 0.65, 2.0])
def test_average_equals_the_loop(temperature):
    layers, weights = _layers(3, 2, batch=2), (0.5, 1.5)
    with jax.default_matmul_precision("highest"):
        affinity = average_attention(layers, weights, temperature=temperature)
    expected = _loop(layers, weights, temperature)
    np.testing.assert_allclose(affinity, expected, rtol=1e-5)
    np.testing.assert_allclose(affinity.sum(-1), 1, atol=1e-6)


def test_half_precision_queries_are_averaged_in_float32():
    halves = [
        QueryKey(*(x.astype(jnp.bfloat16) for x in layer)) for layer in _layers(2)
    ]
    affinity = average_attention(halves, (1.0,))
    assert affinity.dtype == jnp.float32
    np.testing.assert_allclose(affinity, _loop(halves, (1.0,)), rtol=1e-5)


def test_scale_of_the_weights_does_not_matter():
    layers = _layers(2, 2)
    small = average_attention(layers, (0.1, 0.3))
    np.testing.assert_allclose(average_attention(layers, (1.0, 3.0)), small, rtol=1e-6)
    alone = average_attention(layers, (1.0, 0.0))
    np.testing.assert_allclose(alone, average_attention(layers[:1], (1.0,)), rtol=1e-6)


def test_tokens_that_are_no_patches_take_part_in_the_softmax_alone():
    """Heads that look at them most count least: no softmax over patches does that."""
    (all_tokens,) = _layers(3, patches=12)
    others = 4
    pair = QueryKey(all_tokens.query[:, others:], all_tokens.key)
    with jax.default_matmul_precision("highest"):
        found = np.asarray(average_attention([pair], (1.0,)))
    whole = np.float64(_heads(all_tokens))[:, :, others:, others:]
    expected = whole.mean(axis=1)
    expected /= expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    alone = (whole / whole.sum(-1, keepdims=True)).mean(axis=1)
    assert np.abs(alone - expected).max() > 0.05


def _heads(layer: QueryKey) -> np.ndarray:
    scores = np.einsum("bqhc,bkhc->bhqk", *map(np.float64, layer))
    weights = np.exp(scores / np.sqrt(layer.query.shape[-1]))
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 0.65])
def test_memory_is_one_affinity_beside_the_result(temperature):
    patches = 1024
    layer = jax.ShapeDtypeStruct((1, patches, 10, 64), jnp.float32)

    def average(layers):
        return average_attention(layers, (0.5, 0.5), temperature=temperature)

    lowered = jax.jit(average).lower([QueryKey(layer, layer)] * 2)
    memory = lowered.compile().memory_analysis()
    affinity = 4 * patches**2
    assert memory.output_size_in_bytes == affinity
    # The eighth is one head's queries and keys.
    assert memory.temp_size_in_bytes <= 1.25 * affinity


@pytest.mark.parametrize(
    ("weights", "temperature", "named"),
    [
        ((1.0,), 1.0, "`weights`"),
        ((0.0, 0.0), 1.0, "`weights`"),
        ((2.0, -1.0), 1.0, "`weights`"),
        ((1.0, 1.0), 0.0, "`temperature`"),
    ],
)
def test_senseless_averages_are_refused(weights, temperature, named):
    with pytest.raises(ValueError, match=named):
        average_attention(_layers(1, 1), weights, temperature=temperature)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A pipeline folder and the networks of diffusers that are in it."""
    folder = tmp_path_factory.mktemp("pipeline")
    return folder, diffusion.save_pipeline(folder, seed=21)


@pytest.fixture(scope="module")
def source(pipeline, tmp_path_factory):
    """That pipeline as an affinity source of 16 x 16 pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSLO_CACHE", str(tmp_path_factory.mktemp("cache")))
        return load_affinity(pipeline[0], options=AffinityOptions(size=16))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Nobody's real cache is read or written."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DSLO_CACHE", str(folder))
    return folder


def test_affinity_equals_diffusers(pipeline):
    folder, (vae, unet, text_encoder) = pipeline
    source = load_affinity(folder, options=AffinityOptions(size=24, timestep=3))
    assert source.grid == (12, 12)
    pixels = np.random.default_rng(2).uniform(size=(2, 24, 24, 3)).astype(np.float32)

    ids = torch.full((1, 77), int(_pad_id(folder)))
    ids[0, :2] = torch.tensor(_start_and_end(folder))
    with torch.inference_mode():
        context = text_encoder(ids).last_hidden_state.numpy()
    np.testing.assert_allclose(source.context.get_value(), context, atol=2e-5)
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
    assert source.context.get_value().dtype == jnp.bfloat16
    affinity = jax.eval_shape(source, jax.ShapeDtypeStruct((3, 8, 8, 3), jnp.float32))
    assert affinity.shape == (3, 16, 16)
    assert affinity.dtype == jnp.float32


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
    context = source.context.get_value()
    with pytest.raises(OptionError, match=named) as caught:
        DiffusionAffinity(source.vae, source.unet, context, AffinityOptions(**options))
    assert caught.value.code == "O01"


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


# ---- vision transformers -------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("options", "words"),
    [
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


# ---- the empty prompt ----------------------------------------------------------------


def _refuse(*_, **__):
    raise AssertionError("the text encoder was loaded")


def test_text_encoder_is_loaded_once(pipeline, cache, monkeypatch):
    folder, _ = pipeline
    first = empty_prompt.load_empty_prompt(folder)
    assert first.shape == (1, 77, 32)
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]
    monkeypatch.setattr(empty_prompt, "load_text_encoder", _refuse)
    np.testing.assert_array_equal(empty_prompt.load_empty_prompt(folder), first)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 64, None])
def test_damaged_cache_entry_is_computed_again(pipeline, cache, damage):
    folder, _ = pipeline
    expected = empty_prompt.load_empty_prompt(folder)
    (entry,) = cache.iterdir()
    if damage is None:
        empty_prompt.save_empty_prompt(np.full((1, 77, 32), np.nan), entry)
    else:
        entry.write_bytes(damage)
    np.testing.assert_array_equal(empty_prompt.load_empty_prompt(folder), expected)
    np.testing.assert_array_equal(empty_prompt._read(entry), expected)


def test_another_tokenizer_is_another_constant(pipeline, tmp_path, cache):
    folder, _ = pipeline
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "text_encoder").symlink_to(folder / "text_encoder")
    diffusion.save_tokenizer(copy / "tokenizer", pad_token="<|endoftext|>")
    first = empty_prompt.load_empty_prompt(folder)
    second = empty_prompt.load_empty_prompt(copy)
    assert len(list(cache.iterdir())) == 2
    assert np.abs(first - second).max() > 0.01


def test_unwritable_cache_is_no_obstacle(pipeline, tmp_path, monkeypatch, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("DSLO_CACHE", str(blocked / "cache"))
    assert empty_prompt.load_empty_prompt(pipeline[0]).shape == (1, 77, 32)
    assert "not cached" in caplog.text


def test_stored_constant_replaces_the_text_encoder(tmp_path, monkeypatch):
    monkeypatch.setattr(empty_prompt, "load_text_encoder", _refuse)
    with pytest.raises(CheckpointError, match="text_encoder") as caught:
        empty_prompt.load_empty_prompt(tmp_path)
    assert caught.value.code == "W01"
    assert str(tmp_path) in str(caught.value)

    path = tmp_path / empty_prompt.FILE_NAME
    context = np.random.default_rng(0).standard_normal((1, 4, 3)).astype(np.float32)
    empty_prompt.save_empty_prompt(context, path)
    np.testing.assert_array_equal(empty_prompt.load_empty_prompt(tmp_path), context)

    path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError) as caught:
        empty_prompt.load_empty_prompt(tmp_path)
    assert caught.value.code == "W04"


def _vocabulary(folder) -> dict[str, int]:
    return json.loads((folder / "tokenizer" / "vocab.json").read_text())


def _pad_id(folder) -> int:
    return _vocabulary(folder)["!"]


def _start_and_end(folder) -> list[int]:
    vocabulary = _vocabulary(folder)
    return [vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]]
