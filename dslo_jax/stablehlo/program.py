"""A program of StableHLO with all that is needed to run it without this package."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export
from jaxtyping import Array
from safetensors.numpy import save_file

from dslo_jax.errors import OptionError, OutputError
from dslo_jax.files import atomic_folder, write_json


SCHEMA = "dslo.program.v1"
"""The schema of ``program.json``."""

PLATFORMS = ("cpu", "cuda", "tpu")
"""The platforms of a program, by the names of ``jax.export``."""

_FILES = {
    "program": "program.jax",
    "stablehlo": "program.mlirbc",
    "parameters": "parameters.safetensors",
    "given": "inputs.safetensors",
}
_GUARANTEE = (
    "program.jax: jax.export reads it with this version of JAX, and for at least six "
    "months with later ones. program.mlirbc: a portable artifact of StableHLO, which "
    "its later versions read for at least five years."
)
_RUN = """\
import json
import jax
from jax import export
from safetensors.flax import load_file

program = export.deserialize(bytearray(open("program.jax", "rb").read()))
run = jax.jit(program.call)
parameters, inputs = {parameters}, {given}
outputs = run(parameters, {{**inputs, {missing}}})
"""


class Input(NamedTuple):
    """An input of a program.

    Attributes:
        shape: Its shape.
        dtype: Its type.
        text: What it holds, with its range.
        value: Its value, if it is stored beside the program.
    """

    shape: tuple[int, ...]
    dtype: str
    text: str
    value: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Program:
    """A program for several platforms, with its parameters and its description.

    Attributes:
        exported: The program: a function of two dicts of arrays, the parameters and
            the inputs, to a dict of outputs. ``exported.call`` runs it.
        parameters: The parameters of the networks by their names.
        inputs: Inputs that are known already, such as the features of the names.
        facts: What ``program.json`` holds.
    """

    exported: export.Exported
    parameters: Mapping[str, Array]
    inputs: Mapping[str, np.ndarray]
    facts: Mapping[str, Any] = field(repr=False)

    def save(self, target: str | os.PathLike[str]) -> Path:
        """Write the program into a folder that appears whole or not at all.

        The folder holds ``program.jax`` (read by ``jax.export.deserialize``),
        ``program.mlirbc`` (the same program for other readers of StableHLO),
        ``program.json`` (its description), ``parameters.safetensors`` and
        ``inputs.safetensors``; the last two only where there are such arrays.

        Args:
            target: Folder to write, which must be new or empty.

        Returns:
            The folder.

        Raises:
            OutputError: The folder holds files, or cannot be written (``O06``).
        """
        target = Path(target)
        check_target(target)
        try:
            with atomic_folder(target) as folder:
                self._write(folder)
        except OSError as error:
            remedy = "make room there, or choose another folder"
            raise OutputError.cannot_write(target, error, remedy=remedy) from error
        return target

    def _write(self, folder: Path) -> None:
        (folder / _FILES["program"]).write_bytes(self.exported.serialize())
        code = self.exported.mlir_module_serialized
        (folder / _FILES["stablehlo"]).write_bytes(code)
        for kind, arrays in (("parameters", self.parameters), ("given", self.inputs)):
            if arrays:
                held = {
                    name: np.asarray(jax.device_get(array), order="C")
                    for name, array in arrays.items()
                }
                save_file(held, folder / _FILES[kind])
                # It is private at first; the other files have the usual mode.
                mode = (folder / _FILES["program"]).stat().st_mode
                (folder / _FILES[kind]).chmod(mode)
        write_json(folder / "program.json", self.facts)


def check_target(target: Path) -> None:
    """Refuse a file, and a folder that holds files (``OutputError``, ``O06``)."""
    name = os.fspath(target)
    if target.is_dir():
        if any(target.iterdir()):
            raise OutputError(
                "O06", f"{name!r} holds files; a program needs a new folder"
            )
    elif os.path.lexists(target):
        raise OutputError("O06", f"{name!r} is a file; a program needs a new folder")


def check_platforms(platforms: Sequence[str]) -> tuple[str, ...]:
    """The names of platforms, without spaces around them.

    Args:
        platforms: Some of ``PLATFORMS``, each once.

    Raises:
        OptionError: A platform is unknown or given twice, or there is none (``O03``).
    """
    found = tuple(each.strip() for each in platforms)
    unknown = [each for each in found if each not in PLATFORMS]
    if unknown or not found or len(set(found)) < len(found):
        hint = "; gpu is called cuda here" if "gpu" in unknown else ""
        raise OptionError(
            "O03",
            f"platforms = {', '.join(found)!r}; expected one or more of "
            f"{', '.join(PLATFORMS)}, each once{hint}",
        )
    return found


def make_program(
    function: Callable[..., Mapping[str, Array]],
    parameters: Mapping[str, Array],
    inputs: Mapping[str, Input],
    outputs: Mapping[str, str],
    facts: Mapping[str, Any],
    platforms: Sequence[str],
) -> Program:
    """Trace a function for several platforms.

    Args:
        function: Pure function of two dicts, the parameters and the inputs, to a dict.
        parameters: Its parameters; those that it does not read are left out.
        inputs: Its inputs.
        outputs: What each output holds.
        facts: Further facts for the description.
        platforms: Some of ``PLATFORMS``.

    Raises:
        OptionError: A platform is unknown or given twice, or there is none; or the
            function calls code outside the compiler (``O03``).
    """
    platforms = check_platforms(platforms)

    def program(parameters: Any, inputs: Any) -> Any:  # its name is in the file
        return dict(function(parameters, inputs))

    def trace(parameters: Mapping[str, Any], platforms: Sequence[str]) -> Any:
        jitted = jax.jit(program)
        with jax.default_matmul_precision("highest"), _without_paths():
            return export.export(jitted, platforms=platforms)(dict(parameters), shapes)

    shapes = {
        name: jax.ShapeDtypeStruct(each.shape, each.dtype)
        for name, each in inputs.items()
    }
    names = sorted(parameters)
    whole = {
        name: jax.ShapeDtypeStruct(parameters[name].shape, parameters[name].dtype)
        for name in names
    }
    try:
        kept = set(trace(whole, platforms[:1]).module_kept_var_idx)
        used = [name for place, name in enumerate(names) if place in kept]
        exported = trace({name: whole[name] for name in used}, platforms)
        exported.serialize()
    except (NotImplementedError, ValueError) as error:
        if isinstance(error, ValueError) and "custom call" not in str(error):
            raise
        raise OptionError("O03", _outside(error)) from error
    given = {
        name: each.value for name, each in inputs.items() if each.value is not None
    }
    return Program(
        exported,
        {name: parameters[name] for name in used},
        given,
        _describe(exported, used, inputs, outputs, facts),
    )


@contextmanager
def _without_paths() -> Iterator[None]:
    """Leave the paths and lines of this machine out of what is traced."""
    name = "jax_traceback_in_locations_limit"
    known = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, known)


def _outside(error: Exception) -> str:
    reason = str(error).splitlines()[0]
    return (
        "the discrepancy cannot be exported, because it needs code outside the program "
        f"({reason}); write it with operations of jax.numpy, without callbacks"
    )


def _describe(
    exported: export.Exported,
    used: Sequence[str],
    inputs: Mapping[str, Input],
    outputs: Mapping[str, str],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    several = len(exported.platforms) > 1
    code = exported.mlir_module_serialized
    (stablehlo,) = set(re.findall(rb"StableHLO_v([\d.]+)", code)) or {b""}
    stored = {name: each.value is not None for name, each in inputs.items()}
    kinds = {"program": True, "stablehlo": True}
    kinds |= {"parameters": bool(used), "given": any(stored.values())}
    avals = dict(zip(sorted(outputs), exported.out_avals, strict=True))
    return {
        "schema": SCHEMA,
        **facts,
        "platforms": list(exported.platforms),
        "versions": {
            **{name: version(name) for name in ("dslo-jax", "jax", "jaxlib")},
            "stablehlo": stablehlo.decode(),
            "calling_convention": exported.calling_convention_version,
        },
        "guarantee": _GUARANTEE,
        "files": {kind: _FILES[kind] for kind, is_there in kinds.items() if is_there},
        "inputs": {
            name: {
                "shape": list(each.shape),
                "dtype": each.dtype,
                "holds": each.text,
                "stored": stored[name],
            }
            for name, each in inputs.items()
        },
        "outputs": {
            name: {
                "shape": list(avals[name].shape),
                "dtype": str(avals[name].dtype),
                "holds": text,
            }
            for name, text in outputs.items()
        },
        "stablehlo_arguments": [
            *(["_platform_index"] if several else []),
            *(f"parameters/{name}" for name in used),
            *(f"inputs/{name}" for name in sorted(inputs)),
        ],
        "stablehlo_results": sorted(outputs),
        "run": _RUN.format(
            parameters='load_file("parameters.safetensors")' if used else "{}",
            given='load_file("inputs.safetensors")' if any(stored.values()) else "{}",
            missing=", ".join(
                f'"{name}": {name}' for name, known in stored.items() if not known
            ),
        ),
    }
