"""Write the tables of the README and the documents from ``results/*.json``.

python benchmarks/tables.py          # writes
python benchmarks/tables.py --check  # exits with 1 where a table is stale
"""

import argparse
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from compiled_tables import compiled_details, compiled_table
from fuzz_table import fuzz_table
from harness import markdown, read
from page_table import page_table
from score_tables import (
    ablation_table,
    background_table,
    choices_table,
    neighbours_table,
    points_table,
    versatility_of_the_paper,
    versatility_table,
)

from dslo_jax.bench.noise import QUIET
from dslo_jax.bench.results import words_of_classes, words_of_size


ROOT = Path(__file__).parents[1]
_PIPELINE = "pipeline-full"


def provenance(result: dict[str, Any]) -> str:
    """Machine, versions and command of a result."""
    machine = result.get("machine", result)
    versions = machine["versions"]
    load = machine["load"] or 0
    noise = f" (other work at the start: load {load:.1f})" if load > QUIET else ""
    flags = ", ".join(name for name in result.get("noise", {}) if name != "load")
    noise += f" (doubts: {flags})" if flags else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores{noise}, "
        f"{machine['device']['platform']}; "
        f"jax {versions['jax']}, torch {versions['torch']}; "
        f"{machine['started_utc'][:10]}, commit {machine['commit']}; "
        f"`{machine['command']}`"
    )


def pipeline_table() -> str:
    """Seconds of the whole job and of its stages, beside torch, and the memory."""
    result = read(_PIPELINE)
    pairs = {_place(pair): pair for pair in result["pairs"]}
    lines = []
    rows = {(*_place(row), row["name"]): row for row in result["rows"]}
    for place in dict.fromkeys(map(_place, result["rows"])):
        mode, scenario, stage, images = place
        if images > 1 or scenario not in ("SingleStream", "stages"):
            continue
        both = (rows.get((*place, name)) for name in ("torch", "dslo-jax"))
        cells = [_seconds(row) for row in both]
        pair = pairs.get(place)
        ratio = "" if pair is None else _ratio(pair["ratio"])
        if pair is not None and pair["interval"]:
            ratio += f" ({_interval(pair)})"
        lines.append([f"{mode}: {stage}", *cells, ratio])
    lines.append(_beside("peak memory of the process", *_peaks(result), ".2f", "GiB"))
    titles = ["full size, one photo at a time", "torch", "dslo-jax", "torch / dslo-jax"]
    return markdown(titles, lines, f"Medians of {provenance(result)}.")


def summary_table() -> str:
    """The few figures of the README: the whole job, and the solvers."""
    pipeline, solvers = read(_PIPELINE), read("solvers")
    rows = []
    for mode in ("velocity", "path"):
        times = (
            _median(pipeline, mode=mode, scenario="SingleStream", images=1, name=name)
            for name in ("torch", "dslo-jax")
        )
        rows.append(_beside(f"a photo, full size, {mode}", *times, ".3g", "s"))
    rows.append(_beside("memory of the process", *_peaks(pipeline), ".1f", "GiB"))
    sizes = {"patches": 4096, "classes": 8}
    for solver, plain in (
        ("velocity", "torch, batched"),
        ("path", "torch, batched, 50 steps"),
    ):
        times = (
            1e3 * _median(solvers, solver=solver, name=name, **sizes)
            for name in (plain, "dslo-jax")
        )
        what = f"the solver alone, {solver}, 8 classes"
        rows.append(_beside(what, *times, ".3g", "ms"))
    machine = pipeline["machine"]
    dates = (each["machine"]["started_utc"][:10] for each in (pipeline, solvers))
    note = (
        f"{machine['cpu']}, {machine['cores']} cores, float32, random weights, "
        f"without compilation; the whole job measured on {next(dates)}, the "
        f"solvers on {next(dates)}."
    )
    return markdown(["", "PyTorch", "dslo-jax", "ratio"], rows, note)


def _beside(what: str, torch: float, ours: float, form: str, unit: str) -> list[str]:
    """The row of two figures and their ratio."""
    figures = (f"{value:{form}} {unit}" for value in (torch, ours))
    return [what, *figures, _ratio(torch / ours)]


def _median(result: dict[str, Any], **wanted: Any) -> float:
    """The median of the one row with these values."""
    (row,) = (
        row
        for row in result["rows"]
        if all(row[key] == value for key, value in wanted.items())
    )
    return row["median_s"]


def _peaks(result: dict[str, Any]) -> tuple[float, float]:
    """Peak memory of PyTorch and of ours, in GiB."""
    peaks: dict[str, int] = {}
    for start in result["starts"]:
        peak = start["memory"]["run_peak_bytes"]
        peaks[start["name"]] = max(peak, peaks.get(start["name"], 0))
    return peaks["torch"] / 2**30, peaks["dslo-jax"] / 2**30


def _place(row: dict[str, Any]) -> tuple[str, str, str, int]:
    return row["mode"], row["scenario"], row["stage"], row["images"]


def _seconds(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{row['median_s']:.3g} s"


def parity_table(name: str) -> str:
    """Greatest difference from torch, relative to the greatest magnitude."""
    result = read(name)
    parity = result["parity"]
    rows = []
    for name in parity["float32"]:
        form = ".3%" if name.endswith("labels") else ".1e"
        rows.append([name, *(f"{values[name]:{form}}" for values in parity.values())])
    return markdown(["", *parity], rows, f"{provenance(result)}.")


def solvers_table(name: str) -> str:
    """Milliseconds, times faster than batched PyTorch, and errors; a table a size."""
    result = read(name)
    tables = []
    for patches in sorted({row["patches"] for row in result["rows"]}):
        rows = [row for row in result["rows"] if row["patches"] == patches]
        tables += [_table_of_size(rows, patches), ""]
    tables += _equals(result.get("pairs", ()))
    if any(len(row["samples_s"]) == 1 for row in result["rows"]):
        tables += ["\\* one call: it takes longer than the time for a row.", ""]
    for row in result.get("skipped", ()):
        place = words_of_size(row["patches"], row["classes"])
        tables += [f"Left out: {row['solver']}: {row['name']}, {place}:"]
        tables += [f"{row['reason']}.", ""]
    return "\n".join([*tables, f"Medians of {provenance(result)}."])


def _table_of_size(rows: list[dict[str, Any]], patches: int) -> str:
    columns = sorted({row["classes"] for row in rows})
    cells: dict[str, dict[int, str]] = {}
    for row in sorted(rows, key=lambda row: row["solver"]):
        time = _milliseconds(row["median_s"])
        if len(row["samples_s"]) == 1:
            time += "\\*"
        if row["baseline_over_this"]:
            time += f" (x{_ratio(row['baseline_over_this'])})"
        line = cells.setdefault(f"{row['solver']}: {row['name']}", {})
        line[row["classes"]] = f"{time} | {row['error']:.0e}"
    heads = [(words_of_classes(count), "error") for count in columns]
    titles = [f"{patches} patches", *itertools.chain.from_iterable(heads)]
    lines = cells.items()
    return markdown(
        titles, [[name, *(line.get(c, " | ") for c in columns)] for name, line in lines]
    )


def _equals(pairs: Sequence[dict[str, Any]]) -> list[str]:
    """Rows whose time is not different from ours, by the interval."""
    equals = [
        f"{pair['solver']}: {pair['a']}, "
        f"{words_of_size(pair['patches'], pair['classes'])} ({_interval(pair)})"
        for pair in pairs
        if pair["verdict"] == "no difference"
    ]
    if not equals:
        return []
    of = f"as long as {pairs[0]['b']}, as far as can be told (95 % intervals)"
    return [f"Takes {of}: {'; '.join(equals)}.", ""]


def _interval(pair: dict[str, Any]) -> str:
    return " to ".join(map(_ratio, pair["interval"]))


def steps_table() -> str:
    """The steps around the solvers, beside torch."""
    result = read("stages")
    pairs = {pair["name"]: pair for pair in result.get("pairs", ())}
    rows = []
    for row in result["rows"]:
        times = row["median_s"]
        torch, ours = (_milliseconds(times[name]) for name in ("torch", "dslo-jax"))
        is_labels = row["name"].startswith("cosines to labels")
        difference = f"{row['difference']:{'.3%' if is_labels else '.0e'}}"
        # From the rounds with both, like its interval.
        pair = pairs.get(row["name"], {"ratio": row["torch_over_this"]})
        faster = _ratio(pair["ratio"])
        if pair.get("interval"):
            faster += f" ({_interval(pair)})"
        rows.append([row["name"], torch, ours, faster, difference])
    titles = ["step", "torch", "dslo-jax", "times faster", "difference"]
    return markdown(titles, rows, f"Medians of {provenance(result)}.")


def sizes_table() -> str:
    """The solvers at all sizes, and their picture."""
    table = solvers_table("solver-sizes")
    return f"![Seconds and errors over the size](../solver-sizes.svg)\n\n{table}"


def processors_table() -> str:
    """Times of PyTorch divided by those of dslo-jax, on two processors."""
    results = [read(name) for name in ("solver-sizes", "xeon/solver-sizes")]
    ratios = [
        {(_row_of(pair), pair["classes"]): _ratio(pair["ratio"]) for pair in pairs}
        for pairs in (result["pairs"] for result in results)
    ]
    columns = sorted({classes for _, classes in ratios[0]})
    rows = []
    for row in sorted({row for row, _ in ratios[0]}):
        solver, name, patches = row
        cells = (" / ".join(of.get((row, c), "-") for of in ratios) for c in columns)
        rows.append([f"{solver}: {name}", str(patches), *cells])
    sources = "; and ".join(map(provenance, results))
    titles = ["", "patches", *map(words_of_classes, columns)]
    return markdown(titles, rows, f"Medians of {sources}.")


def _row_of(pair: dict[str, Any]) -> tuple[str, str, int]:
    return pair["solver"], pair["a"], pair["patches"]


def formats_table() -> str:
    """Time and memory to load CLIP from each layout of its files."""
    result = read("load-formats")
    rows = []
    for row in result["rows"]:
        sizes = [f"{row[size] / 1e6:.0f} MB" for size in ("file_bytes", "peak_bytes")]
        ratio = f"{row['peak_bytes'] / row['parameter_bytes']:.2f}"
        seconds = _milliseconds(row["median_s"])
        rows.append([row["name"], sizes[0], seconds, sizes[1], ratio])
    titles = ["layout", "file", "load", "memory", "of the parameters"]
    return markdown(titles, rows, f"Medians of {provenance(result)}.")


def folders_table() -> str:
    """Folders end to end: the code of an older commit beside today's."""
    result = read("folders")
    measured: dict[tuple[str, int], dict[str, Any]] = {}
    for row in result["rows"]:
        measured.setdefault((row["photos"], row["batch"]), {})[row["code"]] = row
    rows = []
    for (photos, batch), codes in measured.items():
        before, now = codes["before"], codes["now"]
        cells = [
            f"{before[key]:.0f} → {now[key]:.0f} {unit}".strip()
            for key, unit in (("wall", ""), ("cpu", ""), ("peak_mib", "MiB"))
        ]
        sizes = " → ".join(f"{row['bytes'] / 1e6:.0f}" for row in (before, now))
        programs = f"{before['programs']:.0f} → {now['programs']:.0f}"
        rows.append([str(photos), str(batch), *cells, programs, f"{sizes} MB"])
    runs = len(result["rows"][0]["runs"])
    titles = ["photos", "batch", "seconds", "CPU seconds", "peak memory", "programs"]
    note = f"{provenance(result)}; medians of {runs} runs in turn."
    return markdown([*titles, "files"], rows, note)


def _milliseconds(seconds: float) -> str:
    milliseconds = 1e3 * seconds
    form = ",.0f" if milliseconds >= 100 else ".3g"
    return f"{milliseconds:{form}} ms"


def _ratio(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _or_absent(table: Callable[[], str]) -> str:
    """The table, or a sentence that there is no result yet."""
    try:
        return table()
    except FileNotFoundError as absent:
        path = Path(absent.filename).relative_to(ROOT).as_posix()
        return f"Not measured yet: there is no `{path}`."


TABLES = {
    "README.md": {"summary": summary_table},
    "SECURITY.md": {"fuzz": fuzz_table},
    "docs/speed.md": {
        "pipeline": pipeline_table,
        "solvers": partial(solvers_table, "solvers"),
    },
    "docs/solvers/tuning.md": {
        "sizes": sizes_table,
        "processors": processors_table,
        "steps": steps_table,
    },
    "docs/method.md": {
        "choices": choices_table,
        "foundation": partial(ablation_table, "foundation", "foundation"),
        "versatility": versatility_table,
        "versatility-paper": versatility_of_the_paper,
    },
    "dslo_jax/demo/checkpoint/README.md": {
        "components": partial(ablation_table, "components", "demo"),
        "oracles": partial(ablation_table, "oracles", "demo"),
        "neighbours": neighbours_table,
    },
    "docs/how-to/folders.md": {"folders": folders_table},
    "docs/accelerators.md": {
        "compiled": compiled_table,
        "compiled-details": compiled_details,
    },
    "docs/how-to/points.md": {"points": points_table},
    "docs/how-to/background-and-windows.md": {"background": background_table},
    "docs/how-to/serve.md": {"page": page_table},
    "docs/parity.md": {
        "parity": partial(parity_table, "pipeline-cpu-busy"),
        "parity-l14": partial(parity_table, "clip-l14-cpu"),
        "formats": formats_table,
    },
}


def main() -> int:
    """Write or check every table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name, tables in TABLES.items():
        path = ROOT / name
        text = old = path.read_text()
        for key, table in tables.items():
            marks = f"<!-- table:{key} -->", f"<!-- /table:{key} -->"
            pattern = re.escape(marks[0]) + ".*?" + re.escape(marks[1])
            new = f"{marks[0]}\n{_or_absent(table)}\n{marks[1]}"
            text = re.sub(pattern, lambda _, new=new: new, text, flags=re.DOTALL)
        if text != old:
            stale.append(name)
            if not check:
                path.write_text(text)
    print("stale:" if check else "written:", ", ".join(stale) or "none")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
