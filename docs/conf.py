"""The documentation site: Sphinx reads the Markdown files where they are.

The folder of the sources is the root of the repository, so that a link between two
files is the same on the site and on GitHub, also one to a file outside ``docs``.
``make docs`` builds it; a warning is an error.
"""

import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parent / "_site"))

import dslo_jax


project = "dslo-jax"
author = "The dslo-jax authors"
project_copyright = author
version = release = dslo_jax.__version__

extensions = [
    "myst_nb",
    "api",
    "navigation",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]

root_doc = "docs/README"
include_patterns = [
    "docs/**",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CODE_OF_CONDUCT.md",
    "dslo_jax/demo/checkpoint/README.md",
]
exclude_patterns = ["docs/_site", "docs/conf.py"]
source_suffix = {".nb.md": "myst-nb", ".md": "myst-nb"}

# Notebooks are Markdown with Python blocks, as jupytext reads it.
nb_custom_formats = {".nb.md": ["jupytext.reads", {"fmt": "md"}, False]}
nb_execution_mode = "cache"
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_merge_streams = True

myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # jaxtyping's * would begin an emphasis
napoleon_custom_sections = ["Memory"]

highlight_language = "none"  # of blocks without a language: commands, trees

html_theme = "furo"
html_title = "dslo-jax"
html_static_path = ["_site/static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
