"""The choice of a backend."""

from __future__ import annotations

import importlib.util
import os
from functools import cache, lru_cache
from types import ModuleType

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.nn import Parameter

from triton_topk.parameters import HardSVM, Loss, Lq

FUSED_MAX_K = 16
FUSED_MAX_DEGREE = 20
_PLAIN = frozenset((Tensor, Parameter))


@cache
def kernels() -> ModuleType:
    # Triton takes a while to import, is not everywhere, and must not be needed by the eager backend.
    from triton_topk.kernels import launch

    return launch


@cache
def _interpreting() -> bool:
    # Triton, too, looks once.
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def obstacle_to_triton(tensor: Tensor) -> str | None:
    """Why kernels cannot run on this tensor, or None."""
    if not (tensor.is_cuda or _interpreting()):
        return (
            "needs scores on a GPU, or TRITON_INTERPRET=1 in the environment, "
            f"got scores on {tensor.device}"
        )
    if not _has_triton():
        return "needs the package triton, which is not installed"
    return None


# typed: losses with equal parameters are equal as tuples
@lru_cache(maxsize=1024, typed=True)
def _obstacle_to_kernel(loss: Loss, n: int, dtype: torch.dtype) -> str | None:
    """Why the kernel cannot compute this loss, or None."""
    if isinstance(loss, Lq):
        return None
    order = None if isinstance(loss, HardSVM) else loss.order
    degree = loss.k if order is None else loss.k + order - 1
    if loss.k > FUSED_MAX_K or degree > FUSED_MAX_DEGREE:
        return (
            f"supports k <= {FUSED_MAX_K} and k + order - 1 <= {FUSED_MAX_DEGREE}, "
            f"got k={loss.k}, order={order}"
        )
    if not kernels().in_range(loss, n, dtype):
        return f"cannot hold C={n} classes for k={loss.k}"
    return None


def uses_triton(scores: Tensor, loss: Loss) -> bool:
    """The choice of a backend; ValueError where an explicit one cannot be had."""
    if loss.backend == "eager":
        return False
    obstacle = obstacle_to_triton(scores)
    if obstacle is None:
        obstacle = _obstacle_to_kernel(loss, scores.shape[1], scores.dtype)
    if loss.backend == "triton" and obstacle is not None:
        raise ValueError(f"backend='triton' {obstacle}")
    return obstacle is None


def concerns_kernels_only(*tensors: Tensor | None) -> bool:
    """Whether a call on these tensors need not be an operator's.

    That costs more than what it calls, and is for who has a say in it: torch.compile, torch.jit.trace, a dispatch mode
    (fake tensors, a tracer, a counter), a functorch transform, a device without kernels; and for a tensor whose values
    are not those in its memory, where a kernel would read them: a subclass of Tensor, a view that negates, zeros and
    batches of `is_grads_batched`, which have no memory.
    """
    first = tensors[0]
    assert first is not None
    if (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or obstacle_to_triton(first) is not None
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
    ):
        return False
    for tensor in tensors:
        if tensor is not None and (
            type(tensor) not in _PLAIN
            or tensor.is_neg()
            or tensor._is_zerotensor()
            or is_legacy_batchedtensor(tensor)
        ):
            return False
    return True
