"""A run of the benchmark suite on tiny scores, as a user has it: what it prints, and what it writes."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from bench.cells import TINY
from bench.implementations import IMPLEMENTATIONS
from bench.results import BOTH, FORWARD, Run, load

pytestmark = pytest.mark.exhaustive

ROOT = Path(__file__).parents[1]


def suite(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The suite as a user has it, whatever runs this test, with the folder as the current one."""
    command = [sys.executable, "-m", "pytest", f"--rootdir={ROOT}", f"-c{ROOT / 'pyproject.toml'}"]
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    return subprocess.run(
        [*command, str(ROOT / "bench"), "-q", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=variables | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the suite has run, on tiny scores."""
    folder = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_XDIST_WORKER", "gw0")  # as where the tests run in parallel
        done = suite(folder, "--benchmark-only", "--tiny", "--dtypes", "float32")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "output.txt").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    return folder / "build" / "run.json"


@pytest.fixture(scope="module")
def run(file: Path) -> Run:
    return load(file)


def test_what_was_measured_before_an_interruption_is_written(tmp_path, monkeypatch):
    """The fourth measurement is interrupted; an error at the end would say so in a hundred lines."""
    (tmp_path / "interrupting.py").write_text(
        "done = []\n"
        "def pytest_pyfunc_call():\n"
        "    done.append(1)\n"
        "    if len(done) == 4:\n"
        "        raise KeyboardInterrupt\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    chosen = ("-k", "svm and k5 and not taylor", "-p", "interrupting")
    done = suite(tmp_path, "--benchmark-only", "--tiny", "--dtypes", "float32", *chosen)
    assert done.returncode == pytest.ExitCode.INTERRUPTED, done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert len(load(tmp_path / "build" / "run.json").measurements) == 3


def test_nothing_else_is_written(folder):
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert files == {"build/run.json", "output.txt"}


def test_the_output_fits_a_terminal(folder, run):
    lines = (folder / "output.txt").read_text().splitlines()
    measured = [line for line in lines if re.match("  [a-zA-Z]", line)]

    assert max(map(len, lines)) <= 100
    assert len(measured) == len(run.measurements)
    left_out = [line for line in lines if " left out: " in line]
    assert sum(int(line.split()[0]) for line in left_out) == len(run.left_out)
    assert len(left_out) == len({x.cell.implementation for x in run.left_out})
    assert "n = 64, k = 5, batch 1, float32, forward + backward" in lines


def test_all_of_a_task_were_measured_in_turns(run):
    """What was not would have been beside another copy."""
    bandwidths = defaultdict(set)
    for m in run.measurements:
        bandwidths[m.cell.task].add(round(m.cell.traffic / m.seconds / m.share))
    assert all(max(found) - min(found) <= 1 for found in bandwidths.values())
    assert all(len({m.cell for m in run.measurements if m.cell.task == t}) > 4 for t in bandwidths)


def test_how_busy_the_machine_was_is_said(run):
    assert set(run.machine) >= {"load_before", "others"}
    assert 0 <= (run.machine["others"] or 0) <= 1


def test_every_cell_is_measured_or_left_out_by_name(run):
    measured = {m.cell for m in run.measurements}
    left_out = {x.cell for x in run.left_out}
    assert not measured & left_out
    assert measured | left_out == set(TINY.cells(("float32",)))
    assert all(x.why for x in run.left_out)


def test_nothing_of_ours_and_no_baseline_is_left_out(run):
    needed = {i.name for i in IMPLEMENTATIONS.values() if i.ours}
    needed |= {"divide and conquer", "summation", "F.cross_entropy"}
    assert not needed & {x.cell.implementation for x in run.left_out}


def test_measurements_come_with_the_errors_and_the_memory_of_what_was_measured(run):
    for m in run.measurements:
        assert m.seconds > 0
        assert m.clock == "host"
        if IMPLEMENTATIONS[m.cell.implementation].truth is None:
            continue
        assert m.loss_error < 1e-5
        assert (m.gradient_error is None) == (m.cell.work == FORWARD)
        assert m.gradient_error is None or m.gradient_error < 2e-3


def test_memory_is_that_of_training_along_n(run):
    for m in run.measurements:
        along_n = m.cell.k == 5 and m.cell.batch * m.cell.n == TINY.scores
        assert (m.extra_memory is not None) == (along_n and m.cell.work == BOTH)
        # nothing needs more than the references' logarithms of all polynomials
        assert m.extra_memory is None or 0 <= m.extra_memory < 800 * 4 * TINY.scores


def test_provenance_is_there_and_the_name_of_the_machine_is_not(file, run):
    assert run.machine["versions"]["torch"] == torch.__version__
    assert run.machine["kind"] == "cpu"
    content = json.loads(file.read_text())
    assert list(content["machine_info"]) == ["device"]
    assert platform.node() not in json.dumps(content["machine_info"])


def test_a_dtype_that_is_none_is_named(tmp_path):
    done = suite(tmp_path, "--dtypes", "float32,float8")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--dtypes: 'float8' is not one of float64" in done.stderr


@pytest.mark.parametrize("options", [("--collect-only",), ("-k", "eager_call")])
def test_a_run_without_a_measurement_is_no_error(tmp_path, options):
    done = suite(tmp_path, "--benchmark-only", "--tiny", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "build" / "run.json").exists()
