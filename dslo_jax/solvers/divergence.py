"""Pointwise Kullback-Leibler maps (Eq. 2; rows II to IV of Table 2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dslo_jax.solvers._arguments import (
    as_arrays,
    compute_dtype,
    find_fault,
    require_choice,
    require_source,
)
from dslo_jax.solvers.discrepancy import Discrepancy
from dslo_jax.solvers.solution import Reason, Solution


Direction = Literal["source_to_target", "target_to_source"]


def kl_map(
    source: Float[Array | np.ndarray, "classes patches"],
    *,
    target: Float[Array | np.ndarray, " patches"] | None = None,
    direction: Direction = "source_to_target",
) -> Float[Array, "classes patches"]:
    """The contribution of each patch to the divergence of a class from the target.

    The direction matters. ``"source_to_target"``, f ln(f / t), increases with f where
    f > t / e, and is 0 where f is 0. ``"target_to_source"``, t ln(t / f), is Eq. 2 as
    the paper prints it. It *decreases* as f increases, so that argmax over classes
    chooses the worst class. It is infinite at f = 0. There f is replaced by the
    smallest normal number of the type, which gives the largest finite value.

    Args:
        source: Class distributions over the patches, at least 0.
        target: Target distribution; uniform with mass 1 if it is not given.
        direction: Direction of the divergence.

    Returns:
        One map per class, in nats, never NaN. The map of a class that is not a
        distribution (it has a negative or non-finite value, or no mass) is 0. All maps
        are 0 if the target is not a distribution.

    Raises:
        ValueError: A shape does not fit, or the direction is unknown.

    Example:
        >>> values = kl_map(jnp.asarray([[1.0, 0.0, 0.0, 0.0]]))
        >>> [round(value, 4) for value in values[0].tolist()]  # ln(4)
        [1.3863, 0.0, 0.0, 0.0]
    """
    (source,) = as_arrays(source)
    require_source(source)
    require_choice("direction", direction, get_args(Direction))
    if target is not None and target.shape != source.shape[1:]:
        raise ValueError(
            f"`target` has shape {target.shape}, expected {source.shape[1:]} for a "
            f"`source` of shape {source.shape}; it is shared by the classes"
        )
    dtype = compute_dtype(source)
    source = source.astype(dtype)
    if target is None:
        target = jnp.full(source.shape[1], 1 / source.shape[1], dtype)
    target = jnp.broadcast_to(jnp.asarray(target).astype(dtype), source.shape)
    usable = find_fault(source) == Reason.CONVERGED.value
    usable &= find_fault(target) == Reason.CONVERGED.value
    source = jnp.where(usable[:, None], source, 1)
    target = jnp.where(usable[:, None], target, 1)
    if direction == "source_to_target":
        return _relative_entropy(source, target)
    return _relative_entropy(target, source)


@dataclass(frozen=True)
class Divergence(Discrepancy):
    """The pointwise divergence (Eq. 2) as a discrepancy.

    Args:
        direction: ``source_to_target`` weights the logarithm with the distribution of
            the class; ``target_to_source`` with the uniform one, as Eq. 2 is printed,
            which prefers the worst class.

    Raises:
        ValueError: The direction is unknown.
    """

    name: ClassVar[str] = "kl"
    flat_names: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"direction": "kl_direction"}
    )

    direction: Direction = "source_to_target"

    def __post_init__(self):
        require_choice("direction", self.direction, get_args(Direction))

    @property
    def needs_affinity(self) -> bool:
        """False: the value of a patch depends on this patch alone."""
        return False

    def solve(
        self,
        source: Float[Array | np.ndarray, "classes patches"],
        affinity: Float[Array | np.ndarray, "patches patches"] | None = None,
    ) -> Solution:
        """See ``kl_map``; the affinity is not read."""
        del affinity
        (source,) = as_arrays(source)
        value = kl_map(source, direction=self.direction)
        return Solution.exact(value, find_fault(source.astype(value.dtype)))


def _relative_entropy(
    p: Float[Array, "classes patches"], q: Float[Array, "classes patches"]
) -> Float[Array, "classes patches"]:
    """P ln(p / q) with 0 ln 0 = 0 and q no smaller than the smallest normal number."""
    tiny = jnp.finfo(p.dtype).tiny
    log_ratio = jnp.log(jnp.maximum(p, tiny)) - jnp.log(jnp.maximum(q, tiny))
    return jnp.where(p > 0, p * log_ratio, 0)
