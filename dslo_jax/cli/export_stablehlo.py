"""``dslo export stablehlo``: the method as a program that needs no dslo-jax."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from dslo_jax import stablehlo
from dslo_jax.cli.method import chosen_classes
from dslo_jax.cli.networks import NetworkOptions, NetworksField, parse_options
from dslo_jax.cli.terminal import one_line, results, say
from dslo_jax.cli.values import OptionalPath
from dslo_jax.cli.weights import readable_checkpoint
from dslo_jax.errors import OptionError


@dataclass(frozen=True)
class ExportStablehlo:
    """Write the method as one program of StableHLO: photos of one size to labels.

    jax.export reads it on a CPU, a GPU or a TPU, where dslo-jax is not installed.

    Args:
        target: The folder to write, which must be new or empty.
        classes: Class names: a comma separates classes, a bar separates synonyms, as in
            "cat, sofa|couch, wall".
        class_file: A file with one class per line, and commas between synonyms;
            instead of --classes.
        size: HEIGHTxWIDTH of the photos in pixels, each at least 2.
        batch: Number of photos that one call of the program takes.
        solver: CLASSESxPATCHES, as in 21x4096: write the discrepancy alone, from
            distributions and an affinity to maps, without networks. With it,
            --precision is the type of the affinity.
        platforms: Platforms of the program, with commas between them: cpu, cuda, tpu.
        networks: Networks, whose device here only computes the features of the names,
            and options of the method.
    """

    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="[TARGET]")] = (
        Path("program")
    )
    classes: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    class_file: OptionalPath = None
    size: str = "512x512"
    batch: int = 1
    solver: str = ""
    platforms: str = ",".join(stablehlo.PLATFORMS)
    networks: NetworksField = NetworkOptions()


def run(arguments: list[str], errors: Console) -> int:
    """Run the command and return the exit code."""
    options = parse_options(ExportStablehlo, "dslo export stablehlo", arguments)
    # All that can be refused, before networks are loaded and anything is traced.
    stablehlo.check_target(options.target)
    platforms = stablehlo.check_platforms(options.platforms.split(","))
    if options.solver:
        program = _of_discrepancy(options, platforms)
    else:
        program = _of_segmenter(options, platforms, errors)
    say(results(), one_line(program.save(options.target)))
    return 0


def _of_discrepancy(
    options: ExportStablehlo, platforms: Sequence[str]
) -> stablehlo.Program:
    if options.classes or options.class_file is not None:
        raise OptionError(
            "O03", "--solver needs no names; leave out --classes and --class-file"
        )
    classes, patches = _pair("solver", options.solver, "21x4096")
    networks = options.networks
    precision = "float32" if networks.precision == "auto" else networks.precision
    return stablehlo.export_discrepancy(
        networks.method_config.discrepancy,
        classes,
        patches,
        batch=options.batch,
        dtype=precision,
        platforms=platforms,
    )


def _of_segmenter(
    options: ExportStablehlo, platforms: Sequence[str], errors: Console
) -> stablehlo.Program:
    classes = chosen_classes(options.classes, options.class_file)
    size = _pair("size", options.size, "512x640")
    stablehlo.check_sizes(height=size[0], width=size[1], batch=options.batch)
    say(errors, "loading checkpoints")
    segmenter = options.networks.load()
    say(errors, "tracing the program")
    with readable_checkpoint():
        return stablehlo.export_segmenter(
            segmenter,
            classes,
            size,
            batch=options.batch,
            platforms=platforms,
        )


def _pair(name: str, text: str, example: str) -> tuple[int, int]:
    """The two numbers of an option, which is written as in the example."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise OptionError(
            "O03", f"--{name} {text}; expected two numbers, as in {example}"
        )
    return int(match[1]), int(match[2])
