"""The roofline: work over the peaks, and how these are measured."""

import json

import jax
import pytest

from dslo_jax.bench import peaks, roofline
from dslo_jax.bench.peaks import Bandwidth, Peaks, measure_peaks
from dslo_jax.cost import Work


MIB = 2**20
PEAKS = Peaks(
    100.0, 512, 10.0, (Bandwidth(MIB, 40.0, "add"), Bandwidth(64 * MIB, 20.0, "add"))
)


@pytest.mark.parametrize(
    ("done", "bound", "seconds"),
    [
        (Work(1000, 0, 10, 40, MIB), "compute", 10.0),
        (Work(100, 0, 200, 40, MIB), "transcendentals", 20.0),
        (Work(100, 0, 10, 1200, MIB), "memory", 30.0),
        (Work(100, 0, 10, 1200, 100 * MIB), "memory", 60.0),
    ],
)
def test_the_slowest_resource_is_the_bound(done, bound, seconds):
    found = roofline.roofline(done, PEAKS, 120.0)
    assert found.bound == bound
    assert found.seconds_at_peak == seconds
    assert found.fraction == seconds / 120


@pytest.mark.parametrize(("size", "used"), [(1, 1), (63, 1), (64, 64), (999, 64)])
def test_the_bandwidth_is_that_of_a_set_that_is_no_larger(size, used):
    assert PEAKS.bandwidth(size * MIB).working_set_bytes == used * MIB
    assert PEAKS.bandwidth(MIB // 2).working_set_bytes == MIB


def test_peaks_are_measured(monkeypatch):
    monkeypatch.setattr(peaks, "_SIDES", (128, 256))
    monkeypatch.setattr(peaks, "_NO_TIME_S", 60.0)
    monkeypatch.setattr(peaks, "_LONG_S", 0.002)
    monkeypatch.setattr(peaks, "_ENOUGH_S", 0.004)
    found = measure_peaks(jax.devices()[0], (2**16, 2**18))
    assert found.side == 256  # the smaller one takes less than a minute
    assert 1e6 < found.flops_per_s < 1e13
    assert 1e6 < found.transcendentals_per_s < 1e12
    assert [each.working_set_bytes for each in found.bandwidths] == [2**16, 2**18]
    for each in found.bandwidths:
        assert 1e6 < each.bytes_per_s < 1e13
    assert json.loads(json.dumps(found.plain()))["side"] == 256
    assert found.plain()["bandwidths"][0]["how"] == found.bandwidths[0].how
