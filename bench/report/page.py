"""The page of a run has its sections in order, each with what is needed to read it; the README has a part of it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.report import tables
from bench.report.figures import drawings
from bench.report.markdown import folded, percent, size, table
from bench.report.runs import Run
from bench.report.tables import FIRST_K, axes
from bench.rounds import MOST_SHARE, MOST_SPREAD, MOST_WAITED, TRIES

GLOSSARY = f"""\
smooth_svm, smooth_svm taylor (with `gradient="taylor"`), hard_svm, lq_loss and the mixture (`smooth_svm_lq`) are this
package's. Divide and conquer and summation are the two algorithms of `triton_topk.reference` for smooth_svm; authors'
topk is the code of Berrada, Zisserman and Kumar for it. F.cross_entropy, alone and under `torch.compile`, and Liger
cross_entropy have no k and do less, at every k the same; difftopk is another top-k loss, by sorting. Before each
measurement the result was compared with the definition in float64, where there is one; what failed was not timed.
Times are medians of calls in rounds in which all implementations of the same shape, dtype and work took turns, and
with them a copy of the scores; the clock is the host's on a CPU, and on a GPU its own, around a CUDA graph where one
can be captured. A `?` marks what up to {TRIES} such tries did not make steady: its interquartile range is above
{MOST_SPREAD} of the median, its bytes moved more than {MOST_SHARE - 1:.0%} faster than those of the copy, its threads
waited for a CPU for more than {MOST_WAITED} of its time, or the copy was unsteady."""

ALONG_N = (
    "The number of scores is the same at every n: times in a row that are equal are linear in n."
)

SHARE = """\
The share compares the bytes that must move, the scores read once and, backward, the gradient written once, with what a
copy of the same scores moves in as much time of the same rounds. On a CPU its caches may hold them."""

EXPONENTS = f"""\
The exponents are of time per row against n, and of time against k from k = {FIRST_K} on (k = 1 is cross-entropy): the
slope by linear regression of logarithms ± its standard error (number of points, without those that have a `?`). 1 is
proportional. The upper half are the larger values, where what does not depend on k weighs less. Along n what a call
costs is shared by equally many scores."""

MEMORY = "The memory is the peak of what is allocated beyond the scores and the gradient."

_FIGURES = {
    "n": "Time per score against the number of classes n",
    "k": "Time per score against k",
    "copy": "Share of the copy bandwidth against the number of classes n",
    "ratios": "Time of others over time of ours against the number of classes n",
}
_CAPTIONS = {
    "n": "Time per score against the number of classes; a level line is linear in n.",
    "k": "Time per score against k; the dotted line is proportional to k.",
}


def page(run: Run) -> str:
    measured, along, ms = run.measured, axes(run.measured), tables.milliseconds
    chapters = [  # title, figure, introduction, body
        ("Where another implementation is faster", "", "", tables.faster(measured)),
        ("In short", "", "", tables.headline(along)),
        ("Time against n", "n", ALONG_N, tables.values(along, "n", "ms per call", ms)),
        ("Time against k", "k", "", tables.values(along, "k", "ms per call", ms)),
        ("Time against the batch", "", "", tables.values(along, "batch", "ms per call", ms)),
        ("Share of copy bandwidth", "copy", SHARE, tables.values(along, "n", "", tables.share)),
        ("Ratio to others", "ratios", "", tables.compared(along)),
        ("Memory", "", MEMORY, tables.values(along, "n", "", _memory)),
        ("Exponents", "", EXPONENTS, tables.exponents(along)),
        ("Left out", "", "", tables.left_out(run.left_out)),
    ]
    parts = [f"# Benchmark: {run.about['name']}", _provenance(run), busy(run), GLOSSARY]
    images = _images(run)
    for title, figure, introduction, body in chapters:
        if body:
            # The figure of the main dtype, those of the others to be unfolded.
            first, *others = images.get(figure, {"": ""}).items()
            folds = [folded(f"Figure: {dtype}", image) for dtype, image in others]
            parts += filter(None, [f"## {title}", first[1], *folds, introduction, body])
    return "\n\n".join(parts) + "\n"


def _images(run: Run, folder: str = "") -> dict[str, dict[str, str]]:
    """Images are by figure and dtype."""
    found = defaultdict(dict)
    for figure, dtype in (name.split("-") for name in drawings(run)):
        alt = f"{_FIGURES[figure]} by implementation, {dtype}, {run.about['name']}"
        found[figure][dtype] = f"![{alt}]({folder}{run.stem}-{figure}-{dtype}.png)"
    return found


def _memory(row: Any) -> str:
    return "" if pd.isna(row.extra_memory) else size(row.extra_memory)


def _provenance(run: Run) -> str:
    about = run.about
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    known = {"device": f"{about['name']} ({about['kind']})", "driver": about["driver"]}
    known |= {
        "L2 cache": about["l2_bytes"] and size(about["l2_bytes"]),
        "threads": about["threads"],
    }
    known |= {"versions": versions, **{name: about[name] for name in ("commit", "date", "seed")}}
    known["measurements"] = f"[{run.stem}.csv]({run.stem}.csv)"
    lines = [[name, str(value)] for name, value in known.items() if value is not None]
    return table(["", ""], lines, text_columns=2)


def busy(run: Run) -> str:
    """The sentence says how far the numbers can be trusted."""
    load, others = run.about["load_before"], run.about["others"]
    known = [] if load is None else [f"the load average before the run was {load:.1f}"]
    if others is not None:
        known.append(f"other processes took {percent(others)} of all CPU time during it")
    said = " and ".join(known) or "how busy the machine was is not known"
    steady = run.measured.steady
    return f"{said[0].upper()}{said[1:]}; {(~steady).sum()} of {len(steady)} measurements stayed unsteady and have a ?."


def readme_blocks(runs: Sequence[Run], folder: str) -> dict[str, str]:
    """Each device has its headline table; figures are of a GPU, or else of a CPU. Reports are in `folder`."""
    runs = sorted(runs, key=lambda run: (run.about["kind"] == "cpu", run.about["name"]))
    headlines, figures = [], []
    for run in runs:
        of = "{name}, {date}, commit {commit}".format(**run.about)
        headlines.append(f"{of}. {busy(run)} [All of it]({folder}{run.stem}.md).")
        headlines.append(tables.headline(axes(run.measured)))
    images = _images(runs[0], folder)
    for figure, caption in _CAPTIONS.items():
        if figure in images:
            figures += [next(iter(images[figure].values())), caption]
    return {"headline": "\n\n".join(filter(None, headlines)), "figures": "\n\n".join(figures)}


def refreshed(readme: str, blocks: dict[str, str]) -> str:
    """The README gets these blocks between its markers."""
    for name, text in blocks.items():
        start, end = f"<!-- benchmark: {name} -->", "<!-- end -->"
        parts = re.split(rf"(?s){start}(?:(?!<!-- benchmark: ).)*?{end}", readme)
        if len(parts) != 2:
            raise ValueError(f"the README needs one {start}, then {end}")
        readme = f"{start}\n\n{text}\n\n{end}".join(parts)
    return readme
