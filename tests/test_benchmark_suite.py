"""The benchmark suite itself: that it checks before it measures, and says what it measured."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import triton_topk
from bench import timing
from bench.cells import CPU, GPU, TINY
from bench.implementations import IMPLEMENTATIONS, Unavailable
from bench.memory import extra_memory
from bench.results import BOTH, FORWARD, Cell, Run, load
from bench.timing import DeviceClock, HostClock, Step, inputs, number_of_inputs
from bench.truth import Truth, WrongError, check_finite

ROOT = Path(__file__).parents[1]
ON_CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JSON of a run on tiny scores."""
    file = tmp_path_factory.mktemp("benchmark") / "run.json"
    command = [sys.executable, "-m", "pytest", "bench/", "--benchmark-only", "--tiny", "-q"]
    options = ["--dtypes", "float32", f"--benchmark-json={file}", "-p", "no:cacheprovider"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command + options, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return file


@pytest.fixture(scope="module")
def run(file: Path) -> Run:
    return load(file)


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
        along_n = m.cell.k in (5, None) and m.cell.batch * m.cell.n == TINY.scores
        assert (m.extra_memory is not None) == (along_n and m.cell.work == BOTH)
        # nothing needs more than the references' logarithms of all polynomials
        assert m.extra_memory is None or 0 <= m.extra_memory < 800 * 4 * TINY.scores


def test_the_copy_moves_what_the_losses_move(run):
    assert list(run.copies) == [2 * 4 * TINY.scores]
    assert run.copy_bandwidth > 0


def test_provenance_is_there_and_the_name_of_the_machine_is_not(file, run):
    assert run.machine["versions"]["torch"] == torch.__version__
    assert run.machine["kind"] == "cpu"
    content = json.loads(file.read_text())
    assert list(content["machine_info"]) == ["device"]
    assert platform.node() not in json.dumps(content["machine_info"])


def truth() -> tuple[Truth, torch.Tensor, torch.Tensor]:
    scores, labels = inputs(Cell("", 30, 5, 40, "float32", BOTH), 1, ON_CPU)
    return Truth("smooth_svm", scores, labels, 5), scores, labels


def test_a_right_answer_passes_and_wrong_ones_do_not():
    expected, scores, labels = truth()
    loss, gradient = Step(triton_topk.smooth_svm, scores, labels)()
    assert max(expected.errors(loss, gradient)) < 1e-6
    assert expected.errors(loss, None)[1] is None
    for wrong in (1.2 * loss, torch.tensor(torch.nan)):
        with pytest.raises(WrongError, match="loss off by"):
            expected.errors(wrong, gradient)
    one_row = gradient.clone()
    one_row[7] *= 1.2
    for wrong in (one_row, gradient.roll(1, 0), torch.full_like(gradient, torch.nan)):
        with pytest.raises(WrongError, match="gradient off by"):
            expected.errors(loss, wrong)


@pytest.mark.parametrize("name", [n for n, i in IMPLEMENTATIONS.items() if i.ours])
def test_truth_is_that_of_the_public_functions(name):
    implementation = IMPLEMENTATIONS[name]
    cell = Cell(name, 30, 3, 20, "float64", BOTH)
    scores, labels = inputs(cell, 2, ON_CPU)
    loss = implementation.make(cell.n, 3, ON_CPU)
    expected = Truth(implementation.truth, scores, labels, 3)
    bound = 0.01 if "taylor" in name else 1e-9
    assert max(expected.errors(*Step(loss, scores, labels)())) < bound


def test_a_loss_without_a_definition_has_to_be_finite():
    assert check_finite(torch.tensor(1.0), None) == (None, None)
    with pytest.raises(WrongError):
        check_finite(torch.tensor(1.0), torch.tensor([0.0, torch.inf]))


def test_forward_alone_makes_no_gradient():
    scores, labels = inputs(Cell("", 30, 5, 4, "float32", FORWARD), 1, ON_CPU)
    assert Step(triton_topk.smooth_svm, scores, labels)()[1] is None


def test_scores_are_the_seed_s():
    cell = Cell("", 30, 5, 4, "bfloat16", BOTH)
    (a, _), (b, _), (c, _) = (inputs(cell, seed, ON_CPU) for seed in (1, 1, 2))
    assert a.dtype == torch.bfloat16
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize("work", [FORWARD, BOTH])
def test_memory_at_the_peak_beside_the_gradient(work):
    def loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            torch.empty(500_000, dtype=torch.uint8)
            torch.empty(300_000, dtype=torch.uint8)
        return (2 * scores[0]).sum()

    found = extra_memory(
        Step(loss, *inputs(Cell("", 30, 5, 4, "float32", work), 1, ON_CPU)), ON_CPU
    )
    assert 500_000 - 4 * 4 * 30 <= found < 501_000


def test_the_inputs_of_the_steps_do_not_fit_the_cache():
    megabyte = 2**20
    assert number_of_inputs(500 * megabyte, 50 * megabyte) == 2
    assert number_of_inputs(10 * megabyte, 50 * megabyte) == 20
    assert number_of_inputs(8000, 50 * megabyte) == 64


def test_the_device_clock_adds_up_what_is_between_events(monkeypatch):
    times = iter([5.0, 6.5, 10.0])  # milliseconds

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.time = next(times)

        def synchronize(self) -> None: ...

        def elapsed_time(self, later: Event) -> float:
            return later.time - self.time

    monkeypatch.setattr(timing.torch.cuda, "Event", Event)
    clock = DeviceClock(steps=2)
    first, second = clock.read(), clock.read()
    assert second - first == pytest.approx(3.5e-3 / 2)


def test_the_host_clock_gives_a_step_its_share(monkeypatch):
    monkeypatch.setattr(timing.time, "perf_counter", lambda: 12.0)
    assert HostClock(steps=4).read() == 3.0


@pytest.mark.parametrize("plan", [CPU, GPU, TINY])
def test_cells_are_measured_once_and_have_the_promised_axes(plan):
    cells = list(plan.cells(("float32", "bfloat16")))
    assert len(cells) == len(set(cells))
    ours = [c for c in cells if c.implementation == "smooth_svm" and c.work == BOTH]
    assert {c.n for c in ours if c.k == 5} >= set(plan.n)
    assert {c.batch for c in ours if c.n == plan.n_of_batch} >= set(plan.batch)
    for n in plan.n_of_k:
        assert {c.k for c in ours if c.n == n} == set(plan.k)


def test_a_dtype_that_is_none_is_named():
    command = [sys.executable, "-m", "pytest", "bench/", "--dtypes", "float32,float8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--dtypes: 'float8' is not one of float64" in done.stderr


def test_peers_that_are_not_there_say_where_to_get_them(monkeypatch):
    monkeypatch.setattr("bench.implementations.importlib.util.find_spec", lambda name: None)
    for name in ("authors' topk", "Liger cross_entropy", "difftopk"):
        with pytest.raises(Unavailable, match="is not installed: "):
            IMPLEMENTATIONS[name].make(1000, 5, ON_CPU)
