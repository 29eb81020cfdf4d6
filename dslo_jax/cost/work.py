"""Amounts of computation, and the parts that many networks are made of.

A FLOP is an addition or a multiplication; a product of matrices has two for every pair
of numbers that meet.
"""

from typing import NamedTuple


WORD = 4
"""Bytes of float32, in which all solvers compute."""


class Work(NamedTuple):
    """What has to be done. A field is 0 where its amount is not known.

    Attributes:
        flops: Additions, multiplications, divisions, comparisons.
        once: The same with the body of every loop counted once, which is how the
            compiler counts, who does not know how often a loop turns.
        transcendentals: Exponentials and logarithms, which take a unit of their own or
            many operations.
        bytes: Read and written.
        working_set_bytes: What is passed over again and again.
    """

    flops: int = 0
    once: int = 0
    transcendentals: int = 0
    bytes: int = 0
    working_set_bytes: int = 0

    def __add__(self, other: object) -> "Work":
        """One after the other; the larger working set counts."""
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
        """The same several times, each written out in the program."""
        return self.looped(count)._replace(once=self.once * count)

    def looped(self, count: int) -> "Work":
        """The body of a loop of so many turns."""
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
