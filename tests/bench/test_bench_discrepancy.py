"""``bench_discrepancy``: ours and one of a person's own."""

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from dslo_jax.bench import Effort, bench_discrepancy, timing
from dslo_jax.bench.peaks import Bandwidth, Peaks
from dslo_jax.cost import Work
from dslo_jax.errors import OptionError
from dslo_jax.solvers import Discrepancy, MaximumVelocity, OptimalPath, Solution


PEAKS = Peaks(1e11, 2048, 1e9, (Bandwidth(2**20, 5e10, "add"),))
SMALL = {"patches": 64, "classes": 3, "effort": Effort(repeats=2, seconds=0)}


@dataclass(frozen=True)
class Propagation(Discrepancy):
    """One step of attention."""

    name: ClassVar[str] = "propagation"

    def solve(self, source, affinity=None):
        return Solution.exact(source @ affinity)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(timing, "_WARM_UP_S", 0.05)


def test_of_ones_own_times_and_memory_are_known():
    row = bench_discrepancy(Propagation(), **SMALL)
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert row["solver"] == "propagation"
    assert len(row["samples_s"]) == 2
    assert not row["has_truth"]
    assert row["error"] is None
    assert row["roofline"] is None
    assert row["memory"]["predicted_bytes"] is None


def test_of_ones_own_truth_and_work_may_be_told():
    row = bench_discrepancy(
        Propagation(),
        **SMALL,
        images=2,
        truth=lambda source, affinity: source.astype(np.float64) @ affinity,
        work=lambda num_steps: Work(flops=num_steps.size * 2 * 64**2),
        peaks=PEAKS,
    )
    assert 0 < row["error"] < 1e-6
    assert row["roofline"]["flops"] == 2 * 3 * 2 * 64**2
    assert row["roofline"]["bound"] == "compute"
    wrong = bench_discrepancy(Propagation(), **SMALL, truth=lambda s, a: 2 * s @ a)
    assert wrong["error"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "discrepancy",
    [
        OptimalPath(epsilon=0.05),
        MaximumVelocity(threshold=0.25, balancing_steps=12),
    ],
    ids=str,
)
def test_options_reach_the_truth_and_the_work(discrepancy):
    row = bench_discrepancy(discrepancy, **SMALL, peaks=PEAKS)
    assert row["error"] < 3e-5
    assert row["converged"] == 1
    assert row["roofline"]["flops"] > 0
    assert row["memory"]["predicted_bytes"] > 0
    assert bench_discrepancy(discrepancy, **SMALL)["roofline"] is None


@pytest.mark.parametrize(
    "discrepancy",
    [
        OptimalPath(norm="minmax"),
        MaximumVelocity(criterion="increment"),
        MaximumVelocity(interpolate=False),
    ],
    ids=str,
)
def test_where_the_truth_is_not_stated_there_is_no_error(discrepancy):
    row = bench_discrepancy(discrepancy, **SMALL)
    assert not row["has_truth"]
    assert row["error"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patches": 60}, "square number"),
        ({"classes": 0}, "`classes` is 0"),
        ({"images": 0}, "`images` is 0"),
        ({"effort": Effort(repeats=0)}, "`repeats` is 0"),
    ],
)
def test_bad_sizes_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        bench_discrepancy(Propagation(), **{**SMALL, **options})


def test_a_discrepancy_without_a_name_is_refused():
    @dataclass(frozen=True)
    class Nameless(Discrepancy):
        def solve(self, source, affinity=None):
            return Solution.exact(source)

    with pytest.raises(OptionError, match=r"O10.*Nameless has no name"):
        bench_discrepancy(Nameless(), **SMALL)
