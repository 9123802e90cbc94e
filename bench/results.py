"""A run of the benchmark suite as its JSON file holds it; conftest.py writes it, report.py reads it.

The file is pytest-benchmark's.  `extra_info` of a benchmark says what was measured, `machine_info` on what, and
`left_out`, which this suite adds, what was not measured and why.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FORWARD = "forward"
BOTH = "forward + backward"
SIZES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}  # bytes of a score, by dtype


@dataclass(frozen=True, order=True)
class Cell:
    """One thing to measure: an implementation at work on scores of one shape and type."""

    implementation: str
    n: int
    k: int | None  # None where the implementation has no k
    batch: int
    dtype: str  # "float32", ...
    work: str  # FORWARD or BOTH

    @property
    def traffic(self) -> int:
        """Bytes that must move: the scores read once, the gradient written once."""
        return self.batch * self.n * SIZES[self.dtype] * (2 if self.work == BOTH else 1)


@dataclass(frozen=True)
class Measurement:
    cell: Cell
    seconds: float  # median over the rounds
    rounds: int
    clock: str  # "host", "graph replay" or "events": what took the time
    extra_memory: int | None  # peak bytes beyond the scores and the gradient
    loss_error: float | None  # relative, against truth in float64
    gradient_error: float | None  # relative to the largest entry of a row


@dataclass(frozen=True)
class LeftOut:
    cell: Cell
    why: str


@dataclass(frozen=True)
class Run:
    """`machine`: name, kind ("cpu" or "cuda"), driver, l2_bytes, threads, versions {package: version}, seed.

    `copies`: seconds of a copy by the bytes it moves, read and written.  `host`: seconds of host time of an eager
    call, for each implementation, on a device with a queue of its own.
    """

    machine: dict[str, Any]
    commit: str
    date: str
    measurements: list[Measurement]
    left_out: list[LeftOut]
    copies: dict[int, float]
    host: dict[str, float]

    @property
    def copy_bandwidth(self) -> float:
        """Bytes a second of the largest copy."""
        size = max(self.copies)
        return size / self.copies[size]


def as_json(cell: Cell) -> dict[str, Any]:
    return asdict(cell)


def load(path: Path) -> Run:
    content = json.loads(path.read_text())
    run = Run(
        machine=content["machine_info"]["device"],
        commit=_commit(content["commit_info"]),
        date=content["datetime"][:10],
        measurements=[],
        left_out=[LeftOut(Cell(**x["cell"]), x["why"]) for x in content["left_out"]],
        copies={},
        host={},
    )
    for benchmark in content["benchmarks"]:
        info, seconds = benchmark["extra_info"], benchmark["stats"]["median"]
        match info["measures"]:
            case "copy":
                run.copies[info["bytes"]] = seconds
            case "host time":
                run.host[info["implementation"]] = seconds
            case "loss":
                run.measurements.append(
                    Measurement(
                        Cell(**info["cell"]),
                        seconds,
                        benchmark["stats"]["rounds"],
                        info["clock"],
                        info["extra_memory"],
                        info["loss_error"],
                        info["gradient_error"],
                    )
                )
    return run


def _commit(info: dict[str, Any]) -> str:
    return info["id"][:10] + (" with changes" if info["dirty"] else "")
