"""``dslo bench plan``: devices, hours and bytes for a number of photos."""

import math
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from dslo_jax.bench.plan import Assumptions, Figure, choose_cost, make_plan, read_costs
from dslo_jax.cli.saving import new_table, save_result
from dslo_jax.cli.values import OptionalCount, OptionalNumber, OptionalPath
from dslo_jax.errors import OptionError


SCHEMA = "dslo.bench.plan.v1"
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Plan devices, hours and bytes for a number of photos.

    The time of a photo comes from result files: measured by dslo bench pipeline, or
    estimated for a chip that is not there by dslo bench compile. A measured time wins
    over an estimate, and among several the least. Every figure is printed with its
    origin, and so is every assumption.

    Args:
        images: Number of photos, as in 1e9.
        device: A part of the name of the device: h200, v5e, cpu.
        result: Files of dslo bench pipeline --save or dslo bench compile --save.
        mode: Discrepancy to solve for.
        devices: Number of devices; the hours follow.
        hours: Hours until the end; the number of devices follows.
        utilisation: Share of the time in which devices work, above 0 and up to 1. The
            rest is starting, waiting for photos, and work that is done again.
        input_bytes: Bytes of a photo as it is stored.
        output_bytes: Bytes of the results of a photo.
        input_remote: Share of the photos that come over the network, 0 to 1.
        output_remote: Share of the results that leave over the network, 0 to 1.
        save: JSON file for all figures.
    """

    images: float
    device: str
    result: tuple[Path, ...]
    mode: str = "velocity"
    devices: OptionalCount = None
    hours: OptionalNumber = None
    utilisation: float = 0.8
    input_bytes: float = 500_000
    output_bytes: float = 50_000
    input_remote: float = 1.0
    output_remote: float = 1.0
    save: OptionalPath = None


def run(options: Plan, out: Console, errors: Console) -> int:
    """Run the command and return the exit code."""
    _check(options)
    costs = [cost for path in options.result for cost in read_costs(path, options.mode)]
    cost = choose_cost(costs, options.device)
    hours = options.hours
    if options.devices is None and hours is None:
        hours = 24.0
    assumed = Assumptions(
        options.utilisation,
        options.input_bytes,
        options.output_bytes,
        options.input_remote,
        options.output_remote,
    )
    figures = make_plan(
        options.images, cost, assumed, devices=options.devices, hours=hours
    )
    result = {
        "schema": SCHEMA,
        "device": cost.device,
        "hours_asked_for": hours,
        "figures": [figure._asdict() for figure in figures],
    }
    save_result(options.save, result)
    table = new_table("", f"{cost.device}", "", "origin")
    table.columns[-1].justify = table.columns[-2].justify = "left"
    for figure in figures:
        table.add_row(figure.name, *_words(figure), figure.origin)
    out.print(table)
    return 0


def _check(options: Plan) -> None:
    if not options.result:
        raise OptionError("O05", "no result file; pass one with --result")
    if options.devices is not None and options.hours is not None:
        raise OptionError("O03", "--devices and --hours; give one, the other follows")
    for name in ("images", "devices", "hours", "utilisation"):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise OptionError("O01", f"--{name} {value}; expected above 0")
    for name in ("utilisation", "input_remote", "output_remote"):
        value = getattr(options, name)
        if not 0 <= value <= 1:
            flag = name.replace("_", "-")
            raise OptionError("O01", f"--{flag} {value}; expected at most 1")
    for name in ("input_bytes", "output_bytes"):
        value = getattr(options, name)
        if not (math.isfinite(value) and value >= 0):
            flag = name.replace("_", "-")
            raise OptionError("O01", f"--{flag} {value}; expected 0 or more")


def _words(figure: Figure) -> tuple[str, str]:
    """Number and unit, with a prefix for bytes."""
    value, unit = figure.value, figure.unit
    if not unit.startswith("B"):
        return f"{value:,.4g}" if value < 1e5 else f"{value:,.0f}", unit
    power = 0
    while value >= 1000 and power < len(_PREFIXES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g}", f"{_PREFIXES[power]}{unit}"
