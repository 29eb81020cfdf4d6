import dataclasses

import numpy as np
import pytest
from checkpoints.vit import save_vit

from dslo_jax import Segmenter, SegmenterConfig
from dslo_jax.config import SOLVER_FIELDS
from dslo_jax.errors import SolverError
from dslo_jax.evaluation import (
    Cell,
    Confusion,
    Source,
    Sweep,
    add_sources,
    build_tables,
    sweep as sweep_module,
)
from dslo_jax.evaluation.manifest import digest
from dslo_jax.evaluation.samples import batches
from dslo_jax.pairs import find_pair


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
    for batch in batches(scene_set, sweep.batch_key, sweep.batch_size):
        for cell, results in sweep.label(batch, cells).items():
            found[cell] += results
    return found


def make_segmenter(networks, config):
    """What a user would build; modes without an affinity get none."""
    affinity = None
    if config.needs_affinity:
        affinity = networks.affinity.with_choices(
            size=config.affinity.size,
            timestep=config.affinity.timestep,
            layers=config.affinity.layers,
            temperature=config.affinity.temperature,
        )
    return Segmenter(networks.clip, networks.tokenizer, affinity, config)


@pytest.mark.parametrize("index", range(len(CHANGES)))
def test_a_cell_gets_exactly_the_labels_of_the_segmenter(
    networks, scene_set, cells, labelled, index
):
    segmenter = make_segmenter(networks, cells[index].config)
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


def test_every_field_of_the_configuration_is_part_of_some_key():
    keys = (
        *sweep_module.FEATURE_FIELDS,
        *sweep_module.AFFINITY_FIELDS,
        *sweep_module.SOURCE_FIELDS,
        *sweep_module.LABEL_FIELDS,
        *SOLVER_FIELDS,
    )
    fields = [field.name for field in dataclasses.fields(SegmenterConfig)]
    assert sorted(keys) == sorted(fields)


@pytest.fixture
def calls(monkeypatch):
    """The names of the networks' steps, in the order in which they run."""
    calls = []
    for name in ("_features", "_encode", "_attend"):
        step = getattr(Segmenter, name)

        def counted(self, *args, name=name, step=step):
            calls.append(name)
            return step(self, *args)

        monkeypatch.setattr(Segmenter, name, counted)
    return calls


def test_networks_run_once_per_distinct_setting(sweep, scene_set, cells, calls):
    sweep.label(list(scene_set)[:2], cells)
    assert calls.count("_features") == 3  # attention and short side vary
    assert calls.count("_encode") == 1
    assert calls.count("_attend") == 2  # two settings among the cells that attend


def test_an_oracle_does_not_make_the_network_attend_again(
    networks, scene_set, cells, calls
):
    keep_all = cells[CHANGES.index(KEEP_ALL)]
    told = Cell(keep_all.config, frozenset({"affinity"}))
    sum_norm = Cell(dataclasses.replace(keep_all.config, norm="sum"))
    among = [keep_all, told, sum_norm]
    sweep = Sweep(networks, scene_set.classes, among, batch_size=2)
    found = sweep.label(list(scene_set)[:2], among)
    assert calls.count("_attend") == 1
    maps = [found[cell][0].solved.values for cell in among]
    assert not np.allclose(maps[0], maps[1])
    assert not np.allclose(maps[0], maps[2])


@pytest.fixture(scope="module")
def sources(networks, checkpoint, base, tmp_path_factory):
    """The networks with two more sources, and what tables know of them."""
    folder = tmp_path_factory.mktemp("dino")
    save_vit(folder, "vit", seed=5)
    pair = find_pair(checkpoint)._replace(config=base)
    return *add_sources(networks, pair, {"dino": folder, "same": folder}), folder


def test_sources_have_the_patches_of_the_base(networks, sources):
    more, told, folder = sources
    assert [source.label for source in told] == ["clip", "dino", "same", "diffusion"]
    clip, dino, same, own = told
    assert (clip.size, dino.size) == (128, 64)  # patches of 16 and 8 pixels
    assert dino.key == same.key == digest([folder])[:16]
    assert own == Source("diffusion")
    assert set(more.sources) == {clip.key, dino.key}
    assert more.affinity is networks.affinity
    grids = [source.grid for source in (*more.sources.values(), more.affinity)]
    assert grids == [(8, 8)] * 3


def test_sources_side_by_side(sources, scene_set, base, calls):
    """CLIP runs once, each source once; labels are those of a segmenter with it."""
    networks, told, _ = sources
    (table,) = build_tables(base, networks.layers, ["foundation"], sources=told[1:])
    sweep = Sweep(networks, scene_set.classes, table.cells, batch_size=2)
    found = sweep.label(list(scene_set)[:2], table.cells)
    assert calls.count("_features") == 2  # row I of Table 2 has an attention of its own
    assert calls.count("_encode") == 2
    assert calls.count("_attend") == 2
    dino = table.rows[1].cells[0]
    assert found[dino] is found[table.rows[2].cells[0]]  # by another name
    own = found[table.rows[3].cells[0]]
    assert not np.allclose(found[dino][0].solved.values, own[0].solved.values)
    alone = Segmenter(
        networks.clip, networks.tokenizer, networks.sources[dino.source], dino.config
    )
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


def test_photos_of_other_sizes_do_not_share_a_batch(sweep, scene_set):
    turned = dataclasses.replace(scene_set, seeds=range(1), size=(64, 48))
    samples = [*scene_set, *turned, *scene_set]
    groups = list(batches(samples, sweep.batch_key, 2))
    sizes = [{sample.truth.shape for sample in group} for group in groups]
    assert all(len(each) == 1 for each in sizes)
    assert [len(group) for group in groups] == [2, 2, 2, 1]
