"""The tensors of a call are checked, with errors that name the argument, and laid out as a batch."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling

from triton_topk import arguments
from triton_topk.arguments import Weight
from triton_topk.losses import Loss
from triton_topk.shard import ClassShard, classes_of

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGER_DTYPES = (
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
)
_LARGEST = 2**63 - 1

N_TENSORS = 7  # of a batch, its first fields

# On a GPU every program of a kernel counts few labels.  With few scores most programs run at once, and counting takes
# less time than launching kernels that do.
_FEW_LABELS, _FEW_SCORES = 2**11, 2**21

# The scores, labels, weight, margin and normalizer that a user gives.
Tensors = tuple[Tensor, Tensor, Weight | None, float | Tensor | None, float | Tensor | None]

# The tensors of a batch as an operator takes them.
BatchTensors = tuple[
    Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None
]


class Batch(NamedTuple):
    """A batch holds what the losses of N rows of scores are computed of.

    For torch.func.vmap there may be dimensions before N, before C of the weight, and a last one of 1 of the normalizer.
    """

    scores: Tensor  # (N, C), any strides
    labels: Tensor  # (N,), of int64 or, for the operators, another integer dtype
    weight: Tensor | None = None  # (C,)
    sample_weight: Tensor | None = None  # (N,), a factor beside the weight
    margins: Tensor | None = None  # (N, C), of each row for each label that it could have
    normalizer: Tensor | None = None  # (), divides the losses
    summary: Tensor | None = None  # of all classes, if these are a shard; or to be filled
    complete: bool | None = None  # each label is a class, none is ignored; None: not looked at
    divisor: float = 1.0  # divides the losses, too
    uncounted: int | None = None  # the number of labels other than this divides the losses, too

    @classmethod
    def of(
        cls,
        scores: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        sample_weight: Tensor | None,
        margin: float | Tensor | None,
        normalizer: float | Tensor | None,
        reduction: str,
        loss: Loss,
        plain: bool,
        n_classes: int,
    ) -> Batch:
        """Lay out the arguments of a call, which have been checked; those of a plain one may be looked at.

        The classes are those of the labels, which may be more than there are scores.
        """
        ignore_index = loss.ignore_index
        rows = as_rows(scores)
        labels = class_indices(labels if labels.dim() == 1 else labels.reshape(-1), ignore_index)
        if sample_weight is not None:
            sample_weight = sample_weight.reshape(-1)
        margins = None
        # a mixture that is all Lq has no margin
        if isinstance(margin, Tensor) and "margin" in loss.parameters():
            # a margin of each row for each label that it could have, in the memory that it has
            of_samples = margin.dim() == scores.dim()
            margins = (as_rows(margin) if of_samples else margin).expand(rows.shape[0], n_classes)
        complete = look(labels, n_classes, ignore_index) if plain else None
        divided, divisor, uncounted = None, 1.0, None
        if normalizer is not None:
            if plain and not isinstance(normalizer, Tensor):
                divisor = float(normalizer)
            else:
                divided = _as_divisor(normalizer, scores)
        elif reduction == "mean":
            weighted = weight is not None or sample_weight is not None
            if complete and not weighted:
                divisor = float(labels.shape[0])
            elif plain and not weighted and _are_few(rows):
                uncounted = ignore_index
            else:
                dtype = accumulation_dtype(scores.dtype)
                divided = sum_of_weights(
                    labels, weight, sample_weight, dtype, ignore_index, complete
                )
        return cls(
            rows,
            labels,
            weight,
            sample_weight,
            margins,
            divided,
            complete=complete,
            divisor=divisor,
            uncounted=uncounted,
        )

    @property
    def n_classes(self) -> int:
        """Count the classes; a shard has one more behind its scores, which stands for those of other shards."""
        return self.scores.shape[-1] + (self.summary is not None)

    @property
    def tensors(self) -> BatchTensors:
        """Return what an operator takes, with one normalizer for all that divides the losses."""
        normalizer = self.counted().normalizer
        if self.divisor != 1:
            normalizer = _as_divisor(self.divisor, self.scores)
        return (
            self.scores,
            self.labels,
            self.weight,
            self.sample_weight,
            self.margins,
            normalizer,
            self.summary,
        )

    def counted(self) -> Batch:
        """Return the batch with the number of labels that divides the losses, if any does, as the normalizer."""
        if self.uncounted is None:
            return self
        dtype = accumulation_dtype(self.scores.dtype)
        number = sum_of_weights(self.labels, None, None, dtype, self.uncounted)
        return self._replace(normalizer=number, uncounted=None)

    def part(self, rows: slice, scores: Tensor) -> Batch:
        """Return the batch of some rows, whose scores are given."""
        factors, margins, summary = self.sample_weight, self.margins, self.summary
        return self._replace(
            scores=scores,
            labels=self.labels[rows],
            sample_weight=None if factors is None else factors[rows],
            margins=None if margins is None else margins[rows],
            summary=None if summary is None else summary[:, rows],
        )

    def looked_at(self, ignore_index: int) -> Batch:
        """Return the batch with `complete`, where the labels can be looked at; raise IndexError as `look` does."""
        if self.complete is not None:
            return self
        return self._replace(complete=look(self.labels, self.n_classes, ignore_index))

    def read_labels(self, ignore_index: int, dtype: torch.dtype) -> Labelled:
        """Return what the labels decide, in `dtype`."""
        labels = self.labels
        # most batches need no masks
        active = valid = None
        label = labels
        factor: Tensor | float = 1.0
        if not self.complete:
            active = labels != ignore_index
            valid = active & (labels >= 0) & (labels < self.n_classes)
            label, factor = labels.where(valid, 0), active.to(dtype)
        if self.weight is not None or self.sample_weight is not None:
            factor = weights_of(label, self.weight, self.sample_weight, dtype, active)
        if self.divisor != 1:
            factor = factor / self.divisor
        normalizer = self.counted().normalizer
        if normalizer is not None:
            factor = factor / normalizer
        label = label.unsqueeze(-1)
        margin = None
        if self.margins is not None:
            margin = self.margins.gather(-1, label).squeeze(-1)
            if active is not None:
                margin = margin.masked_fill(~active, 0)
        return Labelled(active, valid, label, factor, margin)


class Labelled(NamedTuple):
    """The labels of a batch decide which rows count, their classes, the factors of their losses, their margins."""

    active: Tensor | None  # (..., N), not ignored; None if every row is valid
    valid: Tensor | None  # (..., N), active and of a class; None if every row is
    label: Tensor  # (..., N, 1), the class, or 0
    factor: Tensor | float  # (..., N), of the loss; 0 if ignored; or one of all
    margin: Tensor | None  # (..., N), beside the loss's; 0 if ignored


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _are_few(rows: Tensor) -> bool:
    """Return whether a kernel is to count the labels of these rows, if there are any."""
    return rows.is_cuda and 0 < rows.shape[0] <= _FEW_LABELS and rows.numel() <= _FEW_SCORES


def class_dim(scores: Tensor) -> int:
    """Return the dimension of the classes of scores (C,) or (N, C, d1, ...)."""
    return min(1, scores.dim() - 1)


def as_rows(scores: Tensor) -> Tensor:
    """Return (C,) or (N, C, d1, ...) as (N d1 ..., C), the rows in the order of the labels."""
    if scores.dim() == 2:
        return scores
    scores = scores.movedim(class_dim(scores), -1)
    return scores.reshape(-1, scores.shape[-1])


def with_masked_class(scores: Tensor) -> Tensor:
    """Return the scores with one more class, which is masked."""
    masked = scores.new_full(_shape_of_samples(scores), -math.inf)
    return torch.cat((scores, masked), class_dim(scores))


def class_indices(labels: Tensor, ignore_index: int) -> Tensor:
    """Return labels as int64, which can be compared with every number of classes and every ignore_index.

    Labels of uint64 that int64 does not hold become a number that is no class and not ignored.
    """
    if labels.dtype == torch.int64:
        return labels
    indices = labels.long()
    if labels.dtype == torch.uint64:
        indices = indices.masked_fill(indices < 0, _LARGEST - (ignore_index == _LARGEST))
    return indices


def look(labels: Tensor, n_classes: int, ignore_index: int) -> bool | None:
    """Return whether each label is a class and none is ignored; raise IndexError if one is neither.

    None: labels on a GPU are not looked at, which would wait for it.
    """
    if not labels.is_cpu or labels.numel() == 0:
        return None
    lowest, highest = labels.aminmax()
    low, high = lowest.item(), highest.item()
    if low >= 0 and high < n_classes:
        return not (low <= ignore_index <= high and (labels == ignore_index).any())
    wrong = ((labels < 0) | (labels >= n_classes)) & (labels != ignore_index)
    if wrong.any():
        raise IndexError(
            f"labels must be in [0, {n_classes}) or ignore_index={ignore_index}, "
            f"got {labels[wrong][0].item()}"
        )
    return False


def sum_of_weights(
    labels: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    dtype: torch.dtype,
    ignore_index: int,
    complete: bool | None = None,
) -> Tensor:
    """Return the divisor of a mean, the sum of the weights of the labels (N,) that count."""
    if weight is None and sample_weight is None:
        return (labels != ignore_index).sum(dtype=dtype)
    active = None if complete else labels != ignore_index
    if weight is not None and active is not None:
        labels = labels.clamp(0, weight.shape[0] - 1)
    return weights_of(labels, weight, sample_weight, dtype, active).sum()


def weights_of(
    label: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    dtype: torch.dtype,
    active: Tensor | None,
) -> Tensor:
    """Return the weight of each label (..., N) out of (..., C) times that of the sample; 0 if it is not active."""
    factors = []
    if weight is not None:
        factors.append(weight.to(dtype).gather(-1, label))
    if sample_weight is not None:
        factors.append(sample_weight.to(dtype))
    weights = reduce(torch.mul, factors)
    return weights if active is None else torch.where(active, weights, 0)


def _as_divisor(normalizer: float | Tensor, scores: Tensor) -> Tensor:
    """Return the normalizer as a tensor on the device of the scores, of the dtype of the losses."""
    dtype = accumulation_dtype(scores.dtype)
    if not isinstance(normalizer, Tensor):
        # of a product, torch.compile need not know the number
        return scores.new_ones((), dtype=dtype) * float(normalizer)
    return normalizer.reshape(()).to(scores.device, dtype, non_blocking=True)


def check_tensors(
    scores: Tensor,
    labels: Tensor,
    weight: Weight | None,
    margin: float | Tensor | None = None,
    normalizer: float | Tensor | None = None,
    reduction: str = "mean",
    shard: ClassShard | None = None,
) -> int:
    """Check the tensors of a call; return the number of classes C."""
    n_classes = _check_scores_and_labels(scores, labels)
    n_classes = classes_of(shard, n_classes)
    if n_classes == 0:
        raise ValueError(f"scores must have at least one class, got shape {tuple(scores.shape)}")
    if weight is not None:
        _check_weight(weight, n_classes, scores)
    if isinstance(margin, Tensor):
        _check_floating_constant("margin", margin)
        _check_margins(margin, n_classes, scores)
    if normalizer is not None:
        _check_normalizer(normalizer, reduction, scores)
    return n_classes


def check_constants(weight: Tensor | None, margin: float | Tensor | None) -> None:
    """Check what a module keeps, as far as it need not be compared with the scores."""
    if weight is not None:
        advice = "; a weight for each sample is given to the call"
        if not isinstance(weight, Tensor):
            raise TypeError(f"weight must be a Tensor, got {type(weight).__name__}{advice}")
        _check_floating_constant("weight", weight)
        if weight.dim() != 1:
            raise ValueError(f"weight must have shape (C,), got {tuple(weight.shape)}{advice}")
    if isinstance(margin, Tensor):
        _check_floating_constant("margin", margin)


def _check_scores_and_labels(scores: Tensor, labels: Tensor) -> int:
    """Check the two; return the number of classes C."""
    if not isinstance(scores, Tensor):
        raise TypeError(f"scores must be a Tensor, got {type(scores).__name__}")
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a Tensor, got {type(labels).__name__}")
    check_floating("scores", scores)
    if labels.dtype not in _INTEGER_DTYPES:
        raise TypeError(
            "labels must be class indices of an integer dtype, not one-hot or probabilities, "
            f"got {labels.dtype}"
        )
    check_dense("scores", scores)
    check_dense("labels", labels)
    shape = scores.shape
    if not shape:
        raise ValueError("scores must have shape (C,), (N, C) or (N, C, d1, ...), got ()")
    n_classes, expected = (shape[1], (shape[0], *shape[2:])) if len(shape) > 1 else (shape[0], ())
    if not _has_shape(labels, expected):
        raise ValueError(
            f"labels must have shape {expected} for scores of shape {tuple(shape)}, "
            f"got {tuple(labels.shape)}{_cause(shape, labels.shape)}"
        )
    check_device("labels", labels, scores)
    return n_classes


def _has_shape(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    """Return whether the tensor has the shape; sizes that only a running graph knows are checked when it runs."""
    if not is_compiling():
        return tensor.shape == shape
    from torch.fx.experimental.symbolic_shapes import guard_or_false

    sizes = list(zip(tensor.shape, shape, strict=False))
    if tensor.dim() != len(shape) or any(guard_or_false(a != b) for a, b in sizes):
        return False
    for size, expected in sizes:
        torch._check(size == expected)
    return True


def _cause(of_scores: torch.Size, of_labels: torch.Size) -> str:
    """Return why labels may have a shape that does not go with that of the scores."""
    if of_labels == of_scores:
        return "; they are class indices, not one-hot or probabilities"
    if of_labels == of_scores[:-1]:
        return "; the classes of scores are dimension 1: scores.movedim(-1, 1)"
    return ""


def _check_weight(weight: Weight, n_classes: int, scores: Tensor) -> None:
    shapes = {"class": (n_classes,), "sample": _shape_of_samples(scores)}
    given: list[tuple[Any, tuple[str, ...]]] = [(weight, tuple(shapes))]
    if isinstance(weight, tuple) and len(weight) == 2:
        given = [(weight[0], ("class",)), (weight[1], ("sample",))]
    for tensor, kinds in given:
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(
                "weight must be a Tensor or a tuple of two, a class weight and a sample weight, "
                f"got {type(tensor).__name__}"
            )
        _check_floating_constant("weight", tensor)
        if not any(_has_shape(tensor, shapes[kind]) for kind in kinds):
            expected = " or ".join(f"{shapes[kind]} for a weight per {kind}" for kind in kinds)
            raise ValueError(f"weight must have shape {expected}, got {tuple(tensor.shape)}")
        check_device("weight", tensor, scores)


def split_weight(
    weight: Weight | None, scores: Tensor, n_classes: int
) -> tuple[Tensor | None, Tensor | None]:
    """Return the weight of each class and that of each sample, of a weight that has been checked."""
    if isinstance(weight, tuple):
        return weight
    # of a single row (C,) both have one dimension
    of_samples = weight is not None and (
        weight.dim() > 1 or (scores.dim() == 1 and weight.shape != (n_classes,))
    )
    return (None, weight) if of_samples else (weight, None)


def _shape_of_samples(scores: Tensor) -> tuple[int, ...]:
    """Return the shape of a number for each sample, that of the scores with 1 in place of C."""
    classes = class_dim(scores)
    return tuple(1 if i == classes else d for i, d in enumerate(scores.shape))


def _check_margins(margin: Tensor, n_classes: int, scores: Tensor) -> None:
    of_samples = _shape_of_samples(scores)
    if not any(_has_shape(margin, shape) for shape in ((), (n_classes,), of_samples)):
        raise ValueError(
            f"margin must have shape (), ({n_classes},) for a margin per class, or {of_samples} for "
            f"a margin per sample, got {tuple(margin.shape)}"
        )
    check_device("margin", margin, scores)


def _check_normalizer(normalizer: float | Tensor, reduction: str, scores: Tensor) -> None:
    if isinstance(reduction, str) and reduction == "none":
        raise ValueError(
            f"normalizer divides a sum, for reduction='mean' or 'sum', got {reduction=}"
        )
    if not isinstance(normalizer, Tensor):
        arguments.normalizer(normalizer, accumulation_dtype(scores.dtype))
        return
    if normalizer.dtype == torch.bool or normalizer.is_complex():
        raise TypeError(f"normalizer must be of a real dtype, got {normalizer.dtype}")
    if normalizer.is_floating_point():
        check_floating("normalizer", normalizer)
    _check_constant("normalizer", normalizer)
    if normalizer.numel() != 1:
        raise ValueError(f"normalizer must have one element, got shape {tuple(normalizer.shape)}")
    # a number on the CPU reaches any device without a wait
    if normalizer.device.type != "cpu":
        check_device("normalizer", normalizer, scores)


def check_floating(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in _DTYPES:
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}")


def check_dense(name: str, tensor: Tensor) -> None:
    if tensor.layout is not torch.strided or tensor.is_nested:
        layout = "nested" if tensor.is_nested else tensor.layout
        raise TypeError(f"{name} must be a dense Tensor, got layout {layout}")


def _check_floating_constant(name: str, tensor: Tensor) -> None:
    check_floating(name, tensor)
    _check_constant(name, tensor)


def _check_constant(name: str, tensor: Tensor) -> None:
    """Check a tensor that no gradient is computed for."""
    check_dense(name, tensor)
    if tensor.requires_grad:
        raise ValueError(
            f"{name} must not require a gradient, which is computed for scores only, "
            "got requires_grad=True"
        )


def check_device(name: str, tensor: Tensor, other: Tensor, of: str = "scores") -> None:
    if tensor.device != other.device:
        raise ValueError(
            f"{name} must be on the device of {of}, {other.device}, got {tensor.device}"
        )
