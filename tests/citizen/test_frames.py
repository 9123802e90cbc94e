"""The way of a call through the package is short: from the user's line to the kernels, or to the eager formula."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_stand_in import Kernel
from losses import Loss, every_loss
from torch import Tensor

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
    step(loss)
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
