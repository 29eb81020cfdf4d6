"""The files that state statistics of pixels, and the effect of these statistics."""

import json
import logging

import jax.numpy as jnp
import numpy as np
import pytest
from transformers import CLIPImageProcessorPil

from dslo_jax.errors import CheckpointError
from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.pixel_statistics import with_pixel_statistics
from dslo_jax.models.vit_config import VitConfig, with_imagenet_statistics
from dslo_jax.models.vit_layers import normalise_pixels


HALF = (0.5, 0.5, 0.5)
OTHER = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
CLIP = ClipVisionConfig()


def write(folder, **files):
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name}.json").write_text(text)


def read(folder):
    config = with_pixel_statistics(CLIP, folder)
    return config.pixel_mean, config.pixel_std


def photo():
    return np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)


# ---------------------------------------------------------------- what they do


@pytest.mark.parametrize(
    "stated",
    [
        {},
        OTHER,
        {**OTHER, "image_std": [0.7, 0.7, 0.7]},
        {"image_mean": 0.5, "image_std": 0.25},  # one number for all channels
        {**OTHER, "do_normalize": None},  # off, as any switch that is null
        {**OTHER, "do_normalize": False},
        {**OTHER, "rescale_factor": 1 / 127.5},
        {**OTHER, "rescale_factor": 1 / 127.5, "do_normalize": False},
        {**OTHER, "rescale_factor": 0.00392156862745098},
        # Photos are resized by us, to what the method wants.
        {**OTHER, "size": 224, "crop_size": {"height": 336, "width": 336}},
        {**OTHER, "size": {"shortest_edge": 336}, "resample": 3, "feature": [1]},
    ],
)
def test_pixels_equal_those_of_transformers(tmp_path, stated):
    write(tmp_path, preprocessor_config=stated)
    processor = CLIPImageProcessorPil.from_pretrained(
        tmp_path, do_resize=False, do_center_crop=False
    )
    (expected,) = processor(photo(), return_tensors="np")["pixel_values"]
    pixels = jnp.asarray(photo()[None] / 255, jnp.float32)
    (found,) = normalise_pixels(pixels, with_pixel_statistics(CLIP, tmp_path))
    np.testing.assert_allclose(found, expected.transpose(1, 2, 0), rtol=0, atol=2e-6)


# ---------------------------------------------------------------- where they are


def test_no_file_and_no_folder(tmp_path):
    assert with_pixel_statistics(CLIP, tmp_path) == CLIP
    write(tmp_path, preprocessor_config={"image_mean": None, "rescale_factor": None})
    assert with_pixel_statistics(CLIP, tmp_path) == CLIP
    assert with_pixel_statistics(CLIP, None) == CLIP


def test_what_transformers_5_writes(tmp_path):
    """The object inside processor_config.json wins over the older file."""
    write(
        tmp_path,
        processor_config={"image_processor": {"image_mean": HALF, "image_std": HALF}},
        preprocessor_config=OTHER,
    )
    theirs = CLIPImageProcessorPil.from_pretrained(tmp_path)
    assert read(tmp_path) == (HALF, HALF)
    assert (tuple(theirs.image_mean), tuple(theirs.image_std)) == (HALF, HALF)


@pytest.mark.parametrize(
    "processor", [{"processor_class": "CLIPProcessor"}, {"image_processor": None}]
)
def test_a_processor_without_an_image_processor_does_not_count(tmp_path, processor):
    write(tmp_path, processor_config=processor, preprocessor_config=OTHER)
    theirs = CLIPImageProcessorPil.from_pretrained(tmp_path)
    assert read(tmp_path) == (tuple(theirs.image_mean), tuple(theirs.image_std))
    assert read(tmp_path)[0] == (0.1, 0.2, 0.3)


def test_open_clip(tmp_path):
    stated = {"model_cfg": {}, "preprocess_cfg": {"mean": HALF, "std": HALF}}
    write(tmp_path, open_clip_config=stated)
    assert read(tmp_path) == (HALF, HALF)
    write(tmp_path, preprocessor_config=OTHER)
    assert read(tmp_path)[0] == (0.1, 0.2, 0.3)
    write(tmp_path, preprocessor_config={"image_mean": HALF})
    assert read(tmp_path) == (HALF, CLIP.pixel_std)


def test_files_that_do_not_count_may_hold_anything(tmp_path):
    write(
        tmp_path,
        processor_config={"image_processor": OTHER},
        preprocessor_config="{",
        open_clip_config="3",
        video_preprocessor_config="",
    )
    theirs = CLIPImageProcessorPil.from_pretrained(tmp_path)
    assert read(tmp_path) == (tuple(theirs.image_mean), tuple(theirs.image_std))


@pytest.mark.parametrize(
    ("files", "code", "words"),
    [
        ({"preprocessor_config": "{"}, "W08", "preprocessor_config.json is not JSON"),
        ({"preprocessor_config": "3"}, "W08", "is not a JSON object"),
        (
            {"processor_config": "{", "preprocessor_config": OTHER},
            "W08",
            "/processor_config.json is not JSON",
        ),
        (
            {"processor_config": {"image_processor": "CLIPImageProcessor"}},
            "W06",
            "image_processor = 'CLIPImageProcessor', .* an object",
        ),
        (
            {"processor_config": {"image_processor": {"image_mean": [0, 1]}}},
            "W06",
            r"/processor_config.json has image_processor.image_mean = \[0, 1\], .*thr",
        ),
        ({"preprocessor_config": '{"image_mean": [0, 1, NaN]}'}, "W06", "finite"),
        ({"preprocessor_config": {"image_mean": "0.5"}}, "W06", "image_mean = '0.5'"),
        ({"preprocessor_config": {"image_std": [1, 1, 0]}}, "W06", "positive numbers"),
        ({"preprocessor_config": {"rescale_factor": 0}}, "W06", "rescale_factor = 0"),
        ({"preprocessor_config": {"do_normalize": "no"}}, "W06", "true or false"),
        (
            {"preprocessor_config": {"do_rescale": False}},
            "W06",
            "do_rescale = False, .* write true, and the statistics of pixels in 0",
        ),
        ({"preprocessor_config": {"do_rescale": None}}, "W06", "do_rescale = None"),
        (
            {"open_clip_config": {"preprocess_cfg": {"std": [0, 1, 1]}}},
            "W06",
            r"preprocess_cfg.std = \[0, 1, 1\]",
        ),
    ],
)
def test_bad_statistics_are_refused(tmp_path, files, code, words):
    write(tmp_path, **files)
    with pytest.raises(CheckpointError, match=words) as error:
        with_pixel_statistics(CLIP, tmp_path)
    assert error.value.code == code


# ---------------------------------------------------------------- DINO


def test_dino_follows_its_folder(tmp_path):
    config = VitConfig()
    assert with_imagenet_statistics(config, tmp_path).pixel_mean[0] == 0.485
    write(tmp_path, preprocessor_config=OTHER)
    assert with_imagenet_statistics(config, tmp_path).pixel_mean == (0.1, 0.2, 0.3)


def test_the_default_of_a_vit_is_not_that_of_dino(tmp_path, caplog):
    write(tmp_path, preprocessor_config={"image_mean": HALF, "image_std": HALF})
    with caplog.at_level(logging.WARNING):
        assert with_imagenet_statistics(VitConfig(), tmp_path) == VitConfig()
    assert "those of ImageNet are used" in caplog.text
    assert str(tmp_path) in caplog.text
