"""The pages with code: it runs from top to bottom, in one scope."""

import re
from pathlib import Path

import jax
import pytest


DOCS = Path(__file__).parents[1] / "docs"
PAGES = [
    DOCS / "tutorial.md",
    *sorted((DOCS / "how-to").glob("*.md")),
    *sorted((DOCS / "notebooks").glob("*.md")),
]
# They load and compile the bundled networks for several modes or sizes.
LONG = {"choose-a-mode", "evaluate", "jax", "many-machines", "ott", "tutorial"}


def _page(path):
    slow = path.stem in LONG or path.parent.name == "notebooks"
    return pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * slow)


def test_there_are_pages():
    assert len(PAGES) > 10


@pytest.mark.parametrize("page", [_page(each) for each in PAGES])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    text = page.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    assert blocks
    scope = {"__name__": page.stem}
    for block in blocks:
        # Lines count as on the page, so that a failure names the right one.
        before = "\n" * text.count("\n", 0, block.start(1))
        code = compile(before + block[1], str(page), "exec")
        # JAX as a reader has it: other libraries do not run in the strict modes.
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            exec(code, scope)
