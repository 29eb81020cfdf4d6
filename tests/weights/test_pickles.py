"""Files of PyTorch that are hostile, damaged or unusual: refused with a reason.

Code that a pickle names is never run. Each refusal is an error of this package, and
takes little time and memory.
"""

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints.pickled import (
    NUMBERS,
    module,
    number,
    refusal,
    state_dict,
    storage,
    tensor,
    text,
    write_zip,
)

from dslo_jax.weights import open_weights
from dslo_jax.weights.unpickle import unpickle


def test_the_pickles_of_these_tests_are_what_torch_writes(path):
    write_zip(path, state_dict(tensor()))
    found = open_weights(path)["a"]
    np.testing.assert_array_equal(found, NUMBERS.reshape(2, 3))
    np.testing.assert_array_equal(torch.load(path)["a"].numpy(), found)


class Order:
    """Pickled, it asks for a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("function", "argument"),
    [
        (os.system, "touch exploded"),
        (eval, "open('exploded', 'w')"),
        (exec, "open('exploded', 'w')"),
        (os.mkdir, "exploded"),
        (getattr, "exploded"),
        (torch.load, "exploded"),
        (pickle.loads, b"exploded"),
    ],
)
def test_no_function_is_ever_called(
    path, tmp_path, monkeypatch, function, argument, protocol
):
    monkeypatch.chdir(tmp_path)
    order = Order(function, argument)
    torch.save({"a": torch.ones(2), "b": order}, path, pickle_protocol=protocol)
    name = f".{function.__name__}"
    assert refusal(path, name, "It was not run").code == "W05"
    torch.save(order, path, _use_new_zipfile_serialization=False)
    assert refusal(path, name).code == "W05"
    path.write_bytes(pickle.dumps(order, protocol))
    assert refusal(path, "a pickle that torch.save did not write").code == "W05"
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "name",
    [
        "torch._utils _rebuild_qtensor",
        "torch._utils _rebuild_sparse_tensor",
        "torch.nn.modules.linear Linear",
        "torch.hub load",
        "torch ComplexFloatStorage",
        "torch QInt8Storage",
        "builtins set",
        "__builtin__ eval",
        "collections OrderedDict.fromkeys",
        "dslo_jax.weights.admitted find",
        "os system\0",
    ],
)
def test_a_name_outside_the_list_is_refused(path, name):
    module, _, function = name.partition(" ")
    write_zip(path, state_dict(f"c{module}\n{function}\n".encode()))
    assert refusal(path, repr(f"{module}.{function}")).code == "W05"
    write_zip(path, state_dict(text(module) + text(function) + b"\x93"))
    assert refusal(path, repr(f"{module}.{function}")).code == "W05"


@pytest.mark.parametrize(
    ("pickled", "word"),
    [
        (b"ctorch\nFloatStorage\n)R", "a call of a StorageType"),
        (b"ctorch\nfloat32\n)R", "a call of a"),
        (text("os.system") + b")R", "a call of a str"),
        (tensor() + b")R", "a call of a StorageView"),
        (b"c__torch__.a\nB\n)R", "a call of a RecordType"),
        (b"ccollections\nOrderedDict\n)\x81", "an object of a Maker"),
        (text("os") + b")\x81", "an object of a str"),
        (tensor() + b"}b", "attributes of a StorageView"),
        (b"ccollections\nOrderedDict\n}b", "attributes of a Maker"),
        (b"(" + text("x") + b"ios\nsystem\n", "b'i'"),
        (b"(" + text("x") + b"o", "b'o'"),
        (b"\x82\x01", r"b'\x82'"),  # a name by the number of an extension
        (b"P0\n", "b'P'"),
        (b"\x8f", r"b'\x8f'"),
        (b"S'os'\n", "b'S'"),
        (b"\xff", r"b'\xff'"),
    ],
)
def test_orders_that_weights_do_not_need_are_refused(path, pickled, word):
    write_zip(path, state_dict(pickled))
    assert refusal(path, word, "It was not run").code == "W05"


def test_keys_that_are_no_names_are_refused(path):
    for key in (b")", b"G" + bytes(8), number(1 << 61), tensor()):
        write_zip(path, state_dict(b"N", key))
        assert refusal(path, "as a key").code == "W05"


@pytest.mark.parametrize(
    "content",
    [[torch.ones(2)], {}, {"a": 1}, {"state_dict": {}}, torch.ones(2), "text", None],
)
def test_what_has_no_named_tensors_is_refused(path, content):
    torch.save(content, path)
    assert refusal(path, "without tensors, expected a state dict").code == "W05"


DEEP = 300_000


BOMBS = {
    "dictionaries": b"\x80\x02" + b"}" * 1_200_000,
    "memory": b"\x80\x02" + b"]\x94" * 600_000,
    "deep tuple": b"\x80\x02)" + b"\x85" * DEEP + b".",
    "deep list": b"\x80\x02" + b"]" * DEEP + b"a" * (DEEP - 1) + b".",
    "list in itself": b"\x80\x02]q\0" + b"(h\0h\0e" * 100_000 + b".",
    "shared tuple": b"\x80\x02)q\0" + b"h\0h\0h\0\x87q\0" * 90_000 + b".",
    "place in memory": b"\x80\x02Nr\xff\xff\xff\xff.",
    "long text": b"\x80\x02X\xff\xff\xff\xff",
    "long bytes": b"\x80\x02B\xff\xff\xff\xff",
    "long frame": b"\x80\x02\x95" + b"\xff" * 8,
    "long number": b"\x80\x02\x8a\xff" + b"\xff" * 255 + b".",
    "long name": b"\x80\x02cos" + b"s" * 100_000,
    "texts": b"\x80\x02" + (b"X\0\0\x10\0" + b"a" * (1 << 20)) * 15,
}


# In a process of its own: the shape checks of these tests would take minutes.
READ_ALL = """
import re, sys, time
from pathlib import Path
from dslo_jax.errors import CheckpointError
from dslo_jax.weights import open_weights
def peak():  # not ru_maxrss: a process inherits that of the one that started it
    status = Path("/proc/self/status")
    return int(re.search(r"VmHWM:\\s*(\\d+)", status.read_text())[1])
for path in sys.argv[1:]:
    before, start = peak(), time.perf_counter()
    try:
        open_weights(Path(path))
    except CheckpointError as error:
        print(error.code, (peak() - before) // 1024, time.perf_counter() - start)
"""


@pytest.mark.slow
def test_bombs_cost_little(tmp_path):
    paths = [write_zip(tmp_path / name, bomb) for name, bomb in BOMBS.items()]
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    costs = done.stdout.splitlines()
    assert len(costs) == len(BOMBS)
    for cost in costs:
        code, megabytes, seconds = cost.split()
        assert code in ("W04", "W05")
        assert int(megabytes) < 200
        assert float(seconds) < 30


def test_modules_within_modules_without_end_are_refused(path):
    bomb = module(text("a") + tensor())
    for _ in range(30):  # each holds the one before twice: 2**30 tensors
        bomb = module(text("a") + bomb + b"q\0" + text("b") + b"h\0")
    write_zip(path, b"\x80\x02" + bomb + b".")
    assert refusal(path, "nested without end").code == "W04"
    itself = b"c__torch__.a\nB\n)\x81q\0}(" + text("a") + b"h\0ub"
    write_zip(path, b"\x80\x02" + itself + b".")
    assert refusal(path, "nested without end").code == "W04"


def test_sharing_beyond_reason_is_refused(path):
    numbers = np.ones(50_000, np.float32)
    shared = storage(count=numbers.size)
    many = b"".join(
        text(f"a{i}") + tensor((numbers.size,), (1,), of=shared) for i in range(9)
    )
    write_zip(path, b"\x80\x02}(" + many + b"u.", **{"data/0": numbers.tobytes()})
    assert refusal(path, "many times over").code == "W04"


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02.",
        b"\x80\x02NN.",
        b"\x80\x02(.",
        b"\x80\x02u.",
        b"\x80\x02(Nu.",
        b"\x80\x02}(Nu.",
        b"\x80\x02Na.",
        b"\x80\x02(a.",
        b"\x80\x02R.",
        b"\x80\x02h\0.",
        b"\x80\x02q\0.",
        b"\x80\x02(q\0.",
        b"\x80\x02NN\x93.",
        b"\x80\x02X\2\0\0\0\xff\xff.",
        b"\x80\x02ctorch\nSize\n)R.",
        b"\x80\x02ctorch\nSize\nN\x85R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n)R.",
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n)R.",
        b"\x80\x02ccollections\nOrderedDict\nN\x85R.",
        b"\x80\x02ctorch.jit._pickle\nrestore_type_tag\n)R.",
    ],
)
def test_damaged_pickles_are_told(path, pickled):
    write_zip(path, pickled)
    assert refusal(path, "is damaged").code == "W04"


@pytest.mark.parametrize("name", ["a\x1b[2J", "", "a" * 2000, "\u202ea", "a\nb"])
def test_names_that_would_trouble_a_terminal_are_refused(path, name):
    write_zip(path, state_dict(tensor(), text(name)))
    if not name:
        assert list(open_weights(path)) == [""]
    else:
        assert refusal(path, "it has a tensor called").code == "W04"


def test_references_to_outside_need_a_file():
    with pytest.raises(ValueError, match="outside"):
        unpickle(io.BytesIO(b"\x80\x02NQ."), Path("x"))
