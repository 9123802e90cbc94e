"""The losses are functions with the conventions of torch.nn.functional.cross_entropy.

They share these conventions:

- `scores`: (C,), (N, C) or (N, C, d1, ...), any strides; float16, bfloat16, float32 or float64.  A score of
  -inf masks its class.  NaN or +inf makes its row NaN and no other.
- `labels`: class indices in [0, C) or `ignore_index`, of any integer dtype; (), (N,) or (N, d1, ...).
- `weight`: (C,), a factor for the loss of each label; in the shape of the scores with 1 in place of C, a factor for the
  loss of each sample; or a tuple of one and the other, for their product.  No gradient is computed for it.
- `ignore_index`: a label whose row counts for nothing: no loss, no gradient, not in the mean.
- `reduction`: "none", "sum", or "mean", which divides by the sum of the weights of the rows.
- `normalizer`: a number > 0 or a tensor with one element, which divides the sum instead, whether `reduction` is "mean"
  or "sum"; for gradients accumulated over several batches, the number of labels in all of them.
- `margin`: a number, a tensor (C,) with the margin of each class, which is that of the rows it labels, or one for
  each sample, in the shape of the scores with 1 in place of C.  No gradient is computed for it.
- `return_topk_hits`: also return :class:`TopkHits`, at no further pass over the scores.
- `backend`: "triton" for the fused kernels (scores on a GPU, k <= 16), "native" for what numba compiles (scores on a
  CPU, k <= 256), "eager" for PyTorch operations, None to choose the first of these that can.
- `shard`: a :class:`triton_topk.ClassShard`, if the scores are those of some of the classes, and other ranks have the
  others.
- The result is a number, or for reduction "none" a tensor of the labels' shape; float32, or float64 for
  float64 scores, which are also the types of all arithmetic.  The gradient has the scores' dtype.
- TypeError or ValueError: an argument of the wrong kind, shape or value.  IndexError: a label outside [0, C),
  on the CPU; on a GPU that row's loss and gradient are NaN.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple, Unpack, overload

import torch
from torch import Tensor

from triton_topk.arguments import Backend, Gradient, Reduction, Weight
from triton_topk.autograd import Scores
from triton_topk.batch import Batch, Tensors, check_tensors, class_dim, split_weight
from triton_topk.distributed import compute_all, is_distributed
from triton_topk.exchange import exchange
from triton_topk.keywords import explained
from triton_topk.layer import Layer
from triton_topk.losses import (
    HardSVM,
    HardSVMOptions,
    Loss,
    Lq,
    LqOptions,
    Mixture,
    SmoothSVM,
    SmoothSVMLqOptions,
    SmoothSVMOptions,
)
from triton_topk.ops import is_plain, is_recorded
from triton_topk.shard import ClassShard


class TopkHits(NamedTuple):
    """The hits say whether the label is among the 1, and among the k, largest scores of all classes.

    Of equal scores the lower class comes first, as in torch.argmax.  False where the label is `ignore_index`, and
    where the loss, before weights, is NaN.
    """

    top1: Tensor  # bool, of the labels' shape
    topk: Tensor  # bool, of the labels' shape


@overload
def smooth_svm(
    scores: Tensor,
    labels: Tensor,
    k: int = 5,
    *,
    tau: float = 1.0,
    margin: float | Tensor = 1.0,
    weight: Weight | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
    return_topk_hits: Literal[False] = False,
    gradient: Gradient = "exact",
    order: int | None = None,
    backend: Backend | None = None,
    shard: ClassShard | None = None,
) -> Tensor: ...


@overload
def smooth_svm(
    scores: Tensor,
    labels: Tensor,
    k: int = 5,
    *,
    return_topk_hits: Literal[True],
    **options: Unpack[SmoothSVMOptions],
) -> tuple[Tensor, TopkHits]: ...


@overload
def smooth_svm(
    scores: Tensor,
    labels: Tensor,
    k: int = 5,
    *,
    return_topk_hits: bool,
    **options: Unpack[SmoothSVMOptions],
) -> Tensor | tuple[Tensor, TopkHits]: ...


@explained
def smooth_svm(
    scores: Tensor,
    labels: Tensor,
    k: int = 5,
    *,
    tau: float = 1.0,
    margin: float | Tensor = 1.0,
    weight: Weight | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
    return_topk_hits: bool = False,
    gradient: Gradient = "exact",
    order: int | None = None,
    backend: Backend | None = None,
    shard: ClassShard | None = None,
) -> Tensor | tuple[Tensor, TopkHits]:
    r"""Compute the smooth top-k SVM loss (Berrada, Zisserman, Kumar, ICLR 2018, https://arxiv.org/abs/1802.07595).

    .. math::
        L = \tau \log\Big(1 + \frac{e^{\alpha/\tau} \sigma_k}{e^{s_y/(k\tau)} \sigma_{k-1}}\Big)

    with margin :math:`\alpha` and :math:`\sigma_j` the j-th elementary symmetric polynomial of
    :math:`e^{s_i/(k\tau)}` over all classes i but the label y.  As tau goes to 0 it becomes
    :func:`hard_svm`; k = 1, tau = 1, margin = 0 is cross-entropy.  The gradient is at most 1/k, so that learning rates
    should be larger than cross-entropy's; :class:`triton_topk.nn.SmoothSVMLoss` says how much.

    Args:
        scores: (C,), (N, C) or (N, C, d1, ...), any strides; float16, bfloat16, float32 or float64.
            A score of -inf masks its class: it contributes nothing; the label's own gives a loss of +inf
            (NaN where fewer than k others are left).  NaN or +inf makes its row NaN and no other.
        labels: class indices in [0, C) or `ignore_index`, of any integer dtype; (), (N,) or
            (N, d1, ...).
        k: 1 <= k < C.  The label should be among the k largest scores.
        tau: temperature, in units of the scores; from 1e-37 to 1e37.
        margin: margin >= 0, in units of the scores.  A tensor: (C,), of each class for the rows that it labels; in
            the shape of the scores with 1 in place of C, of each sample; or (), of all.  Its values are
            not looked at, and no gradient is computed for it.
        weight: of any floating-point dtype; (C,), a factor for the loss of each label; in the shape of the scores with
            1 in place of C, a factor for the loss of each sample; or a tuple of one and the other, either of which
            may be None, for their product.  Its values are not looked at, and no gradient is computed for it.
        ignore_index: a label whose row counts for nothing: no loss, no gradient, not in the mean.
        reduction: "none", "sum", or "mean", which divides by the sum of the weights of the rows.
        normalizer: a number > 0, or a tensor with one element, on the device of the scores or on the CPU: the sum of
            the losses is divided by it, whether `reduction` is "mean" or "sum".  For gradients accumulated over
            several batches, the number of labels in all of them.
        return_topk_hits: also return whether the label is in the top 1 and in the top k of the scores.
        gradient: "exact", or "taylor" for the stable p-th order approximation of the paper.
        order: p of "taylor", at most C; 1 + k // 5 by default.
        backend: "triton" for the fused kernels (scores on a GPU, k <= 16), "native" for what numba compiles (scores on
            a CPU, k <= 256), "eager" for PyTorch operations, None to choose the first of these that can.
        shard: a :class:`ClassShard`, if the scores are those of some of the classes, and other ranks have the others.
            Labels, weight and margins are then of all classes, and the same on every rank.

    Returns:
        A number, or for reduction "none" a tensor of the labels' shape; float32, or float64 for float64
        scores, which are also the types of all arithmetic.  The gradient has the scores' dtype.  With
        `return_topk_hits`, a pair of that and :class:`TopkHits`.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value.
        IndexError: a label outside [0, C), on the CPU.  On a GPU that row's loss and gradient are NaN.

    Example:
        >>> scores = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 4.0, 1.0, 1.0]])
        >>> labels = torch.tensor([2, 1])
        >>> triton_topk.smooth_svm(scores, labels, k=2)
        tensor(0.7394)
        >>> loss, hits = triton_topk.smooth_svm(scores, labels, k=2, return_topk_hits=True)
        >>> hits
        TopkHits(top1=tensor([False,  True]), topk=tensor([True, True]))
    """
    return _evaluate(
        SmoothSVM,
        (k, tau, _number(margin), gradient, order),
        (ignore_index, reduction, backend, return_topk_hits),
        (scores, labels, weight, margin, normalizer),
        shard,
    )


@overload
def hard_svm(
    scores: Tensor,
    labels: Tensor,
    k: int = 5,
    *,
    margin: float | Tensor = 1.0,
    weight: Weight | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
    return_topk_hits: Literal[False] = False,
    backend: Backend | None = None,
    shard: ClassShard | None = None,
) -> Tensor: ...


@overload
def hard_svm(
    scores: Tensor,
    labels: Tensor,
    k: int = 5,
    *,
    return_topk_hits: Literal[True],
    **options: Unpack[HardSVMOptions],
) -> tuple[Tensor, TopkHits]: ...


@overload
def hard_svm(
    scores: Tensor,
    labels: Tensor,
    k: int = 5,
    *,
    return_topk_hits: bool,
    **options: Unpack[HardSVMOptions],
) -> Tensor | tuple[Tensor, TopkHits]: ...


@explained
def hard_svm(
    scores: Tensor,
    labels: Tensor,
    k: int = 5,
    *,
    margin: float | Tensor = 1.0,
    weight: Weight | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
    return_topk_hits: bool = False,
    backend: Backend | None = None,
    shard: ClassShard | None = None,
) -> Tensor | tuple[Tensor, TopkHits]:
    r"""Compute the top-k hinge loss, the limit of :func:`smooth_svm` as tau goes to 0.

    .. math::
        L = \max\big(0, \alpha + (s_{[k]} - s_y) / k\big)

    with margin :math:`\alpha` and :math:`s_{[k]}` the k-th largest score of all classes but the label y (Lapin, Hein,
    Schiele, CVPR 2016, as Berrada et al. scale it).  k = 1 is the multiclass hinge loss.

    The gradient is -1/k at the label and 1/k at :math:`s_{[k]}`; classes that tie with it share that equally, which is
    what the gradient of the smooth loss becomes.  Where the loss is 0, so is the gradient, the kink included.

    Args:
        scores: (C,), (N, C) or (N, C, d1, ...).  -inf masks a class; the label's own gives a loss of +inf.  Where
            fewer than k others are left the loss is 0 (NaN if the label is masked too).
        labels: class indices or `ignore_index`; (), (N,) or (N, d1, ...).
        k: 1 <= k < C.
        margin: margin >= 0, in units of the scores; a number or a tensor as in :func:`smooth_svm`.
        weight, ignore_index, reduction, normalizer, return_topk_hits, backend, shard: as in :func:`smooth_svm`.

    Returns, raises: as :func:`smooth_svm`.

    Example:
        >>> scores = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 4.0, 1.0, 1.0]])
        >>> labels = torch.tensor([2, 1])
        >>> triton_topk.hard_svm(scores, labels, k=2, reduction="none")
        tensor([0.5000, 0.0000])
    """
    return _evaluate(
        HardSVM,
        (k, _number(margin)),
        (ignore_index, reduction, backend, return_topk_hits),
        (scores, labels, weight, margin, normalizer),
        shard,
    )


@overload
def lq_loss(
    scores: Tensor,
    labels: Tensor,
    q: float = 0.7,
    *,
    truncation: float | None = None,
    weight: Weight | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
    return_topk_hits: Literal[False] = False,
    k: int = 5,
    backend: Backend | None = None,
    shard: ClassShard | None = None,
) -> Tensor: ...


@overload
def lq_loss(
    scores: Tensor,
    labels: Tensor,
    q: float = 0.7,
    *,
    return_topk_hits: Literal[True],
    **options: Unpack[LqOptions],
) -> tuple[Tensor, TopkHits]: ...


@overload
def lq_loss(
    scores: Tensor,
    labels: Tensor,
    q: float = 0.7,
    *,
    return_topk_hits: bool,
    **options: Unpack[LqOptions],
) -> Tensor | tuple[Tensor, TopkHits]: ...


@explained
def lq_loss(
    scores: Tensor,
    labels: Tensor,
    q: float = 0.7,
    *,
    truncation: float | None = None,
    weight: Weight | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
    return_topk_hits: bool = False,
    k: int = 5,
    backend: Backend | None = None,
    shard: ClassShard | None = None,
) -> Tensor | tuple[Tensor, TopkHits]:
    r"""Compute the generalised cross-entropy (Zhang, Sabuncu, NeurIPS 2018, https://arxiv.org/abs/1805.07836).

    .. math::
        L_q = \frac{1 - p_y^q}{q}, \qquad p = \mathrm{softmax}(s), \qquad
        \frac{\partial L_q}{\partial s} = p_y^q (p - \mathrm{onehot}(y))

    q = 0 is cross-entropy and q = 1 is :math:`1 - p_y`, half the mean absolute error; in between, labels that the
    network finds improbable move it less.  Exact where :math:`p_y` underflows, and continuous in q.

    Args:
        scores: (C,), (N, C) or (N, C, d1, ...).  -inf masks a class; the label's own gives a loss of 1/q
            (+inf for q = 0).
        labels: class indices or `ignore_index`; (), (N,) or (N, d1, ...).
        q: 0 <= q <= 1.
        truncation: t in (0, 1): where :math:`p_y \le t` the loss is the constant :math:`L_q(t) = (1 - t^q)/q`, without
            gradient; None: nowhere.
        k: of `return_topk_hits`, and without a meaning otherwise.
        weight, ignore_index, reduction, normalizer, return_topk_hits, backend, shard: as in :func:`smooth_svm`.

    Returns, raises: as :func:`smooth_svm`.

    Example:
        >>> scores = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 4.0, 1.0, 1.0]])
        >>> labels = torch.tensor([2, 1])
        >>> triton_topk.lq_loss(scores, labels, q=0.7, reduction="none")
        tensor([0.9073, 0.1072])
    """
    return _evaluate(
        Lq,
        (q, truncation),
        (ignore_index, reduction, backend, return_topk_hits, k),
        (scores, labels, weight, None, normalizer),
        shard,
    )


@overload
def smooth_svm_lq(
    scores: Tensor,
    labels: Tensor,
    k: int = 5,
    q: float = 0.7,
    *,
    mix: float = 0.5,
    tau: float = 1.0,
    margin: float | Tensor = 1.0,
    truncation: float | None = None,
    weight: Weight | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
    return_topk_hits: Literal[False] = False,
    gradient: Gradient = "exact",
    order: int | None = None,
    backend: Backend | None = None,
    shard: ClassShard | None = None,
) -> Tensor: ...


@overload
def smooth_svm_lq(
    scores: Tensor,
    labels: Tensor,
    k: int = 5,
    q: float = 0.7,
    *,
    return_topk_hits: Literal[True],
    **options: Unpack[SmoothSVMLqOptions],
) -> tuple[Tensor, TopkHits]: ...


@overload
def smooth_svm_lq(
    scores: Tensor,
    labels: Tensor,
    k: int = 5,
    q: float = 0.7,
    *,
    return_topk_hits: bool,
    **options: Unpack[SmoothSVMLqOptions],
) -> Tensor | tuple[Tensor, TopkHits]: ...


@explained
def smooth_svm_lq(
    scores: Tensor,
    labels: Tensor,
    k: int = 5,
    q: float = 0.7,
    *,
    mix: float = 0.5,
    tau: float = 1.0,
    margin: float | Tensor = 1.0,
    truncation: float | None = None,
    weight: Weight | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    normalizer: float | Tensor | None = None,
    return_topk_hits: bool = False,
    gradient: Gradient = "exact",
    order: int | None = None,
    backend: Backend | None = None,
    shard: ClassShard | None = None,
) -> Tensor | tuple[Tensor, TopkHits]:
    r"""Compute the mixture of two losses of the same scores, at the price of reading them once:

    .. math::
        L = \mathrm{mix} \cdot L_\mathrm{smooth\,svm} + (1 - \mathrm{mix}) \cdot L_q

    with the losses of :func:`smooth_svm` (Berrada, Zisserman, Kumar, ICLR 2018) and :func:`lq_loss` (Zhang, Sabuncu,
    NeurIPS 2018).  Networks learn better with tau = margin = 1/k, for which both ask for scores of one size, and
    mix = 0.8 than with the defaults, which are those of the two losses.

    Args:
        mix: in [0, 1], the share of the smooth top-k SVM.
        k, tau, margin, gradient, order: as in :func:`smooth_svm`.
        q: as in :func:`lq_loss`.
        truncation: as in :func:`lq_loss`; it concerns that part alone.
        scores, labels, weight, ignore_index, reduction, normalizer, return_topk_hits, backend, shard: as in both.

    Returns, raises: as :func:`smooth_svm`.

    Example:
        >>> scores = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 4.0, 1.0, 1.0]])
        >>> labels = torch.tensor([2, 1])
        >>> triton_topk.smooth_svm_lq(scores, labels, k=2, q=0.7, mix=0.25)
        tensor(0.5653)
    """
    return _evaluate(
        Mixture,
        (k, q, mix, tau, _number(margin), truncation, gradient, order),
        (ignore_index, reduction, backend, return_topk_hits),
        (scores, labels, weight, margin, normalizer),
        shard,
    )


def _number(margin: float | Tensor) -> float:
    """Return the part of the margin that is a parameter; a tensor is added to it."""
    return 0.0 if isinstance(margin, Tensor) else margin


def _evaluate(
    loss_type: type[Loss],
    parameters: tuple[Any, ...],
    options: tuple[Any, ...],
    given: Tensors,
    shard: ClassShard | None,
) -> Tensor | tuple[Tensor, TopkHits]:
    """Check the arguments, compute the losses, reduce them, and give the results their shapes.

    A layer stands for the scores that it makes.
    """
    given_scores, labels, weight, margin, normalizer = given
    reduction = options[1]
    source = given_scores if isinstance(given_scores, Layer) else Scores(given_scores)
    scores = source.like_scores()
    if shard is not None and is_distributed(scores):
        raise ValueError("shard must be None for a DTensor, which knows its classes, got one")
    n_classes = check_tensors(scores, *given[1:], reduction, shard)
    loss = loss_type.checked(*parameters, *options, n_classes)
    if is_distributed(scores):
        compute_part = partial(_evaluate, loss_type, parameters, options)
        whole: Tensor | tuple[Tensor, TopkHits] = compute_all(
            compute_part, given, reduction, loss.ignore_index
        )
        return whole
    size = n_classes if shard is None else scores.shape[class_dim(scores)]
    if size == 0:
        source = source.with_masked_class()
        scores = source.like_scores()
    tensors = (scores, labels, *split_weight(weight, scores, n_classes), margin, normalizer)
    plain = is_plain((*source.tensors, *tensors[1:]))
    batch = Batch.of(*tensors, reduction, loss, plain, n_classes)
    summed, recorded = reduction != "none", not plain and is_recorded()
    if shard is not None:
        of_this_rank = partial(source.summarize, recorded=recorded, plain=plain)
        batch, loss = exchange(shard, size, batch, loss, of_this_rank)
    compute, args = source.function(batch, loss, summed=summed, recorded=recorded, plain=plain)
    out, hits, *_ = compute(*args)
    # a number already where the gradient is kept
    if summed and out.dim():
        out = out.sum()
    divisor = batch.normalizer
    if summed and divisor is not None and (recorded or batch.labels.shape[0] == 0):
        # Without a row there is no loss that was divided, by 0 in a mean.  A graph serves any number of rows.
        # The zero is a tensor, since inductor folds 0 / x.
        out = out + torch.zeros_like(divisor) / divisor
    if labels.dim() != 1 and not summed:
        out = out.reshape(labels.shape)
    if loss.hits is None or hits is None:
        return out
    top1, topk = hits.unbind(1)
    return out, TopkHits(top1.reshape(labels.shape), topk.reshape(labels.shape))
