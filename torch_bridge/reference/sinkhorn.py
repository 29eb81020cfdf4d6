"""The optimal path (Eq. 3-8), one class after the other or all at once."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor


Norm = Literal["none", "sum", "minmax", "max"]


def sinkhorn(
    source: Float[Tensor, " patches"],
    cost: Float[Tensor, "patches patches"],
    *,
    epsilon: float = 0.1,
    num_steps: int = 50,
) -> tuple[Float[Tensor, " patches"], Float[Tensor, " patches"]]:
    """Compute the scalings mu and nu for the uniform target (Eq. 8), from nu = 1.

    Args:
        source: Marginal of the rows; it sums to 1 and may have zeros.
        cost: The affinity, without scaling.
        epsilon: Strength of the regularisation.
        num_steps: Exact number of iterations.
    """
    kernel = torch.exp(-cost / epsilon)
    target = torch.full_like(source, 1 / len(source))
    nu = torch.ones_like(source)
    mu = torch.zeros_like(source)
    for _ in range(num_steps):
        mu = source / (kernel @ nu)
        nu = target / (kernel.T @ mu)
    return mu, nu


def transport_plan(
    source: Float[Tensor, " patches"],
    cost: Float[Tensor, "patches patches"],
    *,
    epsilon: float = 0.1,
    num_steps: int = 50,
) -> Float[Tensor, "patches patches"]:
    """Compute the plan pi = diag(mu) K diag(nu) (Eq. 6)."""
    mu, nu = sinkhorn(source, cost, epsilon=epsilon, num_steps=num_steps)
    return mu[:, None] * torch.exp(-cost / epsilon) * nu[None]


def optimal_path(
    source: Float[Tensor, "classes patches"],
    affinity: Float[Tensor, "patches patches"],
    *,
    epsilon: float = 0.1,
    num_steps: int = 50,
    norm: Norm = "none",
) -> Float[Tensor, "classes patches"]:
    """Compute p_j = sum_i pi_ij A_ij (Eq. 3), class by class, as in the paper."""
    paths = []
    for row in source:
        plan = transport_plan(row, affinity, epsilon=epsilon, num_steps=num_steps)
        paths.append((plan * affinity).sum(dim=0))
    return normalize_path(torch.stack(paths), norm)


def optimal_path_batched(
    source: Float[Tensor, "classes patches"],
    affinity: Float[Tensor, "patches patches"],
    *,
    epsilon: float = 0.1,
    num_steps: int = 50,
    norm: Norm = "none",
) -> Float[Tensor, "classes patches"]:
    """Compute ``optimal_path`` for all classes at once, without a plan: faster."""
    kernel = torch.exp(-affinity / epsilon)
    nu, mu = torch.ones_like(source), torch.zeros_like(source)
    for _ in range(num_steps):
        mu = source / (nu @ kernel.T)
        nu = 1 / source.shape[1] / (mu @ kernel)
    return normalize_path(nu * (mu @ (kernel * affinity)), norm)


def normalize_path(
    path: Float[Tensor, "classes patches"], norm: Norm
) -> Float[Tensor, "classes patches"]:
    """Apply the ``Norm.`` of Eq. 3 to each class; the paper leaves it open."""
    low, high = path.amin(dim=1, keepdim=True), path.amax(dim=1, keepdim=True)
    match norm:
        case "none":
            return path
        case "sum":
            return path / path.sum(dim=1, keepdim=True)
        case "max":
            return path / high
        case "minmax":
            return (path - low) / torch.where(high > low, high - low, 1)
