import dataclasses

import numpy as np
import pytest
from checkpoints.vit import save_vit

from dslo_jax import Segmenter
from dslo_jax.errors import SolverError
from dslo_jax.evaluation import (
    Attention,
    Cell,
    Confusion,
    Sweep,
    add_attentions,
    build_tables,
)
from dslo_jax.pairs import find_pair
from dslo_jax.pipeline import Networks
from dslo_jax.pipeline.stages import watch
from dslo_jax.runs.manifest import digest
from dslo_jax.threads import batched


FIRST_UP = (("up_blocks.1.attentions.0", 1.0),)
KEEP_ALL = {"mode": "path", "early_rejection": False}
CHANGES = (
    {},
    KEEP_ALL,
    {"mode": "kl", "suppression": "softmax", "suppression_threshold": 0.5},
    {"mode": "logits", "clip_attention": "vanilla", "upsampling": "bilinear"},
    {"affinity_layers": FIRST_UP, "timestep": 100, "affinity_temperature": 0.5},
    {"short_side": 48, "range_variance": 0.01},
)


@pytest.fixture(scope="module")
def cells(base):
    return [Cell(base.with_options(**change)) for change in CHANGES]


@pytest.fixture(scope="module")
def sweep(networks, scene_set, cells):
    return Sweep(networks, scene_set.classes, cells, batch_size=2)


@pytest.fixture(scope="module")
def labelled(sweep, scene_set, cells):
    """Labels of all photos by every cell, all cells in company."""
    found = {cell: [] for cell in cells}
    for batch in batched(scene_set, sweep.batch_size):
        for cell, results in sweep.label(batch, cells).items():
            found[cell] += results
    return found


@pytest.mark.parametrize("index", range(len(CHANGES)))
def test_a_cell_gets_exactly_the_labels_of_the_segmenter(
    networks, scene_set, cells, labelled, index
):
    segmenter = Segmenter(networks, cells[index].config)
    photos = [sample.photo for sample in scene_set]
    expected = segmenter.batch(photos, scene_set.classes, batch_size=2)
    for found, alone in zip(labelled[cells[index]], expected, strict=True):
        np.testing.assert_array_equal(found.labels, alone.labels)
        assert found.ties == alone.ties
        survived = [i for i, r in enumerate(alone.reports) if not r.rejected]
        assert found.active.tolist() == survived
        steps = [alone.num_steps[i] for i in survived]
        assert found.solved.num_steps.tolist() == steps


def test_cells_are_told_apart(labelled):
    """Different choices gave different labels: nothing was taken from a neighbour."""
    maps = [np.stack([each.labels for each in found]) for found in labelled.values()]
    same = sum(np.array_equal(a, b) for i, a in enumerate(maps) for b in maps[i + 1 :])
    assert same == 0


@pytest.fixture
def calls():
    """The calls of all stages, in the order in which they run."""
    with watch() as calls:
        yield calls


def count(calls, stage):
    return sum(call.stage == stage for call in calls)


def test_networks_run_once_per_distinct_setting(sweep, scene_set, cells, calls):
    sweep.label(list(scene_set)[:2], cells)
    assert count(calls, "clip") == 2 * 3  # photos; attention and short side vary
    assert count(calls, "vae") == 1
    assert count(calls, "unet") == 2  # two settings among the cells that attend


def test_an_oracle_does_not_make_the_network_attend_again(
    networks, scene_set, cells, calls
):
    keep_all = cells[CHANGES.index(KEEP_ALL)]
    told = Cell(keep_all.config, frozenset({"affinity"}))
    sum_norm = Cell(keep_all.config.with_options(norm="sum"))
    among = [keep_all, told, sum_norm]
    sweep = Sweep(networks, scene_set.classes, among, batch_size=2)
    found = sweep.label(list(scene_set)[:2], among)
    assert count(calls, "unet") == 1
    maps = [found[cell][0].solved.value for cell in among]
    assert not np.allclose(maps[0], maps[1])
    assert not np.allclose(maps[0], maps[2])


@pytest.fixture(scope="module")
def attentions(networks, checkpoint, base, tmp_path_factory):
    """The networks with two more attentions, and what tables know of them."""
    folder = tmp_path_factory.mktemp("dino")
    save_vit(folder, "vit", seed=5)
    pair = find_pair(checkpoint)._replace(config=base)
    return *add_attentions(networks, pair, {"dino": folder, "same": folder}), folder


def test_attentions_have_the_patches_of_the_base(networks, attentions):
    more, told, folder = attentions
    assert [each.label for each in told] == ["clip", "dino", "same", "diffusion"]
    clip, dino, same, own = told
    assert (clip.size, dino.size) == (128, 64)  # patches of 16 and 8 pixels
    assert dino.key == same.key == digest([folder])[:16]
    assert own == Attention("diffusion")
    assert more.affinity_names == ("", clip.key, dino.key)
    assert more.affinity_source() is networks.affinity_source()
    loaded = [more.affinity_source(name) for name in more.affinity_names]
    assert [source.grid for source in loaded] == [(8, 8)] * 3
    for source, name in zip(loaded, more.affinity_names, strict=True):
        assert more.grid(source.options, name) == source.grid


def test_attentions_side_by_side(attentions, scene_set, base, calls):
    """CLIP runs once, each attention once; labels are those of a segmenter with it."""
    networks, told, _ = attentions
    layers = networks.affinity_source().comparable_layers
    (table,) = build_tables(base, layers, ["foundation"], attentions=told[1:])
    sweep = Sweep(networks, scene_set.classes, table.cells, batch_size=2)
    found = sweep.label(list(scene_set)[:2], table.cells)
    assert count(calls, "clip") == 2 * 2  # row I of Table 2 has its own attention
    assert [count(calls, stage) for stage in ("vit", "vae")] == [1, 1]
    assert [count(calls, stage) for stage in ("aggregation", "unet")] == [1, 1]
    dino = table.rows[1].cells[0]
    assert found[dino] is found[table.rows[2].cells[0]]  # by another name
    own = found[table.rows[3].cells[0]]
    assert not np.allclose(found[dino][0].solved.value, own[0].solved.value)
    other = Networks(
        networks.logits.module,
        networks.tokenizer,
        networks.affinity_source(dino.attention),
    )
    alone = Segmenter(other, dino.config)
    photos = [sample.photo for sample in scene_set][:2]
    expected = alone.batch(photos, scene_set.classes, batch_size=2)
    for one, other in zip(found[dino], expected, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)


def test_a_measurement_says_what_early_rejection_did(sweep, scene_set, cells, labelled):
    batch = list(scene_set)[:2]
    keep_all = cells[CHANGES.index(KEEP_ALL)]
    measured = sweep.measure(batch, [cells[0], keep_all])
    for sample, every, some, found in zip(
        batch, measured[keep_all], measured[cells[0]], labelled[cells[0]], strict=False
    ):
        present = set(np.unique(sample.truth).tolist())
        assert every.lost == 0
        assert every.false == 20 - len(present)
        survived = set(found.active.tolist())
        assert (some.lost, some.false) == (
            len(present - survived),
            len(survived - present),
        )
        wrong = ~np.isin(found.labels, list(present))
        assert some.false_area == pytest.approx(wrong.mean())
        np.testing.assert_array_equal(
            some.confusion.counts,
            Confusion.of(sample.truth, found.labels, 20).counts,
        )
        assert some.seconds > 0


def test_a_cell_without_a_solution_does_not_stop_the_others(networks, scene_set, base):
    hopeless = Cell(base.with_options(mode="path", epsilon=1e-12))
    plain = Cell(base.with_options(mode="kl"))
    sweep = Sweep(networks, scene_set.classes, [hopeless, plain], batch_size=2)
    found = sweep.measure(list(scene_set)[:2], [hopeless, plain])
    assert isinstance(found[hopeless], SolverError)
    assert len(found[plain]) == 2


def test_photos_of_other_sizes_share_a_batch(sweep, scene_set, cells):
    """And each gets the labels that it gets in other company."""
    wide = dataclasses.replace(scene_set, seeds=range(1), size=(48, 160))
    samples = [next(iter(scene_set)), *wide]
    together = sweep.label(samples, cells)
    for index, sample in enumerate(samples):
        alone = sweep.label([sample], cells)
        for cell in cells:
            np.testing.assert_array_equal(
                together[cell][index].labels, alone[cell][0].labels
            )
