"""The benchmark: `pytest bench/ --benchmark-only` writes build/run.json for `python -m bench.report`.

What cannot be measured is skipped by name.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import NoReturn

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.cells import K, Plan
from bench.contest import Outcome
from bench.implementations import IMPLEMENTATIONS
from bench.results import BOTH, Cell
from bench.timing import Step, inputs

_EAGER_CALLS = 50
_READINGS: deque[float] = deque()

# of peers, of torch.compile, and of autograd where a leaf is older than the graph that is captured on another stream
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:::{peer}") for peer in ("topk", "difftopk", "liger_kernel")
] + [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream:UserWarning"),
]


@pytest.mark.benchmark(timer=lambda: time.perf_counter() / _EAGER_CALLS)
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

    benchmark.extra_info |= {"measures": "host time", "implementation": name}
    benchmark.pedantic(calls, rounds=20, warmup_rounds=2)


@pytest.mark.benchmark(timer=_READINGS.popleft)
def test_loss(
    cell: Cell,
    outcome: Callable[[Cell], Outcome],
    leave_out: Callable[[str], NoReturn],
    benchmark: BenchmarkFixture,
) -> None:
    """Tells pytest-benchmark, which would measure one after the other, what was measured in turns."""
    found = outcome(cell)
    if isinstance(found, str):
        leave_out(found)
    if isinstance(found, Exception):
        raise found
    benchmark.extra_info |= {"measures": "loss", "cell": asdict(cell), **found.said}
    for seconds in found.times:
        _READINGS.extend((0.0, seconds))
    benchmark.pedantic(lambda: None, rounds=len(found.times))
