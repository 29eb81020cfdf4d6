"""The same mathematics in other libraries, used as their documents advise.

Every peer maps (source, affinity) to paths or velocities, [classes, patches]. Those
that take one class at a time are called in a loop, as their users would.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import ot
import torch

from dslo_jax.bench.timing import compile_ahead
from dslo_jax.solvers import MaximumVelocity, OptimalPath


EPSILON, STEPS = OptimalPath.epsilon, OptimalPath.max_steps
THRESHOLD, MAX_STEPS = MaximumVelocity.threshold, MaximumVelocity.max_steps
ROUNDS = MaximumVelocity.balancing_steps
MATRICES = 4
"""Greatest number of N x N float32 arrays that a peer needs besides the affinity."""

Peer = Callable[[np.ndarray, np.ndarray], Callable[[], object]]
"""Function that moves its inputs once, and returns the function to time."""


def torch_path(source: torch.Tensor, affinity: torch.Tensor) -> torch.Tensor:
    """Eq. 3-8: 50 steps on all rows, all classes at once."""
    patches = affinity.shape[0]
    kernel = torch.exp(-affinity / EPSILON)
    nu = torch.ones_like(source)
    for _ in range(STEPS):
        mu = source / (nu @ kernel.T)
        nu = (1 / patches) / (mu @ kernel)
    return nu * (mu @ (kernel * affinity))


def torch_path_loop(source: torch.Tensor, affinity: torch.Tensor) -> torch.Tensor:
    """The same, one class after another, with the plan."""
    patches = affinity.shape[0]
    kernel = torch.exp(-affinity / EPSILON)
    paths = []
    for mass in source:
        nu = torch.ones_like(mass)
        for _ in range(STEPS):
            mu = mass / (kernel @ nu)
            nu = (1 / patches) / (kernel.T @ mu)
        plan = mu[:, None] * kernel * nu[None]
        paths.append((plan * affinity).sum(dim=0))
    return torch.stack(paths)


def torch_path_tricks(
    source: torch.Tensor, affinity: torch.Tensor, tolerance: float = 1e-5
) -> torch.Tensor:
    """PyTorch with our formulation: rows with mass, 1 - K, early stop."""
    rows = (source > 0).any(dim=0).nonzero()[:, 0]
    mass, cost = source[:, rows], affinity[rows]
    kernel = torch.exp((cost.mean() - cost) / EPSILON)
    hole = 1 - kernel
    nu, last = torch.ones_like(source), 0.0
    for _ in range(STEPS):
        mu = mass / (nu.sum(dim=1, keepdim=True) - nu @ hole.T)
        new = 1 / source.shape[1] / (mu.sum(dim=1, keepdim=True) - mu @ hole)
        ratio = new / nu
        change = torch.log(ratio.amax(dim=1) / ratio.amin(dim=1)).max().item()
        factor = (change / last) ** 0.5 if change < last else 1.0  # of the first: none
        nu, last = new, change
        if factor < 1 and change * factor / (1 - factor) < tolerance:
            break
    return nu * (mu @ (cost * kernel))


def torch_velocity(source: torch.Tensor, affinity: torch.Tensor) -> torch.Tensor:
    """Eq. 10-11 on the matrix, and first passage of the rescaled state."""
    return _first_passage(source, _balanced(affinity))


def torch_velocity_loop(source: torch.Tensor, affinity: torch.Tensor) -> torch.Tensor:
    """The recurrence of M2N2: one class after another."""
    transition = _balanced(affinity)
    return torch.cat([_first_passage(mass[None], transition) for mass in source])


def torch_velocity_tricks(source: torch.Tensor, affinity: torch.Tensor) -> torch.Tensor:
    """PyTorch with our formulation: scaling vectors, block sums, shrinking batches."""
    patches = len(affinity)
    blocks = affinity.view(math.gcd(patches, 16), -1, patches)
    row = torch.ones_like(affinity[0])
    for _ in range(ROUNDS):
        column = 1 / (row.view(len(blocks), 1, -1) @ blocks).sum(dim=(0, 1))
        row = 1 / (affinity @ column)
    return _first_passage(
        source, lambda state: ((state * row) @ affinity) * column, leave=True
    )


def _balanced(affinity: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    transition = affinity
    for _ in range(ROUNDS):
        transition = transition / transition.sum(dim=0, keepdim=True)
        transition = transition / transition.sum(dim=1, keepdim=True)
    return lambda state: state @ transition


def _first_passage(
    source: torch.Tensor,
    advance: Callable[[torch.Tensor], torch.Tensor],
    *,
    leave: bool = False,
) -> torch.Tensor:
    state = source / source.amax(dim=1, keepdim=True)
    arrivals = torch.full_like(state, torch.inf).masked_fill(state > THRESHOLD, 0.0)
    walking = torch.arange(len(source))
    for step in range(1, MAX_STEPS + 1):
        missing = torch.isinf(arrivals[walking]).any(dim=1)
        if not missing.any():
            break
        if leave:
            walking, state = walking[missing], state[missing]
        arrival = arrivals[walking]
        new = advance(state)
        new = new / new.amax(dim=1, keepdim=True)
        gain = 1 - THRESHOLD if step == 1 else new - state
        part = (new - THRESHOLD) / gain
        arrives = (new > THRESHOLD) & torch.isinf(arrival)
        arrivals[walking] = torch.where(arrives, step - part, arrival)
        state = new
    return 1 / (1 + arrivals)


def in_torch(function: Callable[..., torch.Tensor]) -> Peer:
    """Make a peer from a function of tensors, on the default device of PyTorch."""

    def peer(source: np.ndarray, affinity: np.ndarray) -> Callable[[], object]:
        device = torch.get_default_device()
        tensors = [torch.from_numpy(each).to(device) for each in (source, affinity)]

        def call() -> torch.Tensor:
            result = function(*tensors)
            if device.type == "cuda":
                torch.cuda.synchronize()
            return result

        return call

    return peer


def pot_path(source: np.ndarray, affinity: np.ndarray) -> Callable[[], object]:
    """POT, class by class, on the rows with mass: it divides by the masses."""
    uniform = np.full(affinity.shape[1], 1 / affinity.shape[1], np.float32)
    options = {"numItermax": STEPS, "stopThr": 0.0, "warn": False}

    def call() -> np.ndarray:
        paths = []
        for mass in source:
            rows = np.flatnonzero(mass)
            cost = affinity[rows]
            plan = ot.sinkhorn(mass[rows], uniform, cost, EPSILON, **options)
            paths.append((plan * cost).sum(axis=0))
        return np.stack(paths)

    return call


def geomloss_path(source: np.ndarray, affinity: np.ndarray) -> Callable[[], object]:
    """GeomLoss, class by class, on the rows with mass: it takes their logarithm."""
    from geomloss import ot as geomloss

    masses, costs = torch.from_numpy(source), torch.from_numpy(affinity)
    uniform = torch.full_like(costs[0], 1 / costs.shape[1])
    options = {"reg": EPSILON, "b": uniform, "max_iter": STEPS}

    def call() -> torch.Tensor:
        paths = []
        for mass in masses:
            rows = mass.nonzero()[:, 0]
            cost = costs[rows]
            plan = geomloss.solve(cost, a=mass[rows], **options).plan
            paths.append((plan * cost).sum(dim=0))
        return torch.stack(paths)

    return call


def ott_path(lse_mode: bool) -> Peer:
    """OTT, mapped over the classes, on the kernel or on logarithms."""

    def peer(source: np.ndarray, affinity: np.ndarray) -> Callable[[], object]:
        from ott.geometry import geometry
        from ott.problems.linear import linear_problem
        from ott.solvers.linear import sinkhorn

        def solve(source: jax.Array, cost: jax.Array) -> jax.Array:
            geom = geometry.Geometry(cost_matrix=cost, epsilon=EPSILON)
            solver = sinkhorn.Sinkhorn(
                lse_mode=lse_mode,
                threshold=0.0,
                min_iterations=STEPS,
                max_iterations=STEPS,
            )

            def path(mass: jax.Array) -> jax.Array:
                found = solver(linear_problem.LinearProblem(geom, a=mass))
                return jnp.sum(found.matrix * cost, axis=0)

            return jax.lax.map(path, source)

        return compile_ahead(solve, jnp.asarray(source), jnp.asarray(affinity)).call

    return peer


_PATHS: dict[str, Peer] = {
    "torch, batched, 50 steps": in_torch(torch_path),
    "torch, class loop, 50 steps": in_torch(torch_path_loop),
    "torch, with our formulation": in_torch(torch_path_tricks),
    "POT, class loop, 50 steps": pot_path,
    "GeomLoss, class loop, 50 steps": geomloss_path,
    "OTT, kernel, 50 steps": ott_path(lse_mode=False),
    "OTT, log, 50 steps": ott_path(lse_mode=True),
}
_VELOCITIES: dict[str, Peer] = {
    "torch, batched": in_torch(torch_velocity),
    "torch, class loop (M2N2)": in_torch(torch_velocity_loop),
    "torch, with our formulation": in_torch(torch_velocity_tricks),
}
PEERS = {"path": _PATHS, "velocity": _VELOCITIES}
"""Peers by the name of the discrepancy."""
