"""Result files of ``dslo bench``: compared, planned with, and continued."""

import json
from pathlib import Path

from dslo_jax.bench.plan import read_costs
from dslo_jax.bench.results import SCHEMAS, differences, read_result
from dslo_jax.cli.bench_compile import _read as read_known
from fuzz.target import Base, Found, Target


RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
FILES = ("solvers", "stages", "pipeline-full", "compile-v5e")
ROWS = 12  # of each file; more would only take longer
TOKENS = (b'"schema":"dslo.bench.stages.v2"', b"NaN", b"Infinity", b"[" * 2000, b"null")
TOKENS += (
    b'"samples_s":[]',
    b'"rows":{}',
    b'"failed":null',
    b"\xef\xbb\xbf",
    b"9" * 5000,
)


def short(name: str) -> bytes:
    """The first rows of a file."""
    content = json.loads((RESULTS / f"{name}.json").read_text())
    content["rows"] = content["rows"][:ROWS]
    for left_out in ("pairs", "skipped", "compilers"):
        if left_out in content:
            content[left_out] = type(content[left_out])()
    return json.dumps(content).encode()


def read(content: bytes, folder: Path) -> None:
    """Read a file as the command does that wants its kind."""
    path = folder / "result.json"
    path.write_bytes(content)
    if b"dslo.bench.compile" in content:
        read_known(path)
        read_costs(path, "velocity")
        return
    if b"dslo.bench.pipeline" in content:
        read_costs(path, "velocity")
    result = read_result(path)
    assert result.family in SCHEMAS.values()
    assert all(each.samples_s for each in result.entries.values())
    differences(result.machine, {})


def rows(name: str, **changes: object) -> bytes:
    """A file whose rows have other values."""
    content = json.loads(short(name))
    content["rows"] = [row | changes for row in content["rows"][:2]]
    return json.dumps(content).encode()


DEEP = b'{"schema":"dslo.bench.compile.v1","rows":' + b"[" * 100_000
FOUND = (
    Found("brackets nested too deep", DEEP, "O04"),
    Found("a number beyond all floats", rows("solvers", error=10**400), "O04"),
    Found("rows that cannot be shown", rows("compile-v5e", memory=None), "O04"),
)
BASES = {name: Base(short(name), is_json=True) for name in FILES}
TARGET = Target(BASES, read, TOKENS, found=FOUND)
