"""Results are compared with the definitions in float64, for a wrong answer has no speed; memory is taken, too."""

import json
import tempfile
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from bench.implementations import Definition
from bench.timing import Step

_GRADIENT_SCORES = 2**18  # in the rows of which the gradient is checked
_CHUNK_SCORES = 2**22  # at once
# Relative.  Half precision and the Taylor-type gradient pass; another function does not.
_WRONG = 0.1


class WrongError(Exception):
    """The result is not the loss or its gradient."""


class Truth:
    """Truth is the mean loss of some scores, and its gradient in a sample of their rows."""

    def __init__(self, losses: Definition, scores: Tensor, labels: Tensor, k: int) -> None:
        batch, n = scores.shape
        with torch.no_grad():
            rows = max(1, _CHUNK_SCORES // n)
            chunks = zip(scores.split(rows), labels.split(rows), strict=True)
            total = torch.stack([losses(s.double(), y, k).sum() for s, y in chunks])
        self.loss = total.sum() / batch
        sample = min(batch, max(1, _GRADIENT_SCORES // n))
        self.rows = torch.linspace(0, batch - 1, sample, device=scores.device).round().long()
        sampled = scores.detach()[self.rows].double().requires_grad_()
        mean = losses(sampled, labels[self.rows], k).sum() / batch
        (self.gradient,) = torch.autograd.grad(mean, sampled)

    def check(self, loss: Tensor, gradient: Tensor | None) -> None:
        """WrongError is raised where the loss, or the gradient beside the largest entry of its row, is off by much."""
        _check("loss", loss.detach() / self.loss - 1)
        if gradient is not None:
            largest = self.gradient.abs().amax(1, keepdim=True)
            # A row without a gradient, as of the hard loss, is compared with the largest of all rows.
            largest = torch.where(largest == 0, largest.amax(), largest)
            _check("gradient", (gradient[self.rows].double() - self.gradient) / largest)


def _check(what: str, errors: Tensor) -> None:
    worst = float(errors.abs().amax())
    if not worst <= _WRONG:  # NaN too
        raise WrongError(f"{what} off by {worst:.2g}")


def check_finite(loss: Tensor, gradient: Tensor | None) -> None:
    """A loss that has no definition in float64 has to be finite."""
    if not all(x.isfinite().all() for x in (loss, gradient) if x is not None):
        raise WrongError("not finite")


def extra_memory(step: Step, device: torch.device) -> int:
    """So many bytes are allocated at the peak."""
    peak = _peak_on_gpu(step) if device.type == "cuda" else _peak_on_cpu(step)
    return max(0, peak - step.scores.nbytes * step.scores.requires_grad)


def _peak_on_gpu(step: Step) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _peak_on_cpu(step: Step) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    changes = sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"])
    return max(accumulate((e["args"]["Bytes"] for e in changes), initial=0))
