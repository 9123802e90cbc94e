"""The benchmark suite checks before it measures, and says what it measured."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from gpu_stand_in import stand_in

import triton_topk
from bench import timing
from bench.cells import BOTH, CPU, FORWARD, GPU, TINY, Cell
from bench.contest import hold
from bench.implementations import IMPLEMENTATIONS, Unavailable
from bench.timing import DeviceTimer, Step, inputs
from bench.truth import Truth, WrongError, check_finite, extra_memory
from triton_topk import reference

ON_CPU = torch.device("cpu")


def cell(name: str = "", work: str = BOTH, **changed: object) -> Cell:
    return replace(Cell(name, 32, 5, 32, "float32", work), **changed)


def test_a_right_answer_passes_and_wrong_ones_do_not():
    scores, labels = inputs(cell(), 1, ON_CPU)
    truth = Truth(reference.smooth_svm, scores, labels, 5)
    loss, gradient = Step(triton_topk.smooth_svm, scores, labels)()
    truth.check(loss, gradient)
    truth.check(loss, None)
    for wrong in (1.2 * loss, torch.tensor(torch.nan)):
        with pytest.raises(WrongError, match="loss off by"):
            truth.check(wrong, gradient)
    one_row = gradient.clone()
    one_row[7] *= 1.2
    for wrong in (one_row, gradient.roll(1, 0), torch.full_like(gradient, torch.nan)):
        with pytest.raises(WrongError, match="gradient off by"):
            truth.check(loss, wrong)


@pytest.mark.parametrize(
    "name",
    [*(each.name for each in IMPLEMENTATIONS.values() if each.ours), "smooth_svm eager"],
)
def test_truth_is_that_of_the_public_functions(name, monkeypatch):
    monkeypatch.setattr("bench.truth._WRONG", 0.01 if "taylor" in name else 1e-9)
    implementation = IMPLEMENTATIONS[name]
    scores, labels = inputs(cell(dtype="float64"), 2, ON_CPU)
    loss = implementation.loss(32, 3, "float64", ON_CPU)
    Truth(implementation.truth, scores, labels, 3).check(*Step(loss, scores, labels)())


def test_a_loss_without_a_definition_has_to_be_finite():
    check_finite(torch.tensor(1.0), None)
    with pytest.raises(WrongError):
        check_finite(torch.tensor(1.0), torch.tensor([0.0, torch.inf]))


def test_scores_are_the_seed_s_and_forward_alone_makes_no_gradient():
    (a, labels), (b, _), (c, _) = (inputs(cell(work=FORWARD), seed, ON_CPU) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert Step(triton_topk.smooth_svm, a, labels)()[1] is None


@pytest.mark.parametrize("work", [FORWARD, BOTH])
def test_memory_at_the_peak_beside_the_gradient(work):
    def loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            torch.empty(500_000, dtype=torch.uint8)
            torch.empty(300_000, dtype=torch.uint8)
        return (2 * scores[0]).sum()

    found = extra_memory(Step(loss, *inputs(cell(batch=4, work=work), 1, ON_CPU)), ON_CPU)
    assert 500_000 - 4 * 4 * 32 <= found < 501_000


def test_what_a_peer_gets_wrong_is_left_out_and_what_we_do_is_a_failure(monkeypatch):
    def wrong(n: int, k: int, device: torch.device) -> timing.Loss:
        return lambda scores, labels: 2 * triton_topk.smooth_svm(scores, labels, k)

    for name in ("smooth_svm", "summation"):
        monkeypatch.setitem(IMPLEMENTATIONS, name, replace(IMPLEMENTATIONS[name], make=wrong))
    cells = [cell(name) for name in ("smooth_svm", "summation", "lq_loss")]
    ours, peer, right = map(hold(cells, 1, ON_CPU).get, cells)
    assert isinstance(ours, WrongError)
    assert peer == "WrongError: loss off by 1"
    assert set(right) == {"times", "share", "steady", "extra_memory"}


@pytest.mark.parametrize(
    ("name", "changed", "why"),
    [
        ("summation", {"n": 5000, "batch": 1}, "takes too long beyond 4096 classes"),
        ("summation", {"dtype": "bfloat16"}, "measured in float32"),
        ("authors' topk", {}, "topk is not installed: https://github.com/oval-group/smooth-topk"),
        ("Liger cross_entropy", {}, "liger_kernel is not installed: pip install liger-kernel"),
        ("difftopk", {}, "difftopk is not installed: pip install difftopk diffsort"),
    ],
)
def test_what_cannot_be_measured_says_why(monkeypatch, name, changed, why):
    monkeypatch.setattr("bench.implementations.importlib.util.find_spec", lambda name: None)
    asked = cell(name, **changed)
    assert hold([asked], 1, ON_CPU) == {asked: why}


def test_the_eager_backend_is_measured_on_a_cpu():
    scores, labels = inputs(cell(), 1, ON_CPU)
    eager = IMPLEMENTATIONS["smooth_svm eager"]
    found = eager.loss(32, 5, "float32", ON_CPU)(scores, labels)
    assert torch.equal(found, triton_topk.smooth_svm(scores, labels, 5, backend="eager"))
    with pytest.raises(Unavailable, match="measured on a CPU"):
        eager.loss(32, 5, "float32", torch.device("cuda"))


@pytest.mark.parametrize("capturable", [True, False])
def test_a_gpu_is_given_inputs_that_are_not_in_its_cache(monkeypatch, capturable):
    """A cache that holds the traffic of 5 steps is missed by 20 copies of the inputs, of which each step has one."""
    stand_in(monkeypatch)
    traffic = cell().traffic
    monkeypatch.setattr(timing, "l2_bytes", lambda device: 5 * traffic)
    read: list[int] = []

    def loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        read.append(scores.data_ptr())
        return triton_topk.smooth_svm(scores, labels)

    checked: list[torch.Tensor] = []
    step = Step(loss, *inputs(cell(), 1, ON_CPU))
    timer = DeviceTimer(ON_CPU)
    contestant = timer.contestant(step, traffic, lambda *found: checked.append(found), capturable)
    assert len(checked) == int(capturable)
    read.clear()
    contestant.call()
    assert contestant.steps == len(read) == len(set(read)) == 20


def test_a_graph_keeps_what_its_steps_read(monkeypatch):
    """A replay reads the addresses that were captured, whoever has them by then."""
    stand_in(monkeypatch)
    step = Step(triton_topk.lq_loss, *inputs(cell(), 1, ON_CPU))
    read = [weakref.ref(step.scores), weakref.ref(step.labels)]
    graph = timing.Graph([step], (0, 1))
    del step
    gc.collect()
    assert all(tensor() is not None for tensor in read)
    del graph
    gc.collect()
    assert not any(tensor() is not None for tensor in read)


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

    stand_in(monkeypatch)
    timer = DeviceTimer(ON_CPU)
    timer._evict = lambda: queue.append("evict")
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: queue.append("sleep"))
    assert timer.stopwatch(lambda: queue.append("call")) == pytest.approx(5e-3)
    assert queue == ["evict", "sleep", "event", "call", "event", "wait"]


@pytest.mark.parametrize("plan", [CPU, GPU, TINY])
def test_cells_are_measured_once_and_have_the_promised_axes(plan):
    cells = list(plan.cells(("float32", "bfloat16")))
    assert len(cells) == len(set(cells))
    ours = [c for c in cells if c.implementation == "smooth_svm" and c.work == BOTH]
    assert {c.n for c in ours if c.k == 5} >= set(plan.n)
    assert {c.batch for c in ours if c.n == plan.n_of_batch} >= set(plan.batch)
    for n in plan.n_of_k:
        assert {c.k for c in ours if c.n == n} == set(plan.k)
