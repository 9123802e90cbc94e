"""One compiled launch as the ledger has it, and the ledger's file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.results import BOTH, SIZES

PATH = Path(__file__).parents[2] / "reports" / "kernels.json"
# A row too long for one program is read twice: by the launch that summarises each of its parts, and by that which
# makes of these the loss and the gradient.
WHOLE, SUMMARIES, FINISH = "whole", "summaries", "finish"


@dataclass(frozen=True)
class Config:
    """How rows are laid over programs; see triton_topk/kernels/config.py."""

    rows: int
    lanes: int
    blocks: int
    stream: bool
    warps: int
    registers: int | None
    vectors: int  # of a lane in a block
    parts: int  # of a row

    @property
    def columns(self) -> int:
        """Of a block."""
        return self.lanes * self.vectors

    def __str__(self) -> str:
        layout = f"{self.rows} x {self.columns} x {self.blocks}, {self.warps}"
        more = (", stream" * self.stream, f", {self.parts} parts" * (self.parts > 1))
        return layout + "".join(more)


@dataclass(frozen=True)
class Entry:
    """A launch: what was compiled for it, and what came of that.

    loads, stores: instructions for global memory by bits a lane.  static: instructions in the code by class, "all"
    among them (see machine_code/opcodes.py).  executed: how many of each class run for each score of a lane, where a
    warp of 32 or 64 lanes runs one instruction for as many scores: instructions of all warps x lanes / scores.
    read, written: bytes that these accesses to global memory move for each score, masked lanes among them.
    """

    name: str  # unique: architecture, loss, shape, ..., and the launch if it is one of several
    launch: str  # WHOLE, SUMMARIES or FINISH
    architecture: str
    loss: str
    n: int
    k: int | None
    dtype: str
    work: str  # of the case
    order: int | None  # of the Taylor-type gradient
    aligned: bool
    hits: bool  # with the top-k hits, and a margin for each class
    config: Config
    registers: int
    spills: int
    stack: int
    shared: int
    loads: dict[int, int]
    stores: dict[int, int]
    static: dict[str, int]
    executed: dict[str, float]
    read: float
    written: float

    @property
    def case(self) -> str:
        """What all launches for the same rows have in common."""
        return self.name.removesuffix(f"-{self.launch}")

    @property
    def size(self) -> int:
        """Bytes of a score."""
        return SIZES[self.dtype]

    @property
    def warp(self) -> int:
        """Lanes of a warp."""
        return 64 if self.architecture.startswith("gfx") else 32

    @property
    def implementation(self) -> str:
        """Its name in the benchmark suite."""
        parts = (self.loss, "taylor" * (self.order is not None), "with hits" * self.hits)
        return " ".join(part for part in parts if part)

    @property
    def writes_gradient(self) -> bool:
        return self.work == BOTH and self.launch != SUMMARIES


def by_case(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The launches of each case, in their order."""
    cases: dict[str, list[Entry]] = {}
    for entry in entries:
        cases.setdefault(entry.case, []).append(entry)
    return cases


@dataclass(frozen=True)
class Ledger:
    triton: str
    entries: dict[str, Entry]  # by name


def load_ledger(path: Path = PATH) -> Ledger:
    content = json.loads(path.read_text())
    return Ledger(content["triton"], {x["name"]: _entry(x) for x in content["kernels"]})


def save_ledger(ledger: Ledger, path: Path = PATH) -> None:
    """One entry a line, so that a difference shows what changed."""
    kernels = ",\n".join(json.dumps(asdict(entry)) for entry in ledger.entries.values())
    path.write_text(f'{{"triton": {json.dumps(ledger.triton)}, "kernels": [\n{kernels}\n]}}\n')


def _entry(content: dict[str, Any]) -> Entry:
    widths = {
        kind: {int(bits): count for bits, count in content[kind].items()}
        for kind in ("loads", "stores")
    }
    return Entry(**content | widths | {"config": Config(**content["config"])})
