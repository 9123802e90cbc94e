"""The adversarial suite in the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.accuracy import suite
from bench.accuracy.cells import NONE, error
from bench.accuracy.suite import LqRow, SmoothRow
from bench.report.markdown import folded, table

_WHERE = {"eager": "eager", "triton": "kernels"}

_SMOOTH = f"""\
`smooth_svm`, float32; the worst over the rows of tests/adversarial.py: tau from 1e-4 to 1e4, spreads up to 1e4, ties,
near ties, dominant and masked scores. Loss: relative, promised {suite.LOSS_BOUND:.0e}. Gradient: relative to the row's
largest entry. Entry: relative, single entries above 1e-30, promised 1e-4 for n >= 4 k. Where the loss is exponentially
small the rounding of z, |z| 2^-23, is allowed for. Taylor: the error of the gradient with `gradient="taylor"` and the
default order."""

_LQ = """\
`lq_loss`, float32; the worst over the rows of tests/adversarial_lq.py: the label up to 1000 above and below the other
classes, ties, offsets, masked scores. In the same terms; promised 1e-6, 1e-6 and 1e-5. In the gradient the rounding of
q log p_y, |q log p_y| 2^-23, is allowed for."""


def section(smooth: Sequence[SmoothRow], lq: Sequence[LqRow]) -> str:
    parts = [_SMOOTH]
    parts += [f"{_WHERE[b]}:\n\n{_smooth_table(smooth, b)}" for b in _backends(smooth)]
    parts += [_LQ]
    parts += [folded(_WHERE[b], _lq_table(lq, b)) for b in _backends(lq)]
    return "\n\n".join(parts)


def headline(smooth: Sequence[SmoothRow], lq: Sequence[LqRow]) -> str:
    rows = []
    for backend in _backends(smooth):
        here = [r for r in smooth if r.backend == backend]
        of_lq = [r for r in lq if r.backend == backend]
        rows.append(
            [
                _WHERE[backend],
                _worst(r.loss for r in here),
                _worst(r.gradient for r in here if r.k <= 20),
                _worst(r.gradient for r in here if r.k == 50),
                _worst(r.taylor for r in here if r.k == 5),
                _worst(r.taylor for r in here if r.k == 16),
                _worst(r.loss for r in of_lq),
                _worst(r.gradient for r in of_lq),
                _worst(r.entry for r in of_lq),
            ]
        )
    headers = [
        "",
        "loss",
        "gradient, k <= 20",
        "gradient, k = 50",
        "taylor, k = 5",
        "taylor, k = 16",
        "lq_loss: loss",
        "gradient",
        "single entries",
    ]
    return f"The same over the adversarial rows of the tests, `smooth_svm` and `lq_loss`:\n\n{table(headers, rows)}"


def _backends(rows: Sequence[SmoothRow] | Sequence[LqRow]) -> list[str]:
    return list(dict.fromkeys(row.backend for row in rows))


def _worst(errors: Iterable[float]) -> str:
    largest = max(errors, default=None)
    return NONE if largest is None else error(largest)


def _smooth_table(smooth: Sequence[SmoothRow], backend: str) -> str:
    headers = ["k", "n", "loss", "gradient", "promised", "its worst row", "entry", "Taylor"]
    rows = [
        [
            str(r.k),
            str(r.n),
            f"{r.loss:.1e}",
            f"{r.gradient:.1e}",
            f"{r.promised:.0e}",
            r.case,
            f"{r.entry:.1e}",
            f"{r.taylor:.0e}",
        ]
        for r in smooth
        if r.backend == backend
    ]
    return table(headers, rows)


def _lq_table(lq: Sequence[LqRow], backend: str) -> str:
    rows = [
        [f"{r.q:g}", str(r.n), f"{r.loss:.1e}", f"{r.gradient:.1e}", f"{r.entry:.1e}"]
        for r in lq
        if r.backend == backend
    ]
    return table(["q", "n", "loss", "gradient", "entry"], rows)
