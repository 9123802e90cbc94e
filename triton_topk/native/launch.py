"""The kernel is called with the addresses of a batch's tensors, by as many threads as PyTorch has."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from numba.core import event
from torch import Tensor

from triton_topk.arguments import UNKNOWN
from triton_topk.batch import Batch, class_indices
from triton_topk.losses import Form, Loss
from triton_topk.native.kernel import compute, size_of
from triton_topk.native.lanes import LANES, LONG, SHORT
from triton_topk.native.terms import FLOAT32, FLOAT64, obstacle, real_of, terms_of
from triton_topk.summary import Summary

__all__ = ["obstacle", "run", "summarize"]

# numba has neither bfloat16 nor float16: their bits are integers.
_STORAGE: dict[torch.dtype, Any] = {
    torch.float32: np.float32,
    torch.bfloat16: np.uint16,
    torch.float16: np.int16,
    torch.float64: np.float64,
}
# It is that of scores times 8 + t.  With less, a thread that PyTorch's own threads let wait costs more than it saves.
_WORK_OF_A_THREAD = 6_000_000
_ONE, _ZERO = np.ones(1), np.zeros(1)
_ONES, _ZEROS = (_ONE.ctypes.data, 0), (_ZERO.ctypes.data, 0, 0)  # addresses and strides


class _Announcement(event.Listener):
    """Whoever waits for the compiler is told so, once for each type of scores and of arithmetic."""

    def on_start(self, event: Any) -> None:
        if event.data["dispatcher"] is compute:
            storage, real = map(str, event.data["args"][:2])
            dtype = {"uint16": "bfloat16", "int16": "float16"}.get(storage, storage)
            logging.getLogger("triton_topk").warning(
                "triton_topk compiles its kernel for %s scores in %s arithmetic on this CPU, "
                "which takes about 10 seconds, once",
                dtype,
                real,
            )

    def on_end(self, event: Any) -> None:
        """Say nothing more."""


event.register("numba:compile", _Announcement())  # type: ignore[no-untyped-call]


class _Plan(NamedTuple):
    """The loss, the number of a row's scores and their type decide what the kernel is given beside a batch."""

    storage: Any
    real: Any
    result: Any
    terms: npt.NDArray[np.void]
    slots: int
    memory: int  # bytes
    work: int  # of a score
    classes: int
    form: Form


def _longest_short_row(t: int) -> int:
    """Return the length up to which rows take less time eight at once than one by one, by measurement."""
    return 1024 + 160 * t


@lru_cache(maxsize=256)
def _plan(loss: Loss, n: int, dtype: torch.dtype, sharded: bool) -> _Plan:
    result = FLOAT64 if dtype == torch.float64 else FLOAT32
    real = real_of(loss, result)
    # the form of a summary does not depend on the shard
    terms = terms_of(loss, UNKNOWN if sharded else n, real)
    form = loss.form if sharded else Form(top=0)
    t = max(form.top, int(terms["t"].max()))
    slots = SHORT if n <= _longest_short_row(t) else LONG
    classes = n + sharded
    memory = size_of(real.type(0), classes, form.top, slots, terms)
    numbers = _STORAGE[dtype](0), real.type(0), result.type(0)
    return _Plan(*numbers, terms, slots, memory, 8 + t, classes, form)


def run(
    batch: Batch,
    loss: Loss,
    *,
    upstream: Tensor | None = None,
    losses: Tensor | None = None,
    hits: Tensor | None = None,
    gradient: Tensor | None = None,
    summarizing: bool = False,
) -> None:
    scores, summary = batch.scores, batch.summary
    n_rows, n = scores.shape
    if n_rows == 0:
        return
    plan = _plan(loss, n, scores.dtype, summary is not None)
    storage, real, result, terms, slots, bytes_, work, classes, form = plan
    # without hits no rank is needed
    k_of_hits = loss.hits if loss.hits is not None and (summarizing or hits is not None) else 0
    labels = class_indices(batch.labels, loss.ignore_index)
    weight, sample_weight = _in_float64(batch.weight), _in_float64(batch.sample_weight)
    margins, upstream = _in_float64(batch.margins), _in_float64(upstream)
    normalizer = batch.counted().normalizer
    divisor = batch.divisor * (1.0 if normalizer is None else float(normalizer))

    def compute_rows(first: int, last: int) -> None:
        # the addresses are of tensors of this function, which live as long as it, whatever becomes of the call
        right = compute(
            storage,
            real,
            result,
            np.empty(bytes_, np.uint8),
            terms,
            slots,
            first,
            last,
            scores.data_ptr(),
            *scores.stride(),
            n,
            classes,
            labels.data_ptr(),
            *labels.stride(),
            loss.ignore_index,
            *(_ONES if weight is None else _located(weight)),
            *(_ONES if sample_weight is None else _located(sample_weight)),
            divisor,
            *(_ZEROS if margins is None else _located(margins)),
            *(_ONES if upstream is None else _located(upstream)),
            0 if losses is None else losses.data_ptr(),
            0 if hits is None else hits.data_ptr(),
            k_of_hits,
            0 if gradient is None else gradient.data_ptr(),
            0 if summary is None else summary.data_ptr(),
            0 if summary is None else summary.stride(0),
            summarizing,
            form.top,
            form.degree,
        )
        if not right:
            raise IndexError(
                f"labels must be in [0, {classes}) or ignore_index={loss.ignore_index}, "
                "but something has changed their memory since they were checked"
            )

    threads = n_rows * n * work // _WORK_OF_A_THREAD
    _share(compute_rows, n_rows, threads, LANES // slots)


def summarize(batch: Batch, loss: Loss) -> None:
    """Fill the summary of the batch with that of its scores."""
    assert batch.summary is not None
    # rows that are ignored have no class
    Summary.of(batch.summary.zero_(), loss.form).v.fill_(-math.inf)
    run(batch, loss, summarizing=True)


def _share(compute_rows: Callable[[int, int], None], n_rows: int, threads: int, unit: int) -> None:
    """Compute the rows, a multiple of a unit by each of at most so many threads, of which this one is the first."""
    threads = min(torch.get_num_threads(), threads)
    if threads <= 1:
        compute_rows(0, n_rows)
        return
    share = -(-n_rows // (threads * unit)) * unit
    shares = iter(range(0, n_rows, share))

    def compute_shares() -> None:
        """Compute one share after the other that no thread has taken."""
        for first in shares:
            compute_rows(first, min(first + share, n_rows))

    helpers = _helpers(os.getpid(), torch.get_num_threads())
    others: list[Future[None]] = []
    # no thread is started at the interpreter's end, or where there are too many
    with suppress(RuntimeError):
        others.extend(helpers.submit(compute_shares) for _ in range(share, n_rows, share))
    try:
        compute_shares()
    finally:
        # they read what the caller may change after an error
        running = [other for other in others if not other.cancel()]
        wait(running)
    for other in running:
        other.result()


@lru_cache(maxsize=1)
def _helpers(process: int, threads: int) -> ThreadPoolExecutor:
    """Return the threads beside the caller's; a forked process has none of its parent's."""
    return ThreadPoolExecutor(threads, "triton_topk")


def _in_float64(tensor: Tensor | None) -> Tensor | None:
    """Return the numbers in float64, and one of them where a stride of 0 makes all the same."""
    if tensor is None:
        return None
    for dim, stride in enumerate(tensor.stride()):
        if stride == 0:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor.double()


def _located(tensor: Tensor) -> tuple[int, ...]:
    """Return the address and the strides, 0 where there is one number for all."""
    strides = zip(tensor.shape, tensor.stride(), strict=True)
    return (tensor.data_ptr(), *(0 if size == 1 else stride for size, stride in strides))
