"""The fast pipeline in PyTorch: labels of batches, seconds of stages."""

import numpy as np
import pytest
import torch

from dslo_jax import Segmenter, prompts, scenes
from torch_bridge.pipeline import TorchPipeline, load_networks


CLASSES = prompts.parse_classes(["sky", ("sea", "ocean"), "house", "tree"])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["path", "velocity"])
def test_a_batch_has_the_labels_of_this_project(mode):
    """Photos of one size share a pass of CLIP; those of another size do not mix."""
    segmenter = Segmenter.from_pretrained("demo", mode=mode)
    config = segmenter.config.with_options(templates="single")
    networks = load_networks("demo", device="cpu")
    pipeline = TorchPipeline(networks, CLASSES, config, compiled=False)
    sizes = (96, 96), (96, 128), (96, 96)
    photos = [scenes.draw_scene(n, size=s).pixels for n, s in enumerate(sizes)]
    found = pipeline(photos)
    for photo, labels in zip(photos, found, strict=True):
        wanted = segmenter(photo, CLASSES, templates="single").labels
        assert labels.shape == wanted.shape
        assert np.mean(labels == wanted) > 0.999
        assert len(np.unique(wanted)) > 1
    stages = {"resize", "clip", "vae", "unet", "logits", "solver", "labels"}
    assert set(pipeline.seconds) == stages
    assert all(seconds > 0 for seconds in pipeline.seconds.values())


def test_convolutions_and_types_are_those_that_are_recommended(checkpoint):
    networks = load_networks(str(checkpoint), dtype="bfloat16", device="cpu")
    weight = networks.unet.conv_in.weight
    assert weight.dtype == networks.prompt.dtype == torch.bfloat16
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert networks.vae.decoder is None


def test_a_pair_without_stable_diffusion_is_refused(tmp_path, checkpoint):
    for name in ("clip", "diffusion"):
        (tmp_path / name).symlink_to(checkpoint / "clip")
    with pytest.raises(ValueError, match="no Stable Diffusion"):
        load_networks(str(tmp_path), device="cpu")
