"""``dslo eval``: the scores of the method on photos with true labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from dslo_jax.cli.measuring import (
    Measure,
    find_config,
    find_samples,
    load,
    progress,
    warn_of_part,
)
from dslo_jax.cli.method import check_proxy
from dslo_jax.cli.terminal import Measuring, results, say
from dslo_jax.errors import OptionError, OutputError
from dslo_jax.evaluation.datasets import BENCHMARKS
from dslo_jax.evaluation.datasets.samples import SampleSet
from dslo_jax.evaluation.evaluator import JOURNAL, cells_of, evaluate, rescore
from dslo_jax.evaluation.shards import merge, shard_samples
from dslo_jax.evaluation.sweeps.cells import Cell
from dslo_jax.evaluation.sweeps.manifest import header_of
from dslo_jax.evaluation.sweeps.sweep import Sweep
from dslo_jax.pairs import Pair
from dslo_jax.runs import WHOLE, Journal, Shard, check_begun, only_run


@dataclass(frozen=True, kw_only=True)
class Evaluate(Measure):
    """Score the method on photos with true labels.

    The same command continues an interrupted run.

    Args:
        mode: The discrepancy that becomes labels: velocity, path, fused, kl, logits or
            propagation; "both" stands for velocity and path.
        out: Folder of metrics.json, metrics.md, index.html, timings.json and the
            journal.
        shard: INDEX/COUNT: measure only every COUNT-th batch of photos, beginning with
            batch INDEX (from 0); auto asks SLURM, torchrun or another launcher. Several
            processes or machines can share the work and the output folder.
        merge: Add up all shards in OUT, without any network.
        save_labels: Also save every label map, as a PNG in OUT/labels.
        rescore: Score the saved label maps in OUT again, without any network.
    """

    dataset: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="DATASET",
            help="scenes (drawn, bundled), folder (one's own: images, masks, "
            f"classes.txt), or one of the benchmarks {', '.join(BENCHMARKS)}.",
        ),
    ]
    mode: str = "both"
    out: Path = Path("evaluation")
    shard: str = "0/1"
    merge: bool = False
    save_labels: bool = False
    rescore: bool = False


def run(arguments: list[str], errors: Console) -> int:
    """Run the command and return the exit code."""
    options = tyro.cli(Evaluate, prog="dslo eval", args=arguments)
    samples = find_samples(options, options.dataset)
    pair = find_config(options, options.dataset)
    modes: tuple[str, ...] = ("velocity", "path")
    cells = cells_of(pair.config, modes if options.mode == "both" else (options.mode,))
    shard = _shard(options)
    warn_of_part(errors, samples)
    with only_run(options.out, shard.suffix):
        if options.merge:
            metrics = merge(
                samples, cells, header_of(samples, pair.config, {}), options.out
            )
        elif options.rescore:
            metrics = _rescore(options, samples, pair, cells, errors)
        else:
            metrics = _evaluate(options, samples, pair, cells, shard, errors)
    return _tell(metrics, options, shard, errors)


def _shard(options: Evaluate) -> Shard:
    """The shard to measure.

    Raises:
        OptionError: It cannot be read, or another option asks for all photos (``O01``).
    """
    shard = Shard.of(options.shard)
    asked = [name for name in ("merge", "rescore") if getattr(options, name)]
    if shard != WHOLE:
        asked.append("shard")
    if len(asked) > 1:
        words = " and ".join(f"--{name}" for name in asked)
        raise OptionError("O01", f"{words} together; give one of them")
    return shard


def _evaluate(
    options: Evaluate,
    samples: SampleSet,
    pair: Pair,
    cells: dict[str, Cell],
    shard: Shard,
    errors: Console,
) -> dict[str, Any]:
    needs_proxy = pair.config.clip.needs_proxy
    check_proxy(options.proxy, needs_proxy, "a clip_attention with a proxy")
    place = options.out / shard.file(JOURNAL)
    # Before the networks, which may be downloaded.
    check_begun(
        place, header_of(samples, pair.config, {"batch_size": options.batch}, shard)
    )
    say(errors, "loading checkpoints")
    networks, circumstances = load(options, pair, with_proxy=needs_proxy)
    batch_size = min(options.batch, len(samples))
    sweep = Sweep(
        networks, samples.classes, list(cells.values()), batch_size=batch_size
    )
    header = header_of(samples, pair.config, circumstances, shard)
    journal = Journal(place, header)
    part = samples if shard == WHOLE else shard_samples(samples, shard, batch_size)
    with progress(errors, sweep, part, journal, cells) as (watch, on_skip):
        return evaluate(
            sweep,
            part,
            cells,
            journal,
            options.out,
            shard=shard,
            save_labels=options.save_labels,
            watch=watch,
            on_skip=on_skip,
            strict=options.strict,
        )


def _rescore(
    options: Evaluate,
    samples: SampleSet,
    pair: Pair,
    cells: dict[str, Cell],
    errors: Console,
) -> dict[str, Any]:
    path = options.out / JOURNAL
    if not path.is_file():
        raise OptionError(
            "O05", f"no evaluation in {str(options.out)!r} that could be scored again"
        )
    journal = Journal(path, header_of(samples, pair.config, {}))
    with Measuring(errors, len(samples), 0, dict) as shown:
        return rescore(
            samples,
            cells,
            journal,
            options.out,
            watch=shown,
            on_skip=shown.skipped,
        )


def _tell(
    metrics: dict[str, Any], options: Evaluate, shard: Shard, errors: Console
) -> int:
    """Print the scores and return the exit code."""
    for mode, found in metrics["results"].items():
        if found["miou"] is None:
            reason = found.get("error", "no photo has a score")
            say(errors, f"{mode}: no score: {reason}")
        else:
            scores = f"mIoU {found['miou']:.2%}, pixels {found['pixel_accuracy']:.2%}"
            say(results(), f"{mode}: {scores}")
    if shard == WHOLE:
        written = f"{options.out / 'index.html'}, metrics.json, metrics.md"
    else:
        written = (
            f"{options.out / shard.file('metrics.json')}, of this shard alone; when "
            "all shards are done, the same command with --merge instead of --shard "
            "adds them up"
        )
    say(errors, f"written: {written}")
    if metrics["status"] == "COMPLETE":
        return 0
    scored, expected = metrics["scored"], metrics["expected"]
    where = "metrics.md" if shard == WHOLE else shard.file("metrics.json")
    say(errors, f"PARTIAL: {scored} of {expected} photos have a score, see {where}")
    return OutputError.exit_code
