"""The table of ``SECURITY.md``, from ``results/fuzz.json``."""

from typing import Any

from harness import read


_NAMES = {
    "photos": "photos of all formats",
    "masks": "masks with class ids",
    "archives": "archives and tables of photos, lists of names",
    "weights": "checkpoints: safetensors, pickles, zip, msgpack, npz",
    "class_lists": "class files: text, CSV, JSON, CVAT, UTF-16 and UTF-32",
    "configs": "configurations in TOML",
    "journals": "journals of runs",
    "results": "recorded results, as exports read them",
    "measurements": "results of `dslo bench`",
    "requests": "requests to the page of `dslo serve`",
}


def fuzz_table() -> str:
    """What became of damaged inputs, reader by reader."""
    result = read("fuzz")
    machine, rows = result["machine"], result["rows"]
    lines = [
        "| reader | inputs | read | refused | faults now | faults before | slowest "
        "input | memory |",
        "|---|" + "---:|" * 7,
    ]
    for row in rows:
        cells = [
            f"{row['inputs']:,}",
            f"{_read(row):,}",
            f"{row['inputs'] - _read(row) - row['outcomes'].get('fault', 0):,}",
            str(len(row["faults"])),
            str(len(row["mended"])),
            f"{1e3 * row['slowest']['seconds']:.0f} ms",
            f"{max(0, row['grown_bytes']) / 1e6:.1f} MB",
        ]
        lines.append(f"| {_NAMES[row['target']]} | {' | '.join(cells)} |")
    total = sum(row["inputs"] for row in rows)
    seconds = sum(row["cpu_seconds"] for row in rows)
    equal = sum(row["outcomes"].get("read, as torch", 0) for row in rows)
    return "\n".join(
        [
            *lines,
            "",
            f"{total:,} inputs in {seconds:,.0f} seconds of one core of "
            f"{machine['cpu']}; {machine['started_utc'][:10]}, Python "
            f"{machine['python']}; `python benchmarks/fuzz.py`. Seconds\n"
            "are those of the processor; memory is what a process grew by from the "
            "first tenth of its\ninputs to the last. Torch could read "
            f"{equal:,} of the damaged checkpoints, too, and gave the\n"
            "same bytes for each.",
        ]
    )


def _read(row: dict[str, Any]) -> int:
    """How many inputs were read."""
    return sum(n for what, n in row["outcomes"].items() if what.startswith("read"))
