"""The page of sweeps has the table's configuration of each case, then and now, and the fastest that was tried."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from bench.pages import fill
from bench.sweep.variants import CASES, text
from triton_topk.kernels import launch

PAGE = Path(__file__).parents[2] / "reports/sweep.md"


def of_case(lines: pd.DataFrame) -> pd.Series:
    """Return a row of the page.  lines: of one case, the table's first, with a time where it could be measured."""
    lines = lines.reindex(columns=["case", "config", "seconds", "share"])
    case, then = lines.iloc[0][["case", "config"]]
    timed = lines.dropna(subset="seconds").set_index("config")
    fastest = "none" if timed.empty else timed["seconds"].idxmin()
    of_name = next(each for each in CASES if str(each) == case)
    now = text(launch.choose(of_name.parameters, of_name.n, of_name.dtype))
    shares = {config: f"{100 * share:.0f} %" for config, share in timed["share"].items()}
    return pd.Series(
        {
            "case": case,
            "table then": then,
            "fastest tried": fastest,
            "table now": now,
            "then, µs": f"{timed['seconds'][then] * 1e6:,.0f}" if then in shares else "",
            "then": shares.get(then, ""),
            "fastest": shares.get(fastest, ""),
            "now": shares.get(now, ""),
        }
    )


def render(folder: Path) -> str:
    return fill(PAGE.name, runs=map(_run, sorted(folder.glob("sweep-*.jsonl"))))


def _run(file: Path) -> tuple[dict[str, Any], str, pd.DataFrame]:
    """Return the header, how fast copies are by type, and the rows of the page."""
    header, *lines = map(json.loads, file.read_text().splitlines())
    frame = pd.DataFrame(lines)
    rate = frame["bytes"] / frame["seconds"]
    dtype = frame["case"].str.extract("(bfloat16|float32|float64)", expand=False)
    copies = (rate / frame["share"]).groupby(dtype, sort=False).max()  # bytes a second
    frame["share"] = rate / dtype.map(copies)
    rows = pd.DataFrame([of_case(found) for _, found in frame.groupby("case", sort=False)])
    said = ", ".join(f"{copy / 1e12:.2f} TB/s ({dtype})" for dtype, copy in copies.items())
    return header, said, rows
