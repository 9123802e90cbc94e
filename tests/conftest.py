"""What the whole suite shares."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from kernel_stand_in import Kernel

from triton_topk import backends

# Kernels run in Triton's interpreter only where it was asked for before Triton was imported:
# test_interpreter.py runs these in a process of their own.
collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]


@pytest.fixture
def without_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on the CPU are for the eager backend."""
    monkeypatch.setattr(backends, "_interpreting", lambda: False)


@pytest.fixture
def compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Kernel]]:
    """In place of all kernels, by name; and nothing has been compiled."""
    launch = pytest.importorskip(
        "triton_topk.kernels.launch", reason="Triton does not exist for this platform"
    )
    names = ("loss_kernel", "scale_kernel")
    kernels = {name: Kernel(getattr(launch, name)) for name in names}
    for name, kernel in kernels.items():
        monkeypatch.setattr(launch, name, kernel)
    monkeypatch.setattr(launch, "_COMPILED_SCALE", {})
    launch._plan.cache_clear()
    yield kernels
    launch._plan.cache_clear()
