"""Normalizer, tensors of margins and top-k hits inside of a graph of torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from losses import MODULES, Loss, each, every_loss, random_labels, random_scores
from torch import Tensor
from torch._dynamo.utils import counters

pytestmark = pytest.mark.usefixtures("compiler")

with_margin = each([Loss(name, k=3) for name in MODULES if name != "lq_loss"])
SIZES = (6, 7, 16, 33)
MARGINS: dict[str, Callable[[int], Tensor]] = {
    "of all": lambda _: torch.tensor(0.5),
    "of classes": lambda _: torch.linspace(0, 2, 11),
    "of samples": lambda n_rows: torch.linspace(0, 2, n_rows)[:, None],
}


class Compiled:
    """A loss in one graph, and how many graphs it was compiled to."""

    def __init__(self, loss: Callable[..., Any], dynamic: bool | None = True) -> None:
        counters.clear()
        self.loss = loss
        self.compiled = torch.compile(
            lambda *args, **options: loss(*args, **options),
            fullgraph=True,
            dynamic=dynamic,
            backend="aot_eager",
        )

    @property
    def graphs(self) -> int:
        n: int = counters["stats"]["unique_graphs"]
        return n

    def same_as_without_compiling(self, n_rows: int, **options: Any) -> None:
        scores, labels = random_scores(n_rows, 11, seed=n_rows), random_labels(n_rows, n=11)
        labels[0] = -100
        results = []
        for function in (self.compiled, self.loss):
            leaf = scores.clone().requires_grad_()
            out = function(leaf, labels, **options)
            found, hits = out if isinstance(out, tuple) else (out, ())
            found.sum().backward()
            results.append((found.detach(), leaf.grad, *hits))
        torch.testing.assert_close(*results)


@every_loss
def test_a_normalizer_that_is_a_tensor(loss: Loss) -> None:
    compiled = Compiled(loss)
    for n_rows in SIZES:
        compiled.same_as_without_compiling(n_rows, normalizer=torch.tensor(3 * n_rows))
    assert compiled.graphs == 1


@pytest.mark.exhaustive(one_in=2)
@every_loss
@pytest.mark.parametrize("kind", [int, float])
def test_a_normalizer_that_is_another_number_in_every_step(
    loss: Loss, kind: type[int] | type[float]
) -> None:
    compiled = Compiled(loss, dynamic=None)
    for step in range(5):
        compiled.same_as_without_compiling(6, normalizer=kind(10 + 3 * step))
    # at first it may be taken for a constant
    assert compiled.graphs <= 2


@pytest.mark.exhaustive(one_in=2)
@with_margin
@pytest.mark.parametrize("margin", MARGINS)
def test_margins(loss: Loss, margin: str) -> None:
    compiled = Compiled(loss)
    for n_rows in SIZES:
        compiled.same_as_without_compiling(n_rows, margin=MARGINS[margin](n_rows))
    assert compiled.graphs == 1


@with_margin
def test_a_margin_that_is_a_buffer(loss: Loss) -> None:
    compiled = Compiled(loss.module(margin=torch.linspace(0, 2, 11), weight=torch.rand(11)))
    for n_rows in SIZES:
        compiled.same_as_without_compiling(n_rows)
    assert compiled.graphs == 1


@pytest.mark.exhaustive(one_in=2)
@every_loss
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_hits(loss: Loss, reduction: str) -> None:
    compiled = Compiled(loss)
    for n_rows in SIZES:
        compiled.same_as_without_compiling(n_rows, reduction=reduction, return_topk_hits=True)
    assert compiled.graphs == 1


@every_loss
def test_accuracy_in_the_graph(loss: Loss) -> None:
    """A user's code after the hits is compiled with them."""

    def step(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        found, hits = loss(scores, labels, return_topk_hits=True)
        return found, torch.stack([hits.top1, hits.topk]).float().mean(1)

    compiled = Compiled(step)
    compiled.same_as_without_compiling(6)
    assert compiled.graphs == 1


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # inductor's own
@each([Loss("smooth_svm", k=3)])
def test_with_inductor(loss: Loss) -> None:
    margin = torch.linspace(0, 2, 11)
    compiled = torch.compile(loss, fullgraph=True)
    scores, labels = random_scores(6, 11), random_labels(6, n=11)
    given = {"margin": margin, "normalizer": torch.tensor(7), "return_topk_hits": True}
    results = []
    for function in (compiled, loss):
        leaf = scores.clone().requires_grad_()
        found, hits = function(leaf, labels, **given)
        found.backward()
        results.append((found.detach(), leaf.grad, *hits))
    torch.testing.assert_close(*results)
