"""Models with a loss under torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

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

from triton_topk import eager

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


@pytest.mark.parametrize("loss", [SMOOTH_SVM, *OTHERS], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_step_on_the_cpu_computes_the_losses_once(loss, reduction, monkeypatch):
    runs = []
    run = eager.run

    def spy(*args: Any, **kwargs: Any) -> None:
        runs.append(kwargs.keys())
        run(*args, **kwargs)

    monkeypatch.setattr(eager, "run", spy)
    labels = torch.tensor([3, -100, 10, 0, 7, 7])
    compiled = torch.compile(
        lambda scores: -3.5 * loss(scores, labels, reduction=reduction, backend="eager"),
        fullgraph=True,
        backend="aot_eager",
    )
    scores = random_scores(6, 11).requires_grad_()
    compiled(scores).backward()
    assert len(runs) == 1
    _, expected = loss.with_gradient(scores.detach(), labels, reduction=reduction)
    torch.testing.assert_close(scores.grad, -3.5 * expected)


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


# Batches of a size that is known only when the graph runs

WEIGHT = torch.linspace(0.5, 2, 11)
OPTIONS_OF_EACH: dict[str, dict[str, Any]] = {
    "none": {"reduction": "none"},
    "mean": {},
    "weighted mean": {"weight": WEIGHT},
    "sum": {"reduction": "sum", "weight": WEIGHT},
    "sample weight": {},
    "number": {"normalizer": 7.0},
    "tensor": {"normalizer": torch.tensor(7), "weight": WEIGHT},
}
# among them an empty batch, and one of ignored rows
MASKS = [torch.tensor(x).bool() for x in ([1, 1, 0, 1, 0, 1], [0] * 6, [0, 1] + [0] * 4, [1] * 6)]
every_loss = each([SMOOTH_SVM, *OTHERS])
every_option = pytest.mark.parametrize("options", OPTIONS_OF_EACH)


def rows_of_samples() -> tuple[Tensor, Tensor, Tensor]:
    """Scores, labels and margins."""
    labels = torch.tensor([3, -100, 10, 0, 7, 7])
    return random_scores(6, 11), labels, torch.linspace(0, 2, 6)[:, None]


def same_gradients(
    compiled: Callable[..., Tensor], plain: Callable[..., Tensor], scores: Tensor, *args: Tensor
) -> None:
    results = []
    for function in (compiled, plain):
        leaf = scores.clone().requires_grad_()
        found = function(leaf, *args)
        found.sum().backward()
        results.append((found.detach(), leaf.grad))
    torch.testing.assert_close(*results, equal_nan=True)


def of_batch(loss: Loss, options: str, scores: Tensor, labels: Tensor, margins: Tensor) -> Tensor:
    given: dict[str, Any] = {} if loss.name == "lq_loss" else {"margin": margins}
    if options == "sample weight":
        given["weight"] = WEIGHT, margins
    return loss(scores, labels, **given, **OPTIONS_OF_EACH[options])


@pytest.mark.exhaustive(one_in=2)
@every_loss
@every_option
def test_rows_chosen_in_the_graph(loss, options):
    def of_chosen(scores: Tensor, labels: Tensor, margins: Tensor, mask: Tensor) -> Tensor:
        return of_batch(loss, options, scores[mask], labels[mask], margins[mask])

    compiled = torch.compile(of_chosen, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        for mask in MASKS:
            same_gradients(compiled, of_chosen, *rows_of_samples(), mask)


@pytest.mark.exhaustive(one_in=2)
@every_loss
@every_option
def test_batches_marked_unbacked(loss, options):
    compiled = torch.compile(of_batch, fullgraph=True, backend="aot_eager")

    def marked(*batch: Tensor) -> Tensor:
        for tensor in batch:
            torch._dynamo.decorators.mark_unbacked(tensor, 0)
        return compiled(loss, options, *batch)

    with torch._dynamo.config.patch(error_on_recompile=True):
        for n_rows in (6, 3, 1, 0):
            batch = (tensor[:n_rows].clone() for tensor in rows_of_samples())
            same_gradients(marked, partial(of_batch, loss, options), *batch)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # inductor's own
def test_an_empty_batch_with_inductor():
    # which takes 0 / x for 0
    compiled = torch.compile(SMOOTH_SVM, fullgraph=True, dynamic=True)
    scores, labels, _ = rows_of_samples()
    for n_rows in (6, 0):
        same_gradients(compiled, SMOOTH_SVM, scores[:n_rows], labels[:n_rows])
