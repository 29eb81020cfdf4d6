"""Predictions against the compiler; nothing runs."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from dslo_jax.bench.timing import compile_ahead
from dslo_jax.cost import path_bytes, solver_bytes, velocity_bytes
from dslo_jax.solvers import (
    Fused,
    Logits,
    MaximumVelocity,
    OptimalPath,
    maximum_velocity,
    optimal_path,
)
from dslo_jax.tuning import MANY


_FACTOR = 2.0
"""Buffers that the compiler lets share memory are not ours to know."""


def arguments(classes, patches, dtype=jnp.float32, images=1):
    leading = () if images == 1 else (images,)
    return (
        jax.ShapeDtypeStruct((*leading, classes, patches), jnp.float32),
        jax.ShapeDtypeStruct((*leading, patches, patches), dtype),
    )


def reserved(solve, shapes, images=1):
    found = compile_ahead(solve if images == 1 else jax.vmap(solve), *shapes)
    return found.temporary_bytes


@pytest.mark.parametrize(
    ("classes", "patches", "options", "dtype"),
    [
        (8, 4096, {"support": 640}, jnp.float32),
        (171, 1024, {}, jnp.float32),
        (171, 1024, {"pairs": 384}, jnp.float32),
        (21, 1024, {"support": 256}, jnp.bfloat16),
    ],
)
def test_path(classes, patches, options, dtype):
    solve = partial(optimal_path, **options, domain="kernel")
    actual = reserved(solve, arguments(classes, patches, dtype))
    itemsize = jnp.dtype(dtype).itemsize
    predicted = path_bytes(classes, patches, **options, itemsize=itemsize)
    assert actual / _FACTOR < predicted < actual * _FACTOR
    # The whole point: far less than a kernel.
    assert predicted < 4 * patches**2 or patches < 4096


@pytest.mark.parametrize(
    ("classes", "patches", "dtype", "images"),
    [
        (21, 1024, jnp.float32, 1),
        (8, 4096, jnp.bfloat16, 1),
        (8, 1024, jnp.float32, 2),
        (40, 1024, jnp.bfloat16, 1),
        # Each of these pairs of facts is in a case above.
        pytest.param(8, 1024, jnp.bfloat16, 2, marks=pytest.mark.slow),
        pytest.param(40, 1024, jnp.float32, 1, marks=pytest.mark.slow),
        pytest.param(40, 1024, jnp.float32, 2, marks=pytest.mark.slow),
    ],
)
def test_velocity(classes, patches, dtype, images):
    actual = reserved(
        maximum_velocity, arguments(classes, patches, dtype, images), images
    )
    itemsize = jnp.dtype(dtype).itemsize
    predicted = velocity_bytes(classes, patches, itemsize=itemsize, images=images)
    assert actual / _FACTOR < predicted < actual * _FACTOR
    if dtype == jnp.float32 and classes < MANY:  # not one affinity is copied
        assert actual < images * 4 * patches**2 / 4


@pytest.mark.parametrize("support", [256, 1024, None])
def test_images_take_their_share_each(support):
    shapes = arguments(8, 1024, images=2)
    solve = partial(optimal_path, support=support, domain="kernel")
    actual = reserved(solve, shapes, images=2)
    predicted = path_bytes(8, 1024, support=support, images=2)
    assert predicted == 2 * path_bytes(8, 1024, support=support)
    assert actual / _FACTOR < predicted < actual * _FACTOR
    if support != 256:  # all rows are read, from where they are
        assert actual < 2 * 4 * 1024**2


def test_a_discrepancy_is_predicted_by_its_options():
    path = OptimalPath(domain="kernel", support=256)
    size = {"itemsize": 2, "images": 3}
    expected = path_bytes(8, 1024, support=256, **size)
    assert solver_bytes(path, 8, 1024, **size) == expected
    expected = velocity_bytes(8, 1024, **size)
    assert solver_bytes(MaximumVelocity(), 8, 1024, **size) == expected


@pytest.mark.parametrize(
    "discrepancy", [Fused(), Logits(), OptimalPath(), OptimalPath(domain="log")]
)
def test_what_nobody_predicts_is_none(discrepancy):
    assert solver_bytes(discrepancy, 8, 1024) is None
