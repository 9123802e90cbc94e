"""The truncated Lq loss is trained by alternate convex search: per-sample weights, refreshed by pruning."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from triton_topk import arguments
from triton_topk.arguments import Backend, Reduction
from triton_topk.batch import accumulation_dtype, check_tensors, class_indices, sum_of_weights
from triton_topk.distributed import whole
from triton_topk.keywords import explained
from triton_topk.losses import Lq
from triton_topk.module import LossModule
from triton_topk.shard import ClassShard

# A look at a sample leaves one of these until the ranks have agreed; 0: there was none since then.
_PRUNED, _KEPT = 2, 3


def _check_threshold(truncation: float | None) -> None:
    if truncation is None:
        raise TypeError("truncation must be in (0, 1), got None; LqLoss is without truncation")


class TruncatedLqLoss(LossModule):
    r"""The module computes the truncated generalised cross-entropy (Zhang, Sabuncu, NeurIPS 2018, section 3.3).

    The truncated loss alone, :func:`triton_topk.lq_loss` with a `truncation` t, has no gradient where
    :math:`p_y \le t`, so a network that has yet to learn would learn from hardly any sample.  The paper therefore
    minimises, over the network and weights :math:`w \in [0, 1]^n` of the training samples in turn,

    .. math::
        \sum_i w_i L_q(f(x_i), y_i) - L_q(t) \sum_i w_i

    - `forward` is the network's part: :math:`w_i L_q`, which differs from the above by what does not depend on the
      network.  The weights are 1 at first, which is training with Lq, and are fixed between refreshes: a
      sample that was kept has its gradient even where its :math:`p_y` has fallen below t since, and one that was
      pruned has none until it is kept again.
    - `prune` is the weights' part: :math:`w_i = 1` where :math:`L_q < L_q(t)`, that is :math:`p_y > t`, else 0.
      At :math:`p_y = t` the objective is the same for any weight, and 0 is what the truncated loss says, which is
      constant there.  Refresh after some epochs of training with Lq, then every few epochs:

    .. code-block:: python

        model.eval()
        with torch.no_grad():
            for inputs, labels, indices in training_set_in_batches:
                loss.prune(model(inputs), labels, indices)
        loss.synchronize()
        model.train()

    In evaluation mode `forward` is the truncated loss, which has nothing to do with the weights and needs no indices.

    Distributed training: every rank prunes its part of the training set, then all call `synchronize`.  Save
    checkpoints outside of a refresh.  After `to_empty` call `reset_parameters`.

    Args:
        num_samples: size of the training set.
        q: 0 <= q <= 1.
        truncation: t in (0, 1).
        weight: (C,), of any floating-point dtype, a factor for the loss of each label; a buffer.
        ignore_index: a label whose row counts for nothing: no loss, no gradient, not in the mean.
        reduction: "none", "sum", or "mean", which divides by the sum of the weights, of the class and of the call, of
            all labels in the batch, pruned samples' included, as the paper's sum over the training set does: a kept
            sample counts as much however many others are pruned, and a batch without any is 0.
        backend: "triton" for the fused kernels (scores on a GPU), "native" for what numba compiles (scores on a CPU),
            "eager" for PyTorch operations, None to choose the first of these that can.
        shard: a :class:`triton_topk.ClassShard`, if the scores are those of some of the classes, and other ranks have
            the others.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; in the constructor but for what
            the scores decide.
        TypeError: in `forward`, no indices in training mode.
        IndexError: a label or an index out of range, on the CPU.

    Attributes:
        kept: (num_samples,), the weights w: 1 of a sample that is kept, 0 of one that is pruned.  A buffer, which
            follows `.to()`, is in the `state_dict` and can be averaged over models: kept is what then has more
            than 1/2.
    """

    q: float
    truncation: float
    kept: Tensor
    # Not a buffer: DistributedDataParallel overwrites the buffers of a model with rank 0's.
    _looks: Tensor | None

    @explained
    def __init__(
        self,
        num_samples: int,
        q: float = 0.7,
        *,
        truncation: float = 0.5,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        backend: Backend | None = None,
        shard: ClassShard | None = None,
    ) -> None:
        num_samples = arguments.integer("num_samples", num_samples)
        if num_samples < 1:
            raise ValueError(f"num_samples must be >= 1, got {num_samples}")
        _check_threshold(truncation)
        super().__init__(
            Lq,
            weight,
            shard,
            q=q,
            truncation=truncation,
            ignore_index=ignore_index,
            reduction=reduction,
            backend=backend,
        )
        self.register_buffer("kept", torch.empty(num_samples))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Keep every sample, as a new loss does.

        A class weight is not a parameter that can be made anew: after `to_empty` it has to be loaded or set.
        """
        self.kept.fill_(1)
        self._looks = None

    @explained
    def forward(
        self,
        scores: Tensor,
        labels: Tensor,
        indices: Tensor | None = None,
        *,
        weight: Tensor | None = None,
        normalizer: float | Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of scores (N, C, ...) for labels (N, ...) of the training samples `indices`.

        Args:
            scores, labels: as in :func:`triton_topk.lq_loss`.
            indices: the place of each sample in the training set, which training needs and evaluation does not look at:
                of the labels' shape, any integer dtype, each in [0, num_samples), on the CPU or on the device of
                the scores.  One out of range is an IndexError on the CPU; on a GPU, where asking would wait for it,
                it is PyTorch's device-side assertion.
            weight: in the shape of the scores with 1 in place of C, a factor for the loss of each sample, beside the
                module's weight of each class and the weight of 0 or 1 that the sample has.
            normalizer: divides the sum of the losses, as in :func:`triton_topk.lq_loss`.
        """
        loss: Tensor
        if not self.training:
            loss = self._loss(scores, labels, weight, normalizer)
            return loss
        if indices is None:
            raise TypeError(
                "indices must be given in training mode: a Tensor of the labels' shape with the place of each sample "
                "in the training set; eval() gives the truncated loss, which needs none"
            )
        labels, indices, weight = whole(labels), whole(indices), whole(weight)
        self._check(scores, labels, indices, weight, normalizer)
        if not torch.compiler.is_compiling() and self._looks is not None and _world_size() > 1:
            raise RuntimeError("prune was called: call synchronize on every rank before training")
        kept = self.kept.gather(0, self._flat(indices)).reshape(labels.shape) > 0.5
        # A pruned row is ignored, whatever its scores are.
        labels = class_indices(labels, self.ignore_index)
        kept_labels = labels.where(kept, self.ignore_index)
        if self.reduction == "mean" and normalizer is None:
            dtype = accumulation_dtype(scores.dtype)
            of_samples = None if weight is None else weight.reshape(-1)
            normalizer = sum_of_weights(
                labels.reshape(-1), whole(self.weight), of_samples, dtype, self.ignore_index
            )
        loss = self._loss(scores, kept_labels, weight, normalizer, truncation=None)
        return loss

    @explained
    @torch.no_grad()
    def prune(self, scores: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Keep those of the training samples `indices` that have p_y > truncation, and no others.

        Arguments as in `forward`; samples that are not among the indices stay as they are.  Of the same sample in
        two calls the later one counts; twice in one call, or on two ranks, it is kept if either says so.  A sample
        whose label is ignored is kept, and so is a row with NaN: the loss will show it.
        """
        labels, indices = whole(labels), whole(indices)
        self._check(scores, labels, indices)
        minus_log_p = self._loss(
            scores, labels, None, None, q=0.0, truncation=None, weight=None, reduction="none"
        )
        minus_log_p = whole(minus_log_p)
        pruned = (minus_log_p >= -math.log(self.truncation)).reshape(-1)
        indices = self._flat(indices)
        looks = self._pending_looks()
        # bool has no amax on every device
        found = torch.where(pruned, _PRUNED, _KEPT).to(looks.dtype)
        looks.scatter_reduce_(0, indices, found, "amax", include_self=False)
        self.kept[indices] = (looks[indices] == _KEPT).to(self.kept.dtype)
        self._looks = looks

    @torch.no_grad()
    def synchronize(self) -> None:
        """End a refresh: all ranks get the same weights, each sample's from where it was looked at.

        A collective operation: every rank of the default process group calls it.  Without one it
        has no effect on the weights.
        """
        if _world_size() > 1:
            looks = self._pending_looks()
            # 2 and 3 where looked at, else 0 and 1: any look overrules what was
            votes = torch.where(looks == 0, (self.kept > 0.5).to(looks.dtype), looks)
            dist.all_reduce(votes, dist.ReduceOp.MAX)
            self.kept.copy_(votes % 2)
        self._looks = None

    @property
    def kept_fraction(self) -> Tensor:
        """Return the share of training samples with weight 1, as a number on the device of the weights."""
        return (self.kept > 0.5).mean(dtype=torch.float32)

    def extra_repr(self) -> str:
        return f"num_samples={len(self.kept)}, {super().extra_repr()}"

    def _pending_looks(self) -> Tensor:
        # what is made in inference mode could not be changed outside of it
        with torch.inference_mode(False):
            if self._looks is None:
                return torch.zeros_like(self.kept, dtype=torch.uint8)
            return self._looks.to(self.kept.device)

    def _load_from_state_dict(self, *args: Any) -> None:
        """A refresh that was begun has no part in weights that are loaded."""
        super()._load_from_state_dict(*args)
        self._looks = None

    def _flat(self, indices: Tensor) -> Tensor:
        return indices.reshape(-1).to(self.kept.device, torch.int64)

    def _check(
        self,
        scores: Tensor,
        labels: Tensor,
        indices: Tensor,
        weight: Tensor | None = None,
        normalizer: float | Tensor | None = None,
    ) -> None:
        check_tensors(
            scores,
            labels,
            self._weights(weight),
            normalizer=normalizer,
            reduction=self.reduction,
            shard=self.shard,
        )
        _check_threshold(self.truncation)
        Lq.checked(self.q, self.truncation, self.ignore_index, self.reduction, self.backend)
        if not isinstance(indices, Tensor):
            raise TypeError(f"indices must be a Tensor, got {type(indices).__name__}")
        if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
            raise TypeError(f"indices must be of an integer dtype, got {indices.dtype}")
        if indices.shape != labels.shape:
            raise ValueError(
                f"indices must have the shape of labels, {tuple(labels.shape)}, "
                f"got {tuple(indices.shape)}"
            )
        if self.kept.device != scores.device:
            raise ValueError(
                f"scores must be on the device of the loss, {self.kept.device}, got {scores.device}"
            )
        if indices.device.type != "cpu" or torch.compiler.is_compiling():
            return
        indices = indices.long()
        wrong = (indices < 0) | (indices >= len(self.kept))
        if wrong.any():
            raise IndexError(
                f"indices must be in [0, {len(self.kept)}), got {indices[wrong][0].item()}"
            )


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
