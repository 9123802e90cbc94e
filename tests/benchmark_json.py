"""Runs of the benchmark suite made up for tests: what bench.results.load reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from bench.implementations import IMPLEMENTATIONS
from bench.results import BOTH, FORWARD, Cell, Measurement, Run

SCORES = 2**20
N = (128, 1000, 4096, 32_768, 131_072, 2**20)
K = (1, 2, 3, 5, 8, 10, 16, 20, 50)
N_OF_K = (1000, 32_768)
BATCH = (1, 16, 2048, 16_384)  # of n = 1000

MACHINE = {
    "name": "Some CPU @ 2.00GHz",
    "kind": "cpu",
    "driver": None,
    "l2_bytes": None,
    "threads": 2,
    "versions": {"python": "3.11.0", "torch": "2.13.0"},
}

NANOSECONDS = {  # of a score; what has a k takes k of them
    "smooth_svm": 10,
    "smooth_svm taylor": 11,
    "hard_svm": 5,
    "smooth_svm_lq": 12,
    "lq_loss": 2,
    "divide and conquer": 40,
    "summation": 30,
    "F.cross_entropy": 4,
    "F.cross_entropy compiled": 1,
    "authors' topk": 100,
    "Liger cross_entropy": 3,
    "difftopk": 20,
}


def cells(dtypes: Iterable[str] = ("float32", "bfloat16")) -> list[Cell]:
    """Everything along n, forward too; along the batch forward + backward; along k but for ours without."""
    shapes = [(n, 5, SCORES // n, work) for n in N for work in (FORWARD, BOTH)]
    shapes += [(n, k, SCORES // n, BOTH) for n in N_OF_K for k in K]
    shapes += [(1000, 5, batch, BOTH) for batch in BATCH]
    return list(
        dict.fromkeys(
            Cell(i.name, n, k, batch, dtype, work)
            for dtype in dtypes
            for n, k, batch, work in shapes
            for i in IMPLEMENTATIONS.values()
            if k == 5 or i.has_k or not i.ours
        )
    )


def run(cells: Iterable[Cell], seconds: Callable[[Cell], float], **changed: Any) -> Run:
    usual = {
        "machine": MACHINE,
        "commit": "0123456789",
        "date": "2026-01-01",
        "measurements": [
            Measurement(
                cell,
                seconds(cell),
                spread=0.125,
                share=0.25,
                waited=0.0,
                copy_steady=True,
                clock="host",
                extra_memory=4 * cell.batch,
                loss_error=1e-7,
                gradient_error=2e-7 if cell.work == BOTH else None,
            )
            for cell in cells
        ],
        "left_out": [],
        "host": {},
    }
    return Run(**(usual | changed))


def seconds(cell: Cell) -> float:
    k = cell.k if IMPLEMENTATIONS[cell.implementation].has_k else 1
    return NANOSECONDS[cell.implementation] * 1e-9 * cell.n * cell.batch * k


def whole_run(**changed: Any) -> Run:
    return run(cells(), seconds, **changed)


def content(made_up: Run) -> dict[str, Any]:
    """The JSON of which `load` makes this run."""

    def benchmark(seconds: float, spread: float = 0.0, **extra_info: Any) -> dict[str, Any]:
        stats = {"median": seconds, "iqr": spread * seconds}
        return {"extra_info": extra_info, "stats": stats}

    return {
        "machine_info": {"device": made_up.machine},
        "commit_info": {"id": made_up.commit, "dirty": False},
        "datetime": f"{made_up.date}T00:00:00",
        "left_out": [asdict(item) for item in made_up.left_out],
        "benchmarks": [
            *(
                benchmark(s, measures="host time", implementation=name)
                for name, s in made_up.host.items()
            ),
            *(benchmark(measures="loss", **asdict(m)) for m in made_up.measurements),
        ],
    }
