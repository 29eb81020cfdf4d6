"""The best pairs of rows and columns of a small matrix, inside a compiled program."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32


class _Search(NamedTuple):
    """The state of the search for one row. Place 0 stands for no column."""

    columns: Int32[Array, " places"]  # row of every column, counted from 1; 0 for none
    row_price: Float[Array, " places"]
    column_price: Float[Array, " places"]
    least: Float[Array, " places"]  # distance of every column from the new row
    before: Int32[Array, " places"]  # the column from which it is reached
    used: Bool[Array, " places"]
    place: Int32[Array, ""]


def least_cost(cost: Float[Array, "size size"]) -> Int32[Array, " size"]:
    """Pair every row with a column so that the sum of the costs is the least.

    The Hungarian method, with one shortest path for each row: O(size^3). Small
    matrices only: its loops are not parallel.

    Args:
        cost: Finite costs.

    Returns:
        The column of every row.
    """
    size = len(cost)
    padded = jnp.pad(cost, ((1, 0), (1, 0)))

    def add_row(row: Int32[Array, ""], state: tuple[Array, ...]) -> tuple[Array, ...]:
        columns, row_price, column_price = state
        begun = _Search(
            columns.at[0].set(row),
            row_price,
            column_price,
            jnp.full(size + 1, jnp.inf, cost.dtype),
            jnp.zeros(size + 1, jnp.int32),
            jnp.zeros(size + 1, bool),
            jnp.asarray(0, jnp.int32),
        )
        found = jax.lax.while_loop(
            lambda s: s.columns[s.place] != 0, lambda s: _step(padded, s), begun
        )
        columns = _moved(found)
        return columns, found.row_price, found.column_price

    none = jnp.zeros(size + 1, jnp.int32)
    price = jnp.zeros(size + 1, cost.dtype)
    columns, _, _ = jax.lax.fori_loop(1, size + 1, add_row, (none, price, price))
    return jnp.zeros(size, jnp.int32).at[columns[1:] - 1].set(jnp.arange(size))


def _step(cost: Float[Array, "places places"], search: _Search) -> _Search:
    """Use the nearest column that is not used yet."""
    used = search.used.at[search.place].set(True)
    row = search.columns[search.place]
    reached = cost[row] - search.row_price[row] - search.column_price
    nearer = ~used & (reached < search.least)
    least = jnp.where(nearer, reached, search.least)
    before = jnp.where(nearer, search.place, search.before)
    free = jnp.where(used, jnp.inf, least)
    place = jnp.argmin(free).astype(jnp.int32)
    change = jnp.where(used, free[place], 0)
    return _Search(
        search.columns,
        search.row_price.at[search.columns].add(change),
        search.column_price - change,
        jnp.where(used, least, least - free[place]),
        before,
        used,
        place,
    )


def _moved(search: _Search) -> Int32[Array, " places"]:
    """Give the columns on the path that was found to the rows before them."""

    def move(state: tuple[Array, Array]) -> tuple[Array, Array]:
        columns, place = state
        before = search.before[place]
        return columns.at[place].set(columns[before]), before

    columns, _ = jax.lax.while_loop(
        lambda state: state[1] != 0, move, (search.columns, search.place)
    )
    return columns
