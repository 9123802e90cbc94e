"""That reports/kernels.json holds what it should, and that reports/kernels.md says the same."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton does not exist for this platform")

from bench.ahead_of_time import launches
from bench.ledger.__main__ import main
from bench.ledger.cases import JOBS, KNOWN_TO_SPILL
from bench.ledger.check import REGENERATE, broken_promises
from bench.ledger.entry import SUMMARIES, Entry, load_ledger, save_ledger
from bench.ledger.page import PAGE, render
from bench.machine_code.opcodes import is_nvidia
from bench.model import H200, passes
from bench.results import SIZES

LEDGER = load_ledger()


def test_the_ledger_has_every_launch_of_every_case_and_no_other():
    expected = {name for job in JOBS for name in launches(*job)}
    assert set(LEDGER.entries) == expected, REGENERATE


def test_what_spills_is_known():
    spilling = {name for name, entry in LEDGER.entries.items() if entry.spills or entry.stack}
    assert spilling <= KNOWN_TO_SPILL


def test_the_ledger_keeps_the_promises():
    assert not [
        broken
        for name, entry in LEDGER.entries.items()
        if name not in KNOWN_TO_SPILL
        for broken in broken_promises(entry)
    ]


def test_a_saved_ledger_is_loaded_as_it_was(tmp_path):
    save_ledger(LEDGER, tmp_path / "kernels.json")
    assert load_ledger(tmp_path / "kernels.json") == LEDGER


def test_the_page_is_that_of_the_ledger():
    assert PAGE.read_text() == render(LEDGER, H200), "python -m bench.ledger --page --out reports"


def test_by_default_the_page_is_written_where_git_ignores_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["--page"])
    (written,) = (file for file in tmp_path.rglob("*") if file.is_file())
    assert written == tmp_path / "build" / "reports" / "kernels.md"
    assert written.read_text() == PAGE.read_text()


@pytest.mark.parametrize("name", LEDGER.entries)
def test_every_score_is_read_once_a_pass_and_the_gradient_is_written_once(name):
    """The loops have been followed to their ends, and none was passed over: what the algorithm says is moved."""
    entry = LEDGER.entries[name]
    config = entry.config
    read = entry.read / entry.size - passes(entry)
    written = entry.written / entry.size - entry.writes_gradient
    # What may be cut off, the last block, is in no loop, so that it may be kept from the first pass to the second.
    # So may the blocks of a short loop, which the assembler unrolls; and all that is unrolled for AMD's GPUs, where a
    # load is no assembly that the compiler does not look into.
    kept = 0.0
    if passes(entry) > 1:
        in_a_loop = is_nvidia(entry.architecture) and config.blocks > 4
        kept = 1 / config.blocks if in_a_loop else 1.0
    assert read >= -kept
    assert written >= 0
    if entry.n >= 16384:
        # for an unfilled last block, the candidates, which are read again, and summaries, masked lanes and all
        assert read < 0.4
        assert written < (_numbers_of_a_summary(entry) if entry.launch == SUMMARIES else 0.25)


def _numbers_of_a_summary(entry: Entry) -> float:
    """About 3 k float32 numbers, which every lane of a part writes, for each score of the lane."""
    scores = entry.config.columns * entry.config.blocks / (entry.warp * entry.config.warps)
    return (3 * (entry.k or 1) + 5) * SIZES["float32"] / (scores * entry.size)
