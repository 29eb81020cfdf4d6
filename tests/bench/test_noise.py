import json

import pytest

from dslo_jax.bench.noise import noise_of


QUIET = {"load": 0.1}
CALM = {"spread": 0.01, "is_settled": True, "samples_s": [1.0] * 30}


def test_of_a_quiet_run_nothing_is_said():
    assert noise_of(QUIET, {"a": CALM, "b": CALM}) == {}
    assert noise_of({"load": None, "governor": "performance"}, {}) == {}


@pytest.mark.parametrize(
    ("name", "machine", "change", "words"),
    [
        ("load", {"load": 0.6}, {}, "load 0.6 at the start"),
        ("governor", {"load": 0, "governor": "powersave"}, {}, "'powersave'"),
        ("spread", QUIET, {"spread": 0.12}, "in 1 of 2, up to 12%: noisy"),
        ("warm-up", QUIET, {"is_settled": False}, "did not settle: noisy, of 2"),
        ("quick", QUIET, {"samples_s": [1.0] * 29}, "not for publication: noisy, of 2"),
    ],
)
def test_each_doubt_has_its_name(name, machine, change, words):
    found = noise_of(machine, {"calm": CALM, "noisy": {**CALM, **change}})
    assert list(found) == [name]
    assert words in found[name]
    assert json.loads(json.dumps(found)) == found


def test_a_host_that_takes_the_cores_away_is_told():
    assert noise_of(QUIET, {"a": CALM}, stolen=0.005) == {}
    assert "gave 19% of" in noise_of(QUIET, {"a": CALM}, stolen=0.19)["stolen"]


def test_doubts_about_many_are_counted():
    noisy = {**CALM, "is_settled": False}
    found = noise_of(QUIET, {"a": noisy, "b": CALM, "c": noisy, "d": noisy})
    assert found["warm-up"] == "did not settle: a and 2 more, of 4"
    found = noise_of(QUIET, {"a": noisy, "b": noisy})
    assert found["warm-up"] == "did not settle: all 2"
