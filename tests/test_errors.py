"""The page about errors lists every code, and no other."""

import ast
import re
from pathlib import Path


ROOT = Path(__file__).parents[1]
CODE = re.compile(r"[A-Z]\d\d")
NOT_CODES = re.compile(r"[FIU](16|32|64)")  # types of number in safetensors files
SOURCES = sorted(
    path
    for room in ("dslo_jax", "torch_bridge")
    for path in (ROOT / room).rglob("*.py")
)


def codes_in_source():
    """Every string in the source that has the form of a code."""
    return {
        node.value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and CODE.fullmatch(node.value)
        and not NOT_CODES.fullmatch(node.value)
    }


def documented():
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    return re.findall(
        r"^\| `([A-Z]\d\d)` \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE
    )


def test_every_code_is_documented_once_and_no_other():
    codes = [code for code, _, _ in documented()]
    assert len(codes) == len(set(codes))
    assert set(codes) == codes_in_source()
    assert len(codes) > 40


def test_codes_written_in_docstrings_exist():
    known = codes_in_source()
    for path in SOURCES:
        written = set(re.findall(r"``([A-Z]\d\d)``", path.read_text(encoding="utf-8")))
        assert written <= known, path
