"""The steps before and after the solvers of the reference, on cases made by hand."""

import itertools

import numpy as np
import pytest
import torch

from torch_bridge import reference


def test_rejection_keeps_the_winners_in_order():
    logits = torch.tensor([[0.3, 0.1, 0.3], [0.2, 0.1, 0.1], [0.3, 0.2, 0.0]])
    assert reference.reject_classes(logits).tolist() == [0, 2]
    assert reference.reject_classes(logits, share=0.4).tolist() == [0]
    assert reference.reject_classes(logits, share=0.9).tolist() == [0]


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ("none", [[1, 1, 1, 1], [1, 1, 1, 1]]),
        ("minmax", [[1, 1, 0, 0], [0, 0, 0, 1]]),
        ("softmax", [[1, 1, 0, 0], [0, 0, 0, 1]]),
        ("relative", [[1, 1, 0, 0], [0, 0, 0, 1]]),
    ],
)
def test_suppression_readings(method, wanted):
    logits = torch.tensor([[0.30, 0.295, 0.25, 0.10], [0.20, 0.21, 0.26, 0.29]])
    keep = reference.suppress(logits, method=method, threshold=0.9)
    assert keep.int().tolist() == wanted


@pytest.mark.parametrize("method", ["softmax", "minmax", "relative"])
def test_every_class_keeps_a_patch(method):
    logits = torch.tensor([[0.9, 0.8, 0.9], [-0.9, -0.5, -0.9], [0.4, 0.4, 0.4]])
    keep = reference.suppress(logits, method=method, threshold=1.0)
    assert keep.any(dim=1).all()
    assert keep[1].tolist() == [False, True, False]
    source = reference.normalize(logits, keep, scale=100.0)
    torch.testing.assert_close(source.sum(dim=1), torch.ones(3))
    assert (source[~keep] == 0).all()


def test_a_flat_map_keeps_everything():
    keep = reference.suppress(torch.full((1, 4), 0.2))
    assert keep.all()


def test_normalisation_is_a_softmax_over_kept_patches():
    logits = torch.tensor([[0.1, 0.3, 0.2]])
    keep = torch.tensor([[True, False, True]])
    source = reference.normalize(logits, keep, scale=10.0)
    odds = np.exp(1.0)
    wanted = torch.tensor([[1 / (1 + odds), 0, odds / (1 + odds)]], dtype=torch.float32)
    torch.testing.assert_close(source, wanted)


def test_mean_colours_count_pixels_by_their_share():
    photo = torch.tensor([1.0, 4.0, 7.0])[:, None, None].expand(3, 2, 3)
    colours = reference.cell_colours(photo, 2, 1)
    wanted = torch.tensor([(1 + 2) / 1.5, (2 + 7) / 1.5])
    torch.testing.assert_close(colours[:, 0, 0], wanted)


def random_case(dtype=torch.float64, size=(7, 9), grid=(3, 4)):
    generator = torch.Generator().manual_seed(5)
    values = torch.randn(2, *grid, generator=generator, dtype=dtype)
    photo = torch.rand(*size, 3, generator=generator, dtype=dtype)
    return values, photo


def test_mean_colours_are_the_mean_colour():
    _, photo = random_case()
    colours = reference.cell_colours(photo, 3, 4)
    torch.testing.assert_close(colours.mean(dim=(0, 1)), photo.mean(dim=(0, 1)))


@pytest.mark.parametrize("size", [(7, 9), (6, 8), (2, 3), (1, 11)])
def test_bilateral_equals_a_loop_over_pixels_and_patches(size):
    values, photo = random_case(size=size)
    actual = reference.joint_bilateral_upsample(
        values, photo, spatial_variance=1.3, range_variance=0.2
    )
    colours = reference.cell_colours(photo, 3, 4).numpy()
    rows, columns = size
    for row, column in itertools.product(range(rows), range(columns)):
        y, x = (row + 0.5) * 3 / rows, (column + 0.5) * 4 / columns
        total, result = 0.0, np.zeros(2)
        for i, j in itertools.product(range(3), range(4)):
            if abs(i - int(y)) > 2 or abs(j - int(x)) > 2:
                continue
            distance = (y - i - 0.5) ** 2 + (x - j - 0.5) ** 2
            contrast = ((photo[row, column].numpy() - colours[i, j]) ** 2).sum()
            weight = np.exp(-distance / 1.3) * np.exp(-contrast / 0.2)
            total += weight
            result += weight * values[:, i, j].numpy()
        np.testing.assert_allclose(actual[:, row, column], result / total, rtol=1e-12)


def test_dense_window_equals_a_loop_over_pairs_of_pixels():
    values, photo = random_case(size=(6, 10), grid=(2, 4))
    actual = reference.dense_bilateral_upsample(
        values, photo, spatial_variance=0.5, range_variance=0.1
    )
    large = reference.resize(values, (6, 10)).numpy()
    colours = photo.numpy()
    pixels = list(itertools.product(range(6), range(10)))
    for row, column in pixels:
        total, result = 0.0, np.zeros(2)
        for i, j in pixels:
            distance = ((row - i) / 3) ** 2 + ((column - j) / 2.5) ** 2
            if distance > 1.5**2:  # three standard deviations of half a patch
                continue
            contrast = ((colours[row, column] - colours[i, j]) ** 2).sum()
            weight = np.exp(-distance / 0.5 - contrast / 0.1)
            total += weight
            result += weight * large[:, i, j]
        np.testing.assert_allclose(actual[:, row, column], result / total, rtol=1e-12)


@pytest.mark.parametrize(
    "upsample",
    [reference.joint_bilateral_upsample, reference.dense_bilateral_upsample],
)
def test_upsampling_stays_within_the_values(upsample):
    values, photo = random_case(torch.float32)
    maps = upsample(values, photo)
    assert (maps.amax(dim=(1, 2)) <= values.amax(dim=(1, 2)) + 1e-6).all()
    assert (maps.amin(dim=(1, 2)) >= values.amin(dim=(1, 2)) - 1e-6).all()
    constant = torch.full_like(values, 0.3)
    torch.testing.assert_close(
        upsample(constant, torch.zeros_like(photo)), torch.full((2, 7, 9), 0.3)
    )


def test_resizing_is_bilinear_between_patch_centres():
    values = torch.tensor([[[0.0, 1.0]]])
    wanted = torch.tensor([[[0.0, 0.25, 0.75, 1.0]]])
    torch.testing.assert_close(reference.resize(values, (1, 4)), wanted)
