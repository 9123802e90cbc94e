"""Pages, figures and README's blocks are right for made-up runs with known answers, and for what is committed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.cells import BOTH, CPU, FORWARD, GPU, Cell
from bench.implementations import IMPLEMENTATIONS
from bench.report.__main__ import main, readme_from
from bench.report.figures import STYLES, draw, drawings
from bench.report.page import page, readme_blocks, refreshed
from bench.report.runs import Run, load
from bench.report.tables import axes

ROOT = Path(__file__).parents[1]
ABOUT = {"name": "Some CPU @ 2.00GHz", "kind": "cpu", "driver": None, "l2_bytes": None, "seed": 1}
ABOUT |= {"threads": 2, "versions": {"python": "3.11.0"}, "load_before": 1.24, "others": 0.651}
ABOUT |= {"commit": "0123456789", "date": "2026-01-01"}
GPU_ABOUT = ABOUT | {"name": "Some GPU", "kind": "cuda"}
# Nanoseconds of a score, in the order of the registry; what has a k takes k of them.
NANOSECONDS = dict(
    zip(IMPLEMENTATIONS, (10, 11, 5, 12, 2, 3, 4, 1, 40, 30, 100, 20, 15), strict=True)
)


def seconds(cell: Cell) -> float:
    k = cell.k if IMPLEMENTATIONS[cell.implementation].has_k else 1
    return NANOSECONDS[cell.implementation] * 1e-9 * cell.n * cell.batch * k


def measurements(
    chosen: Callable[[Cell], bool] = lambda cell: True,
    seconds: Callable[[Cell], float] = seconds,
    plan: Any = CPU,
) -> list[dict[str, Any]]:
    measured = {"share": 0.25, "steady": True, "extra_memory": 4096}
    cells = filter(chosen, plan.cells(("float32", "bfloat16")))
    return [asdict(cell) | measured | {"seconds": seconds(cell)} for cell in cells]


def run(rows: list[dict[str, Any]] | None = None, about: dict[str, Any] = ABOUT) -> Run:
    return Run(about, pd.DataFrame(measurements() if rows is None else rows))


def content(rows: list[dict[str, Any]], about: dict[str, Any] = ABOUT) -> str:
    """The suite writes this JSON of such a run."""
    measured = [
        {
            "extra_info": {k: v for k, v in row.items() if k != "seconds"},
            "stats": {"median": row["seconds"]},
        }
        for row in rows
        if "why" not in row
    ]
    host = {"extra_info": {}, "stats": {"median": 1e-5}}
    left_out = [row for row in rows if "why" in row]
    said = {"machine_info": {}, "run": about, "benchmarks": [*measured, host], "left_out": left_out}
    return json.dumps(said)


def left_out(name: str, n: int, why: str) -> dict[str, Any]:
    return asdict(Cell(name, n, 5, 2, "float32", BOTH)) | {"why": why}


def test_a_run_survives_its_files(tmp_path):
    rows = [*measurements(), left_out("summation", 10, "too slow")]
    (tmp_path / "run.json").write_text(content(rows))
    first = load(tmp_path / "run.json")
    first.save(tmp_path / "run.csv")
    second = load(tmp_path / "run.csv")
    assert len(first.measured) == len(rows) - 1
    assert first.about == second.about == ABOUT
    pd.testing.assert_frame_equal(first.rows, second.rows, rtol=1e-6)
    second.save(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "run.csv").read_text()


def test_the_parts_of_a_run_are_one_run(tmp_path):
    rows = measurements()
    parts = [tmp_path / f"run-{i}.json" for i in range(2)]
    for i, part in enumerate(parts):
        part.write_text(content(rows[i::2]))
    pd.testing.assert_frame_equal(load(*parts).rows, run(rows).rows)
    main([*map(str, parts), "--out", str(tmp_path)])
    whole = load(tmp_path / f"{run(rows).stem}.csv")
    assert len(whole.measured) == len(rows)
    parts[1].write_text(content(rows[1::2], GPU_ABOUT))
    with pytest.raises(ValueError, match=r"run-1.json is no part of the run of .*run-0.json"):
        load(*parts)


@pytest.mark.parametrize("plan", [CPU, GPU])
def test_axes_are_those_of_the_plan(plan):
    found = axes(run(measurements(plan=plan)).measured)
    along = {str(axis): sorted(axis.rows[axis.variable].unique()) for axis in found}
    assert along == {
        f"n at k = 5, {plan.scores:,} scores": sorted(plan.n),
        **{f"k at n = {n:,}, batch {plan.scores // n:,}": list(plan.k) for n in plan.n_of_k},
        "batch at n = 1,000, k = 5": sorted({*plan.batch, plan.scores // 1000}),
    }


def test_the_page_begins_with_what_is_faster():
    text = page(run())
    first = text[text.index("\n## ") : text.index("\n## In short")]
    assert first.startswith("\n## Where another implementation is faster")
    assert "| smooth_svm | divide and conquer | 0 of 44 | 4.00 |" in first
    assert "| smooth_svm | F.cross_entropy | 44 of 44 | 0.00800 | n = 1,000, k = 50," in first
    assert (
        "| lq_loss | F.cross_entropy compiled | 28 of 28 | 0.500 | n = 128, batch 2,048," in first
    )
    assert "| lq_loss | F.cross_entropy | 0 of 28 | 2.00 |" in first
    assert "| lq_loss | divide and conquer" not in first


def test_times_and_ratios_stand_along_n():
    lines = page(run()).split("\n## In short\n")[1].splitlines()
    said = "The load average before the run was 1.2 and other processes took 65 % of all CPU time"
    assert page(run()).count(said) == 1
    assert "| n | 128 | 1,000 | 4,096 | 32,768 | 131,072 | 262,144 |" in lines
    assert "| **smooth_svm, ms** | 13.1 | 13.1 | 13.1 | 13.1 | 13.1 | 13.1 |" in lines
    assert "| divide and conquer / smooth_svm |" + " 4.00 |" * 6 in lines
    assert "| smooth_svm | divide and conquer |" + " 4.00 |" * 6 in lines
    assert "| mixture | bfloat16 | forward |" + " 15.7 |" * 6 in lines
    assert "| lq_loss |" + " 4 KiB |" * 6 in lines


def test_the_ratio_to_cross_entropy_comes_first_on_a_cpu():
    def on_a_cpu(cell: Cell) -> bool:
        return cell.implementation != "Liger cross_entropy"

    text = page(run(measurements(on_a_cpu)))
    assert re.search(r"\| --- \|.*\n\| smooth_svm \| F\.cross_entropy \|", text)
    assert re.search(
        r"\| \*\*smooth_svm, ms.*\n\| F\.cross_entropy / smooth_svm \| 0\.0800 \|", text
    )
    assert re.search(r"\| \*\*lq_loss, ms.*\n\| F\.cross_entropy / lq_loss \| 2\.00 \|", text)
    assert "| smooth_svm eager / smooth_svm |" + " 1.50 |" * 6 in text


def test_only_a_gpu_has_a_share_of_copy_bandwidth():
    lines = page(run(about=GPU_ABOUT)).splitlines()
    assert lines.count("| share of copy bandwidth |" + " 25 % |" * 6) == 2
    assert "## Share of copy bandwidth" in lines
    assert "copy bandwidth" not in page(run()) + readme_blocks([run()], "")["headline"]


def test_exponents_are_those_of_power_laws():
    def power(cell: Cell) -> float:
        return 1e-9 * cell.batch * cell.n**1.3 * (50 if cell.k == 1 else cell.k**0.7)

    text = page(run(measurements(seconds=power)))
    k = "0.70 ± 0.00 (8) | 0.70 ± 0.00 (4) |"  # without k = 1
    assert f"| smooth_svm | 1.30 ± 0.00 (6) | 1.30 ± 0.00 (3) | {k} {k}" in text
    assert "| lq_loss | 1.30 ± 0.00 (6) | 1.30 ± 0.00 (3) |  |  |  |  |" in text


def test_what_is_unsteady_is_marked_wherever_it_stands():
    rows = measurements()
    cell = Cell("smooth_svm", 128, 5, 2048, "float32", BOTH)
    next(row for row in rows if row.items() >= asdict(cell).items())["steady"] = False
    made_up = run(rows)
    text = page(made_up)
    assert f"; 1 of {len(rows)} measurements stayed unsteady and have a ?." in text
    assert "| **smooth_svm, ms** | 13.1 ? | 13.1 |" in text
    assert "| share of copy bandwidth | 25 % ? | 25 % |" in page(run(rows, GPU_ABOUT))
    assert "| F.cross_entropy / smooth_svm | 0.0800 ? | 0.0800 |" in text
    assert "| smooth_svm | 1.00 ± 0.00 (5) | 1.00 ± 0.00 (3) |" in text  # without it
    assert "smooth_svm, ms** | 13.1 ? | 13.1" in readme_blocks([made_up], "")["headline"]
    found = {name: draw(drawing) for name, drawing in drawings(made_up).items()}
    hollow = {
        name
        for name, figure in found.items()
        for line in figure.axes[0].lines
        if line.get_markerfacecolor() == "white" and len(line.get_xdata())
    }
    assert hollow == {"n-float32", "ratios-float32"}
    assert found["n-float32"].get_suptitle().endswith("(hollow: unsteady)")
    assert "?" not in page(run()).replace("`?`", "").replace("have a ?", "")


def test_what_was_left_out_is_counted():
    rows = [left_out("summation", n, "too slow") for n in (10, 1000, 20_000)]
    text = page(run([*measurements(), *rows, left_out("summation", 10, "a | b\nc")]))
    assert "| summation | too slow | 3 | 10 to 20,000 | 5 | 2 | float32 |" in text
    assert r"| summation | a \| b c | 1 | 10 | 5 | 2 | float32 |" in text


PARTS = {
    "one implementation": lambda cell: cell.implementation == "lq_loss",
    "none of ours": lambda cell: not IMPLEMENTATIONS[cell.implementation].ours,
    "only forward": lambda cell: cell.work == FORWARD,
    "no k": lambda cell: not IMPLEMENTATIONS[cell.implementation].has_k,
    "a cell": lambda cell: cell == Cell("hard_svm", 128, 5, 2048, "float32", BOTH),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_run_has_a_page(part):
    made_up = run(measurements(PARTS[part]))
    text = page(made_up)
    assert text.startswith("# Benchmark: Some CPU @ 2.00GHz\n")
    assert "nan" not in text
    assert "Left out" not in text
    assert set(readme_blocks([made_up], "")) == {"headline", "figures"}


def test_lines_are_what_was_measured():
    made_up = drawings(run(about=GPU_ABOUT))
    figures = ("n", "copy", "ratios", "k")
    assert set(made_up) == {
        f"{each}-{dtype}" for each in figures for dtype in ("float32", "bfloat16")
    } - {"k-bfloat16"}
    assert not any(name.startswith("copy") for name in drawings(run()))  # it may stay in the cache
    expected = {"n": [50] * 6, "copy": [25] * 6, "ratios": [4] * 6, "k": [40 * k for k in CPU.k]}
    for each, y in expected.items():
        figure = draw(made_up[f"{each}-float32"])
        name = "divide and conquer" if each in ("ratios", "k") else "smooth_svm"
        (line,) = (line for line in figure.axes[0].lines if line.get_label() == name)
        assert list(line.get_ydata()) == pytest.approx(y)
        shown = {text.get_text() for text in figure.legends[0].get_texts()}
        lines = [line for ax in figure.axes for line in ax.lines]
        assert shown == {line.get_label() for line in lines} & set(IMPLEMENTATIONS)


@pytest.mark.parametrize("elsewhere", ["Liger cross_entropy", "smooth_svm eager"])
def test_lines_of_one_device_differ(elsewhere):
    styles = [
        (style["color"], style["linestyle"]) for name, style in STYLES.items() if name != elsewhere
    ]
    assert len(set(styles)) == len(styles)


def test_the_readme_has_a_short_table_and_a_figure():
    blocks = readme_blocks([run(), run(about=GPU_ABOUT)], "reports/")
    names = re.findall(r"^\| (\D+?) \|", blocks["headline"], re.MULTILINE)
    assert names == [
        "n",
        "---",
        "**smooth_svm, ms**",
        "share of copy bandwidth",
        "F.cross_entropy / smooth_svm",
        "F.cross_entropy compiled / smooth_svm",
        "authors' topk / smooth_svm",
        "**lq_loss, ms**",
        "share of copy bandwidth",
        "F.cross_entropy / lq_loss",
        "F.cross_entropy compiled / lq_loss",
    ]
    said = f"Some GPU (cuda, 2 threads), 2026-01-01, commit 0123456789; 0 of {len(measurements())}"
    assert blocks["headline"].startswith(said)
    assert blocks["figures"].count(".png") == 1


BLOCK = "<!-- benchmark: {} -->\nold\n<!-- end -->\n"
README = f"# Title\n\n{BLOCK.format('headline')}between\n\n{BLOCK.format('figures')}\nafter\n"


def test_readme_blocks_are_replaced_and_nothing_else():
    new = refreshed(README, {"headline": "a table", "figures": r"a \1 figure"})
    assert new.replace("\na table\n\n", "old\n").replace("\na \\1 figure\n\n", "old\n") == README
    assert refreshed(new, {"headline": "a table", "figures": r"a \1 figure"}) == new


@pytest.mark.parametrize(
    "readme",
    [
        README.replace("headline", "other"),
        README + README,
        README.replace("<!-- end -->", "", 1),
        README.replace("<!-- end -->", ""),
    ],
)
def test_a_readme_without_its_markers_is_an_error(readme):
    with pytest.raises(ValueError, match="needs one <!-- benchmark: headline -->"):
        refreshed(readme, {"headline": "a table"})


def test_the_readme_has_the_run_of_a_gpu(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = measurements(lambda cell: cell.dtype == "float32")
    (tmp_path / "cpu.json").write_text(content(rows))
    (tmp_path / "gpu.json").write_text(content(rows, GPU_ABOUT))
    (tmp_path / "README.md").write_text(README)
    for name in ("cpu", "gpu"):
        main([f"{name}.json", "--readme"])
        readme = (tmp_path / "README.md").read_text()
        check_links(readme, tmp_path)
        assert f"Some {name.upper()}" in readme
    assert "benchmark-some-gpu-n-float32.png" in readme
    check_links((tmp_path / "reports/benchmark-some-gpu.md").read_text(), tmp_path / "reports")
    # the other run again: the README stays
    main(["cpu.json", "--readme"])
    assert (tmp_path / "README.md").read_text() == readme


def test_by_default_only_what_git_ignores_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build").mkdir()
    (tmp_path / "build/run.json").write_text(content(measurements(lambda cell: cell.n == 1000)))
    main([])
    output = capsys.readouterr().out
    files = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert files >= {f"build/reports/benchmark-some-cpu-2-00ghz.{kind}" for kind in ("csv", "md")}
    assert all(file.startswith("build/") for file in files)
    assert max(map(len, output.splitlines())) <= 100


def test_without_a_run_the_command_says_how_to_make_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main([])
    said = "build/run.json does not exist; pytest bench/ --benchmark-only writes one"
    assert said in capsys.readouterr().err


def check_links(text: str, folder: Path) -> None:
    """Everything which is linked to is there."""
    linked = re.findall(r"\]\(((?!https:)[^)#]+)", text)
    assert linked
    for name in linked:
        assert (folder / name).exists()
        assert not name.endswith(".png") or (folder / name).read_bytes().startswith(b"\x89PNG")


def test_readme_and_pages_are_what_the_committed_runs_say():
    command = "run: python -m bench.report reports/benchmark-DEVICE.csv --readme"
    files = sorted((ROOT / "reports").glob("benchmark-*.csv"))
    assert files, "no reports/benchmark-DEVICE.csv is committed"
    for file in files:
        assert file.stem == load(file).stem
        assert file.with_suffix(".md").read_text() == page(load(file)), command
        check_links(page(load(file)), file.parent)
    readme = ROOT / "README.md"
    assert readme_from(ROOT / "reports", readme) == readme.read_text(), command
