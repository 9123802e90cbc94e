"""Launching the kernels on tensors."""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from triton_topk.kernels import config as table
from triton_topk.kernels.loss import loss_kernel
from triton_topk.kernels.scale import scale_kernel
from triton_topk.parameters import HardSVM, Loss, Lq, SmoothSVM, SmoothSVMLq
from triton_topk.tensors import accumulation_dtype

_LARGEST_COEFFICIENT = 1e36  # and its reciprocal: in the range of float32
# As many programs as fill a GPU: more would be started only to find that there is nothing to do.
_SCALE = {"BLOCK": 4096, "PROGRAMS": 1024, "num_warps": 8, "enable_fp_fusion": True}
_COMPILED_SCALE: dict[Any, Any] = {}


# typed, here and below: losses with equal parameters are equal as tuples
@lru_cache(maxsize=1024, typed=True)
def in_range(loss: Loss, n: int, dtype: torch.dtype, config: table.Config | None = None) -> bool:
    """Whether the kernel can hold rows of n scores."""
    what = _what(loss, n, dtype)
    return table.in_range(config or choose(loss, n, dtype), what["TOP"], what["DEGREE"], dtype)


@lru_cache(maxsize=1024, typed=True)
def choose(loss: Loss, n: int, dtype: torch.dtype) -> table.Config:
    """The configuration for rows of n scores, for warps of 32."""
    what = _what(loss, n, dtype)
    degree = max(what["DEGREE"], what["K"])
    return table.choose(n, degree, dtype, mixed=what["SMOOTH"] and what["LQ"])


def run(
    scores: Tensor,
    labels: Tensor,
    loss: Loss,
    *,
    weight: Tensor | None = None,
    margins: Tensor | None = None,
    normalizer: Tensor | None = None,
    upstream: Tensor | None = None,
    losses: Tensor | None = None,
    hits: Tensor | None = None,
    gradient: Tensor | None = None,
    config: table.Config | None = None,
) -> None:
    """Fill `losses` (N,), `hits` (N, 2) and `gradient` (N, C), each of which may be None.

    scores, margins: (N, C), any strides.  The losses are divided by the normalizer; the gradient is that of
    sum_i losses_i upstream_i.
    """
    n_rows, n = scores.shape
    if n_rows == 0:
        return
    if scores.stride(1) != 1:
        scores = scores.contiguous()
    stride = scores.stride(0)
    aligned = stride * scores.element_size() % 16 == 0 and scores.data_ptr() % 16 == 0
    plan = _plan(loss, n, scores.dtype, aligned, config)
    n_programs = _ceil_div(n_rows, plan.rows)
    labels = labels.contiguous()
    summaries = None
    numbers = (
        n_rows,
        n,
        stride,
        *((0, 0) if margins is None else margins.stride()),
        0 if upstream is None else upstream.stride(0),
        loss.ignore_index,
    )
    if plan.summary is not None:
        dtype = accumulation_dtype(scores.dtype)
        summaries = scores.new_empty((n_rows, plan.parts, plan.numbers), dtype=dtype)
        tensors = (scores, labels, *[None] * 7, summaries)
        _launch(loss_kernel, n_programs * plan.parts, tensors, numbers, *plan.summary)
        if gradient is not None:
            n_programs *= plan.parts
    weight = None if weight is None else weight.contiguous()
    tensors = (
        scores,
        labels,
        weight,
        margins,
        normalizer,
        upstream,
        losses,
        hits,
        gradient,
        summaries,
    )
    _launch(loss_kernel, n_programs, tensors, numbers, *plan.loss)


def _launch(
    kernel: Any,
    n_programs: int,
    tensors: tuple[Tensor | None, ...],
    numbers: tuple[int, ...],
    constants: dict[str, Any],
    compiled: dict[Any, Any],
) -> None:
    """kernel[n_programs,](*tensors, *numbers, **constants).

    Each time Triton looks at every argument to find what it has compiled for arguments of the kind, which takes longer
    than everything else here.  What it found is therefore kept in `compiled`, which belongs to the constants, by all
    that it looks at: the tensors' device, dtype and alignment.  No kernel is compiled for the value of a number.
    """
    first = tensors[0]
    assert first is not None
    kind = (
        first.device,
        *[t if t is None else (t.dtype, t.data_ptr() % 16 == 0) for t in tensors],
    )
    grid = (n_programs, 1, 1)
    with torch.cuda.device_of(first):
        if kind in compiled:
            found, values = compiled[kind]
            found[grid](*tensors, *numbers, *values)
            return
        found = kernel[grid](*tensors, *numbers, **constants)
    # The interpreter compiles nothing.  For AMD's Triton looks at the sizes of storages, too.
    if found is not None and not torch.version.hip:
        names = kernel.arg_names[len(tensors) + len(numbers) :]
        compiled[kind] = found, [constants[name] for name in names]


class _Plan(NamedTuple):
    """The launches for rows of one kind: constants of the kernel, and a place for what is compiled of them."""

    rows: int  # of a program
    parts: int  # of a row
    numbers: int  # of a part's summary, its positions among them (summary.py)
    summary: tuple[dict[str, Any], dict[Any, Any]] | None
    loss: tuple[dict[str, Any], dict[Any, Any]]


@lru_cache(maxsize=1024, typed=True)
def _plan(
    loss: Loss, n: int, dtype: torch.dtype, aligned: bool, config: table.Config | None
) -> _Plan:
    """aligned: whether all rows start at multiples of 16 bytes."""
    if config is None:
        config = choose(loss, n, dtype)
        if torch.version.hip:
            config = table.for_waves_of_64(config)
    what = _what(loss, n, dtype)
    vector = 16 // dtype.itemsize
    constants = {
        **what,
        "ROWS": config.rows,
        "LANES": config.lanes,
        "VECTORS": config.vectors,
        "BLOCKS": config.blocks,
        "SCALED": math.comb(n - 1, what["DEGREE"]) > _LARGEST_COEFFICIENT,
        "SORTED": table.reducible_degree(what["TOP"]),
        "VEC": min(vector, config.lanes, max(1, config.rows * config.lanes // (32 * config.warps))),
        "ALIGN_ROWS": vector if aligned else 1,
        "ALIGN_N": math.gcd(n, vector),
        "STREAM": config.stream,
        "PARTS": config.parts,
        "FINISH": False,
        "num_warps": config.warps,
        "enable_fp_fusion": True,
    }
    if config.registers is not None:
        constants["maxnreg"] = config.registers
    numbers = 2 * what["TOP"] + what["DEGREE"] + 5
    if config.parts == 1:
        return _Plan(config.rows, 1, numbers, None, (constants, {}))
    finish = constants | {"STREAM": True, "FINISH": True}
    return _Plan(config.rows, config.parts, numbers, (constants, {}), (finish, {}))


@lru_cache(maxsize=1024, typed=True)
def _what(loss: Loss, n: int, dtype: torch.dtype) -> dict[str, Any]:
    """The kernel's arguments that say what to compute."""
    out: dict[str, Any] = {
        "SMOOTH": False,
        "HARD": False,
        "LQ": False,
        "K": 1,
        "TOP": 1,
        "DEGREE": 0,
        "REDUCIBLE": None,
        "THRESHOLD": None,
        "TRUNCATED": False,
        **dict.fromkeys(("margin", "inverse", "rate", "tau", "q", "cut", "truncated", "mix"), 0.0),
    }
    if isinstance(loss, SmoothSVM | SmoothSVMLq):
        digits = 52 if dtype == torch.float64 else 23
        degree = loss.k if loss.order is None else loss.k + loss.order - 1
        out |= {
            "SMOOTH": True,
            "K": loss.k,
            "TOP": table.top_size(loss.k),
            "DEGREE": degree,
            "REDUCIBLE": table.reducible_degree(degree),
            "THRESHOLD": None if loss.order is None else 2.0 ** (digits / (loss.k + loss.order)),
            "margin": loss.k * loss.margin,
            "inverse": 1 / (loss.k * loss.tau),
            "rate": math.log2(math.e) / (loss.k * loss.tau),
            "tau": loss.tau,
        }
    if isinstance(loss, HardSVM):
        out |= {"HARD": True, "K": loss.k, "TOP": loss.k, "margin": loss.k * loss.margin}
    if isinstance(loss, Lq | SmoothSVMLq):
        lq = loss if isinstance(loss, Lq) else loss.lq
        out |= {"LQ": True, "q": lq.q}
        if isinstance(loss, Lq) and loss.hits is not None:
            out |= {"K": loss.hits, "TOP": loss.hits}
        if lq.truncation is not None:
            cut = -math.log(lq.truncation)
            out |= {"TRUNCATED": True, "cut": cut, "truncated": lq.truncated_loss}
    if isinstance(loss, SmoothSVMLq):
        out["mix"] = loss.mix
    return out


def scale_(gradient: Tensor, factor: Tensor) -> None:
    """gradient *= factor; gradient contiguous, factor a number."""
    size = gradient.numel()
    if size:
        n_programs = min(_ceil_div(size, _SCALE["BLOCK"]), _SCALE["PROGRAMS"])
        _launch(scale_kernel, n_programs, (gradient, factor), (size,), _SCALE, _COMPILED_SCALE)


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)
