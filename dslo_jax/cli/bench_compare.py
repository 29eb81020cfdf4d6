"""``dslo bench compare``: differences between two result files."""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from dslo_jax.bench.compare import Ratio, unpaired_ratio
from dslo_jax.bench.results import (
    About,
    Entry,
    ResultFile,
    differences,
    read_result,
    size_of,
    words_of,
)
from dslo_jax.cli.terminal import escaped, say
from dslo_jax.cli.values import OptionalNumber
from dslo_jax.errors import OptionError


SLOWER = 7  # exit code of --fail-above
_COLUMNS = ("A ms", "B ms", "B / A", "95 % interval", "B is", "error A", "error B")


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Compare two result files, row by row.

    The ratio is that of the medians, and its interval comes from a bootstrap of both.
    The two files were not timed by turns, so the ratio contains every other difference
    between the runs, and the interval does not. Rows of only one file are listed.

    Args:
        before: A, a file of dslo bench --save, or of a script in the folder benchmarks.
        after: B, a file of the same kind.
        fail_above: Exit with code 7 if the ratio of a row is above this number with its
            whole interval, or if no row can be judged.
    """

    before: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    after: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    fail_above: OptionalNumber = None


def run(options: Compare, out: Console, errors: Console) -> int:
    """Compare two files and return the exit code.

    Raises:
        OptionError: A file or an option cannot be used.
    """
    limit = options.fail_above
    if limit is not None and not (math.isfinite(limit) and limit >= 1):
        raise OptionError("O01", f"--fail-above {limit}; expected at least 1, as 1.1")
    a, b = read_result(options.before), read_result(options.after)
    if a.family != b.family:
        raise OptionError(
            "O03", f"A holds {a.family}, B {b.family}; expected two of the same kind"
        )
    say(out, f"A {options.before}: {_origin(a)}\nB {options.after}: {_origin(b)}")
    for name, values in differences(a.machine, b.machine).items():
        say(out, f"differs: {name}: {values[0]} | {values[1]}")
    for label, result in (("A", a), ("B", b)):
        for reason in result.noise.values():
            say(out, f"noise in {label}: {reason}")
    common = [about for about in a.entries if about in b.entries]
    ratios = {
        about: unpaired_ratio(b.entries[about].samples_s, a.entries[about].samples_s)
        for about in common
    }
    for size in dict.fromkeys(map(size_of, common)):
        group = [about for about in common if size_of(about) == size]
        out.print(_table(size, group, a, b, ratios))
    _tell_alone(out, a, b)
    say(out, "not timed in turn: what else differed between the runs is in the ratios")
    return 0 if limit is None else _judge(limit, ratios, errors)


def _origin(result: ResultFile) -> str:
    machine = result.machine
    return f"{machine.get('started_utc')}, commit {machine.get('commit')}"


def _table(
    size: str,
    group: list[About],
    a: ResultFile,
    b: ResultFile,
    ratios: dict[About, Ratio],
) -> Table:
    table = Table(
        title=escaped(size),
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("")
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for about in group:
        one, other, ratio = a.entries[about], b.entries[about], ratios[about]
        name = "" if about.name == "dslo-jax" else f": {about.name}"
        table.add_row(
            escaped(f"{about.solver}{name}"),
            _milliseconds(one),
            _milliseconds(other),
            f"{ratio.value:.3g}",
            ratio.ends,
            ratio.verdict,
            _error(one),
            _error(other),
        )
    return table


def _tell_alone(out: Console, a: ResultFile, b: ResultFile) -> None:
    for label, one, other in (("A", a, b), ("B", b, a)):
        for about, entry in one.entries.items():
            if about not in other.entries:
                time = _milliseconds(entry)
                say(out, f"only in {label}: {words_of(about)}: {time} ms")


def _judge(limit: float, ratios: dict[About, Ratio], errors: Console) -> int:
    """Print the rows that are too slow, and return the exit code."""
    judged = {about: each for about, each in ratios.items() if each.interval}
    say(errors, f"judged {len(judged)} of {len(ratios)} rows that are in both files")
    slower = [
        (about, ratio)
        for about, ratio in judged.items()
        if ratio.interval and ratio.interval[0] > limit
    ]
    for about, ratio in slower:
        say(errors, f"slower than {limit:g} times: {words_of(about)}: {ratio.words}")
    return SLOWER if slower or not judged else 0


def _milliseconds(entry: Entry) -> str:
    return f"{1e3 * statistics.median(entry.samples_s):.4g}"


def _error(entry: Entry) -> str:
    return "none" if entry.error is None else f"{entry.error:.0e}"
