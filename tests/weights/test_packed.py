"""Compressed runs of a file, against zlib."""

import tracemalloc
import zlib

import numpy as np
import pytest

from dslo_jax.errors import CheckpointError
from dslo_jax.weights.packed import Packed, unpack
from dslo_jax.weights.stored import DTYPES, StoredTensor


def pack(path, data, before=b"some bytes"):
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    run = stream.compress(data) + stream.flush()
    path.write_bytes(before + run + b"and others")
    return Packed(len(before), len(run))


@pytest.mark.parametrize("skip", [0, 1, 128, (1 << 20) - 1, 1 << 20, 3_000_000])
def test_any_part_of_a_run(tmp_path, skip):
    data = np.random.default_rng(0).integers(0, 9, 3_000_000, np.uint8).tobytes()
    packed = pack(tmp_path / "file", data)
    for count in (0, 1, 1000, 1_500_000, 3_000_000):
        found = unpack(tmp_path / "file", packed, skip, count)
        assert found.tobytes() == data[skip : skip + count]


def test_a_bomb_takes_the_memory_of_what_is_wanted(tmp_path):
    packed = pack(tmp_path / "file", bytes(200_000_000))
    tracemalloc.start()
    assert len(unpack(tmp_path / "file", packed, 1000, 5000)) == 5000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_a_tensor_in_a_run_and_a_part_of_it(tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    packed = pack(tmp_path / "file", b"head" + values.tobytes())
    tensor = StoredTensor.contiguous(tmp_path / "file", 4, DTYPES["float32"], (4, 3))
    tensor = tensor._replace(packed=packed)
    np.testing.assert_array_equal(tensor.transposed(1, 0).read(), values.T)
    np.testing.assert_array_equal(tensor.rows(2, 4).read(), values[2:])
    (tmp_path / "file").write_bytes(b"some bytes" + b"\xff" * packed.size)
    with pytest.raises(CheckpointError, match=r"W04.*damaged: compressed bytes"):
        tensor.read()
