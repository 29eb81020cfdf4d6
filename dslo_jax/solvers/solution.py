"""The result of a discrepancy: a map for each class, and its status."""

import enum
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32


class Reason(enum.IntEnum):
    """The reason why a class ended, with a ``sentence`` that explains it.

    Up to ``DISCONNECTED`` the class was solved: it has a value, and its ``error`` is a
    number. From ``NO_MASS`` on it was not solved: its value is 0, and its ``error`` is
    NaN.

    Example:
        >>> Reason(4).name, Reason(4).sentence
        ('NO_MASS', 'The source of the class is 0 in every patch.')
    """

    sentence: str

    def __new__(cls, number: int, sentence: str):
        """Make a member from its number and its sentence."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.sentence = sentence
        return member

    CONVERGED = 0, "The error is at most the tolerance."
    STEP_CAP = (
        1,
        "It took as many steps as are allowed, and the error is above the tolerance: "
        "allow more (max_steps; path_steps or velocity_steps of the segmenter).",
    )
    STALLED = (
        2,
        "The steps change nothing but rounding errors, and these may add up to more "
        "than the tolerance: raise the tolerance or epsilon, or compute in float64.",
    )
    DISCONNECTED = (
        3,
        "The chain came to rest before it reached every patch: no path of the "
        "affinity leads to the others, or the threshold is too high.",
    )
    NO_MASS = 4, "The source of the class is 0 in every patch."
    SOURCE_NEGATIVE = 5, "The source of the class has a negative value."
    SOURCE_NOT_FINITE = 6, "The source of the class has a NaN or infinite value."
    TARGET_UNUSABLE = (
        7,
        "The target is no distribution: it has a value that is negative, NaN or "
        "infinite, or no mass at all.",
    )
    AFFINITY_NEGATIVE = 8, "The affinity has a negative value."
    AFFINITY_NOT_FINITE = 9, "The affinity, or cost, has a NaN or infinite value."
    UNBALANCEABLE = (
        10,
        "The affinity has a row or column of zeros, which nothing can scale to sum 1.",
    )
    EPSILON_NOT_POSITIVE = 11, "The epsilon is 0, negative or NaN."
    EPSILON_TOO_SMALL = (
        12,
        "The costs differ by so many epsilon that rounding leaves no digit of the "
        "plan: raise epsilon, or compute in float64.",
    )
    KERNEL_UNDERFLOW = (
        13,
        "The kernel exp(-cost / epsilon) is too small or too large for its sums to be "
        "exact: raise epsilon, or use the domain 'auto' or 'log'.",
    )
    TOO_MANY_ROWS = (
        14,
        "More patches carry mass than `support` says, or more pairs than `pairs`.",
    )
    NOT_FINITE = 15, "The computation of the class became NaN or infinite."

    @property
    def is_solved(self) -> bool:
        """Whether the class has a value, converged or not."""
        return self < Reason.NO_MASS


class Solution(NamedTuple):
    """The result of a ``Discrepancy`` for each class.

    Attributes:
        value: Discrepancy of each class in each patch: high where a patch belongs to
            the class; 0 for a class that was not solved.
        num_steps: Number of steps.
        error: Error as the discrepancy defines it; 0 for a closed form, NaN for a class
            that was not solved.
        converged: True where ``reason`` is ``Reason.CONVERGED``.
        reason: A ``Reason``; ``Reason(int(reason[c])).sentence`` explains it.
    """

    value: Float[Array, "classes patches"]
    num_steps: Int[Array, " classes"]
    error: Float[Array, " classes"]
    converged: Bool[Array, " classes"]
    reason: Int32[Array, " classes"]

    @classmethod
    def exact(
        cls,
        value: Float[Array, "classes patches"],
        fault: Int32[Array, " classes"] | None = None,
    ) -> "Solution":
        """The solution of a closed form: no steps, and error 0.

        Args:
            value: Discrepancy of each class in each patch.
            fault: The ``Reason`` of each class that could not be solved, and
                ``Reason.CONVERGED`` for the others. Default: all were solved.
        """
        classes = value.shape[0]
        none = jnp.zeros(classes, jnp.int32)
        fault = none if fault is None else fault
        is_solved = fault == Reason.CONVERGED.value
        return cls(
            jnp.where(is_solved[:, None], value, 0),
            none,
            jnp.where(is_solved, 0, jnp.full(classes, jnp.nan, value.dtype)),
            is_solved,
            fault,
        )


def choose_reason(
    *cases: tuple[Bool[Array, "..."], Reason | Int32[Array, "..."]],
    otherwise: Reason | Int32[Array, "..."] = Reason.CONVERGED,
) -> Int32[Array, "..."]:
    """The reason of the first case that holds.

    Args:
        cases: Conditions, and the reason where each holds.
        otherwise: Where none of them holds.
    """
    reason = jnp.asarray(otherwise, jnp.int32)
    for holds, this in reversed(cases):
        reason = jnp.where(holds, jnp.asarray(this, jnp.int32), reason)
    return reason
