"""The benchmark suite itself: that it checks before it measures, and says what it measured."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from gpu_stand_in import stand_in

import triton_topk
from bench import contest, rounds, timing
from bench.cells import CPU, GPU, TINY
from bench.contest import Contest, GpuContest, Measured
from bench.implementations import IMPLEMENTATIONS, Unavailable
from bench.memory import extra_memory
from bench.results import BOTH, FORWARD, Cell
from bench.timing import DeviceStopwatch, Step, inputs, number_of_inputs
from bench.truth import Truth, WrongError, check_finite
from triton_topk import backends, eager, ops
from triton_topk.kernels import launch

ON_CPU = torch.device("cpu")


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


def test_a_call_is_made_often_enough_for_its_launch_to_be_nothing():
    assert timing.cycled(["a", "b"]) == ["a", "b"] * 4
    assert timing.cycled(["a", "b", "c"]) == ["a", "b", "c"] * 3
    assert timing.cycled(list(range(20))) == list(range(20))


def test_a_device_is_timed_from_where_the_call_is_in_its_queue(monkeypatch):
    queue = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            queue.append("event")

        def synchronize(self) -> None:
            queue.append("wait")

        def elapsed_time(self, later: Event) -> float:
            return 5.0  # milliseconds

    monkeypatch.setattr(timing.torch.cuda, "Event", Event)
    monkeypatch.setattr(timing.torch.cuda, "_sleep", lambda cycles: queue.append("sleep"))
    assert DeviceStopwatch()(lambda: queue.append("call")) == pytest.approx(5e-3)
    assert queue == ["sleep", "event", "call", "event", "wait"]


@pytest.mark.parametrize("name", ["smooth_svm", "lq_loss"])
def test_the_kernel_of_a_step_is_launched_again_alone(monkeypatch, name):
    """The eager backend stands for the kernels."""
    launched = []

    def run(*args, **kwargs):
        launched.append(name)
        eager.run(*args, **kwargs)

    monkeypatch.setattr(launch, "run", run)
    monkeypatch.setattr(ops, "choose", lambda batch, loss: backends.BACKENDS[0])
    cell = Cell(name, 32, 5, 4, "float32", BOTH)
    step = Step(IMPLEMENTATIONS[name].make(32, 5, ON_CPU), *inputs(cell, 1, ON_CPU))
    kernel = timing.Kernel.of(step)
    loss, gradient = step()
    launched.clear()
    losses, again = kernel()
    assert launched == [name]
    torch.testing.assert_close(losses.sum(), loss.detach())
    assert torch.equal(again, gradient)


def test_what_a_peer_gets_wrong_is_left_out_and_what_we_do_is_a_failure(monkeypatch):
    def wrong(n: int, k: int, device: torch.device) -> timing.Loss:
        return lambda scores, labels: 2 * triton_topk.smooth_svm(scores, labels, k)

    names = ("smooth_svm", "summation", "lq_loss")
    for name in names[:2]:
        spoilt = replace(IMPLEMENTATIONS[name], make=wrong)
        monkeypatch.setitem(IMPLEMENTATIONS, name, spoilt)
    cells = [Cell(name, 32, 5, 32, "float32", BOTH) for name in names]
    ours, peer, right = map(Contest(TINY, 1, ON_CPU).hold(cells).get, cells)

    assert isinstance(ours, WrongError)
    assert peer == "WrongError: loss off by 1"
    assert isinstance(right, Measured)


def test_a_peer_that_fails_in_its_turn_leaves_the_others_theirs(monkeypatch):
    calls = []

    def exhausting(n: int, k: int, device: torch.device) -> timing.Loss:
        def loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            calls.append(n)
            if len(calls) > 30:
                raise torch.OutOfMemoryError
            return triton_topk.smooth_svm(scores, labels, k)

        return loss

    spoilt = replace(IMPLEMENTATIONS["summation"], make=exhausting)
    monkeypatch.setitem(IMPLEMENTATIONS, "summation", spoilt)
    cells = [Cell(name, 32, 5, 32, "float32", BOTH) for name in ("smooth_svm", "summation")]
    ours, peer = map(Contest(TINY, 1, ON_CPU).hold(cells).get, cells)
    assert isinstance(ours, Measured)
    assert peer == "out of memory"


def test_a_graph_keeps_what_its_steps_read(monkeypatch):
    """A replay reads the addresses that were captured, whoever has them by then."""
    stand_in(monkeypatch)
    step = Step(triton_topk.lq_loss, *inputs(Cell("", 32, 5, 4, "float32", BOTH), 1, ON_CPU))
    read = [weakref.ref(step.scores), weakref.ref(step.labels)]
    graph = timing.Graph([step], (0, 1))
    del step
    gc.collect()
    assert all(tensor() is not None for tensor in read)
    del graph
    gc.collect()
    assert not any(tensor() is not None for tensor in read)


@pytest.fixture
def gpu(monkeypatch) -> list[object]:
    """In place of a GPU; what has been done is kept."""
    done: list[object] = []
    stand_in(monkeypatch)
    monkeypatch.setattr(contest, "l2_bytes", lambda device: 5 * 8 * 32 * 4)
    monkeypatch.setattr(contest, "flush", lambda l2_bytes: lambda: done.append("evict"))
    return done


def test_a_task_on_a_gpu(gpu):
    cells = [Cell(name, 32, 5, 4, "float32", BOTH) for name in ("smooth_svm", "F.cross_entropy")]
    found = GpuContest(TINY, 1, ON_CPU).hold(cells)
    for cell in cells:
        assert isinstance(found[cell], Measured), found[cell]
        assert found[cell].said["clock"] == "graph replay"
    assert "evict" in gpu


def test_the_kernel_takes_turns_with_the_step_on_a_gpu(gpu, monkeypatch):
    """The eager backend stands for it."""
    monkeypatch.setattr(launch, "run", eager.run)
    monkeypatch.setattr(ops, "choose", lambda batch, loss: backends.BACKENDS[0])
    cells = [Cell(name, 32, 5, 4, "float32", BOTH) for name in ("smooth_svm", "F.cross_entropy")]
    ours, other = map(GpuContest(TINY, 1, ON_CPU).hold(cells).get, cells)
    assert ours.said["kernel"] > 0
    assert "kernel" not in other.said


def test_an_error_of_the_copy_is_nobody_else_s(gpu, monkeypatch):
    def spoilt(self, task, copied):
        return rounds.Contestant(lambda: 1 / 0, 1)

    monkeypatch.setattr(GpuContest, "_copy", spoilt)
    with pytest.raises(rounds.TurnError, match="division by zero"):
        GpuContest(TINY, 1, ON_CPU).hold([Cell("lq_loss", 32, 5, 4, "float32", BOTH)])


@pytest.mark.parametrize(("batch", "copied"), [(1, 32), (40_000, 5 * 2**18)])
def test_what_is_copied_on_a_gpu_has_whole_mebibytes_where_it_has_any(gpu, batch, copied):
    task = Cell("", 32, 5, batch, "float32", BOTH)
    assert GpuContest(TINY, 1, ON_CPU)._copied(task).numel() == copied


@pytest.mark.parametrize("capturable", [True, False])
def test_a_gpu_is_given_inputs_that_are_not_in_its_cache(gpu, capturable):
    cell = Cell("smooth_svm", 32, 5, 4, "float32", BOTH)

    def loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        gpu.append(scores.data_ptr())
        return triton_topk.smooth_svm(scores, labels)

    def check(loss: torch.Tensor, gradient: torch.Tensor | None) -> tuple[None, None]:
        gpu.append("check")
        return None, None

    step = Step(loss, *inputs(cell, 1, ON_CPU))
    contestant, clock = GpuContest(TINY, 1, ON_CPU).contestant(step, cell, check, capturable)
    assert clock == ("graph replay" if capturable else "events")
    assert gpu.count("check") == int(capturable)
    gpu.clear()
    contestant.before()
    contestant.call()
    assert gpu[0] == "evict"
    assert contestant.steps == len(gpu[1:]) == len(set(gpu[1:])) == 20


@pytest.mark.parametrize("plan", [CPU, GPU, TINY])
def test_cells_are_measured_once_and_have_the_promised_axes(plan):
    cells = list(plan.cells(("float32", "bfloat16")))
    assert len(cells) == len(set(cells))
    ours = [c for c in cells if c.implementation == "smooth_svm" and c.work == BOTH]
    assert {c.n for c in ours if c.k == 5} >= set(plan.n)
    assert {c.batch for c in ours if c.n == plan.n_of_batch} >= set(plan.batch)
    for n in plan.n_of_k:
        assert {c.k for c in ours if c.n == n} == set(plan.k)


def test_peers_that_are_not_there_say_where_to_get_them(monkeypatch):
    monkeypatch.setattr("bench.implementations.importlib.util.find_spec", lambda name: None)
    for name in ("authors' topk", "Liger cross_entropy", "difftopk"):
        with pytest.raises(Unavailable, match="is not installed: "):
            IMPLEMENTATIONS[name].make(1000, 5, ON_CPU)
