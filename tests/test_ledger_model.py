"""The model of a kernel's time, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_ledger_check import ENTRY

from bench.ledger.entry import Config, Ledger, save_ledger
from bench.model import H200, predict, predictions, reads, resident_warps
from bench.results import BOTH, FORWARD

# 10 multiprocessors of 128, 128, 64, 64, 32 and 16 lanes at 1 GHz; 1 TB/s
DEVICE = replace(H200, multiprocessors=10, clock=1e9, copy_bandwidth=1e12, l2=100_000)
NOTHING = dict.fromkeys(("all", "special", *H200.lanes), 0.0)


def with_executed(**counts: float):
    return replace(
        ENTRY, executed=NOTHING | {name.replace("_", " "): x for name, x in counts.items()}
    )


def test_a_score_that_needs_few_instructions_takes_as_long_as_its_bytes():
    prediction = predict(with_executed(all=10, alu=4), DEVICE)
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
    prediction = predict(replace(ENTRY, executed=NOTHING | counts), DEVICE)
    assert prediction.bound == bound
    assert prediction.time == pytest.approx(time)
    assert prediction.fraction == pytest.approx(8e-12 / time)


def test_a_forward_pass_writes_nothing():
    prediction = predict(replace(with_executed(all=1), work=FORWARD, dtype="bfloat16"), DEVICE)
    assert prediction.traffic == 2
    assert prediction.time == pytest.approx(2e-12)
    assert prediction.fraction == pytest.approx(1.0)


def test_the_budget_of_the_design():
    """55 instructions for each of 32 float32 scores take as long as reading and writing them."""
    prediction = predict(with_executed(all=55))
    assert prediction.seconds["issue"] == pytest.approx(prediction.seconds["memory"], rel=2e-3)


@pytest.mark.parametrize(
    ("loss", "work", "passes"),
    [
        ("smooth_svm", BOTH, 3),
        ("smooth_svm", FORWARD, 2),
        ("smooth_svm_lq", BOTH, 3),
        ("lq_loss", BOTH, 2),
        ("lq_loss", FORWARD, 1),
    ],
)
def test_a_streamed_row_is_read_once_a_pass(loss, work, passes):
    long = replace(
        ENTRY,
        loss=loss,
        work=work,
        n=131072,
        config=Config(rows=1, lanes=2048, blocks=64, stream=True, warps=16, registers=128),
    )
    assert reads(long, DEVICE) == passes
    assert predict(replace(long, executed=NOTHING), DEVICE).traffic == 4 * (passes + (work == BOTH))


def test_rows_that_fit_into_l2_are_read_from_memory_once():
    # 128 registers: 4 warps on each quarter of a multiprocessor, so 16 programs of one, 160 in all,
    # each with a row of 64 float32 scores and its gradient: 81,920 bytes
    row = replace(ENTRY, n=64, config=Config(1, 32, 2, stream=True, warps=1, registers=128))
    assert reads(row, DEVICE) == 1
    assert reads(replace(row, n=96), DEVICE) == 3
    assert reads(replace(row, n=96, dtype="bfloat16"), DEVICE) == 1


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
    ]
    save_ledger(Ledger("3.9.0", {x.name: x for x in entries}), tmp_path / "kernels.json")
    found = predictions(tmp_path / "kernels.json", DEVICE)
    assert set(found) == {
        ("smooth_svm", 1000, 5, "float32", BOTH),
        ("smooth_svm taylor", 1000, 5, "float32", BOTH),
        ("smooth_svm", 1000, 5, "float32", FORWARD),
        ("lq_loss", 1000, None, "float32", BOTH),
    }
    assert found["smooth_svm", 1000, 5, "float32", BOTH] == predict(entry, DEVICE)


def test_another_architecture_is_not_predicted():
    with pytest.raises(ValueError, match="sm_80"):
        predict(replace(ENTRY, architecture="sm_80"))
