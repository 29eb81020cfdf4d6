"""``dslo bench plan``: the arithmetic, and the origins of all figures."""

import json

import pytest

from dslo_jax import cli
from dslo_jax.bench.compile.report import whole_image
from dslo_jax.bench.compile.stages import Size, sizes_alike, stage_names
from dslo_jax.bench.plan import Assumptions, Cost, choose_cost, make_plan, read_costs
from dslo_jax.errors import OptionError


ASSUMED = Assumptions(0.5, 2e6, 1e5, 1.0, 0.25)
COST = Cost("gpu NVIDIA H200", 0.018, True, "measured: here")


def row(images, rate, **more):
    return {
        **{"scenario": "Offline", "stage": "end to end", "name": "dslo-jax"},
        **{"mode": "velocity", "precision": "bfloat16", "affinity_size": 512},
        **{"patches": 4096, "classes": 8, "height": 512, "width": 512},
        **{"images": images, "images_per_s": rate, "oom": rate is None},
        **more,
    }


@pytest.fixture
def measured(tmp_path):
    path = tmp_path / "measured.json"
    rows = [row(1, 30.0), row(8, 50.0), row(16, None), row(8, 99.0, name="torch")]
    rows += [row(8, 70.0, mode="path"), row(8, 90.0, scenario="files")]
    machine = {"device": {"platform": "gpu", "kind": "NVIDIA H200"}}
    content = {"schema": "dslo.bench.pipeline.v2", "machine": machine, "rows": rows}
    path.write_text(json.dumps(content))
    return path


def values(figures):
    return {figure.name: figure.value for figure in figures}


def test_devices_follow_from_hours():
    found = values(make_plan(1e6, COST, ASSUMED, hours=2.0))
    assert found["device-hours"] == pytest.approx(10.0)  # 1e6 x 0.018 / 0.5 / 3600
    assert found["devices"] == 5
    assert found["hours"] == pytest.approx(2.0)
    assert found["input"] == 2e12
    assert found["output"] == 1e11
    assert found["output over the network (egress)"] == 2.5e10
    assert found["network"] == pytest.approx((2e12 + 2.5e10) / 7200)


def test_hours_follow_from_devices_and_a_part_of_a_device_is_a_device():
    found = values(make_plan(1e6, COST, ASSUMED, devices=4))
    assert found["hours"] == pytest.approx(2.5)
    assert values(make_plan(1e6, COST, ASSUMED, hours=3.0))["devices"] == 4
    assert values(make_plan(1.0, COST, ASSUMED, hours=1.0))["devices"] == 1


def test_every_figure_has_an_origin():
    figures = make_plan(1e6, COST, ASSUMED, hours=2.0)
    assert all(figure.origin for figure in figures)
    assert [f.origin for f in figures if f.unit == "ms"] == ["measured: here"]


def test_the_best_batch_of_our_own_rows_counts(measured):
    (cost,) = read_costs(measured, "velocity")
    assert cost.seconds == pytest.approx(0.02)
    assert "measured.json, Offline, velocity, bfloat16" in cost.origin
    assert "batch 8, 50 photos/s" in cost.origin


def test_an_estimate_is_the_sum_of_all_compiled_stages(tmp_path):
    size, rows = Size(4096, 8, 2, "bfloat16"), []
    for stage in stage_names():
        about = sizes_alike(stage, size)._asdict()
        estimate = {"seconds": 0.001}
        rows.append(
            {"target": "v5e", "devices": 1, "stage": stage, **about}
            | {"failed": None, "calls": 1, "estimate": estimate}
        )
    path = tmp_path / "compiled.json"
    path.write_text(json.dumps({"schema": "dslo.bench.compile.v1", "rows": rows}))
    (cost,) = read_costs(path, "velocity")
    assert cost.device == "v5e"
    assert not cost.is_measured
    assert cost.seconds == pytest.approx(
        whole_image(rows, "v5e", size, "velocity") / 1e3
    )
    assert "estimated by the compiler: compiled.json" in cost.origin
    failed = [{**each, "failed": "no memory"} for each in rows]
    path.write_text(json.dumps({"schema": "dslo.bench.compile.v1", "rows": failed}))
    assert read_costs(path, "velocity") == []


def test_a_measured_time_wins_over_an_estimate():
    guess = Cost("h200", 0.001, False, "estimated")
    assert choose_cost([guess, COST], "H200") is COST
    with pytest.raises(OptionError, match=r"O05.*h200, gpu NVIDIA H200"):
        choose_cost([guess, COST], "v5e")


def test_the_command_prints_figures_and_writes_them(measured, tmp_path, capsys):
    words = ["bench", "plan", "--images", "1e9", "--device", "h200"]
    words += ["--result", str(measured), "--save", str(tmp_path / "plan.json")]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "6,944" in out  # device-hours at the usual utilisation of 0.8
    assert "assumed: --utilisation" in out
    saved = json.loads((tmp_path / "plan.json").read_text())
    assert saved["schema"] == "dslo.bench.plan.v1"
    assert {"name", "value", "unit", "origin"} == set(saved["figures"][0])


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--images", "0"), "--images 0.0; expected above 0"),
        (("--utilisation", "1.5"), "--utilisation 1.5; expected at most 1"),
        (("--input-remote", "-1"), "--input-remote -1.0; expected at most 1"),
        (("--hours", "2", "--devices", "3"), "give one"),
        (("--device", "v6e"), "no cost of a photo on 'v6e'"),
    ],
)
def test_what_cannot_be_planned_is_an_error(measured, capsys, words, error):
    usual = {"--images": "5", "--device": "h200", "--result": str(measured)}
    usual |= dict(zip(words[::2], words[1::2], strict=True))
    given = [word for pair in usual.items() for word in pair]
    assert cli.main(["bench", "plan", *given]) == 2
    assert error in capsys.readouterr().err


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.json"
    path.write_text('{"schema": "dslo.bench.solvers.v2"}')
    with pytest.raises(OptionError, match=r"O04.*solvers\.v2"):
        read_costs(path, "velocity")
    path.write_text('{"schema": "dslo.bench.pipeline.v2", "rows": 3}')
    with pytest.raises(OptionError, match=r"O04.*damaged"):
        read_costs(path, "velocity")
