"""The page of sweeps has the table's configuration of each case, then and now, and the fastest that was tried."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from bench.sweep.variants import CASES, text
from triton_topk.kernels import launch

PAGE = Path(__file__).parents[2] / "reports/sweep.md"
_INTRODUCTION = """\
# Launch configurations

`python -m bench.sweep` times the kernel of a loss alone, forward + backward of the mean, on 2^26 scores; the
configurations of a case take turns. The table is the one of `triton_topk/kernels/config.py`, at that commit and now. A
configuration is rows x columns x vectors x blocks of a program, whose scores are kept in registers (r) or read again in
each phase (s); then warps (w), registers a lane at most (r) and programs of a row (p). A share is that of the bandwidth
of the fastest copy of the run in the same type; it is empty where that configuration was not tried. The runs below were
timed in CUDA graphs, by an earlier version of the command."""


def of_case(lines: pd.DataFrame) -> pd.Series:
    """A row of the page.  lines: of one case, the table's first, with seconds and a share where it could be timed."""
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
    return "\n\n".join([_INTRODUCTION, *map(_section, sorted(folder.glob("sweep-*.jsonl")))]) + "\n"


def _section(file: Path) -> str:
    header, *lines = map(json.loads, file.read_text().splitlines())
    frame = pd.DataFrame(lines)
    rate = frame["bytes"] / frame["seconds"]
    dtype = frame["case"].str.extract("(bfloat16|float32)", expand=False)
    copies = (rate / frame["share"]).groupby(dtype, sort=False).max()  # bytes a second
    frame["share"] = rate / dtype.map(copies)
    rows = pd.DataFrame([of_case(found) for _, found in frame.groupby("case", sort=False)])
    machine, versions = header["machine"], header["machine"]["versions"]
    said = ", ".join(f"{copy / 1e12:.2f} TB/s ({dtype})" for dtype, copy in copies.items())
    about = f"{header['date']}, {machine['driver']}, torch {versions['torch']}, triton {versions['triton']}."
    title = f"## {machine['name']}, commit {header['commit'][:10]}"
    about = f"{about} Copies move {said}. {header.get('note', '')}".strip()
    return "\n\n".join([title, about, rows.to_markdown(index=False, disable_numparse=True)])
