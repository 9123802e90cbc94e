"""The package shows its public names and no others, and `help` explains each."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import triton_topk
from triton_topk import nn, topk_svm

LOSSES = [getattr(triton_topk, name) for name in triton_topk.__all__ if name.islower()]
LOSSES += [getattr(module, name) for module in (nn, topk_svm) for name in module.__all__]
every_public_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)


def test_a_star_import_leaves_the_nn_of_pytorch() -> None:
    names: dict[str, Any] = {"nn": torch.nn}
    exec("from triton_topk import *", names)
    assert names["nn"] is torch.nn
    assert names.keys() - {"__builtins__", "nn"} == set(triton_topk.__all__)


def test_dir_shows_what_is_public() -> None:
    losses = ["hard_svm", "lq_loss", "smooth_svm", "smooth_svm_lq"]
    public = ["ClassShard", "TopkHits", "nn", *losses, *[f"linear_{name}" for name in losses]]
    assert [name for name in dir(triton_topk) if not name.startswith("__")] == sorted(public)
    for name in dir(triton_topk):
        assert hasattr(triton_topk, name)
    assert dir(nn) == nn.__all__
    assert dir(topk_svm) == topk_svm.__all__


@every_public_loss
def test_help_names_every_argument(loss: Callable[..., Any]) -> None:
    text = inspect.getdoc(loss) or ""
    described = re.search(r"^Args:\n(.*?)^\S", text, re.MULTILINE | re.DOTALL)
    assert described is not None
    names = re.findall(r"^    (\w[\w, ]*):", described[1], re.MULTILINE)
    named = [name for names_of_line in names for name in names_of_line.split(", ")]
    assert sorted(named) == sorted(inspect.signature(loss).parameters)


@every_public_loss
def test_help_has_the_formula_its_source_and_the_errors(loss: Callable[..., Any]) -> None:
    text = inspect.getdoc(loss) or ""
    assert ".. math::" in text
    assert re.search(r"(ICLR|NeurIPS|CVPR) 20\d\d", text)
    assert re.search("^(Returns, r|Call, r|R)aises:", text, re.MULTILINE)


@pytest.mark.parametrize("name", nn.__all__)
def test_the_constructor_and_the_call_of_a_module_are_documented(name: str) -> None:
    module = getattr(nn, name)
    assert "checked" in (inspect.getdoc(module.__init__) or "")
    assert "normalizer:" in (inspect.getdoc(module.forward) or "")


@pytest.mark.parametrize("name", topk_svm.__all__)
def test_the_constructor_and_the_call_of_an_authors_criterion_are_documented(name: str) -> None:
    criterion = getattr(topk_svm, name)
    assert "checked" in (inspect.getdoc(criterion.__init__) or "")
    assert {"x:", "y:"} <= set((inspect.getdoc(criterion.forward) or "").split())
