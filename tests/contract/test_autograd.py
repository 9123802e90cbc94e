"""First derivatives, and what may be done with a loss and its gradient."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from losses import (
    DTYPES,
    REDUCTIONS,
    Loss,
    each,
    every_loss,
    exactly_equal,
    one_of_each,
    random_labels,
    random_scores,
)

from triton_topk import backends, ops
from triton_topk.backends import Backend
from triton_topk.losses import Lq

poisoned = pytest.mark.usefixtures("poison")


@poisoned
def test_the_poison_works():
    scores = torch.zeros(3, 11)
    losses, _, gradient = ops._new_losses_with_gradient(Lq(0.7), scores)
    assert losses.isnan().all()
    assert gradient.isnan().all()
    assert not torch.empty(0).isnan().any()


OF_EVERY_SIZE = [
    *(
        (Loss(name, k=k, **options), n)
        for name, options in (
            ("smooth_svm", {"gradient": "exact"}),
            ("smooth_svm", {"gradient": "taylor"}),
            ("hard_svm", {}),
            ("smooth_svm_lq", {}),
        )
        for k, n in ((1, 2), (3, 4), (5, 21), (5, 64), (33, 70), (260, 300))
    ),
    *((Loss("lq_loss", truncation=t), n) for t in (None, 0.3) for n in (1, 2, 21, 300)),
]


@pytest.mark.exhaustive(one_in=5)
@poisoned
@pytest.mark.parametrize(("loss", "n"), OF_EVERY_SIZE, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_every_output_is_written(loss, n, dtype, reduction):
    scores = random_scores(5, n, dtype=dtype)
    scores[3, 1:] = -float("inf")
    labels = torch.tensor([0, min(1, n - 1), -100, 0, 0])
    for layout in (scores, scores.t().contiguous().t()):
        leaf = layout.detach().requires_grad_()
        found = loss(leaf, labels, reduction=reduction)
        found.sum().backward()
        assert not found.isnan().any()
        assert not leaf.grad.isnan().any()
        without = loss(leaf.detach(), labels, reduction=reduction)
        torch.testing.assert_close(without, found.detach())


# First derivatives

SMOOTH = {"tau": 0.8, "margin": 0.7}
DIFFERENTIABLE = [
    *(
        (Loss("smooth_svm", k=k, **SMOOTH), n)
        for k, n in ((1, 2), (1, 9), (2, 3), (3, 12), (5, 6), (5, 20), (12, 30))
    ),
    *((Loss("hard_svm", k=k, margin=0.7), n) for k, n in ((1, 2), (3, 9))),
    *((Loss("lq_loss", q=q), 9) for q in (0.0, 0.7, 1.0)),
    (Loss("lq_loss", q=0.7, truncation=0.02), 9),
    (Loss("smooth_svm_lq", k=1, mix=0.3, **SMOOTH), 2),
    (Loss("smooth_svm_lq", k=3, mix=0.3, **SMOOTH), 9),
]


@pytest.mark.exhaustive(one_in=3)
@poisoned
@pytest.mark.parametrize(("loss", "n"), DIFFERENTIABLE, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_gradcheck(loss, n, reduction, weighted):
    scores = random_scores(4, n, dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, n - 1, -100, n // 2])
    weight = torch.linspace(0.5, 2, n, dtype=torch.float64) if weighted else None
    assert torch.autograd.gradcheck(
        lambda s: loss(s, labels, weight=weight, reduction=reduction), scores
    )


@every_loss
@pytest.mark.parametrize("shape", [(9,), (3, 9, 2)])
def test_gradcheck_of_other_shapes(loss, shape):
    scores = random_scores(*shape, dtype=torch.float64).requires_grad_()
    labels = torch.tensor(4) if len(shape) == 1 else random_labels(3, 2, n=9)
    assert torch.autograd.gradcheck(lambda s: loss(s, labels, reduction="none"), scores)


@each([Loss("smooth_svm", k=3, gradient="taylor", order=9)])
def test_gradcheck_of_a_long_series(loss):
    scores = random_scores(4, 12, dtype=torch.float64).requires_grad_()
    labels = random_labels(4, n=12)
    assert torch.autograd.gradcheck(lambda s: loss(s, labels, reduction="none"), scores)


@every_loss
def test_gradcheck_of_column_major_and_expanded_scores(loss):
    labels = random_labels(4, n=9)
    columns = random_scores(9, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s.t(), labels), columns)
    row = random_scores(1, 9, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s.expand(4, 9), labels), row)


# What is done with the gradient


@poisoned
@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_scaled_loss(loss, dtype, reduction):
    scores, labels = random_scores(5, 11, dtype=dtype), random_labels(5, n=11)
    a, b = scores.clone().requires_grad_(), scores.double().requires_grad_()
    (-3.5 * loss(a, labels, reduction=reduction)).backward()
    loss(b, labels, reduction=reduction).backward()
    torch.testing.assert_close(a.grad, (-3.5 * b.grad).to(dtype))


@poisoned
@every_loss
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_backward_again(loss, dtype, reduction, weighted):
    scores = random_scores(5, 11, dtype=dtype).requires_grad_()
    labels = torch.tensor([0, -100, 10, 4, 4])
    weight = torch.linspace(0.5, 2, 11) if weighted else None
    found = loss(scores, labels, weight=weight, reduction=reduction)
    (first,) = torch.autograd.grad(found, scores, torch.full_like(found, 2), retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(found, scores, torch.full_like(found, -4), retain_graph=True)
    (third,) = torch.autograd.grad(found, scores)
    exactly_equal(first, kept)
    torch.testing.assert_close(second, -2 * kept)
    torch.testing.assert_close(third, kept / 2)


@every_loss
def test_backward_again_accumulates(loss):
    scores, labels = random_scores(5, 11).requires_grad_(), random_labels(5, n=11)
    found = loss(scores, labels)
    found.backward(retain_graph=True)
    once = scores.grad.clone()
    found.backward(retain_graph=True)
    torch.testing.assert_close(scores.grad, 2 * once)
    found.backward()
    torch.testing.assert_close(scores.grad, 3 * once)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_backward_again_without_retain_graph(loss, reduction):
    scores, labels = random_scores(5, 11).requires_grad_(), random_labels(5, n=11)
    found = loss(scores, labels, reduction=reduction).sum()
    found.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        found.backward()


@every_loss
def test_scores_changed_before_the_gradient_is_recomputed(loss):
    leaf, labels = random_scores(5, 11).requires_grad_(), random_labels(5, n=11)
    scores = leaf * 1
    found = loss(scores, labels, reduction="none").sum()
    scores.detach().mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.backward()


@poisoned
@each([*one_of_each(1), *one_of_each(5)])
def test_any_upstream_gradient_of_the_losses(loss):
    scores, labels = random_scores(5, 11), torch.tensor([0, -100, 10, 4, 4])
    _, rows = loss.with_gradient(scores, labels, reduction="sum")
    for upstream in (random_scores(5, seed=7), random_scores(10, seed=8)[::2], torch.zeros(5)):
        leaf = scores.clone().requires_grad_()
        loss(leaf, labels, reduction="none").backward(upstream)
        torch.testing.assert_close(leaf.grad, upstream[:, None] * rows)


@every_loss
def test_accumulation_over_parts_of_a_batch(loss):
    scores, labels = random_scores(8, 11), random_labels(8, n=11)
    torch.manual_seed(0)
    model = torch.nn.Linear(11, 11)
    loss(model(scores), labels).backward()
    whole = model.weight.grad.clone()
    model.zero_grad()
    for part in (slice(0, 3), slice(3, 4), slice(4, 8)):
        size = part.stop - part.start
        (loss(model(scores[part]), labels[part]) * size / 8).backward()
    torch.testing.assert_close(model.weight.grad, whole)


def test_several_losses_of_the_same_scores():
    scores, labels = random_scores(5, 11).requires_grad_(), random_labels(5, n=11)
    terms = [
        (loss, reduction) for loss in (*one_of_each(1), *one_of_each(5)) for reduction in REDUCTIONS
    ]
    gradients = [
        loss.with_gradient(scores, labels, reduction=reduction)[1] for loss, reduction in terms
    ]
    total = sum(loss(scores, labels, reduction=reduction).sum() for loss, reduction in terms)
    total.backward()
    torch.testing.assert_close(scores.grad, sum(gradients))


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_gradient_is_computed_where_none_is_wanted(loss, reduction, mode, monkeypatch):
    wanted = []

    def spy(backend: Backend) -> Backend:
        def run(*args: Any, **kwargs: Any) -> None:
            wanted.append(kwargs.get("gradient") is not None)
            backend.run(*args, **kwargs)

        return SimpleNamespace(name=backend.name, obstacle=backend.obstacle, run=run)

    monkeypatch.setattr(backends, "BACKENDS", [spy(backend) for backend in backends.BACKENDS])
    scores, labels = random_scores(5, 11), random_labels(5, n=11)
    expected = loss(scores, labels, reduction=reduction)
    scores.requires_grad_()
    with mode():
        found = loss(scores, labels, reduction=reduction)
    assert not expected.requires_grad
    assert not found.requires_grad
    assert wanted == [False, False]
    torch.testing.assert_close(found.clone(), expected)


@poisoned
@every_loss
def test_inference_tensors(loss):
    with torch.inference_mode():
        scores, labels = random_scores(5, 11), random_labels(5, n=11)
        found = loss(scores, labels)
    torch.testing.assert_close(found.clone(), loss(scores.clone(), labels.clone()))
