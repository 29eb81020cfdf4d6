"""The mean of self-attention maps against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax.attention import average_attention
from dslo_jax.attention.average import by_head, by_rows
from dslo_jax.models.query_key import QueryKey


def _layers(*heads: int, batch: int = 1, patches: int = 12) -> list[QueryKey]:
    random = np.random.default_rng(5)
    return [
        QueryKey(
            *(
                jnp.asarray(
                    2 * random.standard_normal((batch, patches, count, 7)), "f4"
                )
                for _ in range(2)
            )
        )
        for count in heads
    ]


def _loop(layers, weights, temperature: float = 1.0) -> np.ndarray:
    """The definition of the affinity, one row at a time, in float64."""
    batch, patches, _, channels = layers[0].query.shape
    affinity = np.zeros((batch, patches, patches))
    for (query, key), weight in zip(layers, weights, strict=True):
        query, key = np.float64(query), np.float64(key)
        for b, i, h in np.ndindex(batch, patches, query.shape[2]):
            row = np.exp(key[b, :, h] @ query[b, i, h] / np.sqrt(channels))
            affinity[b, i] += weight * row / row.sum() / query.shape[2]
    # The softmax of log A / t is A^(1/t) over its sum.
    affinity = np.exp(np.log(affinity) / temperature)
    return affinity / affinity.sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 0.65, 2.0])
def test_average_equals_the_loop(temperature):
    layers, weights = _layers(3, 2, batch=2), (0.5, 1.5)
    with jax.default_matmul_precision("highest"):
        affinity = average_attention(layers, weights, temperature=temperature)
    expected = _loop(layers, weights, temperature)
    np.testing.assert_allclose(affinity, expected, rtol=1e-5)
    np.testing.assert_allclose(affinity.sum(-1), 1, atol=1e-6)


def test_half_precision_queries_are_averaged_in_float32():
    halves = [
        QueryKey(*(x.astype(jnp.bfloat16) for x in layer)) for layer in _layers(2)
    ]
    affinity = average_attention(halves, (1.0,))
    assert affinity.dtype == jnp.float32
    np.testing.assert_allclose(affinity, _loop(halves, (1.0,)), rtol=1e-5)


def test_scale_of_the_weights_does_not_matter():
    layers = _layers(2, 2)
    small = average_attention(layers, (0.1, 0.3))
    np.testing.assert_allclose(average_attention(layers, (1.0, 3.0)), small, rtol=1e-6)
    alone = average_attention(layers, (1.0, 0.0))
    np.testing.assert_allclose(alone, average_attention(layers[:1], (1.0,)), rtol=1e-6)


def test_tokens_that_are_no_patches_take_part_in_the_softmax_alone():
    """Heads that look at them most count least: no softmax over patches does that."""
    (all_tokens,) = _layers(3, patches=12)
    others = 4
    pair = QueryKey(all_tokens.query[:, others:], all_tokens.key)
    with jax.default_matmul_precision("highest"):
        found = np.asarray(average_attention([pair], (1.0,)))
    whole = np.float64(_heads(all_tokens))[:, :, others:, others:]
    expected = whole.mean(axis=1)
    expected /= expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    alone = (whole / whole.sum(-1, keepdims=True)).mean(axis=1)
    assert np.abs(alone - expected).max() > 0.05


@pytest.mark.parametrize(
    ("at_once", "others", "temperature", "dtype"),
    [
        *((at_once, 0, 1.0, jnp.float32) for at_once in (2**20, 5 * 12 * 4, 1)),
        *((5 * 12 * 4, 3, 0.65, dtype) for dtype in (jnp.float32, jnp.bfloat16)),
        *((at_once, 0, 1.0, jnp.bfloat16) for at_once in (2**20, 1)),
    ],
)
def test_chunks_of_rows_give_the_same_average(at_once, others, temperature, dtype):
    layers = tuple(
        QueryKey(query[:, others:].astype(dtype), key.astype(dtype))
        for query, key in _layers(3, 2, batch=2, patches=13)
    )
    options = {"weights": (0.5, 1.5), "temperature": temperature}
    with jax.default_matmul_precision("highest"):
        expected = by_head(layers, **options)
        found = by_rows(layers, **options, at_once=at_once)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)


def _heads(layer: QueryKey) -> np.ndarray:
    scores = np.einsum("bqhc,bkhc->bhqk", *map(np.float64, layer))
    weights = np.exp(scores / np.sqrt(layer.query.shape[-1]))
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 0.65])
def test_memory_is_one_affinity_beside_the_result(temperature):
    patches = 1024
    layer = jax.ShapeDtypeStruct((1, patches, 10, 64), jnp.float32)

    def average(layers):
        return average_attention(layers, (0.5, 0.5), temperature=temperature)

    lowered = jax.jit(average).lower([QueryKey(layer, layer)] * 2)
    memory = lowered.compile().memory_analysis()
    affinity = 4 * patches**2
    assert memory.output_size_in_bytes == affinity
    # The eighth is one head's queries and keys.
    assert memory.temp_size_in_bytes <= 1.25 * affinity


@pytest.mark.parametrize(
    ("weights", "temperature", "named"),
    [
        ((1.0,), 1.0, "`weights`"),
        ((0.0, 0.0), 1.0, "`weights`"),
        ((2.0, -1.0), 1.0, "`weights`"),
        ((1.0, 1.0), 0.0, "`temperature`"),
    ],
)
def test_senseless_averages_are_refused(weights, temperature, named):
    with pytest.raises(ValueError, match=named):
        average_attention(_layers(1, 1), weights, temperature=temperature)
