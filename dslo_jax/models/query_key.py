"""The queries and keys of a self-attention, as every network here hands them out."""

from typing import NamedTuple

from jaxtyping import Array


class QueryKey(NamedTuple):
    """What a self-attention map is made of.

    Attributes:
        query: ``[batch tokens heads head_channels]``.
        key: ``[batch tokens heads head_channels]``.
    """

    query: Array
    key: Array
