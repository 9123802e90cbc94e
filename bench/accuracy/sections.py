"""The sections of the report on the grid, the walks and cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bench.accuracy.breaks import Break, Walks
from bench.accuracy.cells import NONE, by_implementation, cell, error, errors_table, in_grid, worst
from bench.accuracy.errors import PARTS, Measured, Worst, is_wrong
from bench.accuracy.implementations import OURS
from bench.accuracy.points import CROSS_ENTROPY, DTYPES, KS, LEADS, SPREADS, TAUS, WALKS
from bench.report.markdown import folded, table

_MODERATE = 100.0

_RATIO = """\
k = 5, n = 100 and 1000, float32. The references subtract two logarithms, each about as large as the largest score over
tau. The authors' code has the loss itself as such a difference, which costs a small loss its digits; and where the k-th
largest score is k tau log 1000 above the next, it computes the hard loss instead."""

_OTHERS = f"""\
Loss / gradient, where spread over tau is at most {_MODERATE:g}. By k: n = 100, float32. By n: k = 5, float32. By
dtype: n = 100, and k = 5 or tau = 1."""

_BREAKS = f"""\
Each row walks in one direction from k = 5, tau = 1, n = 1000, spread 1, margin 1, float32, to the end in brackets. The
cells have the first values at which the loss and the gradient are wrong; {NONE}: up to the end they are not. Unit: tau,
margin and spread are all this. Gap: the k largest scores, the label's among them, are this far above the others."""

_CROSS_ENTROPY = """\
`smooth_svm` with k = 1, tau = 1 and margin 0 is cross-entropy too. The scores are normally distributed, but the label's
is ahead of the largest other by the lead, or behind where that is negative. The larger of the errors of loss and
gradient, n = 1000, float32:"""

_WHY_CROSS_ENTROPY = """\
A leading label has a loss and a gradient of about the probability of the others, which F.cross_entropy has as a
difference from numbers that are not small, and which the authors' code has not: its hard loss is 0."""

_FIRST_LEADS = f"The first lead at which one of them is wrong ({NONE}: none; n = 1000 unless said):"

_OURS = """\
Over the grid in float32. Where the loss is exponentially small, the rounding of z, up to |z| 2^-24, is a relative
error of the loss and of the gradient. The gradient of taylor is an approximation, worst where its series and its
recursion meet. For float32 arithmetic tau has to be within 1e-37 and 1e37; what happens beyond is under tau and unit
above. There are no kernels for k > 16."""


def against_ratio(measured: Sequence[Measured]) -> str:
    kept = in_grid(measured, lambda p: p.k == 5 and p.n in (100, 1000) and p.dtype == "float32")
    ratios = sorted({_ratio(s / t) for s in SPREADS for t in TAUS})
    columns = {f"{r:g}": lambda p, r=r: _ratio(p.spread / p.tau) == r for r in ratios}
    parts = [
        f"Error of the {part}:\n\n{errors_table(kept, columns, partial(cell, parts=(part,)))}"
        for part in ("gradient", "loss")
    ]
    return "\n\n".join([_RATIO, *parts])


def _ratio(x: float) -> float:
    return float(f"{x:.3g}")


def against_others(measured: Sequence[Measured]) -> str:
    moderate = in_grid(measured, lambda p: p.spread / p.tau <= _MODERATE)
    float32 = [m for m in moderate if m.point.dtype == "float32"]
    by_k = errors_table(
        [m for m in float32 if m.point.n == 100],
        {f"k = {k}": lambda p, k=k: p.k == k for k in KS},
        cell,
    )
    by_n = errors_table(
        [m for m in float32 if m.point.k == 5],
        {f"n = {n}": lambda p, n=n: p.n == n for n in (6, 100, 1000)},
        cell,
    )
    by_dtype = errors_table(
        [m for m in moderate if m.point.n == 100 and (m.point.k == 5 or m.point.tau == 1)],
        {d: lambda p, d=d: p.dtype == d for d in DTYPES},
        cell,
    )
    return "\n\n".join([_OTHERS, by_k, by_n, by_dtype])


def where_each_breaks(measured: Sequence[Measured]) -> str:
    walks = Walks(measured)
    names = [name for name in by_implementation(measured) if walks.walked(name)]
    rows = [
        [f"{walk.name} ({walk.values[-1]})", *(_breaks(walks.breaks(name, walk)) for name in names)]
        for walk in WALKS
    ]
    examples = []
    for name in names:
        found = [b for walk in WALKS for b in walks.breaks(name, walk)]
        if found:
            examples.append(folded(f"What happens there: {name}", _examples(found)))
    return "\n\n".join([_BREAKS, table(["", *names], rows, text_columns=1 + len(names)), *examples])


def _breaks(found: Sequence[Break]) -> str:
    values = {b.part: b.value for b in found}
    if len(set(values.values())) == 1 and len(values) == len(PARTS):
        return f"**{found[0].value}**"
    return "; ".join(f"**{value}** ({part})" for part, value in values.items()) or NONE


def _examples(found: Sequence[Break]) -> str:
    rows = [[b.walk.name, b.value, b.part, *_told(b.worst)] for b in found]
    return table(["walk", "at", "wrong", "error", "got", "truth", "where"], rows, text_columns=7)


def _told(worst: Worst) -> list[str]:
    return [error(worst.error), f"{worst.got:.7g}", f"{worst.truth:.7g}", worst.of]


def cross_entropy(measured: Sequence[Measured]) -> str:
    points = frozenset(CROSS_ENTROPY)
    found = [m for m in measured if m.point in points]
    float32 = [m for m in found if m.point.n == 1000 and m.point.dtype == "float32"]
    by_lead = errors_table(float32, {f"{x:g}": lambda p, x=x: p.lead == x for x in LEADS}, _larger)
    columns = {
        **{d: lambda p, d=d: p.dtype == d and p.n == 1000 for d in DTYPES},
        **{f"float32, n = {n}": lambda p, n=n: p.dtype == "float32" and p.n == n for n in (2, 100)},
    }
    first = errors_table(found, columns, _first_lead)
    return "\n\n".join([_CROSS_ENTROPY, by_lead, _WHY_CROSS_ENTROPY, _FIRST_LEADS, first])


def _larger(measured: Sequence[Measured]) -> str:
    part = max(PARTS, key=lambda part: max(m.worst(part).error for m in measured))
    return cell(measured, (part,))


def _first_lead(measured: Sequence[Measured]) -> str:
    wrong = [m.point.lead for m in measured if any(is_wrong(m, part) for part in PARTS)]
    return f"**{min(wrong):g}**" if wrong else NONE


def ours(measured: Sequence[Measured]) -> str:
    float32 = by_implementation(in_grid(measured, lambda p: p.dtype == "float32"))
    rows = []
    for name in (name for name in OURS if name in float32):
        for part in PARTS:
            point, of = worst(float32[name], part)
            rows.append([name, part, str(point), *_told(of)])
    headers = ["", "of the", "at", "error", "got", "truth", "where"]
    return "\n\n".join([_OURS, table(headers, rows, text_columns=7)])
