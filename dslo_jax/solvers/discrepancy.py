"""The base class of discrepancies: a solver and its options as one value."""

import abc
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from dslo_jax.solvers.solution import Solution


class Counts(NamedTuple):
    """Sizes of sources, and how many of their entries have mass.

    The counts are taken on the host, to choose static sizes before compilation. For
    several images, each count is that of the image with most.

    Attributes:
        rows: Number of patches with mass in any class.
        pairs: Number of pairs of a class and a patch with mass in it.
        classes: Number of classes of an image.
        patches: Number of patches of an image.
        step: Chosen sizes are multiples of this, so that images share a compilation.
        platform: Platform of the device: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
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
        """Count the mass in the sources of one image or of several.

        Args:
            source: Class distributions over the patches.
            step: As the attribute.
            platform: As the attribute.
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
    """Discrepancy of class distributions from the uniform one: a map for each class.

    Subclasses are frozen dataclasses whose fields are their options, so that they are
    hashable and can be static arguments of ``jax.jit``. Your own subclass needs a
    ``name`` and the method ``solve``; ``iterate`` is a loop for it. Where it is used, a
    mistake in it is an ``OptionError`` (``O10``)::

        @dataclass(frozen=True)
        class Propagation(Discrepancy):
            name: ClassVar[str] = "propagation"

            def solve(self, source, affinity=None):
                return Solution.exact(source @ affinity)
    """

    name: ClassVar[str]
    """The key in ``DISCREPANCIES``, and the name of one's own in results."""

    flat_names: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """The names of fields on the command line, in files and in results. Fields without
    such a name can be set in Python only."""

    traced: ClassVar[tuple[str, ...]] = ()
    """The fields that may be traced numbers while ``solve`` is compiled, so that one
    program serves all of their values."""

    @property
    def needs_affinity(self) -> bool:
        """Whether ``solve`` reads the affinity; if not, it may be ``None``."""
        return True

    @property
    def takes_logits(self) -> bool:
        """Whether ``source`` holds the logits themselves instead of distributions."""
        return False

    @property
    def wants_counts(self) -> bool:
        """Whether ``fitted`` uses counts, which need a transfer to the host."""
        return False

    def fitted(self, counts: Counts) -> "Discrepancy":
        """The same discrepancy with static sizes for sources of these counts.

        The values do not change. Classes of sources with greater counts end with
        ``Reason.TOO_MANY_ROWS``.
        """
        del counts
        return self

    @property
    def attempts(self) -> "tuple[Discrepancy, ...]":
        """Discrepancies to solve with, one after another, until every class is solved.

        They are for programs that check each result on the host, so that a later
        attempt is compiled only if it is needed. The last attempt gives the result of
        this discrepancy itself.
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
