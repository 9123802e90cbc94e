"""Defaults of the losses' options, and what some of their values mean."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from losses import (
    MODULES,
    Loss,
    exactly_equal,
    random_labels,
    random_scores,
)

import triton_topk

COMMON = {"weight": None, "ignore_index": -100, "reduction": "mean", "backend": None}
DEFAULTS = {
    "smooth_svm": {"k": 5, "tau": 1.0, "margin": 1.0, "gradient": "exact", "order": None},
    "hard_svm": {"k": 5, "margin": 1.0},
    "lq_loss": {"q": 0.7, "truncation": None},
    "smooth_svm_lq": {
        "k": 5,
        "q": 0.7,
        "mix": 0.5,
        "tau": 1.0,
        "margin": 1.0,
        "truncation": None,
        "gradient": "exact",
        "order": None,
    },
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults(name):
    scores, labels = random_scores(6, 50), random_labels(6, n=50)
    loss = Loss(name)
    explicit = loss.with_gradient(scores, labels, **DEFAULTS[name], **COMMON)
    exactly_equal(loss.with_gradient(scores, labels), explicit)
    exactly_equal(MODULES[name]()(scores, labels), explicit[0])


def test_positional_arguments():
    scores, labels = random_scores(6, 11), random_labels(6, n=11)
    smooth, lq = triton_topk.smooth_svm(scores, labels, 3), triton_topk.lq_loss(scores, labels, 0.2)
    exactly_equal(smooth, triton_topk.smooth_svm(scores, labels, k=3))
    exactly_equal(lq, triton_topk.lq_loss(scores, labels, q=0.2))
    exactly_equal(
        triton_topk.hard_svm(scores, labels, 3), triton_topk.hard_svm(scores, labels, k=3)
    )
    mixture = triton_topk.smooth_svm_lq(scores, labels, 3, 0.2, mix=0.25)
    torch.testing.assert_close(mixture, 0.25 * smooth + 0.75 * lq)


@pytest.mark.parametrize(("k", "order"), [(1, 1), (4, 1), (5, 2), (10, 3), (16, 4)])
def test_default_order_of_the_series(k, order):
    scores, labels = random_scores(6, 50), random_labels(6, n=50)
    for name in ("smooth_svm", "smooth_svm_lq"):
        loss = Loss(name, k=k, gradient="taylor")
        exactly_equal(
            loss.with_gradient(scores, labels), loss.with_gradient(scores, labels, order=order)
        )


def test_a_series_of_so_many_terms_that_the_polynomials_are_out_of_range_is_exact():
    scores, labels = 3 * random_scores(6, 2100), random_labels(6, n=2100)
    scores[1, :300] = 9.0
    expected = Loss("smooth_svm", k=5).with_gradient(scores, labels)
    found = Loss("smooth_svm", k=5, gradient="taylor", order=1000).with_gradient(scores, labels)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_the_order_of_a_mixture_is_that_of_its_smooth_part():
    # so far apart that the series is needed
    scores, labels = 20 * random_scores(6, 50, dtype=torch.float64), random_labels(6, n=50)
    options = {"k": 5, "gradient": "taylor"}
    gradients = []
    for order in (1, 2, 4):
        svm = Loss("smooth_svm", order=order, **options).with_gradient(scores, labels)
        lq = Loss("lq_loss").with_gradient(scores, labels)
        expected = [0.25 * of_svm + 0.75 * of_lq for of_svm, of_lq in zip(svm, lq, strict=True)]
        mixture = Loss("smooth_svm_lq", order=order, mix=0.25, **options)
        found = mixture.with_gradient(scores, labels)
        torch.testing.assert_close(found, tuple(expected))
        gradients.append(found[1])
    for one, other in itertools.pairwise(gradients):
        assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("smooth_svm", {"tau": 2, "margin": 0}),
        ("smooth_svm", {"tau": Fraction(1, 2), "margin": Fraction(3, 4)}),
        ("hard_svm", {"margin": 0}),
        ("hard_svm", {"margin": Fraction(3, 4)}),
        ("lq_loss", {"q": 0}),
        ("lq_loss", {"q": 1}),
        ("lq_loss", {"q": Fraction(1, 2), "truncation": Fraction(1, 32)}),
        ("smooth_svm_lq", {"q": 0, "mix": 1, "tau": 2, "margin": 0}),
        ("smooth_svm_lq", {"q": 1, "mix": 0, "tau": 2, "margin": 0}),
        ("smooth_svm_lq", {"mix": Fraction(1, 4), "truncation": Fraction(1, 32)}),
    ],
    ids=str,
)
def test_numbers_of_any_type(name, options):
    scores, labels = random_scores(6, 50), random_labels(6, n=50)
    loss = Loss(name)
    floats = {option: float(value) for option, value in options.items()}
    exactly_equal(
        loss.with_gradient(scores, labels, **options), loss.with_gradient(scores, labels, **floats)
    )


class Index:
    """An integer of a type that nobody has heard of."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


INTEGERS = {
    "smooth_svm": {"k": 3, "gradient": "taylor", "order": 2, "ignore_index": 7},
    "hard_svm": {"k": 3, "ignore_index": 7},
    "lq_loss": {"k": 3, "return_topk_hits": True, "ignore_index": 7},
    "smooth_svm_lq": {"k": 3, "gradient": "taylor", "order": 2, "ignore_index": 7},
}


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.array, Index])
def test_integers_of_any_type(name: str, kind: Any) -> None:
    scores, labels = random_scores(6, 50), torch.tensor([7, 0, 49, 7, 3, 3])
    of_ints = INTEGERS[name]
    given = {
        option: kind(value) if type(value) is int else value for option, value in of_ints.items()
    }
    expected = Loss(name)(scores, labels, **of_ints)
    exactly_equal(Loss(name)(scores, labels, **given), expected)
    module = Loss(name).module(**given)
    assert repr(module) == repr(Loss(name).module(**of_ints))
    exactly_equal(module(scores, labels), expected)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_numbers_of_numpy(kind: Any) -> None:
    scores, labels = random_scores(6, 50), random_labels(6, n=50)
    options = {"tau": 0.5, "margin": 2.0, "q": 0.25, "mix": 0.75, "truncation": 0.03125}
    given = {option: kind(value) for option, value in options.items()}
    loss = Loss("smooth_svm_lq")
    exactly_equal(
        loss.with_gradient(scores, labels, **given), loss.with_gradient(scores, labels, **options)
    )


# Special cases, by formulas of their own


def test_the_hard_loss_is_the_limit_of_a_small_tau():
    scores, labels = random_scores(6, 50), random_labels(6, n=50)
    others = scores.scatter(1, labels[:, None], -math.inf)
    pivot = others.topk(5).values[:, -1]
    hard = (1 + (pivot - scores.gather(1, labels[:, None])[:, 0]) / 5).clamp(min=0)
    torch.testing.assert_close(triton_topk.hard_svm(scores, labels, 5, reduction="none"), hard)
    smooth = triton_topk.smooth_svm(scores, labels, 5, tau=1e-5, reduction="none")
    torch.testing.assert_close(smooth, hard, rtol=0, atol=1e-4)


@pytest.mark.parametrize("q", [0.1, 0.7, 1.0])
def test_lq_of_the_softmax(q):
    scores = random_scores(6, 11, dtype=torch.float64).requires_grad_()
    labels = random_labels(6, n=11)
    p = scores.softmax(1).gather(1, labels[:, None])[:, 0]
    (expected_gradient,) = torch.autograd.grad(((1 - p**q) / q).sum(), scores)
    found, gradient = Loss("lq_loss", q=q).with_gradient(scores, labels, reduction="none")
    torch.testing.assert_close(found, ((1 - p**q) / q).detach())
    torch.testing.assert_close(gradient, expected_gradient)


def test_truncation_takes_the_gradient_of_improbable_labels():
    scores, labels = random_scores(20, 11, dtype=torch.float64), random_labels(20, n=11)
    p = scores.softmax(1).gather(1, labels[:, None])[:, 0]
    cut = p <= 0.05
    assert 0 < cut.sum() < 20
    loss = Loss("lq_loss", q=0.7)
    expected, expected_gradient = loss.with_gradient(scores, labels, reduction="none")
    constant = torch.tensor((1 - 0.05**0.7) / 0.7, dtype=torch.float64)
    found, gradient = loss.with_gradient(scores, labels, reduction="none", truncation=0.05)
    torch.testing.assert_close(found, torch.where(cut, constant, expected))
    exactly_equal(gradient, torch.where(cut[:, None], 0, expected_gradient))
