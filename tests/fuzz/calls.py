"""Any call of a loss that keeps to the contract."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

import triton_topk

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LOSSES = ("smooth_svm", "hard_svm", "lq_loss", "smooth_svm_lq")
_BATCH_SHAPES = [(), (1,), (4,), (0,), (3, 2), (2, 0), (1, 2, 2)]
# What a row is made of: scores with ties, with any difference, masked classes, what makes a row NaN.
_SCORES = {
    "few values": st.integers(-4, 4).map(lambda i: i / 2),
    "any": st.floats(-30, 30, width=16),
    "far apart": st.floats(-1e4, 1e4, width=32),
    "huge": st.floats(-(2.0**123), 2.0**123, width=32),
    "masked": st.sampled_from([0.0, 1.5, -math.inf]),
    "poisoned": st.sampled_from([0.0, 1.0, -math.inf, math.inf, math.nan]),
}


@dataclass(frozen=True, eq=False)
class Call:
    """triton_topk.loss(scores, labels, **options); upstream: what its result is multiplied by before the backward."""

    loss: str
    scores: Tensor
    labels: Tensor
    options: dict[str, Any]
    upstream: float

    def __call__(self, **options: Any) -> Any:
        return getattr(triton_topk, self.loss)(self.scores, self.labels, **self.options, **options)

    @property
    def rows(self) -> Tensor:
        return as_rows(self.scores.detach())


def as_rows(scores: Tensor) -> Tensor:
    """Scores of any shape as (N, C) in float64, in the order of the labels."""
    last = scores.double().movedim(min(1, scores.dim() - 1), -1)
    return last.reshape(-1, last.shape[-1])


@st.composite
def calls(draw: st.DrawFn, largest_k: int) -> Call:
    loss = draw(st.sampled_from(LOSSES), "loss")
    n_classes = draw(st.one_of(st.integers(2, 9), st.integers(2, 40)), "C")
    batch = draw(st.sampled_from(_BATCH_SHAPES), "batch")
    scores = draw(_scores(batch, n_classes), "scores")
    options = draw(_options(loss, scores, batch, n_classes, largest_k), "options")
    labels = draw(_labels(batch, n_classes, options.get("ignore_index", -100)), "labels")
    return Call(loss, scores, labels, options, draw(st.sampled_from([1.0, -2.0, 0.25])))


@st.composite
def _scores(draw: st.DrawFn, batch: tuple[int, ...], n_classes: int) -> Tensor:
    rows = [
        draw(st.lists(_SCORES[kind], min_size=n_classes, max_size=n_classes))
        for kind in draw(_list_of(st.sampled_from(sorted(_SCORES)), math.prod(batch)))
    ]
    scores = torch.tensor(rows, dtype=torch.float64).reshape(*batch, n_classes)
    scores = scores.to(draw(st.sampled_from(DTYPES)))
    if batch:
        scores = scores.movedim(-1, 1)
    return draw(_strided(scores))


@st.composite
def _strided(draw: st.DrawFn, x: Tensor) -> Tensor:
    """The same numbers in another layout, with others between that must not be read or written."""
    layout = draw(st.sampled_from(["contiguous", "reversed", "sparse"]))
    if layout == "reversed":
        return x.movedim(0, -1).contiguous().movedim(-1, 0)
    if layout == "sparse" and x.dim():
        wide = x.new_full((*x.shape[:-1], 2 * x.shape[-1] + 1), 77)
        out = wide[..., 1::2]
        return out.copy_(x)
    return x.contiguous()


@st.composite
def _labels(draw: st.DrawFn, batch: tuple[int, ...], n_classes: int, ignore_index: int) -> Tensor:
    label = st.one_of(st.integers(0, n_classes - 1), st.just(ignore_index))
    labels = torch.tensor(draw(_list_of(label, math.prod(batch))), dtype=torch.int64)
    dtypes = [torch.int64, torch.int32]
    if -128 <= ignore_index <= 127:
        dtypes.append(torch.int8)
    return draw(_strided(labels.reshape(batch).to(draw(st.sampled_from(dtypes)))))


@st.composite
def _options(
    draw: st.DrawFn,
    loss: str,
    scores: Tensor,
    batch: tuple[int, ...],
    n_classes: int,
    largest_k: int,
) -> dict[str, Any]:
    """Each is given about half of the times."""
    size = st.floats(0, 100, width=16)
    k = draw(st.one_of(st.integers(1, min(5, n_classes - 1)), st.integers(1, n_classes - 1)))
    per_sample = (*scores.shape[:1], 1, *scores.shape[2:]) if batch else (1,)
    weights = st.floats(0, 3, width=16)
    of_classes, of_samples = _tensors((n_classes,), weights), _tensors(per_sample, weights)
    strategies: dict[str, st.SearchStrategy[Any]] = {
        "weight": st.one_of(of_classes, of_samples, st.tuples(of_classes, of_samples)),
        "ignore_index": st.sampled_from([0, -1, n_classes - 1, 100, -(2**31)]),
        "reduction": st.sampled_from(["none", "sum", "mean"]),
        "return_topk_hits": st.booleans(),
    }
    if loss != "lq_loss":
        strategies["margin"] = st.one_of(
            size,
            _tensors((), size),
            _tensors((n_classes,), size),
            _tensors(per_sample, size),
        )
    if loss.startswith("smooth_svm"):
        strategies["tau"] = st.sampled_from([1e-3, 0.1, 0.5, 1.0, 7.0, 1e3])
        strategies["gradient"] = st.sampled_from(["exact", "taylor"])
    if "lq" in loss:
        strategies["q"] = st.one_of(st.sampled_from([0.0, 1e-7, 1.0]), st.floats(0, 1))
        strategies["truncation"] = st.floats(1e-4, 0.999)
    if loss == "smooth_svm_lq":
        strategies["mix"] = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
    options = {name: draw(x, name) for name, x in strategies.items() if draw(st.booleans())}
    if options.get("gradient") == "taylor":
        orders = [None, *(order for order in (1, 2, 4) if order <= n_classes)]
        options["order"] = draw(st.sampled_from(orders), "order")
    if options.get("reduction") != "none" and draw(st.booleans()):
        divisor = st.floats(0.125, 1000, width=16)
        options["normalizer"] = draw(
            st.one_of(divisor, _tensors((), divisor), _tensors((1,), divisor)), "normalizer"
        )
    return options | {"k": min(k, largest_k)}


@st.composite
def _tensors(draw: st.DrawFn, shape: tuple[int, ...], numbers: st.SearchStrategy[float]) -> Tensor:
    values = torch.tensor(draw(_list_of(numbers, math.prod(shape))), dtype=torch.float64)
    return draw(_strided(values.reshape(shape).to(draw(st.sampled_from(DTYPES)))))


def _list_of(elements: st.SearchStrategy[Any], size: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(elements, min_size=size, max_size=size)
