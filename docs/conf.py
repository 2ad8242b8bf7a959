"""Sphinx configuration."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tomllib
import warnings
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

info = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
project = "spacetravlr"
author = info["authors"][0]["name"]
copyright = f"2026, {author}"
version = release = importlib.metadata.version(info["name"])
repository_url = info["urls"]["Source"]

# calls of sphinx_autodoc_typehints that Sphinx 10 will not have
warnings.filterwarnings("ignore", module="sphinx_autodoc_typehints")  # noqa: TID251

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    "plain_returns",
    "public_names",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_tables", "**.ipynb_checkpoints"]
# the formatter of annotations is a function, which is never cached
suppress_warnings = ["config.cache"]

autosummary_generate = True
# one picture for each plot, drawn by gallery.py
autosummary_context = {
    "pictures": {f"spacetravlr.pl.{path.stem}": f"pl/{path.name}" for path in (HERE / "_static" / "pl").glob("*.png")}
}
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # left to sphinx_autodoc_typehints
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_include_init_with_doc = False
napoleon_use_ivar = True
napoleon_use_rtype = True
napoleon_use_param = True
typehints_defaults = "braces"
always_use_bars_union = True

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "alpha"

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath", "html_image"]
myst_heading_anchors = 3
# notebooks are executed with `make notebooks` and committed with their figures
nb_execution_mode = "off"
nb_merge_streams = True

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_theme_options = {
    "repository_url": repository_url,
    "use_repository_button": True,
    "path_to_docs": "docs",
    "navigation_with_keys": False,
    # the sidebar has the search; a second one would stand above everything
    "navbar_persistent": [],
}

# The inventories of other projects are on the web: a build without it must not fail, and a name of another package is
# checked only where they are at hand.
online = os.environ.get("READTHEDOCS") == "True" or os.environ.get("DOCS_ONLINE") == "1"
if online:
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "scipy": ("https://docs.scipy.org/doc/scipy/", None),
        "squidpy": ("https://squidpy.readthedocs.io/en/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }

nitpicky = True
nitpick_ignore_regex = [
    # names of other packages, see above; every name of ours has to resolve
    ("py:.*", r"(?!spacetravlr\.).*"),
    # private classes that appear in a signature have no page of their own
    ("py:.*", r"spacetravlr\.(\w+\.)*_\w+.*"),
]
