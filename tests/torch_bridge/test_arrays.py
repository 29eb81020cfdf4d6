"""Arrays between PyTorch and JAX: values and ownership are kept, or it is an error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parameter import UninitializedParameter

from dslo_jax.errors import DsloError
from torch_bridge import BridgeError, to_jax, to_torch


TYPES = [
    torch.bool,
    torch.uint8,
    torch.int32,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.complex64,
]
VIEWS = {
    "whole": lambda t: t,
    "transposed": lambda t: t.mT,
    "every second row": lambda t: t[::2],
    "inner part": lambda t: t[1:, 1:3],
    "column": lambda t: t[:, 2],
    "expanded": lambda t: t[:, :1].expand(-1, 5),
    "scalar": lambda t: t[1, 2],
    "empty": lambda t: t[:0],
    "flipped": lambda t: t.flip(0),
}


def sample(dtype):
    return (torch.arange(12).reshape(4, 3) % 5).to(dtype)


def expected(tensor):
    if tensor.dtype is torch.bfloat16:
        return tensor.float().numpy()
    return tensor.resolve_conj().resolve_neg().numpy()


@pytest.mark.parametrize("zero_copy", [False, True])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_type_survives_there_and_back(dtype, zero_copy):
    tensor = sample(dtype)
    array = to_jax(tensor)
    assert str(array.dtype) == str(dtype).removeprefix("torch.")
    np.testing.assert_array_equal(
        np.asarray(array.astype(jnp.float32) if dtype is torch.bfloat16 else array),
        expected(tensor),
    )
    back = to_torch(array, zero_copy=zero_copy)
    assert back.dtype is dtype
    assert torch.equal(back, tensor)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_views_arrive_with_their_values(view):
    tensor = view(sample(torch.float32))
    np.testing.assert_array_equal(np.asarray(to_jax(tensor)), expected(tensor))


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    steps=st.lists(st.integers(1, 3), min_size=4, max_size=4),
    order=st.permutations(range(4)),
    dtype=st.sampled_from(TYPES),
)
def test_any_stride_arrives_unchanged_and_stays_so(shape, steps, order, dtype):
    base = torch.arange(4**4 * 81).reshape(12, 12, 12, 12).remainder(7).to(dtype)
    sliced = base[tuple(slice(None, None, step) for step in steps)]
    part = sliced.permute(*order)[tuple(slice(n) for n in shape)]
    before = part.clone()
    array = to_jax(part)
    base.zero_()
    assert torch.equal(to_torch(array), before)


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_writing_to_the_tensor_afterwards_does_not_reach_the_array(size):
    tensor = torch.ones(size)
    array = to_jax(tensor)
    tensor.zero_()
    assert array.min() == 1


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_writing_to_the_tensor_does_not_reach_the_array_it_came_from(size):
    array = jnp.ones(size)
    to_torch(array).zero_()
    assert array.min() == 1


def test_zero_copy_shares_memory_in_both_directions():
    tensor = torch.ones(1000)
    array = to_jax(tensor, zero_copy=True)
    assert array.unsafe_buffer_pointer() == tensor.data_ptr()
    again = to_torch(array, zero_copy=True)
    assert again.data_ptr() == tensor.data_ptr()


def test_shared_memory_outlives_its_first_owner():
    tensor = torch.full((1000,), 3.0)
    array = to_jax(tensor, zero_copy=True)
    del tensor
    torch.full((1000,), 4.0)
    assert array.max() == 3


@pytest.mark.parametrize(
    "tensor",
    [torch.ones(8)[::2], torch.ones(4).conj_physical()[1:], torch.ones(3).long()],
    ids=["strided", "unaligned", "narrowed"],
)
def test_zero_copy_refuses_what_it_would_have_to_copy(tensor):
    with pytest.raises(BridgeError, match="B05"):
        to_jax(tensor, zero_copy=True)


def test_gradients_stay_in_torch():
    leaf = torch.ones(3, requires_grad=True)
    np.testing.assert_array_equal(np.asarray(to_jax(leaf * 2)), [2, 2, 2])
    assert leaf.requires_grad


def test_lazy_conjugation_and_negation_are_carried_out():
    values = torch.tensor([1 + 2j, 3 - 4j])
    np.testing.assert_array_equal(np.asarray(to_jax(values.conj())), [1 - 2j, 3 + 4j])
    for negated in (values.conj().imag, values[0].conj().imag):
        assert negated.is_neg()  # a view that only says it is negative
        np.testing.assert_array_equal(
            np.asarray(to_jax(negated)), negated.clone().numpy()
        )


@pytest.mark.parametrize(
    ("tensor", "remedy"),
    [
        (torch.ones(2, device="meta"), "materialise"),
        (torch.eye(2).to_sparse(), "to_dense"),
    ],
    ids=["meta", "sparse"],
)
def test_tensors_without_plain_memory_are_refused(tensor, remedy):
    with pytest.raises(BridgeError, match=rf"B01.*{remedy}"):
        to_jax(tensor)


@pytest.mark.filterwarnings("ignore:.*quantiz.*", "ignore:.*TypedStorage.*")
def test_quantised_tensors_are_refused():
    tensor = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    with pytest.raises(BridgeError, match=r"B01.*dequantize"):
        to_jax(tensor)


def test_integers_that_fit_are_narrowed_and_others_refused():
    array = to_jax(torch.tensor([-(2**31), 2**31 - 1]))
    assert array.dtype == jnp.int32
    np.testing.assert_array_equal(np.asarray(array), [-(2**31), 2**31 - 1])
    for beyond in (2**31, -(2**31) - 1):
        with pytest.raises(BridgeError, match="B02"):
            to_jax(torch.tensor([0, beyond]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_double_precision_is_refused_by_type(dtype):
    with pytest.raises(BridgeError, match=r"B02.*float\(\) first"):
        to_jax(torch.ones(2, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64], ids=str)
def test_with_x64_nothing_is_narrowed(x64, dtype):
    tensor = torch.full((3,), 2**40 + 1).to(dtype)
    array = to_jax(tensor)
    assert str(array.dtype) == str(dtype).removeprefix("torch.")
    assert torch.equal(to_torch(array), tensor)


def test_a_device_that_jax_does_not_have(monkeypatch):
    class Elsewhere(torch.Tensor):
        device = torch.device("cuda", 0)

    tensor = torch.ones(2).as_subclass(Elsewhere)
    monkeypatch.setattr(Elsewhere, "cpu", lambda self: self.as_subclass(torch.Tensor))
    monkeypatch.setattr(Elsewhere, "detach", lambda self: self)
    with pytest.raises(BridgeError, match=r"B03.*cuda:0.*CpuDevice.*allow_host_copy"):
        to_jax(tensor)
    np.testing.assert_array_equal(
        np.asarray(to_jax(tensor, allow_host_copy=True)), [1, 1]
    )


def test_a_device_that_torch_does_not_have(monkeypatch):
    monkeypatch.setattr("torch_bridge.arrays._torch_sees", lambda array: False)
    array = jnp.ones(2)
    with pytest.raises(BridgeError, match=r"B03.*allow_host_copy"):
        to_torch(array)
    with pytest.raises(BridgeError, match="B05"):
        to_torch(array, zero_copy=True, allow_host_copy=True)


def test_arrays_without_plain_memory_are_refused():
    with pytest.raises(BridgeError, match=r"B01.*outside jit"):
        jax.jit(lambda array: to_torch(array))(jnp.ones(2))
    with pytest.raises(BridgeError, match=r"B01.*key_data"):
        to_torch(jax.random.key(0))
    with pytest.raises(BridgeError, match=r"B01.*int4"):
        to_torch(jnp.ones(2, jnp.int4))


def test_bridge_errors_are_errors_of_the_package():
    assert issubclass(BridgeError, DsloError)
    with pytest.raises(DsloError) as caught:
        to_jax(torch.ones(2, device="meta"))
    assert caught.value.code == "B01"
    assert caught.value.exit_code == 3


class Wrapper(torch.Tensor):
    """A tensor that stands for others, as distributed and masked tensors do."""

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return NotImplemented


def fake(*shape):
    with FakeTensorMode():
        return torch.ones(shape)


def shrunk(size):
    tensor = torch.ones(3)
    tensor.untyped_storage().resize_(size)
    return tensor


@pytest.mark.parametrize(
    "make",
    [
        lambda: fake(300, 300),
        lambda: fake(300, 300).T[::2],
        lambda: fake(0, 3),
        lambda: torch.Tensor._make_wrapper_subclass(Wrapper, (3,)),
        lambda: torch._efficientzerotensor(3),
        lambda: shrunk(0),
        lambda: shrunk(8),
        UninitializedParameter,
    ],
    ids=[
        *("fake", "view of a fake", "empty fake", "wrapper", "zero tensor", "freed"),
        *("cut short", "not initialised"),
    ],
)
@pytest.mark.parametrize("zero_copy", [False, True])
def test_tensors_without_values_at_their_address_are_refused(make, zero_copy):
    with pytest.raises(BridgeError, match="B01"):
        to_jax(make(), zero_copy=zero_copy)


@pytest.mark.parametrize(
    "transform",
    [torch.func.vmap, torch.func.grad, torch.func.functionalize],
    ids=lambda transform: transform.__name__,
)
def test_tensors_inside_a_transformation_of_torch_are_refused(transform):
    def convert(tensor):
        with pytest.raises(BridgeError, match=r"B01.*torch\.func"):
            to_jax(tensor)
        return tensor.sum()

    transform(convert)(torch.ones(3))


def test_a_subclass_with_values_is_converted():
    class Named(torch.Tensor):
        pass

    for tensor in (torch.ones(3).as_subclass(Named), torch.nn.Parameter(torch.ones(3))):
        np.testing.assert_array_equal(np.asarray(to_jax(tensor)), [1, 1, 1])
