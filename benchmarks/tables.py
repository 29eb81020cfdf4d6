"""Write the tables of the README and the documents from ``results/*.json``.

python benchmarks/tables.py          # writes
python benchmarks/tables.py --check  # exits with 1 where a table is stale
"""

import argparse
import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any


ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
_STAGES = (
    ("text, 80 templates, 7 names", ("text",), ("text",)),
    ("clip", ("clip",), ("clip",)),
    ("affinity (VAE and UNet)", ("vae", "unet"), ("affinity",)),
    ("solver", ("solver",), ("solver",)),
    ("upsampling and labels", ("fold", "labels"), ("upsample", "labels")),
)


def read(name: str) -> dict[str, Any]:
    """One committed result."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def provenance(result: dict[str, Any]) -> str:
    """Where and with what a figure was measured."""
    machine = result.get("machine", result)
    versions = machine["versions"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['device']['platform']}; "
        f"jax {versions['jax']}, torch {versions['torch']}; "
        f"{machine['started_utc'][:10]}, commit {machine['commit']}; "
        f"`{machine['command']}`"
    )


def stages_table() -> str:
    """Seconds per stage of the main job, next to torch."""
    result = read("pipeline-cpu")
    precisions = list(result["parity"])
    heads = " | ".join(f"dslo-jax {precision}" for precision in precisions)
    lines = [
        f"| stage, full size | torch float32 | {heads} |",
        "|---" * (2 + len(precisions)) + "|",
    ]
    for mode in ("path", "velocity"):
        runs = [result["seconds"][f"{precision}, {mode}"] for precision in precisions]
        for title, ours, theirs in _STAGES:
            if mode == "velocity" and title != "solver":
                continue
            torch = sum(runs[0]["torch"][stage] for stage in theirs)
            times = [sum(run["dslo"][stage] for stage in ours) for run in runs]
            name = f"{title}, {mode}" if title == "solver" else title
            cells = " | ".join(f"{seconds:.3g} s" for seconds in [torch, *times])
            lines.append(f"| {name} | {cells} |")
    return "\n".join([*lines, "", f"Medians of {provenance(result)}."])


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


def solvers_table() -> str:
    """Milliseconds of the solvers, times faster than batched PyTorch, and errors."""
    result = read("solvers")
    columns = sorted({row["classes"] for row in result["rows"]})
    heads = " | ".join(f"{classes} classes | error" for classes in columns)
    lines = [f"| 4096 patches | {heads} |", "|---" * (2 * len(columns) + 1) + "|"]
    cells: dict[str, list[str]] = {}
    for row in sorted(result["rows"], key=lambda row: row["solver"]):
        faster = f"{row['baseline_over_this']:.2g}"
        time = 1e3 * row["median_s"]
        time = f"{time:,.0f} ms" if time >= 100 else f"{time:.3g} ms"
        name = f"{row['solver']}: {row['name']}"
        found = f"{time} (x{faster}) | {row['error']:.0e}"
        cells.setdefault(name, []).append(found)
    lines += [f"| {name} | {' | '.join(times)} |" for name, times in cells.items()]
    return "\n".join([*lines, "", f"Medians of {provenance(result)}."])


TABLES = {
    "README.md": {"stages": stages_table, "solvers": solvers_table},
    "docs/parity.md": {
        "parity": partial(parity_table, "pipeline-cpu-busy"),
        "parity-l14": partial(parity_table, "clip-l14-cpu"),
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
            new = f"{marks[0]}\n{table()}\n{marks[1]}"
            text = re.sub(pattern, lambda _, new=new: new, text, flags=re.DOTALL)
        if text != old:
            stale.append(name)
            if not check:
                path.write_text(text)
    print("stale:" if check else "written:", ", ".join(stale) or "none")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
