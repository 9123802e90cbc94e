"""What is measured: our losses, the references, cross-entropy, and peers where they are installed."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

import triton_topk
from triton_topk import reference

Loss = Callable[[Tensor, Tensor], Tensor]
"""The mean loss of scores (N, C) and labels (N,)."""


class Unavailable(Exception):  # noqa: N818 (not an error)
    """The implementation cannot be measured here; the message says why."""


_ALL_DTYPES = ("float32", "bfloat16", "float16", "float64")
_FLOAT32 = ("float32",)
_DIFFTOPK_SORTS = 16


@dataclass(frozen=True)
class Implementation:
    name: str
    truth: str | None  # the definition in truth.py; None: a loss of its own
    make: Callable[[int, int, torch.device], Loss]  # from the classes, k and the device
    ours: bool = False
    has_k: bool = True
    max_classes: int | None = None  # beyond, a call takes many seconds
    dtypes: tuple[str, ...] = _ALL_DTYPES  # in which it works, and not as another one
    capturable: bool = True  # in a CUDA graph: no synchronisation with the host

    def why_not(self, n: int, dtype: str) -> str | None:
        """What speaks against measuring it on such scores."""
        if self.max_classes is not None and n > self.max_classes:
            return f"takes too long beyond {self.max_classes} classes"
        if dtype not in self.dtypes:
            return f"measured in {', '.join(self.dtypes)}"
        return None


def _smooth_svm(n: int, k: int, device: torch.device) -> Loss:
    return lambda scores, labels: triton_topk.smooth_svm(scores, labels, k)


def _taylor(n: int, k: int, device: torch.device) -> Loss:
    return lambda scores, labels: triton_topk.smooth_svm(scores, labels, k, gradient="taylor")


def _hard_svm(n: int, k: int, device: torch.device) -> Loss:
    return lambda scores, labels: triton_topk.hard_svm(scores, labels, k)


def _lq_loss(n: int, k: int, device: torch.device) -> Loss:
    return triton_topk.lq_loss


def _joint(n: int, k: int, device: torch.device) -> Loss:
    return lambda scores, labels: triton_topk.smooth_svm_lq(scores, labels, k)


def _reference(algorithm: reference.Algorithm) -> Callable[[int, int, torch.device], Loss]:
    def make(n: int, k: int, device: torch.device) -> Loss:
        return lambda scores, labels: reference.smooth_svm(
            scores, labels, k, algorithm=algorithm
        ).mean()

    return make


def _cross_entropy(n: int, k: int, device: torch.device) -> Loss:
    return F.cross_entropy


def _compiled_cross_entropy(n: int, k: int, device: torch.device) -> Loss:
    if device.type == "cpu":
        if shutil.which("g++") is None:
            raise Unavailable("torch.compile needs a C++ compiler")
        # Once for all shapes: a C++ compiler takes longer than all measurements of a shape.
        return torch.compile(F.cross_entropy, dynamic=True)
    torch.compiler.reset()  # past a limit of shapes it would stop compiling
    return torch.compile(F.cross_entropy, dynamic=False)


def _authors(n: int, k: int, device: torch.device) -> Loss:
    _require("topk", "https://github.com/oval-group/smooth-topk")
    from topk.svm import SmoothTopkSVM

    loss = SmoothTopkSVM(n_classes=n, alpha=1.0, tau=1.0, k=k)
    return loss.cuda() if device.type == "cuda" else loss


def _liger(n: int, k: int, device: torch.device) -> Loss:
    _require("liger_kernel", "pip install liger-kernel")
    if device.type == "cpu":
        raise Unavailable("needs a GPU")
    from liger_kernel.transformers.functional import liger_cross_entropy

    return liger_cross_entropy


def _difftopk(n: int, k: int, device: torch.device) -> Loss:
    _require("difftopk", "pip install difftopk diffsort")
    from difftopk import TopKCrossEntropyLoss

    # The authors' setting for ImageNet: the largest scores are sorted, not all of them.
    if k >= _DIFFTOPK_SORTS:
        raise Unavailable(f"k < {_DIFFTOPK_SORTS}, the number of scores that it sorts")
    return TopKCrossEntropyLoss(
        "odd_even",
        1.0,
        [1 / k] * k,
        n=n,
        m=_DIFFTOPK_SORTS,
        distribution="cauchy",
        device=str(device),
    )


def _require(package: str, source: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise Unavailable(f"{package} is not installed: {source}")


IMPLEMENTATIONS = {
    i.name: i
    for i in (
        Implementation("smooth_svm", "smooth_svm", _smooth_svm, ours=True),
        Implementation("smooth_svm taylor", "smooth_svm", _taylor, ours=True),
        Implementation("hard_svm", "hard_svm", _hard_svm, ours=True),
        Implementation("smooth_svm_lq", "smooth_svm_lq", _joint, ours=True),
        Implementation("lq_loss", "lq_loss", _lq_loss, ours=True, has_k=False),
        Implementation("divide and conquer", "smooth_svm", _reference("divide_and_conquer")),
        Implementation(
            "summation", "smooth_svm", _reference("summation"), dtypes=_FLOAT32, max_classes=4096
        ),
        Implementation("F.cross_entropy", "cross_entropy", _cross_entropy, has_k=False),
        Implementation(
            "F.cross_entropy compiled", "cross_entropy", _compiled_cross_entropy, has_k=False
        ),
        Implementation("authors' topk", "smooth_svm", _authors, capturable=False),
        Implementation(
            "Liger cross_entropy", "cross_entropy", _liger, has_k=False, capturable=False
        ),
        Implementation("difftopk", None, _difftopk, dtypes=_FLOAT32, capturable=False),
    )
}
