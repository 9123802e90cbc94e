"""The benchmark: `pytest bench/ --benchmark-only`, with `--benchmark-json=FILE` for `python -m bench.report FILE`.

Every cell is first compared with truth; a wrong answer has no speed.  What cannot be measured is skipped by name.
On a GPU the time is the device's: of a CUDA graph of steps on inputs that are not in the cache, or, for
implementations that synchronise with the host, of the same steps between two events.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NoReturn

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.cells import K, Plan
from bench.implementations import IMPLEMENTATIONS, Implementation, Unavailable
from bench.machine import l2_bytes
from bench.memory import extra_memory
from bench.results import BOTH, Cell, as_json
from bench.timing import Clock, Graph, HostClock, Result, Step, flush, inputs, number_of_inputs
from bench.truth import Truth, check_finite

_SECONDS = 0.1  # of measuring, for a cell
_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 100
_EAGER_CALLS = 50

# of peers and of torch.compile
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:::{peer}") for peer in ("topk", "difftopk", "liger_kernel")
] + [pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")]


def test_copy(device: torch.device, sizes: Plan, clock: Clock, benchmark: BenchmarkFixture) -> None:
    """What moving the scores of the run costs: the bandwidth that others are a fraction of."""
    source = torch.randn(sizes.scores, device=device)
    target = torch.empty_like(source)
    benchmark.group = "copy"
    benchmark.extra_info |= {"measures": "copy", "bytes": 2 * source.nbytes}
    benchmark.pedantic(target.copy_, (source,), rounds=50, warmup_rounds=5)
    assert torch.equal(source, target)


@pytest.mark.benchmark(timer=HostClock(_EAGER_CALLS).read)
@pytest.mark.parametrize(
    "name", [i.name for i in IMPLEMENTATIONS.values() if i.ours] + ["F.cross_entropy"]
)
def test_eager_call(
    name: str, device: torch.device, seed: int, sizes: Plan, benchmark: BenchmarkFixture
) -> None:
    """What launching costs where there is next to nothing to compute."""
    if device.type == "cpu":
        pytest.skip("on a CPU nothing is launched")
    cell = Cell(name, sizes.n_of_batch, K, 16, "float32", BOTH)
    step = Step(IMPLEMENTATIONS[name].make(cell.n, K, device), *inputs(cell, seed, device))

    def calls() -> None:
        for _ in range(_EAGER_CALLS):
            step()
        torch.cuda.synchronize()

    benchmark.group = "eager calls"
    benchmark.extra_info |= {"measures": "host time", "implementation": name}
    benchmark.pedantic(calls, rounds=20, warmup_rounds=2)


def test_loss(
    cell: Cell,
    device: torch.device,
    seed: int,
    sizes: Plan,
    kernels: None,
    clock: Clock,
    benchmark: BenchmarkFixture,
    leave_out: Callable[[str], NoReturn],
) -> None:
    implementation = IMPLEMENTATIONS[cell.implementation]
    if why := implementation.why_not(cell.n, cell.dtype):
        leave_out(why)
    k = "" if cell.k is None else f" k = {cell.k},"
    benchmark.group = f"n = {cell.n},{k} {cell.batch} rows, {cell.dtype}, {cell.work}"
    time = _time_on_gpu if device.type == "cuda" else _time_on_cpu
    try:
        step = Step(implementation.make(cell.n, cell.k or K, device), *inputs(cell, seed, device))
        check = Check(cell, implementation, seed, device)
        loss_error, gradient_error = check(step.on_a_copy()())
        memory = extra_memory(step, device) if _wants_memory(cell, sizes) else None
        how = time(step, cell, clock, benchmark, check)
    except Unavailable as why:
        leave_out(str(why))
    except torch.OutOfMemoryError:
        leave_out("out of memory")
    except Exception as why:
        # what a peer cannot do, or gets wrong, is a result; of ours it is a failure
        if implementation.ours:
            raise
        leave_out(f"{type(why).__name__}: {str(why).partition(chr(10))[0]}")
    benchmark.extra_info |= {
        "measures": "loss",
        "cell": as_json(cell),
        "clock": how,
        "extra_memory": memory,
        "loss_error": loss_error,
        "gradient_error": gradient_error,
    }


def _wants_memory(cell: Cell, sizes: Plan) -> bool:
    """Along n: where it is most of the work, recording allocations takes longer than all the rest."""
    return cell.work == BOTH and sizes.is_in_n(cell.n, cell.k, cell.batch)


class Check:
    """Compares a result with truth: its errors, or WrongError."""

    def __init__(
        self, cell: Cell, implementation: Implementation, seed: int, device: torch.device
    ) -> None:
        self._truth = None
        if implementation.truth is not None:
            shape = (cell.n, cell.k or K, cell.batch, cell.dtype)
            self._truth = _truth(implementation.truth, *shape, seed, device)

    def __call__(self, result: Result) -> tuple[float | None, float | None]:
        if self._truth is None:
            return check_finite(*result)
        return self._truth.errors(*result)


@lru_cache(maxsize=8)  # the definitions for one shape
def _truth(
    name: str, n: int, k: int, batch: int, dtype: str, seed: int, device: torch.device
) -> Truth:
    return Truth(name, *inputs(Cell("", n, k, batch, dtype, BOTH), seed, device), k)


def _time_on_cpu(
    step: Step, cell: Cell, clock: Clock, benchmark: BenchmarkFixture, check: Check
) -> str:
    benchmark.pedantic(step, rounds=_rounds(step, clock))
    return "host"


def _time_on_gpu(
    step: Step, cell: Cell, clock: Clock, benchmark: BenchmarkFixture, check: Check
) -> str:
    device = step.scores.device
    cache = l2_bytes(device)
    clock.steps = number_of_inputs(cell.traffic, cache)
    others = (inputs(cell, seed, device) for seed in range(1, clock.steps))
    steps = [step, *(Step(step.loss, *other) for other in others)]
    evict = flush(cache)
    if IMPLEMENTATIONS[cell.implementation].capturable:
        graph = Graph(steps)
        benchmark.pedantic(graph.replay, setup=evict, rounds=_rounds(graph.replay, clock))
        graph.poison()
        graph.replay()
        check(graph.results[0])
        return "graph replay"

    def all_steps() -> None:
        for each in steps:
            each()

    benchmark.pedantic(all_steps, setup=evict, rounds=_rounds(all_steps, clock), warmup_rounds=1)
    return "events"


def _rounds(call: Callable[[], object], clock: Clock) -> int:
    start = clock.read()
    call()
    wanted = _SECONDS / clock.steps / (clock.read() - start)
    return min(_MOST_ROUNDS, max(_FEWEST_ROUNDS, int(wanted)))
