"""The losses' tensors: checked, with errors that name the argument and what was expected, and laid out as rows."""

from __future__ import annotations

import torch
from torch import Tensor

from triton_topk import arguments

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


def check_tensors(
    scores: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    margin: float | Tensor | None = None,
    normalizer: float | Tensor | None = None,
    reduction: str = "mean",
) -> int:
    """The number of classes C."""
    n_classes = _check_scores_and_labels(scores, labels)
    check_constants(weight, margin)
    if weight is not None:
        _check_weight(weight, n_classes, scores)
    if isinstance(margin, Tensor):
        _check_margins(margin, n_classes, scores)
    if normalizer is not None:
        _check_normalizer(normalizer, reduction, scores)
    return n_classes


def check_constants(weight: Tensor | None, margin: float | Tensor | None) -> None:
    """What need not be compared with the scores."""
    if weight is not None:
        if not isinstance(weight, Tensor):
            raise TypeError(f"weight must be a Tensor, got {type(weight).__name__}")
        _check_floating("weight", weight)
        _check_constant("weight", weight)
        if weight.dim() != 1:
            raise ValueError(f"weight must have shape (C,), got {tuple(weight.shape)}")
    if isinstance(margin, Tensor):
        _check_floating("margin", margin)
        _check_constant("margin", margin)


def _check_scores_and_labels(scores: Tensor, labels: Tensor) -> int:
    """The number of classes C."""
    if not isinstance(scores, Tensor):
        raise TypeError(f"scores must be a Tensor, got {type(scores).__name__}")
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a Tensor, got {type(labels).__name__}")
    _check_floating("scores", scores)
    if labels.dtype not in _INTEGER_DTYPES:
        raise TypeError(
            "labels must be class indices of an integer dtype, not one-hot or probabilities, "
            f"got {labels.dtype}"
        )
    _check_dense("scores", scores)
    _check_dense("labels", labels)
    shape = scores.shape
    if not shape:
        raise ValueError("scores must have shape (C,), (N, C) or (N, C, d1, ...), got ()")
    n_classes = shape[min(1, len(shape) - 1)]
    expected = () if len(shape) == 1 else (shape[0], *shape[2:])
    if not _has_shape(labels, expected):
        raise ValueError(
            f"labels must have shape {expected} for scores of shape {tuple(shape)}, "
            f"got {tuple(labels.shape)}{_cause(shape, labels.shape)}"
        )
    _check_device("labels", labels, scores)
    if n_classes == 0:
        raise ValueError(f"scores must have at least one class, got shape {tuple(shape)}")
    return n_classes


def _has_shape(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether the tensor has the shape.  Sizes that only a running graph knows are checked when it runs."""
    if not torch.compiler.is_compiling():
        return tensor.shape == shape
    from torch.fx.experimental.symbolic_shapes import guard_or_false

    sizes = list(zip(tensor.shape, shape, strict=False))
    if tensor.dim() != len(shape) or any(guard_or_false(a != b) for a, b in sizes):
        return False
    for size, expected in sizes:
        torch._check(size == expected)
    return True


def _cause(of_scores: torch.Size, of_labels: torch.Size) -> str:
    """Why labels may have a shape that does not go with that of the scores."""
    if of_labels == of_scores:
        return "; they are class indices, not one-hot or probabilities"
    if of_labels == of_scores[:-1]:
        return "; the classes of scores are dimension 1: scores.movedim(-1, 1)"
    return ""


def _check_weight(weight: Tensor, n_classes: int, scores: Tensor) -> None:
    if not _has_shape(weight, (n_classes,)):
        raise ValueError(f"weight must have shape ({n_classes},), got {tuple(weight.shape)}")
    _check_device("weight", weight, scores)


def _check_margins(margin: Tensor, n_classes: int, scores: Tensor) -> None:
    of_samples = tuple(
        1 if i == min(1, scores.dim() - 1) else d for i, d in enumerate(scores.shape)
    )
    if not any(_has_shape(margin, shape) for shape in ((), (n_classes,), of_samples)):
        raise ValueError(
            f"margin must have shape (), ({n_classes},) for a margin per class, or {of_samples} for "
            f"a margin per sample, got {tuple(margin.shape)}"
        )
    _check_device("margin", margin, scores)


def _check_normalizer(normalizer: float | Tensor, reduction: str, scores: Tensor) -> None:
    if isinstance(reduction, str) and reduction == "none":
        raise ValueError(
            f"normalizer divides a sum, for reduction='mean' or 'sum', got {reduction=}"
        )
    if not isinstance(normalizer, Tensor):
        arguments.check_normalizer(normalizer, accumulation_dtype(scores.dtype))
        return
    if normalizer.dtype == torch.bool or normalizer.is_complex():
        raise TypeError(f"normalizer must be of a real dtype, got {normalizer.dtype}")
    if normalizer.is_floating_point():
        _check_floating("normalizer", normalizer)
    _check_constant("normalizer", normalizer)
    if normalizer.numel() != 1:
        raise ValueError(f"normalizer must have one element, got shape {tuple(normalizer.shape)}")
    # a number on the CPU reaches any device without a wait
    if normalizer.device.type != "cpu":
        _check_device("normalizer", normalizer, scores)


def _check_floating(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in _DTYPES:
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}")


def _check_dense(name: str, tensor: Tensor) -> None:
    if tensor.layout is not torch.strided or tensor.is_nested:
        layout = "nested" if tensor.is_nested else tensor.layout
        raise TypeError(f"{name} must be a dense Tensor, got layout {layout}")


def _check_constant(name: str, tensor: Tensor) -> None:
    """A tensor that no gradient is computed for."""
    _check_dense(name, tensor)
    if tensor.requires_grad:
        raise ValueError(
            f"{name} must not require a gradient, which is computed for scores only, "
            "got requires_grad=True"
        )


def _check_device(name: str, tensor: Tensor, scores: Tensor) -> None:
    if tensor.device != scores.device:
        raise ValueError(
            f"{name} must be on the device of scores, {scores.device}, got {tensor.device}"
        )


def as_rows(scores: Tensor) -> Tensor:
    """(C,) or (N, C, d1, ...) as (N d1 ..., C), the rows in the order of the labels."""
    if scores.dim() == 2:
        return scores
    class_dim = min(1, scores.dim() - 1)
    return scores.movedim(class_dim, -1).reshape(-1, scores.shape[class_dim])


def margins_of_rows(margin: Tensor, scores: Tensor, rows: Tensor) -> Tensor:
    """The margin of each row for each label that it could have: (N d1 ..., C), in the memory it has."""
    if margin.dim() == scores.dim():
        margin = as_rows(margin)
    return margin.expand(rows.shape)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def normalizer_of(normalizer: float | Tensor, scores: Tensor) -> Tensor:
    """The divisor as a tensor on the device of the scores, of the type of the losses."""
    dtype = accumulation_dtype(scores.dtype)
    if not isinstance(normalizer, Tensor):
        # of a product, torch.compile need not know the number
        return scores.new_ones((), dtype=dtype) * float(normalizer)
    return normalizer.reshape(()).to(scores.device, dtype, non_blocking=True)
