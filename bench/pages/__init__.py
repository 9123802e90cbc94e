"""The pages of reports/ are templates here: Markdown into which jinja2 puts what was found."""

from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined


def fill(template: str, **found: Any) -> str:
    return _PAGES.get_template(template).render(found)


def folded(body: str, title: str) -> str:
    """A click opens the body."""
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def compact(frame: pd.DataFrame, text_columns: int = 1) -> str:
    """The first columns are aligned to the left, the others, numbers, to the right."""
    headers = [f"{x:,}" if isinstance(x, int) else x for x in frame.columns]
    aligned = ["---"] * text_columns + ["---:"] * (len(headers) - text_columns)
    cells = frame.astype(str).replace({r"\s+": " ", r"\|": r"\|"}, regex=True).to_numpy()
    return "\n".join(f"| {' | '.join(row)} |" for row in [headers, aligned, *cells])


def number(x: float) -> str:
    """A number has three digits."""
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:#.3g}"


def percent(x: float) -> str:
    """A percentage has two digits."""
    return f"{100 * x:.0f} %" if x >= 0.1 else f"{100 * x:#.2g} %"


def size(n_bytes: float) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(n_bytes) >= scale:
            return f"{n_bytes / scale:{'.0f' if abs(n_bytes) >= 100 * scale else '.3g'}} {unit}"
    return f"{n_bytes:.0f} B"


def _table(frame: pd.DataFrame, **options: Any) -> str:
    return frame.to_markdown(index=False, **options)


_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_PAGES.filters |= {"folded": folded, "table": _table, "size": size}
