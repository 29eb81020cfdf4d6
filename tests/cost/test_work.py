"""Work of solvers, upsampling and averaging: by loops, and by the compiler."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax.bench.timing import compile_ahead
from dslo_jax.cost import Work, networks, solver_work, solvers
from dslo_jax.cost.upsampling import NEIGHBOURS, WEIGHING, upsampling_work
from dslo_jax.ops.weights import neighbour_weights
from dslo_jax.solvers import (
    Divergence,
    Fused,
    Logits,
    MaximumVelocity,
    OptimalPath,
    Reading,
)


def work(flops, transcendentals, moved, working_set):
    return Work(
        flops=flops,
        transcendentals=transcendentals,
        bytes=moved,
        working_set_bytes=working_set,
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
                read += solvers.PASSES["cpu"].step
                flops += solvers.STEP
                transcendentals += 1
                active = sum(step < taken for taken in steps)
                flops += active * 2  # with the row scaling
                # With the column scaling, which is 1 in the first step.
                flops += active * 2 if step else solvers.FIRST_STEP
            read += 1
            flops += solvers.TRANSPORT + len(steps) * 2
            transcendentals += 1
    states = sum(
        2 * len(steps) * (rows + patches) * (max(steps) + 1) for steps in num_steps
    )
    found = solvers.path_work(
        num_steps, patches, reading=Reading(support=rows), itemsize=2
    )
    entries = 2 * rows * patches
    assert found == work(flops, transcendentals, 2 * read + 4 * states, 2 * entries)


def test_a_pair_works_for_one_class_as_long_as_any_does():
    """Like a single class whose rows are the pairs; but all classes have states."""
    owned = solvers.path_work(np.array([[3, 1, 0]]), 4, reading=Reading(pairs=3))
    alone = solvers.path_work(np.array([[3]]), 4, reading=Reading(support=3))
    assert owned.flops == alone.flops
    assert owned.transcendentals == alone.transcendentals
    assert owned.bytes - alone.bytes == 4 * 2 * (3 - 1) * (3 + 4) * (3 + 1)


def test_a_velocity_counted_entry_by_entry():
    patches, num_steps = 4, np.array([[3, 1, 0]])
    flops = read = 0
    for _ in itertools.product(range(patches), repeat=2):
        flops += 1 + 15 * 2 * 2
        read += 1 + 15 * solvers.BALANCING_READS
        for step in range(3):
            flops += 2 * sum(step < taken for taken in num_steps[0])
            read += 1
    states = 3 * solvers.PASSES["cpu"].chain_states * 3 * patches
    found = solvers.velocity_work(num_steps, patches)
    assert found == work(flops, 0, 4 * (read + states), 4 * patches**2)
    narrow = solvers.velocity_work(num_steps, patches, itemsize=2)
    assert narrow.bytes - found.bytes == (2 + 4) * patches**2
    assert narrow.working_set_bytes == found.working_set_bytes


def test_other_devices_read_and_write_more_of_a_path():
    """As their compiled programs do: a kernel in memory, or rows read twice."""
    num_steps, sizes = (
        np.array([[3, 2]]),
        {"reading": Reading(support=4), "itemsize": 2},
    )
    on = {
        platform: solvers.path_work(num_steps, 50, **sizes, platform=platform)
        for platform in solvers.PASSES
    }
    entries = 4 * 50
    kernels = 4 * entries * (3 * 3 + 2)  # written, and read by each product
    assert on["gpu"].bytes - on["cpu"].bytes == kernels
    assert on["tpu"].bytes - on["cpu"].bytes == 2 * entries * 3
    assert on["gpu"].flops == on["tpu"].flops == on["cpu"].flops


def test_other_devices_read_a_narrow_affinity_as_it_is():
    num_steps = np.array([[5, 2]])
    wide, narrow = (
        solvers.velocity_work(num_steps, 60, itemsize=size, platform="tpu")
        for size in (4, 2)
    )
    assert wide.bytes - narrow.bytes == 2 * 60**2 * (15 * 2 + 5)
    assert narrow.working_set_bytes == 2 * 60**2


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
    found = solvers.path_work(
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
    found = solvers.velocity_work(np.full((1, classes), steps), patches)
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
    found = networks.averaging([(heads, heads * channels)], patches)
    # Divisions by the same number for all may be counted as products or not at all.
    assert found.flops == pytest.approx(counts.flops, rel=0.03)
    assert found.transcendentals == counts.transcendentals


@pytest.mark.parametrize(
    ("form", "method", "features", "exponentials"),
    [("product", "bilateral", 5, 1), ("hat", "bilinear", 2, 0)],
)
def test_weights_of_pixels_as_the_compiler_counts_them(
    form, method, features, exponentials
):
    cells, slots = 64, 256

    def weigh(around, own):
        inside = jnp.ones(around.shape[:2], bool)
        return neighbour_weights(around, inside, own, form)

    shapes = (cells, NEIGHBOURS[method], features), (cells, features, slots)
    counts = compiled(weigh, *shapes)
    weights = cells * NEIGHBOURS[method] * slots
    assert counts.flops / weights == pytest.approx(WEIGHING[method], rel=0.02)
    assert counts.transcendentals / weights == exponentials


def test_maps_and_pixels():
    assert solvers.kl_work(2, 3, 10) == work(180, 60, 720, 480)
    found = upsampling_work(2, 3, 16, 1024)
    weights = 1024 * 25
    assert found.transcendentals == 2 * weights
    assert found.flops == 2 * (weights * (13 + 2 * 4) + 3 * 1024)
    assert found.bytes == 2 * 4 * (9 * 1024 + 3 * 16 + 9 * 1024)
    found = upsampling_work(1, 3, 16, 1024, "bilinear")
    assert found.transcendentals == 0
    assert found.flops == 1024 * 9 * (9 + 2 * 4) + 3 * 1024


NUM_STEPS = np.array([[3, 5], [2, 4]])


@pytest.mark.parametrize(
    ("discrepancy", "expected"),
    [
        (OptimalPath(support=40), work(432_000, 44_000, 200_640, 32_000)),
        (OptimalPath(pairs=60), work(528_000, 66_000, 292_160, 48_000)),
        (MaximumVelocity(), work(1_500_000, 0, 2_868_800, 80_000)),
        (MaximumVelocity(balancing_steps=3), work(540_000, 0, 948_800, 80_000)),
        (Divergence(), work(1_200, 400, 4_800, 3_200)),
    ],
    ids=str,
)
def test_a_discrepancy_works_by_its_options(discrepancy, expected):
    assert solver_work(discrepancy, NUM_STEPS, 100) == expected


@pytest.mark.parametrize("domain", ["auto", "kernel"])
def test_a_path_works_alike_where_the_kernel_serves(domain):
    path = OptimalPath(support=40, domain=domain)
    assert solver_work(path, NUM_STEPS, 100) == solver_work(
        OptimalPath(support=40), NUM_STEPS, 100
    )


class Renamed(OptimalPath):
    """Bears the name of ours, and may do anything."""


@pytest.mark.parametrize(
    "discrepancy", [Fused(), Logits(), OptimalPath(domain="log"), Renamed()], ids=str
)
def test_without_a_formula_there_is_no_work(discrepancy):
    assert solver_work(discrepancy, NUM_STEPS, 100) is None


@pytest.mark.parametrize("discrepancy", [OptimalPath(), MaximumVelocity()], ids=str)
def test_no_class_is_no_reason_to_fail(discrepancy):
    found = solver_work(discrepancy, np.zeros((1, 0), int), 10)
    assert found is not None
    assert found.flops >= 0


def test_sums_and_loops():
    one, other = Work(1, 2, 3, 4, 5), Work(10, 20, 30, 40, 2)
    assert one + other == Work(11, 22, 33, 44, 5)
    assert one.times(3) == Work(3, 6, 9, 12, 5)
    assert one.looped(3) == Work(3, 2, 9, 12, 5)
