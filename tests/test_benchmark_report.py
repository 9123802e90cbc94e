"""The page of made-up runs of which the answers are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from benchmark_json import MACHINE, cells, run, seconds, whole_run

from bench.implementations import IMPLEMENTATIONS
from bench.reporting import faster, sections
from bench.reporting.axes import axes
from bench.reporting.markdown import size
from bench.reporting.page import page
from bench.reporting.readme import blocks
from bench.results import BOTH, FORWARD, Cell, LeftOut, Run


def test_the_page_begins_with_what_is_faster():
    text = page(whole_run())
    first = text[text.index("\n## ") : text.index("\n## In short")]

    assert first.startswith("\n## Where another implementation is faster")
    assert "| smooth_svm | divide and conquer | 0 of 64 | 4.00 |" in first
    assert "| smooth_svm | F.cross_entropy | 64 of 64 | 0.00800 | n = 1,000, k = 50," in first
    assert "| lq_loss | F.cross_entropy compiled | 32 of 32 | 0.500 |" in first
    assert "| lq_loss | F.cross_entropy | 0 of 32 | 2.00 |" in first
    assert "| lq_loss | divide and conquer" not in first
    assert (
        "| smooth_svm | Liger cross_entropy | float32 | forward + backward | 0.300 | 0.150 |"
        in first
    )


def test_where_only_one_cell_is_slower():
    def slow_at_128(cell: Cell) -> float:
        slow = cell.implementation == "smooth_svm" and cell.n == 128 and cell.work == FORWARD
        return seconds(cell) * (5 if slow else 1)

    some = [c for c in cells(["float32"]) if IMPLEMENTATIONS[c.implementation].has_k]
    text = faster.section(run(some, slow_at_128))

    assert text.startswith("The other is faster in 3 of ")
    assert "| smooth_svm | summation | float32 | forward | 0.600 | · | · | · | · | · |" in text
    assert (
        "| smooth_svm | difftopk | 1 of 32 | 0.400 | n = 128, k = 5, batch 8,192, float32, forward |"
        in text
    )


def test_a_faster_cell_on_no_axis_is_shown():
    shape = {"n": 10, "batch": 7, "dtype": "float32", "work": BOTH}
    ours, other = Cell("smooth_svm", k=5, **shape), Cell("F.cross_entropy", k=5, **shape)
    made_up = run([ours, other], seconds)

    assert axes(made_up) == []
    assert "| smooth_svm | F.cross_entropy | 0.0800 | n = 10, k = 5, batch 7," in faster.section(
        made_up
    )
    assert (
        "| smooth_svm | n = 10, k = 5, batch 7 | float32 | forward + backward | 0.00350 |"
        in page(made_up)
    )


def test_headline():
    made_up = whole_run()
    _, _, header, _, ours, share, *others = sections.headline(made_up).splitlines()

    assert header.startswith("| n | 128 | 1,000 |")
    assert ours.startswith("| **smooth_svm, ms** | 52.4 | 52.4 |")
    assert share == "| share of copy bandwidth |" + " 25 % |" * 6
    assert "| divide and conquer |" + " 4.00 |" * 6 in others
    lq = others.index(next(line for line in others if "lq_loss" in line))
    assert "| F.cross_entropy |" + " 2.00 |" * 6 in others[lq:]


def test_what_cannot_be_is_marked_wherever_it_stands():
    def doctored(made_up: Run, **changed: float) -> Run:
        m = next(m for m in made_up.measurements if m.cell == cell)
        rest = [other for other in made_up.measurements if other != m]
        return replace(made_up, measurements=[*rest, replace(m, **changed)])

    cell = Cell("smooth_svm", 128, 5, 8192, "float32", BOTH)
    fast = page(doctored(whole_run(), share=7.11))
    slow = page(doctored(whole_run(), spread=0.31))
    waiting = page(doctored(whole_run(), waited=0.11))

    assert "| **smooth_svm, ms** | 52.4 ? | 52.4 |" in fast
    assert "| share of copy bandwidth | 711 % ? | 25 % |" in fast
    assert "| F.cross_entropy | 0.0800 ? | 0.0800 |" in fast
    assert "| smooth_svm | 0.160 (711 % ?) | 0.160 (25 %) |" in fast
    for text in (fast, slow, waiting):
        count = len(whole_run().measurements)
        assert f"; 1 of {count} measurements stayed unsteady and have a ?." in text
        assert "what up to 3 such tries did not make steady" in text
        assert "| smooth_svm | 52.4 ? | 52.4 |" in text
        assert "| smooth_svm | 1.00 ± 0.00 (5) | 1.00 ± 0.00 (3) |" in text  # without it
    assert "?" not in page(whole_run()).replace("`?`", "").replace("have a ?", "")
    assert (
        "smooth_svm, ms** | 52.4 ?" in blocks([doctored(whole_run(), share=7.11)], "")["headline"]
    )


def test_how_busy_the_machine_was():
    machine = MACHINE | {"load_before": 1.24, "others": 0.651}
    made_up = whole_run(machine=machine)
    said = sections.busy(made_up)

    assert said.startswith(
        "The load average before the run was 1.2 and other processes took 65 % of all CPU time "
        "during it;"
    )
    assert said in page(made_up)
    assert said in blocks([made_up], "")["headline"]
    assert sections.busy(run([], seconds)).startswith("How busy the machine was is not known;")


def test_units_have_no_exponents():
    assert [
        size(x) for x in (1020 * 2**10, 1023.7 * 2**10, 2**20, 1.5 * 2**30, 999, 12.34 * 2**20)
    ] == ["1020 KiB", "1024 KiB", "1 MiB", "1.5 GiB", "999 B", "12.3 MiB"]


def test_what_was_left_out_is_counted():
    missing = [Cell("summation", n, 5, 2, "float32", BOTH) for n in (10, 1000, 20_000)]
    reasons = [
        *(LeftOut(c, f"wrong: off by {c.n / 1e3}") for c in missing),
        LeftOut(missing[0], "a | b\nc"),
    ]
    table = sections.left_out(reasons)

    assert (
        "| summation | wrong: off by 0.01 to 20.0 | 3 | 10 to 20,000 | 5 | 2 | float32 |" in table
    )
    assert r"| summation | a \| b c | 1 | 10 | 5 | 2 | float32 |" in table


def test_worst_errors():
    made_up = whole_run()
    worse = replace(made_up.measurements[7], loss_error=0.5)
    made_up.measurements[7] = worse

    assert sections.errors(made_up).count("5.0e-01") == 1


PARTS = {
    "nothing": lambda cell: False,
    "one implementation": lambda cell: cell.implementation == "lq_loss",
    "none of ours": lambda cell: not IMPLEMENTATIONS[cell.implementation].ours,
    "only forward": lambda cell: cell.work == FORWARD,
    "one dtype": lambda cell: cell.dtype == "bfloat16",
    "one n": lambda cell: cell.n == 1000,
    "no k": lambda cell: not IMPLEMENTATIONS[cell.implementation].has_k,
    "a cell": lambda cell: cell == Cell("hard_svm", 128, 5, 8192, "float32", BOTH),
}


@pytest.mark.parametrize("part", PARTS)
def test_part_of_a_run(part):
    some = [cell for cell in cells() if PARTS[part](cell)]
    made_up = run(some, seconds)
    text = page(made_up)

    assert text.startswith("# Benchmark: Some CPU @ 2.00GHz\n")
    assert all(f"\n| {cell.implementation} |" in text for cell in some)
    assert "nan" not in text
    assert "Host time" not in text
    assert "Left out" not in text
    assert set(blocks([made_up], "")) == {"headline", "figures"}


def test_host_time_stands_beside_the_devices():
    text = page(whole_run(host={"smooth_svm": 4.2e-5}))

    assert "| smooth_svm | 42.0 | 50.0 | 800 |" in text  # 1000 scores, 16,000 scores
