"""Point prompts: the Markov maps of clicks, and the things that they find."""

import math

import numpy as np
import pytest
from scipy import ndimage

from dslo_jax import Segmenter, images, point_maps, prompts, scenes, solvers
from dslo_jax.errors import OptionError, SolverError
from dslo_jax.pipeline import Batch
from dslo_jax.pipeline.stages import watch
from tests.pipeline.conftest import CONFIG


GRID = (4, 6)
PHOTO = np.random.default_rng(0).integers(0, 256, (36, 90, 3), np.uint8)
POINTS = [(0, 0), (89, 35), (44, 20), (14, 8)]  # x, y
PATCHES = [0, 23, 14, 0]  # of a grid of 4 x 6, row by row


@pytest.fixture(scope="module")
def affinity():
    values = np.random.default_rng(1).random((24, 24), np.float32) ** 8
    return values / values.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def maps(affinity):
    return point_maps(affinity, POINTS, PHOTO, grid=GRID)


def test_a_map_is_the_velocity_of_a_chain_from_the_patch_of_the_point(affinity, maps):
    source = np.eye(24, dtype=np.float32)[PATCHES]
    expected = solvers.maximum_velocity(source, affinity)
    found = maps.velocity.reshape(4, 24)
    np.testing.assert_allclose(found, expected.velocity, rtol=1e-6)
    np.testing.assert_array_equal(found[range(4), PATCHES], 1)
    assert maps.num_steps == tuple(expected.num_steps.tolist())
    assert maps.points == tuple(POINTS)


def test_points_together_have_the_maps_that_each_has_alone(affinity, maps):
    for point, together in zip(POINTS, maps.velocity, strict=True):
        alone = point_maps(affinity, [point], PHOTO, grid=GRID)
        np.testing.assert_allclose(alone.velocity[0], together, rtol=1e-6)
        assert (alone.labels == 0).all()


def test_a_pixel_belongs_to_the_point_that_reaches_it_first(affinity, maps):
    found = point_maps(affinity, POINTS, PHOTO, grid=GRID, upsampling="bilinear")
    nearest = found.velocity.argmax(axis=0)
    # The centre of a patch has the value of the patch, without its neighbours.
    assert [found.labels[4 + 9 * r, 7 + 15 * c] for r, c in np.ndindex(GRID)] == list(
        nearest.ravel()
    )
    assert maps.labels.shape == PHOTO.shape[:2]
    assert [maps.labels[y, x] for x, y in POINTS[:3]] == [0, 1, 2]


def test_points_in_one_patch_are_noted(maps):
    note = "point 3 at (14, 8) is in the same patch as point 0 at (0, 0): equal maps"
    assert note in maps.notes
    assert 3 not in maps.labels  # a tie goes to the first


@pytest.mark.parametrize("upsampling", ["bilinear", "bilateral", "dense"])
def test_masks_grow_with_the_steps(affinity, upsampling):
    found = point_maps(affinity, POINTS[:3], PHOTO, grid=GRID, upsampling=upsampling)
    small, large, all_of_it = (found.masks(steps) for steps in (0.4, 1, 5000))
    assert (small <= large).all()
    assert small.sum() < large.sum() < all_of_it.sum() == all_of_it.size
    if upsampling == "bilinear":
        centre = large[:, 4::9, 7::15]  # of each patch
        np.testing.assert_array_equal(centre, found.velocity >= 1 / 2)


def test_what_no_chain_reaches_is_noted():
    halves = np.kron(np.eye(2), np.full((8, 8), 1 / 8)).astype(np.float32)
    found = point_maps(halves, [(3, 3)], np.zeros((32, 32, 3), np.uint8))
    assert not found.converged[0]
    assert "the chain of point 0 at (3, 3) does not reach all" in found.notes[-1]
    expected = np.zeros((32, 32), bool)
    expected[:16] = True
    np.testing.assert_array_equal(found.masks()[0][[0, -1]], expected[[0, -1]])


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([(90, 3)], r"O01.*point 0 is \(90, 3\), outside the photo of 90 x 36 pixels"),
        ([(3, 3), (3, 50)], r"O01.*point 1 .*from 0 to 35; did you mean \(50, 3\)\?"),
        ([(-1, 3)], r"O01.*\(-1, 3\)"),
        ([(math.nan, 3)], r"O01.*\(nan, 3\)"),
        ([], r"O05.*no point"),
        ([3, 3], r"O03.*expected pairs of numbers"),
        ([(3, 3, 1)], r"O03.*expected pairs of numbers"),
        ([(3, 3), (3,)], r"O03.*expected pairs of numbers"),
        ("ab", r"O03.*'ab'"),
        (None, r"O03.*None"),
    ],
)
def test_points_that_are_no_pixels_are_refused(segmenter, points, words):
    with watch() as calls, pytest.raises(OptionError, match=words):
        segmenter.prompt(PHOTO, points)
    assert not calls  # before any network runs


def test_options_without_markov_maps_are_refused(affinity, maps, segmenter):
    for options in ({"mode": "path"}, {"criterion": "increment"}):
        with pytest.raises(OptionError, match=r"O03.*'velocity'.*'saturation'"):
            segmenter.prompt(PHOTO, POINTS, **options)
    with pytest.raises(OptionError, match=r"O02.*'treshold'.*'threshold'"):
        segmenter.prompt(PHOTO, POINTS, treshold=0.5)
    with pytest.raises(OptionError, match=r"O01.*within = 0"):
        maps.masks(0)
    with pytest.raises(ValueError, match=r"\(24, 24\).*4 x 4.*pass grid="):
        point_maps(affinity, POINTS, PHOTO)
    with pytest.raises(SolverError, match=r"S03.*'point 0 at \(0, 0\)'.*negative"):
        point_maps(-affinity, POINTS, PHOTO, grid=GRID)


def test_a_segmenter_runs_no_clip_for_points(segmenter):
    points = [(0, 0), (80, 30)]
    path = segmenter.config.with_options(mode="path")  # its options are not in the way
    other = Segmenter(segmenter.networks, path)
    with watch() as calls:
        found = other.prompt(PHOTO, np.array(points) + 0.5, threshold=0.5)
    assert not {"text", "clip"} & {call.stage for call in calls}
    assert found.points == tuple(points)
    assert found.config.discrepancy == solvers.MaximumVelocity(
        threshold=0.5, max_steps=200
    )
    photo = images.read_photo(PHOTO)
    batch = Batch(segmenter.networks, [photo], prompts.parse_classes(["cat"]))
    expected = point_maps(
        batch.affinity(CONFIG)[0], points, PHOTO, config=CONFIG, threshold=0.5
    )
    np.testing.assert_array_equal(found.velocity, expected.velocity)
    np.testing.assert_array_equal(found.labels, expected.labels)


def widest_parts(labels):
    """A pixel ``(x, y)`` in the middle of the largest part of each class."""
    for label in np.unique(labels):
        parts, _ = ndimage.label(labels == label)
        part = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
        depth = ndimage.distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), part.shape)
        if part.mean() >= 0.01:
            yield (int(x), int(y)), part


def iou(mask, truth):
    return (mask & truth).sum() / (mask | truth).sum()


@pytest.mark.slow
def test_a_click_finds_the_drawn_thing_under_it():
    """Better than the places alone; ``benchmarks/points.py`` measures more scenes."""
    segmenter = Segmenter.from_pretrained("demo", offline=True, device="cpu")
    scores = []
    for seed in scenes.HELD_OUT_SEEDS[:6]:
        scene = scenes.draw_scene(seed, size=(128, 160))
        points, parts = zip(*widest_parts(scene.labels), strict=True)
        found = segmenter.prompt(scene.pixels, points)
        rows, columns = np.indices(scene.labels.shape)
        far = [np.hypot(columns - x, rows - y) for x, y in points]
        for index, (mask, part) in enumerate(zip(found.masks(), parts, strict=True)):
            scores.append(
                (
                    iou(found.labels == index, part),
                    iou(mask, part),
                    iou(np.argmin(far, axis=0) == index, part),
                    part.mean(),  # of the whole scene as a mask
                )
            )
    nearest, mask, place, whole = np.mean(scores, axis=0)
    assert nearest > 1.5 * place > 1.5 * whole
    assert nearest > 0.5
    assert mask > 0.45
