"""The contract is tested on the CPU without Triton."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor


@pytest.fixture(autouse=True)
def eager(without_interpreter: None) -> None:
    """What is on the CPU is not for the kernels."""


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the package allocates without a value holds NaN, so that nothing left unwritten passes."""

    def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def allocate_nan(*args: Any, **kwargs: Any) -> Tensor:
            out = allocate(*args, **kwargs)
            caller = sys._getframe(1).f_globals.get("__name__", "")
            if caller.split(".")[0] == "triton_topk" and out.is_floating_point():
                out.fill_(float("nan"))
            return out

        return allocate_nan

    for owner, name in (
        (torch, "empty"),
        (torch, "empty_like"),
        (torch, "empty_strided"),
        (Tensor, "new_empty"),
        (Tensor, "new_empty_strided"),
    ):
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))
