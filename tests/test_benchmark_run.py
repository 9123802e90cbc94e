"""A run of the benchmark suite on tiny scores prints and writes what it should."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.cells import BOTH, TINY, Cell
from bench.implementations import IMPLEMENTATIONS
from bench.report.__main__ import main
from bench.report.runs import Run, load

pytestmark = pytest.mark.exhaustive

ROOT = Path(__file__).parents[1]


def suite(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The suite runs as a user has it, whatever runs this test, with the folder as the current one."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    command = (sys.executable, "-m", "pytest", ROOT / "bench", "-q")
    return subprocess.run(
        [*command, "-p", "no:cacheprovider", "--benchmark-only", "--tiny", *options],
        cwd=folder,
        env=variables | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the suite has run, on tiny scores."""
    folder = tmp_path_factory.mktemp("benchmark")
    done = suite(folder, "--dtype=float32", "--benchmark-save=base")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "output.txt").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return load(folder / "build/run.json")


def test_every_cell_is_measured_or_left_out_by_name(run):
    cells = [Cell(*row) for row in run.rows.iloc[:, :6].itertuples(index=False)]
    assert len(cells) == len(set(cells))
    assert set(cells) == set(TINY.cells(("float32",)))
    needed = {each.name for each in IMPLEMENTATIONS.values() if each.ours}
    needed |= {"divide and conquer", "summation", "F.cross_entropy", "smooth_svm eager"}
    assert not needed & set(run.left_out.implementation)


def test_what_is_printed_names_what_was_left_out(folder, run):
    output = (folder / "output.txt").read_text()
    assert "benchmark 'n = 64, k = 5, batch 16, float32, forward + backward'" in output
    assert all(f"{row.implementation}: {row.why}" in output for row in run.left_out.itertuples())


def test_all_of_a_task_were_measured_in_turns(run):
    """A cell that was not would have been beside another copy."""
    measured = run.measured
    copied = measured.share * measured.seconds  # proportional to the seconds of the copy
    by_task = copied.groupby(
        [measured[name] for name in ("n", "k", "batch", "work")], observed=True
    )
    assert (by_task.max() / by_task.min() < 1 + 1e-9).all()
    assert (by_task.size() > 4).all()


def test_memory_is_that_of_training_where_k_does_not_vary(run):
    measured = run.measured
    assert ((measured.k == 5) & (measured.work == BOTH) == measured.extra_memory.notna()).all()
    # Nothing needs more than the references' logarithms of all polynomials.
    assert measured.extra_memory.dropna().between(0, 800 * 4 * TINY.scores).all()


def test_provenance_is_there_and_the_name_of_the_machine_is_not(folder, run):
    assert run.about["versions"]["torch"] == torch.__version__
    assert run.about["kind"] == "cpu"
    assert 0 <= (run.about["others"] or 0) <= 1
    content = json.loads((folder / "build/run.json").read_text())
    assert platform.node() not in json.dumps(content["machine_info"] | content["run"])


def test_a_run_has_its_report(folder, run):
    main([str(folder / "build/run.json"), "--out", str(folder / "reports")])
    text = (folder / f"reports/{run.stem}.md").read_text()
    assert "| n | 16 | 32 | 64 |" in text
    assert (folder / f"reports/{run.stem}-k-float32.png").is_file()


def test_two_runs_are_compared(folder):
    name = "lq_loss-n64-k5-b1-float32-forward+backward"
    done = suite(folder, "-k", name, "--benchmark-compare")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"loss[{name}] (NOW)" in done.stdout
    assert f"loss[{name}] (0001)" in done.stdout


def test_what_was_measured_before_an_interruption_is_written(tmp_path):
    """The fourth measurement is interrupted; an error at the end would say so in a hundred lines."""
    (tmp_path / "interrupting.py").write_text(
        "done = []\n"
        "def pytest_pyfunc_call():\n"
        "    done.append(1)\n"
        "    if len(done) == 4:\n"
        "        raise KeyboardInterrupt\n"
    )
    chosen = ("-k", "n64-k1-b16-float32", "-p", "interrupting", f"-opythonpath={tmp_path}")
    done = suite(tmp_path, *chosen)
    assert done.returncode == pytest.ExitCode.INTERRUPTED, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert len(load(tmp_path / "build/run.json").measured) == 3


@pytest.mark.parametrize("options", [("--collect-only",), ("-k", "eager_call")])
def test_a_run_without_a_measurement_is_no_error(tmp_path, options):
    done = suite(tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "build/run.json").exists()
