"""Write the tables of the README and the documents from ``results/*.json``.

python benchmarks/tables.py          # writes
python benchmarks/tables.py --check  # exits with 1 where a table is stale
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from compiled_tables import compiled_details, compiled_table
from fuzz_table import fuzz_table
from harness import read
from page_table import page_table

from dslo_jax.bench.noise import QUIET
from dslo_jax.bench.results import words_of_classes, words_of_size
from dslo_jax.evaluation.reports.paper import BACKBONES, paper_tables


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
    lines = [
        "| full size, one photo at a time | torch | dslo-jax | torch / dslo-jax |",
        "|---" * 4 + "|",
    ]
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
        lines.append(f"| {mode}: {stage} | {' | '.join(cells)} | {ratio} |")
    torch, ours = _peaks(result)
    lines.append(
        f"| peak memory of the process | {torch:.2f} GiB | {ours:.2f} GiB | "
        f"{_ratio(torch / ours)} |"
    )
    return "\n".join([*lines, "", f"Medians of {provenance(result)}."])


def summary_table() -> str:
    """The few figures of the README: the whole job, and the solvers."""
    pipeline, solvers = read(_PIPELINE), read("solvers")
    lines = ["| | PyTorch | dslo-jax | ratio |", "|---|---|---|---|"]
    for mode in ("velocity", "path"):
        torch, ours = (
            _median(pipeline, mode=mode, scenario="SingleStream", images=1, name=name)
            for name in ("torch", "dslo-jax")
        )
        lines.append(
            f"| a photo, full size, {mode} | {torch:.3g} s | {ours:.3g} s | "
            f"{_ratio(torch / ours)} |"
        )
    torch, ours = _peaks(pipeline)
    lines.append(
        f"| memory of the process | {torch:.1f} GiB | {ours:.1f} GiB | "
        f"{_ratio(torch / ours)} |"
    )
    sizes = {"patches": 4096, "classes": 8}
    for solver, plain in (
        ("velocity", "torch, batched"),
        ("path", "torch, batched, 50 steps"),
    ):
        torch, ours = (
            1e3 * _median(solvers, solver=solver, name=name, **sizes)
            for name in (plain, "dslo-jax")
        )
        lines.append(
            f"| the solver alone, {solver}, 8 classes | {torch:.3g} ms | {ours:.3g} ms "
            f"| {_ratio(torch / ours)} |"
        )
    machine = pipeline["machine"]
    dates = (each["machine"]["started_utc"][:10] for each in (pipeline, solvers))
    return "\n".join(
        [
            *lines,
            "",
            f"{machine['cpu']}, {machine['cores']} cores, float32, random weights, "
            f"without compilation; the whole job measured on {next(dates)}, the "
            f"solvers on {next(dates)}.",
        ]
    )


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
    lines = [f"| | {' | '.join(parity)} |", "|---" * (1 + len(parity)) + "|"]
    for name in parity["float32"]:
        form = ".3%" if name.endswith("labels") else ".1e"
        cells = " | ".join(f"{values[name]:{form}}" for values in parity.values())
        lines.append(f"| {name} | {cells} |")
    return "\n".join([*lines, "", f"{provenance(result)}."])


def solvers_table(name: str) -> str:
    """Milliseconds, times faster than batched PyTorch, and errors; a table a size."""
    result = read(name)
    tables = []
    for patches in sorted({row["patches"] for row in result["rows"]}):
        rows = [row for row in result["rows"] if row["patches"] == patches]
        tables += [*_solver_lines(rows, patches), ""]
    tables += _equals(result.get("pairs", ()))
    if any(len(row["samples_s"]) == 1 for row in result["rows"]):
        tables += ["\\* one call: it takes longer than the time for a row.", ""]
    for row in result.get("skipped", ()):
        place = words_of_size(row["patches"], row["classes"])
        tables += [f"Left out: {row['solver']}: {row['name']}, {place}:"]
        tables += [f"{row['reason']}.", ""]
    return "\n".join([*tables, f"Medians of {provenance(result)}."])


def _solver_lines(rows: list[dict[str, Any]], patches: int) -> list[str]:
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
    heads = " | ".join(f"{words_of_classes(count)} | error" for count in columns)
    return [
        f"| {patches} patches | {heads} |",
        "|---" * (2 * len(columns) + 1) + "|",
        *(
            f"| {name} | {' | '.join(line.get(c, ' | ') for c in columns)} |"
            for name, line in cells.items()
        ),
    ]


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
    lines = [
        "| step | torch | dslo-jax | times faster | difference |",
        "|---|---|---|---|---|",
    ]
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
        lines.append(f"| {row['name']} | {torch} | {ours} | {faster} | {difference} |")
    return "\n".join([*lines, "", f"Medians of {provenance(result)}."])


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
    heads = " | ".join(map(words_of_classes, columns))
    lines = [f"| | patches | {heads} |", "|---" * (len(columns) + 2) + "|"]
    for row in sorted({row for row, _ in ratios[0]}):
        solver, name, patches = row
        cells = (" / ".join(of.get((row, c), "-") for of in ratios) for c in columns)
        lines.append(f"| {solver}: {name} | {patches} | {' | '.join(cells)} |")
    sources = "; and ".join(map(provenance, results))
    return "\n".join([*lines, "", f"Medians of {sources}."])


def _row_of(pair: dict[str, Any]) -> tuple[str, str, int]:
    return pair["solver"], pair["a"], pair["patches"]


def formats_table() -> str:
    """Time and memory to load CLIP from each layout of its files."""
    result = read("load-formats")
    lines = ["| layout | file | load | memory | of the parameters |", "|---" * 5 + "|"]
    for row in result["rows"]:
        sizes = [f"{row[size] / 1e6:.0f} MB" for size in ("file_bytes", "peak_bytes")]
        ratio = f"{row['peak_bytes'] / row['parameter_bytes']:.2f}"
        cells = [row["name"], sizes[0], _milliseconds(row["median_s"]), sizes[1], ratio]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Medians of {provenance(result)}."])


# Tables of an ablation that do not compare choices.
_NO_CHOICES = ("components", "oracles", "grid")


def choices_table() -> str:
    """Every choice of the method on the bundled scenes, in a line each."""
    result = read("ablation/ablation")
    lines = ["| choice | mIoU in percent |", "|---|---|"]
    for table in result["tables"]:
        if table["name"] in _NO_CHOICES:
            continue
        for title, first, last in _groups(table["columns"]):
            scores = ", ".join(
                f"{row['label']}: {_scores(row['cells'][first:last], result)}"
                for row in table["rows"]
            )
            lines.append(f"| {table['title']}: {title} | {scores} |")
    return "\n".join([*lines, "", f"{_photos(result)}."])


def _groups(columns: list[str]) -> list[tuple[str, int, int]]:
    """Titles and ranges of neighbouring columns that differ only in their mode."""
    groups = []
    for first in range(0, len(columns), 2):
        pair = columns[first : first + 2]
        reading, comma, mode = pair[0].rpartition(", ")
        modes = [mode, *(column.rpartition(", ")[2] for column in pair[1:])]
        groups.append((f"{reading}{comma}{' / '.join(modes)}", first, first + 2))
    return groups


def ablation_table(name: str, result: str) -> str:
    """One table of an ablation."""
    report = read(result)
    (table,) = (table for table in report["tables"] if table["name"] == name)
    lines = [
        f"| | {' | '.join(table['columns'])} |",
        "|---" * (1 + len(table["columns"])) + "|",
    ]
    for row in table["rows"]:
        cells = (_scores([key], report) for key in row["cells"])
        lines.append(f"| {row['label']} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"{_photos(report)}."])


def versatility_table() -> str:
    """All logits alone and with the method, and the seconds of their networks."""
    report = read("versatility")
    (table,) = (each for each in report["tables"] if each["name"] == "versatility")
    lines = [
        f"| | {' | '.join(table['columns'])} | seconds |",
        "|---" * (2 + len(table["columns"])) + "|",
    ]
    for row in table["rows"]:
        scores = " | ".join(_scores([key], report) for key in row["cells"])
        cells = [report["cells"][key] for key in row["cells"]]
        spent = max(cell.get("logits_seconds", 0.0) for cell in cells)
        lines.append(f"| `{row['label']}` | {scores} | {spent:.3f} |")
    return "\n".join([*lines, "", f"{_photos(report)}."])


def versatility_of_the_paper() -> str:
    """The paper's figures on the logits of other methods."""
    table = paper_tables()["versatility"]
    modes = {"none": "alone", "path": "+ O.P.", "velocity": "+ M.V."}
    lines = [f"| | {' | '.join(table.columns)} |", "|---" * 9 + "|"]
    for row in table.rows:
        figures = (f"{row.figures[name]:.1f}" for name in table.columns)
        name = f"{row.label}, {BACKBONES[row.backbone]}, {modes[row.mode]}"
        lines.append(f"| {name} | {' | '.join(figures)} |")
    return "\n".join([*lines, "", f"mIoU in percent; {table.citation}."])


def neighbours_table() -> str:
    """How often near patches show the same thing."""
    result = read("neighbours")
    numbers = result["nearest"]
    titles = " | ".join(f"nearest {number}" for number in numbers)
    lines = [f"| | {titles} |", "|---" * (1 + len(numbers)) + "|"]
    for row in result["rows"]:
        shares = " | ".join(f"{100 * share:.1f}" for share in row["shares"])
        lines.append(f"| {row['where']}: {row['name']} | {shares} |")
    where = result["machine"]["device"]["platform"]
    return "\n".join(
        [*lines, "", f"Percent; {result['scenes']} held-out scenes; {where}."]
    )


def _scores(keys: list[str | None], result: dict[str, Any]) -> str:
    cells = result["cells"]
    return " / ".join(f"{100 * cells[key]['miou']:.1f}" if key else "" for key in keys)


def _photos(result: dict[str, Any]) -> str:
    """Scenes, device and weights of an ablation."""
    dataset, versions = result["dataset"], result["versions"]
    first = dataset["first_seed"]
    return (
        f"{result['scored']} held-out scenes, seeds {first} to "
        f"{first + result['expected'] - 1}; {result['device']['kind']}, jax "
        f"{versions['jax']}; weights {result['checkpoint'][:12]}"
    )


def folders_table() -> str:
    """Folders end to end: the code of an older commit beside today's."""
    result = read("folders")
    measured: dict[tuple[str, int], dict[str, Any]] = {}
    for row in result["rows"]:
        measured.setdefault((row["photos"], row["batch"]), {})[row["code"]] = row
    lines = [
        "| photos | batch | seconds | CPU seconds | peak memory | programs | files |",
        "|---" * 7 + "|",
    ]
    for (photos, batch), codes in measured.items():
        before, now = codes["before"], codes["now"]
        cells = [
            f"{before[key]:.0f} → {now[key]:.0f} {unit}".strip()
            for key, unit in (("wall", ""), ("cpu", ""), ("peak_mib", "MiB"))
        ]
        sizes = " → ".join(f"{row['bytes'] / 1e6:.0f}" for row in (before, now))
        programs = f"{before['programs']:.0f} → {now['programs']:.0f}"
        lines.append(
            f"| {photos} | {batch} | {' | '.join(cells)} | {programs} | {sizes} MB |"
        )
    runs = len(result["rows"][0]["runs"])
    return "\n".join(
        [*lines, "", f"{provenance(result)}; medians of {runs} runs in turn."]
    )


def points_table() -> str:
    """How well clicks find drawn things."""
    result = read("points")
    lines = ["| | mean IoU in percent |", "|---|---|"]
    lines += [f"| {row['name']} | {100 * row['iou']:.1f} |" for row in result["rows"]]
    machine = result["machine"]
    where = f"{machine['device']['platform']}, jax {machine['versions']['jax']}"
    return "\n".join(
        [
            *lines,
            "",
            f"{result['rows'][0]['clicks']} clicks into {result['scenes']} held-out "
            f"scenes, bundled networks; {where}; `python benchmarks/points.py`.",
        ]
    )


def background_table() -> str:
    """What windows and a background threshold do, on drawn scenes."""
    result = read("background")
    heads = {
        "input": "all classes",
        "words": "things and a background with its words, threshold",
        "single": 'things and the word "background", threshold',
    }
    lines = []
    for part, head in heads.items():
        rows = [row for row in result["rows"] if row["part"] == part]
        columns = list(rows[0]["miou"])
        columns += ["pixels below the threshold"] if part != "input" else []
        lines += ["", f"| {head} | {' | '.join(columns)} |"]
        lines += ["|---" * (len(columns) + 1) + "|"]
        for row in rows:
            cells = [f"{100 * score:.1f}" for score in row["miou"].values()]
            cells += [f"{row['unsure']:.1%}"] if part != "input" else []
            lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    machine = result["machine"]
    where = f"{machine['device']['platform']}, jax {machine['versions']['jax']}"
    return "\n".join(
        [
            *lines[1:],
            "",
            f"{result['scenes']} held-out scenes, mIoU in percent, "
            f"`background_scale` {result['scale']:g}; {where}; "
            "`python benchmarks/background.py`.",
        ]
    )


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
