"""Every page of docs/how-to: its code runs from top to bottom, in one scope."""

import re
from pathlib import Path

import jax
import pytest


PAGES = sorted((Path(__file__).parents[1] / "docs" / "how-to").glob("*.md"))


def test_there_are_pages():
    assert PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
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
