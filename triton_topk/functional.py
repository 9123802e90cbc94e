"""The losses as functions, with the conventions of torch.nn.functional.cross_entropy."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

from triton_topk import ops

_SCORES_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def smooth_svm(
    scores: Tensor,
    labels: Tensor,
    k: int = 5,
    *,
    tau: float = 1.0,
    margin: float = 1.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    gradient: str = "exact",
    order: int | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Smooth top-k SVM loss (Berrada, Zisserman, Kumar, ICLR 2018, https://arxiv.org/abs/1802.07595).

    .. math::
        L = \tau \log\Big(1 + \frac{e^{\alpha/\tau} \sigma_k}{e^{s_y/(k\tau)} \sigma_{k-1}}\Big)

    with margin :math:`\alpha` and :math:`\sigma_j` the j-th elementary symmetric polynomial of
    :math:`e^{s_i/(k\tau)}` over all classes i but the label y.  As tau goes to 0 it becomes
    max(0, margin + (s_[k] - s_y) / k), s_[k] the k-th largest score of the other classes; k = 1, tau = 1,
    margin = 0 is cross-entropy.

    Args:
        scores: (C,), (N, C) or (N, C, d1, ...), any strides; float16, bfloat16, float32 or float64.
            A score of -inf masks its class: it contributes nothing; the label's own gives a loss of +inf
            (NaN where fewer than k others are left).  NaN or +inf makes its row NaN and no other.
        labels: class indices in [0, C) or `ignore_index`, of any integer dtype; (), (N,) or
            (N, d1, ...).
        k: 1 <= k < C.  The label should be among the k largest scores.
        tau: temperature > 0, in units of the scores.
        margin: margin >= 0, in units of the scores.
        weight: (C,), a factor for the loss of each label.
        ignore_index: a label whose row counts for nothing: no loss, no gradient, not in the mean.
        reduction: "none", "sum", or "mean", which divides by the sum of the weights of the labels.
        gradient: "exact", or "taylor" for the stable p-th order approximation of the paper.
        order: p of "taylor"; 1 + k // 5 by default.
        backend: "triton" for the fused kernels (scores on a GPU, k <= 16), "eager" for PyTorch
            operations, None to choose.

    Returns:
        A number, or for reduction "none" a tensor of the labels' shape; float32, or float64 for float64
        scores, which are also the types of all arithmetic.  The gradient has the scores' dtype.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value.
        IndexError: a label outside [0, C), on the CPU.  On a GPU that row's loss and gradient are NaN.
    """
    n_classes = _check_scores_and_labels(scores, labels)
    _check_k(k, n_classes)
    _check_number("tau", tau, positive=True)
    _check_number("margin", margin, positive=False)
    _check_weight(weight, n_classes, scores)
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, int):
        raise TypeError(f"ignore_index must be an int, got {ignore_index!r}")
    _check_choice("reduction", reduction, ("none", "mean", "sum"))
    _check_choice("gradient", gradient, ("exact", "taylor"))
    _check_choice("backend", backend, (None, "triton", "eager"))
    loss = ops.Loss(
        k,
        float(tau),
        float(margin),
        ignore_index,
        _check_order(order, gradient, k),
        backend,
    )
    rows = scores if scores.dim() == 2 else _as_rows(scores)
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    # Narrow and unsigned integers cannot be compared with every C and ignore_index.
    out = ops.smooth_svm(rows, labels.reshape(-1).long(), weight, reduction, loss)
    return out.reshape(labels.shape) if reduction == "none" else out


def _as_rows(scores: Tensor) -> Tensor:
    """(C,) or (N, C, d1, ...) as (N d1 ..., C), the rows in the order of the labels."""
    n_classes = scores.shape[0 if scores.dim() == 1 else 1]
    return scores.movedim(0 if scores.dim() == 1 else 1, -1).reshape(-1, n_classes)


def _check_scores_and_labels(scores: Tensor, labels: Tensor) -> int:
    """The number of classes C."""
    if not isinstance(scores, Tensor):
        raise TypeError(f"scores must be a Tensor, got {type(scores).__name__}")
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a Tensor, got {type(labels).__name__}")
    if scores.dtype not in _SCORES_DTYPES:
        raise TypeError(f"scores must be float16, bfloat16, float32 or float64, got {scores.dtype}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be of an integer dtype, got {labels.dtype}")
    if scores.dim() == 0:
        raise ValueError("scores must have shape (C,), (N, C) or (N, C, d1, ...), got ()")
    shape = tuple(scores.shape)
    expected = () if scores.dim() == 1 else (shape[0], *shape[2:])
    if tuple(labels.shape) != expected:
        raise ValueError(
            f"labels must have shape {expected} for scores of shape {shape}, "
            f"got {tuple(labels.shape)}"
        )
    if labels.device != scores.device:
        raise ValueError(
            f"labels must be on the device of scores, {scores.device}, got {labels.device}"
        )
    return int(shape[0] if scores.dim() == 1 else shape[1])


def _check_k(k: int, n_classes: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"k must be an int, got {k!r}")
    if not 1 <= k < n_classes:
        raise ValueError(f"k must satisfy 1 <= k < C, got k={k} for C={n_classes} classes")


def _check_number(name: str, value: float, *, positive: bool) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    # not math.isfinite, which cannot be traced
    if not 0 <= value < math.inf or (positive and value == 0):
        raise ValueError(f"{name} must be {'> 0' if positive else '>= 0'} and finite, got {value}")


def _check_weight(weight: Tensor | None, n_classes: int, scores: Tensor) -> None:
    if weight is None:
        return
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        got = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise TypeError(f"weight must be a floating-point Tensor, got {got}")
    if tuple(weight.shape) != (n_classes,):
        raise ValueError(f"weight must have shape ({n_classes},), got {tuple(weight.shape)}")
    if weight.device != scores.device:
        raise ValueError(
            f"weight must be on the device of scores, {scores.device}, got {weight.device}"
        )


def _check_choice(name: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _check_order(order: int | None, gradient: str, k: int) -> int | None:
    """p of the Taylor-type gradient; None for the exact one."""
    if order is not None and (isinstance(order, bool) or not isinstance(order, int)):
        raise TypeError(f"order must be an int or None, got {order!r}")
    if order is not None and order < 1:
        raise ValueError(f"order must be >= 1, got {order}")
    if gradient == "exact":
        if order is not None:
            raise ValueError(f"order is for gradient='taylor' only, got order={order}")
        return None
    return 1 + k // 5 if order is None else order
