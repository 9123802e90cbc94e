"""Weights of samples, by themselves and beside those of classes."""

from __future__ import annotations

import math
import re
from functools import partial
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
    variants,
)
from torch import Tensor
from torch.func import grad, vmap
from torch.nn import functional as F

from triton_topk import eager, lq_loss, reference
from triton_topk.nn import TruncatedLqLoss

N, C = 6, 11
LABELS = torch.tensor([3, -100, 10, 0, 7, 7])
COUNTED = LABELS != -100
WEIGHT = torch.linspace(0.5, 2, C, dtype=torch.float64)
OF_SAMPLES = torch.tensor([0.25, 3.0, 1.0, 0.0, 2.0, 0.5], dtype=torch.float64).unsqueeze(1)
SHAPES = [(C,), (N, C), (C, C), (2, C, 3, 4), (1, C, 2), (0, C)]
DEFINED = each([*one_of_each(3), Loss("smooth_svm", k=1, tau=0.5), Loss("lq_loss", truncation=0.1)])


def weights_like(scores: Tensor) -> Tensor:
    """Return weights of the samples of scores."""
    shape = list(scores.shape)
    shape[min(1, scores.dim() - 1)] = 1
    generator = torch.Generator().manual_seed(2)
    return torch.randint(1, 5, shape, generator=generator).double() / 2


def by_definition(
    loss: Loss, scores: Tensor, labels: Tensor, weights: Tensor, reduction: str
) -> tuple[Tensor, Tensor]:
    """Return the loss and the gradient of its sum, in float64, of labels of which -100 is ignored.

    The weights have the shape of the labels.
    """
    leaf = scores.double().requires_grad_()
    rows = leaf.movedim(min(1, leaf.dim() - 1), -1).reshape(-1, C)
    definition = getattr(reference, loss.name)
    options = {"q": 0.7} | loss.options if "lq" in loss.name else loss.options
    losses = definition(rows, labels.reshape(-1).clamp(min=0), **options).reshape(labels.shape)
    weights = torch.where(labels != -100, weights, 0)
    out = losses * weights
    if reduction != "none":
        out = out.sum()
    if reduction == "mean":
        out = out / weights.sum()
    (gradient,) = torch.autograd.grad(out.sum(), leaf)
    return out.detach(), gradient


def same(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for x, y in zip(found, expected, strict=True):
        narrow = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float32: 2e-5}
        tolerance = narrow.get(x.dtype, 1e-11)
        torch.testing.assert_close(
            x.double(), y, rtol=tolerance, atol=tolerance / 10, equal_nan=True
        )


@pytest.mark.exhaustive(one_in=3)
@DEFINED
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_factor_for_the_loss_of_each_sample(
    loss: Loss, reduction: str, shape: tuple[int, ...]
) -> None:
    scores = random_scores(*shape, dtype=torch.float64)
    weights = weights_like(scores)
    labels = random_labels(*weights.shape, n=C).squeeze(min(1, len(shape) - 1))
    if labels.numel() > 1:
        labels.view(-1)[1] = -100
    found = loss.with_gradient(scores, labels, weight=weights, reduction=reduction)
    of_labels = weights.reshape(labels.shape)
    same(found, by_definition(loss, scores, labels, of_labels, reduction))
    both = loss.with_gradient(scores, labels, weight=(WEIGHT, weights), reduction=reduction)
    of_labels = of_labels * WEIGHT[labels.clamp(min=0)]
    same(both, by_definition(loss, scores, labels, of_labels, reduction))


@each(variants(1, 5))
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_tuple_is_the_product(loss: Loss, reduction: str) -> None:
    scores = random_scores(N, C)
    product = OF_SAMPLES * WEIGHT[LABELS.clamp(min=0)].unsqueeze(1)
    found = loss.with_gradient(scores, LABELS, weight=(WEIGHT, OF_SAMPLES), reduction=reduction)
    expected = loss.with_gradient(scores, LABELS, weight=product, reduction=reduction)
    torch.testing.assert_close(found, expected)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_either_of_the_two_may_be_none(loss: Loss, reduction: str) -> None:
    scores = random_scores(N, C)
    for weight, same_weight in (
        ((None, None), None),
        ((WEIGHT, None), WEIGHT),
        ((None, OF_SAMPLES), OF_SAMPLES),
    ):
        found = loss.with_gradient(scores, LABELS, weight=weight, reduction=reduction)
        expected = loss.with_gradient(scores, LABELS, weight=same_weight, reduction=reduction)
        exactly_equal(found, expected)


@every_loss
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("of_weight", DTYPES)
def test_any_dtype_beside_any_other(loss: Loss, dtype: torch.dtype, of_weight: torch.dtype) -> None:
    scores = random_scores(N, C, dtype=dtype)
    of_classes = (torch.arange(C) / 4).to(of_weight)
    for other in DTYPES:
        weight = of_classes, OF_SAMPLES.to(other)
        found = loss.with_gradient(scores, LABELS, weight=weight)
        exactly_equal(found, loss.with_gradient(scores, LABELS, weight=tuple(map(_half, weight))))
        weights = OF_SAMPLES.squeeze(1) * of_classes.double()[LABELS.clamp(min=0)]
        same(found, by_definition(loss, scores, LABELS, weights, "mean"))


def _half(weight: Tensor) -> Tensor:
    """Return the numbers, which are multiples of 1/4, in a dtype that holds them."""
    return weight.to(torch.float16)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_weight_of_an_ignored_row_is_not_looked_at(loss: Loss, reduction: str) -> None:
    scores = random_scores(N, C)
    scores[1] = math.nan
    expected = loss.with_gradient(scores, LABELS, weight=OF_SAMPLES, reduction=reduction)
    for bad in (math.nan, math.inf, -1.0):
        weights = torch.where(COUNTED.unsqueeze(1), OF_SAMPLES, bad)
        found = loss.with_gradient(scores, LABELS, weight=weights, reduction=reduction)
        exactly_equal(found, expected)


@every_loss
def test_nan_stays_in_its_row(loss: Loss) -> None:
    weights = OF_SAMPLES.clone()
    weights[2] = math.nan
    found, gradient = loss.with_gradient(
        random_scores(N, C), LABELS, weight=weights, reduction="none"
    )
    assert found.isnan().tolist() == [False, False, True, False, False, False]
    assert gradient.isnan().any(1).tolist() == found.isnan().tolist()


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_weight_of_0_is_that_of_a_class_with_0(loss: Loss, reduction: str) -> None:
    """It takes away a finite loss, and makes NaN of another one, as in F.cross_entropy."""
    scores = random_scores(N, C)
    for of_label in (0.0, -math.inf, math.nan):
        scores[3, 0] = of_label
        weight = torch.ones(C)
        weight[0] = 0
        of_samples = weight[LABELS.clamp(min=0)].unsqueeze(1)
        expected = loss.with_gradient(scores, LABELS, weight=weight, reduction=reduction)
        found = loss.with_gradient(scores, LABELS, weight=of_samples, reduction=reduction)
        exactly_equal(found, expected, equal_nan=True)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_only_weights_of_0(loss: Loss, reduction: str) -> None:
    scores = random_scores(N, C)
    expected = loss.with_gradient(scores, LABELS, weight=torch.zeros(C), reduction=reduction)
    for weight in (torch.zeros(N, 1), (torch.zeros(C), OF_SAMPLES), (WEIGHT, torch.zeros(N, 1))):
        found = loss.with_gradient(scores, LABELS, weight=weight, reduction=reduction)
        exactly_equal(found, expected, equal_nan=True)


@every_loss
def test_a_normalizer_takes_the_place_of_their_sum(loss: Loss) -> None:
    scores = random_scores(N, C)
    total, gradient = loss.with_gradient(scores, LABELS, weight=OF_SAMPLES, reduction="sum")
    for normalizer in (4, torch.tensor(4.0)):
        found = loss.with_gradient(scores, LABELS, weight=OF_SAMPLES, normalizer=normalizer)
        torch.testing.assert_close(found, (total / 4, gradient / 4))


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_layout_does_not_matter(loss: Loss, reduction: str) -> None:
    scores, labels = random_scores(2, C, 3, 4), random_labels(2, 3, 4, n=C)
    weights = weights_like(scores)
    expected = loss.with_gradient(scores, labels, weight=weights, reduction=reduction)
    reversed_ = weights.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    sparse = torch.stack((weights, -weights), -1)[..., 0]
    for laid_out in (reversed_, sparse):
        found = loss.with_gradient(scores, labels, weight=laid_out, reduction=reduction)
        exactly_equal(found, expected)
    one_for_all = torch.full((1, 1, 1, 1), 0.5)
    found = loss.with_gradient(
        scores, labels, weight=one_for_all.expand(2, 1, 3, 4), reduction=reduction
    )
    copied = one_for_all.repeat(2, 1, 3, 4)
    exactly_equal(found, loss.with_gradient(scores, labels, weight=copied, reduction=reduction))


@every_loss
def test_hits_are_those_without_a_weight(loss: Loss) -> None:
    scores, options = random_scores(N, C), {"return_topk_hits": True}
    _, expected = loss(scores, LABELS, **options)
    _, found = loss(scores, LABELS, weight=OF_SAMPLES, **options)
    exactly_equal(found, expected)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_backward_again_and_second_derivatives(loss: Loss, reduction: str) -> None:
    scores = random_scores(N, C, dtype=torch.float64).requires_grad_()
    weight = WEIGHT, OF_SAMPLES

    def of_scores(x: Tensor) -> Tensor:
        return loss(x, LABELS, weight=weight, reduction=reduction)

    found = of_scores(scores).sum()
    (first,) = torch.autograd.grad(found, scores, retain_graph=True)
    (again,) = torch.autograd.grad(found, scores)
    exactly_equal(again, first)
    exactly_equal(grad(lambda x: of_scores(x).sum())(scores.detach()), first)
    assert torch.autograd.gradgradcheck(of_scores, scores, fast_mode=True)


# torch.func's own
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_vmap(loss: Loss, reduction: str) -> None:
    scores, labels = random_scores(3, N, C), LABELS.expand(3, N)
    weights, of_classes = torch.rand(N, 3, 1), torch.rand(3, C)

    def of_batch(scores: Tensor, labels: Tensor, *weight: Tensor) -> Tensor:
        return loss(scores, labels, weight=weight, reduction=reduction)

    def gradient(*args: Tensor) -> Tensor:
        return grad(lambda *x: of_batch(*x).sum())(*args)

    for function in (of_batch, gradient):
        found = vmap(function, in_dims=(0, 0, 0, 1))(scores, labels, of_classes, weights)
        for i in range(3):
            expected = function(scores[i], labels[i], of_classes[i], weights[:, i])
            torch.testing.assert_close(found[i], expected)


@pytest.mark.exhaustive(one_in=3)
@pytest.mark.usefixtures("compiler")
@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_compiled_in_one_graph(loss: Loss, reduction: str) -> None:
    def of_batch(scores: Tensor, labels: Tensor, weight: object) -> Tensor:
        return loss(scores, labels, weight=weight, reduction=reduction)

    compiled = torch.compile(of_batch, fullgraph=True, backend="aot_eager", dynamic=True)
    for weight in (OF_SAMPLES, (WEIGHT, OF_SAMPLES)):
        results = []
        for function in (compiled, of_batch):
            leaf = random_scores(N, C).requires_grad_()
            found = function(leaf, LABELS, weight)
            found.sum().backward()
            results.append((found.detach(), leaf.grad))
        torch.testing.assert_close(*results)


@every_loss
def test_a_module_is_given_it_in_the_call(loss: Loss) -> None:
    scores = random_scores(N, C)
    for weight in (None, WEIGHT):
        module = loss.module(weight=weight)
        found = module(scores, LABELS, weight=OF_SAMPLES)
        exactly_equal(found, loss(scores, LABELS, weight=(weight, OF_SAMPLES)))
        exactly_equal(module(scores, LABELS), loss(scores, LABELS, weight=weight))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@every_loss
def test_a_module_that_is_given_it_is_traced_and_exported(loss: Loss) -> None:
    scores, module = random_scores(N, C), loss.module(weight=WEIGHT)
    given, weight = (scores, LABELS), OF_SAMPLES.flip(0)
    expected = module(*given, weight=weight)
    # torch.jit.trace knows no arguments that are keywords only
    traced = torch.jit.trace(lambda x, y, w: module(x, y, weight=w), (*given, OF_SAMPLES))
    exactly_equal(traced(*given, weight), expected)
    exported = torch.export.export(module, given, kwargs={"weight": OF_SAMPLES})
    exactly_equal(exported.module()(*given, weight=weight), expected)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_truncated_loss_has_it_beside_the_weights_of_its_samples(reduction: str) -> None:
    """Pruned samples count for nothing but the divisor of the mean."""
    scores = random_scores(N, C)
    module = TruncatedLqLoss(N, weight=WEIGHT, reduction=reduction)
    module.kept[[0, 4]] = 0
    labels = torch.where(module.kept > 0.5, LABELS, -100)
    losses = lq_loss(scores, labels, weight=(WEIGHT, OF_SAMPLES), reduction="none")
    weights = OF_SAMPLES.squeeze(1) * WEIGHT[LABELS.clamp(min=0)]
    total = weights[COUNTED].sum().to(losses.dtype)
    expected = {"none": losses, "sum": losses.sum(), "mean": losses.sum() / total}[reduction]
    found = module(scores, LABELS, torch.arange(N), weight=OF_SAMPLES)
    torch.testing.assert_close(found, expected)
    module.eval()
    truncated = lq_loss(
        scores, LABELS, truncation=0.5, weight=(WEIGHT, OF_SAMPLES), reduction=reduction
    )
    exactly_equal(module(scores, LABELS, weight=OF_SAMPLES), truncated)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_two_labels_of_a_mixed_image(reduction: str) -> None:
    scores, labels, others = (
        random_scores(N, C),
        random_labels(N, n=C),
        random_labels(N, n=C, seed=3),
    )
    share = torch.rand(N, 1)
    labels[0] = others[0]
    soft = share * F.one_hot(labels, C) + (1 - share) * F.one_hot(others, C)
    expected = F.cross_entropy(scores, soft, reduction=reduction)
    given = {"normalizer": N} if reduction == "mean" else {"reduction": "sum"}
    pairs = [(labels, share), (others, 1 - share)]
    of_soft, classes = soft.topk(2)
    read_of_soft = [(classes[:, i], of_soft[:, i : i + 1]) for i in range(2)]
    for cross_entropy in (Loss("lq_loss", q=0.0), Loss("smooth_svm", k=1, margin=0.0)):
        for two in (pairs, read_of_soft):
            found = sum(cross_entropy(scores, y, weight=w, **given) for y, w in two)
            torch.testing.assert_close(found, expected)


@every_loss
def test_the_pair_of_a_mixed_image_takes_two_passes(
    loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each computes a loss and its gradient; the backward computes none."""
    passes = []
    run = eager.run

    def spy(*args: Any, **outputs: Any) -> None:
        passes.append({name for name, x in outputs.items() if x is not None})
        run(*args, **outputs)

    monkeypatch.setattr(eager, "run", spy)
    scores, labels = random_scores(N, C).requires_grad_(), random_labels(N, n=C)
    pair = [(labels, OF_SAMPLES), (labels.flip(0), 1 - OF_SAMPLES)]
    losses = [loss(scores, y, weight=w, normalizer=N, backend="eager") for y, w in pair]
    sum(losses).backward()
    assert passes == [{"losses", "gradient"}] * 2


BAD = [
    (torch.ones(N), ValueError, "weight must have shape (11,) for a weight per class or (6, 1) "
     "for a weight per sample, got (6,)"),
    ((torch.ones(N, 1), None), ValueError, "weight must have shape (11,) for a weight per class, got (6, 1)"),
    ((None, torch.ones(C)), ValueError, "weight must have shape (6, 1) for a weight per sample, got (11,)"),
    ((None, torch.ones(1, 1)), ValueError, "weight must have shape (6, 1) for a weight per sample, got (1, 1)"),
    ((WEIGHT, OF_SAMPLES, None), TypeError, "weight must be a Tensor or a tuple of two, a class weight "
     "and a sample weight, got tuple"),
    ([WEIGHT, OF_SAMPLES], TypeError, "weight must be a Tensor or a tuple of two, a class weight "
     "and a sample weight, got list"),
    ((WEIGHT, 2.0), TypeError, "weight must be a Tensor or a tuple of two, a class weight and a "
     "sample weight, got float"),
    (torch.ones(N, 1).long(), TypeError, "weight must be float16, bfloat16, float32 or float64, got torch.int64"),
    (torch.ones(N, 1, requires_grad=True), ValueError, "weight must not require a gradient, which is "
     "computed for scores only, got requires_grad=True"),
    ((WEIGHT, torch.ones(N, 1, device="meta")), ValueError, "weight must be on the device of scores, cpu, got meta"),
]  # fmt: skip


@every_loss
@pytest.mark.parametrize(("weight", "error", "message"), BAD)
def test_bad_weights(loss: Loss, weight: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        loss(random_scores(N, C), LABELS, weight=weight)


@every_loss
def test_bad_weights_of_a_module(loss: Loss) -> None:
    advice = "; a weight for each sample is given to the call"
    for weight, error, got in (
        (OF_SAMPLES, ValueError, "(6, 1)"),
        ((WEIGHT, None), TypeError, "tuple"),
    ):
        with pytest.raises(error, match=f"^weight must .*got {re.escape(got + advice)}$"):
            loss.module(weight=weight)
    with pytest.raises(
        ValueError, match=r"^weight must have shape \(6, 1\) for a weight per sample"
    ):
        loss.module()(random_scores(N, C), LABELS, weight=WEIGHT)
    truncated = partial(TruncatedLqLoss(N), indices=torch.arange(N))
    for call in (loss.module(), truncated):
        with pytest.raises(
            TypeError, match="got tuple; a weight for each class is given to the constr"
        ):
            call(random_scores(N, C), LABELS, weight=(WEIGHT, OF_SAMPLES))
