"""The whole job against the eager PyTorch reference, on checkpoints that torch wrote.

Both read the same files and the same resized pixels. The tests use the real loaders and
tokenizer, all stages, and labels at the size of the photo.
"""

import numpy as np
import pytest
import torch
from checkpoints.clip import save_clip
from checkpoints.diffusion import save_pipeline

from dslo_jax import Segmenter, SegmenterConfig, images, prompts
from dslo_jax.pipeline.sequences import photo_size
from torch_bridge import reference


CLASSES = ["cat", ("dog", "wall"), "photo", "the wall of a cat"]
TEMPLATES = ("a photo of a {}.", "the {}")
CONFIG = SegmenterConfig.of(
    affinity_size=64,
    short_side=70,
    templates=TEMPLATES,
    early_rejection=False,
    # Enough seeds, unevenly weighted, that no two classes start from the same patch.
    suppression_threshold=0.5,
    source_scale=30.0,
    velocity_steps=200,
)


@pytest.fixture(scope="module")
def pair(request, tmp_path_factory):
    """A segmenter, and the same networks in torch."""
    folder = tmp_path_factory.mktemp(f"patch{request.param}")
    clip = save_clip(folder / "clip", seed=3, patch_size=request.param)
    vae, unet, text = save_pipeline(folder / "diffusion", seed=4)
    segmenter = Segmenter.from_pretrained(folder, config=CONFIG)
    tokenizer = prompts.load_tokenizer(folder / "diffusion" / "tokenizer")
    diffusion = reference.Diffusion(vae, unet, text, tokenizer)
    return folder, segmenter, clip.eval(), diffusion


def run_reference(pair, photo, config):
    folder, _, clip, diffusion = pair
    patch = clip.config.vision_config.patch_size
    sizes = {
        "clip_pixels": images.short_side_size(photo.shape[:2], 70, patch),
        "affinity_pixels": (config.affinity.size, config.affinity.size),
    }
    methods = {"clip_pixels": config.clip.resample, "affinity_pixels": "area"}
    inputs = {
        name: torch.from_numpy(
            images.resize_photo(photo, size, method=methods[name]).astype(np.float32)
        )
        / 255
        for name, size in sizes.items()
    }
    with torch.inference_mode():
        return reference.segment(
            torch.from_numpy(photo),
            prompts.parse_classes(CLASSES).synonyms,
            clip,
            prompts.load_tokenizer(folder / "clip"),
            diffusion,
            templates=TEMPLATES,
            config=config,
            **inputs,
        )


# Only CLIP knows of the size of a patch and only the solvers of the mode: each size,
# mode and shape of photo once says what all of their combinations do.
@pytest.mark.parametrize(
    ("pair", "mode", "size"),
    [
        (14, "path", (77, 101)),
        (16, "velocity", (101, 77)),
        (16, "fused", (64, 64)),
        pytest.param(14, "velocity", (101, 77), marks=pytest.mark.slow),
        pytest.param(14, "fused", (64, 64), marks=pytest.mark.slow),
        pytest.param(16, "path", (77, 101), marks=pytest.mark.slow),
    ],
    indirect=["pair"],
)
def test_maps_and_labels_equal_the_reference(pair, make_photo, mode, size):
    photo = make_photo(*size, seed=5)
    ours = pair[1](photo, CLASSES, mode=mode)
    assert ours.config.solver.mode == mode
    theirs = run_reference(pair, photo, ours.config)
    expected = theirs.discrepancy.numpy().reshape(ours.discrepancy.shape)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(ours.discrepancy / scale, expected / scale, atol=1e-4)
    assert len(np.unique(ours.labels)) > 1
    # A pixel may differ only where the reference itself is within that error of a tie.
    error = np.abs(ours.discrepancy - expected).max() + 1e-6 * scale
    top = theirs.upsampled.topk(2, dim=0).values
    clear = ((top[0] - top[1]) > 2 * error).numpy()
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(ours.labels[clear], theirs.labels.numpy()[clear])


@pytest.mark.parametrize(
    ("pair", "size", "shape"),
    [(14, (77, 101), "aspect"), (16, (101, 77), "square")],
    indirect=["pair"],
)
def test_windows_and_the_background_equal_the_reference(pair, make_photo, size, shape):
    """For CLIP alone; half of the pixels are below the threshold."""
    folder, segmenter, clip, _ = pair
    patch = clip.config.vision_config.patch_size
    photo, grid = make_photo(*size, seed=6), segmenter.networks.grid(CONFIG.affinity)
    config = segmenter.config.with_options(
        mode="logits", clip_shape=shape, window=3 * patch, window_stride=2 * patch
    )
    listed = prompts.with_background(CLASSES, "clearclip")
    seen = images.resize_photo(photo, photo_size(size, config.clip, patch))
    with torch.inference_mode():
        features = reference.window_features(
            clip,
            torch.from_numpy(seen).float() / 255,
            attention="kk_mean",
            window=3 * patch,
            stride=2 * patch,
        )
        tokenizer = prompts.load_tokenizer(folder / "clip")
        text = reference.text_features(clip, tokenizer, listed.names, TEMPLATES)
        logits = reference.class_logits(features, text, listed.class_of_name)
        theirs = reference.segment_logits(
            logits, torch.zeros(0, 0), grid, torch.from_numpy(photo), config=config
        )
        cosines = torch.einsum("hwd,nd->nhw", features, text)
        scale = 300.0  # with random weights, cosines differ little
        probability = torch.softmax(scale * reference.resize(cosines, grid), dim=0)
        median = float(probability.amax(dim=0).median())
        unsure = reference.unsure(cosines, grid, size, scale=scale, threshold=median)
    ours = segmenter(
        photo,
        listed,
        **config.clip.flat,
        mode="logits",
        background_threshold=median,
        background_scale=scale,
    )
    expected = theirs.discrepancy.reshape(ours.discrepancy.shape)
    np.testing.assert_allclose(ours.discrepancy, expected, atol=2e-5)
    assert 0.2 < unsure.float().mean() < 0.8
    assert ours.unsure == pytest.approx(float(unsure.float().mean()), abs=0.01)
    labels = torch.where(unsure, listed.background, theirs.labels).numpy()
    assert np.mean(ours.labels == labels) > 0.99  # but for rounding at the threshold
