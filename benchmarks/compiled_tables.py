"""The tables of ``dslo bench compile``; ``tables.py`` writes them."""

from typing import Any

from harness import markdown, read

from dslo_jax.bench.compile.report import (
    milliseconds,
    unknown_findings,
    whole_image,
    words_of_finding,
)
from dslo_jax.bench.compile.stages import Size, words_of_size as words_of_stage_size
from dslo_jax.bench.compile.targets import CHIPS


def compiled_table() -> str:
    """Estimated times of all stages on chips that were compiled for."""
    results = _compiled()
    rows = [row for result in results.values() for row in result["rows"]]
    batches = [_size_of(row) for row in rows if row["stage"].startswith("solver")]
    tables = []
    for size in dict.fromkeys(batches):
        size = size._replace(dtype="bfloat16")
        tables += [_compiled_of_size(rows, list(results), size), ""]
    sources = "; ".join(map(_compiled_by, results.values()))
    how = "`dslo bench compile`, in several runs that `--known` joined"
    return "\n".join([*tables, f"Compiled by {how}: {sources}."])


def compiled_details() -> str:
    """What the compilers made of each stage, for each chip."""
    tables = []
    for target, result in _compiled().items():
        rows = result["rows"]
        tables += [f"**{target}**", "", _details(rows), ""]
        tables += [
            f"- {row['stage']}, {words_of_stage_size(_size_of(row))}: {words}"
            for row in rows
            for words in map(words_of_finding, unknown_findings(row))
        ]
        tables += [""]
    return "\n".join(tables).rstrip()


def _compiled() -> dict[str, dict[str, Any]]:
    """The results of ``make accelerators`` that are there, by chip."""
    results = {}
    for target in CHIPS:
        try:
            results[target] = read(f"compile-{target}")
        except FileNotFoundError as missing:
            absent = missing
    if not results:
        raise absent
    return results


def _size_of(row: dict[str, Any]) -> Size:
    return Size(*(row[name] for name in Size._fields))


def _compiled_of_size(
    rows: list[dict[str, Any]], targets: list[str], size: Size
) -> str:
    """A table with a line for each stage and a column for each chip."""
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        alike = _size_of(row)._replace(dtype=size.dtype)
        fits = all(own in (0, wanted) for own, wanted in zip(alike, size, strict=True))
        if not fits and row["stage"] not in ("text", "clip"):
            continue
        words = "failed"
        if not row["failed"]:
            words = f"{milliseconds(row):.3g}"
            if row["launches"] is not None:
                words += f" ({row['calls'] * row['launches']:,.0f})"
        cells.setdefault(row["stage"], {})[row["target"]] = words
    for solver in ("velocity", "path"):
        for target in targets:
            whole = whole_image(rows, target, size, solver)
            if whole is not None:
                line = cells.setdefault(f"**a photo, {solver}**", {})
                line[target] = f"**{whole:.3g}**"
    return markdown(
        [words_of_stage_size(size), *targets],
        [
            [stage, *(line.get(each, "") for each in targets)]
            for stage, line in cells.items()
        ],
    )


def _details(rows: list[dict[str, Any]]) -> str:
    heads = (
        *("stage", "compile s", "GFLOP", "of the model", "MB", "of the model"),
        *("temporary MiB", "predicted", "floor ms"),
    )
    lines = []
    for row in rows:
        name = f"{row['stage']}, {words_of_stage_size(_size_of(row))}"
        if row["failed"]:
            lines.append([name, str(row["failed"]), *[""] * (len(heads) - 2)])
            continue
        model, temporary = row["model"], row["memory"]["temp"] / 2**20
        predicted = model["temp"]
        cells = (
            f"{row['compile_s']:.1f}",
            f"{row['flops'] / 1e9:.3g}",
            _share(row["flops"], model["flops"]),
            f"{row['bytes'] / 1e6:.3g}",
            _share(row["bytes"], model["bytes"]),
            f"{temporary:,.1f}",
            "" if predicted is None else f"{predicted / 2**20:,.1f}",
            f"{1e3 * row['calls'] * row['estimate']['floor_s']:.3g}",
        )
        lines.append([name, *cells])
    return markdown(heads, lines)


def _share(found: float, predicted: float | None) -> str:
    return f"{found / predicted:.2f}" if predicted else ""


def _compiled_by(result: dict[str, Any]) -> str:
    machine = result["machine"]
    packages = {
        f"{name} {version}"
        for compiler in result["compilers"].values()
        for name, version in compiler["versions"].items()
    }
    return (
        f"{', '.join(result['compilers'])} by {', '.join(sorted(packages))}, with jax "
        f"{machine['versions']['jax']}, {machine['started_utc'][:10]}, commit "
        f"{machine['commit']}"
    )
