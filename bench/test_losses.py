"""`pytest bench/ --benchmark-only` measures, and writes build/run.json for `python -m bench.report`.

What cannot be measured is skipped by name.
"""

from collections import deque
from dataclasses import asdict

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.cells import BOTH, Cell, K
from bench.conftest import Suite
from bench.implementations import IMPLEMENTATIONS
from bench.timing import Step, inputs

_EAGER_CALLS = 50
_READINGS: deque[float] = deque()


@pytest.mark.parametrize(
    "name", [each.name for each in IMPLEMENTATIONS.values() if each.ours] + ["F.cross_entropy"]
)
def test_eager_call(name: str, suite: Suite, benchmark: BenchmarkFixture) -> None:
    """The host's time of a call is what launching costs where there is next to nothing to compute."""
    if suite.device.type == "cpu":
        pytest.skip("on a CPU nothing is launched")
    cell = Cell(name, suite.plan.n_of_batch, K, 16, "float32", BOTH)
    loss = IMPLEMENTATIONS[name].loss(cell.n, K, cell.dtype, suite.device)
    step = Step(loss, *inputs(cell, suite.seed, suite.device))
    benchmark.group = f"host time, {cell.task}"
    benchmark.pedantic(step, rounds=20, iterations=_EAGER_CALLS, warmup_rounds=2)


@pytest.mark.benchmark(timer=_READINGS.popleft)
def test_loss(cell: Cell, suite: Suite, benchmark: BenchmarkFixture) -> None:
    """pytest-benchmark, which would measure one after the other, is told what was measured in turns."""
    found = suite.outcome(cell)
    if isinstance(found, str):
        suite.left_out.append(asdict(cell) | {"why": found})
        pytest.skip(f"{cell.implementation}: {found}")
    if isinstance(found, Exception):
        raise found
    benchmark.group = str(cell.task)
    times = found.pop("times")
    benchmark.extra_info |= asdict(cell) | found
    for seconds in times:
        _READINGS.extend((0.0, seconds))
    benchmark.pedantic(lambda: None, rounds=len(times))
