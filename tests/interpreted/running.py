"""Running the kernel or the eager backend on outputs that start as NaN, and rows to run them on."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from triton_topk.kernels.config import Config
from triton_topk.parameters import Loss

# Where there is one part or none `blocks` is set for the scores at hand, else the number of parts.
RESIDENT = Config(rows=4, lanes=16, blocks=0, parts=0, warps=1)
# Parts of 8 columns, and of 40: what is left after a step of 32 is one block more.
SMALL_PARTS = Config(rows=16, lanes=8, blocks=1, parts=1, warps=1)
PARTS = Config(rows=16, lanes=8, blocks=5, parts=1, warps=1)
WIDE = Config(rows=1, lanes=64, blocks=0, parts=0, warps=1)


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
    backend.run(scores, labels, loss, losses=losses, gradient=gradient, **kwargs)
    return losses, gradient


def fit(config: Config, n: int) -> Config:
    """The configuration for rows of n scores."""
    if config.blocks:
        return replace(config, parts=-(-n // (config.blocks * config.lanes)))
    return replace(config, blocks=-(-n // config.lanes))


def difficult_rows() -> tuple[Tensor, Tensor, Tensor, list[int], list[int]]:
    """Scores, labels, labels with the wrong ones ignored, rows that have to be NaN, and all others."""
    torch.manual_seed(0)
    scores = torch.randn(13, 21)
    labels = torch.randint(1, 20, (13,))
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
    known = labels.clone()
    known[[9, 10]] = -100
    return scores, labels, known, [1, 2, 5, 6, 7, 9, 10, 11], [0, 3, 4, 8, 12]
