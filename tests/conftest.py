"""The whole suite shares these fixtures."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

# Tests run beside each other: a process has one thread, and so have the processes that it starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from kernel_stand_in import Kernel
from torch import Tensor

from triton_topk import backends
from triton_topk.kernels import backend

BACKENDS = backends.BACKENDS

# Kernels run in Triton's interpreter only where it was asked for before Triton was imported:
# test_interpreter.py runs these in a process of their own.
collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the exhaustive tests too")
    parser.addoption("--rest", action="store_true", help="run those that --all adds, and no others")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    named = any("::" in argument for argument in config.args) or config.getoption("lf", False)
    rest = config.getoption("rest")
    if named or (config.getoption("all") and not rest):
        return
    seen: Counter[Any] = Counter()  # cases of each function with a backend
    chosen, left_out = [], []
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        function = item.nodeid.partition("[")[0], parameters.get("chosen_backend")
        (chosen if _runs_always(item, seen[function]) else left_out).append(item)
        seen[function] += 1
    if rest:
        chosen, left_out = left_out, chosen
    config.hook.pytest_deselected(items=left_out)
    items[:] = chosen


def _runs_always(item: pytest.Item, number: int) -> bool:
    """Whether a test, or this case of it, is not for --all only.

    Of a cross of parameters diagonals are always run, where the places of the values in their lists add up to a
    multiple of `one_in`: each value of a parameter is there if another has as many.
    """
    exhaustive = item.get_closest_marker("exhaustive")
    if exhaustive is None or "one_in" not in exhaustive.kwargs:
        return exhaustive is None
    diagonal = 0
    for parameter in reversed(list(item.iter_markers("parametrize"))):
        number, place = divmod(number, len(parameter.args[1]))
        diagonal += place
    return diagonal % exhaustive.kwargs["one_in"] == 0


@pytest.fixture
def without_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on the CPU are not for the kernels."""
    monkeypatch.setattr(backend, "_interpreting", lambda: False)


@pytest.fixture(params=[backend.name for backend in BACKENDS if backend.name != "triton"])
def chosen_backend(
    request: pytest.FixtureRequest, without_interpreter: None, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Tensors on the CPU are for each of the other backends in turn, and what it cannot compute for the next."""
    if request.param == "native":
        pytest.importorskip("numba")
    in_order = sorted(BACKENDS, key=lambda backend: backend.name != request.param)
    monkeypatch.setattr(backends, "BACKENDS", tuple(in_order))
    return request.param


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that the package allocates without a value holds NaN, so that nothing left unwritten passes."""

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


@pytest.fixture
def compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def memory_given_back() -> Iterator[None]:
    """Give back a GPU's memory after a test that takes gigabytes: other processes share it."""
    yield
    torch.cuda.empty_cache()


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Kernel]]:
    """Return stand-ins for all kernels, by name, where nothing has been compiled."""
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
