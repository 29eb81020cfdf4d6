"""The logits themselves as a discrepancy: the baseline (row I of Table 2)."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dslo_jax.solvers._arguments import as_arrays, compute_dtype, require_source
from dslo_jax.solvers.discrepancy import Discrepancy
from dslo_jax.solvers.solution import Reason, Solution, choose_reason


@dataclass(frozen=True)
class Logits(Discrepancy):
    """The logits, unchanged. This discrepancy has no options."""

    name: ClassVar[str] = "logits"

    @property
    def needs_affinity(self) -> bool:
        """False: patches do not affect each other."""
        return False

    @property
    def takes_logits(self) -> bool:
        """True: in distributions, the probabilities of classes do not compare."""
        return True

    def solve(
        self,
        source: Float[Array | np.ndarray, "classes patches"],
        affinity: Float[Array | np.ndarray, "patches patches"] | None = None,
    ) -> Solution:
        """Return the logits, of any sign, as float32 or float64.

        A class with a NaN or infinite logit is not solved. The affinity is not read.
        """
        del affinity
        (source,) = as_arrays(source)
        require_source(source)
        is_finite = jnp.all(jnp.isfinite(source), axis=1)
        fault = choose_reason((~is_finite, Reason.SOURCE_NOT_FINITE))
        return Solution.exact(source.astype(compute_dtype(source)), fault)
