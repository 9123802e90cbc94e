"""The report of accuracy has the right rows, errors and breaks, and they make its page."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, replace

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from bench.accuracy import __main__ as command
from bench.accuracy import implementations, measuring
from bench.accuracy.implementations import AUTHORS, EAGER, IMPLEMENTATIONS, KERNELS, Implementation
from bench.accuracy.measuring import PARTS, Results, bound, largest_error, measure, truth
from bench.accuracy.page import draw, first_breaks, judged, page
from bench.accuracy.points import (
    BASE,
    CROSS_ENTROPY,
    GRID,
    WALKS,
    Point,
    Row,
    all_points,
    rows,
)

SMALL = replace(BASE, n=30)
FLOOR = 1e-37


def test_points():
    points = all_points()
    assert len(set(points)) == len(points)
    assert all(p.k < p.n for p in points)
    assert all(p.margin == 1 and p.gap is None and p.lead is None for p in GRID)
    assert all((p.k, p.tau, p.margin) == (1, 1, 0) for p in CROSS_ENTROPY)
    assert BASE in points


def test_rows_are_reproducible_and_the_same_for_every_dtype():
    first, again, other = rows(SMALL, 0), rows(SMALL, 0), rows(SMALL, 1)
    wide = rows(replace(SMALL, dtype="float64"), 0)
    for a, b, c, w in zip(first, again, other, wide, strict=True):
        assert a.label == b.label
        assert a.scores.equal(b.scores)
        assert not a.scores.equal(c.scores)
        assert a.scores.equal(w.scores.float())


def above_pivot(row: Row, k: int) -> float:
    others = torch.cat((row.scores[: row.label], row.scores[row.label + 1 :]))
    return (row.scores[row.label] - others.topk(k).values[-1]).item()


def test_the_label_is_anywhere_in_the_kth_place_in_the_corner_or_ahead():
    point = Point(k=3, tau=0.5, n=20, spread=2.0, dtype="float64", margin=0.25)
    _, kth, in_the_corner, ahead = rows(point, 0)
    assert above_pivot(in_the_corner, 3) == pytest.approx(3 * 0.25)
    assert above_pivot(ahead, 3) == pytest.approx(3 * 0.25 + 10 * 3 * 0.5)
    assert (kth.scores > kth.scores[kth.label]).sum() == 2
    for row in rows(replace(SMALL, gap=7.0, dtype="float64"), 0):
        ranked = row.scores.sort(descending=True).values
        assert (ranked[4] - ranked[5]).item() == pytest.approx(7)
        assert (row.scores > row.scores[row.label]).sum() < 5
    for row in rows(Point(k=1, n=20, margin=0.0, lead=4.0, dtype="float64"), 0):
        assert above_pivot(row, 1) == pytest.approx(4)


def test_rows_that_the_dtype_cannot_hold_are_left_out():
    assert len(rows(replace(SMALL, tau=1e4), 0)) == 4
    assert len(rows(replace(SMALL, tau=1e4, dtype="float16"), 0)) == 3


def test_truth_is_cross_entropy_where_the_loss_is():
    point = Point(k=1, n=20, margin=0.0, lead=-3.0, dtype="float64")
    for row in rows(point, 0):
        scores = row.scores.clone().requires_grad_()
        loss = F.cross_entropy(scores, torch.tensor(row.label))
        loss.backward()
        expected, gradient = truth(point, row)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-13)
        torch.testing.assert_close(scores.grad, gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("truth", "got", "error"),
    [
        (2.0, 2.5, 0.25),
        (2.0, math.nan, math.inf),
        (2.0, math.inf, math.inf),
        (1e-40, 0.0, 0.0),
        (1e-40, 1e-3, math.inf),
    ],
)
def test_the_error_of_a_loss_is_relative(truth, got, error):
    assert largest_error(torch.tensor([got]), torch.tensor([truth]).double(), FLOOR) == error


def test_the_error_of_a_gradient_is_relative_to_the_largest_entry():
    true = torch.tensor([[0.25, -0.5, 0.25], [1.0, 0.0, 0.0]]).double()
    wrong = true + torch.tensor([[0.0, 0.0, 0.25], [0.1, 0.0, 0.0]])
    assert largest_error(wrong, true, FLOOR) == 0.5
    wrong[1, 2] = math.nan
    assert largest_error(wrong, true, FLOOR) == math.inf


def test_what_is_wrong_depends_on_the_dtype():
    assert bound("float64") == bound("float32") == bound("float16") == 1e-3
    assert bound("bfloat16") == 2**-7


def test_every_implementation_that_needs_no_package_is_right_at_an_easy_point():
    missing = {name for name, i in IMPLEMENTATIONS.items() if i.package is not None}
    found = measure(replace(SMALL, dtype="float64"), 0, missing)
    expected = {name for name, i in IMPLEMENTATIONS.items() if i.takes(SMALL)} - missing
    assert {x["implementation"] for x in found} == expected
    for x in found:
        approximate = "taylor" in x["implementation"] and x["part"] == "gradient"
        assert x["error"] < (1e-3 if approximate else 1e-12)


def test_exceptions_and_nan_are_failures(monkeypatch):
    def raises(scores, labels, point):
        raise ValueError("too much")

    def is_nan(scores, labels, point):
        return scores.sum(1) * math.nan

    broken = {"raises": Implementation(raises), "is nan": Implementation(is_nan)}
    monkeypatch.setattr(measuring, "IMPLEMENTATIONS", broken)
    raised, _, nan, gradient = measure(SMALL, 0, ())
    assert raised["raised"]
    assert not nan["raised"]
    assert raised["error"] == nan["error"] == gradient["error"] == math.inf


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(implementations, "find_spec", lambda package: None)
    assert implementations.absent()[AUTHORS] == "topk"


def record(name: str, point: Point, part: str, error: float) -> dict[str, object]:
    told = {"part": part, "error": error, "raised": False}
    return {"implementation": name, "point": point, **asdict(point), **told}


def test_a_walk_breaks_at_its_first_wrong_value():
    walk = WALKS["spread up"]
    wrong_from = {"loss": 2, "gradient": 4}
    found = pd.DataFrame(
        record(EAGER, point, part, 1e-2 if i > wrong_from[part] else 1e-7)
        for i, point in enumerate([BASE, *walk.values()])
        for part in PARTS
    )
    breaks = first_breaks(judged(found)).set_index("part")
    assert set(breaks["walk"]) == {"spread up"}
    assert breaks["at"].to_dict() == {"loss": list(walk)[2], "gradient": list(walk)[4]}
    found.loc[0, "error"] = math.inf
    breaks = first_breaks(judged(found)).set_index(["walk", "part"])
    assert breaks["at"]["tau up", "loss"] == "start"


@pytest.fixture
def results() -> Results:
    measured = [
        record(name, p, part, math.inf if broken and part == "gradient" else 1e-7)
        for p in all_points()
        for name, i in IMPLEMENTATIONS.items()
        if i.takes(p)
        for broken in [name == AUTHORS and p.k == 1]
        for part in PARTS
    ]
    adversarial = [
        {"backend": backend, "what": what, "error": 1e-7}
        for backend in ("eager", "native", "triton")
        for what in ("loss", "gradient")
    ]
    return Results(0, {}, pd.DataFrame(measured), pd.DataFrame(adversarial))


def test_the_page_has_every_implementation_and_tables_that_are_whole(results):
    text = page(results)
    for name in IMPLEMENTATIONS:
        assert name in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) > 8
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
    assert "**fails / 1e-07**" not in text  # only the gradient fails
    assert "**1e-07 / fails**" in text


def test_the_page_of_a_run_without_the_others_says_what_is_absent(results):
    missing = {AUTHORS: "topk", KERNELS: "triton"}
    measured = results.measured[~results.measured["implementation"].isin(missing)]
    text = page(Results(0, missing, measured, results.adversarial))
    assert f"Absent from this run: {AUTHORS}, without topk." in text
    assert f"\n| {KERNELS}" not in text


def test_by_default_the_report_is_written_where_git_ignores_it(
    results, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "run", lambda seed: results)
    command.main([])
    out = tmp_path / "build" / "reports"
    written = {file for file in tmp_path.rglob("*") if file.is_file()}
    assert written == {out / "accuracy.md", out / "accuracy.png"}
    assert "Written: build/reports/accuracy.md" in capsys.readouterr().out


def test_the_figure_has_a_panel_for_each_loss(results):
    figure = draw(results.measured)
    assert [ax.get_title() for ax in figure.axes] == ["smooth top-k SVM, k = 5", "cross-entropy"]
    figure.draw_without_rendering()
