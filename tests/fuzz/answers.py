"""The right answer to a call, row by row, and how far from it a row may be.

The rounding that is allowed is relative, to the loss and to the largest entry of the row's gradient, as in accuracy.py.
Where the answer jumps within the rounding of where it does, either side is right.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import mpmath
import torch
from accuracy import LOSS_BOUND, gradient_bound
from calls import Call
from torch import Tensor

import triton_topk
from bench.exact import exact_hard_svm, exact_lq_loss, exact_smooth_svm

_DOUBLE = 2.0**-52


@dataclass
class Row:
    """One label and its scores come to this before weights and the normalizer."""

    loss: float
    gradient: list[float]
    loss_error: float = 0.0
    gradient_error: float = 0.0

    @classmethod
    def constant(cls, value: float, n_classes: int) -> Row:
        return cls(value, [value] * n_classes)

    @classmethod
    def exact(cls, answer: tuple[Any, list[Any]], loss_error: float, gradient_error: float) -> Row:
        """Both errors relative."""
        loss, gradient = float(answer[0]), [float(x) for x in answer[1]]
        largest = max(map(abs, gradient))
        loss_error = loss_error * loss if math.isfinite(loss) else 0.0
        return cls(loss, gradient, loss_error, gradient_error * largest)

    def plus(self, other: Row, share: float) -> Row:
        """share * self + (1 - share) * other."""

        def mix(a: float, b: float) -> float:
            return share * a + (1 - share) * b

        gradient = [mix(*pair) for pair in zip(self.gradient, other.gradient, strict=True)]
        return Row(
            mix(self.loss, other.loss),
            gradient,
            mix(self.loss_error, other.loss_error),
            mix(self.gradient_error, other.gradient_error),
        )


class Answer:
    """The answer to a call: one Row for each label, None for an ignored one."""

    def __init__(self, call: Call) -> None:
        defaults = inspect.signature(getattr(triton_topk, call.loss)).parameters
        self.call = call
        self.options = {name: p.default for name, p in defaults.items()} | call.options
        self.dtype = torch.float64 if call.scores.dtype == torch.float64 else torch.float32
        self.labels = call.labels.reshape(-1).tolist()
        margins = self._margins().tolist()
        self.rows = [
            self._row(scores, label, margin)
            for scores, label, margin in zip(call.rows.tolist(), self.labels, margins, strict=True)
        ]
        self.scale = self._scale()

    def _margins(self) -> Tensor:
        """Return the answer for each row, in float64."""
        margin = self.options.get("margin", 0.0)
        if not isinstance(margin, Tensor) or margin.dim() == 0:
            return torch.full((len(self.labels),), float(margin), dtype=torch.float64)
        return self._of_rows(margin)

    def _of_rows(self, constant: Tensor) -> Tensor:
        """A number of each class, or of each row, as that of each row."""
        n_classes = self.call.rows.shape[1]
        if constant.shape == (n_classes,):
            # an ignored label may be no class
            return constant.double()[[label % n_classes for label in self.labels]]
        return constant.double().reshape(-1)

    def _row(self, scores: list[float], label: int, margin: float) -> Row | None:
        if label == self.options["ignore_index"]:
            return None
        if any(math.isnan(s) or s == math.inf for s in scores):
            return Row.constant(math.nan, len(scores))
        mix = {"lq_loss": 0.0, "smooth_svm_lq": self.options.get("mix")}.get(self.call.loss, 1.0)
        if mix == 0:
            return self._lq(scores, label)
        if self.call.loss == "hard_svm":
            return self._hard_svm(scores, label, margin)
        svm = self._smooth_svm(scores, label, margin)
        return svm if mix == 1 else svm.plus(self._lq(scores, label), mix)

    def _smooth_svm(self, scores: list[float], label: int, margin: float) -> Row:
        k, tau = self.options["k"], self.options["tau"]
        answer = exact_smooth_svm(scores, label, k, tau=tau, margin=margin)
        if not mpmath.isfinite(answer[0]):
            return Row.exact(answer, 0.0, self._svm_gradient_error(k, len(scores)))
        if answer[0] == 0:
            return Row.exact(answer, 0.0, 0.0)
        z = mpmath.log(mpmath.expm1(answer[0] / tau))
        of_z = float(max(-z, 0)) * torch.finfo(self.dtype).eps
        loss_error = LOSS_BOUND if self.dtype == torch.float32 else 1e-12
        gradient_error = self._svm_gradient_error(k, len(scores))
        # dL/dz = tau sigmoid(z), dg/dz = g (1 - sigmoid(z))
        difference = self._difference_error(scores, label, margin)
        unsaturated = float(mpmath.exp(-answer[0] / tau))
        row = Row.exact(
            answer, loss_error + of_z, gradient_error + of_z + unsaturated * difference / tau
        )
        row.loss_error += (1 - unsaturated) * difference
        return row

    def _svm_gradient_error(self, k: int, n_classes: int) -> float:
        if self.options["gradient"] == "taylor":
            order = self.options.get("order") or 1 + k // 5
            # where the recursion upwards ends, and the series begins
            return 8 * float(torch.finfo(self.dtype).eps ** (order / (k + order)))
        return gradient_bound(k, n_classes) if self.dtype == torch.float32 else 1e-11

    def _difference_error(self, scores: list[float], label: int, margin: float) -> float:
        """Bound the rounding of margin + (s_[k] - s_y) / k in float64; nothing of a masked class is rounded."""
        k = self.options["k"]
        difference = sorted(scores[:label] + scores[label + 1 :])[-k] - scores[label]
        return 2 * _DOUBLE * (margin + abs(difference) / k) if math.isfinite(difference) else 0.0

    def _hard_svm(self, scores: list[float], label: int, margin: float) -> Row:
        answer = exact_hard_svm(scores, label, self.options["k"], margin=margin)
        row = Row.exact(answer, torch.finfo(self.dtype).eps, 1e-6)
        if math.isfinite(row.loss):
            error = self._difference_error(scores, label, margin)
            row.loss_error += error
            if 0 < row.loss <= error:
                row.gradient_error = math.inf
        return row

    def _lq(self, scores: list[float], label: int) -> Row:
        q, truncation = self.options["q"], self.options["truncation"]
        answer = exact_lq_loss(scores, label, q, truncation=truncation)
        if mpmath.isnan(answer[0]):
            return Row.exact(answer, 0.0, 0.0)
        minus_log_p = exact_lq_loss(scores, label, 0.0)[0]
        error = 1e-6 if self.dtype == torch.float32 else 1e-12
        if scores[label] == -math.inf:
            return Row.exact(answer, error, error)
        difference = 2 * _DOUBLE * (max(scores) - scores[label])
        rounding = q * float(minus_log_p) * torch.finfo(self.dtype).eps
        # of the odds z: dL/dz is the largest entry g of the gradient, dg/dz = g (p - q (1 - p))
        of_z = (q + float(mpmath.exp(-minus_log_p))) * difference
        row = Row.exact(answer, error, error + rounding + of_z)
        row.loss_error += difference * max(map(abs, row.gradient))
        if truncation is not None and abs(float(minus_log_p) + math.log(truncation)) < 1e-5:
            row.gradient_error = math.inf
        return row

    def _scale(self) -> Tensor:
        """The factor of each row's loss, 0 of those that are ignored."""
        weight = self.options["weight"]
        counted = torch.tensor([row is not None for row in self.rows], dtype=torch.bool)
        factors = counted.double()
        for tensor in weight if isinstance(weight, tuple) else (weight,):
            if tensor is not None:
                factors = torch.where(counted, factors * self._of_rows(tensor), 0)
        if self.options["normalizer"] is not None:
            return factors / float(self.options["normalizer"])
        return factors / factors.sum() if self.options["reduction"] == "mean" else factors
