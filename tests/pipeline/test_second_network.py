"""Logits that need a second network: loading, results, errors, and batches."""

import json
from functools import partial

import numpy as np
import pytest

from dslo_jax import Segmenter
from dslo_jax.demo.train.descent import module_of, random_parameters
from dslo_jax.errors import OptionError
from dslo_jax.images import read_photo
from dslo_jax.models.proxy import ProxyVit
from dslo_jax.models.vit import vit_spelling
from dslo_jax.models.vit_config import VitConfig
from dslo_jax.pipeline import Batch
from dslo_jax.prompts import parse_classes
from dslo_jax.weights import OneKey, read_config, save_module
from tests.pipeline.conftest import CONFIG as USUAL


CLASSES = ["sky", "sea", "house"]
CONFIG = USUAL.with_options(mode="logits")  # the logits are all that differs
PROXIES = ["proxyclip", pytest.param("cass", marks=pytest.mark.slow)]


def write_dino(folder, *, like=None, heads=2, width=32):
    """A DINO with patches of 8 pixels, and heads as those of a CLIP."""
    if like is not None:
        vision = read_config(like)["vision_config"]
        heads, width = vision["num_attention_heads"], vision["hidden_size"]
    config = {
        "model_type": "vit",
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "image_size": 32,
        "patch_size": 4,
    }
    build = partial(ProxyVit, VitConfig.from_dict(config), rngs=OneKey())
    network = module_of(build, random_parameters(build, 7))
    save_module(network, folder, config, rename=vit_spelling)
    return folder


@pytest.fixture(scope="module")
def dino(checkpoint, tmp_path_factory):
    return write_dino(tmp_path_factory.mktemp("dino"), like=checkpoint / "clip")


@pytest.fixture(scope="module")
def segmenter(checkpoint, dino):
    return Segmenter.from_pretrained(checkpoint, proxy=dino, config=CONFIG)


@pytest.mark.parametrize("attention", PROXIES)
def test_a_batch_has_the_logits_of_single_photos(segmenter, make_photo, attention):
    """The photos have sequences of different lengths, of both networks."""
    photos = [make_photo(50, 75), make_photo(90, 40, 1), make_photo(64, 64, 2)]
    chosen = {"clip_attention": attention}
    together = segmenter.batch(photos, CLASSES, batch_size=3, **chosen)
    for photo, found in zip(photos, together, strict=True):
        alone = segmenter(photo, CLASSES, **chosen)
        # The eigenvectors of LAPACK differ in their last bits from call to call.
        np.testing.assert_allclose(alone.discrepancy, found.discrepancy, atol=1e-6)
        assert np.mean(alone.labels != found.labels) < 1e-3
    usual = segmenter(photos[0], CLASSES)
    assert not np.array_equal(usual.discrepancy, together[0].discrepancy)


@pytest.mark.parametrize("attention", PROXIES)
def test_windows_are_those_of_both_networks(segmenter, make_photo, attention):
    """The mean of the features of parts that are cut out of the photo."""
    photo, config = make_photo(64, 96), CONFIG.with_options(clip_attention=attention)

    def features(pixels, **options):
        read = [read_photo(np.ascontiguousarray(pixels))]
        batch = Batch(segmenter.networks, read, parse_classes(CLASSES))
        found = batch.features(config.with_options(**options))
        rows, columns = np.asarray(found.grids)[0].tolist()
        values = np.asarray(found.features[0])[0, : rows * columns]
        return values.reshape(rows, columns, -1)

    found = features(photo, window=32, window_stride=16)
    side = 64 // len(found)  # of a patch that has features
    total, count = np.zeros_like(found), np.zeros((*found.shape[:2], 1))
    for top in (0, 16, 32):
        for left in (0, 16, 32, 48, 64):
            part = features(photo[top : top + 32, left : left + 32], short_side=32)
            rows, columns = (slice(at // side, (at + 32) // side) for at in (top, left))
            total[rows, columns] += part
            count[rows, columns] += 1
    np.testing.assert_allclose(found, total / count, atol=2e-5)


def test_a_result_names_the_proxy_that_it_used(segmenter, dino, make_photo, tmp_path):
    used = segmenter(make_photo(50, 75), CLASSES, clip_attention="proxyclip")
    assert used.model.proxy.name == str(dino)
    used.save(tmp_path / "used")
    told = json.loads((tmp_path / "used" / "segmentation.json").read_text())
    assert told["model"]["proxy"]["name"] == str(dino)
    assert segmenter(make_photo(50, 75), CLASSES).model.proxy is None


def test_a_proxy_is_loaded_only_for_logits_that_need_it(checkpoint, tmp_path):
    """There is nothing in the folder that could be loaded."""
    found = Segmenter.from_pretrained(checkpoint, proxy=tmp_path, config=CONFIG)
    assert found.networks.has_proxy


def test_without_a_proxy_the_error_names_the_remedy(checkpoint, make_photo):
    message = r"O05.*'proxyclip' needs a DINO.*--proxy dino-b8"
    with pytest.raises(OptionError, match=message):
        Segmenter.from_pretrained(checkpoint, config=CONFIG, clip_attention="proxyclip")
    segmenter = Segmenter.from_pretrained(checkpoint, config=CONFIG)
    with pytest.raises(OptionError, match=message):
        segmenter(make_photo(50, 75), CLASSES, clip_attention="proxyclip")


def test_cass_needs_heads_like_those_of_clip(checkpoint, tmp_path):
    dino = write_dino(tmp_path, heads=3, width=24)
    with pytest.raises(OptionError, match=r"O05.*'cass' pairs the heads.*3 heads, 24"):
        Segmenter.from_pretrained(
            checkpoint, proxy=dino, config=CONFIG, clip_attention="cass"
        )


def test_the_command_takes_a_proxy_and_refuses_one_without_use(run, photo, dino):
    arguments = photo, "--classes", "sky, sea", "--mode", "logits", "--proxy", dino
    code, _, errors = run(*arguments)
    assert code == OptionError.exit_code
    assert "O05" in errors
    assert "has no effect" in errors
    code, _, errors = run(*arguments, "--clip-attention", "proxyclip")
    assert code == 0, errors
