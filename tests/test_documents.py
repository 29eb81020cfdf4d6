"""Documents: what they name exists, and what is made from the code is up to date."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "dslo_jax/**/*.md", ".github/**/*.md")
    for path in ROOT.glob(pattern)
    if not re.match(r"dslo_jax.*\.md", path.name)  # made for the site alone
)


def _module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_of_the_reference_are_those_of_the_code():
    reference = _module(ROOT / "docs" / "_site" / "reference.py")
    for name, make in reference.PAGES.items():
        text = (reference.FOLDER / name).read_text(encoding="utf-8")
        assert text == make(), f"{name} is not up to date: run `make reference`"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_links_to_files_lead_somewhere(path):
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.M | re.S)
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/faults.md"])
def test_the_tests_that_a_page_names_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/.]+)`(?::((?: `test_\w+`,?)+))?", text)
    assert named
    for file, tests in named:
        code = (ROOT / file).read_text(encoding="utf-8")
        for test in re.findall(r"test_\w+", tests):
            assert f"def {test}(" in code, f"{test} is not in {file}"


def test_every_fault_has_a_test():
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = [row for row in text.splitlines() if re.match(r"\| (?!fault )", row)]
    assert len(rows) > 60
    assert [row for row in rows if row.count("|") != 4 or "`: `test_" not in row] == []


def test_the_citation_is_that_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {project['version']}\n" in citation
    assert f"\nlicense: {project['license']}\n" in citation


def test_every_how_to_is_in_the_navigation():
    overview = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [f"how-to/{page.name}" for page in (ROOT / "docs/how-to").glob("*.md")]
    missing = [page for page in pages if f"]({page})" not in overview]
    assert missing == [], "add a line for each to docs/README.md"
