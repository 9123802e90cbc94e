"""What a result should be, by the definitions of reference.py in float64, and how far off it is."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from triton_topk import reference

_GRADIENT_SCORES = 2**18  # in the rows of which the gradient is checked
_CHUNK_SCORES = 2**22  # at once
# Relative.  Half precision and the Taylor-type gradient pass; another function does not.
_WRONG = 0.1


class WrongError(Exception):
    """A result that is not the loss or its gradient."""


def losses(name: str, scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """The loss of each row, differentiable; the parameters are the defaults of the public functions."""
    smooth = partial(reference.smooth_svm, scores, labels, k)
    lq = partial(reference.lq_loss, scores, labels)
    match name:
        case "smooth_svm":
            return smooth()
        case "hard_svm":
            return reference.hard_svm(scores, labels, k)
        case "lq_loss":
            return lq(0.7)
        case "cross_entropy":
            return lq(0.0)
        case "smooth_svm_lq":
            return (smooth() + lq(0.7)) / 2
    raise ValueError(f"no definition of {name}")


class Truth:
    """The mean loss of some scores, and its gradient in a sample of their rows."""

    def __init__(self, name: str, scores: Tensor, labels: Tensor, k: int) -> None:
        batch, n = scores.shape
        with torch.no_grad():
            rows = max(1, _CHUNK_SCORES // n)
            chunks = zip(scores.split(rows), labels.split(rows), strict=True)
            total = torch.stack([losses(name, s.double(), y, k).sum() for s, y in chunks])
        self.loss = float(total.sum() / batch)
        sample = min(batch, max(1, _GRADIENT_SCORES // n))
        self.rows = torch.linspace(0, batch - 1, sample, device=scores.device).round().long()
        own = scores.detach()[self.rows].double().requires_grad_()
        total = losses(name, own, labels[self.rows], k).sum() / batch
        (self.gradient,) = torch.autograd.grad(total, own)

    def errors(self, loss: Tensor, gradient: Tensor | None) -> tuple[float, float | None]:
        """Of the loss, or its sum, relative, and of the gradient, relative to the largest entry of a row.

        Raises WrongError where either says that something else was computed.
        """
        found = [abs(float(loss.detach().sum()) / self.loss - 1)]
        if gradient is not None:
            wrong = (gradient[self.rows].double() - self.gradient).abs().amax(1)
            # rows whose gradient is 0, as of the hard loss: relative to the largest there is
            largest = self.gradient.abs().amax(1)
            largest = torch.where(largest == 0, largest.amax(), largest)
            found.append(float((wrong / largest).amax()))
        for what, error in zip(("loss", "gradient"), found, strict=False):
            if not error <= _WRONG:  # NaN too
                raise WrongError(f"{what} off by {error:.2g}")
        return found[0], found[1] if gradient is not None else None


def check_finite(loss: Tensor, gradient: Tensor | None) -> tuple[None, None]:
    """For a loss that has no definition here, whose errors nobody knows."""
    if not torch.isfinite(loss) or (gradient is not None and not gradient.isfinite().all()):
        raise WrongError("not finite")
    return None, None
