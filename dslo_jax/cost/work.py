"""Amounts of computation, and the parts that many networks are made of.

A FLOP is an addition or a multiplication; a product of matrices has two for every pair
of numbers that meet.
"""

from typing import NamedTuple


class Work(NamedTuple):
    """An amount of computation.

    Attributes:
        flops: All of it.
        once: The same with the body of every loop counted once, which is how the
            compiler counts, who does not know how often a loop turns.
    """

    flops: int = 0
    once: int = 0

    def __add__(self, other: object) -> "Work":
        if not isinstance(other, Work):
            return NotImplemented
        return Work(self.flops + other.flops, self.once + other.once)

    def times(self, count: int) -> "Work":
        """The same several times, each written out in the program."""
        return Work(self.flops * count, self.once * count)

    def looped(self, count: int) -> "Work":
        """The body of a loop of so many turns."""
        return Work(self.flops * count, self.once)


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
