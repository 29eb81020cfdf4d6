"""Softmax attention: both orders of computation against the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax.models.softmax_attention import attend, by_head, by_rows, in_chunks


def _inputs(tokens: int, context: int, *, batch: int = 2, dtype=jnp.float32):
    random = np.random.default_rng(7)
    shapes = (tokens, 3, 8), (context, 3, 8), (context, 3, 8)
    return [
        jnp.asarray(2 * random.standard_normal((batch, *shape)), dtype)
        for shape in shapes
    ]


def _definition(query, key, value) -> np.ndarray:
    query, key, value = (np.float64(x) for x in (query, key, value))
    weights = np.exp(np.einsum("bqhc,bkhc->bhqk", query, key) / np.sqrt(8))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhqk,bkhc->bqhc", weights, value)


@pytest.mark.parametrize(
    "at_once",
    [
        2 * 3 * 13 * 9,  # everything
        3 * 13 * 9,  # one photo
        3 * 9 * 4,  # chunks of four rows, and one row that is left
        1,  # row by row
    ],
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(jnp.float32, 3e-6), (jnp.bfloat16, 2e-2)]
)
def test_all_heads_at_once_equal_the_definition(at_once, dtype, tolerance):
    inputs = _inputs(13, 9, dtype=dtype)
    with jax.default_matmul_precision("highest"):
        found = by_rows(*inputs, at_once=at_once)
        other = by_head(*inputs)
    assert found.dtype == other.dtype == dtype
    expected = _definition(*inputs)
    for each in (found, other):
        np.testing.assert_allclose(np.float64(each), expected, atol=tolerance)


def test_a_photo_does_not_depend_on_its_batch():
    inputs = _inputs(8, 8, batch=3)
    together = by_rows(*inputs, at_once=3 * 8 * 4)
    for index in range(3):
        alone = by_rows(*(x[index : index + 1] for x in inputs), at_once=3 * 8 * 4)
        np.testing.assert_allclose(alone[0], together[index], atol=1e-6)


def test_a_cpu_holds_the_scores_of_one_head():
    tokens, heads = 512, 8
    shape = jax.ShapeDtypeStruct((1, tokens, heads, 16), jnp.float32)
    memory = jax.jit(attend).lower(*[shape] * 3).compile().memory_analysis()
    assert memory is not None
    # Scores and weights of one head; the rest is queries, keys, values and results.
    assert memory.temp_size_in_bytes <= 4 * (2 * tokens**2 + 5 * tokens * heads * 16)


@pytest.mark.parametrize(("number", "size"), [(12, 12), (12, 4), (13, 4), (3, 4)])
def test_chunks_are_joined_in_order(number, size):
    rows = jnp.arange(2 * number).reshape(number, 2), jnp.arange(number)
    seen = []

    def function(rows):
        seen.append(len(rows[1]))
        return rows[0] + rows[1][:, None]

    np.testing.assert_array_equal(
        in_chunks(function, rows, size), rows[0] + rows[1][:, None]
    )
    assert max(seen) <= size
