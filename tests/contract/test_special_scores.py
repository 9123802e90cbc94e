"""Masked classes, NaN and infinity."""

from __future__ import annotations

import math

import pytest
import torch
from losses import DTYPES, Loss, each, exactly_equal, random_scores, variants


@each(variants(1, 3))
def test_minus_infinity_takes_a_class_away(loss):
    scores, labels = random_scores(4, 11, dtype=torch.float64), torch.tensor([0, 4, 5, 10])
    scores[:, [2, 7]] = -math.inf
    kept = [i for i in range(11) if i not in (2, 7)]
    there = torch.tensor([kept.index(y) for y in labels.tolist()])
    found, gradient = loss.with_gradient(scores, labels, reduction="none")
    expected, expected_gradient = loss.with_gradient(scores[:, kept], there, reduction="none")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient[:, kept], expected_gradient)
    assert (gradient[:, [2, 7]] == 0).all()


@pytest.mark.parametrize(("offset", "tau"), [(0.0, 1e37), (-1e38, 1.0)])
@pytest.mark.parametrize("k", [6, 16, 60])
@pytest.mark.parametrize("gradient", ["exact", "taylor"])
def test_a_masked_class_has_no_weight_at_any_tau_and_offset(k, gradient, offset, tau):
    # k others are left, fewer than the backends treat one by one
    scores = torch.full((3, 2 * k), -math.inf)
    scores[:, : k + 1] = offset + torch.randn(3, k + 1)
    labels = torch.tensor([0, 2, k])
    loss = Loss("smooth_svm", k=k, tau=tau, gradient=gradient)
    found, of_all = loss.with_gradient(scores, labels, reduction="none")
    expected, of_left = loss.with_gradient(scores[:, : k + 1], labels, reduction="none")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(of_all[:, : k + 1], of_left)
    assert (of_all[:, k + 1 :] == 0).all()


@pytest.mark.parametrize("tau", [1e-37, 1e-3, 1.0])
@pytest.mark.parametrize("k", [1, 2, 60])
def test_a_loss_in_range_whose_share_of_tau_is_not(k, tau):
    scores = torch.zeros(1, 2 * k + 1)
    scores[0, 1 : k + 1] = 3e38
    loss = Loss("smooth_svm", k=k, tau=tau)
    found, gradient = loss.with_gradient(scores, torch.tensor([0]), reduction="none")
    torch.testing.assert_close(found, scores[:, 1] / k)
    assert gradient[0, 0] == -1 / torch.tensor(k)


# loss, its value and its derivative by the label's score
LABEL_MASKED = [
    *((Loss("smooth_svm", k=k), math.inf, -1 / k) for k in (1, 3, 6)),
    *((Loss("hard_svm", k=k), math.inf, -1 / k) for k in (1, 3, 6)),
    (Loss("lq_loss", q=0.0), math.inf, -1),
    (Loss("lq_loss", q=0.7), 1 / 0.7, 0),
    (Loss("lq_loss", q=1.0), 1, 0),
    (Loss("lq_loss", q=0.0, truncation=0.2), -math.log(0.2), 0),
    (Loss("lq_loss", q=0.7, truncation=0.2), (1 - 0.2**0.7) / 0.7, 0),
    (Loss("smooth_svm_lq", k=3, q=0.7, mix=0.4), math.inf, -0.4 / 3),
    (Loss("smooth_svm_lq", k=3, q=0.0, mix=0.4), math.inf, -0.4 / 3 - 0.6),
    (Loss("smooth_svm_lq", k=3, q=0.0, mix=0.4, truncation=0.2), math.inf, -0.4 / 3),
    (Loss("smooth_svm_lq", k=3, q=0.7, mix=0.0), 1 / 0.7, 0),
    (Loss("smooth_svm_lq", k=3, q=0.0, mix=1.0), math.inf, -1 / 3),
]


@pytest.mark.parametrize(("loss", "value", "derivative"), LABEL_MASKED, ids=str)
def test_minus_infinity_for_the_label(loss, value, derivative):
    scores, labels = random_scores(3, 11), torch.tensor([4, 4, 4])
    scores[1, 4] = -math.inf
    found, gradient = loss.with_gradient(scores, labels, reduction="none")
    torch.testing.assert_close(found[1], torch.tensor(float(value)), rtol=1e-6, atol=0)
    exactly_equal(found[[0, 2]], loss(scores[[0, 2]], labels[[0, 2]], reduction="none"))
    assert gradient.isfinite().all()
    torch.testing.assert_close(gradient[1, 4], torch.tensor(float(derivative)))
    torch.testing.assert_close(gradient[1].sum(), torch.tensor(0.0), rtol=0, atol=1e-6)
    if derivative == 0:
        assert not gradient[1].any()


@pytest.mark.parametrize("k", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("smooth_svm", {}),
        ("smooth_svm", {"gradient": "taylor"}),
        ("hard_svm", {}),
        ("smooth_svm_lq", {"mix": 1}),
        ("smooth_svm_lq", {"mix": 1, "gradient": "taylor"}),
    ],
    ids=str,
)
def test_fewer_than_k_others_left(name, options, k):
    scores, labels = random_scores(3, 11), torch.tensor([4, 4, 4])
    scores[1] = -math.inf
    scores[1, : k - 1] = 5.0
    scores[1, 4 if k <= 4 else 10] = 1.0
    labels[1] = 4 if k <= 4 else 10
    found, gradient = Loss(name, k=k, **options).with_gradient(scores, labels, reduction="none")
    assert found[1] == 0
    assert (gradient[1] == 0).all()
    assert found[[0, 2]].isfinite().all()
    assert gradient[[0, 2]].any(1).all()


@pytest.mark.parametrize("gradient", ["exact", "taylor"])
@pytest.mark.parametrize("q", [0.0, 0.7])
def test_fewer_than_k_others_left_leave_lq(q, gradient):
    scores, labels = torch.full((1, 11), -math.inf), torch.tensor([4])
    scores[0, :5] = random_scores(5)
    mixture = Loss("smooth_svm_lq", k=5, q=q, mix=0.25, gradient=gradient)
    found, d_scores = mixture.with_gradient(scores, labels)
    lq, lq_gradient = Loss("lq_loss", q=q).with_gradient(scores, labels)
    torch.testing.assert_close(found, 0.75 * lq)
    torch.testing.assert_close(d_scores, 0.75 * lq_gradient)


@each([loss for loss in variants(1, 3, 7) if "k" in loss.options])
def test_fewer_than_k_others_left_and_the_label_masked(loss):
    k = loss.options["k"]
    scores, labels = random_scores(3, 11), torch.tensor([4, 10, 4])
    scores[1] = -math.inf
    scores[1, : k - 1] = 5.0
    found, gradient = loss.with_gradient(scores, labels, reduction="none")
    assert found.isnan().tolist() == [False, True, False]
    assert gradient[1].isnan().all()
    assert gradient[[0, 2]].isfinite().all()


@each(variants(1, 5))
def test_no_class_left(loss):
    scores, labels = torch.full((3, 11), -math.inf), torch.tensor([4, 4, -100])
    scores[0] = random_scores(11)
    found, gradient = loss.with_gradient(scores, labels, reduction="none")
    assert found.isnan().tolist() == [False, True, False]
    assert gradient.isnan().tolist() == [[False] * 11, [True] * 11, [False] * 11]


@each(variants(1, 2, 5, 16))
def test_exactly_k_others_left(loss):
    k = loss.options.get("k", 5)
    scores, label = torch.full((1, 30), -math.inf, dtype=torch.float64), torch.tensor([29])
    scores[0, 3 : 3 + k] = random_scores(k, dtype=torch.float64)
    scores[0, 29] = 0.5
    left = torch.cat((scores[:, 3 : 3 + k], scores[:, 29:]), 1)
    found, gradient = loss.with_gradient(scores, label)
    expected, expected_gradient = loss.with_gradient(left, torch.tensor([k]))
    assert found > 0
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient[:, 3 : 3 + k], expected_gradient[:, :k])
    torch.testing.assert_close(gradient[:, 29:], expected_gradient[:, k:])
    assert (gradient[:, :3] == 0).all()
    assert (gradient[:, 3 + k : 29] == 0).all()


@pytest.mark.exhaustive(one_in=5)
@each(variants(1, 3, 10))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("column", [4, 0, 10])
def test_nan_and_infinity_spoil_their_row_only(loss, dtype, bad, column):
    scores, labels = random_scores(5, 11, dtype=dtype), torch.full((5,), 4)
    clean, clean_gradient = loss.with_gradient(scores, labels, reduction="none")
    scores[2, column] = bad
    found, gradient = loss.with_gradient(scores, labels, reduction="none")
    assert found[2].isnan()
    assert gradient[2].isnan().all()
    rest = [0, 1, 3, 4]
    exactly_equal(found[rest], clean[rest])
    exactly_equal(gradient[rest], clean_gradient[rest])
    assert loss(scores, labels).isnan()


@each([Loss("smooth_svm", k=k) for k in (50, 51, 128, 129, 257)])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("column", [4, 0])
def test_nan_and_infinity_spoil_their_row_at_any_k(loss, bad, column):
    scores, labels = random_scores(3, 300), torch.full((3,), 4)
    scores[1, column] = bad
    found, gradient = loss.with_gradient(scores, labels, reduction="none")
    assert found.isnan().tolist() == [False, True, False]
    assert gradient.isnan().all(1).tolist() == [False, True, False]
    assert gradient[::2].isfinite().all()


@each(variants(5))
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("column", [0, 2, 9])
def test_nan_in_a_row_of_few_classes(loss, bad, column):
    # fewer than k others: the top-k losses are 0
    scores, labels = torch.full((2, 11), -math.inf), torch.tensor([0, 0])
    scores[:, :3] = 1.0
    clean, clean_gradient = loss.with_gradient(scores, labels, reduction="none")
    assert clean.isfinite().all()
    scores[1, column] = bad
    found, gradient = loss.with_gradient(scores, labels, reduction="none")
    exactly_equal(found[0], clean[0])
    exactly_equal(gradient[0], clean_gradient[0])
    assert found[1].isnan()
    assert gradient[1].isnan().all()
