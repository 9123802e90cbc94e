"""Autograd differentiates the losses' gradient, in float64, by their definitions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from triton_topk.batch import Batch, accumulation_dtype
from triton_topk.losses import Loss
from triton_topk.reference import DEFINITIONS


def pull_back_gradient(
    gradient_of_gradient: Tensor, loss: Loss, *tensors: Any
) -> tuple[Tensor, Tensor]:
    """Return the vector-Jacobian product of G(scores, upstream), the gradient (N, C) of sum_i upstream_i L_i(scores).

    The tensors are those of a batch and the upstream gradient.  The product's part in the scores is the Hessian of the
    losses times a vector.  The Taylor-type gradient stands for the exact one, whose derivative this is.
    """
    *of_batch, upstream = tensors
    batch = Batch(*of_batch)
    if batch.summary is not None:
        raise NotImplementedError(
            f"{loss.name} has no second derivative of scores whose classes are sharded over ranks"
        )

    def losses(scores: Tensor) -> Tensor:
        return _losses(loss, batch._replace(scores=scores))

    def gradient(scores: Tensor, upstream: Tensor) -> Tensor:
        out: Tensor = torch.func.vjp(losses, scores)[1](upstream)[0]
        return out

    pull_back = torch.func.vjp(gradient, batch.scores, upstream)[1]
    of_scores, of_upstream = pull_back(gradient_of_gradient)
    return of_scores, of_upstream


def _losses(loss: Loss, batch: Batch) -> Tensor:
    labelled = batch.read_labels(loss.ignore_index, torch.float64)
    active, valid, label = labelled.active, labelled.valid, labelled.label.squeeze(1)
    assert active is not None
    assert valid is not None
    # an ignored row has no part in the result, whatever it holds
    rows = batch.scores.double().where(active.unsqueeze(1), 0)
    margin = 0.0 if labelled.margin is None else labelled.margin.double()
    factor = torch.where(active & ~valid, torch.nan, labelled.factor)
    out = DEFINITIONS[type(loss)](loss, rows, label, margin) * factor
    return torch.where(active, out, 0).to(accumulation_dtype(batch.scores.dtype))
