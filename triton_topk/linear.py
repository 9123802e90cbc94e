"""The losses of the scores that a linear layer makes need no memory for all of these scores.

Each function equals its loss of `F.linear(input, linear_weight, linear_bias)`, value and gradients, and takes the
options of that loss.  The scores (N, C) and their gradient exist for `chunk_rows` rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any, TypeVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.compiler import is_compiling

from triton_topk import arguments, autograd
from triton_topk.batch import check_dense, check_device, check_floating
from triton_topk.exchange import of_every_rank
from triton_topk.functional import TopkHits, hard_svm, lq_loss, smooth_svm, smooth_svm_lq
from triton_topk.keywords import explained
from triton_topk.layer import Layer
from triton_topk.losses import HardSVMOptions, LqOptions, SmoothSVMLqOptions, SmoothSVMOptions
from triton_topk.shard import ClassShard, check_shard

Function = TypeVar("Function", bound=Callable[..., Any])


def _with_options_of(loss: Callable[..., Any]) -> Callable[[Function], Function]:
    """Give the signature of a function the options of a loss, for `help` and for errors of unknown keywords."""

    def decorate(function: Function) -> Function:
        own = signature(function)
        parameters = [p for p in own.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
        known = {"scores", *own.parameters}
        options = [p for name, p in signature(loss).parameters.items() if name not in known]
        function.__signature__ = own.replace(parameters=parameters + options)  # type: ignore[attr-defined]
        return explained(function)

    return decorate


@_with_options_of(smooth_svm)
def linear_smooth_svm(
    input: Tensor,
    linear_weight: Tensor,
    labels: Tensor,
    k: int = 5,
    *,
    linear_bias: Tensor | None = None,
    chunk_rows: int | None = None,
    return_topk_hits: bool = False,
    **options: Unpack[SmoothSVMOptions],
) -> Tensor | tuple[Tensor, TopkHits]:
    r"""Compute :func:`smooth_svm` (Berrada, Zisserman, Kumar, ICLR 2018) of the scores of a linear layer

    .. math::
        s = x W^T + b

    in memory for some rows of them.  Where the loss is reduced to a number its gradients are computed in the forward,
    a chunk of rows at a time; for reduction "none", for float16 and in a second backward the scores are computed again.
    The weight's gradient is accumulated in float32 if the dtype is half precision.

    `chunk_rows` changes the rounding of that sum, and of a product where PyTorch's depends on the number of rows, and
    nothing else.  By default the scores of a chunk and their gradient take at most an eighth of the memory of `input`
    and `linear_weight`, or 64 MiB if that is more; on a CPU the gradient takes the place of the scores.  The eager
    backend takes as much several times over.

    With a shard the rank gives weight and bias of its classes, and the same input as every other.  The scores are
    computed once more, for the summary, and the backward sums the input's gradient over the group, by one all_reduce.

    All scores exist at once with create_graph=True, under transforms of torch.func, in forward mode, for
    torch.jit.trace and torch.export, and for subclasses of Tensor as DTensor.

    Args:
        input: (N, D) or (D,), any strides; float16, bfloat16, float32 or float64.
        linear_weight: (C, D), of the dtype of `input`, unless autocast is on, which decides the dtype of the scores.
        labels: class indices in [0, C) or `ignore_index`, of any integer dtype; (N,) or ().
        k: 1 <= k < C.
        linear_bias: (C,), of the dtype of `input`.
        chunk_rows: rows of scores that exist at once, at least 1; None: see above.
        tau, margin, weight, ignore_index, reduction: as in :func:`smooth_svm`.
        normalizer, return_topk_hits, gradient, order, backend, shard: as in :func:`smooth_svm`.

    Returns:
        The result of :func:`smooth_svm`.  The gradients have the dtypes of `input`, `linear_weight` and `linear_bias`.

    Raises:
        TypeError, ValueError, IndexError: as :func:`smooth_svm`.

    Example:
        >>> x, labels = torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.tensor([2, 0])
        >>> weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> triton_topk.linear_smooth_svm(x, weight, labels, k=2, chunk_rows=1)
        tensor(0.3734)
    """
    scores: Any = _scores(input, linear_weight, linear_bias, chunk_rows, options.get("shard"))
    return smooth_svm(scores, labels, k, return_topk_hits=return_topk_hits, **options)


@_with_options_of(hard_svm)
def linear_hard_svm(
    input: Tensor,
    linear_weight: Tensor,
    labels: Tensor,
    k: int = 5,
    *,
    linear_bias: Tensor | None = None,
    chunk_rows: int | None = None,
    return_topk_hits: bool = False,
    **options: Unpack[HardSVMOptions],
) -> Tensor | tuple[Tensor, TopkHits]:
    r"""Compute :func:`hard_svm` (Lapin, Hein, Schiele, CVPR 2016) of the scores of a linear layer

    .. math::
        s = x W^T + b

    in the memory of a chunk of rows, as :func:`linear_smooth_svm` does.

    Args:
        input, linear_weight, labels, linear_bias, chunk_rows: as in :func:`linear_smooth_svm`.
        k, margin, weight, ignore_index, reduction, normalizer: as in :func:`hard_svm`.
        return_topk_hits, backend, shard: as in :func:`hard_svm`.

    Returns, raises: as :func:`linear_smooth_svm`.
    """
    scores: Any = _scores(input, linear_weight, linear_bias, chunk_rows, options.get("shard"))
    return hard_svm(scores, labels, k, return_topk_hits=return_topk_hits, **options)


@_with_options_of(lq_loss)
def linear_lq_loss(
    input: Tensor,
    linear_weight: Tensor,
    labels: Tensor,
    q: float = 0.7,
    *,
    linear_bias: Tensor | None = None,
    chunk_rows: int | None = None,
    return_topk_hits: bool = False,
    **options: Unpack[LqOptions],
) -> Tensor | tuple[Tensor, TopkHits]:
    r"""Compute :func:`lq_loss` (Zhang, Sabuncu, NeurIPS 2018) of the scores of a linear layer

    .. math::
        s = x W^T + b

    in the memory of a chunk of rows, as :func:`linear_smooth_svm` does.

    Args:
        input, linear_weight, labels, linear_bias, chunk_rows: as in :func:`linear_smooth_svm`.
        q, truncation, weight, ignore_index, reduction: as in :func:`lq_loss`.
        normalizer, return_topk_hits, k, backend, shard: as in :func:`lq_loss`.

    Returns, raises: as :func:`linear_smooth_svm`.
    """
    scores: Any = _scores(input, linear_weight, linear_bias, chunk_rows, options.get("shard"))
    return lq_loss(scores, labels, q, return_topk_hits=return_topk_hits, **options)


@_with_options_of(smooth_svm_lq)
def linear_smooth_svm_lq(
    input: Tensor,
    linear_weight: Tensor,
    labels: Tensor,
    k: int = 5,
    q: float = 0.7,
    *,
    linear_bias: Tensor | None = None,
    chunk_rows: int | None = None,
    return_topk_hits: bool = False,
    **options: Unpack[SmoothSVMLqOptions],
) -> Tensor | tuple[Tensor, TopkHits]:
    r"""Compute :func:`smooth_svm_lq` (ICLR 2018, NeurIPS 2018) of the scores of a linear layer

    .. math::
        s = x W^T + b

    in the memory of a chunk of rows, as :func:`linear_smooth_svm` does.

    Args:
        input, linear_weight, labels, linear_bias, chunk_rows: as in :func:`linear_smooth_svm`.
        k, q, mix, tau, margin, truncation, weight, ignore_index: as in :func:`smooth_svm_lq`.
        reduction, normalizer, return_topk_hits, gradient, order, backend, shard: as in :func:`smooth_svm_lq`.

    Returns, raises: as :func:`linear_smooth_svm`.
    """
    scores: Any = _scores(input, linear_weight, linear_bias, chunk_rows, options.get("shard"))
    return smooth_svm_lq(scores, labels, k, q, return_topk_hits=return_topk_hits, **options)


def _scores(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    chunk_rows: int | None,
    shard: ClassShard | None,
) -> Tensor | Layer:
    """Check the arguments; return the layer, or the scores where something else has a say in their derivatives."""
    layer = Layer(
        input, linear_weight, linear_bias, torch.float32, arguments.chunk_rows(chunk_rows)
    )
    tensors = {"input": input, "linear_weight": linear_weight}
    if linear_bias is not None:
        tensors["linear_bias"] = linear_bias
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a Tensor, got {type(tensor).__name__}")
        check_floating(name, tensor)
        check_dense(name, tensor)
        check_device(name, tensor, input, "input")
    if input.dim() not in (1, 2):
        raise ValueError(
            f"input must have shape (D,) or (N, D), as of input.flatten(0, -2), got {tuple(input.shape)}"
        )
    of_weight, of_input = tuple(linear_weight.shape), tuple(input.shape)
    if len(of_weight) != 2 or of_weight[1] != of_input[-1]:
        raise ValueError(
            f"linear_weight must have shape (C, {of_input[-1]}) for input of shape {of_input}, got {of_weight}"
        )
    if linear_bias is not None and tuple(linear_bias.shape) != of_weight[:1]:
        raise ValueError(
            f"linear_bias must have shape {of_weight[:1]}, got {tuple(linear_bias.shape)}"
        )
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    dtype, device = input.dtype, input.device.type
    # PyTorch 2.11 does not compile the question of what has autocast
    known = is_compiling() or torch.amp.is_autocast_available(device)
    # which leaves float64 alone
    if known and torch.is_autocast_enabled(device) and torch.float64 not in dtypes.values():
        dtype = torch.get_autocast_dtype(device)
    else:
        for name, other in dtypes.items():
            if other != dtype:
                raise TypeError(f"{name} must have the dtype of input, {dtype}, got {other}")
    plain = all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors.values())
    if is_compiling():
        plain = plain and not torch.compiler._is_exporting_flag
    else:
        plain = plain and not (autograd.is_transformed() or torch._C._is_tracing())
    if shard is not None:
        check_shard(shard)
        layer = layer._replace(input=of_every_rank(input, shard))
    if not plain:
        return F.linear(*layer.tensors)
    return layer._replace(dtype=dtype)
