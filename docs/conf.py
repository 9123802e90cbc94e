"""Sphinx: `python -m sphinx -W -c docs . BUILD` in the root of the repository, whose reports are pages too."""

from __future__ import annotations

from docutils import nodes
from math_core import LatexToMathML
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

import triton_topk

project = "triton_topk"
release = triton_topk.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "reports/*.md"]
exclude_patterns = [
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
    ("py:.*", r"Tensor|ProcessGroup|(torch|collections)\..*"),
    # the types of options, which the text of each argument says
    ("py:class", r"Reduction|Backend|Gradient|Weight|\w+Options"),
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
html_static_path = ["static"]
html_css_files = ["site.css"]


def mathml(writer: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """A formula is MathML, which browsers render themselves; Sphinx's own way needs a network."""
    displayed = isinstance(node, nodes.math_block)
    formula = LatexToMathML().convert_with_local_state(node.astext(), displaystyle=displayed)
    writer.body.append(formula)
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
