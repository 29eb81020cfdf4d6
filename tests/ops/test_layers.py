"""Labels by layers are those of the tiles, and of the upsampled maps."""

import numpy as np
import pytest

from dslo_jax import ops, tuning


def make(classes, grid, size, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.random((classes, *grid)).astype(np.float32)
    return values, rng.integers(0, 256, (*size, 3)).astype(np.uint8)


def label(photos, values, counts, variances=(1.0, 0.1), *, together=None):
    """Labels of photos with maps ``[photos classes h w]``, as the pipeline has them."""
    grid = values.shape[2:]
    flat = values.reshape(*values.shape[:2], -1)
    means = [photo.means for photo in photos if photo.means is not None]
    codes = []
    for call in ops.divide_layers(max(photo.total for photo in photos)):
        found = ops.label_layers(
            flat,
            np.array(counts, np.int32),
            np.stack(means) if means else None,
            ops.cut_batch(photos, call),
            np.array(variances, np.float32),
            grid=grid,
            together=together or call.count,
        )
        codes.append(np.asarray(found))
    together = np.concatenate(codes, axis=1)
    return [photo.put_back(mine) for photo, mine in zip(photos, together, strict=True)]


def assert_same(found, expected):
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.tied, expected.tied)


@pytest.mark.parametrize(
    ("grid", "size"), [((8, 8), (64, 64)), ((6, 9), (50, 75)), ((8, 8), (5, 12))]
)
@pytest.mark.parametrize("variances", [(1.0, 0.1), (0.3, 0.0001)])
def test_bilateral_labels_are_those_of_the_tiles(grid, size, variances):
    values, pixels = make(5, grid, size)
    photo = ops.PhotoLayers(pixels, grid, coloured=True)
    (found,) = label([photo], values[None], [5], variances)
    spatial, colour = variances
    expected = ops.joint_bilateral_labels(
        values, pixels, spatial_variance=spatial, range_variance=colour
    )
    assert_same(found, expected)


@pytest.mark.parametrize("size", [(64, 64), (31, 90), (5, 12)])
def test_bilinear_labels_are_those_of_the_maps(size):
    values, pixels = make(5, (8, 8), size)
    photo = ops.PhotoLayers(pixels, (8, 8), coloured=False)
    assert photo.means is None
    (found,) = label([photo], values[None], [5])
    assert_same(found, ops.bilinear_labels(values, size))


def test_photos_of_a_batch_have_their_own_size_and_number_of_classes():
    grid, counts = (6, 8), [4, 2, 3]
    made = [
        make(4, grid, size, i) for i, size in enumerate([(40, 50), (9, 70), (6, 8)])
    ]
    photos = [ops.PhotoLayers(pixels, grid, coloured=True) for _, pixels in made]
    values = np.stack([maps for maps, _ in made])
    found = label(photos, values, counts, together=8)
    for mine, (maps, pixels), count in zip(found, made, counts, strict=True):
        assert_same(mine, ops.joint_bilateral_labels(maps[:count], pixels))


def test_equal_maps_are_ties_of_the_lowest_class():
    values, pixels = make(4, (6, 6), (30, 30))
    values[1] = values[3] = values[0] + 2
    photo = ops.PhotoLayers(pixels, (6, 6), coloured=True)
    (found,) = label([photo], values[None], [4])
    assert found.tied.all()
    assert (found.labels == 1).all()


def test_layers_made_before_are_those_cut_later():
    _, pixels = make(1, (8, 8), (70, 100))
    made, cut = (ops.PhotoLayers(pixels, (8, 8), coloured=True) for _ in range(2))
    made.make_all()
    calls = list(ops.divide_layers(made.total))
    assert len(calls) > 1
    for call in calls:
        for one, other in zip(made.cut(call), cut.cut(call), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("total", [1, 16, 17, 64, 70, 96, 2961])
def test_layers_are_divided_among_calls_of_few_sizes(total):
    calls = list(ops.divide_layers(total))
    assert {call.count for call in calls} <= set(tuning.LAYERS)
    assert [call.first for call in calls] == [64 * i for i in range(len(calls))]
    assert sum(call.count for call in calls) - total < max(tuning.LAYERS)
    assert calls[-1].first < total


def test_a_step_holds_what_the_platform_allows():
    assert ops.layers_together(64, 1, 8, 4096, "tpu") == 64
    assert ops.layers_together(64, 8, 24, 4096, "tpu") == 8
    assert ops.layers_together(64, 8, 24, 4096, "gpu") == 64
    assert ops.layers_together(16, 64, 384, 16384, "tpu") == 1
