"""What the report of accuracy is made of: its rows, its errors, its breaks, its page."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.accuracy import __main__ as command
from bench.accuracy import errors, implementations
from bench.accuracy.breaks import Walks
from bench.accuracy.errors import Measured, Worst, bound, is_wrong, measure, of_gradient, of_loss
from bench.accuracy.figure import draw
from bench.accuracy.implementations import AUTHORS, EAGER, IMPLEMENTATIONS, KERNELS, Implementation
from bench.accuracy.points import BASE, CROSS_ENTROPY, GRID, WALKS, Point, all_points
from bench.accuracy.report import page
from bench.accuracy.rows import Row, rows, truth
from bench.accuracy.run import Results
from bench.accuracy.suite import LqRow, SmoothRow

SMALL = replace(BASE, n=30)
FLOOR = 1e-37


def test_points() -> None:
    points = all_points()
    assert len(set(points)) == len(points)
    assert all(p.k < p.n for p in points)
    assert all(p.margin == 1 and p.gap is None and p.lead is None for p in GRID)
    assert all(p.is_cross_entropy for p in CROSS_ENTROPY)
    assert BASE in points


def test_rows_are_reproducible_and_the_same_for_every_dtype() -> None:
    first, again, other = rows(SMALL, 0), rows(SMALL, 0), rows(SMALL, 1)
    wide = rows(replace(SMALL, dtype="float64"), 0)
    for a, b, c, w in zip(first, again, other, wide, strict=True):
        assert a.label == b.label
        assert a.scores.equal(b.scores)
        assert not a.scores.equal(c.scores)
        assert a.scores.equal(w.scores.float())


def test_where_the_label_is() -> None:
    point = Point(k=3, tau=0.5, n=20, spread=2.0, dtype="float64", margin=0.25)
    places = {row.place: _above_pivot(row, 3) for row in rows(point, 0)}
    assert places["in the corner"] == pytest.approx(3 * 0.25)
    assert places["ahead"] == pytest.approx(3 * 0.25 + 10 * 3 * 0.5)
    (kth,) = (row for row in rows(point, 0) if row.place == "k-th")
    assert (kth.scores > kth.scores[kth.label]).sum() == 2


def test_a_gap_is_between_the_k_largest_and_the_others() -> None:
    for row in rows(replace(SMALL, gap=7.0, dtype="float64"), 0):
        ranked = row.scores.sort(descending=True).values
        assert (ranked[4] - ranked[5]).item() == pytest.approx(7)
        assert (row.scores > row.scores[row.label]).sum() < 5


def test_a_lead_is_of_the_label_over_the_largest_other() -> None:
    for row in rows(Point(k=1, n=20, margin=0.0, lead=4.0, dtype="float64"), 0):
        assert _above_pivot(row, 1) == pytest.approx(4)


def test_rows_that_the_dtype_cannot_hold_are_left_out() -> None:
    assert rows(replace(SMALL, tau=1e4), 0)[-1].place == "ahead"
    assert rows(replace(SMALL, tau=1e4, dtype="float16"), 0)[-1].place != "ahead"


def _above_pivot(row: Row, k: int) -> float:
    others = torch.cat((row.scores[: row.label], row.scores[row.label + 1 :]))
    return (row.scores[row.label] - others.topk(k).values[-1]).item()


def test_truth_is_cross_entropy_where_the_loss_is() -> None:
    point = Point(k=1, n=20, margin=0.0, lead=-3.0, dtype="float64")
    for row in rows(point, 0):
        scores = row.scores.clone().requires_grad_()
        loss = F.cross_entropy(scores, torch.tensor(row.label))
        loss.backward()
        expected, gradient = truth(point, row)
        assert loss.item() == pytest.approx(expected, rel=1e-13)
        torch.testing.assert_close(scores.grad, gradient, rtol=1e-12, atol=1e-15)


ROW = Row("k-th", torch.tensor([1.0, 3.0, 2.0]), 1)


def test_error_of_a_loss() -> None:
    assert of_loss(ROW, 2.0, 2.5, FLOOR).error == 0.25
    assert of_loss(ROW, 2.0, math.nan, FLOOR).error == math.inf
    assert of_loss(ROW, 2.0, math.inf, FLOOR).error == math.inf
    assert of_loss(ROW, 1e-40, 0.0, FLOOR).error == 0
    assert of_loss(ROW, 1e-40, 1e-3, FLOOR).error == math.inf


def test_error_of_a_gradient_is_relative_to_the_largest_entry() -> None:
    true = torch.tensor([0.25, -0.5, 0.25]).double()
    found = of_gradient(ROW, true, torch.tensor([0.25, -0.5, 0.5]).double(), FLOOR)
    assert (found.error, found.got, found.truth) == (0.5, 0.5, 0.25)
    assert found.of == "entry of rank 2, label k-th"
    found = of_gradient(ROW, true, torch.tensor([0.25, math.nan, 0.5]).double(), FLOOR)
    assert found.error == math.inf
    assert found.of == "the label's entry, label k-th"


def test_bounds_leave_room_for_rounding_to_the_dtype() -> None:
    assert bound("float64") == bound("float32") == bound("float16") == 1e-3
    assert bound("bfloat16") == 2**-7


def test_every_implementation_that_needs_nothing_is_right_at_an_easy_point() -> None:
    missing = {name for name, i in IMPLEMENTATIONS.items() if i.package is not None}
    found = measure(replace(SMALL, dtype="float64"), 0, missing)
    assert {m.implementation for m in found} == {
        name
        for name, i in IMPLEMENTATIONS.items()
        if i.package is None and i.takes(SMALL) and name not in missing
    }
    for m in found:
        assert m.loss.error < 1e-12
        assert m.gradient.error < (1e-3 if "taylor" in m.implementation else 1e-12)


def test_exceptions_and_nan_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(scores: Tensor, labels: Tensor, point: Point) -> implementations.Result:
        raise ValueError("too much")

    def is_nan(scores: Tensor, labels: Tensor, point: Point) -> implementations.Result:
        return scores.new_full((len(scores),), math.nan), torch.zeros_like(scores)

    broken = {
        name: Implementation(name, run) for name, run in (("raises", raises), ("is nan", is_nan))
    }
    monkeypatch.setattr(errors, "IMPLEMENTATIONS", broken)
    raised, nan = measure(SMALL, 0, ())
    assert raised.raised
    assert raised.loss.error == raised.gradient.error == math.inf
    assert raised.loss.of == "ValueError: too much"
    assert not nan.raised
    assert nan.loss.error == math.inf
    assert nan.gradient.error == 1


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "topk", None)
    assert "topk" in implementations.absent()[AUTHORS]


def _measured(
    point: Point, loss: float = 1e-7, gradient: float = 1e-7, name: str = EAGER
) -> Measured:
    return Measured(
        name, point, Worst(loss, 1.0, 2.0, "label k-th"), Worst(gradient, 3.0, 4.0, "x")
    )


def test_first_breaks_of_a_walk() -> None:
    walk = WALKS[0]
    wrong_from = {"loss": 2, "gradient": 4}
    steps = [
        _measured(p, *(1e-2 if i >= wrong_from[part] else 1e-7 for part in ("loss", "gradient")))
        for i, p in enumerate(walk.points)
    ]
    walks = Walks([_measured(BASE), *steps])
    assert walks.walked(EAGER)
    assert not walks.walked(KERNELS)
    found = walks.breaks(EAGER, walk)
    assert [(b.part, b.value) for b in found] == [
        ("loss", walk.values[2]),
        ("gradient", walk.values[4]),
    ]
    assert walks.breaks(EAGER, WALKS[1]) == []
    at_start = Walks([_measured(BASE, loss=math.inf), *steps])
    assert at_start.breaks(EAGER, walk)[0].value == "start"


def test_what_is_wrong_depends_on_the_dtype() -> None:
    half = replace(BASE, dtype="bfloat16")
    assert is_wrong(_measured(BASE, gradient=5e-3), "gradient")
    assert not is_wrong(_measured(BASE, gradient=5e-3), "loss")
    assert not is_wrong(_measured(half, gradient=5e-3), "gradient")


@pytest.fixture
def results() -> Results:
    measured = [
        _measured(p, gradient=math.inf if name == AUTHORS and p.k == 1 else 1e-7, name=name)
        for p in all_points()
        for name, i in IMPLEMENTATIONS.items()
        if i.takes(p)
    ]
    return Results(
        0,
        {},
        measured,
        [
            SmoothRow(backend, k, 100, 1e-7, 2e-7, 1e-6, "ties", 3e-6, 1e-3)
            for backend in ("eager", "triton")
            for k in (5, 16, 50)
            if backend == "eager" or k <= 16
        ],
        [LqRow(backend, 0.7, 10, 1e-7, 2e-7, 3e-6) for backend in ("eager", "triton")],
    )


def test_page(results: Results) -> None:
    text = page(results, "provenance")
    for name in IMPLEMENTATIONS:
        assert name in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) > 10
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
    assert "**fails / 1e-07**" not in text  # only the gradient fails
    assert "**1e-07 / fails**" in text


def test_page_of_a_run_without_the_others(results: Results) -> None:
    missing = {AUTHORS: "`import topk`: No module named 'topk'", KERNELS: "`import triton`: no"}
    measured = [m for m in results.measured if m.implementation not in missing]
    smooth = [row for row in results.smooth if row.backend == "eager"]
    lq = [row for row in results.lq if row.backend == "eager"]
    text = page(replace(results, absent=missing, measured=measured, smooth=smooth, lq=lq), "")
    assert f"Absent from this run: {AUTHORS}, `import topk`: No module named 'topk'." in text
    assert f"Absent from this run: {KERNELS}" in text
    assert f"\n| {KERNELS} |" not in text
    assert "\nkernels:" not in text


def test_by_default_the_report_is_written_where_git_ignores_it(
    results: Results,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "run", lambda seed: results)
    command.main([])
    out = tmp_path / "build" / "reports"
    assert {file for file in tmp_path.rglob("*") if file.is_file()} == {
        out / "accuracy.md",
        out / "accuracy.png",
    }
    assert "Written: build/reports/accuracy.md" in capsys.readouterr().out


def test_figure(results: Results) -> None:
    figure = draw(results.measured)
    assert [ax.get_title() for ax in figure.axes] == ["smooth top-k SVM, k = 5", "cross-entropy"]
    figure.draw_without_rendering()
