"""Layers of self-attention by name, short name or index, and their weights."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from dslo_jax.errors import OptionError


Layers = tuple[tuple[str, float], ...]
"""Pairs of the name of a layer and its weight."""

_INDEX = re.compile(r"-?\d+")
_WANTED = (
    "layers by name or by index, each with or without a weight, such as up0=0.5 "
    "up1=0.5 or -1 for the last"
)


def read_layers(given: Any) -> Layers:
    """Read layers and their weights in any of their spellings.

    A layer is a name or an index (0 is the first, -1 the last). Its weight follows it:
    in a pair (``("up0", 0.5)``), after a sign (``"up0=0.5"``) or as the next number
    (``"up0", 0.5``). A number that follows no name is an index, and so is every
    negative whole number. A layer without a weight has weight 1.

    Args:
        given: One layer or several; commas and spaces in a text separate layers.

    Returns:
        The layers as they are called, with their weights. Nothing is known here of the
        network, so the layers may not exist; see ``find_layers``.

    Raises:
        OptionError: It is none of these spellings (``O03``).
    """
    layers: list[tuple[str, float]] = []
    has_weight = True  # whether the last layer cannot take the next number as its own
    for name, weight in _parts(given):
        index = _INDEX.fullmatch(name)
        number = _number(name)
        if weight is None and number is not None and number >= 0 and not has_weight:
            layers[-1] = layers[-1][0], number
            has_weight = True
            continue
        if number is not None and not index:
            raise _refused(given)
        layers.append((name, 1.0 if weight is None else weight))
        has_weight = index is not None or weight is not None
    return tuple(layers)


def find_layers(layers: Layers, names: Sequence[str], network: str) -> Layers:
    """Find layers among those of a network.

    Args:
        layers: Full names, short names (see ``short_name``) or indices, with weights.
        names: The full names of the layers that can be read, in the order of execution.
        network: What the network is called, for the error.

    Returns:
        The layers by their full names.

    Raises:
        OptionError: A layer does not exist or is given twice, or a weight is negative,
            or all are zero (``O01``).
    """
    known = {short_name(name): name for name in names} | {name: name for name in names}
    count = len(names)
    known |= {str(index): names[index] for index in range(-count, count)}
    if unknown := [name for name, _ in layers if name not in known]:
        raise OptionError(
            "O01",
            f"affinity_layers names {unknown}, but the layers of {network} are "
            f"{_listed(names)}, or their indices 0 ... {count - 1} or {-count} ... -1",
        )
    found = tuple((known[name], weight) for name, weight in layers)
    if len({name for name, _ in found}) != len(found):
        raise OptionError(
            "O01",
            f"affinity_layers names {[name for name, _ in layers]}, expected different "
            "names; name each once",
        )
    check_weights([weight for _, weight in found])
    return found


def short_name(layer: str) -> str:
    """The name of a layer in the paper: down0, ..., up2 (Table 3).

    Args:
        layer: The path of an attention of a UNet; other names are returned as they are.
    """
    block, dot, index = layer.partition(".attentions.")
    return block.split("_")[0] + index if dot else layer


def check_weights(weights: Sequence[float]) -> None:
    """Refuse (``O01``) weights that are negative, infinite or all zero."""
    total = sum(weights)
    if not (0 < total < math.inf) or min(weights) < 0:
        raise OptionError(
            "O01",
            f"`weights` is {tuple(weights)}, expected numbers that are not negative "
            "and not all zero",
        )


def _parts(given: Any) -> Iterator[tuple[str, float | None]]:
    """What stands between the separators, each with the weight that is tied to it."""
    for entry in given if isinstance(given, (list, tuple)) else (given,):
        if isinstance(entry, str):
            for word in entry.replace(",", " ").split():
                name, sign, weight = word.rpartition("=")
                number = _number(weight)
                if sign and (number is None or not name):
                    raise _refused(given)
                yield (name, number) if sign else (word, None)
        elif isinstance(entry, (list, tuple)) and len(entry) == 2:
            name, weight = entry
            if not isinstance(name, (str, int)) or isinstance(name, bool):
                raise _refused(given)
            if not isinstance(weight, (int, float)) or isinstance(weight, bool):
                raise _refused(given)
            yield str(name), float(weight)
        elif isinstance(entry, (int, float)) and not isinstance(entry, bool):
            yield str(entry), None
        else:
            raise _refused(given)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _listed(names: Sequence[str]) -> str:
    """The names and their short names; without short names the first and the last."""
    shorter = [short_name(name) for name in names]
    if shorter == list(names):
        return f"{names[0]} ... {names[-1]}"
    pairs = zip(names, shorter, strict=True)
    return ", ".join(f"{short} ({name})" for name, short in pairs)


def _refused(given: Any) -> OptionError:
    return OptionError("O03", f"affinity_layers = {given!r}; expected {_WANTED}")
