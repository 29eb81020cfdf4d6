"""The few sizes that solvers are compiled for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax.pipeline import Placement, SolverInput, checks


class Pretended(Placement):
    """A CPU that says that it is a GPU."""

    platform = "gpu"


CPU = Placement(jax.devices()[0])
GPU = Pretended(jax.devices()[0])


def activity(classes, *counts):
    """Which classes are active: the last ones of each photo."""
    return np.array(
        [[i >= classes - count for i in range(classes)] for count in counts]
    )


@pytest.mark.parametrize(
    ("classes", "expected"),
    [(1, {8}), (8, {8}), (21, {24}), (30, {24, 32}), (171, {24, 96, 176})],
)
def test_a_list_of_classes_has_few_sizes(classes, expected):
    sizes = set()
    for count in range(1, classes + 1):
        order, counts = checks.choose_classes(activity(classes, count, 1))
        assert counts.tolist() == [count, 1]
        assert order[0, :count].tolist() == list(range(classes - count, classes))
        assert order[1, 0] == classes - 1
        sizes.add(order.shape[1])
    assert sizes == expected


@pytest.mark.parametrize(
    ("patches", "expected"),
    [(64, {64}), (1024, {256, 512, 1024}), (4096, {512, 1024, 2048, 4096})],
)
def test_a_path_reads_few_numbers_of_rows(patches, expected):
    sizes = {checks.count(*given(rows, patches), GPU).rows for rows in (1, patches)}
    for rows in range(1, patches + 1, 37):
        size = min(checks.count(*given(rows, patches), GPU).rows, patches)
        assert size >= rows
        sizes.add(size)
    assert {min(size, patches) for size in sizes} == expected


def given(rows, patches):
    """A photo with one active class on many patches, and one with two on one each."""
    zeros = jnp.zeros((2, 3, patches))
    support = jnp.asarray([rows, 1])
    kept = jnp.asarray([[patches, rows, 5], [patches, 1, 1]])
    unused = jnp.zeros((2, 3), int)
    active = jnp.asarray([[False, True, False], [False, True, True]])
    order, counts = checks.choose_classes(np.asarray(active))
    return SolverInput(zeros, zeros, active, support, kept, unused), order, counts


def test_pairs_of_the_padding_are_not_counted():
    """The padding has the index 0, and the class 0 has mass in all patches."""
    assert checks.count(*given(700, 4096), CPU).pairs == 1024
