"""The losses as formulas that can be differentiated any number of times, for what the fused ones cannot."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_topk import reference
from triton_topk.labels import read
from triton_topk.parameters import HardSVM, Loss, Lq, SmoothSVM
from triton_topk.tensors import accumulation_dtype


def pull_back_gradient(
    gradient_of_gradient: Tensor,
    loss: Loss,
    scores: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    margins: Tensor | None,
    normalizer: Tensor | None,
    upstream: Tensor,
) -> tuple[Tensor, Tensor]:
    """The vector-Jacobian product of G(scores, upstream), the gradient (N, C) of sum_i upstream_i L_i(scores).

    That in the scores is the Hessian of the losses times a vector.  The Taylor-type gradient stands for the exact
    one, whose derivative this is.
    """

    def losses(scores: Tensor) -> Tensor:
        return _losses(loss, scores, labels, weight, margins, normalizer)

    def gradient(scores: Tensor, upstream: Tensor) -> Tensor:
        out: Tensor = torch.func.vjp(losses, scores)[1](upstream)[0]
        return out

    pull_back = torch.func.vjp(gradient, scores, upstream)[1]
    of_scores, of_upstream = pull_back(gradient_of_gradient)
    return of_scores, of_upstream


def _losses(
    loss: Loss,
    scores: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    margins: Tensor | None,
    normalizer: Tensor | None,
) -> Tensor:
    labelled = read(
        labels,
        scores.shape[1],
        torch.float64,
        ignore_index=loss.ignore_index,
        weight=weight,
        margins=margins,
        normalizer=normalizer,
    )
    active, known, label = labelled.active, labelled.known, labelled.label.squeeze(1)
    # an ignored row counts for nothing, whatever it holds
    rows = scores.double().where(active.unsqueeze(1), 0)
    margin = 0.0 if labelled.margin is None else labelled.margin.double()
    factor = labelled.factor.masked_fill(active & ~known, torch.nan)
    out = torch.where(active, _of_rows(loss, rows, label, margin) * factor, 0)
    return out.to(accumulation_dtype(scores.dtype))


def _of_rows(loss: Loss, rows: Tensor, label: Tensor, margin: Tensor | float) -> Tensor:
    if isinstance(loss, Lq):
        return reference.lq_loss(rows, label, loss.q, truncation=loss.truncation)
    if isinstance(loss, HardSVM):
        return reference.hard_svm(rows, label, loss.k, margin=margin + loss.margin)
    if isinstance(loss, SmoothSVM):
        return _smooth_svm(rows, label, loss.k, loss.tau, margin + loss.margin)
    svm, lq = (_of_rows(part, rows, label, margin) for part in (loss.svm, loss.lq))
    return loss.mix * svm + (1 - loss.mix) * lq


def _smooth_svm(rows: Tensor, label: Tensor, k: int, tau: float, margin: Tensor | float) -> Tensor:
    """L = tau softplus(z), z = (margin - s_y / k) / tau + log sigma_k - log sigma_{k-1}."""
    others = rows.scatter(1, label.unsqueeze(1), -torch.inf)
    log_sigma = _log_elementary_symmetric(others / (k * tau), k)
    own = rows.gather(1, label.unsqueeze(1))[:, 0] / (k * tau)
    z = margin / tau + log_sigma[k] - log_sigma[k - 1] - own
    few = log_sigma[k] < reference.LOG_ZERO / 2
    z = z.masked_fill(few & ~own.isneginf(), -torch.inf).masked_fill(
        few & own.isneginf(), torch.nan
    )
    # beyond the threshold it is z, to the last digit of float64
    return tau * F.softplus(z, threshold=40)


def _log_elementary_symmetric(x: Tensor, k: int) -> Tensor:
    """log sigma_0, ..., log sigma_k of exp(x), (N, n), as (k + 1, N): products of halves of the 1 + exp(x_i) t.

    A sum of logarithms is a logsumexp, which has a second derivative at any distance of its terms; logaddexp has not.
    """
    x = x.clamp(min=reference.LOG_ZERO)
    products = torch.stack((torch.zeros_like(x), x))
    while products.shape[2] > 1:
        one = products.new_full(
            (products.shape[0], x.shape[0], products.shape[2] % 2), reference.LOG_ZERO
        )
        one[0] = 0
        left, right = torch.cat((products, one), 2).chunk(2, 2)
        degree = min(2 * (products.shape[0] - 1), k)
        products = torch.stack([_coefficient(left, right, j) for j in range(degree + 1)])
    missing = k + 1 - products.shape[0]
    return F.pad(products[:, :, 0], (0, 0, 0, missing), value=reference.LOG_ZERO)


def _coefficient(left: Tensor, right: Tensor, j: int) -> Tensor:
    """The logarithm of coefficient j of the product of polynomials whose coefficients' logarithms these are."""
    first, last = max(0, j - right.shape[0] + 1), min(j, left.shape[0] - 1)
    terms = [left[i] + right[j - i] for i in range(first, last + 1)]
    return torch.stack(terms).logsumexp(0)
