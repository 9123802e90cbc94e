"""The registry has our losses, the references, cross-entropy, and peers where they are installed."""

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

import triton_topk
from triton_topk import reference

Loss = Callable[[Tensor, Tensor], Tensor]
"""It returns the mean loss of scores (N, C) and labels (N,)."""
Make = Callable[..., Loss]
"""It returns the loss for a number of classes, k, a device and options such as tau and reduction."""
Definition = Callable[[Tensor, Tensor, int], Tensor]
"""It returns the loss of each row of scores, for labels and k, differentiable."""

_FLOAT32 = ("float32",)
_DIFFTOPK_SORTS = 16


class Unavailable(Exception):  # noqa: N818 (not an error)
    """The implementation cannot be measured on this machine; the message says why."""


@dataclass(frozen=True)
class Implementation:
    name: str
    truth: Definition | None  # None: a loss that only this implementation has
    make: Make
    ours: bool = False
    has_k: bool = True
    max_classes: float = float("inf")  # beyond, a call takes many seconds
    dtypes: tuple[str, ...] | None = None  # in which it works, and not as another one; None: all
    capturable: bool = True  # in a CUDA graph: no synchronisation with the host

    def loss(self, n: int, k: int, dtype: str, device: torch.device) -> Loss:
        """Unavailable is raised where something speaks against measuring the loss of such scores."""
        if n > self.max_classes:
            raise Unavailable(f"takes too long beyond {self.max_classes} classes")
        if self.dtypes is not None and dtype not in self.dtypes:
            raise Unavailable(f"measured in {', '.join(self.dtypes)}")
        return self.make(n, k, device)


def _with_k(function: Callable[..., Tensor], **options: str) -> Make:
    return lambda n, k, device, **given: partial(function, k=k, **options, **given)


def _without_k(function: Callable[..., Tensor]) -> Make:
    return lambda n, k, device, **given: partial(function, **given)


def _eager(n: int, k: int, device: torch.device, **given: str | float) -> Loss:
    if device.type != "cpu":
        raise Unavailable("measured on a CPU")
    return partial(triton_topk.smooth_svm, k=k, backend="eager", **given)


def _lq(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    return reference.lq_loss(scores, labels, 0.7)


def _mixture(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    return (reference.smooth_svm(scores, labels, k) + _lq(scores, labels, k)) / 2


def _entropy(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    return reference.lq_loss(scores, labels, 0.0)


def _reference(algorithm: reference.Algorithm) -> Make:
    def make(n: int, k: int, device: torch.device, reduction: str = "mean", **given: float) -> Loss:
        losses = partial(reference.smooth_svm, k=k, algorithm=algorithm, **given)
        return losses if reduction == "none" else lambda *batch: losses(*batch).mean()

    return make


def _compiled_cross_entropy(n: int, k: int, device: torch.device) -> Loss:
    if device.type == "cpu":
        if shutil.which("g++") is None:
            raise Unavailable("torch.compile needs a C++ compiler")
        # Once for all shapes: a C++ compiler takes longer than all measurements of a shape.
        return torch.compile(F.cross_entropy, dynamic=True)
    torch.compiler.reset()  # past a limit of shapes it would stop compiling
    return torch.compile(F.cross_entropy, dynamic=False)


def _authors(
    n: int,
    k: int,
    device: torch.device,
    loss: str = "SmoothTopkSVM",
    tau: float = 1.0,
    margin: float = 1.0,
    reduction: str = "mean",
) -> Loss:
    _require("topk", "https://github.com/oval-group/smooth-topk")
    from topk import svm

    options = {"k": k} if loss == "SmoothTopkSVM" else {}
    mean = getattr(svm, loss)(n_classes=n, alpha=margin, tau=tau, **options)
    mean = mean.cuda() if device.type == "cuda" else mean

    def losses(scores: Tensor, labels: Tensor) -> Tensor:
        rows = zip(scores.split(1), labels.split(1), strict=True)
        return torch.cat([mean(row, label).reshape(1) for row, label in rows])

    return mean if reduction == "mean" else losses


def _liger(n: int, k: int, device: torch.device) -> Loss:
    _require("liger_kernel", "pip install liger-kernel")
    if device.type == "cpu":
        raise Unavailable("needs a GPU")
    from liger_kernel.transformers.functional import liger_cross_entropy

    return liger_cross_entropy


def _difftopk(n: int, k: int, device: torch.device) -> Loss:
    """The setting is the authors' for ImageNet: the largest scores are sorted, not all of them."""
    _require("difftopk", "pip install difftopk diffsort")
    from difftopk import TopKCrossEntropyLoss

    if k >= _DIFFTOPK_SORTS:
        raise Unavailable(f"k < {_DIFFTOPK_SORTS}, the number of scores that it sorts")
    sorting = {"m": _DIFFTOPK_SORTS, "distribution": "cauchy", "device": str(device)}
    return TopKCrossEntropyLoss("odd_even", 1.0, [1 / k] * k, n=n, **sorting)


def _require(package: str, source: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise Unavailable(f"{package} is not installed: {source}")


_SMOOTH, _HARD = reference.smooth_svm, reference.hard_svm
_TAYLOR = _with_k(triton_topk.smooth_svm, gradient="taylor")
_CONQUER, _SUMMATION = _reference("divide_and_conquer"), _reference("summation")
_ALL = (
    Implementation("smooth_svm", _SMOOTH, _with_k(triton_topk.smooth_svm), ours=True),
    Implementation("smooth_svm taylor", _SMOOTH, _TAYLOR, ours=True),
    Implementation("hard_svm", _HARD, _with_k(triton_topk.hard_svm), ours=True),
    Implementation("mixture", _mixture, _with_k(triton_topk.smooth_svm_lq), ours=True),
    Implementation("lq_loss", _lq, _without_k(triton_topk.lq_loss), ours=True, has_k=False),
    Implementation("Liger cross_entropy", _entropy, _liger, has_k=False, capturable=False),
    Implementation("F.cross_entropy", _entropy, _without_k(F.cross_entropy), has_k=False),
    Implementation("F.cross_entropy compiled", _entropy, _compiled_cross_entropy, has_k=False),
    Implementation("divide and conquer", _SMOOTH, _CONQUER),
    Implementation("summation", _SMOOTH, _SUMMATION, dtypes=_FLOAT32, max_classes=4096),
    Implementation("authors' topk", _SMOOTH, _authors, capturable=False),
    Implementation("difftopk", None, _difftopk, dtypes=_FLOAT32, capturable=False),
    Implementation("smooth_svm eager", _SMOOTH, _eager),
)
IMPLEMENTATIONS = {each.name: each for each in _ALL}
