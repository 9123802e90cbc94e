"""Models with a loss under torch.compile."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from losses import (
    REDUCTIONS,
    Loss,
    each,
    one_of_each,
    random_labels,
    random_scores,
)
from torch import Tensor

pytestmark = pytest.mark.usefixtures("compiler")

# Compiling takes long, and little of it depends on the loss.
SMOOTH_SVM, *OTHERS = one_of_each(3)


class Model(torch.nn.Module):
    def __init__(self, loss: Loss, reduction: str = "mean", weighted: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(8, 11)
        weight = torch.linspace(0.5, 2, 11) if weighted else None
        self.loss = loss.module(reduction=reduction, weight=weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.loss(self.layer(x), labels)


def same_as_without_compiling(compiled: Callable[..., Tensor], model: Model, n_rows: int) -> None:
    x = random_scores(n_rows, 8, seed=n_rows)
    labels = random_labels(n_rows, n=11)
    labels[0] = -100
    results = []
    for function in (compiled, model):
        model.zero_grad()
        leaf = x.clone().requires_grad_()
        loss = function(leaf, labels)
        loss.backward(torch.linspace(1, 2, loss.numel()).reshape(loss.shape))
        results.append((loss.detach(), leaf.grad, model.layer.weight.grad.clone()))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(
    ("loss", "reduction", "weighted"),
    [
        *(
            (SMOOTH_SVM, reduction, weighted)
            for weighted in (False, True)
            for reduction in REDUCTIONS
        ),
        *((loss, "mean", True) for loss in OTHERS),
    ],
    ids=str,
)
def test_model(loss, reduction, weighted):
    model = Model(loss, reduction, weighted)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    same_as_without_compiling(compiled, model, 6)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # inductor's own
@each([Loss("smooth_svm", k=3, gradient="taylor")])
def test_model_with_inductor(loss):
    model = Model(loss, weighted=True)
    compiled = torch.compile(model, fullgraph=True)
    same_as_without_compiling(compiled, model, 6)


@pytest.mark.parametrize(
    ("loss", "reduction"),
    [
        *((SMOOTH_SVM, reduction) for reduction in REDUCTIONS),
        *((loss, "mean") for loss in OTHERS),
    ],
    ids=str,
)
def test_batches_of_any_size(loss, reduction):
    model = Model(loss, reduction)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for n_rows in (6, 7, 16, 33):
            same_as_without_compiling(compiled, model, n_rows)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_batches_marked_dynamic(reduction):
    model = Model(SMOOTH_SVM, reduction)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")

    def marked(x: Tensor, labels: Tensor) -> Tensor:
        torch._dynamo.mark_dynamic(x, 0)
        torch._dynamo.mark_dynamic(labels, 0)
        return compiled(x, labels)

    with torch._dynamo.config.patch(error_on_recompile=True):
        for n_rows in (6, 7, 16, 33):
            same_as_without_compiling(marked, model, n_rows)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_without_gradient(reduction):
    model = Model(SMOOTH_SVM, reduction)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x, labels = random_scores(6, 8), random_labels(6, n=11)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, labels), model(x, labels))


def test_segmentation():
    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        return SMOOTH_SVM(scores, labels)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    scores, labels = random_scores(2, 11, 3, 4), random_labels(2, 3, 4, n=11)
    gradients = []
    for function in (compiled, loss):
        leaf = scores.clone().requires_grad_()
        function(leaf, labels).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)
