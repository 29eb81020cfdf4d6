"""Energy and memory, with a counter that only pretends."""

import sys
from types import SimpleNamespace

import pytest

from dslo_jax.bench import energy, memory
from dslo_jax.errors import OptionError


GPU = SimpleNamespace(platform="gpu", local_hardware_id=1)


@pytest.fixture
def nvml(monkeypatch, clock):
    """The second GPU uses 100 W, and 300 W more while photos are segmented."""
    more = SimpleNamespace(joules=0.0)
    module = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=lambda gpu: int(
            1e3 * (gpu * 100 * clock.now + more.joules)
        ),
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return more


def test_joules_of_a_photo_with_and_without_those_of_an_idle_gpu(nvml, clock):
    counter = energy.Energy(GPU)
    assert counter.idle_w == pytest.approx(100.0)

    def call():
        clock.work(2.0)
        nvml.joules += 600.0

    found = counter.per_photo(call, 8)
    assert found["window_s"] == 10.0
    assert found["j_per_photo"] == pytest.approx((200 + 600) / 8)
    assert found["j_per_photo_over_idle"] == pytest.approx(600 / 8)


def test_without_a_counter_there_is_no_figure(monkeypatch):
    with pytest.raises(OptionError, match=r"O01.*only NVIDIA"):
        energy.Energy(SimpleNamespace(platform="cpu"))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(OptionError, match=r"O05.*dslo-jax\[energy\]"):
        energy.Energy(GPU)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not state it")
def test_the_peak_of_the_host_begins_anew():
    block = bytearray(2**27)
    block[::4096] = b"x" * len(block[::4096])
    before = memory.host_peak()
    del block
    assert memory.reset_host_peak()
    assert before - memory.host_peak() > 2**26
    assert memory.host_bytes() <= memory.host_peak()
    assert memory.available_bytes() > 2**26


def test_where_the_system_states_nothing_there_is_no_figure(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "missing")
    monkeypatch.setattr(memory, "_RESET", tmp_path / "no" / "folder")
    assert memory.host_bytes() is None
    assert not memory.reset_host_peak()
