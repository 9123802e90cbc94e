"""The same of the kernels, in Triton's interpreter: test_any_call_of_a_kernel.py runs this."""

from __future__ import annotations

import pytest
from calls import Call, calls
from checks import check
from hypothesis import given
from profiles import examples

from triton_topk.kernels.config import MAX_K

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # as in tests/interpreted/test_kernels.py
    pytest.mark.usefixtures("many_rows"),
]


@examples(40)
@given(calls(largest_k=MAX_K))
def test_any_call_of_a_kernel(call: Call) -> None:
    check(call, "triton")


@pytest.mark.exhaustive
@examples(80)
@given(calls(largest_k=MAX_K))
def test_more_calls_of_a_kernel(call: Call) -> None:
    check(call, "triton")
