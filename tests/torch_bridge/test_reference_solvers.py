"""The reference solvers against closed forms, invariants, POT and plain loops."""

import numpy as np
import ot
import pytest
import torch

from torch_bridge import reference


def source_of(logits):
    keep = reference.suppress(logits, threshold=0.6)
    return reference.normalize(logits, keep, scale=5.0)


def close(actual, wanted, rtol):
    torch.testing.assert_close(
        actual, torch.as_tensor(wanted, dtype=actual.dtype), rtol=rtol, atol=1e-12
    )


def tolerance(tensor):
    return 3e-6 if tensor.dtype is torch.float32 else 1e-12


def test_plan_has_the_marginals(scene):
    logits, affinity = scene
    for row in source_of(logits):
        plan = reference.transport_plan(row, affinity)
        close(plan.sum(dim=1), row, tolerance(row))
        close(plan.sum(dim=0), torch.full_like(row, 1 / 20), tolerance(row))
        assert (plan[row == 0] == 0).all()


def test_plan_is_that_of_pot(scene):
    logits, affinity = scene
    row = torch.softmax(20 * logits[0], dim=0)  # POT divides by the source: no zeros
    exact = row.double().numpy() / row.double().numpy().sum()
    uniform = np.full(20, 1 / 20)
    cost = affinity.double().numpy()
    wanted = ot.sinkhorn(exact, uniform, cost, 0.1, stopThr=1e-12)
    close(reference.transport_plan(row, affinity), wanted, 10 * tolerance(row))


def test_path_from_one_patch_is_its_row_of_the_affinity(scene):
    _, affinity = scene
    source = torch.zeros(2, 20, dtype=affinity.dtype)
    source[0, 4] = source[1, 19] = 1
    wanted = affinity[[4, 19]] / 20
    close(reference.optimal_path(source, affinity), wanted, tolerance(affinity))


def test_path_under_uniform_attention_is_uniform(scene):
    logits, affinity = scene
    source = source_of(logits)
    uniform = torch.full_like(affinity, 1 / 20)
    path = reference.optimal_path(source, uniform)
    close(path, torch.full_like(path, 1 / 400), tolerance(path))


def test_path_is_nearly_one_step_of_propagation(scene):
    logits, affinity = scene
    source = source_of(logits)
    path = reference.optimal_path(source, affinity)
    one_step = source @ affinity / 20
    spread = float(affinity.max() - affinity.min()) / 0.1
    assert ((path / one_step).log().abs() <= 2 * spread).all()
    close(reference.optimal_path(source, affinity, epsilon=1e6), one_step, 1e-5)


@pytest.mark.parametrize("norm", ["none", "sum", "minmax", "max"])
def test_all_classes_at_once_equal_one_by_one(scene, norm):
    logits, affinity = scene
    source = source_of(logits)
    one_by_one = reference.optimal_path(source, affinity, norm=norm)
    at_once = reference.optimal_path_batched(source, affinity, norm=norm)
    close(at_once, one_by_one, 3 * tolerance(source))
    if norm == "sum":
        close(one_by_one.sum(dim=1), torch.ones(3), tolerance(source))
    if norm in ("max", "minmax"):
        assert (one_by_one.amax(dim=1) == 1).all()
    if norm == "minmax":
        assert (one_by_one.amin(dim=1) == 0).all()


def test_fitting_makes_rows_and_columns_sum_to_one(scene):
    _, affinity = scene
    ones = torch.ones(20, dtype=affinity.dtype)
    few = reference.doubly_stochastic(affinity)
    close(few.sum(dim=1), ones, tolerance(few))
    errors = [
        (reference.doubly_stochastic(affinity, num_rounds=n).sum(dim=0) - 1).abs().max()
        for n in (0, 5, 15, 500)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[3] < tolerance(affinity)


def test_fitting_scales_rows_and_columns_only(scene):
    _, affinity = scene
    ratio = (reference.doubly_stochastic(affinity) / affinity).log()
    centred = ratio - ratio.mean(dim=0) - ratio.mean(dim=1, keepdim=True) + ratio.mean()
    assert centred.abs().max() < tolerance(affinity)


def test_first_round_divides_columns_before_rows():
    affinity = torch.tensor([[0.5, 0.5], [0.25, 0.75]], dtype=torch.float64)
    once = reference.doubly_stochastic(affinity, num_rounds=1)
    columns_first = [[2 / 3, 0.4], [1 / 3, 0.6]]
    wanted = np.array(columns_first) / np.sum(columns_first, axis=1, keepdims=True)
    close(once, wanted, 1e-15)


def test_chain_settles_at_once_under_uniform_transitions(scene):
    logits, affinity = scene
    uniform = torch.full_like(affinity, 1 / 20)
    velocity = reference.maximum_velocity(source_of(logits), uniform)
    close(velocity, torch.ones_like(velocity), 1e-5)


def trajectory(row, transition, steps, *, rescale):
    states = [row / row.max() if rescale else row]
    for _ in range(steps):
        state = np.array([states[-1] @ column for column in transition.T])
        states.append(state / state.max() if rescale else state)
    return np.array(states)


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_saturation_is_the_first_passage_of_each_patch(scene, threshold):
    logits, affinity = scene
    transition = reference.doubly_stochastic(affinity).double().numpy()
    source = source_of(logits)
    velocity = reference.maximum_velocity(source, affinity, threshold=threshold)
    wanted = np.zeros((3, 20))
    for c, row in enumerate(source.double().numpy()):
        states = trajectory(row, transition, 40, rescale=True)
        for patch in range(20):
            first = int(np.argmax(states[:, patch] > threshold))
            if first == 0:
                step = 0.0
            else:
                now, before = states[first, patch], states[first - 1, patch]
                change = now - before if first > 1 else 1 - threshold
                step = first - (now - threshold) / change
            wanted[c, patch] = 1 / (1 + step)
    assert len(np.unique(wanted.round(6))) > 20
    close(velocity, wanted, 2e-5 if velocity.dtype is torch.float32 else 1e-10)


def test_saturation_cannot_reach_what_is_not_connected():
    affinity = torch.block_diag(torch.full((2, 2), 0.5), torch.full((2, 2), 0.5))
    source = torch.tensor([[1.0, 0, 0, 0]])
    velocity = reference.maximum_velocity(source, affinity, max_steps=7)
    close(velocity, [[1, 1, 1 / 8, 1 / 8]], 1e-5)


def test_increment_is_degenerate_when_no_patch_holds_much(scene):
    logits, affinity = scene
    source = reference.normalize(logits, torch.ones_like(logits, dtype=torch.bool))
    velocity = reference.maximum_velocity(source, affinity, criterion="increment")
    assert (velocity == 1).all()


def test_increment_is_the_first_small_change_of_each_patch(scene):
    _, affinity = scene
    source = torch.eye(20, dtype=affinity.dtype)[:3]
    threshold = 0.02
    velocity = reference.maximum_velocity(
        source, affinity, criterion="increment", threshold=threshold
    )
    transition = reference.doubly_stochastic(affinity).double().numpy()
    wanted = np.zeros((3, 20))
    for c, row in enumerate(source.double().numpy()):
        changes = np.abs(
            np.diff(trajectory(row, transition, 40, rescale=False), axis=0)
        )
        wanted[c] = 1 / (1 + np.argmax(changes <= threshold, axis=0))
    assert len(np.unique(wanted)) > 2
    close(velocity, wanted, 1e-7)


def test_divergence_sums_to_the_divergence(scene):
    logits, _ = scene
    source = source_of(logits)
    values = source.double().numpy()
    wanted = [sum(f * np.log(f * 20) for f in row if f > 0) for row in values]
    close(reference.kl_map(source).sum(dim=1), wanted, tolerance(source))
    assert (reference.kl_map(source)[source == 0] == 0).all()


def test_literal_divergence_is_infinite_without_mass_and_falls_with_it():
    source = torch.tensor([[0.0, 0.1, 0.9]])
    values = reference.kl_map(source, direction="target_to_source")[0]
    assert values[0] == torch.inf
    assert values[1] > 0 > values[2]
