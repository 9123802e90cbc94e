"""The compiled kernels in the emulator, of every loss and dtype: hard rows, against the eager backend in float64.

Those of smooth_svm in float32, by k and the number of classes, are in test_ptx_shapes.py, for two cores to share.
Beside the results, whatever the emulator finds is an error: races, reads of what nobody has written, accesses out of
bounds, different values for one address.
"""

from __future__ import annotations

import math
import re
from functools import partial

import pytest

pytest.importorskip("triton", reason="Triton does not exist for this platform")

import torch
from triton import knobs

from bench.ahead_of_time import Case
from tests.ptx.cases import structures
from tests.ptx.kernels import emulated
from tests.ptx.memory import Race
from tests.smoke import BF16, F16, F32, F64, faults, hard_rows
from triton_topk import eager
from triton_topk.batch import Batch
from triton_topk.kernels import launch
from triton_topk.kernels.config import Config
from triton_topk.losses import Lq, SmoothSVM

pytestmark = pytest.mark.usefixtures("emulator")
TWO_PARTS = Config(rows=1, columns=512, blocks=1, stream=False, warps=4, parts=2)


@pytest.mark.parametrize(
    "case",
    structures(
        *(Case(1000, 5, dtype) for dtype in (BF16, F16, F64)),
        Case(4096, 5, BF16),
        Case(1000, 5, F32, order=2),
        Case(1000, 5, F32, hits=True),  # with weights, and a margin of each class
        Case(1000, 5, F32, gradient=False),
        Case(1000, 5, F32, loss="hard_svm"),
        Case(1000, 5, F32, loss="smooth_svm_lq"),
        Case(1000, None, F32, loss="lq_loss"),
        Case(1000, None, BF16, loss="lq_loss"),
        # in three parts and in eight, and with coefficients that have to be scaled
        Case(33_000, 16, F32, loss="lq_loss", hits=True),
        Case(30_000, 2, F64, loss="smooth_svm_lq", order=2, hits=True),
        Case(60_000, 9, F32, hits=True),
        Case(500, 2, F32, hits=True, shards=2),
        Case(500, 1, BF16, shards=2),
        Case(500, 5, F32, loss="hard_svm", hits=True, shards=2),
        Case(500, 5, F32, shards=2),
        Case(1000, 5, BF16, shards=2),
        Case(500, 10, F32, shards=2),
        Case(500, 5, F64, loss="smooth_svm_lq", hits=True, shards=2),
        # in two parts
        Case(17_000, None, F64, loss="lq_loss", hits=True, shards=2),
    ),
)
def test_a_kernel_is_right(case):
    assert list(faults(case, repeats=0, device="cpu")) == []


@pytest.mark.parametrize(
    "case",
    structures(
        Case(1000, 2, F32, hits=True),
        Case(1000, None, F32, loss="lq_loss"),
        Case(1000, 5, F32, loss="hard_svm"),
        Case(1000, 5, F32, loss="smooth_svm_lq"),
    ),
)
def test_two_launches_for_rows_in_parts_are_right(case, monkeypatch):
    monkeypatch.setattr(launch, "run", partial(launch.run, config=TWO_PARTS))
    assert list(faults(case, repeats=0, device="cpu")) == []


@pytest.mark.parametrize(
    "loss",
    [SmoothSVM(1, 0.5, 1.5), Lq(0.7, 0.2)],
    ids=["smooth_svm", "truncated lq_loss"],
)
def test_a_gradient_alone_is_that_of_what_comes_back(loss):
    scores, labels = hard_rows(21, 1)
    upstream = torch.linspace(-2, 2, 2 * len(labels))[::2]
    found, truth = (torch.full(scores.shape, math.nan, dtype=t) for t in (F32, F64))
    launch.run(Batch(scores, labels), loss, upstream=upstream, gradient=found)
    eager.run(Batch(scores.double(), labels), loss, upstream=upstream.double(), gradient=truth)
    torch.testing.assert_close(found.double(), truth, rtol=1e-5, atol=1e-7, equal_nan=True)


@pytest.mark.parametrize("factor", [1.0, -0.5])
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_a_stored_gradient_is_scaled(dtype, factor, monkeypatch):
    monkeypatch.setitem(launch._SCALE, "PROGRAMS", 2)
    gradient = torch.randn(3 * launch._SCALE["BLOCK"] + 5).to(dtype)
    wanted = gradient * factor
    launch.scale_(gradient, torch.tensor(factor))
    assert torch.equal(gradient, wanted)


# The emulator finds what it is for.


def without_first_barriers(text: str) -> str:
    """Take out two behind the first load of scores: one is for the count of labels, which are not counted here."""
    before, scores, behind = text.partition(".v4.b32")
    return before + scores + re.sub(r"\tbar\.sync[^;]*;", "", behind, count=2)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("case", "said"),
    [
        (Case(4096, 5, F32), "reads what another thread writes"),
        (Case(4096, 5, BF16), "writes another value than another thread"),  # the gradient's
    ],
    ids=str,
)
def test_a_barrier_taken_out_is_reported_as_a_race(case, said):
    with emulated(without_first_barriers), pytest.raises(Race, match=said):
        list(faults(case, repeats=0, device="cpu"))


def test_a_changed_constant_is_reported_as_a_wrong_loss():
    log_of_2 = "0f3F317218"
    with emulated(lambda text: text.replace(log_of_2, "0f3F317318")):
        found = list(faults(Case(1000, 1, F32), repeats=0, device="cpu"))
    assert any("losses off by" in fault for fault in found)


def test_what_is_no_machine_code_is_kept_apart_in_tritons_cache(tmp_path):
    """Triton 3.6 would launch it on a GPU."""
    with knobs.cache.scope():
        knobs.cache.dir = str(tmp_path)
        with emulated():
            launch.scale_(torch.ones(7), torch.tensor(2.0))
    assert [path.name for path in tmp_path.iterdir()] == ["ptx-only"]
