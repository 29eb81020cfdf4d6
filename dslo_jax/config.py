"""All options of the method in one frozen and hashable dataclass.

Each room defines and checks the options of its own step. This module combines these
parts, and gives every option its flat name, which is used on the command line, in TOML
files and in results. ``docs/method.md`` explains the defaults where the paper leaves a
choice open.
"""

import dataclasses
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dslo_jax.attention.options import AffinityOptions
from dslo_jax.errors import OptionError, cause_of, did_you_mean, similar_files
from dslo_jax.files import read_text
from dslo_jax.logits.options import ClipOptions
from dslo_jax.ops.options import BackgroundOptions, SourceOptions, UpsamplingOptions
from dslo_jax.options import flat_fields
from dslo_jax.solvers import Discrepancy
from dslo_jax.solvers.contract import is_own, require_usable
from dslo_jax.solvers.options import SolverOptions, named_fields, plain_options


_MOST_BYTES = 32 * 1024  # the time of ``tomllib`` grows with the square of a key
_SIZE_UNIT = 64  # pixels; Stable Diffusion halves the sides of a photo six times
_PARTS = ("solver", "clip", "source", "affinity", "upsampling", "background")


@dataclass(frozen=True)
class SegmenterConfig:
    """The options of the method.

    ``of`` makes a configuration from flat names, and ``with_options`` changes it:

        >>> config = SegmenterConfig.of(short_side=448, epsilon=0.05)
        >>> config.with_options(mode="path").discrepancy.epsilon
        0.05

    Args:
        clip: Options of CLIP's logits.
        source: Options of the steps from logits to the distributions of a solver.
        affinity: Options of the self-attention that is read.
        solver: The discrepancy that is solved for, and the options of each.
        upsampling: Options of the step from maps to labels of the pixels.
        background: Options of the threshold below which a pixel becomes background.

    Raises:
        OptionError: A value is out of its range (``O01``); the message names both.
    """

    clip: ClipOptions = ClipOptions()
    source: SourceOptions = SourceOptions()
    affinity: AffinityOptions = AffinityOptions()
    solver: SolverOptions = SolverOptions()
    upsampling: UpsamplingOptions = UpsamplingOptions()
    background: BackgroundOptions = BackgroundOptions()

    def __post_init__(self):
        size = self.affinity.size
        if size % _SIZE_UNIT:
            near = max(1, round(size / _SIZE_UNIT)) * _SIZE_UNIT
            raise OptionError(
                "O01",
                f"affinity_size = {size} is not a multiple of {_SIZE_UNIT}; use {near}",
            )

    @classmethod
    def of(cls, **options: Any) -> "SegmenterConfig":
        """Make a configuration: the given options, and defaults for all others.

        Args:
            **options: Options by their flat names.

        Raises:
            OptionError: A name is unknown (``O02``), a value has the wrong type
                (``O03``), or it is out of its range (``O01``).
        """
        return cls().with_options(**options)

    def with_options(
        self, *, discrepancy: Discrepancy | None = None, **options: Any
    ) -> "SegmenterConfig":
        """Make a configuration that differs in some options.

        Args:
            discrepancy: The discrepancy to solve for: one of ``solvers``, or your own.
            **options: Other options by their flat names.

        Raises:
            OptionError: A name is unknown (``O02``), a value has the wrong type
                (``O03``) or is out of its range (``O01``), or ``mode`` names another
                discrepancy than the given one (``O03``), or one of one's own breaks a
                rule of ``Discrepancy`` (``O10``).
        """
        config = self
        if discrepancy is not None:
            solver = _with_discrepancy(self.solver, discrepancy, options)
            config = dataclasses.replace(self, solver=solver)
            config._check_flat_names(discrepancy)
        known = config.flat
        for name in options:
            if name not in known:
                solver = config.solver.replaced(_only(options, "mode"))
                remedy = _of_field(name, solver.discrepancy)
                raise OptionError("O02", remedy or _unknown(name, known))
        parts = {part: getattr(config, part).replaced(options) for part in _PARTS}
        return dataclasses.replace(config, **parts)

    def _check_flat_names(self, discrepancy: Discrepancy) -> None:
        """Refuse flat names of a discrepancy that mean something else already."""
        others = [getattr(self, part).flat for part in _PARTS if part != "solver"]
        taken = {"mode", *(name for other in others for name in other)}
        for field, name in discrepancy.flat_names.items():
            if name in taken:
                kind = type(discrepancy).__name__
                raise OptionError(
                    "O10",
                    f"{kind}.flat_names calls the field {field!r} {name!r}, which is "
                    f"another option already; use {f'{discrepancy.name}_{field}'!r}",
                )

    @property
    def flat(self) -> dict[str, Any]:
        """All options by their flat names, as in files and in results."""
        flat = {}
        for part in _PARTS:
            flat |= getattr(self, part).flat
        return flat

    @property
    def facts(self) -> dict[str, Any]:
        """All options as plain values, for results.

        The flat options, and under ``"discrepancy"`` the class and all fields of a
        discrepancy that they do not describe completely, such as one of one's own.
        """
        if self.is_flat:
            return self.flat
        kind = type(self.discrepancy).__name__
        options = plain_options(self.discrepancy)
        return self.flat | {"discrepancy": {"class": kind, "options": options}}

    @property
    def is_flat(self) -> bool:
        """Whether the flat options describe the discrepancy completely."""
        try:
            usual = SolverOptions().replaced(self.solver.flat)
        except OptionError:  # a discrepancy of one's own has an unknown name
            return False
        return usual.discrepancy == self.discrepancy

    @property
    def discrepancy(self) -> Discrepancy:
        """The discrepancy that is solved for, with its options."""
        return self.solver.discrepancy

    @classmethod
    def from_toml(
        cls, path: Path, *, base: "SegmenterConfig | None" = None
    ) -> "SegmenterConfig":
        """Read a configuration file, whose lines are ``name = value`` with flat names.

        Args:
            path: A TOML file.
            base: The configuration with the options that the file leaves out; the
                defaults when ``None``.

        Raises:
            OptionError: The file is missing, has more than 32 kB or is not TOML
                (``O04``), a key is unknown (``O02``), or a value has the wrong type or
                range (``O03``, ``O01``).
        """
        base = base or cls()
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise ValueError(f"it has more than {_MOST_BYTES} bytes")
            text = read_text(path)
            values = tomllib.loads(text)
        # Besides what is no TOML: a number of too many digits, and brackets too deep.
        except (OSError, ValueError, RecursionError) as error:
            near = similar_files(path) if isinstance(error, FileNotFoundError) else ""
            hint = near and f"; {near}"
            raise OptionError(
                "O04", f"cannot read {str(path)!r}: {cause_of(error)}{hint}"
            ) from error
        for name in values:
            if name not in base.flat:
                where = f"{path}:{_line_of(text, name)}: "
                raise OptionError("O02", where + _unknown(name, base.flat))
        try:
            return base.with_options(**_to_tuples(values))
        except OptionError as error:
            message = str(error).split("] ", 1)[1]
            where = f"{path}:{_line_of(text, message.split(' ', 1)[0])}: "
            raise OptionError(error.code, where + message) from error


def option_fields() -> Mapping[str, tuple[type, dataclasses.Field]]:
    """All options by their flat names, each with its class and its field."""
    parts = (
        *(ClipOptions, SourceOptions, AffinityOptions),
        *(UpsamplingOptions, BackgroundOptions),
    )
    fields = {"mode": (SolverOptions, flat_fields(SolverOptions)["mode"])}
    for each in SolverOptions().known:
        own = named_fields(type(each))
        fields |= {name: (type(each), field) for name, field in own.items()}
    for part in parts:
        fields |= {name: (part, field) for name, field in flat_fields(part).items()}
    return fields


def _with_discrepancy(
    solver: SolverOptions, discrepancy: Any, options: Mapping[str, Any]
) -> SolverOptions:
    """Choose a discrepancy; if ``mode`` is given as well, it must be its name."""
    if not isinstance(discrepancy, Discrepancy):
        raise OptionError("O03", _no_discrepancy(discrepancy))
    require_usable(discrepancy)
    mode = options.get("mode", discrepancy.name)
    if mode != discrepancy.name:
        raise OptionError(
            "O03",
            f"mode = {mode!r}, but the discrepancy that is given has the name "
            f"{discrepancy.name!r}; leave one of them out",
        )
    return solver.with_discrepancy(discrepancy)


def _no_discrepancy(given: Any) -> str:
    """What is wrong with something that is no discrepancy."""
    if isinstance(given, type):
        if issubclass(given, Discrepancy):
            name = given.__name__
            return f"discrepancy = {name} is a class; expected an object: {name}()"
    elif callable(getattr(given, "solve", None)):
        kind = type(given).__name__
        return (
            f"discrepancy = {given!r:.200}; write `class {kind}(Discrepancy)`, with "
            "`from dslo_jax.solvers import Discrepancy`"
        )
    return (
        f"discrepancy = {given!r:.200}; expected an object such as "
        "dslo_jax.solvers.OptimalPath(), or give a name as `mode`"
    )


def _only(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The option of this name, if it is given."""
    return {name: options[name]} if name in options else {}


def _of_field(name: str, discrepancy: Any) -> str:
    """What to say about an unknown option that is a field of the discrepancy."""
    if name not in {field.name for field in dataclasses.fields(discrepancy)}:
        return ""
    kind = type(discrepancy).__name__
    if name in discrepancy.flat_names:
        flat = discrepancy.flat_names[name]
        return f"unknown option {name!r}; the field of {kind} is called {flat!r} here"
    remedy = f"pass discrepancy={kind}({name}=...)"
    if is_own(discrepancy):
        flat = f"{discrepancy.name}_{name}"
        remedy += f", or write flat_names = {{{name!r}: {flat!r}}} into the class"
    return (
        f"unknown option {name!r}; it is a field of {kind} without a flat name; "
        f"{remedy}"
    )


def _unknown(name: str, names: Collection[str]) -> str:
    hint = did_you_mean(name, names) or f"known: {', '.join(names)}"
    return f"unknown option {name!r}; {hint}"


def _line_of(text: str, name: str) -> int:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.split("=")[0].strip().strip("\"'[]") == name:
            return number
    return 1


def _to_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _to_tuples(entry) for name, entry in value.items()}
    return tuple(map(_to_tuples, value)) if isinstance(value, list) else value
