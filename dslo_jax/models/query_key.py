"""The queries, keys and values of attentions, as the networks here exchange them."""

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


class KeyValue(NamedTuple):
    """Keys and values of the tokens that are attended to.

    Attributes:
        key: ``[batch tokens heads head_channels]``.
        value: ``[batch tokens heads head_channels]``.
    """

    key: Array
    value: Array
