"""Triton's interpreter, made fast enough to test with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction, ReduceOps, _patch_lang

from triton_topk.batch import Batch
from triton_topk.kernels import launch
from triton_topk.losses import Loss


def speed_up(patch: pytest.MonkeyPatch) -> None:
    """Do once what, done time and again, takes nine tenths of the time of a test with a large k.

    The interpreter reduces one number after the other, each with a call of the kernel's function; this reduces all
    rows at once, in as many steps as their length has binary digits, as a GPU does.  And it
    replaces Triton's language at every call of a function of a kernel, though it never puts that back.
    """
    patch.setattr(ReduceOps, "generic_reduce", _reduce_by_halves)
    patch.setattr(InterpretedFunction, "__call__", _call)


@pytest.fixture(autouse=True)
def fast_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    speed_up(monkeypatch)


@pytest.fixture
def many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table's configurations with 64 rows a program, which take the interpreter little longer than one."""
    run = launch.run

    def run_many(batch: Batch, loss: Loss, **tensors: Tensor | None) -> None:
        config = launch.choose(loss, batch.scores.shape[1], batch.scores.dtype)
        run(batch, loss, config=replace(config, rows=64), **tensors)

    monkeypatch.setattr(launch, "run", run_many)


_replace_language = cache(_patch_lang)


def _call(function: InterpretedFunction, *args: Any, **kwargs: Any) -> Any:
    _replace_language(function.fn)
    return function.rewrite()(*args, **kwargs)


def _reduce_by_halves(reduction: ReduceOps, values: Sequence[tl.tensor]) -> list[tl.tensor]:
    axis, dtypes = reduction.axis, [x.dtype for x in values]

    def tensors(data: Sequence[np.ndarray]) -> list[tl.tensor]:
        return [reduction.to_tensor(x, dtype) for x, dtype in zip(data, dtypes, strict=True)]

    while values[0].shape[axis] > 1:
        halves = [np.split(x.handle.data, 2, axis) for x in values]
        left, right = zip(*halves, strict=True)
        values = reduction.combine_fn.fn(*tensors(left), *tensors(right))
    return tensors([x.handle.data.squeeze(axis) for x in values])
