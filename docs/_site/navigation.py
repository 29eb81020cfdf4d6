"""A Sphinx extension: the navigation of the site is the list in ``docs/README.md``.

The page lists links under headings, as GitHub shows it. Each heading becomes a part of
the navigation, in the order of the links. Pages of ``docs/how-to`` and
``docs/notebooks`` that the page does not name yet come last in their part; a page
elsewhere must be named, because the build refuses one that is nowhere.
"""

import posixpath
import re
from pathlib import Path

from sphinx.application import Sphinx


_FOUND = {"How-to guides": "docs/how-to", "Notebooks": "docs/notebooks"}
_LINK = re.compile(r"\]\(([^)#:]+\.md)\)")
_START = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>dslo-jax</title>
<meta http-equiv="refresh" content="0; url=docs/README.html">
<a href="docs/README.html">Documentation of dslo-jax</a></html>
"""


def add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    """Add the parts of the navigation to the first page."""
    if name == "README":  # its links are checked as well; the site has its own start
        source[0] = f"---\norphan: true\n---\n{source[0]}"
    if name != app.config.root_doc:
        return
    parts = parts_of(source[0])
    listed = {page for pages in parts.values() for page in pages}
    for heading, folder in _FOUND.items():
        found = sorted(app.env.found_docs)
        new = [page for page in found if page.startswith(folder + "/")]
        parts.setdefault(heading, []).extend(p for p in new if p not in listed)
    for heading, pages in parts.items():
        lines = ["", "```{toctree}", ":hidden:", f":caption: {heading}", ""]
        source[0] += "\n".join([*lines, *(f"/{page}" for page in pages), "```", ""])


def parts_of(text: str) -> dict[str, list[str]]:
    """The pages that a text links to, by the headings above them."""
    parts: dict[str, list[str]] = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        places = (posixpath.normpath(f"docs/{link}") for link in _LINK.findall(body))
        names = [re.sub(r"(\.nb)?\.md$", "", place) for place in places]
        if names:
            parts[heading.strip()] = list(dict.fromkeys(names))
    return parts


def add_start(app: Sphinx, error: Exception | None) -> None:
    """Let the address of the site itself lead to the first page."""
    if error is None and app.builder.format == "html":
        Path(app.outdir, "index.html").write_text(_START, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension."""
    app.connect("source-read", add_navigation)
    app.connect("build-finished", add_start)
    return {"parallel_read_safe": True}
