"""The losses of the authors' package topk.svm, https://github.com/oval-group/smooth-topk, are those of this one.

Names, arguments and attributes are the authors': `from triton_topk.topk_svm import SmoothTopkSVM` takes the place of
`from topk.svm import SmoothTopkSVM`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from triton_topk import arguments
from triton_topk.functional import hard_svm, smooth_svm

__all__ = ["MaxTop1SVM", "MaxTopkSVM", "SmoothTop1SVM", "SmoothTopkSVM"]


def __dir__() -> list[str]:
    return __all__


class _SVM(torch.nn.Module):
    """A criterion has its options as attributes, which may be set.

    The buffer `labels` is the authors': checkpoints of models that hold a criterion have it.
    """

    labels: Tensor  # (n_classes,)

    def __init__(self, n_classes: int, alpha: float | None, k: int) -> None:
        """The arguments are described with the class.  All of them are checked here."""
        super().__init__()
        self.n_classes = arguments.integer("n_classes", n_classes)
        self.k = arguments.k(k, self.n_classes)
        self.alpha = 1.0 if alpha is None else arguments.alpha(alpha)
        self.register_buffer("labels", torch.arange(self.n_classes))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the mean loss of the rows.

        Args:
            x: scores, (N, n_classes); float16, bfloat16, float32 or float64.
            y: labels, (N,), class indices in [0, n_classes) of any integer dtype.
        """
        # the loss refuses what is no tensor
        if isinstance(x, Tensor) and x.shape[1:] != (self.n_classes,):
            raise ValueError(
                f"x must be (N, n_classes), with n_classes={self.n_classes}, got {tuple(x.shape)}"
            )
        return self._loss(x, y)

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"n_classes={self.n_classes}, alpha={self.alpha}, k={self.k}"


class SmoothTopkSVM(_SVM):
    r"""The criterion computes the smooth top-k SVM loss (Berrada, Zisserman, Kumar, ICLR 2018, https://arxiv.org/abs/1802.07595).

    .. math::
        L = \tau \log\Big(1 + \frac{e^{\alpha/\tau} \sigma_k}{e^{s_y/(k\tau)} \sigma_{k-1}}\Big)

    with :math:`\sigma_j` the j-th elementary symmetric polynomial of :math:`e^{s_i/(k\tau)}` over all classes i but
    the label y.  It is :func:`triton_topk.smooth_svm`, whose options are those of
    :class:`triton_topk.nn.SmoothSVMLoss`.

    Args:
        n_classes: C, the number of classes.
        alpha: margin >= 0, in units of the scores; None is 1.
        tau: temperature, in units of the scores; from 1e-37 to 1e37.
        k: 1 <= k < C.  The label should be among the k largest scores.

    Call: `criterion(x, y)`.
        The scores x are (N, C), of float16, bfloat16, float32 or float64; the labels y are class indices, (N,), of any
        integer dtype.  The loss is the mean over the rows, float32, or float64 for float64 scores.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value.
        IndexError: in the call, a label outside [0, C), on the CPU.  On a GPU the loss is NaN.

    Example:
        >>> from triton_topk.topk_svm import SmoothTopkSVM
        >>> criterion = SmoothTopkSVM(n_classes=4, k=2)
        >>> criterion(torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 4.0, 1.0, 1.0]]), torch.tensor([2, 1]))
        tensor(0.7394)
    """

    tau: float

    def __init__(
        self, n_classes: int, alpha: float | None = None, tau: float = 1.0, k: int = 5
    ) -> None:
        super().__init__(n_classes, alpha, k)
        self.tau = arguments.tau(tau)

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        return smooth_svm(x, y, self.k, tau=self.tau, margin=self.alpha)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, tau={self.tau}"


class SmoothTop1SVM(SmoothTopkSVM):
    r"""The criterion computes the smooth SVM loss, :class:`SmoothTopkSVM` with k = 1 (Berrada et al., ICLR 2018).

    .. math::
        L = \tau \log\Big(1 + \sum_{i \ne y} e^{(\alpha + s_i - s_y)/\tau}\Big)

    Args:
        n_classes: C, the number of classes, at least 2.
        alpha: margin >= 0, in units of the scores; None is 1.
        tau: temperature, in units of the scores; from 1e-37 to 1e37.

    Call, raises: as :class:`SmoothTopkSVM`.

    Example:
        >>> from triton_topk.topk_svm import SmoothTop1SVM
        >>> instance_loss_fn = SmoothTop1SVM(n_classes=2)
        >>> instance_loss_fn(torch.tensor([[2.0, 1.0]]), torch.tensor([0]))
        tensor(0.6931)
    """

    def __init__(self, n_classes: int, alpha: float | None = None, tau: float = 1.0) -> None:
        super().__init__(n_classes, alpha, tau, k=1)


class MaxTopkSVM(_SVM):
    r"""The criterion computes the top-k hinge loss, the limit of :class:`SmoothTopkSVM` as tau goes to 0.

    .. math::
        L = \max\big(0, \alpha + (s_{[k]} - s_y) / k\big)

    with :math:`s_{[k]}` the k-th largest score of all classes but the label y (Lapin, Hein, Schiele, CVPR 2016, as
    Berrada et al. scale it).  It is :func:`triton_topk.hard_svm`.

    Args:
        n_classes: C, the number of classes.
        alpha: margin >= 0, in units of the scores; None is 1.
        k: 1 <= k < C.  The label should be among the k largest scores.

    Call, raises: as :class:`SmoothTopkSVM`.

    Example:
        >>> from triton_topk.topk_svm import MaxTopkSVM
        >>> criterion = MaxTopkSVM(n_classes=4, k=2)
        >>> criterion(torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 4.0, 1.0, 1.0]]), torch.tensor([2, 1]))
        tensor(0.2500)
    """

    def __init__(self, n_classes: int, alpha: float | None = None, k: int = 5) -> None:
        super().__init__(n_classes, alpha, k)

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        return hard_svm(x, y, self.k, margin=self.alpha)


class MaxTop1SVM(MaxTopkSVM):
    r"""The criterion computes the multiclass hinge loss, :class:`MaxTopkSVM` with k = 1 (Berrada et al., ICLR 2018).

    .. math::
        L = \max\big(0, \alpha + \max_{i \ne y} s_i - s_y\big)

    Args:
        n_classes: C, the number of classes, at least 2.
        alpha: margin >= 0, in units of the scores; None is 1.

    Call, raises: as :class:`SmoothTopkSVM`.

    Example:
        >>> from triton_topk.topk_svm import MaxTop1SVM
        >>> criterion = MaxTop1SVM(n_classes=3)
        >>> criterion(torch.tensor([[2.0, 1.5, 0.0]]), torch.tensor([0]))
        tensor(0.5000)
    """

    def __init__(self, n_classes: int, alpha: float | None = None) -> None:
        super().__init__(n_classes, alpha, k=1)
