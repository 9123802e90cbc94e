"""What pytest-benchmark is told about this suite: what to measure, on what, and what goes into its JSON."""

from __future__ import annotations

import argparse
import secrets
import warnings
from collections import defaultdict
from collections.abc import Callable, Generator
from dataclasses import asdict
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from bench import machine
from bench.cells import CPU, GPU, TINY, Plan
from bench.contest import Contest, GpuContest, Outcome
from bench.load import Load
from bench.precompile import precompile
from bench.reporting import terminal
from bench.results import SIZES, Cell, LeftOut, Run, read

LEFT_OUT = pytest.StashKey[list[LeftOut]]()
LOAD = pytest.StashKey[Load]()
RUN = pytest.StashKey[Run]()
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


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The tests run in parallel, which pytest-xdist does by these options; measurements would disturb each other."""
    config.option.numprocesses, config.option.dist = 0, "no"


def pytest_configure(config: pytest.Config) -> None:
    config.option.benchmark_quiet = True  # its table has twice the columns of a terminal
    config.option.benchmark_json = config.option.benchmark_json or Path("build/run.json")
    config.option.benchmark_json.parent.mkdir(parents=True, exist_ok=True)
    # of a test that was interrupted, which is no error of it
    config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used")
    config.stash[LEFT_OUT] = []
    config.stash[LOAD] = Load()
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
    work = cell.work.replace(" ", "")
    return f"{cell.implementation}-n{cell.n}-k{cell.k}-b{cell.batch}-{cell.dtype}-{work}"


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
def outcome(
    request: pytest.FixtureRequest, device: torch.device, seed: int, sizes: Plan
) -> Callable[[Cell], Outcome]:
    """A function that says what came of a cell; its first call for a task has all selected cells of it measured."""
    params = [getattr(item, "callspec", None) for item in request.session.items]
    cells = [found.params["cell"] for found in params if found and "cell" in found.params]
    by_task = defaultdict(list)
    for cell in cells:
        by_task[cell.task].append(cell)
    if device.type == "cuda":
        precompile(cells)

    @cache
    def outcomes(task: Cell) -> dict[Cell, Outcome]:
        contest = GpuContest if device.type == "cuda" else Contest
        return contest(sizes, seed, device).hold(by_task[task])

    return lambda cell: outcomes(cell.task)[cell]


@pytest.fixture
def leave_out(request: pytest.FixtureRequest, cell: Cell) -> Callable[[str], NoReturn]:
    """Skips what cannot be measured and says so in the results."""

    def skip(why: str) -> NoReturn:
        request.config.stash[LEFT_OUT].append(LeftOut(cell, why))
        pytest.skip(why)

    return skip


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    cpu = machine_info["cpu"]["brand_raw"]
    machine_info.clear()  # the name of the machine is nobody's business
    machine_info["device"] = machine.describe(the_device(), cpu) | {
        "seed": config.stash[SEED],
        "load_before": config.stash[LOAD].before,
        "others": config.stash[LOAD].others(),
    }


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict[str, Any]) -> None:
    for key in ("project", "branch"):
        del commit_info[key]
    commit_info["id"] = machine.commit()


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]
) -> None:
    output_json["left_out"] = [asdict(item) for item in config.stash[LEFT_OUT]]
    for benchmark in output_json["benchmarks"]:
        # said in extra_info, as text
        for key in ("params", "param", "options"):
            del benchmark[key]
        del benchmark["stats"]["data"]  # of every call
    config.stash[RUN] = read(output_json)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish() -> Generator[None, None, None]:
    """It is no error if nothing was measured, as where pytest was asked for a list of the tests."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Not saving anything")
        return (yield)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    run = config.stash.get(RUN, None)
    for line in terminal.lines(run, config.stash[LEFT_OUT]):
        terminalreporter.write_line(line)
    if run:
        file = config.option.benchmark_json
        terminalreporter.write_line(f"Written, for `python -m bench.report`: {file}")
