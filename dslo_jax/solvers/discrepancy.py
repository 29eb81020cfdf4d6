"""A discrepancy as a value: which mathematics turns sources into maps, with options."""

import abc
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from dslo_jax.solvers.solution import Solution


class Counts(NamedTuple):
    """How much of the sources carries mass: numbers that are known before compiling.

    Attributes:
        rows: Patches that carry mass in any class; of several images, the most.
        pairs: Pairs of a class and a patch that carries mass in it; likewise.
        classes: Of an image.
        patches: Of an image.
        step: Sizes are rounded up to multiples of it, so that images share a
            compilation.
        platform: Of the device: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
    """

    rows: int
    pairs: int
    classes: int
    patches: int
    step: int = 64
    platform: str = "cpu"

    @classmethod
    def of(
        cls,
        source: Float[Array | np.ndarray, "*images classes patches"],
        *,
        step: int = 64,
        platform: str = "cpu",
    ) -> "Counts":
        """Those of one image or of several, counted on the host.

        Args:
            source: Class distributions over the patches.
            step: See ``Counts``.
            platform: Likewise.
        """
        carries = np.asarray(source) > 0
        return cls(
            rows=int(carries.any(axis=-2).sum(axis=-1).max()),
            pairs=int(carries.sum(axis=(-2, -1)).max()),
            classes=source.shape[-2],
            patches=source.shape[-1],
            step=step,
            platform=platform,
        )


class Discrepancy(abc.ABC):
    """Between the distributions of classes and the uniform one: a map for each class.

    Subclasses are frozen dataclasses whose fields are their options, so that they are
    hashable and can be static arguments of ``jax.jit``. One of your own needs a
    ``name`` and ``solve``:

        @dataclass(frozen=True)
        class Propagation(Discrepancy):
            name: ClassVar[str] = "propagation"

            def solve(self, source, affinity=None):
                return Solution.exact(source @ affinity)
    """

    name: ClassVar[str]
    """Its key in ``DISCREPANCIES``."""

    flat_names: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """The fields that are options for people, and what they are called on the command
    line, in files and in results."""

    @property
    def needs_affinity(self) -> bool:
        """Whether ``solve`` reads the affinity; without, it may be ``None``."""
        return True

    @property
    def takes_logits(self) -> bool:
        """Whether ``source`` is the logits themselves, and no distributions."""
        return False

    @property
    def wants_counts(self) -> bool:
        """Whether ``fitted`` makes use of counts, which cost a transfer to the host."""
        return False

    def fitted(self, counts: Counts) -> "Discrepancy":
        """The same discrepancy with sizes that suit these sources.

        Its values are the same for all sources with no larger counts; the class says
        ``Reason.TOO_MANY_ROWS`` for others.
        """
        del counts
        return self

    @property
    def attempts(self) -> "tuple[Discrepancy, ...]":
        """What to solve with, one after the other, until every class is solved.

        For programs that look at each result on the host: a later attempt is compiled
        only if it is needed. The last one gives what this discrepancy itself gives.
        """
        return (self,)

    @abc.abstractmethod
    def solve(
        self,
        source: Float[Array | np.ndarray, "classes patches"],
        affinity: Float[Array | np.ndarray, "patches patches"] | None = None,
    ) -> Solution:
        """Solve all classes of an image; runs under ``jax.jit`` and ``jax.vmap``.

        Args:
            source: Class distributions over the patches, at least 0; or logits (see
                ``takes_logits``). A row of zeros is no class: it pads the classes to a
                number that programs are compiled for. Its result is not used, and it
                must not change the results of other rows.
            affinity: Attention from patch (row) to patch (column).

        Returns:
            Value and status of each class.

        Raises:
            ValueError: A shape does not fit.
        """
