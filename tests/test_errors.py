"""The page about errors explains every code, and no other."""

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


def page():
    return (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")


def test_every_code_is_documented_once_and_no_other():
    codes = re.findall(r"^### ([A-Z]\d\d)$", page(), re.MULTILINE)
    assert len(codes) == len(set(codes))
    assert set(codes) == codes_in_source()
    assert len(codes) > 40


def test_the_index_has_the_first_words_of_every_paragraph():
    rows = re.findall(r"^\| \[(\w+)\]\(#(\w+)\) \| (.*) \|$", page(), re.MULTILINE)
    titles = re.findall(r"^### (\w+)\n\n\*\*([^*]+?)\.?\*\*", page(), re.MULTILINE)
    assert [(code, title) for code, _, title in rows] == [
        (code, " ".join(title.split())) for code, title in titles
    ]
    assert {code for code, _ in titles} == codes_in_source()
    assert all(anchor == code.lower() for code, anchor, _ in rows)


def test_codes_written_in_docstrings_exist():
    known = codes_in_source()
    for path in SOURCES:
        written = set(re.findall(r"``([A-Z]\d\d)``", path.read_text(encoding="utf-8")))
        assert written <= known, path
