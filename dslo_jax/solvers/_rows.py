"""The rows of the cost that a solver reads, and their products with all classes.

A row without mass has scaling 0 and is not needed. The rows that are read are either
*shared* or *owned*. A shared row is used by all classes, in matrix products. An owned
row is used by one class alone; if several classes have mass in the same patch, its row
is read once for each of them. Arrays with numbers of the rows have the last axis
``holders``: all classes for shared rows, one entry for owned rows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int32

from dslo_jax import tuning
from dslo_jax.solvers._arguments import compute_dtype, find_fault
from dslo_jax.solvers._products import in_parts, multiply
from dslo_jax.solvers.reading import Reading
from dslo_jax.solvers.solution import Reason, choose_reason


class Block(NamedTuple):
    """Rows of one block of a scan, or of all blocks; see ``Problem``."""

    index: Array
    owner: Int[Array, "..."] | None


class Problem(NamedTuple):
    """The constants of the loop: the rows of the cost with mass, in blocks.

    Attributes:
        cost: All rows, or a gathered copy of those with mass.
        index: Places of the rows of each block in ``cost``: of the first row, if the
            rows follow each other, otherwise of all rows. Padding repeats a row.
        owner: Class of each owned row; None for shared rows.
        source: Row marginals; 0 in the padding.
        target: Column marginals.
        epsilon: The regulariser.
    """

    cost: Float[Array, "_ targets"]
    index: Int[Array, " blocks"] | Int[Array, "blocks rows"]
    owner: Int[Array, "blocks rows"] | None
    source: Float[Array, "blocks rows holders"]
    target: Float[Array, " targets"]
    epsilon: Float[Array, ""]

    @property
    def blocks(self) -> Block:
        """The blocks for a scan, each to be read by ``read``."""
        return Block(self.index, self.owner)

    def merged(self, together: int) -> "Problem":
        """The same rows in larger blocks, each of so many of these blocks."""

        def merge(leaf: Array) -> Array:
            return leaf.reshape(len(leaf) // together, -1, *leaf.shape[2:])

        is_sliced = self.index.ndim == 1
        return self._replace(
            index=self.index[::together] if is_sliced else merge(self.index),
            owner=None if self.owner is None else merge(self.owner),
            source=merge(self.source),
        )

    def read(self, block: Block) -> Float[Array, "rows targets"]:
        """Read the rows of a block; rows that do not follow each other are gathered."""
        if self.index.ndim == 2:
            rows = self.cost[block.index]
        else:
            count = self.source.shape[1]
            rows = jax.lax.dynamic_slice_in_dim(self.cost, block.index, count)
        return rows.astype(self.source.dtype)

    def rows_at(self, place: Int[Array, " places"]) -> Float[Array, "places targets"]:
        """Read single rows, by their numbers among all rows of all blocks."""
        index = self.index.reshape(-1)[place] if self.index.ndim == 2 else place
        return self.cost[index].astype(self.source.dtype)

    def exponent(
        self, cost: Float[Array, "rows targets"], shift: Float[Array, " rows"]
    ) -> Array:
        """Logarithm of the kernel of some rows, each shifted by its mean cost."""
        return (shift[:, None] - cost) / self.epsilon

    def extremes(
        self, cost: Float[Array, "rows targets"], shift: Float[Array, " rows"]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Smallest and largest exponent, without gradients."""
        ends = jax.lax.stop_gradient((jnp.max(cost, axis=1), jnp.min(cost, axis=1)))
        low, high = (self.exponent(end[:, None], shift) for end in ends)
        return jnp.min(low), jnp.max(high)

    def by_class(
        self, held: Float[Array, "blocks rows holders"], classes: int
    ) -> Float[Array, "classes blocks rows"]:
        """Numbers of the rows for every class; 0 where a class does not own a row."""
        if self.owner is None:
            return jnp.moveaxis(held, 2, 0)
        is_owner = self.owner[None] == jnp.arange(classes)[:, None, None]
        return jnp.where(is_owner, held[None, ..., 0], 0)

    def by_row(
        self, of_class: Float[Array, "classes blocks rows"]
    ) -> Float[Array, "blocks rows holders"]:
        """The inverse of ``by_class``."""
        if self.owner is None:
            return jnp.moveaxis(of_class, 0, 2)
        return jnp.sum(of_class, axis=0)[..., None]


def prepare(
    source: Float[Array, "classes patches"],
    cost: Float[Array, "patches targets"],
    target: Float[Array, " targets"] | None,
    epsilon: float | Float[Array, ""],
    reading: Reading,
) -> tuple[Problem, Int32[Array, " classes"]]:
    """Prepare what the loop reads, and the reason of classes that cannot be solved."""
    dtype = compute_dtype(source, cost)
    if target is None:
        target = jnp.full(cost.shape[1], 1 / cost.shape[1], dtype)
    target, epsilon = target.astype(dtype), jnp.asarray(epsilon, dtype)
    fault = find_fault(source.astype(dtype))
    is_distribution = find_fault(target[None]) == Reason.CONVERGED.value
    fault = choose_reason(
        (fault != Reason.CONVERGED.value, fault),
        (~is_distribution, Reason.TARGET_UNUSABLE),
        (~(epsilon > 0), Reason.EPSILON_NOT_POSITIVE),
    )
    usable = fault == Reason.CONVERGED.value
    source = jnp.where(usable[:, None], source.astype(dtype), 0)
    total = jnp.sum(source, axis=1, keepdims=True)
    source *= jnp.sum(target) / jnp.where(total > 0, total, 1)
    if reading.pairs is None:
        owner = None
        index, count = _rows_with_mass(source, reading.support)
        held = source.T[index]
    else:
        index, owner, count = _pairs_with_mass(source, reading.pairs)
        held = source[owner, index][..., None]
    is_row = jnp.arange(index.size, dtype=count.dtype).reshape(index.shape) < count
    held = jnp.where(is_row[..., None], held, 0)
    patches = cost.shape[0]
    fits = count <= reading.rows(patches)
    is_whole = reading == Reading() and index.size == patches
    narrow = cost.dtype != dtype
    if is_whole or is_gathered_once(index.size, cost.shape[1], is_narrow=narrow):
        # Rows that follow each other are sliced. A scan over blocks of the cost itself
        # would copy it if there are several images.
        cost = cost if is_whole else cost[index.reshape(-1)]
        index = jnp.arange(0, index.size, index.shape[1])
    fault = choose_reason((usable & ~fits, Reason.TOO_MANY_ROWS), otherwise=fault)
    return Problem(cost, index, owner, held, target, epsilon), fault


def is_gathered_once(rows: int, targets: int, *, is_narrow: bool) -> bool:
    """Whether all rows are gathered at once, or block by block when they are read."""
    # If a narrow cost were gathered later, the compiler would widen all of it.
    return is_narrow or rows * targets <= tuning.GATHERED_AT_ONCE


def _rows_with_mass(
    source: Float[Array, "classes patches"], support: int | None
) -> tuple[Int[Array, "blocks rows"], Int[Array, ""]]:
    """The rows in which any class has mass, in blocks, and their number."""
    patches = source.shape[1]
    if support is None:
        return _in_blocks(jnp.arange(patches)), jnp.asarray(patches)
    carries = jnp.any(source > 0, axis=0)
    # Padding repeats a row that is read anyway; other rows may contain anything.
    (index,) = jnp.nonzero(carries, size=support, fill_value=jnp.argmax(carries))
    return _in_blocks(index), jnp.sum(carries)


def _pairs_with_mass(
    source: Float[Array, "classes patches"], pairs: int
) -> tuple[Int[Array, "blocks rows"], Int[Array, "blocks rows"], Int[Array, ""]]:
    """Row and class of every pair with mass, in blocks, and the number of pairs."""
    carries = (source > 0).astype(source.dtype)
    counts = jnp.sum(carries, axis=0).astype(jnp.int32)
    ends = jnp.cumsum(counts, dtype=jnp.int32)
    number = jnp.arange(pairs, dtype=jnp.int32)
    number = jnp.minimum(number, ends[-1] - 1)  # padding repeats the last
    index = jnp.searchsorted(ends, number, side="right")
    # Number of earlier pairs of the same row.
    before = number - (ends[index] - counts[index])
    # Number of classes up to each class with mass there; far faster than `cumsum`.
    up_to = jnp.tril(jnp.ones((len(source),) * 2, source.dtype))
    passed = multiply(up_to, carries[:, index])
    owner = jnp.sum(passed <= before.astype(passed.dtype)[None], axis=0)
    owner = jnp.minimum(owner, len(source) - 1)  # there may be no mass at all
    return _in_blocks(index), _in_blocks(owner), ends[-1]


def _in_blocks(rows: Int[Array, " rows"]) -> Int[Array, "blocks rows_of_block"]:
    """Divide rows into blocks; padding repeats the last row."""
    blocks, count = block_shape(rows.size)
    padded = jnp.pad(rows, (0, blocks * count - rows.size), mode="edge")
    return padded.reshape(blocks, count)


def block_shape(rows: int) -> tuple[int, int]:
    """Number of blocks, and of the rows in each block with padding."""
    blocks = -(-rows // tuning.BLOCK_ROWS)
    return blocks, -(-rows // blocks)


Owner = Int[Array, " rows"] | None
"""Class of each row of one block; None for shared rows."""


def of_rows(
    of_class: Float[Array, " classes"], owner: Owner
) -> Float[Array, "_ holders"]:
    """Numbers of the classes, arranged for the rows."""
    return of_class[None] if owner is None else of_class[owner][:, None]


def onto_rows(
    matrix: Float[Array, "rows targets"],
    column: Float[Array, "classes targets"],
    owner: Owner,
) -> Float[Array, "rows holders"]:
    """``matrix @ column``, for each row and its holders."""
    if owner is None:
        return _matmul(matrix, column.T)
    precision = jax.lax.Precision.HIGHEST
    product = jnp.einsum("rt,rt->r", matrix, column[owner], precision=precision)
    return product[:, None]


def onto_columns(
    reached: Float[Array, "classes targets"],
    row: Float[Array, "rows holders"],
    matrix: Float[Array, "rows targets"],
    owner: Owner,
) -> Float[Array, "classes targets"]:
    """``reached + row @ matrix``, for each class and the rows that it holds."""
    if owner is None:
        return reached + _matmul(row.T, matrix)
    # Without the barrier the CPU program multiplies row by row, 5 times slower.
    return reached.at[owner].add(jax.lax.optimization_barrier(row * matrix))


def sum_on_rows(
    matrix: Float[Array, "rows targets"],
) -> Float[Array, "rows 1"]:
    """The sum of every row, by a product like the other uses of the matrix."""
    return _matmul(matrix, jnp.ones((matrix.shape[1], 1), matrix.dtype))


def least_of_class(
    held: Float[Array, "rows holders"], owner: Owner, classes: int
) -> Float[Array, " classes"]:
    """The smallest number of each class."""
    if owner is None:
        return jnp.min(held, axis=0)
    return jnp.full(classes, jnp.inf, held.dtype).at[owner].min(held[:, 0])


def _matmul(left: Float[Array, "m k"], right: Float[Array, "k n"]) -> Array:
    """The product; a product with a vector is computed for each half of it, and added.

    A CPU takes the same time for both ways, and the sum in halves is more exact.
    """
    if left.shape[0] == 1:
        halves = in_parts(left[0], 2)
        return jnp.sum(multiply(halves, right), axis=0, keepdims=True)
    if right.shape[1] == 1:
        halves = in_parts(right[:, 0], 2).T
        return jnp.sum(multiply(left, halves), axis=1, keepdims=True)
    return multiply(left, right)
