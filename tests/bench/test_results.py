"""Result files read back: those that are committed, and those that are none."""

import json
from pathlib import Path

import pytest

from dslo_jax.bench.results import About, differences, read_result, words_of
from dslo_jax.errors import OptionError


RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
ROW = {"solver": "path", "name": "dslo-jax", "patches": 64, "classes": 8}
ROW |= {"images": 1, "dtype": "float32", "samples_s": [0.5, 1], "error": 1e-7}
RESULT = {"schema": "dslo.bench.solvers.v2", "machine": {}, "rows": [ROW]}


@pytest.fixture
def written(tmp_path):
    def written(content):
        path = tmp_path / "result.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return written


@pytest.mark.parametrize(
    ("name", "family", "entries_of_a_row"),
    [
        ("solver-sizes", "solver-peers", 1),
        ("solvers", "solver-peers", 1),
        ("stages", "stages", 2),  # torch and ours
    ],
)
def test_what_is_committed_is_read(name, family, entries_of_a_row):
    path = RESULTS / f"{name}.json"
    content = json.loads(path.read_text())
    found = read_result(path)
    assert found.family == family
    assert len(found.entries) == entries_of_a_row * len(content["rows"]) > 0
    assert found.noise == content["noise"]
    assert found.machine["cores"] == 2


def test_the_version_before_knew_no_noise(written):
    content = json.loads((RESULTS / "solver-sizes.json").read_text())
    del content["noise"], content["pairs"]
    content["schema"] = "dslo.bench.solver-peers.v1"
    for row in content["rows"]:
        del row["statistics"], row["warm_ups"], row["is_settled"]
    found = read_result(written(content))
    assert len(found.entries) == len(content["rows"])
    assert found.noise == {}


def test_rows_by_what_they_are_about(written):
    found = read_result(written({**RESULT, "noise": {"load": "much"}}))
    about = About("path", "dslo-jax", 64, 8, 1, "float32")
    assert list(found.entries) == [about]
    assert found.entries[about].samples_s == [0.5, 1.0]
    assert found.entries[about].error == 1e-7
    assert found.noise == {"load": "much"}
    assert words_of(about) == "path, 64 patches, 8 classes, float32"
    assert read_result(written({**RESULT, "schema": "dslo.bench.solvers.v1"}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is not JSON, or cut short"),
        (json.dumps(RESULT)[:-9], "is not JSON, or cut short"),
        ('{"schema": NaN}', "NaN is no finite number"),
        ("[" * 100_000, "is not JSON, or cut short"),
        ([RESULT], "it has no schema"),
        ({"classes": ["cat"]}, "it has no schema"),
        ({**RESULT, "schema": "dslo.bench.solvers.v9"}, "known are dslo.bench.solvers"),
        ({**RESULT, "machine": None}, "does not describe the machine"),
        ({**RESULT, "noise": []}, "does not describe the machine"),
        ({**RESULT, "rows": None}, "has no rows"),
        ({**RESULT, "rows": [ROW, 3]}, "row 2"),
        ({**RESULT, "rows": [{**ROW, "samples_s": []}]}, "expected seconds"),
        ({**RESULT, "rows": [{**ROW, "samples_s": [0]}]}, "expected seconds"),
        ({**RESULT, "rows": [{**ROW, "samples_s": ["a"]}]}, "row 1"),
        ({**RESULT, "rows": [{**ROW, "samples_s": 3}]}, "row 1"),
        ({**RESULT, "rows": [{**ROW, "patches": [64]}]}, "row 1"),
        ({**RESULT, "rows": [{**ROW, "error": "small"}]}, "row 1"),
        ({**RESULT, "rows": [{"solver": "path"}]}, "row 1"),
        ({**RESULT, "rows": [ROW, ROW]}, "has two rows of path, 64 patches"),
    ],
)
def test_what_is_no_result_is_refused(written, content, words):
    with pytest.raises(OptionError) as caught:
        read_result(written(content))
    assert caught.value.code == "O04"
    assert words in str(caught.value)
    assert "result.json" in str(caught.value)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(OptionError, match="cannot be read: No such file"):
        read_result(tmp_path / "absent.json")
    with pytest.raises(OptionError, match="cannot be read"):
        read_result(tmp_path)
    (tmp_path / "image.json").write_bytes(b"\x89PNG\xff")
    with pytest.raises(OptionError, match="not UTF-8"):
        read_result(tmp_path / "image.json")


def test_what_differs_between_two_machines():
    one = {"commit": "a", "versions": {"jax": "1", "flax": "2"}, "load": 1, "cores": 2}
    other = {**one, "commit": "b", "versions": {"jax": "3", "flax": "2"}, "load": 9}
    other["governor"] = "powersave"
    assert differences(one, other) == {
        "commit": ("a", "b"),
        "versions.jax": ("1", "3"),
        "governor": (None, "powersave"),
    }
    assert differences(one, one) == {}
