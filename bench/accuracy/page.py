"""The results become reports/accuracy.md and its figure."""

import math
import platform
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.accuracy import points
from bench.accuracy.implementations import IMPLEMENTATIONS
from bench.accuracy.measuring import PARTS, Results, bound
from bench.accuracy.points import DTYPES
from bench.machine import commit, describe
from bench.pages import fill

FIGURE = "accuracy.png"
_NONE = "-"
_MODERATE = 100.0
_LOWEST, _HIGHEST = 1e-9, 3.0  # what is beyond is drawn there
_STYLES = {"kernels": "--", "native": ":"}
_YELLOW = 4  # of Okabe and Ito's colours; it is too light on white


def page(results: Results) -> str:
    measured = judged(results.measured)
    grid = measured[measured["point"].isin(set(points.GRID))]
    float32 = grid[grid["dtype"] == "float32"]
    ratios = float32[(float32["k"] == 5) & (float32["n"] > 6)]
    moderate = grid[grid["ratio"] <= _MODERATE]
    moderate32 = moderate[moderate["dtype"] == "float32"]
    ahead = measured[measured["point"].isin(set(points.CROSS_ENTROPY))]
    return fill(
        "accuracy.md",
        seed=results.seed,
        commit=commit(),
        machine=describe(torch.device("cpu"), platform.machine()),
        headline=_headline(float32),
        adversarial=_table(_worst(results.adversarial, ["backend", "what"]).map(_error).unstack()),
        points=points,
        absent=results.absent,
        figure=FIGURE,
        ratios={x: _by(ratios[ratios["part"] == x], "ratio") for x in PARTS},
        moderate=f"{_MODERATE:g}",
        by_k=_by(moderate32[moderate32["n"] == 100], "k"),
        by_n=_by(moderate32[moderate32["k"] == 5], "n"),
        by_dtype=_by(
            moderate[(moderate["n"] == 100) & moderate.eval("k == 5 or tau == 1")], "dtype"
        ),
        breaks=_where_each_breaks(measured),
        leads=_by(ahead[ahead["dtype"] == "float32"].assign(part="either"), "lead"),
        first_leads=_by(ahead, "dtype", _first_lead),
    )


def judged(measured: pd.DataFrame) -> pd.DataFrame:
    """Add what is wrong, and put the rows in the orders of implementations, dtypes and parts."""
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
    """Write the largest error of each part, bold where one of them is wrong."""
    text = " / ".join(map(_error, _worst(found, ["part"])))
    return f"**{text}**" if found["wrong"].any() else text


def _first_lead(found: pd.DataFrame) -> str:
    return f"**{found['lead'][found['wrong']].min():g}**" if found["wrong"].any() else _NONE


def _by(found: pd.DataFrame, column: str, write: Callable[[Any], str] = _cell) -> str:
    """Make a table with a row for each implementation, a column for each value."""
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
    """Return the first value of each walk at which a part is wrong, "start" if it already is at BASE."""
    steps = [
        {"walk": walk, "point": point, "at": value}
        for walk, values in points.WALKS.items()
        for value, point in {"start": points.BASE, **values}.items()
    ]
    walked = pd.DataFrame(steps).merge(measured[measured["wrong"]], on="point")
    return walked.groupby(["implementation", "walk", "part"], observed=True).first().reset_index()


def _where_each_breaks(measured: pd.DataFrame) -> str:
    found = first_breaks(measured)
    at_base = measured[measured["point"] == points.BASE]["implementation"].unique()
    cells = found.groupby(["walk", "implementation"], observed=True)[["part", "at"]]
    table = cells.apply(_first_values).unstack()
    table = table.reindex(index=list(points.WALKS), columns=list(at_base))
    ends = {walk: f"{walk} ({list(values)[-1]})" for walk, values in points.WALKS.items()}
    return _table(table.rename(index=ends))


def _first_values(found: pd.DataFrame) -> str:
    if len(found) == len(PARTS) and found["at"].nunique() == 1:
        return f"**{found['at'].iloc[0]}**"
    return "; ".join(f"**{x.at}** ({x.part})" for x in found.itertuples())


def draw(measured: pd.DataFrame) -> Figure:
    """Draw where the gradient of each implementation goes wrong."""
    measured = judged(measured)
    found = measured[(measured["dtype"] == "float32") & (measured["part"] == "gradient")]
    smooth = found[found["point"].isin(set(points.GRID)) & (found["k"] == 5) & (found["n"] > 6)]
    figure = Figure(figsize=(10, 5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _panel(left, smooth, "ratio")
    left.set(title="smooth top-k SVM, k = 5", xlabel="spread of the scores over tau", xscale="log")
    _panel(
        right, found[found["point"].isin(set(points.CROSS_ENTROPY)) & (found["lead"] >= 0)], "lead"
    )
    right.set(title="cross-entropy", xlabel="lead of the label over the other scores")
    left.set(ylabel="error of the gradient over its largest entry", yscale="log")
    return figure


def _kind(name: str) -> str:
    """An implementation has one colour with every backend, and so have all of the authors'."""
    return name.partition(",")[0].partition(" Smooth")[0]


def _panel(ax: Axes, found: pd.DataFrame, x: str) -> None:
    """Draw the largest error of each at each x, a line each, of our kernels dashed, of our native backend dotted."""
    kinds = list(dict.fromkeys(map(_kind, IMPLEMENTATIONS)))
    colours = [x for i, x in enumerate(mpl.colormaps["okabe_ito"].colors) if i != _YELLOW]
    worst = _worst(found, ["implementation", x]).clip(_LOWEST, _HIGHEST)
    for name, line in worst.groupby("implementation", observed=True):
        colour, style = colours[kinds.index(_kind(name))], _STYLES.get(name.partition(", ")[2], "-")
        ax.plot(line.droplevel(0), style, color=colour, marker="o", markersize=3, label=name)
    ax.axhline(bound("float32"), color="#888888", linewidth=0.8, linestyle=":")
    at = (1.0, bound("float32"))
    ax.annotate("wrong", at, xycoords=("axes fraction", "data"), ha="right", va="bottom")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, frameon=False)
