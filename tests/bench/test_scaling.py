"""Scaling over devices, without the processes."""

import pytest

from dslo_jax.bench.pipeline import scaling
from dslo_jax.bench.pipeline.child import Job, run_child
from dslo_jax.errors import DeviceError


JOB = Job(model="demo", precision="float32", device="cpu", batch=4)


@pytest.fixture
def children(monkeypatch):
    """Children that would run, and machines with two devices."""
    jobs = []

    def run(job, environment):
        jobs.append((job, environment))
        if job.devices > 2:
            raise DeviceError("D02", "there are two")
        rate = {1: 10.0, 2: 16.0}[job.devices]
        return {"devices": job.devices, "images": job.batch, "images_per_s": rate}

    monkeypatch.setattr(scaling, "run_child", run)
    return jobs


def measure(counts, **options):
    return list(scaling.measure_scaling(JOB, counts, say=lambda _: None, **options))


def test_the_batch_grows_with_the_devices(children, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--own")
    one, two = measure([1, 2], is_open=False)
    assert (one["images"], two["images"]) == (4, 8)
    assert two["speed_up"] == 1.6
    assert two["efficiency"] == 0.8
    assert one["efficiency"] == 1.0
    flags = {environment["XLA_FLAGS"] for _, environment in children}
    assert flags == {"--own --xla_force_host_platform_device_count=2"}


def test_an_open_list_ends_where_the_devices_end(children):
    assert [row["devices"] for row in measure([1, 2, 4, 8], is_open=True)] == [1, 2]
    with pytest.raises(DeviceError, match="D02"):
        measure([1, 4], is_open=False)


def test_the_first_number_of_devices_is_what_others_are_compared_with():
    row = {"images_per_s": 30.0, "devices": 8}
    assert scaling.scaled(row, {"images_per_s": 10.0, "devices": 2}) == {
        "speed_up": 3.0,
        "efficiency": 0.75,
    }


def test_an_error_of_a_child_is_that_of_the_command(monkeypatch):
    monkeypatch.setattr(scaling, "run_child", run_child)
    with pytest.raises(DeviceError, match=r"\[D02\] there is no device 'gpu'"):
        run_child(Job(model="demo", precision="float32", device="gpu"))
