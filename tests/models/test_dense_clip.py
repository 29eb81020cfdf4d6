"""Every variant of CLIP against its definition in torch, photo by photo."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from checkpoints.clip import save_clip
from flax import nnx

from dslo_jax.models.clip import Clip, load_clip
from dslo_jax.models.clip_config import ClipConfig, ClipTextConfig, ClipVisionConfig
from dslo_jax.models.dense_clip.outliers import find_outliers, repair
from dslo_jax.models.dense_clip.registry import ATTENTIONS
from dslo_jax.models.dense_clip.sc_clip import _same_share
from dslo_jax.models.dense_clip.variant import DenseInput
from dslo_jax.ops import Patches, cut_patches
from dslo_jax.ops.patches import places_of
from torch_bridge import reference
from torch_bridge.reference.dense_clip import DEFINITIONS, local_outliers, repaired


TOLERANCE = 2e-5  # float32 features of length 1
PATCH = 14
TALL = (103, 75)  # 7 x 5 patches, with partial ones below and right
SIZES = (TALL, TALL, (73, 45), (45, 130), (20, 15))  # 35, 35, 15, 27 and 1 patches
LENGTH = 40
MANY_BLOCKS = ("clip-surgery", "gem", "sc-clip")  # they change more than the last

every_variant = pytest.mark.parametrize("name", DEFINITIONS)


@functools.cache
def photo(size, seed=0):
    return np.random.default_rng((*size, seed)).integers(0, 256, (*size, 3), np.uint8)


PHOTOS = [photo(size, seed) for seed, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The same network of two blocks in torch and in NNX."""
    return networks(tmp_path_factory.mktemp("two"), depth=2, patch=PATCH, heads=4)


def networks(folder, *, depth, patch, heads):
    network = save_clip(
        folder,
        **{"seed": 5, "patch_size": patch, "image_size": 4 * patch},
        **{"vision": (depth, 32, heads), "text": (1, 32, 2)},
    )
    return network, load_clip(folder)


@functools.partial(jax.jit, static_argnames="attention")
def dense(clip, pixels, attention):
    return clip.dense_features(pixels, attention=attention)


@functools.partial(jax.jit, static_argnames="attention")
def dense_patches(clip, patches, attention):
    return clip.patch_features(patches, attention=attention)


def definition(network, photo, name):
    pixels = torch.from_numpy(photo.astype(np.float32) / 255)
    return reference.dense_features(network, pixels, attention=name).numpy()


def cut(photos):
    """The photos as one batch of sequences with RGB in [0, 1]."""
    cuts = [cut_patches(photo, PATCH, LENGTH) for photo in photos]
    pixels, grids = (np.concatenate(parts) for parts in zip(*cuts, strict=True))
    return Patches(pixels.astype(np.float32) / 255, grids)


@every_variant
def test_features_are_those_of_the_definition(pair, name):
    network, clip = pair
    pixels = np.stack(PHOTOS[:2]).astype(np.float32) / 255
    found = dense(clip, pixels, name)
    assert found.dtype == jnp.float32
    assert found.shape == (2, 7, 5, 24)
    for photo, features in zip(PHOTOS[:2], found, strict=True):
        expected = definition(network, photo, name)
        np.testing.assert_allclose(features, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)


@every_variant
def test_features_do_not_depend_on_the_padding(pair, name):
    """Photos of five sizes in one batch, in another order, with other padding."""
    network, clip = pair
    patches = cut(PHOTOS)
    found = np.asarray(dense_patches(clip, patches, name))
    assert np.isfinite(found).all()
    for photo, features in zip(PHOTOS[:4], found, strict=False):
        expected = definition(network, photo, name).reshape(-1, 24)
        real = features[: len(expected)]
        np.testing.assert_allclose(real, expected, rtol=0, atol=TOLERANCE)
        assert np.abs(features[len(expected) :] - real[-1:]).max() < 2e-6
    is_real = np.array(patches.is_real)
    other = np.where(is_real[..., None, None, None], patches.pixels, 7)
    changed = dense_patches(clip, patches._replace(pixels=other), name)
    np.testing.assert_array_equal(changed[is_real], found[is_real])
    assert np.abs(changed[~is_real] - found[~is_real]).max() > 1e-3
    turned = dense_patches(clip, cut(PHOTOS[::-1]), name)
    np.testing.assert_allclose(turned[::-1], found, atol=2e-6)


def test_the_variants_differ(pair):
    """Otherwise the comparisons above could not tell queries from keys."""
    network, _ = pair
    found = [definition(network, PHOTOS[0], name) for name in DEFINITIONS]
    for i, first in enumerate(found):
        for second in found[:i]:
            assert np.abs(first - second).max() > 0.01


@pytest.mark.parametrize("name", MANY_BLOCKS)
def test_seven_blocks(tmp_path, name):
    """One block more than have a second path."""
    network, clip = networks(tmp_path, depth=7, patch=16, heads=2)
    pixels = photo((70, 130))  # 4 x 8 patches
    found = dense(clip, pixels[None].astype(np.float32) / 255, name)[0]
    expected = definition(network, pixels, name)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.slow
@every_variant
def test_twelve_blocks(tmp_path, name):
    """The depth that all constants are published for."""
    network, clip = networks(tmp_path, depth=12, patch=16, heads=2)
    pixels = photo((118, 150))  # 7 x 9 patches
    found = dense(clip, pixels[None].astype(np.float32) / 255, name)[0]
    expected = definition(network, pixels, name)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@every_variant
def test_bfloat16(pair, name):
    """Every second patch at least is closer than 3 degrees, whatever is repaired."""
    _, clip = pair
    graph, state = nnx.split(clip)
    narrow = nnx.merge(graph, jax.tree.map(lambda x: x.astype(jnp.bfloat16), state))
    pixels = np.stack(PHOTOS[:2]).astype(np.float32) / 255
    found, expected = dense(narrow, pixels, name), dense(clip, pixels, name)
    assert found.dtype == jnp.float32
    assert np.median(np.sum(found * expected, axis=-1)) > np.cos(np.radians(3))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gem", "sclip", "qk_mean"])
def test_memory_does_not_grow_with_depth(name):
    """The weights of one layer at a time, whatever the compiler would rather do."""
    heads, side, held = 4, 20, []
    for depth in (2, 6):
        vision = ClipVisionConfig(32, 32, depth, heads, image_size=16, patch_size=4)
        text = ClipTextConfig(600, 32, 32, 1, 1)
        config = ClipConfig(text, vision, projection_dim=8)
        clip = nnx.eval_shape(lambda config=config: Clip(config, rngs=nnx.Rngs(0)))
        pixels = jax.ShapeDtypeStruct((1, 4 * side, 4 * side, 3), jnp.float32)
        program = dense.lower(clip, pixels, name).compile()
        held.append(program.memory_analysis().temp_size_in_bytes)
    weights = 4 * heads * side**4
    assert (held[1] - held[0]) / 4 < weights / 2


def test_every_variant_has_a_definition():
    elsewhere = {"rf-clip", "proxyclip", "cass"}  # in test_proxy.py
    assert set(DEFINITIONS) == set(ATTENTIONS) - elsewhere


# ---------------------------------------------------------------- SC-CLIP


def test_the_published_blocks_of_sc_clip():
    assert [_same_share(n, 12) for n in (9, 4, 10)] == [9, 4, 10]
    assert [_same_share(n, 24) for n in (9, 4, 10)] == [18, 8, 20]
    assert [_same_share(n, 2) for n in (9, 4, 10)] == [1, 1, 1]


def scattered(*outliers, count=63):
    """Patches around the origin, and some far away."""
    patches = np.random.default_rng(1).normal(size=(count, 8)).astype(np.float32)
    patches[list(outliers)] *= 9
    return patches


@pytest.mark.parametrize(("count", "planted"), [(63, (3, 11, 12)), (20, ())])
def test_outliers(count, planted):
    """Also in a photo with fewer than 30 other patches."""
    patches = scattered(*planted, count=count)
    expected = local_outliers(torch.from_numpy(patches))
    assert expected
    assert set(planted) <= set(expected)
    padded = np.concatenate([patches, np.tile(patches[-1:], (72 - count, 1))])
    assert outliers_of(padded, count) == expected


def outliers_of(patches, count):
    is_real = np.arange(len(patches)) < count
    return np.flatnonzero(jax.jit(find_outliers)(patches[None], is_real[None])).tolist()


@pytest.mark.parametrize("count", [1, 2, 40])
def test_equal_patches_have_no_outliers(count):
    assert outliers_of(np.ones((72, 8), np.float32), count) == []


def test_repair():
    """In a corner, next to each other, at an edge; surrounded ones stay."""
    grid = (5, 6)
    patches = scattered(count=30)
    around = [0, 1, 2, 6, 7, 8, 12, 13, 14]  # the nine patches around number 7
    for outliers in ([0], [29], [11, 17], around, [5, 24, 27]):
        expected = repaired(torch.from_numpy(patches), outliers, grid)
        is_outlier = np.isin(np.arange(30), outliers)
        sizes = jnp.array([grid], jnp.int32)
        photos = DenseInput(jnp.zeros((1, 31, 8)), None, places_of(sizes, 30), sizes)
        found = jax.jit(repair)(patches[None], is_outlier[None], photos)[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)
