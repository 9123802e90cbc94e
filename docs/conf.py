"""Sphinx: `python -m sphinx -W -c docs . BUILD` in the root of the repository, whose reports are pages too."""

from __future__ import annotations

import triton_topk

project = "triton_topk"
release = triton_topk.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "reports/*.md"]
exclude_patterns = [
    # a table alone, which the README has
    "reports/noisy-digits.md",
    # a source tree has much that is not worth searching for pages
    ".*",
    "build",
    "dist",
]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

default_role = "literal"
nitpicky = True
nitpick_ignore_regex = [
    # other projects' names would need the network
    ("py:.*", r"Tensor|(torch|collections)\..*"),
    # the types of options, which the text of each argument says
    ("py:class", r"Reduction|Backend|Gradient|\w+Options"),
]
autodoc_member_order = "bysource"

doctest_global_setup = """
import torch
import torch.nn.functional as F
import triton_topk
torch.manual_seed(0)
"""

html_theme = "furo"
html_title = "triton_topk"
