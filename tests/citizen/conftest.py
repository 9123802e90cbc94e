"""Losses in the company of the rest of PyTorch are tested on the CPU without Triton."""

from __future__ import annotations

import pytest
from kernel_stand_in import Kernel

from triton_topk import ops
from triton_topk.kernels import backend


@pytest.fixture(autouse=True)
def eager(without_interpreter: None) -> None:
    """Keep tensors on the CPU from the kernels."""


@pytest.fixture
def like_a_gpu(monkeypatch: pytest.MonkeyPatch, stand_ins: dict[str, Kernel]) -> dict[str, Kernel]:
    """Calls on any tensors take the way of those on a GPU, past the operators and their fakes."""
    monkeypatch.setattr(backend, "_interpreting", lambda: True)
    monkeypatch.setattr(ops, "_has_no_values", lambda scores: False)
    return stand_ins
