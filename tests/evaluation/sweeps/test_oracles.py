import numpy as np
import pytest

from dslo_jax.evaluation import IGNORE, Cell, Confusion, Sample, Sweep
from dslo_jax.evaluation.sweeps import oracles
from dslo_jax.images import Photo
from dslo_jax.prompts import parse_classes


COLORS = np.array([[255, 0, 0], [0, 0, 255], [0, 255, 0], [255, 255, 0]], np.uint8)


@pytest.fixture(scope="module")
def quarters():
    """Four plain squares whose edges are edges of the 8 x 8 grid."""
    truth = np.repeat(np.repeat(np.arange(4).reshape(2, 2), 32, 0), 32, 1)
    photo = Photo(COLORS[truth], None, (), False)
    return Sample("quarters", photo, truth.astype(np.uint8))


def make_truth(height=24, width=32, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, (height, width)).astype(np.uint8)


def test_shares_are_the_area_of_each_class_under_a_cell():
    truth = make_truth()
    truth[:3, :4] = IGNORE
    shares = oracles.class_shares(truth, 5, (8, 8)).reshape(5, 8, 8)
    blocks = truth.reshape(8, 3, 8, 4).swapaxes(1, 2).reshape(8, 8, 12)
    for label in range(5):
        np.testing.assert_allclose(
            shares[label], np.mean(blocks == label, axis=2), atol=1e-6
        )
    assert shares[:, 0, 0].sum() == 0
    assert (shares[4] == 0).all()


def test_shares_of_a_photo_that_is_no_multiple_of_the_grid():
    shares = oracles.class_shares(make_truth(25, 31), 4, (8, 8))
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-5)


def test_true_map_is_the_majority_and_nothing_where_all_is_ignored():
    shares = np.array([[0.5, 0.2, 0], [0.4, 0.3, 0]], np.float32)
    np.testing.assert_array_equal(oracles.true_map(shares), [[1, 0, 0], [0, 1, 0]])


def test_true_affinity_is_uniform_within_a_segment():
    shares = np.array([[1, 0, 0.6, 0], [0, 1, 0.4, 0]], np.float32)
    affinity = oracles.true_affinity(shares)
    expected = np.array([[1, 0, 1, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 2]]) / 2
    np.testing.assert_allclose(affinity, expected, atol=1e-8)
    assert (affinity > 0).all()
    np.testing.assert_allclose(affinity.sum(axis=1), 1, rtol=1e-6)


def test_true_seeds_cover_the_cells_of_each_class():
    shares = np.zeros((4, 4), np.float32)
    shares[0] = [1, 0.6, 0, 0.3]
    shares[1] = [0, 0, 1, 0.7]
    shares[2] = [0, 0.4, 0, 0]  # nowhere the majority
    estimate = np.full((4, 4), 0.25, np.float32)
    seeds = oracles.true_seeds(estimate, shares)
    np.testing.assert_array_equal(
        seeds, [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5], [0, 1, 0, 0], [0.25] * 4]
    )


def test_classes_of_a_photo():
    truth = np.array([[2, IGNORE], [0, 2]], np.uint8)
    assert oracles.classes_of(truth, 4).tolist() == [True, False, True, False]


@pytest.fixture(scope="module")
def sweep(networks, base):
    sharp = base.with_options(range_variance=0.01)
    everything = frozenset({"classes", "seeds", "affinity"})
    cells = [
        Cell(sharp.with_options(mode=mode), everything) for mode in ("velocity", "path")
    ]
    kl = sharp.with_options(mode="kl")
    cells += [Cell(kl), Cell(kl, frozenset({"classes"}))]
    cells += [Cell(sharp, frozenset({each})) for each in ("map", "shares")]
    classes = parse_classes(["red", "blue", "green", "yellow", "grey"])
    return Sweep(networks, classes, cells, batch_size=2)


def test_with_all_steps_true_the_labels_are(sweep, quarters):
    perfect = [
        cell
        for cell in sweep.cells
        if {"classes", "seeds", "affinity"} <= cell.oracles
        or cell.oracles & {"map", "shares"}
    ]
    assert len(perfect) == 4
    for cell, found in sweep.measure([quarters], perfect).items():
        assert found[0].confusion.mean_iou == 1, cell
        assert found[0].lost == found[0].false == 0


def test_random_networks_are_not_perfect(sweep, quarters):
    plain = [cell for cell in sweep.cells if not cell.oracles]
    (found,) = sweep.measure([quarters], plain).values()
    assert found[0].confusion.mean_iou < 0.9


def test_true_classes_replace_early_rejection(sweep, quarters):
    cells = [cell for cell in sweep.cells if cell.oracles == {"classes"}]
    (found,) = sweep.label([quarters], cells).values()
    assert found[0].active.tolist() == [0, 1, 2, 3]
    assert set(np.unique(found[0].labels).tolist()) <= {0, 1, 2, 3}


def test_true_classes_that_all_survived_anyway_change_nothing(networks, base, quarters):
    """The restart from the logits is that of the pipeline."""
    for suppression in ("minmax", "softmax"):
        config = base.with_options(
            early_rejection=False, suppression=suppression, mode="kl"
        )
        plain, told = Cell(config), Cell(config, frozenset({"classes"}))
        classes = parse_classes(["red", "blue", "green", "yellow"])
        sweep = Sweep(networks, classes, [plain, told], batch_size=2)
        found = sweep.label([quarters], [plain, told])
        np.testing.assert_array_equal(found[plain][0].labels, found[told][0].labels)
        np.testing.assert_array_equal(
            found[plain][0].solved.value, found[told][0].solved.value
        )


def test_the_grid_has_a_ceiling(sweep):
    """What is finer than a cell is lost, however true the map."""
    truth = np.zeros((64, 64), np.uint8)
    truth[:, ::7] = 1
    sample = Sample("stripes", Photo(COLORS[truth], None, (), False), truth)
    cells = [cell for cell in sweep.cells if cell.oracles == {"map"}]
    (found,) = sweep.measure([sample], cells).values()
    assert 0.4 < found[0].confusion.mean_iou < 0.5
    assert found[0].confusion.counts.sum() == truth.size


def test_contradicting_oracles_are_refused(base):
    with pytest.raises(ValueError, match="at most one of 'map' and 'shares'"):
        Cell(base, frozenset({"map", "shares"}))


def test_ignored_pixels_do_not_count(sweep, quarters):
    truth = quarters.truth.copy()
    truth[:32, :32] = IGNORE
    cells = [cell for cell in sweep.cells if cell.oracles == {"map"}]
    (found,) = sweep.measure([quarters._replace(truth=truth)], cells).values()
    assert found[0].confusion.counts.sum() == 3 * 32 * 32
    assert isinstance(found[0].confusion, Confusion)
    assert found[0].confusion.pixel_accuracy == 1
