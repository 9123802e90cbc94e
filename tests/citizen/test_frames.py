"""The way of a call through the package is short: from the user's line to the kernels, or to the eager formula."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_stand_in import Kernel
from losses import (
    REDUCTIONS,
    Loss,
    every_loss,
    exactly_equal,
    random_labels,
    random_scores,
)
from torch import Tensor
from torch.overrides import TorchFunctionMode

import triton_topk
from triton_topk import eager
from triton_topk.losses import LOSSES

PACKAGE = Path(triton_topk.__file__).parent
MOST = 6


def frames_of_the_package() -> list[str]:
    """The functions of the package that are running, the latest first."""
    found, frame = [], sys._getframe(1)
    while frame is not None:
        if PACKAGE in Path(frame.f_code.co_filename).parents:
            found.append(frame.f_code.co_qualname)
        frame = frame.f_back
    return found


def step(loss: Callable[..., Tensor]) -> None:
    scores = torch.zeros(3, 11, requires_grad=True)
    loss(scores, torch.zeros(3, dtype=torch.int64)).backward()


@every_loss
def test_an_eager_formula_is_six_frames_below_the_call(
    loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = []
    kind = LOSSES[loss.name]
    formula = eager._FORMULAS[kind]

    def compute(*args: Any) -> Tensor:
        ways.append(frames_of_the_package())
        return formula.compute(*args)

    monkeypatch.setitem(eager._FORMULAS, kind, formula._replace(compute=compute))
    step(Loss(loss.name, **loss.options, backend="eager"))
    assert len(ways) == 1
    assert len(ways[0]) <= MOST, ways


@every_loss
def test_the_launch_is_six_frames_below_the_call(
    loss: Loss, like_a_gpu: dict[str, Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = pytest.importorskip("triton_topk.kernels.launch")
    ways = []
    run = launch.run

    def spy(*args: Any, **kwargs: Any) -> None:
        ways.append(frames_of_the_package())
        run(*args, **kwargs)

    monkeypatch.setattr(launch, "run", spy)
    step(loss)
    assert len(ways) == 1
    # and launch.run
    assert len(ways[0]) + 1 <= MOST, ways


class Questions(TorchFunctionMode):
    """The operations that ask something of the labels, and not where they are."""

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        self.labels, self.asked = labels, list[str]()

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        compares = func.__name__ in ("eq", "ne", "lt", "le", "gt", "ge", "aminmax", "min", "max")
        if compares and args[0] is self.labels:
            self.asked.append(func.__name__)
        return func(*args, **(kwargs or {}))


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.usefixtures("without_interpreter")
def test_labels_without_an_ignored_one_are_looked_at_once(loss: Loss, reduction: str) -> None:
    scores, labels = random_scores(6, 11).requires_grad_(), random_labels(6, n=11)
    with Questions(labels) as questions:
        loss(scores, labels, reduction=reduction).sum().backward()
    assert questions.asked == ["aminmax"]


@every_loss
@pytest.mark.parametrize("options", [{}, {"reduction": "none"}, {"normalizer": 7}], ids=str)
def test_what_is_known_of_the_labels_changes_nothing(loss: Loss, options: dict[str, Any]) -> None:
    """It is known that none is ignored, or that one between them might be."""
    scores, labels = random_scores(6, 11), torch.tensor([0, 3, 3, 7, 10, 10])
    expected = loss.with_gradient(scores, labels, **options)
    exactly_equal(loss.with_gradient(scores, labels, ignore_index=5, **options), expected)
    more = torch.cat([scores, scores[:1]]), torch.cat([labels, torch.tensor([5])])
    found, gradient = loss.with_gradient(*more, ignore_index=5, **options)
    torch.testing.assert_close((found[:6] if found.dim() else found, gradient[:6]), expected)
    assert not gradient[6].any()
