"""The page of a run has its sections in order, each with what is needed to read it; the README has a part of it."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench import rounds
from bench.pages import fill, percent, size
from bench.report import tables
from bench.report.figures import drawings
from bench.report.runs import Run
from bench.report.tables import axes

_FIGURES = {
    "n": "Time per score against the number of classes n",
    "k": "Time per score against k",
    "copy": "Share of the copy bandwidth against the number of classes n",
    "ratios": "Time of others over time of ours against the number of classes n",
}
# The README's table has these: ours beside PyTorch's loss and the paper's code.
_IN_README = (*tables.BASES, "F.cross_entropy", "F.cross_entropy compiled", "authors' topk")


def page(run: Run) -> str:
    along, ms = axes(run.measured), tables.milliseconds
    return fill(
        "benchmark.md",
        about=run.about,
        file=f"{run.stem}.csv",
        busy=busy(run),
        rounds=rounds,
        images=_images(run),
        faster=tables.faster(run.measured),
        headline=tables.headline(run),
        times={x: tables.values(along, x, "ms per call", ms) for x in ("n", "k", "batch")},
        share=tables.values(along, "n", "", tables.share) if run.has_bandwidth else "",
        compared=tables.compared(along),
        memory=tables.values(along, "n", "", _memory),
        exponents=tables.exponents(along),
        first_k=tables.FIRST_K,
        left_out=tables.left_out(run.left_out),
    )


def _images(run: Run, folder: str = "") -> dict[str, dict[str, str]]:
    """Images are by figure and dtype."""
    found = defaultdict(dict)
    for figure, dtype in (name.split("-") for name in drawings(run)):
        alt = f"{_FIGURES[figure]} by implementation, {dtype}, {run.about['name']}"
        found[figure][dtype] = f"![{alt}]({folder}{run.stem}-{figure}-{dtype}.png)"
    return found


def _memory(row: Any) -> str:
    return "" if pd.isna(row.extra_memory) else size(row.extra_memory)


def busy(run: Run) -> str:
    """The sentence says how far the numbers can be trusted."""
    load, others = run.about["load_before"], run.about["others"]
    known = [] if load is None else [f"the load average before the run was {load:.1f}"]
    if others is not None:
        known.append(f"other processes took {percent(others)} of all CPU time during it")
    said = " and ".join(known) or "how busy the machine was is not known"
    return f"{said[0].upper()}{said[1:]}; {_unsteady(run)}"


def _unsteady(run: Run) -> str:
    steady = run.measured.steady
    return f"{(~steady).sum()} of {len(steady)} measurements stayed unsteady and have a ?."


def readme_blocks(runs: Sequence[Run], folder: str) -> dict[str, str]:
    """A device, a GPU if there is one, has a short table and a figure.  Reports are in `folder`."""
    run = min(runs, key=lambda run: (run.about["kind"] == "cpu", run.about["name"]))
    report = f"[The report]({folder}{run.stem}.md)"
    of = "{name} ({kind}, {threads} threads), {date}, commit {commit}".format(**run.about)
    about = f"{of}; {_unsteady(run)}\n{report} has all of them."
    figures = [*_images(run, folder)["n"].values()][:1]
    if figures:
        figures.append(
            "Lower is faster. On a level line a score takes the same time at every n. Solid lines are losses of this\n"
            f"package. {report} explains the names."
        )
    headline = f"{about}\n{tables.headline(run, _IN_README)}".rstrip()
    return {"headline": headline, "figures": "\n\n".join(figures)}


def refreshed(readme: str, blocks: dict[str, str]) -> str:
    """The README gets these blocks between its markers."""
    for name, text in blocks.items():
        start, end = f"<!-- benchmark: {name} -->", "<!-- end -->"
        parts = re.split(rf"(?s){start}(?:(?!<!-- benchmark: ).)*?{end}", readme)
        if len(parts) != 2:
            raise ValueError(f"the README needs one {start}, then {end}")
        readme = f"{start}\n\n{text}\n\n{end}".join(parts)
    return readme
