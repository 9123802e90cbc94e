"""Tables have a row for an implementation, and a column for a value of what varies."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import linregress

from bench.cells import K
from bench.implementations import IMPLEMENTATIONS
from bench.pages import compact, folded, number, percent
from bench.report.runs import Run

BASES = ("smooth_svm", "lq_loss")  # of ours, which the others are compared with
FEWEST = 3  # points of an axis and of a fit: any two are on a line
FIRST_K = 2  # of a fit: k = 1 is cross-entropy, without a polynomial
_KIND = ["dtype", "work"]
_OURS = [each.name for each in IMPLEMENTATIONS.values() if each.ours]
_HAS_K = [each.name for each in IMPLEMENTATIONS.values() if each.has_k]
Write = Callable[[Any], str]
"""It returns what a table has of a row of a run."""


def _marked(write: Write) -> Write:
    return lambda row: write(row) if row.steady else f"{write(row)} ?"


milliseconds = _marked(lambda row: number(1e3 * row.seconds))
share = _marked(lambda row: percent(row.share))
ratio = _marked(lambda row: number(row.ratio))


class Axis(NamedTuple):
    variable: str  # "n", "k" or "batch"
    fixed: str  # the other numbers
    rows: pd.DataFrame  # of an implementation at some dtype and work more than one

    def __str__(self) -> str:
        return f"{self.variable} at {self.fixed}"


def axes(measured: pd.DataFrame) -> list[Axis]:
    """Along n the number of scores is the same, and the batch is that number over n, rounded."""
    at_k = measured[measured.k == K]
    scores = (at_k.n * at_k.batch).mode().max()
    found = [Axis("n", f"k = {K}, {scores:,.0f} scores", at_k[at_k.batch == scores // at_k.n])]
    for (n, batch), rows in measured.groupby(["n", "batch"]):
        found.append(Axis("k", f"n = {n:,}, batch {batch:,}", rows))
    for n, rows in at_k.groupby("n"):
        found.append(Axis("batch", f"n = {n:,}, k = {K}", rows))
    found = [axis._replace(rows=_series(axis.rows)) for axis in found]
    return [axis for axis in found if axis.rows[axis.variable].nunique() >= FEWEST]


def _series(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows.groupby(["implementation", *_KIND], observed=True).n.transform("size") > 1]


def ratios(measured: pd.DataFrame) -> pd.DataFrame:
    """Each other implementation stands beside ours at the same task; ours without k only beside others without."""
    bases = measured[measured.implementation.isin(BASES)]
    others = measured[~measured.implementation.isin(_OURS)]
    task = ["n", "k", "batch", *_KIND]
    others = others[["implementation", *task, "seconds", "steady"]]
    pairs = bases.merge(others.rename(columns={"implementation": "other"}), on=task)
    pairs["ratio"] = pairs.seconds_y / pairs.seconds_x  # under 1, the other is faster
    pairs["steady"] = pairs.steady_x & pairs.steady_y
    comparable = pairs.implementation.isin(_HAS_K) | ~pairs.other.isin(_HAS_K)
    return pairs[comparable].sort_values(["implementation", "other"])


def along(axis: Axis, headers: list[str], rows: pd.DataFrame, write: Write) -> str:
    """The rows of an axis are written by implementation, or by two where they are pairs."""
    names = ["implementation", "other"][: len(headers)]
    texts = rows.assign(text=[write(row) for row in rows.itertuples()])
    texts = texts[texts.text != ""]
    grid = texts.pivot(index=[*_KIND, *names], columns=axis.variable, values="text")
    return _by_kind(f"Along {axis}", headers, grid)


def _by_kind(title: str, headers: list[str], grid: pd.DataFrame) -> str:
    """The first dtype and work have a table, the others one that is folded away."""
    if grid.empty:
        return ""
    grid = grid.fillna("").reorder_levels([*grid.index.names[2:], *_KIND])
    grid = grid.reset_index(names=[*headers, *_KIND])
    first = (grid[_KIND] == grid[_KIND].iloc[0]).all(axis=1)
    body = compact(grid[first].drop(columns=_KIND), len(headers))
    parts = [f"{title}, {', '.join(grid[_KIND].iloc[0])}:\n\n{body}"]
    if not first.all():
        body = compact(grid[~first], len(headers) + 2)
        parts.append(folded(body, f"{title}, the other dtypes and work"))
    return "\n\n".join(parts)


def values(axes: list[Axis], variable: str, unit: str, write: Write) -> str:
    chosen = [axis for axis in axes if axis.variable == variable]
    return "\n\n".join(filter(None, (along(axis, [unit], axis.rows, write) for axis in chosen)))


def compared(axes: list[Axis]) -> str:
    found = (along(axis, ["ours", "other"], ratios(axis.rows), ratio) for axis in axes)
    return "\n\n".join(filter(None, found))


def faster(measured: pd.DataFrame) -> str:
    """The table says where another implementation is faster than ours."""
    pairs, lines = ratios(measured), []
    for names, same in pairs.groupby(["implementation", "other"], observed=True):
        lowest = same.loc[same.ratio.idxmin()]
        k = f"k = {lowest.k}, " if names[0] in _HAS_K else ""
        at = f"n = {lowest.n:,}, {k}batch {lowest.batch:,}, {', '.join(lowest[_KIND])}"
        lines.append([*names, f"{(same.ratio < 1).sum()} of {len(same)}", ratio(lowest), at])
    count = f"{(pairs.ratio < 1).sum()} of {len(pairs)}"
    headers = ["ours", "other", "other faster in", "lowest ratio", "at"]
    body = compact(pd.DataFrame(lines, columns=headers), len(headers))
    return (
        f"The other is faster in {count} comparisons at one shape, dtype and work. A ratio is the time "
        f"of the other over that of ours.\n\n{body}"
    )


def headline(run: Run, names: Collection[str] = tuple(IMPLEMENTATIONS)) -> str:
    """Along n, for the main dtype and work, ratios of these others to ours stand under each of ours."""
    axis = next((axis for axis in axes(run.measured) if axis.variable == "n"), None)
    if axis is None:
        return ""
    kind, rows = next(iter(axis.rows.groupby(_KIND, observed=True)))
    rows = rows[rows.implementation.isin(names)]
    lines, pairs = [], ratios(rows)
    for base in (base for base in BASES if base in set(rows.implementation)):
        found, beside = rows[rows.implementation == base], pairs[pairs.implementation == base]
        lines.append({"n": f"**{base}, ms**", **_along_n(found, milliseconds)})
        if run.has_bandwidth:
            lines.append({"n": "share of copy bandwidth", **_along_n(found, share)})
        for name, same in beside.groupby("other", observed=True):
            lines.append({"n": f"{name} / {base}", **_along_n(same, ratio)})
    body = compact(pd.DataFrame(lines, columns=["n", *sorted(rows.n.unique().tolist())]).fillna(""))
    return (
        f"Times are of {', '.join(kind)}, {axis.fixed}.\n"
        f"A row with two names is the ratio of their times: under 1, the first is faster.\n\n{body}"
    )


def _along_n(rows: pd.DataFrame, write: Write) -> dict[int, str]:
    return {row.n: write(row) for row in rows.itertuples()}


def exponents(axes: list[Axis]) -> str:
    """An exponent is a slope of logarithms: of time per row against n, or of time against k, of what is steady."""
    fits = []
    for axis in (axis for axis in axes if axis.variable != "batch"):
        rows = axis.rows[axis.rows.steady].sort_values(axis.variable)
        if axis.variable == "k":
            rows = rows[(rows.k >= FIRST_K) & rows.implementation.isin(_HAS_K)]
        seconds = rows.seconds / (rows.batch if axis.variable == "n" else 1)
        points = rows.assign(x=np.log(rows[axis.variable]), y=np.log(seconds))
        series = points.groupby([*_KIND, "implementation"], observed=True)
        if len(points):
            fits.append(series.apply(_slope).rename(str(axis)))
            upper = series.apply(lambda found: _slope(found[len(found) // 2 :]))
            fits.append(upper.rename("upper half"))
    grid = pd.concat(fits, axis=1) if fits else pd.DataFrame()
    return _by_kind("Exponents", [""], grid[(grid.fillna("") != "").any(axis=1)])


def _slope(points: pd.DataFrame) -> str:
    if len(points) < FEWEST:
        return ""
    line = linregress(points.x, points.y)
    return f"{line.slope:.2f} ± {line.stderr:.2f} ({len(points)})"


def left_out(rows: pd.DataFrame) -> str:
    grouped = rows.groupby(["implementation", "why"], observed=True, sort=False)
    ranges = {x: (x, _range) for x in ("n", "k", "batch")}
    dtypes = ("dtype", lambda found: ", ".join(found.unique()))
    lines = grouped.agg(cells=("n", "size"), **ranges, dtypes=dtypes).reset_index()
    return "" if lines.empty else compact(lines, len(lines.columns))


def _range(numbers: pd.Series) -> str:
    return " to ".join(f"{x:,}" for x in dict.fromkeys((numbers.min(), numbers.max())))
