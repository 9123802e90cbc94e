"""Launching the kernels on tensors."""

import math
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor

from triton_topk.kernels import config as table
from triton_topk.kernels.loss import loss_kernel
from triton_topk.kernels.scale import scale_kernel
from triton_topk.parameters import HardSVM, Loss, Lq, SmoothSVM, SmoothSVMLq


# typed, here and below: losses with equal parameters are equal as tuples
@lru_cache(maxsize=1024, typed=True)
def in_range(loss: Loss, n: int, dtype: torch.dtype) -> bool:
    """Whether the kernel can hold the coefficients of rows of n scores."""
    return table.in_range(choose(loss, n, dtype), _parts(loss, n, dtype)["DEGREE"])


@lru_cache(maxsize=1024, typed=True)
def choose(loss: Loss, n: int, dtype: torch.dtype) -> table.Config:
    """The configuration for rows of n scores, for warps of 32."""
    parts = _parts(loss, n, dtype)
    degree = max(parts["DEGREE"], parts["K"])
    return table.choose(n, degree, dtype, mixed=parts["SMOOTH"] and parts["LQ"])


def run(
    scores: Tensor,
    labels: Tensor,
    loss: Loss,
    *,
    weight: Tensor | None = None,
    normalizer: Tensor | None = None,
    upstream: Tensor | None = None,
    losses: Tensor | None = None,
    gradient: Tensor | None = None,
    config: table.Config | None = None,
) -> None:
    """Fill `losses` (N,) and `gradient` (N, C), either of which may be None.

    scores: (N, C), columns adjacent.  labels: (N,), contiguous.  The gradient is that of
    sum_i losses_i upstream_i / normalizer.
    """
    n_rows, n = scores.shape
    if n_rows == 0:
        return
    parts = _parts(loss, n, scores.dtype)
    if config is None:
        config = choose(loss, n, scores.dtype)
        if torch.version.hip:
            config = table.for_waves_of_64(config)
    vector = 16 // scores.element_size()
    aligned = n % vector == 0 and scores.stride(0) % vector == 0 and scores.data_ptr() % 16 == 0
    with torch.cuda.device_of(scores):
        loss_kernel[(triton.cdiv(n_rows, config.rows),)](
            scores,
            labels,
            weight,
            normalizer,
            upstream,
            losses,
            gradient,
            n_rows,
            n,
            scores.stride(0),
            0 if upstream is None else upstream.stride(0),
            loss.ignore_index,
            **parts,
            ROWS=config.rows,
            LANES=config.lanes,
            BLOCKS=config.blocks,
            DEPTH=min(parts["TOP"], config.blocks),
            SLOTS=triton.next_power_of_2(parts["TOP"]),
            CHUNK=min(triton.next_power_of_2(config.blocks), 16),
            ALIGN=vector if aligned else 1,
            STREAM=config.stream,
            num_warps=config.warps,
            enable_fp_fusion=True,
        )


@lru_cache(maxsize=1024, typed=True)
def _parts(loss: Loss, n: int, dtype: torch.dtype) -> dict[str, Any]:
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
            "TOP": table.top_size(loss.k, n - 1),
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
        if lq.truncation is not None:
            cut = -math.log(lq.truncation)
            out |= {"TRUNCATED": True, "cut": cut, "truncated": lq.truncated_loss}
    if isinstance(loss, SmoothSVMLq):
        out["mix"] = loss.mix
    return out


def scale_(gradient: Tensor, factor: Tensor) -> None:
    """gradient *= factor; gradient contiguous, factor a number."""
    block = 4096
    size = gradient.numel()
    if size:
        with torch.cuda.device_of(gradient):
            scale_kernel[(triton.cdiv(size, block),)](
                gradient, factor, size, BLOCK=block, num_warps=8, enable_fp_fusion=True
            )
