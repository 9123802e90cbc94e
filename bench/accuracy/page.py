"""reports/accuracy.md and its figure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.accuracy.implementations import IMPLEMENTATIONS
from bench.accuracy.measuring import PARTS, Results, bound
from bench.accuracy.points import BASE, CROSS_ENTROPY, DTYPES, GRID, KS, SPREADS, TAUS, WALKS
from bench.accuracy.rows import AHEAD

FIGURE = "accuracy.png"
_NONE = "-"
_MODERATE = 100.0
_LOWEST, _HIGHEST = 1e-9, 3.0  # what is beyond is drawn there
_YELLOW = 4  # of Okabe and Ito's colours; it is too light on white

_HOW = f"""\
Truth is `exact_smooth_svm` of `triton_topk/reference.py`, in 60 digits, of the scores as rounded to their dtype. An
error of the loss is relative, one of the gradient relative to the largest entry of its row. What is below ten times
the smallest normal number of the dtype only has to stay there. **Bold**: wrong, by more than 1e-3, or 8e-3 in
bfloat16; the gradient has the dtype of the scores, and its last rounding alone may make 4e-3 in bfloat16 and 5e-4 in
float16. *Fails*: an exception, NaN or infinity.

The grid: k in {KS}; tau in {TAUS}; n in k + 1, 100, 1000; spread in {SPREADS}; margin 1. A
point has four rows of normally distributed scores with that spread, their standard deviation. The label is anywhere;
in the k-th place; in the corner, where the hard loss becomes 0; or ahead of the corner by {AHEAD} k tau. float32 has
all n at k = 5 or tau = 1, otherwise n = 100; the other dtypes n = 100, and only where k = 5 or tau = 1.

- **smooth_svm** is this package's, with `gradient="exact"` and, where it says taylor, `gradient="taylor"`. The
  kernels run in Triton's interpreter, for k <= 16; with taylor only in float32, k = 5 and 16, n = 100. The
  interpreter seems to cut bfloat16 off and not to round, so that there the error of the gradient is up to twice as
  large.
- **divide and conquer** and **summation** are those of `triton_topk/reference.py`, differentiated by autograd in the
  dtype of the scores, half precision included.
- **authors'** is the [package](https://github.com/oval-group/smooth-topk) of the paper; it has SmoothTop1SVM for
  k = 1.
- **F.cross_entropy** is PyTorch's, and **lq_loss** with q = 0 the same loss in this package."""

_ADVERSARIAL = """\
The largest errors in float32 over the rows of tests/adversarial.py (tau from 1e-4 to 1e4, spreads up to 1e4, ties, near
ties, dominant and masked scores) and of tests/adversarial_lq.py (the label up to 1000 above and below the other
classes), of which docs/contract.md has what is promised. Where the loss is exponentially small the rounding of its
exponent is allowed for. A single entry is one above 1e-30; triton stands for the kernels. `gradient="taylor"` has the
default order."""

_RATIO = f"""\
![Error of the gradient by implementation: left, of the smooth top-k SVM against the spread of the scores over tau; \
right, of cross-entropy against the lead of the label]({FIGURE})

k = 5, n = 100 and 1000, float32. The references subtract two logarithms, each about as large as the largest score over
tau. The authors' code has the loss itself as such a difference, which costs a small loss its digits; and where the k-th
largest score is k tau log 1000 above the next, it computes the hard loss instead."""

_OTHERS = f"""\
Loss / gradient, where spread over tau is at most {_MODERATE:g}. By k: n = 100, float32. By n: k = 5, float32. By
dtype: n = 100, and k = 5 or tau = 1."""

_BREAKS = f"""\
Each row walks in one direction from k = 5, tau = 1, n = 1000, spread 1, margin 1, float32, to the end in brackets. The
cells have the first values at which the loss and the gradient are wrong; {_NONE}: up to the end they are not. Unit:
tau, margin and spread are all this, within the limits of tau. Gap: the k largest scores, with the label's, are this far
above the others."""

_CROSS_ENTROPY = """\
`smooth_svm` with k = 1, tau = 1 and margin 0 is cross-entropy too. The scores are normally distributed, but the label's
is ahead of the largest other by the lead, or behind where that is negative. The larger of the errors of loss and
gradient, n = 1000, float32:"""

_WHY_CROSS_ENTROPY = """\
Where the label is ahead, the loss and the gradient are about the probability of the others, which F.cross_entropy has
as a difference from numbers that are not small, and which the authors' code has not: its hard loss is 0."""


def page(results: Results, provenance: str) -> str:
    measured = judged(results.measured)
    grid = measured[measured["point"].isin(set(GRID))]
    float32 = grid[grid["dtype"] == "float32"]
    ratios = float32[(float32["k"] == 5) & (float32["n"] > 6)]
    moderate = grid[grid["ratio"] <= _MODERATE]
    moderate32 = moderate[moderate["dtype"] == "float32"]
    ahead = measured[measured["point"].isin(set(CROSS_ENTROPY))]
    chapters = {
        "In short": [
            "The largest errors over the grid in float32, and at how many points they are wrong:",
            _headline(float32),
            _ADVERSARIAL,
            _table(_worst(results.adversarial, ["backend", "what"]).map(_error).unstack()),
        ],
        "How to read this": [
            _HOW,
            *(f"Absent from this run: {x}, without {y}." for x, y in results.absent.items()),
        ],
        "Against spread over tau": [
            _RATIO,
            *(f"Error of the {x}:\n\n{_by(ratios[ratios['part'] == x], 'ratio')}" for x in PARTS),
        ],
        "Against k, n and dtype": [
            _OTHERS,
            _by(moderate32[moderate32["n"] == 100], "k"),
            _by(moderate32[moderate32["k"] == 5], "n"),
            _by(moderate[(moderate["n"] == 100) & moderate.eval("k == 5 or tau == 1")], "dtype"),
        ],
        "Where each breaks": [_BREAKS, *_where_each_breaks(measured)],
        "Cross-entropy": [
            _CROSS_ENTROPY,
            _by(ahead[ahead["dtype"] == "float32"].assign(part="either"), "lead"),
            _WHY_CROSS_ENTROPY,
            "The first lead at which one of them is wrong:",
            _by(ahead, "dtype", _first_lead),
        ],
    }
    written = ["\n\n".join([f"## {title}", *parts]) for title, parts in chapters.items()]
    return "\n\n".join(["# Accuracy", provenance, *written]) + "\n"


def judged(measured: pd.DataFrame) -> pd.DataFrame:
    """With what is wrong, and in the orders of implementations, dtypes and parts."""
    orders = {"implementation": IMPLEMENTATIONS, "dtype": DTYPES, "part": PARTS}
    return measured.assign(
        wrong=measured["error"] > measured["dtype"].map({x: bound(x) for x in DTYPES}),
        ratio=(measured["spread"] / measured["tau"]).map(lambda x: float(f"{x:.3g}")),
        **{x: pd.Categorical(measured[x], list(order)) for x, order in orders.items()},
    )


def _error(x: float) -> str:
    return f"{x:.0e}" if math.isfinite(x) else "fails"


def _worst(found: pd.DataFrame, by: list[str]) -> pd.Series:
    return found.groupby(by, observed=True, sort=by[0] != "backend")["error"].max()


def _cell(found: pd.DataFrame) -> str:
    """The largest error of each part, bold where one of them is wrong."""
    text = " / ".join(map(_error, _worst(found, ["part"])))
    return f"**{text}**" if found["wrong"].any() else text


def _first_lead(found: pd.DataFrame) -> str:
    return f"**{found['lead'][found['wrong']].min():g}**" if found["wrong"].any() else _NONE


def _by(found: pd.DataFrame, column: str, write: Callable[[Any], str] = _cell) -> str:
    """A row for each implementation, a column for each value."""
    groups = found.groupby(["implementation", column], observed=True)
    cells = groups[["part", "error", "wrong", "lead"]].apply(write).unstack()
    return _table(cells.rename_axis(index=f"by {column}"))


def _table(frame: pd.DataFrame) -> str:
    frame = frame.rename(columns=lambda x: f"{x:g}" if isinstance(x, float) else x)
    return frame.astype(object).fillna(_NONE).to_markdown(disable_numparse=True)


def _headline(float32: pd.DataFrame) -> str:
    columns = {"points": ("point", "nunique"), "largest error": ("error", "max")}
    columns |= {"wrong at": ("wrong", "sum"), "exceptions": ("raised", "sum")}
    found = float32.groupby(["implementation", "part"], observed=True).agg(**columns)
    found["largest error"] = found["largest error"].map(_error)
    return _table(found.reset_index("part"))


def first_breaks(measured: pd.DataFrame) -> pd.DataFrame:
    """The first value of each walk at which a part is wrong, "start" if it already is at BASE."""
    steps = [
        {"walk": f"{walk} ({list(points)[-1]})", "point": point, "at": value}
        for walk, points in WALKS.items()
        for value, point in {"start": BASE, **points}.items()
    ]
    walked = pd.DataFrame(steps).merge(measured[measured["wrong"]], on="point")
    return walked.groupby(["implementation", "walk", "part"], observed=True).first().reset_index()


def _where_each_breaks(measured: pd.DataFrame) -> list[str]:
    at_base = measured[measured["point"] == BASE]["implementation"].unique()
    found = first_breaks(measured)
    found = found[found["implementation"].isin(at_base)]
    cells = found.groupby(["walk", "implementation"], observed=True)[["part", "at"]]
    walks = [f"{walk} ({list(points)[-1]})" for walk, points in WALKS.items()]
    told = found.assign(error=found["error"].map(_error)).set_index("implementation")
    told = told[["walk", "at", "part", "error", "got", "truth", "where"]]
    return [
        _table(cells.apply(_first_values).unstack().reindex(index=walks, columns=list(at_base))),
        *(
            f"<details><summary>What happens there: {name}</summary>\n\n"
            f"{told.loc[[name]].to_markdown(index=False, floatfmt='.7g', disable_numparse=[1, 3])}\n\n</details>"
            for name in told.index.unique()
        ),
    ]


def _first_values(found: pd.DataFrame) -> str:
    if len(found) == len(PARTS) and found["at"].nunique() == 1:
        return f"**{found['at'].iloc[0]}**"
    return "; ".join(f"**{x.at}** ({x.part})" for x in found.itertuples())


def draw(measured: pd.DataFrame) -> Figure:
    """Where the gradient of each implementation goes wrong."""
    measured = judged(measured)
    found = measured[(measured["dtype"] == "float32") & (measured["part"] == "gradient")]
    smooth = found[found["point"].isin(set(GRID)) & (found["k"] == 5) & (found["n"] > 6)]
    figure = Figure(figsize=(10, 5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _panel(left, smooth, "ratio")
    left.set(title="smooth top-k SVM, k = 5", xlabel="spread of the scores over tau", xscale="log")
    _panel(right, found[found["point"].isin(set(CROSS_ENTROPY)) & (found["lead"] >= 0)], "lead")
    right.set(title="cross-entropy", xlabel="lead of the label over the other scores")
    left.set(ylabel="error of the gradient over its largest entry", yscale="log")
    return figure


def _kind(name: str) -> str:
    """What has a colour: an implementation with either backend, or all of the authors'."""
    return name.partition(",")[0].partition(" Smooth")[0]


def _panel(ax: Axes, found: pd.DataFrame, x: str) -> None:
    """The largest error of each at each x, a line each, of our kernels dashed."""
    kinds = list(dict.fromkeys(map(_kind, IMPLEMENTATIONS)))
    colours = [x for i, x in enumerate(mpl.colormaps["okabe_ito"].colors) if i != _YELLOW]
    worst = _worst(found, ["implementation", x]).clip(_LOWEST, _HIGHEST)
    for name, line in worst.groupby("implementation", observed=True):
        colour, style = colours[kinds.index(_kind(name))], "--" if "kernels" in name else "-"
        ax.plot(line.droplevel(0), style, color=colour, marker="o", markersize=3, label=name)
    ax.axhline(bound("float32"), color="#888888", linewidth=0.8, linestyle=":")
    at = (1.0, bound("float32"))
    ax.annotate("wrong", at, xycoords=("axes fraction", "data"), ha="right", va="bottom")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, frameon=False)
