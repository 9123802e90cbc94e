"""Running the kernel or the eager backend on outputs that start as NaN, and rows to run them on."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from triton_topk.batch import Batch
from triton_topk.kernels.config import Config
from triton_topk.losses import Loss

# `blocks` is set for the scores at hand, and `parts` is what there may be at most.
RESIDENT = Config(rows=4, columns=16, blocks=0, stream=False, warps=1)
STREAM = Config(rows=2, columns=16, blocks=0, stream=True, warps=1)
WIDE = Config(rows=1, columns=64, blocks=0, stream=False, warps=1)
PARTS = Config(rows=64, columns=16, blocks=0, stream=False, warps=1, parts=3)
STREAMED_PARTS = replace(PARTS, stream=True)
HALVES = replace(RESIDENT, columns=32, vectors=2)
STREAMED_HALVES = replace(STREAM, columns=8, vectors=2)
LAYOUTS = {
    "resident": RESIDENT,
    "stream": STREAM,
    "wide": WIDE,
    "parts": PARTS,
    "streamed parts": STREAMED_PARTS,
    "halves": HALVES,
    "streamed halves": STREAMED_HALVES,
}


def run(
    backend: object,
    scores: Tensor,
    labels: Tensor,
    loss: Loss,
    config: Config | None = None,
    **kwargs: object,
) -> tuple[Tensor, Tensor]:
    """Losses and gradient, from outputs that start as NaN."""
    dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
    losses = torch.full((len(scores),), math.nan, dtype=dtype)
    gradient = torch.full(scores.shape, math.nan, dtype=scores.dtype)
    if config is not None:
        kwargs["config"] = fit(config, scores.shape[1])
    names = "weight", "sample_weight", "margins", "normalizer", "uncounted"
    of_batch = {name: kwargs.pop(name, None) for name in names}
    batch = Batch(scores, labels, **of_batch)
    backend.run(batch, loss, losses=losses, gradient=gradient, **kwargs)
    return losses, gradient


def fit(config: Config, n: int) -> Config:
    blocks = -(-n // (config.columns * config.vectors))
    parts = min(config.parts, blocks)
    return replace(config, blocks=-(-blocks // parts), parts=parts)


def difficult_rows() -> tuple[Tensor, Tensor, Tensor, list[int], list[int]]:
    """Scores, labels, labels with the wrong ones ignored, rows that have to be NaN, and all others."""
    torch.manual_seed(0)
    scores = torch.randn(14, 21)
    labels = torch.randint(1, 20, (14,))
    scores[0, ::2] = -math.inf
    scores[1, 0] = math.nan
    scores[2, 0] = math.inf
    scores[3, labels[3]] = -math.inf
    scores[4, 4:] = -math.inf
    labels[4] = 1
    scores[5, labels[5]] = math.nan
    scores[6, labels[6]] = math.inf
    scores[7] = math.nan
    scores[8] = math.nan
    labels[8] = -100
    labels[9] = 21
    labels[10] = -1
    scores[11] = -math.inf
    scores[12] = -math.inf
    scores[12, labels[12]] = 0.5
    # NaN beside fewer than k others
    scores[13] = -math.inf
    scores[13, 0] = math.nan
    scores[13, labels[13]] = 0.5
    known = labels.clone()
    known[[9, 10]] = -100
    return scores, labels, known, [1, 2, 5, 6, 7, 9, 10, 11, 13], [0, 3, 4, 8, 12]
