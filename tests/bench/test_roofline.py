"""The counts of the roofline: against loops, and against the compiler's."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax.bench import peaks, roofline
from dslo_jax.bench.peaks import Bandwidth, Peaks, measure_peaks
from dslo_jax.bench.roofline import Work
from dslo_jax.bench.timing import compile_ahead
from dslo_jax.solvers import Reading


MIB = 2**20
PEAKS = Peaks(
    100.0, 512, 10.0, (Bandwidth(MIB, 40.0, "add"), Bandwidth(64 * MIB, 20.0, "add"))
)


def compiled(function, *shapes):
    arguments = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    return compile_ahead(function, *arguments).counts


def test_a_path_counted_entry_by_entry():
    patches, rows, num_steps = 5, 3, np.array([[2, 1], [3, 3]])
    flops = transcendentals = read = 0
    for steps in num_steps:
        for _ in itertools.product(range(rows), range(patches)):
            for step in range(max(steps)):
                read += roofline.STEP_READS
                flops += roofline.STEP
                transcendentals += 1
                active = sum(step < taken for taken in steps)
                flops += active * 2  # with the row scaling
                # With the column scaling, which is 1 in the first step.
                flops += active * 2 if step else roofline.FIRST_STEP
            read += 1
            flops += roofline.TRANSPORT + len(steps) * 2
            transcendentals += 1
    states = sum(
        2 * len(steps) * (rows + patches) * (max(steps) + 1) for steps in num_steps
    )
    found = roofline.path_work(
        num_steps, patches, reading=Reading(support=rows), itemsize=2
    )
    entries = 2 * rows * patches
    assert found == Work(flops, transcendentals, 2 * read + 4 * states, 2 * entries)


def test_a_pair_works_for_one_class_as_long_as_any_does():
    """Like a single class whose rows are the pairs; but all classes have states."""
    owned = roofline.path_work(np.array([[3, 1, 0]]), 4, reading=Reading(pairs=3))
    alone = roofline.path_work(np.array([[3]]), 4, reading=Reading(support=3))
    assert owned.flops == alone.flops
    assert owned.transcendentals == alone.transcendentals
    assert owned.bytes - alone.bytes == 4 * 2 * (3 - 1) * (3 + 4) * (3 + 1)


def test_a_velocity_counted_entry_by_entry():
    patches, num_steps = 4, np.array([[3, 1, 0]])
    flops = read = 0
    for _ in itertools.product(range(patches), repeat=2):
        flops += 1 + 15 * 2 * 2
        read += 1 + 15 * roofline.BALANCING_READS
        for step in range(3):
            flops += 2 * sum(step < taken for taken in num_steps[0])
            read += 1
    states = 3 * roofline.CHAIN_STATES * 3 * patches
    found = roofline.velocity_work(num_steps, patches)
    assert found == Work(flops, 0, 4 * (read + states), 4 * patches**2)
    narrow = roofline.velocity_work(num_steps, patches, itemsize=2)
    assert narrow.bytes - found.bytes == (2 + 4) * patches**2
    assert narrow.working_set_bytes == found.working_set_bytes


def test_steps_of_a_path_as_the_compiler_counts_them():
    """Without a loop that counts once: the steps are written out."""
    classes, rows, patches, steps = 8, 128, 512, 3

    def exponent(cost, shift):
        return jnp.minimum((shift[:, None] - cost) / 0.1, 80)

    def path(source, costs):
        # A cost for each step, or the compiler would make the kernel once for all.
        column, row = jnp.ones((classes, patches)), source
        shift = jnp.mean(costs[0], axis=1)
        bounds = jnp.min(costs[0]), jnp.max(costs[0])
        for step, cost in enumerate(costs[:steps]):
            hole = 1 - jnp.exp(exponent(cost, shift))
            reach = column @ hole.T if step else jnp.sum(hole, axis=1)[None]
            row = source / (jnp.sum(column) - reach)
            column = (1 / patches) / (jnp.sum(row) - row @ hole)
        carried = costs[steps] * jnp.exp(exponent(costs[steps], shift))
        return column * (row @ carried), bounds

    counts = compiled(path, (classes, rows), (steps + 1, rows, patches))
    found = roofline.path_work(
        np.full((1, classes), steps), patches, reading=Reading(support=rows)
    )
    assert found.flops == pytest.approx(counts.flops, rel=0.03)  # vectors are left out
    assert found.transcendentals == counts.transcendentals


def test_a_velocity_as_the_compiler_counts_it():
    classes, patches, steps = 4, 256, 2

    def velocity(state, affinity):
        smallest, row = jnp.min(affinity), jnp.ones_like(affinity[0]) * state[0, 0]
        for _ in range(15):
            column = 1 / (row @ affinity)
            row = 1 / (affinity @ column)
        for _ in range(steps):
            state = ((state * row[None]) @ affinity) * column[None]
        return state, smallest

    counts = compiled(velocity, (classes, patches), (patches, patches))
    found = roofline.velocity_work(np.full((1, classes), steps), patches)
    assert found.flops == pytest.approx(counts.flops, rel=0.01)


def test_an_attention_as_the_compiler_counts_it():
    patches, heads, channels = 128, 3, 32

    def attention(queries, keys):
        affinity = jnp.zeros((patches, patches))
        for query, key in zip(queries, keys, strict=True):
            scores = query @ key.T / 5.0
            weights = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
            weights /= jnp.sum(weights, axis=1, keepdims=True)
            affinity += 0.1 * weights
        return affinity / affinity.sum(axis=1, keepdims=True)

    counts = compiled(attention, *[(heads, patches, channels)] * 2)
    found = roofline.attention_work(1, patches, heads=heads, channels=channels)
    # Divisions by the same number for all may be counted as products or not at all.
    assert found.flops == pytest.approx(counts.flops, rel=0.03)
    assert found.transcendentals == counts.transcendentals


def test_maps_and_pixels():
    assert roofline.kl_work(2, 3, 10) == Work(180, 60, 720, 480)
    found = roofline.upsampling_work(2, 3, 16, 1024)
    weights = 1024 * 25
    assert found.transcendentals == 2 * weights
    assert found.flops == 2 * (weights * (16 + 2 * 4) + 3 * 1024)
    assert found.bytes == 2 * 4 * (9 * 1024 + 3 * 16 + 9 * 1024)


@pytest.mark.parametrize(
    ("work", "bound", "seconds"),
    [
        (Work(1000, 10, 40, MIB), "compute", 10.0),
        (Work(100, 200, 40, MIB), "transcendentals", 20.0),
        (Work(100, 10, 1200, MIB), "memory", 30.0),
        (Work(100, 10, 1200, 100 * MIB), "memory", 60.0),
    ],
)
def test_the_slowest_resource_is_the_bound(work, bound, seconds):
    found = roofline.roofline(work, PEAKS, 120.0)
    assert found.bound == bound
    assert found.seconds_at_peak == seconds
    assert found.fraction == seconds / 120


@pytest.mark.parametrize(("size", "used"), [(1, 1), (63, 1), (64, 64), (999, 64)])
def test_the_bandwidth_is_that_of_a_set_that_is_no_larger(size, used):
    assert PEAKS.bandwidth(size * MIB).working_set_bytes == used * MIB
    assert PEAKS.bandwidth(MIB // 2).working_set_bytes == MIB


def test_peaks_are_measured(monkeypatch):
    monkeypatch.setattr(peaks, "_SIDES", (128, 256))
    monkeypatch.setattr(peaks, "_NO_TIME_S", 60.0)
    monkeypatch.setattr(peaks, "_LONG_S", 0.002)
    monkeypatch.setattr(peaks, "_ENOUGH_S", 0.004)
    found = measure_peaks(jax.devices()[0], (2**16, 2**18))
    assert found.side == 256  # the smaller one takes less than a minute
    assert 1e6 < found.flops_per_s < 1e13
    assert 1e6 < found.transcendentals_per_s < 1e12
    assert [each.working_set_bytes for each in found.bandwidths] == [2**16, 2**18]
    for each in found.bandwidths:
        assert 1e6 < each.bytes_per_s < 1e13
    assert json.loads(json.dumps(found.plain()))["side"] == 256
    assert found.plain()["bandwidths"][0]["how"] == found.bandwidths[0].how
