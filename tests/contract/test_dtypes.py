"""Dtypes of scores, labels and weights, and mixed precision."""

from __future__ import annotations

import pytest
import torch
from losses import (
    DTYPES,
    REDUCTIONS,
    Loss,
    every_loss,
    exactly_equal,
    random_labels,
    random_scores,
)

from triton_topk.batch import class_indices

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


@every_loss
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_dtypes_of_loss_and_gradient(loss, dtype, reduction):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    scores, labels = random_scores(4, 11, dtype=dtype), random_labels(4, n=11)
    found, gradient = loss.with_gradient(scores, labels, reduction=reduction)
    assert found.dtype == wide
    assert gradient.dtype == dtype
    # all arithmetic is in the wide dtype: the loss is that of the converted scores
    expected, wide_gradient = loss.with_gradient(scores.to(wide), labels, reduction=reduction)
    exactly_equal(found, expected)
    torch.testing.assert_close(gradient, wide_gradient.to(dtype))


@every_loss
@pytest.mark.parametrize("weight_dtype", DTYPES)
def test_weight_of_another_dtype(loss, weight_dtype):
    scores, labels = random_scores(4, 11), random_labels(4, n=11)
    weight = (torch.arange(11) / 4).to(weight_dtype)
    exactly_equal(
        loss.with_gradient(scores, labels, weight=weight),
        loss.with_gradient(scores, labels, weight=weight.float()),
    )


# Labels


@every_loss
@pytest.mark.parametrize("dtype", INTEGER_DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_labels_of_every_integer_dtype(loss, dtype, reduction):
    scores, labels = random_scores(5, 11), random_labels(5, n=11)
    expected = loss.with_gradient(scores, labels, reduction=reduction)
    exactly_equal(loss.with_gradient(scores, labels.to(dtype), reduction=reduction), expected)


@every_loss
@pytest.mark.parametrize("dtype", INTEGER_DTYPES)
def test_ignore_index_that_fits_the_labels_dtype(loss, dtype):
    scores, labels = random_scores(5, 11), torch.tensor([1, 7, 3, 7, 0])
    expected, expected_gradient = loss.with_gradient(scores[[0, 2, 4]], labels[[0, 2, 4]])
    found, gradient = loss.with_gradient(scores, labels.to(dtype), ignore_index=7)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient[[0, 2, 4]], expected_gradient)
    assert not gradient[[1, 3]].any()


@every_loss
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_more_classes_than_the_labels_dtype_has_values(loss, dtype):
    scores, labels = random_scores(3, 300), torch.tensor([0, 100, 127])
    expected = loss.with_gradient(scores, labels)
    exactly_equal(loss.with_gradient(scores, labels.to(dtype)), expected)


@every_loss
def test_default_ignore_index_that_the_labels_dtype_cannot_hold(loss):
    # 156 is -100 in 8 bits
    scores, labels = random_scores(3, 300), torch.tensor([0, 156, 255])
    expected = loss.with_gradient(scores, labels)
    exactly_equal(loss.with_gradient(scores, labels.to(torch.uint8)), expected)


@pytest.mark.parametrize("dtype", INTEGER_DTYPES)
def test_a_label_is_ignored_where_it_is_the_number_that_ignore_index_is(dtype):
    """Not where it has the same bits in another integer dtype."""
    loss, scores = Loss("lq_loss"), random_scores(2, 11)
    ends = torch.iinfo(dtype)
    for label in (ends.min, ends.max, ends.max - 99, ends.max // 2 + 1):
        if label in range(11):
            continue
        labels = torch.tensor([4, label], dtype=dtype)
        for bits in (8, 16, 32, 64):
            wrapped = (label + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
            for ignore_index in (label, wrapped, label % 2**bits, -100, -1, 2**63 - 1):
                if not -(2**63) <= ignore_index < 2**63:
                    continue
                if ignore_index == label:
                    found = loss(scores, labels, ignore_index=ignore_index)
                    exactly_equal(found, loss(scores[:1], labels[:1]))
                else:
                    with pytest.raises(IndexError, match=rf"^labels .*={ignore_index}, got"):
                        loss(scores, labels, ignore_index=ignore_index)


@pytest.mark.parametrize("ignore_index", [-100, -1, -(2**63), 2**63 - 1, 0])
def test_a_label_beyond_int64_is_no_class_and_not_ignored_in_int64(ignore_index):
    # as on a GPU, where it is no error but a row of NaN
    labels = torch.tensor([2**64 - 100, 2**64 - 1, 2**63, 3, 2**63 - 1], dtype=torch.uint64)
    indices = class_indices(labels, ignore_index)
    assert indices.dtype == torch.int64
    assert indices[3:].tolist() == [3, 2**63 - 1]
    assert (indices[:3] >= 2**62).all()
    assert (indices[:3] != ignore_index).all()


# Mixed precision


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_autocast(loss, reduction):
    torch.manual_seed(0)
    model, x, labels = torch.nn.Linear(8, 11), torch.randn(5, 8), random_labels(5, n=11)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = model(x)
        found = loss(scores, labels, reduction=reduction)
    assert scores.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    exactly_equal(found.detach(), loss(scores.detach(), labels, reduction=reduction))
    found.sum().backward()
    actual = model.weight.grad.clone()
    model.zero_grad()
    loss(model(x), labels, reduction=reduction).sum().backward()
    torch.testing.assert_close(actual, model.weight.grad, rtol=0.05, atol=0.02)


# not the hard loss, whose gradient is 1/k or 0
@pytest.mark.parametrize(
    ("loss", "spread"),
    [
        (Loss("smooth_svm", k=5), 8),
        (Loss("lq_loss", q=0.1), 2),
        (Loss("smooth_svm_lq", k=5, q=0.7), 8),
    ],
    ids=str,
)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_small_float16_gradients_survive_in_a_scaled_loss(loss, spread, reduction):
    scores = (spread * random_scores(64, 1000)).half()
    labels = random_labels(64, n=1000)
    scale = 65536.0 if reduction == "mean" else 1024.0
    truth = scores.double().requires_grad_()
    loss(truth, labels, reduction=reduction).sum().backward()
    tiny = torch.finfo(torch.float16).smallest_normal
    rescued = (truth.grad.abs() < tiny / 64) & (truth.grad.abs() * scale > tiny)
    assert rescued.sum() > 1000

    scores.requires_grad_()
    (scale * loss(scores, labels, reduction=reduction).sum()).backward()
    gradient = scores.grad.double() / scale
    torch.testing.assert_close(gradient[rescued], truth.grad[rescued], rtol=1e-3, atol=0)
