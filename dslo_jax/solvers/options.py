"""The choice of a discrepancy, and the options of all discrepancies with a name.

The options of a discrepancy are the fields of its class with a flat name. The options
of all discrepancies are kept, not only those of the chosen one: a configuration file
may hold options of the path and of the velocity, and the command line chooses one of
them.
"""

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dslo_jax.errors import OptionError
from dslo_jax.options import MAX_FLOAT, MAX_INT, check_choice, check_type
from dslo_jax.solvers.discrepancy import Discrepancy
from dslo_jax.solvers.fused import Fused
from dslo_jax.solvers.path import OptimalPath
from dslo_jax.solvers.registry import DISCREPANCIES


# Options that differ from the defaults of the class: for labels, paths are scaled to
# [0, 1].
_CHOSEN = {"path": OptimalPath(norm="minmax")}
_DEFAULTS = tuple(
    _CHOSEN.get(name, kind()) for name, kind in DISCREPANCIES.items() if kind != Fused
)


@dataclass(frozen=True)
class SolverOptions:
    """The discrepancy that is turned into labels, and the options of all.

    Args:
        mode: Discrepancy that is turned into labels: maximum ``velocity`` (Eq. 12),
            optimal ``path`` (Eq. 3), ``fused`` (the mean of both), ``kl`` (Eq. 2),
            the ``logits`` themselves (the baseline), or label ``propagation``.
        known: Discrepancies that ``mode`` may name. ``fused`` need not be among them:
            it is made of the path and the velocity.

    Raises:
        OptionError: ``mode`` names none of them (``O03``).
    """

    mode: str = "velocity"
    known: tuple[Discrepancy, ...] = _DEFAULTS

    def __post_init__(self):
        check_choice("mode", self.mode, self.modes)

    @property
    def modes(self) -> tuple[str, ...]:
        """The names that ``mode`` may have."""
        own = [each.name for each in self.known]
        return tuple(dict.fromkeys([*DISCREPANCIES, *own]))

    @property
    def discrepancy(self) -> Discrepancy:
        """The discrepancy that ``mode`` names."""
        by_name: dict[str, Any] = {each.name: each for each in self.known}
        if self.mode == Fused.name:
            fused = by_name.get(Fused.name, Fused())
            return Fused(by_name[fused.first.name], by_name[fused.second.name])
        return by_name[self.mode]

    @property
    def flat(self) -> dict[str, Any]:
        """The options by their flat names.

        A flat name that several discrepancies share means that of the chosen one.
        """
        flat: dict[str, Any] = {"mode": self.mode}
        chosen = self._solved()
        for each in self.known:
            for field, name in each.flat_names.items():
                if name not in flat or each.name in chosen:
                    flat[name] = getattr(each, field)
        return flat

    def replaced(self, values: Mapping[str, Any]) -> "SolverOptions":
        """The same with other options by flat names; unknown names are ignored.

        Raises:
            OptionError: A value is out of range or of another type.
        """
        changed = SolverOptions(values.get("mode", self.mode), self.known)
        chosen = changed._solved()
        taken = {
            name
            for each in self.known
            if each.name in chosen
            for name in each.flat_names.values()
        }
        others = {name: value for name, value in values.items() if name not in taken}
        known = tuple(
            _replaced(each, values if each.name in chosen else others)
            for each in self.known
        )
        return dataclasses.replace(changed, known=known)

    def _solved(self) -> tuple[str, ...]:
        """The names of the discrepancies that are solved for: one, or two fused."""
        chosen = self.discrepancy
        if isinstance(chosen, Fused):
            return chosen.first.name, chosen.second.name
        return (chosen.name,)

    def with_discrepancy(self, discrepancy: Discrepancy) -> "SolverOptions":
        """The same, with this discrepancy in place of the one with its name."""
        known = {each.name: each for each in self.known}
        if isinstance(discrepancy, Fused):
            known |= {d.name: d for d in (discrepancy.first, discrepancy.second)}
        _require_own_name(discrepancy)
        known[discrepancy.name] = discrepancy
        return SolverOptions(discrepancy.name, tuple(known.values()))


def _require_own_name(discrepancy: Discrepancy) -> None:
    """Refuse the name of a built-in discrepancy for another one."""
    built_in = DISCREPANCIES.get(discrepancy.name)
    if built_in is not None and not isinstance(discrepancy, built_in):
        kind = type(discrepancy).__name__
        raise OptionError(
            "O10",
            f"{kind}.name is {discrepancy.name!r}, the name of {built_in.__name__}; "
            "choose another, or derive the class from it",
        )


def named_fields(kind: type[Discrepancy]) -> dict[str, dataclasses.Field]:
    """The fields of a discrepancy with a flat name, by this name."""
    if not kind.flat_names:
        return {}
    fields = {field.name: field for field in dataclasses.fields(kind)}  # pyright: ignore
    return {flat: fields[name] for name, flat in kind.flat_names.items()}


def _replaced(discrepancy: Any, values: Mapping[str, Any]) -> Any:
    """The discrepancy with other options; its class checks their ranges."""
    fields = named_fields(type(discrepancy))
    chosen = {flat: field.name for flat, field in fields.items() if flat in values}
    if not chosen:
        return discrepancy
    kinds = _types(type(discrepancy))
    typed = {
        flat: _typed(flat, values[flat], kinds[name]) for flat, name in chosen.items()
    }
    try:
        made = dataclasses.replace(
            discrepancy, **{name: typed[flat] for flat, name in chosen.items()}
        )
    except ValueError as error:
        text = str(error)
        for name, flat in discrepancy.flat_names.items():
            text = text.replace(f"`{name}` is ", f"{flat} = ")
        raise OptionError("O01", text) from error
    # Only now, because the class states the range of its own options.
    for flat, value in typed.items():
        if isinstance(value, int | float):
            _check_size(flat, value, MAX_FLOAT if isinstance(value, float) else MAX_INT)
    return made


@lru_cache(maxsize=64)
def _types(kind: type) -> dict[str, Any]:
    """The types of the fields of a discrepancy, also where they are written as text."""
    try:
        return typing.get_type_hints(kind)
    except NameError as error:
        raise OptionError(
            "O10",
            f"a field of {kind.__name__} has a type that is not known: {error}; use "
            "float, int, bool or str",
        ) from error


def plain_options(discrepancy: Any) -> dict[str, Any]:
    """The fields of a discrepancy as plain values; those of a fused one as dicts."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        if isinstance(value, tuple):
            return [plain(each) for each in value]
        if isinstance(value, bool | int | str) or value is None:
            return value
        return (
            value if isinstance(value, float) and math.isfinite(value) else str(value)
        )

    return plain(dataclasses.asdict(discrepancy))


def _typed(name: str, value: Any, kind: Any) -> Any:
    """Check the type of a value, and convert it to a float where one is wanted."""
    check_type(name, value, kind)
    if kind is float:
        if isinstance(value, int):  # which may be beyond all floats
            _check_size(name, value, MAX_FLOAT)
        return float(value)
    return value


def _check_size(name: str, value: int | float, limit: int | float) -> None:
    """Refuse what arrays on the device cannot hold, and NaN."""
    if not abs(value) <= limit:
        raise OptionError(
            "O01",
            f"{name} = {value} is out of range; expected at most {limit} in size",
        )
