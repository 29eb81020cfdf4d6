import copy
import dataclasses
import json
import sys

import pytest
from checkpoints.vit import save_vit

from dslo_jax import cli
from dslo_jax.errors import OptionError
from dslo_jax.evaluation import (
    Cell,
    Confusion,
    Journal,
    Row,
    SceneSet,
    Sweep,
    Table,
    build_tables,
)
from dslo_jax.evaluation.reports import ablation_plots
from dslo_jax.evaluation.reports.ablation_markdown import render
from dslo_jax.evaluation.reports.ablation_plots import draw_tables
from dslo_jax.evaluation.reports.ablation_result import ablation_result, summarise
from dslo_jax.evaluation.sweeps.run import run
from dslo_jax.files import write_json
from dslo_jax.pipeline import programs


CIRCUMSTANCES = {
    "device": {"platform": "cpu", "kind": "cpu"},
    "versions": {"jax": "1", "dslo-jax": "2"},
    "checkpoint": "0123456789abcdef",
    "batch_size": 2,
}
LAYERS = ("down_blocks.0.attentions.0", "up_blocks.3.attentions.0")
HEADER = {"checkpoint": "0123456789abcdef"}


@pytest.fixture(scope="module")
def tables(base):
    cells = [
        Cell(base.with_options(mode=mode, range_variance=variance))
        for mode in ("logits", "kl")
        for variance in (0.1, 0.01)
    ]
    hopeless = Cell(base.with_options(mode="path", epsilon=1e-12))
    return (
        Table(
            "variance",
            "Variance",
            ("logits", "KL"),
            (
                Row("0.1", (cells[0], cells[2]), 0.1),
                Row("0.01", (cells[1], cells[3]), 0.01),
            ),
        ),
        Table("names", "Names", ("only",), (Row("a", (cells[0],)), Row("b", (None,)))),
        Table("none", "No solution", ("only",), (Row("epsilon", (hopeless,)),)),
    )


@pytest.fixture(scope="module")
def sweep(networks, scene_set, tables):
    cells = [cell for table in tables for cell in table.cells]
    return Sweep(networks, scene_set.classes, cells, batch_size=2)


@pytest.fixture(scope="module")
def finished(sweep, tables, base, scene_set, tmp_path_factory):
    """The journal and the result of a run that nothing disturbed."""
    path = tmp_path_factory.mktemp("run") / "journal.jsonl"
    seen = []
    run(sweep, scene_set, Journal(path, HEADER), watch=lambda *each: seen.append(each))
    assert seen == [(2, 3), (3, 3)]
    journal = Journal(path, HEADER)
    return path, ablation_result(tables, base, journal, scene_set, CIRCUMSTANCES)


def without_seconds(found):
    found = copy.deepcopy(found)
    for cell in found["cells"].values():
        cell.pop("seconds", None)
        cell.pop("logits_seconds", None)
    return found


def test_an_interrupted_run_ends_in_the_same_result(
    finished, sweep, tables, base, scene_set, tmp_path
):
    path, expected = finished
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3  # the header and a line for each batch
    torn = tmp_path / "journal.jsonl"
    torn.write_bytes(b"".join(lines[:2]) + lines[2][:40])
    journal = Journal(torn, HEADER)
    measured = count_batches(sweep)
    run(sweep, scene_set, journal)
    assert measured == [1]  # the second batch alone was measured again
    again = ablation_result(
        tables, base, Journal(torn, HEADER), scene_set, CIRCUMSTANCES
    )
    assert without_seconds(again) == without_seconds(expected)


def count_batches(sweep):
    """Sizes of the batches that a sweep measures from here on."""
    sizes, measure = [], sweep.measure

    def counted(samples, cells):
        sizes.append(len(samples))
        return measure(samples, cells)

    sweep.measure = counted
    return sizes


def test_a_finished_run_measures_nothing(finished, sweep, scene_set):
    path, _ = finished
    content = path.read_bytes()
    sizes = count_batches(sweep)
    run(sweep, scene_set, Journal(path, HEADER))
    assert not sizes
    assert path.read_bytes() == content


def test_further_cells_and_photos_join(
    finished, networks, sweep, tables, base, scene_set, tmp_path
):
    _, expected = finished
    path = tmp_path / "journal.jsonl"
    few = dataclasses.replace(scene_set, seeds=range(2))
    first = Sweep(networks, scene_set.classes, tables[1].cells, batch_size=2)
    run(first, few, Journal(path, HEADER))
    run(sweep, scene_set, Journal(path, HEADER))
    again = ablation_result(
        tables, base, Journal(path, HEADER), scene_set, CIRCUMSTANCES
    )
    assert without_seconds(again) == without_seconds(expected)


def test_the_result_holds_what_was_measured(finished, sweep, tables, scene_set):
    _, found = finished
    cell = tables[0].cells[1]
    entry = found["cells"][cell.key]
    total = Confusion.empty(20)
    samples = list(scene_set)
    for batch in (samples[:2], samples[2:]):
        for measured in sweep.measure(batch, [cell])[cell]:
            total += measured.confusion
    assert entry["miou"] == total.mean_iou
    assert entry["pixel_accuracy"] == total.pixel_accuracy
    assert entry["photos"] == 3
    assert entry["changes"] == {"mode": "kl"}
    assert entry["converged"] == 1
    assert found["dataset"]["photos"] == 3
    assert found["classes"][:2] == ["sky", "cloud"]


def test_a_cell_that_failed_somewhere_has_no_score(finished, tables):
    _, found = finished
    entry = found["cells"][tables[2].cells[0].key]
    assert "miou" not in entry
    assert entry["failed"] == 3
    assert "S03" in entry["error"][0]
    mixed = [{"error": "x"}, {"counts": []}]
    assert "miou" not in summarise(mixed, ["a", "b"])


def test_the_time_of_the_logits_is_that_of_the_cell_that_computed_them(finished):
    """All cells of this sweep share the logits of a batch, so one of them has it."""
    journal, _ = finished
    found = [
        record["logits_seconds"]
        for record in Journal(journal, HEADER).records.values()
        if "logits_seconds" in record
    ]
    assert len(found) == 3  # photos, in two batches
    assert min(found) > 0
    means = ("lost", "false", "false_area", "num_steps", "converged", "ties")
    record = {"counts": [], "seconds": 1.0, **dict.fromkeys(means, 0.0)}
    timed = [record | {"logits_seconds": seconds} for seconds in (3.0, 1.0, 2.0)]
    assert summarise([record, *timed], ["a", "b"])["logits_seconds"] == 2.0
    assert "logits_seconds" not in summarise([record], ["a", "b"])


def test_the_table_of_logits_shows_their_time(finished, tables):
    _, found = finished
    found = copy.deepcopy(found)
    found["tables"][0]["name"] = "versatility"
    for cell in tables[0].cells:
        found["cells"][cell.key].pop("logits_seconds", None)
    found["cells"][tables[0].cells[1].key]["logits_seconds"] = 0.25
    lines = render(found).splitlines()
    assert "| | logits | KL | seconds for the logits |" in lines
    assert sum(line.endswith("| 0.25 |") for line in lines) == 1


def test_a_result_is_strict_json(finished, tmp_path):
    _, found = finished
    write_json(tmp_path / "ablation.json", found)
    text = (tmp_path / "ablation.json").read_text()
    assert "NaN" not in text
    assert json.loads(text) == json.loads(json.dumps(found))


def test_markdown_marks_the_best_of_each_column(finished, tables):
    _, found = finished
    found = copy.deepcopy(found)
    for cell, score in zip(tables[0].cells, (0.5, 0.4, 0.25, 0.45), strict=True):
        found["cells"][cell.key]["miou"] = score
    lines = render(found).splitlines()
    assert "| | logits | KL |" in lines
    assert "| 0.1 | **50.0** | 40.0 |" in lines
    assert "| 0.01 | 25.0 | **45.0** |" in lines
    assert "| b |  |" in lines
    assert "| epsilon | no solution |" in lines


class Renamed(SceneSet):
    """Scenes that pass for another data set."""

    def describe(self):
        return super().describe() | {"name": "ade20k"}


@pytest.fixture(scope="module")
def beside(finished, base):
    """A result on what the paper has measured as well; no photo is measured."""
    path, _ = finished
    tables = build_tables(base, LAYERS, ["attention", "timestep"])
    samples = Renamed(range(3), size=(48, 64))
    return ablation_result(tables, base, Journal(path, HEADER), samples, CIRCUMSTANCES)


def test_figures_of_the_paper_stand_beside_ours(beside):
    assert beside["paper"] == {
        "source": "arXiv 2604.07723v1, Table 1",
        "percent": {
            "ViT-B/16": {"velocity": 23.0, "path": 22.8},
            "ViT-L/14": {"velocity": 23.4, "path": 23.4},
        },
    }
    attention, timestep = beside["tables"]
    assert "paper" not in timestep
    assert [each["percent"] for each in attention["paper"]] == [
        [17.5, 17.5, 21.5, 23.0, None],
        [16.3, 16.3, 20.5, 22.8, None],
    ]
    assert attention["paper"][1]["source"] == "arXiv 2604.07723v1, Table 4"
    text = render(beside)
    assert "Table 1) has: ViT-B/16, velocity 23.0, path 22.8; ViT-L/14, " in text
    assert (
        "\n| | M.V. | O.P. | paper M.V. | paper O.P. |\n|---|---|---|---|---|\n" in text
    )
    assert "\n| qq_mean | - | - | 21.5 | 20.5 |\n" in text
    assert (
        "arXiv 2604.07723v1, Table 4; all with CLIP ViT-B/16. Its origin may be" in text
    )
    assert "\n| | M.V. | O.P. |\n" in text  # the other table
    part = beside | {"dataset": beside["dataset"] | {"published_photos": 2000}}
    assert "Table 1) has on 2000 photos: ViT-B/16" in render(part)


def test_figures_of_the_paper_are_marked_in_plots(beside):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    table, cells = beside["tables"][0], beside["cells"]
    ablation_plots._draw_bars(axes, table, cells)
    marks = [line for line in axes.get_lines() if line.get_marker() == "D"]
    found = [list(zip(*line.get_data(), strict=True)) for line in marks]
    # At the middle of the bars of each mode: four rows, two bars of 0.4 each.
    assert found == [
        [(17.5, 0.0), (17.5, 1.0), (21.5, 2.0), (23.0, 3.0)],
        [(16.3, 0.4), (16.3, 1.4), (20.5, 2.4), (22.8, 3.4)],
    ]
    assert "paper" in axes.get_legend_handles_labels()[1]


def test_scenes_have_no_figures_of_the_paper(finished):
    _, found = finished
    assert "paper" not in json.dumps(found)
    assert "aper" not in render(found)


def test_plots_are_drawn(finished, tmp_path):
    pytest.importorskip("matplotlib")
    files = draw_tables(finished[1], tmp_path)
    assert [file.name for file in files] == ["variance.png", "names.png", "none.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_plots_without_matplotlib_say_what_to_install(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(OptionError, match=r"O05.*dslo-jax\[plot\]"):
        draw_tables(finished[1], tmp_path)


def test_command_writes_result_and_tables(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(programs.DISCREPANCY, "_compiled", {})
    config = tmp_path / "base.toml"
    config.write_text('affinity_size = 64\nshort_side = 64\ntemplates = "single"\n')
    out = tmp_path / "out"
    arguments = (
        "ablate",
        *("--model", str(checkpoint), "--config", str(config), "--out", str(out)),
        *(
            "--seeds",
            "0:2",
            "--size",
            "48x64",
            "--batch",
            "2",
            "--tables",
            "divergence",
        ),
    )
    assert cli.main(arguments) == 0
    found = json.loads((out / "ablation.json").read_text())
    assert found["schema"] == "dslo.ablation.v1"
    assert [table["name"] for table in found["tables"]] == ["divergence"]
    assert all(cell["photos"] == 2 for cell in found["cells"].values())
    assert "Direction of the divergence" in (out / "ablation.md").read_text()
    err = capsys.readouterr().err
    assert "choices of options on 2 photos. The first batch of 2 compiles" in err
    assert "2/2 photos" in err
    assert "compiling solver (once per shape)\n" in err
    assert cli.main([*arguments, "--batch", "1"]) == OptionError.exit_code
    assert "batch_size = 2, now it is 1" in capsys.readouterr().err


def test_command_compares_attentions(checkpoint, tmp_path, capsys):
    save_vit(tmp_path / "vit", "dinov2_with_registers", seed=5)
    config = tmp_path / "base.toml"
    config.write_text('affinity_size = 64\nshort_side = 64\ntemplates = "single"\n')
    arguments = [
        *("ablate", "--model", str(checkpoint), "--config", str(config)),
        *("--out", str(tmp_path / "out"), "--seeds", "0:1", "--size", "48x64"),
        *("--batch", "1", "--tables", "foundation"),
        *("--sources", f"dinov2-reg-b14={tmp_path / 'vit'}"),
    ]
    assert cli.main(arguments) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "ablation.json").read_text())
    (table,) = found["tables"]
    rows = {row["label"]: row["cells"] for row in table["rows"]}
    assert list(rows) == ["none", "clip", "dinov2-reg-b14", "diffusion"]
    cells = found["cells"]
    assert all(
        cells[key]["photos"] == 1 for keys in rows.values() for key in keys if key
    )
    changes = cells[rows["clip"][1]]["changes"]
    assert changes == {"mode": "path", "affinity_size": 128}
    keys = [cells[keys[0]].get("source") for keys in rows.values()]
    assert keys[0] is keys[3] is None
    assert len({*keys}) == 3
    assert "| dinov2-reg-b14 | M.V. |" in (tmp_path / "out" / "ablation.md").read_text()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--sources", "=dino", "expected NAME=FOLDER"),
        ("--sources", "a=dino-b8 a=x", "each name once"),
        ("--tables=norm --sources", "dino-b8", "only on the table foundation"),
        ("--seeds", "5", "FIRST:END"),
        ("--seeds", "5:5", "is empty"),
        ("--size", "12x160", "HEIGHTxWIDTH"),
        ("--tables", "norm,wind", "'wind' is unknown"),
    ],
)
def test_bad_options_are_told(checkpoint, tmp_path, capsys, option, value, message):
    arguments = [
        "ablate",
        "--model",
        str(checkpoint),
        "--out",
        str(tmp_path),
        *option.split(),
        *value.split(),
    ]
    assert cli.main(arguments) == OptionError.exit_code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
