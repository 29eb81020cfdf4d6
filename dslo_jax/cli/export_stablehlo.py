"""``dslo export stablehlo``: the method as a program that needs no dslo-jax."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from dslo_jax import stablehlo
from dslo_jax.cli.method import (
    DEFAULTS,
    Method,
    chosen_classes,
    config_of,
    parse_options,
)
from dslo_jax.cli.terminal import one_line, results, say
from dslo_jax.cli.weights import readable_checkpoint
from dslo_jax.devices import Precision
from dslo_jax.errors import OptionError
from dslo_jax.segmenter import Segmenter


@dataclass(frozen=True)
class ExportStablehlo:
    """Write the method as one program of StableHLO: photos of one size to labels.

    jax.export reads it on a CPU, a GPU or a TPU, where dslo-jax is not installed.

    Args:
        target: The folder to write, which must be new or empty.
        classes: Class names: a comma separates classes, a bar separates synonyms.
        class_file: A file with one class per line; instead of classes.
        size: HEIGHTxWIDTH of the photos in pixels.
        batch: Number of photos.
        solver: CLASSESxPATCHES, as in 21x4096: write the discrepancy alone, from
            distributions and an affinity to maps, without networks.
        platforms: Platforms of the program, with commas between them: cpu, cuda, tpu.
        model: A pair of networks, as for dslo segment.
        clip: Folder, file or repository of a CLIP, instead of the pair's.
        attention: Folder or repository of a source of self-attention, instead of the
            pair's.
        precision: Precision of the parameters, or of the affinity with --solver; auto
            is float32 on a CPU, bfloat16 elsewhere.
        device: The device that computes the features of the names.
        offline: Open no network connection.
        config: A TOML file with options of the method, which are listed below; options
            on the command line win over it.
        method: Options of the method; the defaults are those that suit the model.
    """

    target: tyro.conf.Positional[Path] = Path("program")
    classes: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    class_file: Path | None = None
    size: str = "512x512"
    batch: int = 1
    solver: str = ""
    platforms: str = ",".join(stablehlo.PLATFORMS)
    model: str = "sd2+clip-b16"
    clip: str | None = None
    attention: str | None = None
    precision: Precision = "auto"
    device: str = "auto"
    offline: bool = False
    config: Path | None = None
    method: Annotated[
        Method,  # pyright: ignore[reportInvalidTypeForm]
        tyro.conf.arg(name=""),
    ] = DEFAULTS


def run(arguments: list[str], errors: Console) -> int:
    """Run the command and return the exit code."""
    options = parse_options(ExportStablehlo, "dslo export stablehlo", arguments)
    stablehlo.check_target(options.target)  # before the networks are loaded
    if options.solver:
        program = _of_discrepancy(options)
    else:
        program = _of_segmenter(options, errors)
    say(results(), one_line(program.save(options.target)))
    return 0


def _of_discrepancy(options: ExportStablehlo) -> stablehlo.Program:
    if options.classes or options.class_file is not None:
        raise OptionError(
            "O03", "--solver needs no names; leave out --classes and --class-file"
        )
    classes, patches = _pair("solver", options.solver, "21x4096")
    precision = "float32" if options.precision == "auto" else options.precision
    return stablehlo.export_discrepancy(
        config_of(options.method).discrepancy,
        classes,
        patches,
        batch=options.batch,
        dtype=precision,
        platforms=options.platforms.split(","),
    )


def _of_segmenter(options: ExportStablehlo, errors: Console) -> stablehlo.Program:
    classes = chosen_classes(options.classes, options.class_file)
    size = _pair("size", options.size, "512x640")
    say(errors, "loading checkpoints")
    with readable_checkpoint():
        segmenter = Segmenter.from_pretrained(
            options.model,
            clip=options.clip,
            attention=options.attention,
            config=config_of(options.method),
            dtype=options.precision,
            device=options.device,
            offline=options.offline,
        )
        say(errors, "tracing the program")
        return stablehlo.export_segmenter(
            segmenter,
            classes,
            size,
            batch=options.batch,
            platforms=options.platforms.split(","),
        )


def _pair(name: str, text: str, example: str) -> tuple[int, int]:
    """The two numbers of an option, which is written as in the example."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise OptionError(
            "O03", f"--{name} {text}; expected two numbers, as in {example}"
        )
    return int(match[1]), int(match[2])
