"""reports/kernels.json holds what it should, reports/kernels.md says the same, and what is worse is found."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton does not exist for this platform")

from bench.ahead_of_time import names
from bench.ledger.__main__ import main
from bench.ledger.cases import JOBS, KNOWN_TO_SPILL
from bench.ledger.facts import of_disassembly
from bench.ledger.file import PAGE, REGENERATE, Ledger, load, render, save, worse

LEDGER = load()
NAME = "sm_90-smooth_svm-n1000-k5-float32"
FACTS = {
    "registers": 90,
    "stack bytes": 0,
    "spills": 0,
    "instructions": 1507,
    "loads of 128 bits": 8,
    "loads of 32 bits": 10,
    "stores of 128 bits": 15,
}


def test_the_ledger_has_every_launch_of_every_case_and_no_other():
    assert set(LEDGER.kernels) == {name for job in JOBS for name in names(*job)}, REGENERATE


def test_what_spills_is_known():
    spilling = {
        name
        for name, facts in LEDGER.kernels.items()
        if facts.get("spills") or facts.get("stack bytes")
    }
    assert spilling == KNOWN_TO_SPILL


def test_a_saved_ledger_is_loaded_as_it_was(tmp_path):
    save(LEDGER, tmp_path / "kernels.json")
    assert load(tmp_path / "kernels.json") == LEDGER


def test_the_page_is_that_of_the_ledger():
    assert PAGE.read_text() == render(LEDGER), "python -m bench.ledger --page --out reports"


def test_by_default_the_page_is_written_where_git_ignores_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["--page"])
    (written,) = (file for file in tmp_path.rglob("*") if file.is_file())
    assert written == tmp_path / "build" / "reports" / "kernels.md"
    assert written.read_text() == PAGE.read_text()


@pytest.mark.parametrize(
    "now", [{}, {"registers": 80, "instructions": 1000}, {"stores of 256 bits": 8}]
)
def test_the_same_or_better_is_no_worse(now):
    assert worse(NAME, FACTS, FACTS | now) == []


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"instructions": 1508}, "instructions was 1507, is 1508"),
        ({"registers": 91}, "registers was 90, is 91"),
        ({"spills": 1}, "spills was 0, is 1"),
        ({"stack bytes": 8}, "stack bytes was 0, is 8"),
        ({"loads of 128 bits": 7, "loads of 64 bits": 2}, "wide loads was 8, is 7"),
        ({"stores of 128 bits": 0, "stores of 256 bits": 7}, "wide stores was 15, is 14"),
    ],
)
def test_worse_is_said_with_what_it_was_and_what_to_do(now, said):
    assert worse(NAME, FACTS, FACTS | now) == [f"{NAME}: {said}; {REGENERATE}"]


def test_two_files_are_compared_by_a_command(tmp_path, capsys):
    files = [tmp_path / "before.json", tmp_path / "after.json"]
    other = {"sm_90-lq_loss-n1000-float32": FACTS}
    save(Ledger("3.9.0", {NAME: FACTS} | other), files[0])
    save(Ledger("3.9.0", {NAME: FACTS | {"spills": 2, "registers": 80}} | other), files[1])
    assert main(["--diff", *map(str, files)]) == 1
    said = capsys.readouterr().out
    assert "90 > 80" in said
    assert "WORSE" in said
    assert "1 of 2 kernels differ, 1 facts are worse" in said
    assert main(["--diff", *map(str, reversed(files))]) == 1  # the registers
    assert main(["--diff", str(files[0]), str(files[0])]) == 0


DISASSEMBLY = """
 Function loss_kernel:
  REG:110 STACK:8 SHARED:1024 LOCAL:0 CONSTANT[0]:688 TEXTURE:0 SURFACE:0 SAMPLER:0
        /*0000*/                   LDC R1, c[0x0][0x28] ;             /* 0x00000a00ff017b82 */
                                                                      /* 0x000ff00000000800 */
        /*0010*/                   MUFU.EX2 R4, R5 ;                  /* 0x00000a00ff017b82 */
        /*0020*/                   MUFU.LG2 R4, R5 ;                  /* 0x00000a00ff017b82 */
        /*0030*/              @!P1 FFMA R4, R5, R6, R7 ;              /* 0x00000a00ff017b82 */
        /*0040*/              @!P0 LDG.E.128 R12, desc[UR8][R10.64] ; /* 0x00000a00ff017b82 */
        /*0050*/                   LDG.E R4, desc[UR8][R10.64] ;      /* 0x00000a00ff017b82 */
        /*0060*/              @UP0 STG.E.U16 desc[UR8][R10.64], R4 ;  /* 0x00000a00ff017b82 */
        /*0070*/                   STL.64 [R1], R4 ;                  /* 0x00000a00ff017b82 */
        /*0080*/                   SHFL.BFLY PT, R4, R5, 0x1, 0x1f ;  /* 0x00000a00ff017b82 */
        /*0090*/                   EXIT ;                             /* 0x00000a00ff017b82 */
        /*00a0*/                   BRA 0xa0;                          /* 0x00000a00ff017b82 */
        /*00b0*/                   NOP;                               /* 0x00000a00ff017b82 */
"""


def test_what_stands_in_a_disassembly_is_counted():
    found = {fact: n for fact, n in of_disassembly(DISASSEMBLY).items() if n}
    assert found == {
        "registers": 110,
        "stack bytes": 8,
        "instructions": 11,  # without the padding
        "spills": 1,
        "exp2": 1,
        "special": 2,
        "float32": 1,
        "shuffles": 1,
        "branches": 1,
        "loads of 128 bits": 1,
        "loads of 32 bits": 1,
        "stores of 16 bits": 1,
    }
