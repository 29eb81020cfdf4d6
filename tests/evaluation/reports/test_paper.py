import statistics

import pytest

from dslo_jax import SegmenterConfig
from dslo_jax.evaluation import TABLES, Attention, build_tables
from dslo_jax.evaluation.reports.paper import paper_columns, paper_tables, published


EIGHT = {
    *("voc21", "voc20", "context60", "context59", "coco_object", "coco_stuff"),
    *("cityscapes", "ade20k"),
}
# Scores and means are rounded to 0.1, so that a mean may be off by 0.05 twice.
ROUNDING = 0.1 + 1e-9
# Printed with a mean of 32.7; its eight scores have a mean of 37.5.
MISPRINTED = {("systems", "CLIPtrase", "clip-b16")}
# The self-attentions of Stable Diffusion at the resolution of its latents.
LAYERS = (
    *("down_blocks.0.attentions.0", "down_blocks.0.attentions.1"),
    *(f"up_blocks.3.attentions.{index}" for index in range(3)),
)
TABLES_3_AND_4 = ("layers", "attention")
BOTH = ("path", "velocity")


def test_every_table_is_whole():
    rows = {name: len(table.rows) for name, table in paper_tables().items()}
    assert rows == {
        **{"systems": 32, "components": 7},
        **{"layers_velocity": 6, "attention_velocity": 3},
        **{"layers_path": 6, "attention_path": 3},
        **{"efficiency": 5, "seconds": 2, "foundation_models": 6, "versatility": 15},
    }
    for table in paper_tables().values():
        assert table.citation.startswith("arXiv 2604.07723v1, ")
        keys = [(row.numeral, row.label, row.backbone, row.mode) for row in table.rows]
        assert len(set(keys)) == len(keys)


def test_averages_are_those_of_the_scores():
    averaged = 0
    wrong = set()
    for name, table in paper_tables().items():
        for row in table.rows:
            if row.average is None:
                continue
            assert set(row.figures) == set(table.columns)
            averaged += 1
            mean = statistics.fmean(row.figures.values())
            if abs(mean - row.average) > ROUNDING:
                wrong.add((name, row.label, row.backbone))
    assert averaged == 29 + 7 + 2 * 9
    assert wrong == MISPRINTED


def test_rows_that_stand_in_several_tables_agree():
    tables = paper_tables()
    best = {
        "path": (tables["components"].rows[4], tables["efficiency"].rows[3]),
        "velocity": (tables["components"].rows[5], tables["efficiency"].rows[4]),
    }
    for mode, rows in best.items():
        rows = (*rows, *(tables[f"{name}_{mode}"].rows[-1] for name in TABLES_3_AND_4))
        for row in rows:
            for dataset in EIGHT & set(row.figures):
                assert row.figures[dataset] == published(dataset, mode, "clip-b16")
    for row in tables["versatility"].rows:
        for known in tables["systems"].rows:
            if (row.label, row.backbone) == (known.label, known.backbone):
                assert row.mode != "none" or row.figures == known.figures


@pytest.mark.parametrize(
    ("dataset", "mode", "backbone", "score"),
    [
        ("voc21", "path", "clip-b16", 66.9),
        ("voc21", "velocity", "clip-b16", 67.8),
        ("ade20k", "velocity", "clip-l14", 23.4),
        ("coco_object", "path", "clip-l14", 42.3),
        ("cityscapes", "fused", "clip-b16", 41.4),
        ("context60", "fused", "clip-b16", None),
        ("cityscapes", "fused", "clip-l14", None),
        ("voc21", "kl", "clip-b16", None),
        ("voc21", "logits", "clip-b16", None),
        ("scenes", "path", "clip-b16", None),
        ("voc21", "path", "demo", None),
    ],
)
def test_published(dataset, mode, backbone, score):
    assert published(dataset, mode, backbone) == score


def test_all_eight_benchmarks_have_both_modes_at_both_scales():
    for dataset in EIGHT:
        for backbone in ("clip-b16", "clip-l14"):
            path, velocity = (published(dataset, m, backbone) for m in BOTH)
            assert 20 < path <= velocity < 95


def columns_of(name, dataset):
    named = ("clip-b16", "dinov2-reg-b14", "mine", "sd2-base")
    attentions = tuple(Attention(label, label, 512) for label in named)
    (table,) = build_tables(SegmenterConfig(), LAYERS, [name], attentions=attentions)
    labels = [row.label for row in table.rows]
    return {each.title: each.scores for each in paper_columns(name, labels, dataset)}


@pytest.mark.parametrize(
    ("name", "dataset", "expected"),
    [
        (
            "components",
            "ade20k",
            {"paper": (3.2, None, 6.4, 7.7, 8.8, 22.8, 23.0, 20.5)},
        ),
        (
            "attention",
            "voc21",
            {
                "paper M.V.": (63.7, 63.7, 65.5, 67.8, None),
                "paper O.P.": (62.6, 62.6, 64.3, 66.9, None),
            },
        ),
        (
            "layers",
            "cityscapes",
            {
                "paper M.V.": (37.5, 40.1, 41.9, 42.8, 42.4, 43.3, None),
                "paper O.P.": (36.4, 38.2, 40.6, 41.5, 41.3, 41.7, None),
            },
        ),
        (
            "foundation",
            "context60",
            {"paper M.V.": (7.8, 30.1, 38.0, None, 38.3)},
        ),
        ("components", "context60", {}),
        ("layers", "scenes", {}),
    ],
)
def test_ablations_beside_ours(name, dataset, expected):
    assert columns_of(name, dataset) == expected


def test_other_methods_are_beside_their_own_rows():
    columns = columns_of("versatility", "ade20k")
    (table,) = build_tables(SegmenterConfig(), LAYERS, ["versatility"])
    place = [row.label for row in table.rows].index("rf-clip")
    assert {title: scores[place] for title, scores in columns.items()} == {
        "paper alone": 20.4,
        "paper + O.P.": 22.9,
        "paper + M.V.": 23.1,
    }
    assert all(scores[0] is None for scores in columns.values())


def test_only_tables_2_to_4_and_foundation_models_have_counterparts():
    citations = {
        name: [
            each.citation.split(", ")[1]
            for each in paper_columns(name, labels, "voc21")
        ]
        for name in TABLES
        for (table,) in [build_tables(SegmenterConfig(), LAYERS, [name])]
        for labels in [[row.label for row in table.rows]]
    }
    assert {name: found for name, found in citations.items() if found} == {
        "components": ["Table 2"],
        "attention": ["Table 3", "Table 4"],
        "layers": ["Table 3", "Table 4"],
        "versatility": ["Sec. 8"] * 3,
        "foundation": ["Sec. 8"],
    }
