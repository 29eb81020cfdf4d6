"""Pointwise divergence between a source and the uniform distribution (Eq. 2)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor


Direction = Literal["source_to_target", "target_to_source"]


def kl_map(
    source: Float[Tensor, "classes patches"],
    *,
    direction: Direction = "source_to_target",
) -> Float[Tensor, "classes patches"]:
    """Compute the terms of the divergence, patch by patch.

    Args:
        source: Class distributions; rows sum to 1.
        direction: f ln(f / u), with 0 where f = 0; or u ln(u / f), which is Eq. 2 as it
            is printed. That one is infinite where f = 0, and *decreases* with f.
    """
    target = torch.full_like(source, 1 / source.shape[1])
    if direction == "source_to_target":
        return torch.xlogy(source, source / target)
    return target * (target / source).log()
