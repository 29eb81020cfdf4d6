"""``dslo ablate``: the tables of the paper, measured on photos with true labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from dslo_jax.cli.measuring import (
    SCENES,
    Loaded,
    Measure,
    find_config,
    find_samples,
    load,
    load_attentions,
    parse_attentions,
    progress,
    warn_of_part,
)
from dslo_jax.cli.method import check_proxy
from dslo_jax.cli.terminal import say
from dslo_jax.cli.values import Names
from dslo_jax.config import SegmenterConfig
from dslo_jax.errors import OptionError, OutputError
from dslo_jax.evaluation.datasets.samples import SampleSet
from dslo_jax.evaluation.evaluator import JOURNAL
from dslo_jax.evaluation.reports import ablation_markdown
from dslo_jax.evaluation.reports.ablation_result import ablation_result
from dslo_jax.evaluation.sweeps.cells import Cell
from dslo_jax.evaluation.sweeps.run import run as run_sweep
from dslo_jax.evaluation.sweeps.sweep import Sweep
from dslo_jax.evaluation.sweeps.table import Table
from dslo_jax.evaluation.sweeps.tables import TABLES, build_tables
from dslo_jax.files import write_json, write_text
from dslo_jax.pairs import Pair
from dslo_jax.runs.journal import Journal, check_begun
from dslo_jax.runs.lock import only_run


_FOUNDATION = "foundation"  # the table that compares attentions
_OF_LOGITS = "versatility"  # the table that compares logits
_MAY_GROW = ("first_seed", "photos")  # what may differ between runs of one journal


@dataclass(frozen=True, kw_only=True)
class Ablate(Measure):
    """Compare choices of the method on photos with true labels.

    The same command continues an interrupted run, and adds further photos and tables to
    a finished one.

    Args:
        dataset: scenes (drawn, bundled), folder (your own), or a benchmark, as for
            dslo eval.
        tables: Names of tables, with commas between them; without it, all tables.
        attentions: Further networks for the table foundation, as NAME=FOLDER or as
            presets: dino-b8 dinov2-b14 dinov2-reg-b14. Those with the name of a preset
            have the paper's figure beside ours.
        out: Folder of ablation.json, ablation.md, plots and the journal.
        plots: Also draw plots, with matplotlib.
    """

    dataset: str = SCENES
    model: str = "demo"
    tables: Annotated[str, tyro.conf.arg(help_behavior_hint="")] = ""
    attentions: Annotated[Names, tyro.conf.arg(name="sources")] = ()
    out: Path = Path("ablation")
    plots: bool = False


def run(arguments: list[str], errors: Console) -> int:
    """Run the command and return the exit code."""
    options = tyro.cli(Ablate, prog="dslo ablate", args=arguments)
    pair = find_config(options, options.dataset)
    names, places = _table_names(options.tables), parse_attentions(options.attentions)
    if places and names and _FOUNDATION not in names:
        raise OptionError(
            "O05", f"--sources has an effect only on the table {_FOUNDATION}; add it"
        )
    samples = find_samples(options, options.dataset)
    of_logits = not names or _OF_LOGITS in names
    check_proxy(options.proxy, of_logits, f"the table {_OF_LOGITS}")
    warn_of_part(errors, samples)
    with only_run(options.out):
        known = {"batch_size": options.batch, "dataset": _lasting(samples)}
        check_begun(options.out / JOURNAL, known)  # before networks are downloaded
        say(errors, "loading checkpoints")
        pair = pair if of_logits else pair._replace(proxy=None)
        loaded, tables = _load(options, pair, names, places)
        found = _measure(options, samples, loaded, tables, pair.config, errors)
        _save(found, options)
    say(errors, f"written: {options.out / 'ablation.md'}")
    if found["status"] == "COMPLETE":
        return 0
    skipped = len(found["skipped"])
    say(errors, f"PARTIAL: {skipped} photos have no score, see ablation.json")
    return OutputError.exit_code


def _load(
    options: Ablate, pair: Pair, names: Sequence[str], places: Mapping[str, str]
) -> tuple[Loaded, tuple[Table, ...]]:
    """Load the networks and build the tables; with further sources if compared."""
    has_proxy = pair.proxy is not None
    loaded = load(options, pair, with_proxy=has_proxy)
    layers = loaded.networks.affinity_source().comparable_layers
    build = partial(build_tables, pair.config, layers, names, has_proxy=has_proxy)
    if names and _FOUNDATION not in names:
        return loaded, build()
    networks, attentions = load_attentions(options, pair, loaded.networks, places)
    tables = build(attentions=attentions)
    return loaded._replace(networks=networks), tables


def _measure(
    options: Ablate,
    samples: SampleSet,
    loaded: Loaded,
    tables: Sequence[Table],
    base: SegmenterConfig,
    errors: Console,
) -> dict[str, Any]:
    """Run the sweep over the cells of all tables; returns the result."""
    cells = [cell for table in tables for cell in table.cells]
    size = min(options.batch, len(samples))
    sweep = Sweep(loaded.networks, samples.classes, cells, batch_size=size)
    header = loaded.circumstances | {"dataset": _lasting(samples)}
    journal = Journal(options.out / JOURNAL, header)
    say(
        errors,
        f"{len(sweep.cells)} choices of options on {len(samples)} photos. The first "
        f"batch of {size} compiles, then the time to go is shown; --limit takes fewer "
        "photos, --tables fewer choices",
    )
    shown = {"base": Cell(base)} if Cell(base) in sweep.cells else {}
    with progress(errors, sweep, samples, journal, shown) as (watch, on_skip):
        run_sweep(
            sweep,
            samples,
            journal,
            watch=watch,
            on_skip=on_skip,
            strict=options.strict,
        )
    return ablation_result(tables, base, journal, samples, loaded.circumstances)


def _lasting(samples: SampleSet) -> dict[str, Any]:
    """What a data set is, whatever number of its photos is measured."""
    return {k: v for k, v in samples.describe().items() if k not in _MAY_GROW}


def _save(found: dict[str, Any], options: Ablate) -> None:
    try:
        write_json(options.out / "ablation.json", found, indent=1)
        write_text(options.out / "ablation.md", ablation_markdown.render(found))
        if options.plots:
            from dslo_jax.evaluation.reports.ablation_plots import draw_tables

            draw_tables(found, options.out)
    except OSError as error:
        raise OutputError.cannot_write(options.out, error) from error


def _table_names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in TABLES:
            known = ", ".join(TABLES)
            raise OptionError("O03", f"table {name!r} is unknown; tables: {known}")
    return names
