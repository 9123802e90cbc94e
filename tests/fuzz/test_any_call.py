"""Any call that keeps to the contract gives the right losses, gradient and hits, and changes none of its arguments."""

from __future__ import annotations

import pytest
from calls import Call, calls
from checks import check
from hypothesis import given
from profiles import examples


@pytest.mark.parametrize("backend", ["eager", "native"])
@examples(280)
@given(calls(largest_k=40))
def test_any_call(backend: str, call: Call) -> None:
    check(call, backend)
