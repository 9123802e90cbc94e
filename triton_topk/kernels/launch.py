"""Launching the kernels on tensors."""

import math

import torch
import triton
from torch import Tensor

from triton_topk.kernels import config as table
from triton_topk.kernels.scale import scale_kernel
from triton_topk.kernels.smooth_svm import smooth_svm_kernel


def in_range(scores: Tensor, degree: int) -> bool:
    return table.in_range(scores.shape[1], degree, scores.dtype)


def smooth_svm(
    scores: Tensor,
    labels: Tensor,
    *,
    k: int,
    tau: float,
    margin: float,
    ignore_index: int,
    order: int | None,
    weight: Tensor | None = None,
    normalizer: Tensor | None = None,
    upstream: Tensor | None = None,
    losses: Tensor | None = None,
    gradient: Tensor | None = None,
    config: table.Config | None = None,
) -> None:
    """Fill `losses` (N,) and `gradient` (N, C), either of which may be None.

    scores: (N, C), columns adjacent.  labels: (N,), contiguous.  The gradient is that of
    sum_i losses_i upstream_i / normalizer.  order: None for the exact gradient, else p of the series.
    """
    n_rows, n = scores.shape
    if n_rows == 0:
        return
    top = table.top_size(k, n - 1)
    degree = k if order is None else k + order - 1
    if config is None:
        config = table.choose(n, degree, scores.dtype)
        if torch.version.hip:
            config = table.for_waves_of_64(config)
    vector = 16 // scores.element_size()
    aligned = n % vector == 0 and scores.stride(0) % vector == 0 and scores.data_ptr() % 16 == 0
    digits = 52 if scores.dtype == torch.float64 else 23
    with torch.cuda.device_of(scores):
        smooth_svm_kernel[(triton.cdiv(n_rows, config.rows),)](
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
            ignore_index,
            k * margin,
            1 / (k * tau),
            math.log2(math.e) / (k * tau),
            tau,
            K=k,
            TOP=top,
            DEGREE=degree,
            REDUCIBLE=table.reducible_degree(degree),
            THRESHOLD=None if order is None else 2.0 ** (digits / (k + order)),
            ROWS=config.rows,
            LANES=config.lanes,
            BLOCKS=config.blocks,
            DEPTH=min(top, config.blocks),
            SLOTS=triton.next_power_of_2(top),
            CHUNK=min(triton.next_power_of_2(config.blocks), 16),
            ALIGN=vector if aligned else 1,
            STREAM=config.stream,
            num_warps=config.warps,
            enable_fp_fusion=True,
        )


def scale_(gradient: Tensor, factor: Tensor) -> None:
    """gradient *= factor; gradient contiguous, factor a number."""
    block = 4096
    size = gradient.numel()
    if size:
        with torch.cuda.device_of(gradient):
            scale_kernel[(triton.cdiv(size, block),)](
                gradient, factor, size, BLOCK=block, num_warps=8, enable_fp_fusion=True
            )
