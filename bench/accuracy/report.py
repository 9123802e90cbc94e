"""reports/accuracy.md: its sections in order."""

from __future__ import annotations

from collections.abc import Iterable

from bench.accuracy import sections, suite_tables
from bench.accuracy.cells import by_implementation, cell, in_grid
from bench.accuracy.errors import PARTS, is_wrong
from bench.accuracy.points import KS, SPREADS, TAUS
from bench.accuracy.rows import AHEAD
from bench.accuracy.run import Results
from bench.report.markdown import table

FIGURE = "accuracy.png"

_ALT = (
    "Error of the gradient by implementation: left, of the smooth top-k SVM against the spread of the scores over tau; "
    "right, of cross-entropy against the lead of the label"
)


def _listed(numbers: Iterable[float]) -> str:
    return ", ".join(f"{x:g}" for x in numbers)


_HOW = f"""\
Truth is `exact_smooth_svm` of `triton_topk/reference.py`, in 60 digits, of the scores as rounded to their dtype. An
error of the loss is relative, one of the gradient relative to the largest entry of its row. What is below ten times
the smallest normal number of the dtype only has to stay there. **Bold**: wrong, by more than 1e-3, or 8e-3 in
bfloat16; the gradient has the dtype of the scores, and its last rounding alone may make 4e-3 in bfloat16 and 5e-4 in
float16. *Fails*: an exception, NaN or infinity.

The grid: k in {_listed(KS)}; tau in {_listed(TAUS)}; n in k + 1, 100, 1000; spread in {_listed(SPREADS)}; margin 1. A
point has four rows of normally distributed scores with that spread, their standard deviation. The label is anywhere;
in the k-th place; in the corner, where the hard loss becomes 0; or ahead of the corner by {AHEAD} k tau. float32 has
all n at k = 5 or tau = 1, otherwise n = 100; the other dtypes n = 100, and only where k = 5 or tau = 1."""

_WHO = """\
- **smooth_svm** is this package's, with `gradient="exact"` and, where it says taylor, `gradient="taylor"`. The
  kernels run in Triton's interpreter, for k <= 16; with taylor only in float32, k = 5 and 16, n = 100. The
  interpreter seems to cut bfloat16 off and not to round, so that there the error of the gradient is up to twice as
  large.
- **divide and conquer** and **summation** are those of `triton_topk/reference.py`, differentiated by autograd in the
  dtype of the scores, half precision included.
- **authors'** is the [package](https://github.com/oval-group/smooth-topk) of the paper; it has SmoothTop1SVM for
  k = 1.
- **F.cross_entropy** is PyTorch's, and **lq_loss** with q = 0 the same loss in this package."""


def page(results: Results, provenance: str) -> str:
    measured = results.measured
    chapters = {
        "In short": headline(results),
        "How to read this": "\n\n".join([_HOW, _WHO, *_absent(results)]),
        "Against spread over tau": f"![{_ALT}]({FIGURE})\n\n{sections.against_ratio(measured)}",
        "Against k, n and dtype": sections.against_others(measured),
        "Where each breaks": sections.where_each_breaks(measured),
        "Cross-entropy": sections.cross_entropy(measured),
        "Our own worst": sections.ours(measured),
        "The adversarial suite": suite_tables.section(results.smooth, results.lq),
    }
    written = [f"## {title}\n\n{text}" for title, text in chapters.items()]
    return "\n\n".join(["# Accuracy", provenance, *written]) + "\n"


def headline(results: Results) -> str:
    """The errors of each implementation in float32, and how often it is wrong."""
    measured = in_grid(results.measured, lambda p: p.dtype == "float32")
    rows = []
    for name, found in by_implementation(measured).items():
        row = [name, str(len(found))]
        for part in PARTS:
            row += [cell(found, (part,)), str(sum(is_wrong(m, part) for m in found))]
        rows.append([*row, str(sum(m.raised for m in found))])
    headers = ["", "points", "loss", "wrong at", "gradient", "wrong at", "exceptions"]
    return "\n\n".join(
        [
            "The largest errors over the grid in float32, and at how many points they are wrong:",
            table(headers, rows),
            suite_tables.headline(results.smooth, results.lq),
        ]
    )


def _absent(results: Results) -> list[str]:
    return [f"Absent from this run: {name}, {why}." for name, why in results.absent.items()]
