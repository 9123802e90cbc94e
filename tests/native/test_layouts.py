"""The strides and dtypes of a call's tensors do not matter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from losses import DTYPES, Loss, each, exactly_equal, one_of_each, random_labels, random_scores
from torch import Tensor

pytestmark = pytest.mark.usefixtures("poison")

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.t().contiguous().t(),
    "sliced rows": lambda x: x.repeat_interleave(2, 0)[::2],
    "sliced classes": lambda x: x.repeat_interleave(3, 1)[:, 1::3],
    "offset": lambda x: torch.cat((x[:, :1], x, x), 1)[:, 1 : 1 + x.shape[1]],
    "overlapping": lambda x: x[:1].expand(x.shape),
}


def results(loss: Loss, scores: Tensor, labels: Tensor, **options: object) -> tuple[Tensor, ...]:
    return loss.with_gradient(scores, labels, reduction="none", backend="native", **options)


@pytest.mark.exhaustive(one_in=3)
@each(one_of_each(3))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [50, 4100])
def test_strides_of_the_scores(loss: Loss, layout: str, dtype: torch.dtype, n: int) -> None:
    scores, labels = random_scores(11, n, dtype=dtype), random_labels(11, n=n)
    strided = LAYOUTS[layout](scores)
    exactly_equal(results(loss, strided, labels), results(loss, strided.contiguous(), labels))


@each(one_of_each(3))
@pytest.mark.parametrize("n", [9, 4100])
def test_scores_of_more_dimensions(loss: Loss, n: int) -> None:
    scores, labels = random_scores(2, n, 3, 2), random_labels(2, 3, 2, n=n)
    losses, gradient = results(loss, scores, labels)
    rows = scores.movedim(1, -1).reshape(-1, n)
    of_rows, gradients = results(loss, rows, labels.reshape(-1))
    exactly_equal(losses, of_rows.reshape(2, 3, 2))
    exactly_equal(gradient, gradients.reshape(2, 3, 2, n).movedim(-1, 1))


@each(one_of_each(3))
@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint64]
)
def test_labels_of_any_dtype_and_stride(loss: Loss, dtype: torch.dtype) -> None:
    scores, labels = random_scores(11, 50), random_labels(11, n=50)
    expected = results(loss, scores, labels)
    exactly_equal(results(loss, scores, labels.to(dtype)), expected)
    wide = torch.stack((labels, labels.new_full((11,), 77)), 1).to(dtype)
    exactly_equal(results(loss, scores, wide[:, 0]), expected)
    same = labels[:1].to(dtype).expand(11)
    exactly_equal(results(loss, scores, same), results(loss, scores, labels[:1].repeat(11)))


@each([Loss("smooth_svm", k=3), Loss("hard_svm", k=3), Loss("smooth_svm_lq", k=3)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (50,), (11, 1)])
def test_constants_of_any_dtype_and_stride(
    loss: Loss, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    scores, labels = random_scores(11, 50), random_labels(11, n=50)
    margin = random_scores(*shape, seed=2).abs().to(dtype)
    weight = random_scores(50, seed=3).abs().to(dtype)
    expected = results(loss, scores, labels, margin=margin.double(), weight=weight.double())
    exactly_equal(results(loss, scores, labels, margin=margin, weight=weight), expected)
    strided = weight.repeat_interleave(2)[::2]
    sparse = margin if margin.dim() == 0 else margin.repeat_interleave(2, 0)[::2]
    exactly_equal(results(loss, scores, labels, margin=sparse, weight=strided), expected)
    same = results(loss, scores, labels, weight=weight[:1].expand(50))
    exactly_equal(same, results(loss, scores, labels, weight=weight[:1].repeat(50)))
    of_samples = random_scores(11, 1, seed=4).abs().to(dtype)
    expected = results(loss, scores, labels, weight=of_samples.double())
    sparse = of_samples.repeat_interleave(2, 0)[::2]
    for same_weights in (of_samples, sparse):
        exactly_equal(results(loss, scores, labels, weight=same_weights), expected)
    divisor = torch.tensor(4.0, dtype=dtype)
    options = {"reduction": "sum", "backend": "native", "weight": weight}
    found = loss.with_gradient(scores, labels, normalizer=divisor, **options)
    exactly_equal(found, loss.with_gradient(scores, labels, normalizer=4, **options))


@each(one_of_each(3))
@pytest.mark.parametrize("n", [50, 4100])
def test_strides_of_the_upstream_gradient(loss: Loss, n: int) -> None:
    scores, labels = random_scores(11, n).requires_grad_(), random_labels(11, n=n)
    losses = loss(scores, labels, reduction="none", backend="native")
    upstream = random_scores(11, seed=4)
    for strided in (upstream.repeat_interleave(2)[::2], upstream[:1].expand(11)):
        found, expected = (
            torch.autograd.grad(losses, scores, x, retain_graph=True)
            for x in (strided, strided.contiguous())
        )
        exactly_equal(found, expected)
