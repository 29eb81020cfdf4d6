"""The table of ``SECURITY.md``, from ``results/fuzz.json``."""

from typing import Any

from harness import markdown, read


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
        [
            _NAMES[row["target"]],
            f"{row['inputs']:,}",
            f"{_read(row):,}",
            f"{row['inputs'] - _read(row) - row['outcomes'].get('fault', 0):,}",
            str(len(row["faults"])),
            str(len(row["mended"])),
            f"{1e3 * row['slowest']['seconds']:.0f} ms",
            f"{max(0, row['grown_bytes']) / 1e6:.1f} MB",
        ]
        for row in rows
    ]
    total = sum(row["inputs"] for row in rows)
    seconds = sum(row["cpu_seconds"] for row in rows)
    equal = sum(row["outcomes"].get("read, as torch", 0) for row in rows)
    titles = ["reader", "inputs", "read", "refused", "faults now", "faults before"]
    note = (
        f"{total:,} inputs in {seconds:,.0f} seconds of one core of {machine['cpu']}; "
        f"{machine['started_utc'][:10]}, Python {machine['python']}; "
        "`python benchmarks/fuzz.py`. Seconds are those of the processor; memory is "
        "what a process grew by from the first tenth of its inputs to the last. Torch "
        f"could read {equal:,} of the damaged checkpoints, too, and gave the same "
        "bytes for each."
    )
    return markdown([*titles, "slowest input", "memory"], lines, note)


def _read(row: dict[str, Any]) -> int:
    """How many inputs were read."""
    return sum(n for what, n in row["outcomes"].items() if what.startswith("read"))
