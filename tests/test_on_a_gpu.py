"""The commands for a GPU before and beside the benchmark work, as far as a machine without one can tell."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest
import torch
from gpu_stand_in import OnCpu, once, stand_in

from bench.ahead_of_time import Case
from bench.sweep import __main__ as sweep
from bench.sweep import page, times
from bench.sweep.variants import CASES, text, variants
from tests import smoke
from triton_topk import eager
from triton_topk.kernels import launch

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_sweep_begins_with_the_table_and_holds_every_score_once(case):
    found = variants(case)
    assert found[0] == launch.choose(case.parameters, case.n, case.dtype)
    assert len(found) == len(set(found)) > 5
    for config in found:
        of_block = config.columns * config.vectors
        vector = 16 // case.dtype.itemsize
        vector = math.gcd(case.n, vector) if case.n <= 1024 else vector
        assert config.rows * config.columns == config.warps * 32 * vector
        blocks = math.ceil(case.n / of_block)
        assert config.parts * config.blocks >= blocks > config.parts * (config.blocks - 1)


def faults(monkeypatch, case: Case, run=eager.run) -> list[str]:
    """Return the faults that are found with the eager backend in place of the kernel."""
    monkeypatch.setattr(launch, "run", run)
    return list(smoke.faults(case, 1, "cpu"))


@pytest.mark.parametrize(
    "case", [Case(21, 5, torch.bfloat16, hits=True), Case(21, 1, torch.float32)], ids=str
)
def test_a_right_kernel_has_no_fault(monkeypatch, case):
    assert faults(monkeypatch, case) == []


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("losses", lambda x: x[5].mul_(1.001), "losses off by 0.001 in row 5"),
        ("gradient", lambda x: x[5].mul_(1.05), "in row 5"),
        ("gradient", lambda x: x[3, 0].fill_(math.nan), "gradient: NaN differs in rows [3]"),
        ("hits", lambda x: x[0].logical_not_(), "hits off by"),
    ],
)
def test_a_wrong_result_is_a_fault(monkeypatch, name, spoil, said):
    def run(*args, **kwargs):
        eager.run(*args, **kwargs)
        if len(kwargs["losses"]) > 4 and args[0].scores.dtype == torch.bfloat16:
            spoil(kwargs[name])

    assert any(
        said in fault for fault in faults(monkeypatch, Case(21, 5, torch.bfloat16, hits=True), run)
    )


def test_bits_that_differ_between_runs_or_batches_are_faults(monkeypatch):
    calls = []

    def run(*args, **kwargs):
        eager.run(*args, **kwargs)
        calls.append(len(kwargs["losses"]))
        kwargs["losses"][2 if calls[-1] > 2 else 0] *= 1 + 1e-7 * len(calls)

    found = faults(monkeypatch, Case(21, 1, torch.float32), run)
    assert "other bits in another run" in found
    assert "other bits of row 2 alone" in found


@pytest.mark.parametrize("of", [smoke, sweep])
def test_a_pattern_that_matches_nothing_is_an_error(monkeypatch, capsys, of):
    monkeypatch.setattr(sys, "argv", ["", "-k", "no such case"])
    with pytest.raises(SystemExit):
        of.main()
    assert "matches 'no such case'" in capsys.readouterr().err


SCRIPT = ROOT / "bench/on_gpu.sh"


def bash(*command: str | Path, first: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run bash where this test's Python is the first of the path, but for what is in the folder `first`."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    path = [*filter(None, [first]), Path(sys.executable).parent, variables["PATH"]]
    return subprocess.run(
        ["bash", *command],
        cwd=ROOT,
        env=variables | {"PATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_step_ends_at_its_limit_and_leaves_its_output_and_the_next_one_runs(tmp_path):
    """The script's own function, on commands of the test."""
    script = SCRIPT.read_text()
    head = script[: script.index("\ntests() {")]
    steps = """
step quick 5 echo done
step slow 1 bash -c "echo begun; sleep 60"
tar -xzOf "$out.tar.gz" ./slow.txt
step last 5 echo done
"""
    found = bash("-c", head + steps, "on_gpu.sh", tmp_path / "out").stdout
    assert "== quick: exit 0" in found
    assert "== slow: exit 124" in found
    assert found.count("begun\n") == 2  # as it is shown, and of what is packed
    assert "== last: exit 0" in found
    assert (tmp_path / "out/slow.txt").read_text() == "begun\n"


def test_a_step_that_fails_is_said_by_the_exit_code(tmp_path):
    """Each step has a time limit, by a command that fails here."""
    (tmp_path / "timeout").symlink_to("/bin/false")
    found = bash(SCRIPT, tmp_path / "out", "device", "smoke", first=tmp_path)
    assert found.returncode == 1
    assert re.findall(r"== (.*), \d+ s", found.stdout) == ["device: exit 1", "smoke: exit 1"]


def test_the_limits_are_as_long_as_the_script_and_the_docs_say(tmp_path):
    """A command that says its limit stands for the one that sets it."""
    timeout = tmp_path / "timeout"
    timeout.write_text('#!/bin/sh\necho "$3"\n')
    timeout.chmod(0o755)
    assert bash(SCRIPT, tmp_path / "out", first=tmp_path).returncode == 0
    limits = [int(file.read_text()) for file in (tmp_path / "out").iterdir()]
    assert len(limits) == 11
    for file in (SCRIPT, ROOT / "docs/benchmarks.md"):
        (minutes,) = re.findall(r"limits\b.* (\d+) minutes in all", file.read_text())
        assert sum(limits) == 60 * int(minutes)
    bash(SCRIPT, "--dry-run", tmp_path / "dry", "smoke", first=tmp_path)
    of_dry_run, limit = (int((tmp_path / x / "smoke.txt").read_text()) for x in ("dry", "out"))
    assert of_dry_run == 10 * limit


def test_each_core_has_a_test_process_however_many_threads_a_process_has(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "timeout").symlink_to("/bin/true")
    (number,) = re.findall(
        r" -n (\d+) ", bash(SCRIPT, tmp_path / "out", "tests", first=tmp_path).stdout
    )
    assert int(number) == len(os.sched_getaffinity(0))


def test_an_unknown_step_is_an_error(tmp_path):
    found = bash(SCRIPT, tmp_path / "out", "smok")
    assert found.returncode == 2
    assert found.stderr == "no step smok\n"


@pytest.mark.parametrize("arguments", [(), ("--dry-run",), ("",)])
def test_a_missing_folder_is_an_error(tmp_path, arguments):
    """No command can make a folder or a step here."""
    for command in ("mkdir", "timeout"):
        (tmp_path / command).symlink_to("/bin/false")
    found = bash(SCRIPT, *arguments, first=tmp_path)
    assert found.returncode == 2
    assert found.stderr == "usage: bash bench/on_gpu.sh [--dry-run] OUT [STEP...]\n"


WRITTEN = {  # by each step of a dry run
    "device.txt": "copies move .* TB/s",
    "smoke.txt": "float32 .* right\n(?s:.*)All structures are right",
    "tests.txt": r"\d\d\d skipped in",
    "run-1.txt": r"(?s)n = 1,000, k = 5, .*n = 32, k = 5, .*\d\d passed",
    "run-1.json": "host time",
    "run-2.txt": r"(?s)n = 1,000, k = 1,.*n = 32, k = 5, batch 32, bfloat16.*\d\d passed",
    "run-2.json": "bfloat16",
    "linear.txt": r"linear_smooth_svm .*\n(?s:.*)Written: ",
    "linear-cuda.md": r"\(N, D, C\) = ",
    "sweep.txt": r"smooth_svm-n1000-k5-float32 \| (?s:.*)hard_svm-n1000-k5-float32 \| ",
    "sweep.jsonl": "machine",
    "ncu.txt": "(?s)^ncu needs a GPU.*-n4096-k5-b.*-n131072-k5-f.*-k16-.*lq-n131072.*lq_loss-n1000-b",
    "memcheck.txt": "^compute-sanitizer needs a GPU.*\n(.* right\n){4}All",
    "racecheck.txt": "^compute-sanitizer needs a GPU.*\n(.* right\n){4}All",
    "offsets.txt": r"\d skipped in",
    "compile.txt": r"1 configurations\nsmooth_svm-n1000-k5-float32 .* \d+ s\n",
}


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(("device", "ncu"), id="cheap"),
        pytest.param((), id="all", marks=pytest.mark.exhaustive),
    ],
)
def test_a_dry_run_does_on_a_cpu_what_each_step_does_on_a_gpu(tmp_path, steps):
    found = bash(SCRIPT, "--dry-run", tmp_path / "out", *steps)
    assert found.returncode == 0, found.stdout + found.stderr
    files = {file.name: file.read_text() for file in (tmp_path / "out").iterdir()}
    assert set(files) == {f"{step}.txt" for step in steps} or set(files) == set(WRITTEN)
    for name, content in files.items():
        assert re.search(WRITTEN[name], content), content
    with tarfile.open(tmp_path / "out.tar.gz") as packed:
        assert {Path(name).name for name in packed.getnames()} >= set(files)


def test_a_sweep_is_written_as_it_is_measured(monkeypatch, tmp_path):
    """The eager backend stands for the kernel, but for a configuration that there is not."""
    case = Case(1000, None, torch.float32, loss="lq_loss")
    first, failing, other = variants(case)[:3]

    def run(*args, config, **kwargs):
        if config == failing:
            raise RuntimeError("out of registers")
        eager.run(*args, **kwargs)
        kwargs["gradient"] *= 1 + (config == other)

    stand_in(monkeypatch)
    monkeypatch.setattr(launch, "run", run)
    monkeypatch.setattr(times, "_SCORES", 2**13)
    monkeypatch.setattr(times, "do_bench", once)
    file = tmp_path / "sweep.jsonl"
    with OnCpu():
        sweep.measure_all({case: [first, failing, other]}, file, torch.device("cuda"))

    header, *lines = map(json.loads, file.read_text().splitlines())
    assert header["machine"]["kind"] == "cuda"
    found = {line["config"]: line for line in lines}
    assert found[text(failing)]["error"] == "out of registers"
    assert found[text(first)]["wrong"] == 0
    assert found[text(other)]["wrong"] == pytest.approx(1)
    for config in (first, other):
        line = found[text(config)]
        assert line["bytes"] == 2 * 8 * 1000 * 4
        assert line["seconds"] > 0
        assert line["share"] > 0


@pytest.mark.exhaustive
def test_a_sweep_is_compiled_without_a_gpu(tmp_path):
    chosen = ["--compile", "1", "--table", "-k", "lq_loss-n1000-float32"]
    found = subprocess.run(
        [sys.executable, "-m", "bench.sweep", *chosen],
        cwd=ROOT,
        env=os.environ | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert re.fullmatch(
        r"1 configurations\nlq_loss-n1000-float32 1x128x1x8r w1 r96 p1 \d+ s\n", found
    )
    assert list(tmp_path.glob("*/loss_kernel.cubin"))


def test_the_page_of_the_sweeps_is_of_their_results():
    assert page.PAGE.read_text() == page.render(page.PAGE.parent), "python -m bench.sweep --page"


def test_a_row_of_the_page():
    """The table's configuration of today beside that of the sweep; what failed has no time."""
    case = Case(1000, 5, torch.float32)
    now = text(launch.choose(case.parameters, case.n, case.dtype))
    lines = pd.DataFrame(
        [
            {"case": str(case), "config": "then", "seconds": 2e-3, "share": 0.5},
            {"case": str(case), "config": now, "seconds": 1e-3, "share": 1.0},
            {"case": str(case), "config": "failed", "error": "registers"},
        ]
    )
    expected = [str(case), "then", now, now, "2,000", "50 %", "100 %", "100 %"]
    assert list(page.of_case(lines)) == expected
    assert list(page.of_case(lines.iloc[[2, 0]]))[4:6] == ["", ""]
    assert list(page.of_case(lines.iloc[[2]]))[2:] == ["none", now, "", "", "", ""]
