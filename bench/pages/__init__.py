"""The pages of reports/ are templates here: Markdown into which jinja2 puts what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined


def fill(template: str, **found: Any) -> str:
    return _PAGES.get_template(template).render(found)


def folded(body: str, title: str) -> str:
    """A click opens the body."""
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def table(frame: pd.DataFrame, **options: Any) -> str:
    return frame.to_markdown(index=False, **options)


_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_PAGES.filters |= {"folded": folded, "table": table}
