"""The benchmark of a linear layer with its loss: a step of each implementation, and the page."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from bench import linear

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is Linux's to say"
)
SHAPE = "300,50,7000"
ALL_SCORES = 300 * 7000 * 4


@pytest.mark.parametrize("name", linear.IMPLEMENTATIONS)
def test_a_step(name: str) -> None:
    seconds, peak, layer = linear.run(name, SHAPE, "float32", "cpu")
    assert seconds > 0
    assert layer == 2 * (300 + 7000) * 50 * 4
    # what the allocator had from before, in this process, is not above it
    assert 0 <= peak < layer + 8 * ALL_SCORES


def grow_and_forget() -> tuple[int, int]:
    memory = linear.Resident()
    before = memory.held()
    block = bytearray(2**26)
    del block
    grown = memory.peak() - before
    memory.forget()
    return grown, memory.peak() - memory.held()


def test_the_peak_of_a_process() -> None:
    """A process of its own: one that ran other tests has memory to give again."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        grown, left = pool.submit(grow_and_forget).result()
    assert grown >= 2**26 - 2**20
    assert left < 2**24


def test_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = list(linear.IMPLEMENTATIONS)
    rows = {"seconds": 2.0, "peak": 2.0**30, "beyond": 2.0**28}
    found = pd.DataFrame([rows] * len(names), index=names)
    found.loc["linear_smooth_svm"] = [1.0, 2.0**29, 2.0**24]
    monkeypatch.setattr(linear, "measure", lambda *_: found)
    linear.main(["--out", str(tmp_path), "--device", "cpu"])
    text = (tmp_path / "linear-cpu.md").read_text()
    assert "(N, D, C) = (1024, 768, 262144)" in text
    cells = next(line for line in text.splitlines() if line.startswith("| linear_s")).split("|")
    ours = ["1.00", "0.500", "512 MiB", "0.500", "16 MiB", "16.0"]
    assert [cell.strip() for cell in cells[2:-1]] == ours
    assert all(name in text for name in names)
