"""Sphinx configuration; `make docs` builds the site."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from yolact_ros import __version__  # noqa: E402

project = "yolact_ros"
author = "The yolact_ros authors"
copyright = "the yolact_ros authors, Apache-2.0"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "fieldlist"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

# The reference shows what users call; numpy and OpenCV are the only imports that it needs.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"yolact_ros {release}"
html_static_path: list[str] = []
