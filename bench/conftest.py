"""These hooks tell pytest-benchmark what to measure, on what, and what goes into its JSON."""

import secrets
from typing import Any

import pytest
import torch

from bench import machine
from bench.cells import CPU, GPU, SIZES, TINY, Cell
from bench.contest import Outcome, hold, precompile


class Suite:
    """A suite holds what is measured in a session, and what came of it."""

    def __init__(self, config: pytest.Config) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.plan = GPU if self.device.type == "cuda" else CPU
        if config.getoption("--tiny"):
            self.plan = TINY
        self.seed = secrets.randbits(31)  # fresh for every run
        self.load = machine.Load()
        self.selected: list[Cell] = []
        self.left_out: list[dict[str, Any]] = []
        self._outcomes: dict[Cell, Outcome] = {}

    def outcome(self, cell: Cell) -> Outcome:
        """The first call for a task has all selected cells of it measured."""
        if not self._outcomes and self.device.type == "cuda":
            precompile(self.selected)
        if cell not in self._outcomes:
            of_task = [other for other in self.selected if other.task == cell.task]
            self._outcomes |= hold(of_task, self.seed, self.device)
        return self._outcomes[cell]


SUITE = pytest.StashKey[Suite]()


@pytest.fixture(scope="session")
def suite(request: pytest.FixtureRequest) -> Suite:
    return request.config.stash[SUITE]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("triton_topk")
    default = "float32 and bfloat16 (default)"
    group.addoption("--dtype", action="append", choices=list(SIZES), help=f"instead of {default}")
    group.addoption("--tiny", action="store_true", help="tiny shapes, to test the suite itself")


def pytest_configure(config: pytest.Config) -> None:
    config.option.benchmark_json.parent.mkdir(parents=True, exist_ok=True)
    config.stash[SUITE] = Suite(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" in metafunc.fixturenames:
        dtypes = metafunc.config.getoption("--dtype") or ("float32", "bfloat16")
        cells = list(metafunc.config.stash[SUITE].plan.cells(dtypes))
        metafunc.parametrize("cell", cells, ids=_name)


def _name(cell: Cell) -> str:
    work = cell.work.replace(" ", "")
    return f"{cell.implementation}-n{cell.n}-k{cell.k}-b{cell.batch}-{cell.dtype}-{work}"


def pytest_collection_finish(session: pytest.Session) -> None:
    params = [item.callspec.params for item in session.items if hasattr(item, "callspec")]
    session.config.stash[SUITE].selected = [each["cell"] for each in params if "cell" in each]


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    cpu = machine_info["cpu"]["brand_raw"]
    machine_info.clear()  # the name of the machine is nobody's business
    machine_info |= machine.describe(config.stash[SUITE].device, cpu)


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    suite = config.stash[SUITE]
    output_json["left_out"] = suite.left_out
    output_json["run"] = {
        **machine.commit(),
        "seed": suite.seed,
        "load_before": suite.load.before,
        "others": suite.load.others(),
    }
