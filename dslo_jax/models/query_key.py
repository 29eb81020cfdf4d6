"""The queries and keys of a self-attention, as every network here returns them."""

from typing import NamedTuple

from jaxtyping import Array


class QueryKey(NamedTuple):
    """Queries and keys, from which a self-attention map is computed.

    Attributes:
        query: ``[batch tokens heads head_channels]``.
        key: ``[batch tokens heads head_channels]``.
    """

    query: Array
    key: Array
