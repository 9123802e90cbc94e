"""The contract of `triton_topk.smooth_svm` and its module, on the CPU without Triton."""

from __future__ import annotations

import copy
import io
import math
import pickle

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from triton_topk import smooth_svm
from triton_topk.nn import SmoothSVMLoss

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGER_DTYPES = (
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
)
REDUCTIONS = ("none", "mean", "sum")


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def random_scores(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def random_labels(*shape: int, n: int, seed: int = 1) -> Tensor:
    return torch.randint(n, shape, generator=torch.Generator().manual_seed(seed))


def loss_and_gradient(scores: Tensor, labels: Tensor, k: int = 5, **arguments) -> tuple:
    """The loss and the gradient of its sum, of scores that are left alone."""
    leaf = scores.detach().requires_grad_()
    loss = smooth_svm(leaf, labels, k, **arguments)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), gradient


def exactly_equal(actual: Tensor, expected: Tensor, **options) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, **options)


# Shapes


def test_a_single_row():
    scores, label = random_scores(11), torch.tensor(3)
    loss, gradient = loss_and_gradient(scores, label, 4, reduction="none")
    row_loss, row_gradient = loss_and_gradient(scores[None], label[None], 4, reduction="none")
    assert loss.shape == ()
    exactly_equal(loss, row_loss[0])
    exactly_equal(gradient, row_gradient[0])
    for reduction in ("mean", "sum"):
        exactly_equal(smooth_svm(scores, label, 4, reduction=reduction), loss)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_more_dimensions_are_more_rows(reduction):
    scores = random_scores(3, 11, 4, 2)
    labels = random_labels(3, 4, 2, n=11)
    rows = scores.permute(0, 2, 3, 1).reshape(-1, 11)
    loss, gradient = loss_and_gradient(scores, labels, 3, reduction=reduction)
    expected, expected_gradient = loss_and_gradient(rows, labels.flatten(), 3, reduction=reduction)
    assert loss.shape == (labels.shape if reduction == "none" else ())
    exactly_equal(loss.flatten(), expected.flatten())
    exactly_equal(gradient.permute(0, 2, 3, 1).reshape(-1, 11), expected_gradient)


def test_three_dimensions():
    scores, labels = random_scores(3, 11, 4), random_labels(3, 4, n=11)
    loss = smooth_svm(scores, labels, 2, reduction="none")
    assert loss.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            exactly_equal(loss[i, j], smooth_svm(scores[i, :, j], labels[i, j], 2))


@pytest.mark.parametrize("dtype", INTEGER_DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_labels_of_every_integer_dtype(dtype, reduction):
    scores, labels = random_scores(5, 11), random_labels(5, n=11)
    expected = loss_and_gradient(scores, labels, 3, reduction=reduction)
    actual = loss_and_gradient(scores, labels.to(dtype), 3, reduction=reduction)
    exactly_equal(actual, expected)


@pytest.mark.parametrize("dtype", INTEGER_DTYPES)
def test_ignore_index_that_fits_the_labels_dtype(dtype):
    scores, labels = random_scores(5, 11), torch.tensor([1, 7, 3, 7, 0])
    expected = loss_and_gradient(scores[[0, 2, 4]], labels[[0, 2, 4]], 3)
    loss, gradient = loss_and_gradient(scores, labels.to(dtype), 3, ignore_index=7)
    torch.testing.assert_close(loss, expected[0])
    torch.testing.assert_close(gradient[[0, 2, 4]], expected[1])
    assert not gradient[[1, 3]].any()


def test_non_contiguous_labels():
    scores, labels = random_scores(5, 11), random_labels(5, 2, n=11)
    exactly_equal(smooth_svm(scores, labels[:, 1]), smooth_svm(scores, labels[:, 1].clone()))
    expanded = torch.tensor(4).expand(5)
    exactly_equal(smooth_svm(scores, expanded), smooth_svm(scores, expanded.clone()))


# Dtypes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_dtypes_of_loss_and_gradient(dtype, reduction):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    scores, labels = random_scores(4, 11, dtype=dtype), random_labels(4, n=11)
    loss, gradient = loss_and_gradient(scores, labels, 3, reduction=reduction)
    assert loss.dtype == wide
    assert gradient.dtype == dtype
    # all arithmetic is in the wide dtype: the loss is that of the converted scores
    wide_loss, wide_gradient = loss_and_gradient(scores.to(wide), labels, 3, reduction=reduction)
    exactly_equal(loss, wide_loss)
    torch.testing.assert_close(gradient, wide_gradient.to(dtype))


@pytest.mark.parametrize("weight_dtype", DTYPES)
def test_weight_of_another_dtype(weight_dtype):
    scores, labels = random_scores(4, 11), random_labels(4, n=11)
    weight = (torch.arange(11) / 4).to(weight_dtype)
    exactly_equal(
        loss_and_gradient(scores, labels, weight=weight),
        loss_and_gradient(scores, labels, weight=weight.float()),
    )


# Cross-entropy is k = 1, tau = 1, margin = 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignoring", [False, True])
def test_cross_entropy(dtype, reduction, weighted, ignoring):
    scores, labels = random_scores(7, 13, 2, dtype=dtype), random_labels(7, 2, n=13)
    weight = random_scores(13, seed=3).abs() if weighted else None
    options = {"reduction": reduction, "ignore_index": 4}
    if ignoring:
        labels[1, 0] = labels[4, 1] = 4
    else:
        labels[labels == 4] = 5

    truth = scores.double().requires_grad_()
    expected = F.cross_entropy(truth, labels, weight.double() if weighted else None, **options)
    upstream = random_scores(*expected.shape, seed=4).double()
    expected.backward(upstream)

    scores.requires_grad_()
    loss = smooth_svm(scores, labels, 1, margin=0.0, weight=weight, **options)
    loss.backward(upstream.to(loss.dtype))
    tight = 1e-13 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(loss, expected.to(loss.dtype), rtol=tight, atol=tight)
    # half a unit in the last place for each rounding: a stored gradient is rounded, scaled and rounded
    gradient = scores.grad.double()
    roundings = 1 if reduction == "none" or dtype == torch.float16 else 2
    rtol = roundings * torch.finfo(dtype).eps / 2 + tight
    atol = tight * float(truth.grad.abs().max())
    torch.testing.assert_close(gradient, truth.grad, rtol=rtol, atol=atol)


def test_all_of_cross_entropys_conventions_at_once_with_label_minus_100():
    scores, labels = random_scores(6, 9), torch.tensor([0, -100, 8, 3, -100, 3])
    weight = torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 7, 8])
    expected = F.cross_entropy(scores, labels, weight)
    torch.testing.assert_close(smooth_svm(scores, labels, 1, margin=0, weight=weight), expected)


# Reductions, weights, ignored rows


@pytest.mark.parametrize("k", [1, 5])
def test_reductions_of_a_weighted_loss(k):
    scores, labels = random_scores(6, 11), torch.tensor([3, -100, 10, 0, 3, -100])
    weight = torch.arange(11) / 4 + 0.5
    counted = labels != -100
    w = torch.where(counted, weight[labels.clamp(0)], 0)
    plain, plain_gradient = loss_and_gradient(scores, labels.clamp(0), k, reduction="none")

    loss, gradient = loss_and_gradient(scores, labels, k, weight=weight, reduction="none")
    torch.testing.assert_close(loss, w * plain)
    torch.testing.assert_close(gradient, w[:, None] * plain_gradient)
    total, gradient = loss_and_gradient(scores, labels, k, weight=weight, reduction="sum")
    torch.testing.assert_close(total, loss.sum())
    torch.testing.assert_close(gradient, w[:, None] * plain_gradient)
    mean, gradient = loss_and_gradient(scores, labels, k, weight=weight, reduction="mean")
    torch.testing.assert_close(mean, loss.sum() / w.sum())
    torch.testing.assert_close(gradient, w[:, None] * plain_gradient / w.sum())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_ignored_rows_count_for_nothing_whatever_they_hold(dtype, reduction, bad):
    scores, labels = random_scores(5, 11, dtype=dtype), torch.tensor([3, -100, 10, 0, -100])
    scores[1] = bad
    scores[4, 6] = bad
    kept = labels != -100
    loss, gradient = loss_and_gradient(scores, labels, 3, reduction=reduction)
    expected, expected_gradient = loss_and_gradient(
        scores[kept], labels[kept], 3, reduction=reduction
    )
    torch.testing.assert_close(loss[kept] if reduction == "none" else loss, expected)
    torch.testing.assert_close(gradient[kept], expected_gradient)
    assert (gradient[~kept] == 0).all()
    if reduction == "none":
        assert (loss[~kept] == 0).all()


def test_ignore_index_that_is_a_class():
    scores, labels = random_scores(4, 11), torch.tensor([3, 2, 10, 2])
    loss, gradient = loss_and_gradient(scores, labels, 3, ignore_index=2)
    torch.testing.assert_close(loss, smooth_svm(scores[[0, 2]], labels[[0, 2]], 3))
    assert not gradient[[1, 3]].any()
    assert gradient[0, 2] != 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_rows", [0, 3])
def test_no_row_counts(dtype, weighted, n_rows):
    scores, labels = random_scores(n_rows, 11, dtype=dtype), torch.full((n_rows,), -100)
    weight = torch.rand(11) if weighted else None
    mean, gradient = loss_and_gradient(scores, labels, weight=weight)
    assert mean.isnan()
    assert gradient.shape == scores.shape
    # as torch.nn.functional.cross_entropy: ignored rows have a zero gradient in this mean too
    assert (gradient == 0).all()
    total, gradient = loss_and_gradient(scores, labels, weight=weight, reduction="sum")
    assert total == 0
    assert (gradient == 0).all()
    losses, gradient = loss_and_gradient(scores, labels, weight=weight, reduction="none")
    exactly_equal(losses, torch.zeros(n_rows), check_dtype=False)
    assert (gradient == 0).all()


@pytest.mark.parametrize("shape", [(0, 11), (0, 11, 3), (2, 11, 0)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_empty_batches(shape, reduction):
    scores = random_scores(*shape)
    labels = torch.zeros(shape[0], *shape[2:], dtype=torch.int64)
    loss, gradient = loss_and_gradient(scores, labels, reduction=reduction)
    expected = F.cross_entropy(scores, labels, reduction=reduction)
    exactly_equal(loss, expected, equal_nan=True)
    assert gradient.shape == scores.shape


def test_weights_of_zero():
    scores, labels = random_scores(3, 11), torch.tensor([3, 4, 5])
    weight = torch.ones(11)
    weight[4] = 0
    loss, gradient = loss_and_gradient(scores, labels, 3, weight=weight)
    torch.testing.assert_close(loss, smooth_svm(scores[[0, 2]], labels[[0, 2]], 3))
    assert not gradient[1].any()


# Layouts


def layouts(scores: Tensor) -> dict[str, Tensor]:
    """The same (N, C) scores, laid out otherwise."""
    n_rows, n = scores.shape
    wide = torch.full((n_rows, 2 * n + 3), math.nan)
    wide[:, 3 : 3 + n] = scores
    every_other = torch.full((2 * n_rows, 2 * n), math.nan)
    every_other[::2, 1::2] = scores
    return {
        "transposed": scores.t().contiguous().t(),
        "sliced": wide[:, 3 : 3 + n],
        "stepped": every_other[::2, 1::2],
    }


@pytest.mark.parametrize("layout", ["transposed", "sliced", "stepped"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_layout_does_not_matter(layout, reduction):
    scores, labels = random_scores(6, 11), random_labels(6, n=11)
    laid_out = layouts(scores)[layout]
    assert not laid_out.is_contiguous()
    exactly_equal(
        loss_and_gradient(laid_out, labels, 3, reduction=reduction),
        loss_and_gradient(scores, labels, 3, reduction=reduction),
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_expanded_rows_and_columns(reduction):
    labels = random_labels(6, n=11)
    for narrow in (random_scores(1, 11), random_scores(6, 1)):
        expanded = narrow.expand(6, 11)
        exactly_equal(
            loss_and_gradient(expanded, labels, 3, reduction=reduction),
            loss_and_gradient(expanded.clone(), labels, 3, reduction=reduction),
        )


@pytest.mark.parametrize("shape", [(1, 11), (6, 1)])
def test_gradient_of_what_was_expanded(shape):
    labels = random_labels(6, n=11)
    narrow = random_scores(*shape).requires_grad_()
    smooth_svm(narrow.expand(6, 11), labels, 3).backward()
    _, gradient = loss_and_gradient(narrow.detach().expand(6, 11).clone(), labels, 3)
    torch.testing.assert_close(narrow.grad, gradient.sum_to_size(shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("gradient", ["exact", "taylor"])
def test_nothing_of_the_callers_is_changed(dtype, reduction, gradient):
    scores, labels = random_scores(6, 11, dtype=dtype), torch.tensor([3, -100, 10, 0, 7, 7])
    weight = torch.rand(11)
    given = (scores, labels, weight)
    before = [x.clone() for x in given]
    upstream = torch.full((6,) if reduction == "none" else (), 3.0)
    upstream = upstream.to(torch.float64 if dtype == torch.float64 else torch.float32)
    scores.requires_grad_()
    loss = smooth_svm(scores, labels, 3, weight=weight, reduction=reduction, gradient=gradient)
    kept = loss.detach().clone()
    loss.backward(upstream)
    for x, expected in zip(given, before, strict=True):
        exactly_equal(x.detach(), expected)
    exactly_equal(loss.detach(), kept)
    assert (upstream == 3).all()


# Special scores


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("gradient", ["exact", "taylor"])
def test_minus_infinity_takes_a_class_away(k, gradient):
    scores, labels = random_scores(4, 11, dtype=torch.float64), torch.tensor([0, 4, 5, 10])
    scores[:, [2, 7]] = -math.inf
    kept = [i for i in range(11) if i not in (2, 7)]
    there = torch.tensor([kept.index(y) for y in labels.tolist()])
    options = {"reduction": "none", "gradient": gradient}
    loss, d_scores = loss_and_gradient(scores, labels, k, **options)
    expected, expected_gradient = loss_and_gradient(scores[:, kept], there, k, **options)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(d_scores[:, kept], expected_gradient)
    assert (d_scores[:, [2, 7]] == 0).all()


@pytest.mark.parametrize("k", [1, 3, 6])
def test_minus_infinity_for_the_label(k):
    scores, labels = random_scores(3, 11), torch.tensor([4, 4, 4])
    scores[1, 4] = -math.inf
    losses, gradient = loss_and_gradient(scores, labels, k, reduction="none")
    assert losses[1] == math.inf
    exactly_equal(losses[[0, 2]], smooth_svm(scores[[0, 2]], labels[[0, 2]], k, reduction="none"))
    assert gradient.isfinite().all()
    torch.testing.assert_close(gradient[1, 4], torch.tensor(-1 / k))
    torch.testing.assert_close(gradient[1].sum(), torch.tensor(0.0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3, 7])
@pytest.mark.parametrize("gradient", ["exact", "taylor"])
def test_fewer_than_k_others_left(k, gradient):
    scores, labels = random_scores(3, 11), torch.tensor([4, 4, 4])
    scores[1] = -math.inf
    scores[1, : k - 1] = 5.0
    scores[1, 4 if k <= 4 else 10] = 1.0
    labels[1] = 4 if k <= 4 else 10
    losses, d_scores = loss_and_gradient(scores, labels, k, reduction="none", gradient=gradient)
    assert losses[1] == 0
    assert (d_scores[1] == 0).all()
    assert losses[[0, 2]].isfinite().all()
    assert d_scores[[0, 2]].any(1).all()


@pytest.mark.parametrize("k", [1, 2, 5, 16])
def test_exactly_k_others_left(k):
    scores, label = torch.full((1, 30), -math.inf, dtype=torch.float64), torch.tensor([29])
    scores[0, 3 : 3 + k] = random_scores(k, dtype=torch.float64)
    scores[0, 29] = 0.5
    left = torch.cat((scores[:, 3 : 3 + k], scores[:, 29:]), 1)
    loss, gradient = loss_and_gradient(scores, label, k)
    expected, expected_gradient = loss_and_gradient(left, torch.tensor([k]), k)
    assert loss > 0
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient[:, 3 : 3 + k], expected_gradient[:, :k])
    torch.testing.assert_close(gradient[:, 29:], expected_gradient[:, k:])
    assert (gradient[:, :3] == 0).all()
    assert (gradient[:, 3 + k : 29] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("column", [4, 0, 10])
def test_nan_and_infinity_spoil_their_row_only(dtype, k, bad, column):
    scores, labels = random_scores(5, 11, dtype=dtype), torch.full((5,), 4)
    clean, clean_gradient = loss_and_gradient(scores, labels, k, reduction="none")
    scores[2, column] = bad
    losses, gradient = loss_and_gradient(scores, labels, k, reduction="none")
    assert losses[2].isnan()
    assert gradient[2].isnan().all()
    rest = [0, 1, 3, 4]
    exactly_equal(losses[rest], clean[rest])
    exactly_equal(gradient[rest], clean_gradient[rest])
    assert smooth_svm(scores, labels, k).isnan()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("column", [0, 2, 9])
def test_nan_in_a_row_with_fewer_than_k_others_left(bad, column):
    scores, labels = torch.full((2, 11), -math.inf), torch.tensor([0, 0])
    scores[:, :3] = 1.0
    scores[1, column] = bad
    losses, gradient = loss_and_gradient(scores, labels, 5, reduction="none")
    assert losses[0] == 0
    assert (gradient[0] == 0).all()
    assert losses[1].isnan()
    assert gradient[1].isnan().all()


# Symmetries


@pytest.mark.parametrize("k", [1, 5, 10])
@pytest.mark.parametrize("offset", [1e4, -1e4])
@pytest.mark.parametrize("gradient", ["exact", "taylor"])
def test_offset_invariance(k, offset, gradient):
    # multiples of 1/64: adding the offset is exact in float32
    scores = (random_scores(6, 50) * 64).round() / 64
    labels = random_labels(6, n=50)
    options = {"reduction": "none", "gradient": gradient}
    loss, d_scores = loss_and_gradient(scores, labels, k, **options)
    shifted, shifted_gradient = loss_and_gradient(scores + offset, labels, k, **options)
    torch.testing.assert_close(shifted, loss, rtol=2e-7, atol=0)
    torch.testing.assert_close(shifted_gradient, d_scores, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("k", [1, 5, 10])
@pytest.mark.parametrize("gradient", ["exact", "taylor"])
def test_permutation_invariance(k, gradient):
    scores, labels = random_scores(6, 50, dtype=torch.float64), random_labels(6, n=50)
    scores[1] = scores[1].round()
    order = torch.randperm(50, generator=torch.Generator().manual_seed(5))
    options = {"reduction": "none", "gradient": gradient}
    loss, d_scores = loss_and_gradient(scores, labels, k, **options)
    permuted, permuted_gradient = loss_and_gradient(
        scores[:, order], order.argsort()[labels], k, **options
    )
    torch.testing.assert_close(permuted, loss, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(permuted_gradient, d_scores[:, order], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("k", [1, 5, 16, 40])
@pytest.mark.parametrize("n", [50, 257])
@pytest.mark.parametrize("gradient", ["exact", "taylor"])
def test_rows_do_not_influence_each_other(k, n, gradient):
    scores, labels = random_scores(33, n), random_labels(33, n=n)
    options = {"reduction": "none", "gradient": gradient}
    losses, d_scores = loss_and_gradient(scores, labels, k, **options)
    changed, changed_labels = scores.clone(), labels.clone()
    changed[3] = 1e30
    changed[5, 2] = math.nan
    changed[7, 1:] = -math.inf
    changed[9] *= 1e3
    changed[11] = 0
    changed_labels[13] = -100
    some = [i for i in range(33) if i not in (3, 5, 7, 9, 11, 13)]
    new_losses, new_gradient = loss_and_gradient(changed, changed_labels, k, **options)
    exactly_equal(new_losses[some], losses[some])
    exactly_equal(new_gradient[some], d_scores[some])


@pytest.mark.parametrize("k", [1, 5, 16, 40])
@pytest.mark.parametrize("n", [50, 257])
@pytest.mark.parametrize("gradient", ["exact", "taylor"])
def test_size_of_the_batch_matters_to_rounding_only(k, n, gradient):
    # not to the bit: PyTorch's vector instructions and what they leave over round differently
    scores, labels = random_scores(33, n), random_labels(33, n=n)
    options = {"reduction": "none", "gradient": gradient}
    losses, d_scores = loss_and_gradient(scores, labels, k, **options)
    for rows in (slice(0, 1), slice(8, 9), slice(32, 33), slice(8, 15), slice(16, 33)):
        some, some_gradient = loss_and_gradient(scores[rows], labels[rows], k, **options)
        torch.testing.assert_close(some, losses[rows], rtol=5e-7, atol=0)
        atol = 1e-6 * float(d_scores[rows].abs().max())
        torch.testing.assert_close(some_gradient, d_scores[rows], rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 2, 5, 16])
@pytest.mark.parametrize("gradient", ["exact", "taylor"])
def test_equal_scores_have_equal_gradients(dtype, k, gradient):
    labels = torch.tensor([0, 7, 20])
    scores = random_scores(3, 41, dtype=dtype).round()
    scores[1] = 2.5
    scores[2, 5:30] = 9
    _, d_scores = loss_and_gradient(scores, labels, k, reduction="none", gradient=gradient)
    for s, y, d in zip(scores, labels, d_scores, strict=True):
        others = torch.arange(41) != y
        for value in s[others].unique():
            found = d[others & (s == value)].double()
            # some of them may come from another formula
            assert found.max() - found.min() <= 4 * torch.finfo(dtype).eps * d.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 5])
def test_rows_of_the_gradient_sum_to_zero(dtype, k):
    scores, labels = random_scores(6, 50, dtype=dtype), random_labels(6, n=50)
    _, gradient = loss_and_gradient(scores, labels, k, reduction="none")
    limit = 20 * torch.finfo(dtype).eps
    assert gradient.sum(1).abs().max() < limit
    assert (gradient.gather(1, labels[:, None]) < 0).all()


def test_the_hard_loss_is_the_limit_of_a_small_tau():
    scores, labels = random_scores(6, 50), random_labels(6, n=50)
    others = scores.scatter(1, labels[:, None], -math.inf)
    pivot = others.topk(5).values[:, -1]
    hard = (1 + (pivot - scores.gather(1, labels[:, None])[:, 0]) / 5).clamp(min=0)
    loss = smooth_svm(scores, labels, 5, tau=1e-5, reduction="none")
    torch.testing.assert_close(loss, hard, rtol=0, atol=1e-4)


def test_defaults():
    scores, labels = random_scores(6, 50), random_labels(6, n=50)
    explicit = loss_and_gradient(
        scores,
        labels,
        5,
        tau=1.0,
        margin=1.0,
        weight=None,
        ignore_index=-100,
        reduction="mean",
        gradient="exact",
        order=None,
        backend="eager",
    )
    exactly_equal(loss_and_gradient(scores, labels), explicit)


@pytest.mark.parametrize(("k", "order"), [(1, 1), (4, 1), (5, 2), (10, 3), (16, 4)])
def test_default_order_of_the_series(k, order):
    scores, labels = random_scores(6, 50), random_labels(6, n=50)
    exactly_equal(
        loss_and_gradient(scores, labels, k, gradient="taylor"),
        loss_and_gradient(scores, labels, k, gradient="taylor", order=order),
    )


def test_integers_for_tau_and_margin():
    scores, labels = random_scores(6, 50), random_labels(6, n=50)
    exactly_equal(
        smooth_svm(scores, labels, tau=2, margin=0), smooth_svm(scores, labels, tau=2.0, margin=0.0)
    )


# Bad input

SCORES = torch.zeros(3, 11)
LABELS = torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"scores": [[0.0]]}, TypeError, "scores .*Tensor.* list"),
        ({"scores": SCORES.int()}, TypeError, "scores .*float16.* torch.int32"),
        ({"scores": SCORES.to(torch.complex64)}, TypeError, "scores .* torch.complex64"),
        ({"scores": torch.tensor(1.0)}, ValueError, r"scores .*\(C,\).* \(\)"),
        ({"labels": [0, 0, 0]}, TypeError, "labels .*Tensor.* list"),
        ({"labels": 0}, TypeError, "labels .*Tensor.* int"),
        ({"labels": LABELS.float()}, TypeError, "labels .*integer.* torch.float32"),
        ({"labels": LABELS.bool()}, TypeError, "labels .*integer.* torch.bool"),
        ({"labels": torch.zeros(3, 11)}, TypeError, "labels .*integer.* torch.float32"),
        ({"labels": LABELS[:2]}, ValueError, r"labels .*\(3,\).*\(3, 11\).*\(2,\)"),
        ({"labels": LABELS[:, None]}, ValueError, r"labels .*\(3,\).*\(3, 11\).*\(3, 1\)"),
        ({"labels": LABELS[0]}, ValueError, r"labels .*\(3,\).*\(3, 11\).*\(\)"),
        ({"labels": LABELS.to("meta")}, ValueError, "labels .*device.*cpu.*meta"),
        ({"k": 0}, ValueError, "k .*1 <= k < C.*k=0.*11"),
        ({"k": -3}, ValueError, "k .*1 <= k < C.*k=-3.*11"),
        ({"k": 11}, ValueError, "k .*1 <= k < C.*k=11.*11"),
        ({"k": 2.0}, TypeError, r"k .*int.*2\.0"),
        ({"k": True}, TypeError, "k .*int.*True"),
        ({"k": "5"}, TypeError, "k .*int.*'5'"),
        ({"tau": 0}, ValueError, "tau .*> 0.* 0"),
        ({"tau": -1.5}, ValueError, r"tau .*> 0.* -1\.5"),
        ({"tau": math.nan}, ValueError, "tau .*> 0.* nan"),
        ({"tau": math.inf}, ValueError, "tau .*> 0.* inf"),
        ({"tau": "hot"}, TypeError, "tau .*number.*'hot'"),
        ({"tau": None}, TypeError, "tau .*number.*None"),
        ({"margin": -0.5}, ValueError, r"margin .*>= 0.* -0\.5"),
        ({"margin": math.nan}, ValueError, "margin .*>= 0.* nan"),
        ({"margin": math.inf}, ValueError, "margin .*>= 0.* inf"),
        ({"margin": "wide"}, TypeError, "margin .*number.*'wide'"),
        ({"weight": [1.0] * 11}, TypeError, "weight .*Tensor.* list"),
        ({"weight": torch.ones(11).int()}, TypeError, "weight .*floating.* torch.int32"),
        ({"weight": torch.ones(10)}, ValueError, r"weight .*\(11,\).*\(10,\)"),
        ({"weight": torch.ones(3, 11)}, ValueError, r"weight .*\(11,\).*\(3, 11\)"),
        ({"weight": torch.ones(11, device="meta")}, ValueError, "weight .*device.*cpu.*meta"),
        ({"ignore_index": 1.0}, TypeError, r"ignore_index .*int.*1\.0"),
        ({"ignore_index": None}, TypeError, "ignore_index .*int.*None"),
        ({"reduction": "avg"}, ValueError, "reduction .*'none', 'mean', 'sum'.*'avg'"),
        ({"reduction": None}, ValueError, "reduction .*'none', 'mean', 'sum'.*None"),
        ({"gradient": "paper"}, ValueError, "gradient .*'exact', 'taylor'.*'paper'"),
        ({"backend": "cuda"}, ValueError, "backend .*'triton', 'eager'.*'cuda'"),
        ({"backend": "triton"}, ValueError, "backend='triton' .*GPU.*TRITON_INTERPRET.*cpu"),
        ({"order": 2}, ValueError, "order .*'taylor'.*order=2"),
        ({"gradient": "taylor", "order": 0}, ValueError, "order .*>= 1.* 0"),
        ({"gradient": "taylor", "order": -1}, ValueError, "order .*>= 1.* -1"),
        ({"gradient": "taylor", "order": 1.5}, TypeError, r"order .*int.*1\.5"),
        ({"gradient": "taylor", "order": True}, TypeError, "order .*int.*True"),
    ],
    ids=str,
)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_bad_arguments(arguments, error, message, requires_grad):
    scores = arguments.get("scores", SCORES)
    if requires_grad and isinstance(scores, Tensor) and scores.is_floating_point():
        scores = scores.clone().requires_grad_()
    rest = {name: value for name, value in arguments.items() if name != "scores"}
    with pytest.raises(error, match=message):
        smooth_svm(**{"scores": scores, "labels": LABELS, **rest})


def test_a_single_class():
    with pytest.raises(ValueError, match=r"k .*1 <= k < C.*k=1.*C=1"):
        smooth_svm(torch.zeros(3, 1), LABELS, 1)


@pytest.mark.parametrize("label", [11, 12, -1, -99, 2**40])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_labels_that_are_no_class(label, reduction, requires_grad, weighted):
    scores = random_scores(3, 11).requires_grad_(requires_grad)
    weight = torch.ones(11) if weighted else None
    with pytest.raises(IndexError, match=rf"labels .*\[0, 11\).*-100.* {label}$"):
        smooth_svm(scores, torch.tensor([0, label, 3]), weight=weight, reduction=reduction)


def test_minus_100_is_no_class_when_something_else_is_ignored():
    with pytest.raises(IndexError, match=r"labels .*ignore_index=-1, got -100"):
        smooth_svm(random_scores(3, 11), torch.tensor([0, -1, -100]), ignore_index=-1)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_more_classes_than_the_labels_dtype_has_values(dtype):
    scores, labels = random_scores(3, 300), torch.tensor([0, 100, 127])
    exactly_equal(loss_and_gradient(scores, labels.to(dtype)), loss_and_gradient(scores, labels))


def test_default_ignore_index_that_the_labels_dtype_cannot_hold():
    scores, labels = random_scores(3, 300), torch.tensor([0, 156, 255])
    exactly_equal(
        loss_and_gradient(scores, labels.to(torch.uint8)), loss_and_gradient(scores, labels)
    )


# The module


def test_module_is_the_function():
    scores, labels = random_scores(6, 11), torch.tensor([3, 0, 10, 0, 7, 7])
    arguments = {
        "k": 3,
        "tau": 0.5,
        "margin": 2.0,
        "weight": torch.rand(11),
        "ignore_index": 7,
        "reduction": "sum",
        "gradient": "taylor",
        "order": 3,
        "backend": "eager",
    }
    module = SmoothSVMLoss(**arguments)
    scores.requires_grad_()
    loss = module(scores, labels)
    loss.backward()
    exactly_equal((loss.detach(), scores.grad), loss_and_gradient(scores, labels, **arguments))


def test_module_defaults():
    scores, labels = random_scores(6, 11), random_labels(6, n=11)
    exactly_equal(SmoothSVMLoss()(scores, labels), smooth_svm(scores, labels))


def test_state_dict_holds_the_weight_and_nothing_else():
    weight = torch.rand(11)
    assert not SmoothSVMLoss().state_dict()
    module = SmoothSVMLoss(weight=weight)
    assert list(module.state_dict()) == ["weight"]
    assert not list(module.parameters())
    other = SmoothSVMLoss(weight=torch.zeros(11))
    other.load_state_dict(module.state_dict())
    exactly_equal(other.weight, weight)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("how", ["pickle", "deepcopy", "torch.save"])
def test_copies_of_the_module(weighted, how):
    scores, labels = random_scores(6, 11), random_labels(6, n=11)
    weight = torch.rand(11) if weighted else None
    module = SmoothSVMLoss(3, tau=0.5, margin=2.0, weight=weight, reduction="none")
    if how == "pickle":
        twin = pickle.loads(pickle.dumps(module))
    elif how == "deepcopy":
        twin = copy.deepcopy(module)
    else:
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    exactly_equal(twin(scores, labels), module(scores, labels))
    assert repr(twin) == repr(module)
    if weighted:
        assert twin.weight is not module.weight


def test_module_follows_to():
    module = SmoothSVMLoss(3, weight=torch.rand(11))
    assert module.double().weight.dtype == torch.float64
    assert module.to(torch.bfloat16).weight.dtype == torch.bfloat16
    assert module.to("meta").weight.device.type == "meta"
    assert SmoothSVMLoss(3).to("meta").weight is None


def test_repr_of_the_module():
    text = repr(SmoothSVMLoss(3, tau=0.5, margin=2.0, reduction="sum", gradient="taylor"))
    assert text == (
        "SmoothSVMLoss(k=3, tau=0.5, margin=2.0, ignore_index=-100, reduction='sum', gradient='taylor')"
    )
