"""Tensors of PyTorch files: views, storages and types that are read or refused."""

import numpy as np
import pytest
import torch
from checkpoints.pickled import (
    NUMBERS,
    refusal,
    state_dict,
    storage,
    tensor,
    text,
    write_zip,
)

from dslo_jax.weights import open_weights


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((7,), (1,), 0),
        ((6,), (1,), 1),
        ((2, 3), (4, 1), 0),
        ((2,), (6,), 0),
        ((2**40,), (0,), 0),
        ((2**61, 2**61), (0, 0), 0),
        ((2**62,), (1,), 0),
        ((2, 3), (1,), 0),
        ((2, 3), (3, 1), -1),
        ((2, 3), (-3, 1), 3),
        ((-2, -3), (3, 1), 0),
        ((0,), (1,), 7),
        ((1,) * 17, (1,) * 17, 0),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(path, shape, strides, offset):
    write_zip(path, state_dict(tensor(shape, strides, offset)))
    assert refusal(path, "is damaged: a tensor").code == "W04"


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((), (), 5),
        ((0,), (1,), 6),
        ((0, 3), (2**50, 2**50), 0),
        ((3, 2), (1, 3), 0),
        ((2, 2), (1, 1), 2),
        ((1, 6), (0, 1), 0),
        ((2, 1, 2), (2, 9, 2), 1),
    ],
)
def test_every_view_inside_a_storage_is_read(path, shape, strides, offset):
    write_zip(path, state_dict(tensor(shape, strides, offset)))
    wanted = torch.from_numpy(NUMBERS).as_strided(shape, strides, offset)
    np.testing.assert_array_equal(open_weights(path)["a"], wanted.numpy())


@pytest.mark.parametrize(
    ("of", "word"),
    [
        (storage(count=7), "has 24 bytes, 28 were promised"),
        (storage(count=5), "has 24 bytes, 20 were promised"),
        (storage(count=-6), "impossible size"),
        (storage("HalfStorage"), "12 were promised"),
        (storage(key="1"), "'1' is missing"),
        (storage(key="../data/0"), "is missing"),
        (storage(key="/etc/passwd"), "is missing"),
        (storage("UntypedStorage", count=24), "a tensor without a type"),
        (text("0") + b"Q", "not a storage"),
        (b"NQ", "not a storage"),
        (b"(" + text("storage") + b"Nttt"[:2] + b"Q", "not a storage"),
        (b"N", "a tensor without a storage"),
        (tensor(), "a tensor without a storage"),
    ],
)
def test_a_storage_must_be_the_one_promised(path, of, word):
    write_zip(path, state_dict(tensor(of=of)))
    assert refusal(path, word).code == "W04"


def test_every_type_of_number_is_read(path):
    kinds = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool"
    tensors = {
        name: torch.tensor([0, 1, 3]).to(getattr(torch, name)) for name in kinds.split()
    }
    more = {
        name: torch.tensor([0, 3], dtype=getattr(torch, name))
        for name in (
            "uint16",
            "uint32",
            "uint64",
        )
    }
    for new in (True, False):
        saved = tensors | (more if new else {})
        torch.save(saved, path, _use_new_zipfile_serialization=new)
        found = open_weights(path)
        assert found.keys() == saved.keys()
        for name, value in saved.items():
            assert found[name].dtype.name == name
            wanted = value.double().tolist()
            assert found[name].astype(np.float64).tolist() == wanted


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(2).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        lambda: torch.ones(2, dtype=torch.complex64),
        lambda: torch.ones(2).to(torch.float8_e5m2),
        lambda: torch.ones(2, device="meta"),
        lambda: torch.nn.Linear(2, 2),
    ],
    ids=["sparse", "quantised", "complex", "8 bits", "meta", "module"],
)
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:TypedStorage:UserWarning")
def test_what_numpy_cannot_hold_is_refused(path, make):
    torch.save({"a": make()}, path)
    assert refusal(path, "does not belong in a file of weights").code == "W05"


def test_parameters_and_tied_tensors_are_read(path):
    tied = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    torch.save({"a": tied, "b": tied.T, "c": tied[1:, :2]}, path)
    found = open_weights(path)
    for key, wanted in {"a": tied, "b": tied.T, "c": tied[1:, :2]}.items():
        np.testing.assert_array_equal(found[key], wanted.detach().numpy())
