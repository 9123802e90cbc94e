"""The comparison with the ledger, without compiling anything."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.ledger.check import broken_promises, regressions
from bench.ledger.entry import FINISH, SUMMARIES, WHOLE, Config, Entry, by_case
from bench.results import BOTH, FORWARD

ENTRY = Entry(
    name="sm_90-smooth_svm-n1000-k5-float32",
    launch=WHOLE,
    architecture="sm_90",
    loss="smooth_svm",
    n=1000,
    k=5,
    dtype="float32",
    work=BOTH,
    order=None,
    aligned=True,
    hits=False,
    config=Config(
        rows=1, lanes=128, blocks=8, stream=False, warps=1, registers=128, vectors=1, parts=1
    ),
    registers=128,
    spills=0,
    stack=0,
    shared=32,
    loads={128: 8, 64: 1, 32: 4},
    stores={128: 8, 32: 4},
    static={"all": 2557, "special": 90, "float64": 11},
    executed={"all": 81.8, "special": 2.9, "float64": 0.4},
    read=4.2,
    written=4.1,
)


def with_instructions(static: int, executed: float) -> Entry:
    return replace(
        ENTRY,
        static=ENTRY.static | {"all": static},
        executed=ENTRY.executed | {"all": executed},
    )


def test_the_same_is_no_worse():
    assert regressions(ENTRY, ENTRY) == []


def test_better_is_no_worse():
    better = replace(
        with_instructions(2000, 60.0), registers=100, loads={256: 4, 128: 4}, stores={128: 9}
    )
    assert regressions(ENTRY, better) == []
    assert broken_promises(better) == []


@pytest.mark.parametrize(
    ("now", "what"),
    [
        (with_instructions(2813, 81.8), "instructions was 2557, is 2813"),
        (with_instructions(2557, 90.0), "instructions run a score was 81.8, is 90.0"),
        (replace(ENTRY, spills=1), "spills was 0, is 1"),
        (replace(ENTRY, stack=8), "bytes of stack was 0, is 8"),
        (replace(ENTRY, loads={128: 7, 32: 8}), "loads of 128 bits was 8, is 7"),
        (replace(ENTRY, stores={128: 7, 32: 8}), "stores of 128 bits was 8, is 7"),
        (
            replace(ENTRY, config=replace(ENTRY.config, warps=2)),
            "layout was 1 x 128 x 8, 1, is 1 x 128 x 8, 2",
        ),
        (
            replace(ENTRY, config=replace(ENTRY.config, stream=True, parts=8)),
            "layout was 1 x 128 x 8, 1, is 1 x 128 x 8, 1, stream, 8 parts",
        ),
    ],
)
def test_worse_is_said_with_what_it_was_and_what_to_do(now, what):
    (message,) = regressions(ENTRY, now)
    assert ENTRY.name in message
    assert what in message
    assert "python -m bench.ledger" in message


def test_ten_percent_more_instructions_are_allowed():
    assert regressions(ENTRY, with_instructions(2812, 89.9)) == []


def test_a_narrower_widest_access_is_worse():
    messages = regressions(ENTRY, replace(ENTRY, loads={64: 17, 32: 4}))
    assert [m for m in messages if "widest of the loads in bits was 128, is 64" in m]


def test_narrow_accesses_may_not_become_narrower():
    before = replace(ENTRY, loads={64: 4}, stores={64: 4})
    after = replace(ENTRY, loads={32: 8}, stores={64: 4})
    (message,) = regressions(before, after)
    assert "widest of the loads in bits was 64, is 32" in message


def test_a_doctored_ledger_makes_the_check_fail():
    doctored = replace(
        with_instructions(2000, 60.0), loads={128: 16}, stores={256: 8}, registers=64
    )
    assert len(regressions(doctored, ENTRY)) == 4


@pytest.mark.parametrize(
    "broken",
    [
        replace(ENTRY, spills=2),
        replace(ENTRY, stack=8),
        replace(ENTRY, loads={128: 6, 32: 40}),
        replace(ENTRY, stores={64: 16}),
        replace(ENTRY, registers=136, config=replace(ENTRY.config, lanes=2048, warps=16)),
    ],
)
def test_promises_are_kept_whatever_the_ledger_says(broken):
    assert len(broken_promises(broken)) == 1
    assert regressions(broken, broken) == []


def test_what_is_promised_of_loads_and_stores():
    # 7 whole blocks of 4 scores a lane; the eighth is cut off and may be narrower
    assert broken_promises(replace(ENTRY, loads={128: 7}, stores={128: 7})) == []
    assert len(broken_promises(replace(ENTRY, loads={128: 6}, stores={128: 6}))) == 2
    # a loop has its accesses once; there is one for each pass
    streamed = replace(ENTRY, config=replace(ENTRY.config, stream=True))
    assert broken_promises(replace(streamed, loads={128: 3}, stores={128: 1})) == []
    assert len(broken_promises(replace(streamed, loads={128: 2, 64: 6}, stores={64: 2}))) == 2
    forward = replace(streamed, work=FORWARD, stores={32: 1})
    assert broken_promises(replace(forward, loads={128: 2})) == []
    assert len(broken_promises(replace(forward, loads={128: 1, 64: 2}))) == 1
    # nothing of rows that are not aligned, or of lanes that hold 8 bytes; no stores of a forward pass
    narrow = replace(ENTRY, loads={32: 40}, stores={32: 40})
    assert broken_promises(replace(narrow, aligned=False)) == []
    assert broken_promises(replace(narrow, n=1001)) == []
    assert broken_promises(replace(narrow, config=replace(ENTRY.config, lanes=64))) == []
    assert broken_promises(replace(ENTRY, work=FORWARD, stores={32: 1})) == []
    # 64 lanes of a wave of an AMD GPU
    amd = replace(narrow, architecture="gfx942")
    assert broken_promises(amd) == []
    assert len(broken_promises(replace(amd, config=replace(ENTRY.config, lanes=256)))) == 2


def test_what_is_promised_of_parts():
    # 7 whole blocks and one that is cut off, in 2 parts: 3 whole ones each at least
    parts = replace(ENTRY.config, blocks=4, parts=2)
    summaries = replace(ENTRY, launch=SUMMARIES, config=parts, stores={32: 9})
    assert broken_promises(replace(summaries, loads={128: 3})) == []
    assert len(broken_promises(replace(summaries, loads={128: 2, 64: 4}))) == 1
    streamed = replace(summaries, config=replace(parts, stream=True))
    assert broken_promises(replace(streamed, loads={128: 2})) == []
    assert len(broken_promises(replace(streamed, loads={128: 1, 64: 4}))) == 1
    # the other launch reads a part in a loop, for its gradient
    finish = replace(ENTRY, launch=FINISH, config=parts)
    assert broken_promises(replace(finish, loads={128: 1}, stores={128: 1})) == []
    assert len(broken_promises(replace(finish, loads={64: 2}, stores={64: 2}))) == 2
    assert broken_promises(replace(finish, work=FORWARD, loads={32: 9}, stores={32: 1})) == []


def test_the_launches_of_a_case():
    summaries = replace(ENTRY, launch=SUMMARIES, name=f"sm_90-long-{SUMMARIES}")
    finish = replace(ENTRY, launch=FINISH, name=f"sm_90-long-{FINISH}")
    assert by_case([ENTRY, summaries, finish]) == {
        ENTRY.name: [ENTRY],
        "sm_90-long": [summaries, finish],
    }
