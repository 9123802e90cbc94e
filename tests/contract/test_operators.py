"""The registered operators, by PyTorch's own check of schema, fake tensors, autograd and AOT dispatch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from losses import DTYPES, random_scores
from torch import Tensor

from triton_topk.losses import HardSVM, Loss, Lq, Mixture, SmoothSVM
from triton_topk.summary import numbers

operators = torch.ops.triton_topk


def operator_inputs() -> Iterator[tuple[str, Tensor, Tensor, Tensor | None, Loss]]:
    labels = torch.tensor([0, -100, 10, 4, 4])
    weight = torch.linspace(0.5, 2, 11)
    for dtype in DTYPES:
        scores = random_scores(5, 11, dtype=dtype)
        yield "smooth_svm", scores, labels, None, SmoothSVM(3, 1.0, 1.0)
        yield "lq_loss", scores, labels, None, Lq(0.7)
    scores = random_scores(5, 11)
    cut = random_scores(5, 13)[:, :11]
    yield "smooth_svm", scores, labels.int(), weight, SmoothSVM(1, 0.5, 0.0, backend="eager")
    yield "smooth_svm", scores, labels, weight, SmoothSVM(5, 2.0, 1.0, 2)
    yield "smooth_svm", cut, labels, None, SmoothSVM(5, 1.0, 1.0)
    yield "smooth_svm", scores[:1], labels[:1], None, SmoothSVM(5, 1.0, 1.0)
    expanded = scores[:1].expand(5, 11)
    yield "smooth_svm", expanded, labels, None, SmoothSVM(10, 1.0, 1.0)
    yield "hard_svm", scores, labels.int(), weight, HardSVM(3, 1.0, backend="eager")
    yield "hard_svm", cut, labels, None, HardSVM(5, 0.0)
    yield "lq_loss", scores, labels, weight, Lq(0.0, 0.3)
    yield "lq_loss", expanded, labels, None, Lq(1.0, backend="eager")
    hits = SmoothSVM(3, 1.0, 1.0, hits=3)
    yield "smooth_svm", scores, labels, weight, hits
    yield "lq_loss", scores, labels, None, Lq(0.7, hits=2)
    mixed = Mixture(3, 1.0, 1.0, None, 0.7, None, 0.5)
    yield "smooth_svm_lq", scores, labels, weight, mixed
    yield "smooth_svm_lq", cut, labels, None, replace(mixed, order=2, truncation=0.2)


INPUTS = list(operator_inputs())
MARGINS = torch.linspace(0.1, 1, 11)
IDS = [inputs[0] for inputs in INPUTS]


def _of_rows(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The weight of each sample, and the margins."""
    return torch.linspace(0.5, 2, len(scores)), MARGINS.expand_as(scores)


@pytest.mark.exhaustive(one_in=3)
@pytest.mark.parametrize("inputs", INPUTS, ids=IDS)
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("kind", ["", "_with_gradient"])
def test_loss(inputs, normalized, requires_grad, kind):
    name, scores, labels, weight, loss = inputs
    scores = scores.detach().requires_grad_(requires_grad)
    normalizer = torch.tensor(3.0) if normalized else None
    operator = getattr(operators, f"{name}{kind}")
    torch.library.opcheck(
        operator.default,
        (scores, labels, weight, *_of_rows(scores), normalizer, None, *loss.values),
    )


@pytest.mark.exhaustive(one_in=3)
@pytest.mark.parametrize("inputs", INPUTS, ids=IDS)
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("expanded", [False, True])
def test_gradient(inputs, normalized, expanded):
    name, scores, labels, weight, loss = inputs
    normalizer = torch.tensor(3.0) if normalized else None
    n_rows = len(labels)
    upstream = torch.tensor(2.0).expand(n_rows) if expanded else random_scores(n_rows)
    operator = getattr(operators, f"{name}_gradient")
    torch.library.opcheck(
        operator.default,
        (scores, labels, weight, *_of_rows(scores), normalizer, None, upstream, *loss.values),
    )


@pytest.mark.parametrize(
    "loss",
    [SmoothSVM(3, 1.0, 1.0, hits=3), HardSVM(3, 1.0), Lq(0.7, hits=2), SmoothSVM(3, 1.0, 1.0, 2)],
)
def test_operators_of_a_shard(loss: Loss) -> None:
    loss = replace(loss, ignore_index=-1)
    # of another shard, ignored, of no class
    tensors = random_scores(5, 11), torch.tensor([0, 11, -1, 4, 11]), None
    tensors = *tensors, torch.linspace(0.5, 2, 5), torch.ones(5, 1).expand(5, 12), torch.tensor(3.0)
    unfilled = torch.empty(numbers(loss.form), 5, dtype=torch.float64)
    summarize = getattr(operators, f"{loss.name}_summary")
    torch.library.opcheck(summarize.default, (*tensors, unfilled, *loss.values))
    # the other shard has no scores but those of the labels
    summaries = summarize(*tensors, unfilled, *loss.values).expand(2, -1, -1).clone()
    summaries[1, : loss.form.top] = -torch.inf
    summaries[1, loss.form.top :] = 0
    summaries[:, -1] = torch.tensor([[0, 1, 0, 0, 1], [-1, 0, -1, -1, 0]])
    torch.library.opcheck(operators.merge.default, (summaries, *loss.form))
    merged = operators.merge(summaries, *loss.form)
    for suffix, upstream in ("", ()), ("_with_gradient", ()), ("_gradient", (torch.ones(5),)):
        operator = getattr(operators, loss.name + suffix).default
        torch.library.opcheck(operator, (*tensors, merged, *upstream, *loss.values))


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [
        ("labels", {"labels": torch.arange(4)}),
        ("labels", {"scores": random_scores(5, 11, 2), "labels": torch.zeros(5, 2).long()}),
        ("weight", {"weight": torch.ones(3)}),
        ("weight", {"weight": torch.ones(5, 1)}),
        ("sample_weight", {"sample_weight": torch.ones(5, 1)}),
        ("margins", {"margins": torch.ones(2, 11)}),
        ("summary", {"summary": torch.ones(3, 5)}),
        ("weight", {"summary": torch.ones(11, 5).double(), "weight": torch.ones(11)}),
        ("upstream", {"upstream": torch.ones(3)}),
        ("k", {"scores": random_scores(5, 3), "labels": torch.zeros(5).long()}),
    ],
)
def test_arguments_that_do_not_go_together(argument: str, wrong: dict[str, Tensor]) -> None:
    names = ["scores", "labels", "weight", "sample_weight", "margins", "normalizer", "summary"]
    names += ["upstream"]
    tensors = {"scores": random_scores(5, 11), "labels": torch.arange(5)} | wrong
    given = [tensors.get(name) for name in names]
    loss = SmoothSVM(3, 1.0, 1.0)
    given[-1] = tensors.get("upstream", torch.ones(5))
    with pytest.raises(ValueError, match=f"^{argument} must"):
        operators.smooth_svm_gradient(*given, *loss.values)
    if argument != "upstream":
        with pytest.raises(ValueError, match=f"^{argument} must"):
            operators.smooth_svm(*given[:-1], *loss.values)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scale(dtype):
    factor = torch.tensor(3.0, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    gradient = random_scores(5, 11, dtype=dtype)
    torch.library.opcheck(operators.scale_.default, (gradient, factor))
    expected = (gradient.to(factor.dtype) * factor).to(dtype)
    operators.scale_(gradient, factor)
    torch.testing.assert_close(gradient, expected)
