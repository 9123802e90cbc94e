"""What pytest-benchmark is told about this suite: what to measure, on what, and what goes into its JSON."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NoReturn

import pytest
import torch

from bench import machine
from bench.cells import CPU, GPU, TINY, Plan
from bench.precompile import precompile
from bench.results import SIZES, Cell, as_json
from bench.timing import Clock, DeviceClock, HostClock

LEFT_OUT = pytest.StashKey[list[dict[str, Any]]]()
SEED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("triton_topk")
    group.addoption(
        "--dtypes",
        type=_dtypes,
        default=("float32", "bfloat16"),
        help="dtypes of the scores; float16 is not among the default ones (%(default)s)",
    )
    group.addoption("--tiny", action="store_true", help="tiny shapes, to test the suite itself")


def _dtypes(names: str) -> tuple[str, ...]:
    found = tuple(names.split(","))
    if unknown := [name for name in found if name not in SIZES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(SIZES)}")
    return found


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = []
    config.stash[SEED] = secrets.randbits(31)  # fresh for every run


@lru_cache
def the_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def plan(config: pytest.Config) -> Plan:
    if config.getoption("--tiny"):
        return TINY
    return GPU if the_device().type == "cuda" else CPU


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" in metafunc.fixturenames:
        cells = list(plan(metafunc.config).cells(metafunc.config.getoption("--dtypes")))
        metafunc.parametrize("cell", cells, ids=_name)


def _name(cell: Cell) -> str:
    k = "" if cell.k is None else f"-k{cell.k}"
    work = cell.work.replace(" ", "")
    return f"{cell.implementation}-n{cell.n}{k}-b{cell.batch}-{cell.dtype}-{work}"


@pytest.fixture(scope="session")
def device() -> torch.device:
    return the_device()


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    return request.config.stash[SEED]


@pytest.fixture(scope="session")
def sizes(request: pytest.FixtureRequest) -> Plan:
    return plan(request.config)


@pytest.fixture(scope="session")
def kernels(request: pytest.FixtureRequest, device: torch.device) -> None:
    """Our kernels for the cells of this run, compiled on all cores before the first is measured."""
    if device.type == "cuda":
        items = [item for item in request.session.items if isinstance(item, pytest.Function)]
        cells = [item.callspec.params.get("cell") for item in items if hasattr(item, "callspec")]
        precompile([cell for cell in cells if cell is not None])


@pytest.fixture
def clock(request: pytest.FixtureRequest, device: torch.device) -> Clock:
    """The clock of the `benchmark` fixture, which a test names after this one."""
    clock = DeviceClock() if device.type == "cuda" else HostClock()
    request.node.add_marker(pytest.mark.benchmark(timer=clock.read))
    return clock


@pytest.fixture
def leave_out(request: pytest.FixtureRequest, cell: Cell) -> Callable[[str], NoReturn]:
    """Skips what cannot be measured and says so in the results."""

    def skip(why: str) -> NoReturn:
        request.config.stash[LEFT_OUT].append({"cell": as_json(cell), "why": why})
        pytest.skip(why)

    return skip


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    cpu = machine_info["cpu"]["brand_raw"]
    machine_info.clear()  # the name of the machine is nobody's business
    machine_info["device"] = machine.describe(the_device(), cpu) | {"seed": config.stash[SEED]}


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict[str, Any]) -> None:
    for key in ("project", "branch"):
        del commit_info[key]


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]
) -> None:
    output_json["left_out"] = config.stash[LEFT_OUT]
    for benchmark in output_json["benchmarks"]:
        # said in extra_info, as text
        for key in ("params", "param", "options"):
            del benchmark[key]
        del benchmark["stats"]["data"]  # of every round
