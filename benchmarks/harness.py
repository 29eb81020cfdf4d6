"""Parts of all benchmarks: the photo, their options, and the result file."""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from dslo_jax.bench.machine import describe_machine, stolen_since
from dslo_jax.bench.noise import noise_of
from dslo_jax.bench.timing import Effort
from dslo_jax.files import write_json


RESULTS = Path(__file__).parent / "results"
# CC0, by Rachel Michetti, courtesy of Pikolo Espresso Bar; from scikit-image's samples.
PHOTO = Path(__file__).parent / "coffee.jpg"


def save(name: str, result: Mapping[str, Any]) -> Path:
    """Write ``results/NAME.json``; a name with the suffix ``.json`` is a path."""
    path = Path(name) if name.endswith(".json") else RESULTS / f"{name}.json"
    write_json(path, result, indent=1)
    return path


def read(name: str) -> dict[str, Any]:
    """Read a file of ``results``."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def markdown(
    titles: Sequence[str], rows: Iterable[Sequence[str]], note: str = ""
) -> str:
    """A table with a sentence below it."""
    lines = ["|" + "".join(f" {title} |" if title else " |" for title in titles)]
    lines += ["|---" * len(titles) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join([*lines, "", note] if note else lines)


def parse_timed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Options of benchmarks that time PyTorch; ``effort_of`` reads some of them."""
    usual = Effort()
    seconds = f"of a size or a row, at least (default: {usual.seconds:g})"
    parser.add_argument("--seconds", type=float, default=usual.seconds, help=seconds)
    budget = f"seconds of a call (default: {usual.budget:g})"
    parser.add_argument("--budget", type=float, default=usual.budget, help=budget)
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    return parse(parser, repeats=usual.repeats)


def effort_of(options: argparse.Namespace) -> Effort:
    """The effort that the options of ``parse_timed`` ask for."""
    return Effort(options.repeats, options.seconds, options.budget)


def parse(parser: argparse.ArgumentParser, *, repeats: int) -> argparse.Namespace:
    """Parse the options, with those of all benchmarks added."""
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument(
        "--save", metavar="NAME", help="write results/NAME.json; or a path, to a file"
    )
    return parser.parse_args()


class Record:
    """The results of a run, printed at once, and written if ``--save`` is given.

    Args:
        schema: Schema of the result file.
        options: From ``parse``.
        device: Device that is measured; default: the first one.
    """

    def __init__(
        self,
        schema: str,
        options: argparse.Namespace,
        device: jax.Device | None = None,  # pyright: ignore[reportInvalidTypeForm]
    ):
        self._save = options.save
        chosen = {name: v for name, v in vars(options).items() if name != "save"}
        machine = {**describe_machine(device), "options": chosen}
        self._result: dict[str, Any] = {"schema": schema, "machine": machine}
        self._result |= {"noise": {}, "rows": [], "pairs": [], "skipped": []}
        self._times: dict[str, Mapping[str, Any]] = {}

    def add(
        self,
        row: Mapping[str, Any],
        words: str,
        times: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Keep a measurement, and print it.

        Args:
            row: Plain values.
            words: The same in words.
            times: Rows of measurements by name, to judge the noise.
        """
        self._times |= times or {}
        machine = self._result["machine"]
        self._result["noise"] = noise_of(machine, self._times, stolen_since(machine))
        self._keep("rows", row, words)

    def pair(self, pair: Mapping[str, Any], words: str) -> None:
        """Keep the comparison of two rows, and print it."""
        self._keep("pairs", pair, words)

    def skip(self, row: Mapping[str, Any], reason: str) -> None:
        """Keep the reason why a row was not measured, and print it."""
        self._keep("skipped", {**row, "reason": reason}, f"{row['name']}: {reason}")

    def end(self) -> None:
        """Print the reasons to doubt the figures."""
        for reason in self._result["noise"].values():
            print(f"noise: {reason}", flush=True)

    def _keep(self, what: str, row: Mapping[str, Any], words: str) -> None:
        self._result[what].append(dict(row))
        self._result["machine"]["peak_memory_bytes"] = _peak_memory()
        print(words, flush=True)
        if self._save:
            save(self._save, self._result)


def _peak_memory() -> int | None:
    """Peak memory of this process, in bytes."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
