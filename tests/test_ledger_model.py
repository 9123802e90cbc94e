"""The model of a kernel's time, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_ledger_check import ENTRY

from bench.ledger.entry import FINISH, SUMMARIES, Config, Entry, Ledger, save_ledger
from bench.model import H200, passes, predict, predictions, reads, resident_warps
from bench.results import BOTH, FORWARD

# 10 multiprocessors of 128, 128, 64, 64, 32 and 16 lanes at 1 GHz; 1 TB/s; caches of 1,000 and 100,000 bytes
DEVICE = replace(H200, multiprocessors=10, clock=1e9, copy_bandwidth=1e12, l1=1000, l2=100_000)
NOTHING = dict.fromkeys(("all", "special", *H200.lanes), 0.0)


def with_executed(**counts: float) -> Entry:
    return replace(
        ENTRY, executed=NOTHING | {name.replace("_", " "): x for name, x in counts.items()}
    )


def test_a_score_that_needs_few_instructions_takes_as_long_as_its_bytes():
    prediction = predict([with_executed(all=10, alu=4)], DEVICE)
    # 4 bytes read, 4 written; 10 instructions / (10 x 128 lanes x 1 GHz); 4 / (10 x 64 x 1 GHz)
    assert prediction.seconds["memory"] == pytest.approx(8e-12)
    assert prediction.seconds["issue"] == pytest.approx(7.8125e-12)
    assert prediction.seconds["alu"] == pytest.approx(6.25e-12)
    assert prediction.bound == "memory"
    assert prediction.time == pytest.approx(8e-12)
    assert prediction.fraction == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("counts", "bound", "time"),
    [
        ({"all": 80}, "issue", 62.5e-12),
        ({"all": 12, "alu": 10}, "alu", 15.625e-12),
        ({"all": 12, "special-function unit": 2}, "special-function unit", 12.5e-12),
        ({"all": 12, "float64": 7}, "float64", 10.9375e-12),
        ({"all": 12, "shuffles": 4}, "shuffles", 12.5e-12),
    ],
)
def test_the_slowest_unit_is_the_bound(counts, bound, time):
    prediction = predict([replace(ENTRY, executed=NOTHING | counts)], DEVICE)
    assert prediction.bound == bound
    assert prediction.time == pytest.approx(time)
    assert prediction.fraction == pytest.approx(8e-12 / time)


def test_a_forward_pass_writes_nothing():
    prediction = predict([replace(with_executed(all=1), work=FORWARD, dtype="bfloat16")], DEVICE)
    assert prediction.traffic == 2
    assert prediction.time == pytest.approx(2e-12)
    assert prediction.fraction == pytest.approx(1.0)


def test_the_budget_of_the_design():
    """55 instructions for each of 32 float32 scores take as long as reading and writing them."""
    prediction = predict([with_executed(all=55)])
    assert prediction.seconds["issue"] == pytest.approx(prediction.seconds["memory"], rel=2e-3)


# no cache of these devices holds it
LONG = replace(
    ENTRY,
    n=131072,
    config=Config(
        rows=1, lanes=2048, blocks=64, stream=True, warps=16, registers=128, vectors=1, parts=1
    ),
)


@pytest.mark.parametrize("loss", ["smooth_svm", "hard_svm", "lq_loss", "smooth_svm_lq"])
@pytest.mark.parametrize(("work", "expected"), [(BOTH, 3), (FORWARD, 2)])
def test_a_streamed_row_is_read_once_a_pass(loss, work, expected):
    """To select, to accumulate, and for the gradient."""
    long = replace(LONG, loss=loss, work=work)
    assert passes(long) == reads(long, DEVICE) == expected
    traffic = predict([replace(long, executed=NOTHING)], DEVICE).traffic
    assert traffic == 4 * (expected + (work == BOTH))


@pytest.mark.parametrize(
    ("launch", "stream", "work", "expected"),
    [
        (SUMMARIES, False, BOTH, 1),
        (SUMMARIES, True, BOTH, 2),
        (SUMMARIES, True, FORWARD, 2),
        (FINISH, False, BOTH, 1),
        (FINISH, True, BOTH, 1),
        (FINISH, False, FORWARD, 0),
        (FINISH, True, FORWARD, 0),
    ],
)
def test_passes_over_a_row_in_parts(launch, stream, work, expected):
    config = replace(LONG.config, stream=stream, parts=8)
    entry = replace(LONG, launch=launch, work=work, config=config)
    assert passes(entry) == reads(entry, DEVICE) == expected


# 128 registers: 4 warps on each quarter of a multiprocessor, so 16 programs of one warp, 160 in all
STREAMED = Config(1, 32, 2, stream=True, warps=1, registers=128, vectors=1, parts=1)


def test_rows_that_fit_into_l2_are_read_from_memory_once():
    # each program with a row of 64 float32 scores and its gradient: 81,920 bytes
    row = replace(ENTRY, n=64, config=STREAMED)
    assert reads(row, DEVICE) == 1
    assert reads(replace(row, n=96), DEVICE) == 3
    assert reads(replace(row, n=96, dtype="bfloat16"), DEVICE) == 1


def test_rows_that_fit_into_l1_are_read_from_memory_once():
    # 16 programs of a multiprocessor with 96 float32 scores each: 6,144 bytes, without the gradient
    row = replace(ENTRY, n=96, config=STREAMED)
    assert reads(row, replace(DEVICE, l1=6144)) == 1
    assert reads(row, replace(DEVICE, l1=6143)) == 3
    assert reads(replace(row, config=replace(STREAMED, rows=2)), replace(DEVICE, l1=6144)) == 3
    # 137 registers: 3 warps on each quarter, so 12 programs with 4,608 bytes
    assert reads(replace(row, registers=137), replace(DEVICE, l1=4608)) == 1


def test_of_a_row_in_parts_a_cache_need_only_hold_the_parts():
    # 16 programs of a multiprocessor with 96 of 768 float32 scores each, 61,440 bytes in all: no gradient is written
    parts = replace(STREAMED, parts=8)
    summaries = replace(ENTRY, n=768, config=parts, launch=SUMMARIES)
    assert reads(summaries, DEVICE) == 1
    assert reads(summaries, replace(DEVICE, l2=61_439)) == 2
    assert reads(summaries, replace(DEVICE, l1=6144, l2=0)) == 1
    # the gradient is written from the one read that there is
    finish = replace(summaries, launch=FINISH)
    assert reads(finish, DEVICE) == reads(finish, replace(DEVICE, l2=0)) == 1


def in_parts(work: str) -> list[Entry]:
    """Both launches for rows of 32,000 scores, of which each part is streamed."""
    case = replace(LONG, n=32_000, work=work, config=replace(LONG.config, parts=8))
    return [
        replace(
            case,
            launch=SUMMARIES,
            name=f"long-{SUMMARIES}",
            registers=64,  # 8 warps a quarter
            executed=NOTHING | {"all": 24, "alu": 16},
        ),
        replace(
            case,
            launch=FINISH,
            name=f"long-{FINISH}",
            executed=NOTHING | {"all": 8, "alu": 3},
        ),
    ]


def test_launches_come_one_after_the_other():
    summaries, finish = in_parts(BOTH)
    prediction = predict([summaries, finish], DEVICE)
    # 20 programs of 4,000 float32 scores are more than L2 holds: read twice, in 8 ps; 16 / (10 x 64 x 1 GHz) = 25 ps
    # then read and written in 8 ps; 8 / (10 x 128 x 1 GHz) = 6.25 ps
    assert prediction.seconds["memory"] == pytest.approx(8e-12 + 8e-12)
    assert prediction.seconds["issue"] == pytest.approx(18.75e-12 + 6.25e-12)
    assert prediction.seconds["alu"] == pytest.approx(25e-12 + 4.6875e-12)
    assert prediction.time == pytest.approx(25e-12 + 8e-12)
    assert prediction.traffic == 8 + 8
    assert prediction.bound == "alu"
    assert [x.bound for x in prediction.launches] == ["alu", "memory"]
    assert [x.warps for x in prediction.launches] == [32, 16]
    # of the 4 + 4 bytes that must move
    assert prediction.fraction == pytest.approx(8 / 33)


def test_the_launch_that_takes_longest_is_the_bound():
    summaries, finish = in_parts(BOTH)
    slow = replace(finish, executed=NOTHING | {"all": 64, "shuffles": 10})
    prediction = predict([summaries, slow], DEVICE)
    # 64 / (10 x 128 x 1 GHz)
    assert prediction.bound == "issue"
    assert prediction.time == pytest.approx(25e-12 + 50e-12)


def test_a_forward_pass_in_parts_reads_nothing_in_the_end():
    prediction = predict(in_parts(FORWARD), DEVICE)
    assert prediction.traffic == 8 + 0
    assert prediction.time == pytest.approx(25e-12 + 6.25e-12)
    assert [x.bound for x in prediction.launches] == ["alu", "issue"]
    assert prediction.fraction == pytest.approx(4 / 31.25)


@pytest.mark.parametrize(
    ("registers", "warps", "shared", "resident"),
    [
        (128, 1, 0, 16),  # 16,384 / (32 x 128) = 4 a quarter
        (121, 1, 0, 16),  # by eights
        (129, 1, 0, 12),  # 136: 3.76 a quarter
        (255, 1, 0, 8),
        (32, 1, 0, 32),  # 32 programs at most
        (32, 4, 0, 64),  # 64 warps at most
        (111, 16, 0, 16),  # 112: 4.57 a quarter, of 16 warps that are one program
        (128, 8, 0, 16),
        (32, 1, 22 * 1024, 9),  # 228 / (22 + 1) = 9.9
    ],
)
def test_resident_warps(registers, warps, shared, resident):
    entry = replace(
        ENTRY, registers=registers, shared=shared, config=replace(ENTRY.config, warps=warps)
    )
    assert resident_warps(entry) == resident


def test_predictions_of_a_ledger_have_the_names_of_the_benchmark_suite(tmp_path):
    entry = with_executed(all=10)
    entries = [
        entry,
        replace(entry, name="taylor", order=2),
        replace(entry, name="forward", work=FORWARD),
        replace(entry, name="lq", loss="lq_loss", k=None),
        replace(entry, name="unaligned", aligned=False),
        replace(entry, name="other", architecture="sm_80"),
        *in_parts(BOTH),
    ]
    save_ledger(Ledger("3.9.0", {x.name: x for x in entries}), tmp_path / "kernels.json")
    found = predictions(tmp_path / "kernels.json", DEVICE)
    assert set(found) == {
        ("smooth_svm", 1000, 5, "float32", BOTH),
        ("smooth_svm taylor", 1000, 5, "float32", BOTH),
        ("smooth_svm", 1000, 5, "float32", FORWARD),
        ("lq_loss", 1000, None, "float32", BOTH),
        ("smooth_svm", 32_000, 5, "float32", BOTH),
    }
    assert found["smooth_svm", 1000, 5, "float32", BOTH] == predict([entry], DEVICE)
    assert found["smooth_svm", 32_000, 5, "float32", BOTH] == predict(in_parts(BOTH), DEVICE)


def test_another_architecture_is_not_predicted():
    with pytest.raises(ValueError, match="sm_80"):
        predict([replace(ENTRY, architecture="sm_80")])
