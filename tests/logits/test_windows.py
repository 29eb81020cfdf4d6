"""Features from sliding windows, against windows that are cut out of the pixels."""

import functools
import itertools

import jax
import numpy as np
import pytest
import torch
from checkpoints.clip import save_clip
from hypothesis import given, strategies as st

from dslo_jax.errors import OptionError
from dslo_jax.logits import ClipOptions, Windows, window_features
from dslo_jax.logits.windows import Window
from dslo_jax.models.clip import load_clip
from dslo_jax.ops.patches import Patches, cut_patches
from tests.properties import PROPERTY, SEEDS
from torch_bridge import reference


TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def pair(request, tmp_path_factory):
    """A CLIP in torch and the same one in JAX."""
    folder = tmp_path_factory.mktemp(f"patch{request.param}")
    theirs = save_clip(folder, seed=5, patch_size=request.param)
    return theirs, load_clip(folder)


def photo_of(rows, columns, patch, seed=0):
    size = rows * patch, columns * patch, 3
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def patches_of(photo, patch, length):
    cut = cut_patches(photo, patch, length)
    return Patches(cut.pixels.astype(np.float32) / 255, cut.grid)


def windows_of(side, stride, together=1):
    return Windows((Window(side, stride, side * side),), together=together)


@functools.partial(jax.jit, static_argnames=("attention", "windows"))
def windowed(clip, patches, *, attention, windows):
    see = functools.partial(clip.patch_features, attention=attention)
    return window_features(see, [patches], windows)


# Odd shapes: the last window of a row or column is moved back, one side is shorter than
# a window, a window is one patch wide, windows do not overlap.
@pytest.mark.parametrize(
    ("pair", "grid", "side", "stride", "together", "attention"),
    [
        (14, (5, 8), 3, 2, 1, "kk_mean"),
        (16, (7, 4), 4, 3, 3, "vanilla"),
        (16, (3, 9), 4, 1, 8, "kk_mean"),
        (14, (4, 6), 2, 2, 4, "maskclip"),
    ],
    indirect=["pair"],
)
def test_windows_equal_windows_cut_out_of_the_pixels(
    pair, grid, side, stride, together, attention
):
    theirs, ours = pair
    patch = ours.config.vision.patch_size
    photo = photo_of(*grid, patch=patch)
    found = windowed(
        ours,
        patches_of(photo, patch, 45),
        attention=attention,
        windows=windows_of(side, stride, together),
    )
    expected = reference.window_features(
        theirs,
        torch.from_numpy(photo).float() / 255,
        attention=attention,
        window=side * patch,
        stride=stride * patch,
    ).flatten(0, 1)
    assert found.shape == (1, 45, expected.shape[-1])
    np.testing.assert_allclose(found[0, : len(expected)], expected, atol=TOLERANCE)
    assert not np.any(found[0, len(expected) :])
    lengths = np.linalg.norm(found[0, : len(expected)], axis=-1)
    assert lengths.max() < 1 + 1e-6
    assert (
        lengths.min() < 0.999 or stride == side
    )  # windows disagree where they overlap


@pytest.mark.parametrize("pair", [14], indirect=True)
def test_their_cosines_are_the_means_of_the_cosines(pair):
    """The definition: cosines of each window, and their mean for each patch."""
    theirs, _ = pair
    patch = theirs.config.vision_config.patch_size
    photo = torch.from_numpy(photo_of(4, 5, patch)).float() / 255
    text = torch.nn.functional.normalize(torch.randn(3, 24), dim=-1)
    total, count = torch.zeros(4, 5, 3), torch.zeros(4, 5, 1)
    for top, left in itertools.product((0, 1), (0, 2)):
        crop = photo[top * patch : (top + 3) * patch, left * patch : (left + 3) * patch]
        features = reference.dense_features(theirs, crop, attention="kk_mean")
        total[top : top + 3, left : left + 3] += features @ text.T
        count[top : top + 3, left : left + 3] += 1
    # Windows of 3 patches, 2 apart: at rows 0 and 1 of 4, at columns 0 and 2 of 5.
    found = reference.window_features(
        theirs, photo, attention="kk_mean", window=3 * patch, stride=2 * patch
    )
    torch.testing.assert_close(found @ text.T, total / count, atol=1e-6, rtol=0)


def means(patches):
    """Features without a network, which are the same in every window."""
    return patches.pixels.mean(axis=(2, 3))


@functools.partial(jax.jit, static_argnames="windows")
def seen(patches, *, windows):
    return window_features(means, [patches], windows)


@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    side=st.integers(1, 10),
    stride=st.integers(1, 10),
    together=st.integers(1, 3),
    seed=SEEDS,
)
@PROPERTY
def test_every_patch_is_seen(rows, columns, side, stride, together, seed):
    """What does not depend on the window is not changed by windows of any kind."""
    windows = windows_of(side, min(side, stride), together)
    patches = patches_of(photo_of(rows, columns, 2, seed), 2, 90)
    found = seen(patches, windows=windows)
    real = rows * columns
    np.testing.assert_allclose(found[:, :real], means(patches)[:, :real], atol=1e-6)


def test_photos_of_a_batch_have_windows_of_their_own():
    windows = windows_of(3, 2, together=2)
    cuts = [patches_of(photo_of(*grid, 2), 2, 30) for grid in ((5, 6), (3, 3), (7, 2))]
    together = jax.tree.map(lambda *each: np.concatenate(each), *cuts)
    found = seen(together, windows=windows)
    for photo, alone in zip(found, cuts, strict=True):
        expected = seen(alone, windows=windows)
        np.testing.assert_array_equal(photo, expected[0])


@pytest.mark.parametrize(
    ("options", "patch", "expected"),
    [
        ({"window": 224}, 16, Window(14, 7, 196)),
        ({"window": 224}, 14, Window(16, 8, 256)),
        # The short side of a photo is 21 patches, so no window has more rows.
        ({"window": 448, "window_stride": 224}, 16, Window(28, 14, 588)),
    ],
)
def test_windows_of_options(options, patch, expected):
    assert Windows.of(ClipOptions(**options), (patch,)) == Windows((expected,))
    assert Windows.of(ClipOptions(), (patch,)) is None


@pytest.mark.parametrize(
    ("options", "patch", "said"),
    [
        ({"window": 216}, 16, "window = 216 is not.*16 pixels.*use 208 or 224"),
        ({"window": 8, "window_stride": 8}, 16, "window = 8.*use 16$"),
        ({"window": 224}, 32, "window_stride = 112.*use 96 or 128"),
    ],
)
def test_windows_that_are_no_whole_patches_are_refused(options, patch, said):
    with pytest.raises(OptionError, match=rf"O01.*{said}"):
        Windows.of(ClipOptions(**options), (8, patch))


def test_windows_that_leave_patches_out_are_refused():
    with pytest.raises(OptionError, match=r"O01.*window = 224.*window_stride = 300"):
        ClipOptions(window=224, window_stride=300)
    assert ClipOptions(window_stride=300).window == 0  # it has no effect


def pooled(patches, proxy):
    """The colours of each patch of the proxy, and the mean of the window for CLIP."""
    real = patches.is_real[..., None].astype(np.float32)
    seen = (means(patches) * real).sum(axis=1) / real.sum(axis=1)
    colours = means(proxy)
    return jax.numpy.concatenate(
        [colours, jax.numpy.broadcast_to(seen[:, None], colours.shape)], axis=-1
    )


@functools.partial(jax.jit, static_argnames="windows")
def seen_by_two(patches, proxy, *, windows):
    return window_features(pooled, [patches, proxy], windows)


def test_windows_of_two_networks_are_of_the_same_place():
    """Patches of 4 and of 2 pixels; windows of 8 pixels, 4 apart, on the finer grid."""
    pixels = photo_of(10, 14, 2, seed=3)[:, :28]  # 20 x 28: 5 x 7 and 10 x 14 patches
    windows = Windows((Window(2, 1, 4), Window(4, 2, 16)), output=1, together=2)
    cuts = [patches_of(pixels, side, 150) for side in (4, 2)]
    found = seen_by_two(*cuts, windows=windows)[0]
    photo = pixels.astype(np.float32) / 255
    total, count = np.zeros((10, 14, 3)), np.zeros((10, 14, 1))
    for top, left in itertools.product(range(0, 13, 4), range(0, 21, 4)):
        rows, columns = slice(top // 2, top // 2 + 4), slice(left // 2, left // 2 + 4)
        total[rows, columns] += photo[top : top + 8, left : left + 8].mean(axis=(0, 1))
        count[rows, columns] += 1
    np.testing.assert_allclose(
        found[:140, 3:], (total / count).reshape(-1, 3), atol=1e-5
    )
    colours = means(cuts[1])[0, :140]
    np.testing.assert_allclose(found[:140, :3], colours, atol=1e-6)


def test_a_photo_of_slightly_different_sizes_is_seen_whole():
    """5 patches of 4 pixels, but 11 of 2: the second network has one window more."""
    windows = Windows((Window(2, 1, 4), Window(4, 2, 16)), output=1)
    cuts = [
        patches_of(photo_of(5, 5, 4), 4, 40),
        patches_of(photo_of(11, 11, 2), 2, 130),
    ]
    found = seen_by_two(*cuts, windows=windows)[0, :121]
    np.testing.assert_allclose(found[:, :3], means(cuts[1])[0, :121], atol=1e-6)
