"""A Sphinx extension: a page with the docstrings of each module of the API page.

``docs/reference/api/README.md`` links to the source of each module, as a reader on
GitHub needs it. On the site these links lead to a page with its docstrings, which is
made here.
"""

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx


_PAGE = "docs/reference/api/README"
_LINK = re.compile(r"\[([\w.]+)\]\((?:\.\./){3}[\w/]+\.py\)")


def write_pages(app: Sphinx) -> None:
    """Write the page of each module, if it is not there yet."""
    overview = Path(app.srcdir, _PAGE + ".md")
    shown: set[int] = set()
    for name in _LINK.findall(overview.read_text(encoding="utf-8")):
        page, text = overview.parent / f"{name}.md", _text(name, shown)
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def _text(name: str, shown: set[int]) -> str:
    """A page with everything public that no earlier page shows.

    A package imports its public names from inner modules; a module that is no package
    defines them itself, and what it imports is not public.
    """
    module = importlib.import_module(name)
    public = {
        each: value
        for each, value in inspect.getmembers(module)
        if not each.startswith("_") and not isinstance(value, ModuleType)
    }
    lines = [
        f"# {name}",
        "",
        "```{eval-rst}",
        f".. automodule:: {name}",
        "   :members:",
    ]
    lines += ["   :show-inheritance:"]
    again = [each for each, value in public.items() if id(value) in shown]
    if hasattr(module, "__path__"):
        lines += ["   :imported-members:"]
    if again:
        lines += [f"   :exclude-members: {', '.join(again)}"]
    shown.update(id(value) for value in public.values() if inspect.getmodule(value))
    return "\n".join([*lines, "```", ""])


def link_pages(app: Sphinx, name: str, source: list[str]) -> None:
    """Let the links of the overview lead to the pages, also in the navigation."""
    if name == _PAGE:
        names = _LINK.findall(source[0])
        text = _LINK.sub(r"[`\1`](\1.md)", source[0])
        source[0] = "\n".join([text, "```{toctree}", ":hidden:", "", *names, "```", ""])


def shorten(*event: Any) -> tuple[str | None, str | None]:
    """Write arrays in a signature as people do: ``Array``."""
    return tuple(part and part.replace("jaxlib._jax.", "") for part in event[-2:])


def is_no_text(*event: Any) -> bool | None:
    """Leave out the fields of named tuples; the class explains them."""
    value = event[3]
    return True if "Alias for field number" in (value.__doc__ or "") else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("builder-inited", write_pages)
    app.connect("source-read", link_pages)
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-skip-member", is_no_text)
    return {"parallel_read_safe": True}
