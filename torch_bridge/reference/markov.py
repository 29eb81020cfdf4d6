"""Maximum velocity (Eq. 10-12)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor


Criterion = Literal["saturation", "increment"]


def doubly_stochastic(
    affinity: Float[Tensor, "patches patches"], *, num_rounds: int = 15
) -> Float[Tensor, "patches patches"]:
    """Iterative proportional fitting: columns, then rows, on the matrix (Eq. 11)."""
    transition = affinity
    for _ in range(num_rounds):
        transition = transition / transition.sum(dim=0, keepdim=True)
        transition = transition / transition.sum(dim=1, keepdim=True)
    return transition


def maximum_velocity(
    source: Float[Tensor, "classes patches"],
    affinity: Float[Tensor, "patches patches"],
    *,
    threshold: float = 0.3,
    criterion: Criterion = "saturation",
    balancing_rounds: int = 15,
    max_steps: int = 1000,
) -> Float[Tensor, "classes patches"]:
    """Compute the velocity of every patch under the Markov chain, class by class.

    Args:
        source: Initial state of the chain for each class; rows sum to 1.
        affinity: Positive affinity, which is made doubly stochastic first.
        threshold: The paper's tau, in (0, 1].
        criterion: Condition under which a patch has converged. ``saturation``: its
            state, scaled to a maximum of 1 in every step, exceeds the threshold; the
            step is interpolated, and the velocity is 1 / (1 + step). ``increment``: its
            state changes by at most the threshold, as Eq. 12 is printed; the velocity
            is 1 / step.
        balancing_rounds: Rounds of proportional fitting.
        max_steps: Step of a patch that never converges.
    """
    transition = doubly_stochastic(affinity, num_rounds=balancing_rounds)
    if criterion == "saturation":
        steps = [saturation(row, transition, threshold, max_steps) for row in source]
        return 1 / (1 + torch.stack(steps))
    steps = [increment(row, transition, threshold, max_steps) for row in source]
    return 1 / torch.stack(steps)


def saturation(
    source: Float[Tensor, " patches"],
    transition: Float[Tensor, "patches patches"],
    threshold: float,
    max_steps: int,
) -> Float[Tensor, " patches"]:
    """Find the step at which each patch first exceeds the threshold; 0 at the start.

    This is the rule of M2N2. The first step is interpolated over the distance from the
    threshold to 1, and later steps over the last change of the state. M2N2 adds 1e-6 to
    that change; this is not needed, because a patch that crosses the threshold has
    changed.
    """
    state = source / source.max()
    steps = torch.full_like(state, max_steps)
    steps[state > threshold] = 0
    pending = state <= threshold
    for index in range(max_steps):
        if not pending.any():
            break
        last, state = state, state @ transition
        state = state / state.max()
        change = state - last if index else torch.full_like(state, 1 - threshold)
        crossed = index + 1 - (state - threshold) / change
        now = pending & (state > threshold)
        steps[now] = crossed[now]
        pending = pending & ~now
    return steps


def increment(
    source: Float[Tensor, " patches"],
    transition: Float[Tensor, "patches patches"],
    threshold: float,
    max_steps: int,
) -> Float[Tensor, " patches"]:
    """Find the first step that changes a patch by at most the threshold (Eq. 12)."""
    state = source
    steps = torch.full_like(state, max_steps)
    pending = torch.ones_like(state, dtype=torch.bool)
    for step in range(1, max_steps + 1):
        last, state = state, state @ transition
        now = pending & ((state - last).abs() <= threshold)
        steps[now] = step
        pending = pending & ~now
        if not pending.any():
            break
    return steps
