"""Amounts of computation, and the parts that many networks are made of.

A FLOP is an addition or a multiplication; a product of matrices has two for every pair
of numbers that meet.
"""

from typing import NamedTuple


WORD = 4
"""Bytes of float32, in which all solvers compute."""


class Work(NamedTuple):
    """An amount of computation. A field is 0 where its amount is not known.

    Attributes:
        flops: Additions, multiplications, divisions and comparisons.
        once: FLOPs with the body of every loop counted once. The compiler counts in
            this way, because it does not know how often a loop runs.
        transcendentals: Exponentials and logarithms, which need a unit of their own or
            many operations.
        bytes: Bytes that are read and written.
        working_set_bytes: Bytes that are read or written repeatedly.
    """

    flops: int = 0
    once: int = 0
    transcendentals: int = 0
    bytes: int = 0
    working_set_bytes: int = 0

    def __add__(self, other: object) -> "Work":
        """The sum of both; of the working sets, the larger one."""
        if not isinstance(other, Work):
            return NotImplemented
        return Work(
            self.flops + other.flops,
            self.once + other.once,
            self.transcendentals + other.transcendentals,
            self.bytes + other.bytes,
            max(self.working_set_bytes, other.working_set_bytes),
        )

    def times(self, count: int) -> "Work":
        """The same several times, each of them in the program."""
        return self.looped(count)._replace(once=self.once * count)

    def looped(self, count: int) -> "Work":
        """A loop that runs this computation ``count`` times."""
        return Work(
            self.flops * count,
            self.once,
            self.transcendentals * count,
            self.bytes * count,
            self.working_set_bytes,
        )


def product(rows: int, inner: int, columns: int) -> Work:
    """A matrix product: 2 * rows * inner * columns."""
    flops = 2 * rows * inner * columns
    return Work(flops, flops)


def block(tokens: int, channels: int, inner: int) -> Work:
    """A block of a transformer, all heads at once: 2 N (4 C^2 + 2 C I) + 4 N^2 C.

    Args:
        tokens: N.
        channels: C of a token.
        inner: I inside the MLP.
    """
    work = product(tokens, channels, 4 * channels + 2 * inner)
    return work + product(tokens, channels, tokens).times(2)
