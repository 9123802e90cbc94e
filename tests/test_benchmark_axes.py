"""Made-up runs of which the answers are known: axes, exponents, ratios."""

from __future__ import annotations

import json

import pytest
from benchmark_json import K, cells, content, run, seconds, whole_run

from bench.cells import CPU, GPU
from bench.implementations import IMPLEMENTATIONS
from bench.reporting import sections
from bench.reporting.axes import Axis, axes, kinds, series
from bench.reporting.fit import exponents
from bench.reporting.ratios import pairs, ratios
from bench.results import BOTH, Cell, LeftOut, Run, load


def test_a_run_survives_its_file(tmp_path):
    cell = Cell("summation", 10, 5, 3, "float32", BOTH)
    made_up = whole_run(left_out=[LeftOut(cell, "too slow")], host={"lq_loss": 1e-5})
    file = tmp_path / "run.json"
    file.write_text(json.dumps(content(made_up)))

    assert load(file) == made_up


def along(made_up: Run, variable: str) -> list[Axis]:
    return [axis for axis in axes(made_up) if axis.variable == variable]


@pytest.mark.parametrize("plan", [CPU, GPU])
def test_axes_are_those_of_the_plan(plan):
    made_up = run(plan.cells(("float32",)), seconds)
    (n,) = along(made_up, "n")
    (batch,) = along(made_up, "batch")

    assert [shape.n for shape in n.shapes] == sorted(plan.n)
    assert {shape.k for shape in n.shapes} == {5}
    assert [(axis.shapes[0].n, [s.k for s in axis.shapes]) for axis in along(made_up, "k")] == [
        (n, sorted(plan.k)) for n in sorted(plan.n_of_k)
    ]
    # the batch at which n varies is on this axis too
    assert {shape.batch for shape in batch.shapes} == {*plan.batch, plan.scores // plan.n_of_batch}


def test_exponents_of_power_laws():
    made_up = run(cells(), lambda c: 1e-9 * c.batch * c.n**1.3 * (50 if c.k == 1 else c.k**0.7))
    (n,) = along(made_up, "n")
    k = along(made_up, "k")[0]
    kind = kinds(made_up)[0]
    of_n = exponents(n, series(made_up, n, kind)["smooth_svm"])
    of_k = exponents(k, series(made_up, k, kind)["smooth_svm"])

    assert [fit.value for fit in of_n] == pytest.approx([1.3, 1.3])
    assert [fit.points for fit in of_n] == [6, 3]
    assert [fit.value for fit in of_k] == pytest.approx([0.7, 0.7])  # without k = 1
    assert [fit.points for fit in of_k] == [8, 4]
    assert [fit.error for fit in of_n + of_k] == pytest.approx([0] * 4, abs=1e-6)


def test_too_few_points_have_no_exponent():
    large = (32_768, 131_072, 2**20)
    at = {"lq_loss": large, "hard_svm": large[:2], "smooth_svm": (128, 1000, *large)}
    made_up = run((c for c in cells() if c.n in at.get(c.implementation, ())), seconds)
    (n,) = along(made_up, "n")
    every, upper = exponents(n, series(made_up, n, kinds(made_up)[0])["lq_loss"])

    assert every.points == 3
    assert upper is None
    assert "| lq_loss | 1.00 ± 0.00 (3) |  |" in sections.growth(made_up)
    assert "| hard_svm | bfloat16 | forward |" not in sections.growth(made_up)


def test_ratios_are_those_of_the_same_work():
    made_up = whole_run()
    (n,) = along(made_up, "n")
    k = along(made_up, "k")[0]
    kind = kinds(made_up)[0]
    against_svm = ratios(made_up, k, kind, "smooth_svm")

    assert {s.k: pair.ratio for s, pair in against_svm["F.cross_entropy"].items()} == pytest.approx(
        {k: 4 / (10 * k) for k in K}
    )
    assert [pair.ratio for pair in against_svm["summation"].values()] == pytest.approx([3] * 9)
    assert not any(IMPLEMENTATIONS[name].ours for name in against_svm)
    against_lq = ratios(made_up, n, kind, "lq_loss")
    assert {name: by_n[n.shapes[0]].ratio for name, by_n in against_lq.items()} == pytest.approx(
        {"F.cross_entropy": 2, "F.cross_entropy compiled": 0.5, "Liger cross_entropy": 1.5}
    )
    assert ratios(made_up, k, kind, "lq_loss") == {}
    for pair in pairs(made_up):
        assert pair.ours.cell.task == pair.other.cell.task
