"""Windows, squares and a background in a program give what the pipeline gives."""

import jax
import numpy as np
import pytest

from dslo_jax import Segmenter, prompts
from dslo_jax.errors import OptionError
from dslo_jax.pipeline.stages import Clock
from dslo_jax.stablehlo.step import Bucket, WholeStep
from tests.pipeline.colours import colour_networks
from tests.pipeline.conftest import CONFIG


CLASSES = prompts.parse_classes(["cat", "sofa", "wall", "background"])


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((64, 128), {"window": 32, "window_stride": 16}),
        (
            (64, 64),
            {
                "clip_shape": "square",
                "background_threshold": 0.5,
                "background_scale": 4.0,
            },
        ),
    ],
)
def test_labels_are_those_of_the_pipeline(checkpoint, size, options):
    tokenizer = prompts.load_tokenizer(checkpoint / "clip")
    segmenter = Segmenter(colour_networks(tokenizer), CONFIG)
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    config = segmenter.configured(mode="logits", **options)
    expected = segmenter(photo, CLASSES, mode="logits", **options)
    networks, bucket = segmenter.networks, Bucket(size, 4, 1)
    step = WholeStep(networks, config, bucket, CLASSES.background)
    inputs = {
        "pixels": photo[None],
        "text": networks.embed(Clock(), CLASSES.names, config.clip.templates),
        "class_of_name": np.asarray(CLASSES.class_of_name, np.int32),
    }
    found = jax.jit(step)(step.parameters, inputs)
    np.testing.assert_allclose(found["maps"][0], expected.discrepancy, atol=1e-5)
    assert np.mean(found["labels"][0] == expected.labels) > 0.999
    if "background_threshold" in options:
        assert 0 < (expected.unsure or 0) < 1
        with pytest.raises(OptionError, match="O05"):
            WholeStep(networks, config, bucket)
