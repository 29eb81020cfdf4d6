"""``dslo export``: the results of a run in the formats of other programs.

``dslo export stablehlo`` writes the method itself as a program.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from dslo_jax import outputs
from dslo_jax.cli import export_stablehlo
from dslo_jax.cli.terminal import one_line, results, say
from dslo_jax.errors import OptionError, OutputError, did_you_mean


@dataclass(frozen=True)
class Export:
    """Write the results of dslo segment in the format of another program.

    Args:
        kind: coco (one JSON file with run lengths), cvat (Segmentation mask 1.1),
            labelstudio (tasks with brush masks), tar (WebDataset) or parquet (Hugging
            Face). stablehlo is a command of its own, which writes the method as a
            program: dslo export stablehlo --help.
        results: The folder of the results, which is --out of dslo segment.
        target: The folder to write, which must be new or empty.
        photos: Greatest number of photos in one file of tar and parquet.
    """

    kind: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FORMAT")]
    results: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RESULTS")]
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    photos: int = 200


def run(arguments: list[str], errors: Console) -> int:
    """Run the command and return the exit code."""
    if arguments[:1] == ["stablehlo"]:
        return export_stablehlo.run(arguments[1:], errors)
    word = arguments[0] if arguments else ""
    known = (*outputs.EXPORTS, "stablehlo")
    if word and not word.startswith("-") and word not in known:
        hint = did_you_mean(word, known, then=f"expected one of {', '.join(known)}")
        raise OptionError("O03", f"export {word!r}; {hint}")
    options = tyro.cli(Export, prog="dslo export", args=arguments)
    try:
        written = outputs.write_export(
            options.kind, options.results, options.target, photos=options.photos
        )
    except OSError as error:
        remedy = "make room there, or choose another folder"
        raise OutputError.cannot_write(options.target, error, remedy=remedy) from error
    say(results(), one_line(written))
    return 0
