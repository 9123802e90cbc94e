"""The compiled kernels of smooth_svm in the emulator, by k and the number of classes; see test_ptx_kernels.py."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton does not exist for this platform")

from bench.ahead_of_time import Case
from tests.ptx.cases import structures
from tests.smoke import F32, faults

pytestmark = pytest.mark.usefixtures("emulator")


@pytest.mark.parametrize(
    "case",
    structures(
        *(Case(1000, k, F32) for k in (1, 2, 5, 10)),
        *(Case(21, k, F32) for k in (5, 16)),
        *(Case(n, 5, F32) for n in (128, 1001, 4096)),
    ),
)
def test_a_kernel_is_right(case):
    assert list(faults(case, repeats=0, device="cpu")) == []
