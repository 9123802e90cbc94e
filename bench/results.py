"""A run of the benchmark suite as its JSON file holds it; conftest.py writes it, report.py reads it.

The file is pytest-benchmark's.  `extra_info` of a benchmark says what was measured, `machine_info` on what, and
`left_out`, which this suite adds, what was not measured and why.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

FORWARD = "forward"
BOTH = "forward + backward"
SIZES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}  # bytes of a score, by dtype
# A pass over the scores may move their bytes a little faster than a copy does.
MOST_SPREAD, MOST_WAITED, MOST_SHARE = 0.3, 0.1, 1.05


@dataclass(frozen=True, order=True)
class Cell:
    """One thing to measure: an implementation at work on scores of one shape and type."""

    implementation: str
    n: int
    k: int  # of the implementations beside it, where it has none itself
    batch: int
    dtype: str  # "float32", ...
    work: str  # FORWARD or BOTH

    @property
    def traffic(self) -> int:
        """Bytes that must move: the scores read once, the gradient written once."""
        return self.batch * self.n * SIZES[self.dtype] * (2 if self.work == BOTH else 1)

    @property
    def task(self) -> Cell:
        """What all implementations are given, one after the other in the same rounds."""
        return replace(self, implementation="")


def is_steady(spread: float, share: float, waited: float) -> bool:
    """What is not was measured while the machine was busy with something else."""
    return spread <= MOST_SPREAD and share <= MOST_SHARE and waited <= MOST_WAITED


@dataclass(frozen=True)
class Measurement:
    cell: Cell
    seconds: float  # median over the calls that were timed
    spread: float  # interquartile range over the median
    share: float  # of the bandwidth of a copy of the scores in the same rounds
    waited: float  # by its threads for a CPU, over the time of a call; median
    copy_steady: bool
    clock: str  # "host", "graph replay" or "events": what took the time
    extra_memory: int | None  # peak bytes beyond the scores and the gradient
    loss_error: float | None  # relative, against truth in float64
    gradient_error: float | None  # relative to the largest entry of a row
    kernel: float | None = None  # seconds of the kernel alone, on a GPU; median

    @property
    def steady(self) -> bool:
        return is_steady(self.spread, self.share, self.waited) and self.copy_steady

    @property
    def kernel_share(self) -> float | None:
        """The kernel's of the bandwidth of the copy."""
        return None if self.kernel is None else self.share * self.seconds / self.kernel


@dataclass(frozen=True)
class LeftOut:
    cell: Cell
    why: str


@dataclass(frozen=True)
class Run:
    """`machine`: name, kind ("cpu" or "cuda"), driver, l2_bytes, threads, versions {package: version}, seed, and how
    busy it was: load_before, others.

    `host`: seconds of host time of an eager call, for each implementation, on a device with a queue of its own.
    """

    machine: dict[str, Any]
    commit: str
    date: str
    measurements: list[Measurement]
    left_out: list[LeftOut]
    host: dict[str, float]


def load(path: Path) -> Run:
    return read(json.loads(path.read_text()))


def read(content: dict[str, Any]) -> Run:
    run = Run(
        machine=content["machine_info"]["device"],
        commit=_commit(content["commit_info"]),
        date=content["datetime"][:10],
        measurements=[],
        left_out=[LeftOut(Cell(**x["cell"]), x["why"]) for x in content["left_out"]],
        host={},
    )
    for benchmark in content["benchmarks"]:
        info, stats = dict(benchmark["extra_info"]), benchmark["stats"]
        seconds = stats["median"]
        match info.pop("measures"):
            case "host time":
                run.host[info["implementation"]] = seconds
            case "loss":
                cell = Cell(**info.pop("cell"))
                spread = stats["iqr"] / seconds
                run.measurements.append(Measurement(cell, seconds, spread, **info))
    return run


def _commit(info: dict[str, Any]) -> str:
    return info["id"][:10] + (" with changes" if info["dirty"] else "")
