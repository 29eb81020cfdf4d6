"""Measure the tables of the paper: ``python -m dslo_jax.evaluation.ablate --help``."""

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from dslo_jax.config import SegmenterConfig
from dslo_jax.devices import Precision
from dslo_jax.errors import DsloError, OptionError
from dslo_jax.evaluation.journal import Journal
from dslo_jax.evaluation.layout import markdown
from dslo_jax.evaluation.run import describe, report, run, save_report
from dslo_jax.evaluation.samples import Protocol, SceneSet
from dslo_jax.evaluation.sweep import Sweep, load_networks
from dslo_jax.evaluation.tables import TABLES, build_tables
from dslo_jax.files import atomic_file
from dslo_jax.models import hub
from dslo_jax.pairs import find_pair


_PATIENCE = 5.0  # seconds between two lines about the progress


@dataclass(frozen=True)
class Ablate:
    """Compare choices of the method on photos with truth.

    Args:
        model: A pair, or a folder with the sub-folders clip and diffusion.
        dataset: What to measure on.
        seeds: FIRST:END of the scenes; below 10000, nothing was trained on them.
        protocol: All classes of the scenes, or things and a background.
        size: HEIGHTxWIDTH of the scenes, such as 128x160; empty lets the seeds choose
            among eight, which compiles far more programs.
        tables: Names with commas between; all unless told.
        out: Folder for ablation.json, ablation.md, plots and the journal. An
            interrupted run is continued there, further seeds and tables join it.
        config: A TOML file with options of the method for the base of all tables, on
            top of those that suit the model.
        batch: Photos at once.
        precision: Of the networks; auto is float32 on a CPU, bfloat16 elsewhere.
        device: auto, cpu, gpu or tpu; gpu:1 is the second.
        plots: Also draw plots; needs matplotlib.
    """

    model: str = "demo"
    dataset: Literal["scenes"] = "scenes"
    seeds: str = "0:500"
    protocol: Protocol = "all"
    size: str = ""
    tables: str = ""
    out: Path = Path("ablation")
    config: Path | None = None
    batch: int = 8
    precision: Precision = "auto"
    device: str = "auto"
    plots: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    options = tyro.cli(Ablate, args=arguments, prog="dslo ablate")
    try:
        ablate(options, console)
    except DsloError as error:
        console.print(f"error: {error}", markup=False)
        return error.exit_code
    return 0


def ablate(options: Ablate, console: Console) -> None:
    """Measure, and write the report.

    Args:
        options: What to measure.
        console: Told of the progress.

    Raises:
        DsloError: An option or a checkpoint cannot be used.
    """
    pair = find_pair(options.model)
    base = pair.config
    if options.config is not None:
        base = SegmenterConfig.from_toml(options.config, base=base)
    names = _table_names(options.tables)
    size = _size(options.size)
    samples = SceneSet(_seeds(options.seeds), options.protocol, size)
    networks = load_networks(
        pair._replace(config=base), dtype=options.precision, device=options.device
    )
    tables = build_tables(base, networks.layers, names)
    cells = [cell for table in tables for cell in table.cells]
    sweep = Sweep(networks, samples.classes, cells, batch_size=options.batch)
    folders = [
        hub.resolve(pair.clip, "clip", offline=True),
        hub.resolve(pair.attention, "diffusion", offline=True),
    ]
    circumstances = describe(folders, options.batch)
    # Seeds and tables are left out: more of them may join an old journal.
    header = circumstances | {
        "precision": options.precision,
        "dataset": samples.describe() | {"first_seed": None, "photos": None},
    }
    journal = Journal(options.out / "journal.jsonl", header)
    console.print(f"{len(sweep.cells)} cells, {len(samples)} photos")
    run(sweep, samples, journal, watch=_Watch(console))
    found = report(tables, base, journal, samples, circumstances)
    save_report(options.out / "ablation.json", found)
    with atomic_file(options.out / "ablation.md") as file:
        file.write(markdown(found).encode())
    if options.plots:
        from dslo_jax.evaluation.plots import draw_tables

        draw_tables(found, options.out)
    console.print(f"written: {options.out / 'ablation.md'}", markup=False)


class _Watch:
    """Says from time to time how far a run is."""

    def __init__(self, console: Console):
        self._console = console
        self._start = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now - self._last > _PATIENCE:
            self._last = now
            self._console.print(f"{done}/{total} photos, {now - self._start:.0f} s")


def _seeds(text: str) -> range:
    first, _, end = text.partition(":")
    try:
        seeds = range(int(first), int(end))
    except ValueError as error:
        raise OptionError(
            "O03", f"seeds = {text!r}; expected FIRST:END, as in 0:500"
        ) from error
    if not seeds or seeds.start < 0:
        raise OptionError("O01", f"seeds = {text!r} is empty or negative; try 0:500")
    return seeds


def _size(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or min(height := int(match[1]), width := int(match[2])) < 32:
        raise OptionError(
            "O01",
            f"size = {text!r}; expected HEIGHTxWIDTH of 32 or more, as in 128x160",
        )
    return height, width


def _table_names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in TABLES:
            known = ", ".join(TABLES)
            raise OptionError("O03", f"table {name!r} is unknown; tables: {known}")
    return names


if __name__ == "__main__":
    sys.exit(main())
