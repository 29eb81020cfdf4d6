"""Several devices give what one device gives; a CPU pretends to have several."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from dslo_jax import cli
from dslo_jax.devices import find_device, find_devices
from dslo_jax.errors import DeviceError, OptionError
from dslo_jax.pipeline import Placement, place
from dslo_jax.pipeline.sequences import turns


SCRIPT = Path(__file__).with_name("many_devices.py")
MIB = 2**20


# ------------------------------------------------------------------ finding devices


@pytest.fixture
def four(monkeypatch):
    """A process with four GPUs of a cluster, whose numbers begin at 2048."""
    gpus = [SimpleNamespace(platform="gpu", id=2048 + i) for i in range(4)]

    def local_devices(backend=None):
        if backend not in (None, "gpu"):
            raise RuntimeError(f"unknown backend {backend}")
        return gpus

    monkeypatch.setattr(jax, "local_devices", local_devices)
    return gpus


def test_a_device_is_named_by_its_place_in_this_process(four):
    assert find_device("auto") is find_device("gpu") is four[0]
    assert find_device("gpu:3") is four[3]
    for name in ("gpu:4", "gpu:2048", "gpu:-1", "gpu:", "tpu"):
        with pytest.raises(DeviceError, match=r"D02.*gpu:0, gpu:1, gpu:2, gpu:3"):
            find_device(name)


@pytest.mark.parametrize(
    ("name", "number", "shape", "first"),
    [
        ("auto", 1, (1, 1), 0),
        ("auto", "all", (4, 1), 0),
        ("gpu", "3", (3, 1), 0),
        ("gpu:1", "all", (3, 1), 1),
        ("gpu:2", 2, (2, 1), 2),
        ("auto", "2x2", (2, 2), 0),
    ],
)
def test_devices_are_those_from_one_on(four, name, number, shape, first):
    found = find_devices(name, number)
    assert found.shape == shape
    assert found.ravel().tolist() == four[first : first + found.size]


def test_too_many_devices_and_numbers_that_are_none(four):
    with pytest.raises(
        DeviceError, match=r"D02.*'2x2' needs 4.*has 3.*gpu:1, gpu:2, gpu:3"
    ):
        find_devices("gpu:1", "2x2")
    for number in ("0", "-1", "2x", "x2", "0x2", "many", "1.5", ""):
        with pytest.raises(OptionError, match=r"O01.*devices = .*2x4"):
            find_devices("auto", number)


# ------------------------------------------------------------------ dividing photos


def test_one_device_is_no_mesh():
    found = place(find_devices("cpu", 1))
    assert type(found) is Placement
    assert (found.parts, found.padded(5)) == (1, 5)


def test_devices_take_turns_of_one_length():
    lengths = [30, 20, 30, 30, 20]
    assert list(turns(lengths, [[0, 1, 2, 3, 4]])) == [[1], [4], [0], [2], [3]]
    # The second device has one photo of 30; it repeats that of the first.
    assert list(turns(lengths, [[0, 1, 2], [3, 4]])) == [[1, 4], [0, 3], [2, 2]]


# ------------------------------------------------------------------ whole evaluations


def start(*arguments, count):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"
    environment = {
        **os.environ,
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
    }
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process):
    out, err = process.communicate(timeout=1800)
    assert process.returncode == 0, err[-4000:]
    return json.loads(out.splitlines()[-1])


@pytest.fixture
def small(checkpoint, tmp_path):
    """Options of an evaluation of five photos with small networks."""
    config = tmp_path / "base.toml"
    config.write_text('affinity_size = 64\nshort_side = 64\ntemplates = "single"\n')
    return (
        *("scenes", "--seeds", "0:5", "--size", "48x64", "--batch", "4"),
        *("--model", str(checkpoint), "--config", str(config)),
    )


def check_equal(found):
    """All divisions have the same bytes, and none compiles more programs."""
    assert {each["code"] for each in found.values()} == {0}
    assert len({each["digest"] for each in found.values()}) == 1
    assert len({each["programs"] for each in found.values()}) == 1
    for division, each in found.items():
        solver = each["exchanged"].pop("solver")
        assert set(each["exchanged"].values()) == {0}, division
        assert (0 < solver <= 2 * MIB) if "x" in division else solver == 0, division


def test_photos_and_classes_over_devices(small, tmp_path):
    """As on GPUs and TPUs, where a batch runs without waiting."""
    numbers = ("--waitless", tmp_path, "1", "2x2")
    check_equal(finish(start(*numbers, "--", *small, count=4)))


@pytest.mark.slow
def test_windows_and_a_background_over_devices(small, tmp_path):
    config = tmp_path / "base.toml"
    windows = "window = 32\nwindow_stride = 16\nbackground_threshold = 0.5\n"
    config.write_text(config.read_text() + windows)
    numbers = ("--waitless", tmp_path, "1", "2", "2x2")
    small = (*small, "--protocol", "foreground")
    check_equal(finish(start(*numbers, "--", *small, count=4)))


@pytest.mark.slow
def test_the_bundled_networks_on_two_four_and_eight_devices(tmp_path):
    options = ("scenes", "--seeds", "0:13", "--model", "demo", "--batch", "8")
    numbers = ("1", "2", "4", "8", "2x4", "4x2")
    check_equal(finish(start(tmp_path, *numbers, "--", *options, count=8)))


@pytest.mark.slow
def test_what_solvers_exchange_at_full_size():
    """At most 2 MiB at once; nothing where photos alone are divided."""
    found = finish(start("--solvers", count=4))
    assert len(found) == 6
    for name, largest in found.items():
        assert largest <= 2 * MIB, name
        assert (largest == 0) == name.endswith("4x1"), name


@pytest.mark.slow
def test_two_processes_with_two_devices_each(small, tmp_path, capsys):
    """Each takes its shard with its own devices, and the sum has the same bytes."""
    whole, out = str(tmp_path / "whole"), str(tmp_path / "shards")
    small = [*small, "--batch", "2"]
    assert cli.main(["eval", *small, "--out", whole]) == 0
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [
        start("--process", index, 2, port, out, "--", *small, count=2)
        for index in range(2)
    ]
    first, second = (finish(process) for process in processes)
    assert (first["code"], second["code"]) == (0, 0)
    assert (first["devices"], second["devices"]) == (4, 4)  # those of both
    assert not set(first["ids"]) & set(second["ids"])
    assert first["ids"][0] == first["ids"][1] != first["ids"][2]
    assert cli.main(["eval", *small, "--out", out, "--merge"]) == 0
    assert "velocity: mIoU" in capsys.readouterr().out
    for name in ("metrics.json", "metrics.md", "index.html"):
        merged = (tmp_path / "shards" / name).read_bytes()
        assert merged == (tmp_path / "whole" / name).read_bytes()
