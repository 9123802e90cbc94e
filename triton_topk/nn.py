"""The losses are modules, too."""

from __future__ import annotations

from torch import Tensor

from triton_topk.arguments import Backend, Gradient, Reduction
from triton_topk.keywords import explained
from triton_topk.losses import HardSVM, Lq, Mixture, SmoothSVM
from triton_topk.module import LossModule
from triton_topk.pruning import TruncatedLqLoss
from triton_topk.shard import ClassShard

__all__ = ["HardSVMLoss", "LqLoss", "SmoothSVMLoss", "SmoothSVMLqLoss", "TruncatedLqLoss"]


def __dir__() -> list[str]:
    return __all__


class SmoothSVMLoss(LossModule):
    r"""The module computes the smooth top-k SVM loss (Berrada, Zisserman, Kumar, ICLR 2018, https://arxiv.org/abs/1802.07595).

    .. math::
        L = \tau \log\Big(1 + \frac{e^{\alpha/\tau} \sigma_k}{e^{s_y/(k\tau)} \sigma_{k-1}}\Big)

    with margin :math:`\alpha` and :math:`\sigma_j` the j-th elementary symmetric polynomial of
    :math:`e^{s_i/(k\tau)}` over all classes i but the label y.  k = 1, tau = 1, margin = 0 is cross-entropy.
    The function is :func:`triton_topk.smooth_svm`.

    Begin with tau = 1 and with the AdamW settings that are good for cross-entropy, but a learning rate sqrt(k tau)
    times as large and a weight decay sqrt(k tau) times as small: the scores have to be k tau times larger.  With SGD
    the learning rate should be up to 10 times as large.  Believe in a gain if it is one over
    `k * tau * F.cross_entropy(scores / (k * tau), labels)` too, which has the same scale.

    Args:
        k: 1 <= k < C.  The label should be among the k largest scores.
        tau: temperature, in units of the scores; from 1e-37 to 1e37.
        margin: margin >= 0, in units of the scores; a number or a tensor, which is a buffer: (C,), of each class for
            the rows that it labels; in the shape of the scores with 1 in place of C, of each sample; or (), of all.
        weight: (C,), of any floating-point dtype, a factor for the loss of each label; a buffer.
        ignore_index: a label whose row counts for nothing: no loss, no gradient, not in the mean.
        reduction: "none", "sum", or "mean", which divides by the sum of the weights of the rows.
        return_topk_hits: the call returns a pair of the loss and :class:`triton_topk.TopkHits`: is the label in the
            top 1 and in the top k of the scores?
        gradient: "exact", or "taylor" for the stable p-th order approximation of the paper.
        order: p of "taylor", at most C; 1 + k // 5 by default.
        backend: "triton" for the fused kernels (scores on a GPU, k <= 16), "native" for what numba compiles (scores on
            a CPU, k <= 256), "eager" for PyTorch operations, None to choose the first of these that can.
        shard: a :class:`triton_topk.ClassShard`, if the scores are those of some of the classes, and other ranks have
            the others.

    Call: `criterion(scores, labels, *, weight=None, normalizer=None)`.
        The scores are (C,), (N, C) or (N, C, d1, ...), of float16, bfloat16, float32 or float64; the labels are class
        indices, (), (N,) or (N, d1, ...), of any integer dtype.  The call's weight, in the shape of the scores with 1
        in place of C, is a factor for the loss of each sample, beside that of its label.  The loss is float32, or
        float64 for float64 scores.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; in the constructor but for what
            the scores decide.
        IndexError: in the call, a label outside [0, C), on the CPU.  On a GPU that row's loss and gradient are NaN.

    Example:
        >>> criterion = triton_topk.nn.SmoothSVMLoss(k=2)
        >>> criterion(torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 4.0, 1.0, 1.0]]), torch.tensor([2, 1]))
        tensor(0.7394)
    """

    k: int
    tau: float
    margin: float | Tensor
    return_topk_hits: bool
    gradient: Gradient
    order: int | None

    @explained
    def __init__(
        self,
        k: int = 5,
        *,
        tau: float = 1.0,
        margin: float | Tensor = 1.0,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        return_topk_hits: bool = False,
        gradient: Gradient = "exact",
        order: int | None = None,
        backend: Backend | None = None,
        shard: ClassShard | None = None,
    ) -> None:
        super().__init__(
            SmoothSVM,
            weight,
            shard,
            k=k,
            tau=tau,
            margin=margin,
            ignore_index=ignore_index,
            reduction=reduction,
            return_topk_hits=return_topk_hits,
            gradient=gradient,
            order=order,
            backend=backend,
        )


class HardSVMLoss(LossModule):
    r"""The module computes the top-k hinge loss, the limit of :class:`SmoothSVMLoss` as tau goes to 0.

    .. math::
        L = \max\big(0, \alpha + (s_{[k]} - s_y) / k\big)

    with margin :math:`\alpha` and :math:`s_{[k]}` the k-th largest score of all classes but the label y (Lapin, Hein,
    Schiele, CVPR 2016, as Berrada et al. scale it, https://arxiv.org/abs/1802.07595).  k = 1 is the multiclass hinge
    loss.  The function is :func:`triton_topk.hard_svm`.

    Args:
        k: 1 <= k < C.  The label should be among the k largest scores.
        margin: margin >= 0, in units of the scores; a number or a tensor, as in :class:`SmoothSVMLoss`.
        weight: (C,), of any floating-point dtype, a factor for the loss of each label; a buffer.
        ignore_index: a label whose row counts for nothing: no loss, no gradient, not in the mean.
        reduction: "none", "sum", or "mean", which divides by the sum of the weights of the rows.
        return_topk_hits: the call returns a pair of the loss and :class:`triton_topk.TopkHits`.
        backend: "triton" for the fused kernels (scores on a GPU, k <= 16), "native" for what numba compiles (scores on
            a CPU, k <= 256), "eager" for PyTorch operations, None to choose the first of these that can.
        shard: a :class:`triton_topk.ClassShard`, if the scores are those of some of the classes, and other ranks have
            the others.

    Call, raises: as :class:`SmoothSVMLoss`.

    Example:
        >>> criterion = triton_topk.nn.HardSVMLoss(k=2, reduction="none")
        >>> criterion(torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 4.0, 1.0, 1.0]]), torch.tensor([2, 1]))
        tensor([0.5000, 0.0000])
    """

    k: int
    margin: float | Tensor
    return_topk_hits: bool

    @explained
    def __init__(
        self,
        k: int = 5,
        *,
        margin: float | Tensor = 1.0,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        return_topk_hits: bool = False,
        backend: Backend | None = None,
        shard: ClassShard | None = None,
    ) -> None:
        super().__init__(
            HardSVM,
            weight,
            shard,
            k=k,
            margin=margin,
            ignore_index=ignore_index,
            reduction=reduction,
            return_topk_hits=return_topk_hits,
            backend=backend,
        )


class LqLoss(LossModule):
    r"""The module computes the generalised cross-entropy (Zhang, Sabuncu, NeurIPS 2018, https://arxiv.org/abs/1805.07836).

    .. math::
        L_q = \frac{1 - p_y^q}{q}, \qquad p = \mathrm{softmax}(s)

    q = 0 is cross-entropy and q = 1 is :math:`1 - p_y`, half the mean absolute error; in between, labels that the
    network finds improbable move it less.  The function is :func:`triton_topk.lq_loss`.

    Args:
        q: 0 <= q <= 1.
        truncation: t in (0, 1): where :math:`p_y \le t` the loss is the constant :math:`(1 - t^q)/q`, without
            gradient, so that a new network would learn from hardly any sample; None: nowhere.
            :class:`TruncatedLqLoss` is for training.
        weight: (C,), of any floating-point dtype, a factor for the loss of each label; a buffer.
        ignore_index: a label whose row counts for nothing: no loss, no gradient, not in the mean.
        reduction: "none", "sum", or "mean", which divides by the sum of the weights of the rows.
        return_topk_hits: the call returns a pair of the loss and :class:`triton_topk.TopkHits`.
        k: of `return_topk_hits`, 1 <= k < C, and without a meaning otherwise.
        backend: "triton" for the fused kernels (scores on a GPU), "native" for what numba compiles (scores on a CPU),
            "eager" for PyTorch operations, None to choose the first of these that can.
        shard: a :class:`triton_topk.ClassShard`, if the scores are those of some of the classes, and other ranks have
            the others.

    Call, raises: as :class:`SmoothSVMLoss`.

    Example:
        >>> criterion = triton_topk.nn.LqLoss(q=0.7, reduction="none")
        >>> criterion(torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 4.0, 1.0, 1.0]]), torch.tensor([2, 1]))
        tensor([0.9073, 0.1072])
    """

    q: float
    truncation: float | None
    return_topk_hits: bool
    k: int

    @explained
    def __init__(
        self,
        q: float = 0.7,
        *,
        truncation: float | None = None,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        return_topk_hits: bool = False,
        k: int = 5,
        backend: Backend | None = None,
        shard: ClassShard | None = None,
    ) -> None:
        super().__init__(
            Lq,
            weight,
            shard,
            q=q,
            truncation=truncation,
            ignore_index=ignore_index,
            reduction=reduction,
            return_topk_hits=return_topk_hits,
            k=k,
            backend=backend,
        )


class SmoothSVMLqLoss(LossModule):
    r"""The module computes a mixture of two losses of the same scores, at the price of reading them once:

    .. math::
        L = \mathrm{mix} \cdot L_\mathrm{smooth\,svm} + (1 - \mathrm{mix}) \cdot L_q

    with the losses of :class:`SmoothSVMLoss` (Berrada, Zisserman, Kumar, ICLR 2018) and :class:`LqLoss`
    (Zhang, Sabuncu, NeurIPS 2018).  The function is :func:`triton_topk.smooth_svm_lq`.

    Networks learn better with tau = margin = 1/k, for which both ask for scores of one size, and mix = 0.8 than with
    the defaults, which are those of the two losses.

    Args:
        k: 1 <= k < C.  The label should be among the k largest scores.
        q: 0 <= q <= 1.
        mix: in [0, 1], the share of the smooth top-k SVM.
        tau: temperature, in units of the scores; from 1e-37 to 1e37.
        margin: margin >= 0, in units of the scores; a number or a tensor, as in :class:`SmoothSVMLoss`.
        truncation: t in (0, 1), as in :class:`LqLoss`; it concerns that part alone.  None: nowhere.
        weight: (C,), of any floating-point dtype, a factor for the loss of each label; a buffer.
        ignore_index: a label whose row counts for nothing: no loss, no gradient, not in the mean.
        reduction: "none", "sum", or "mean", which divides by the sum of the weights of the rows.
        return_topk_hits: the call returns a pair of the loss and :class:`triton_topk.TopkHits`.
        gradient: "exact", or "taylor" for the stable p-th order approximation of the paper.
        order: p of "taylor", at most C; 1 + k // 5 by default.
        backend: "triton" for the fused kernels (scores on a GPU, k <= 16), "native" for what numba compiles (scores on
            a CPU, k <= 256), "eager" for PyTorch operations, None to choose the first of these that can.
        shard: a :class:`triton_topk.ClassShard`, if the scores are those of some of the classes, and other ranks have
            the others.

    Call, raises: as :class:`SmoothSVMLoss`.

    Example:
        >>> criterion = triton_topk.nn.SmoothSVMLqLoss(k=2, q=0.7, mix=0.25)
        >>> criterion(torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 4.0, 1.0, 1.0]]), torch.tensor([2, 1]))
        tensor(0.5653)
    """

    k: int
    q: float
    mix: float
    tau: float
    margin: float | Tensor
    truncation: float | None
    return_topk_hits: bool
    gradient: Gradient
    order: int | None

    @explained
    def __init__(
        self,
        k: int = 5,
        q: float = 0.7,
        *,
        mix: float = 0.5,
        tau: float = 1.0,
        margin: float | Tensor = 1.0,
        truncation: float | None = None,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        return_topk_hits: bool = False,
        gradient: Gradient = "exact",
        order: int | None = None,
        backend: Backend | None = None,
        shard: ClassShard | None = None,
    ) -> None:
        super().__init__(
            Mixture,
            weight,
            shard,
            k=k,
            q=q,
            mix=mix,
            tau=tau,
            margin=margin,
            truncation=truncation,
            ignore_index=ignore_index,
            reduction=reduction,
            return_topk_hits=return_topk_hits,
            gradient=gradient,
            order=order,
            backend=backend,
        )
