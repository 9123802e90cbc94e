"""A keyword that is no argument: another library's word for one, or one that is given to the wrong call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from losses import MODULES, Loss, every_loss

import triton_topk
from triton_topk.nn import TruncatedLqLoss

SCORES, LABELS = torch.zeros(3, 11), torch.zeros(3, dtype=torch.int64)
NO_SMOOTHING = "label smoothing is not supported"
NO_NUMBER_OF_CLASSES = "the scores say how many classes there are"


def refused(call: Callable[..., Any], word: str) -> str:
    """Return the message about the word, by a function, a class or a module."""
    with pytest.raises(TypeError) as caught:
        call(**{word: 1})
    name, advice = str(caught.value).split(f"() got an unexpected keyword argument '{word}': ")
    called = call if inspect.isfunction(call) or inspect.isclass(call) else type(call)
    assert name.split(".")[0] == called.__name__
    return advice


@every_loss
@pytest.mark.parametrize(
    ("word", "argument"),
    [
        *[(word, "scores") for word in ("input", "logits", "pred", "x")],
        *[(word, "labels") for word in ("target", "targets", "y")],
        ("num_items_in_batch", "normalizer"),
        ("sample_weight", "weight"),
    ],
)
def test_other_words_for_what_is_given_to_a_call(loss: Loss, word: str, argument: str) -> None:
    assert refused(loss.function, word) == f"use {argument}"
    assert refused(loss.module(), word) == f"use {argument}"


@every_loss
@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("size_average", "use reduction"),
        ("reduce", "use reduction"),
        ("label_smoothing", NO_SMOOTHING),
        ("smoothing", NO_SMOOTHING),
        ("n_classes", NO_NUMBER_OF_CLASSES),
        ("num_classes", NO_NUMBER_OF_CLASSES),
    ],
)
def test_other_words_for_options(loss: Loss, word: str, advice: str) -> None:
    assert refused(loss.function, word) == advice
    assert refused(MODULES[loss.name], word) == advice


@pytest.mark.parametrize(("word", "option"), [("alpha", "margin"), ("temperature", "tau")])
def test_other_words_for_options_that_not_every_loss_has(word: str, option: str) -> None:
    for call in (triton_topk.smooth_svm, triton_topk.nn.SmoothSVMLoss):
        assert refused(call, word) == f"use {option}"
    for call in (triton_topk.lq_loss, triton_topk.nn.LqLoss):
        assert refused(call, word).startswith("expected one of ")


@every_loss
def test_a_word_of_nobody(loss: Loss) -> None:
    for call in (loss.function, MODULES[loss.name]):
        expected = ", ".join(inspect.signature(call).parameters)
        assert refused(call, "redution") == f"expected one of {expected}"


@every_loss
def test_options_of_a_module_are_not_given_to_its_call(loss: Loss) -> None:
    for option in ("return_topk_hits", "reduction", "ignore_index"):
        assert refused(loss.module(), option) == "give it to the constructor"
    assert refused(MODULES[loss.name], "normalizer") == "give it to the call"


def test_words_of_other_truncated_losses() -> None:
    assert refused(TruncatedLqLoss, "trainset_size") == "use num_samples"
    assert refused(TruncatedLqLoss, "k").endswith("called k elsewhere is truncation")
    loss = TruncatedLqLoss(10)
    assert refused(loss, "indexes") == "use indices"
    with pytest.raises(TypeError, match=r"prune\(\) got .*'indexes': use indices"):
        loss.prune(SCORES, LABELS, indexes=LABELS)


def test_the_constructor_of_a_subclass_is_another() -> None:
    class Own(triton_topk.nn.LqLoss):
        def __init__(self, num_samples: int) -> None:
            super().__init__(num_samples=num_samples)

    with pytest.raises(TypeError, match=r"^LqLoss.__init__\(\) got .*'num_samples'"):
        Own(num_samples=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'alpha'"):
        triton_topk.nn.LqLoss.forward(scores=SCORES, labels=LABELS, alpha=1)


@every_loss
def test_other_errors_and_signatures_are_those_of_the_function(loss: Loss) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'labels'"):
        loss.function(SCORES)
    with pytest.raises(TypeError, match="multiple values for argument 'scores'"):
        loss.function(SCORES, LABELS, scores=SCORES)
    assert next(iter(inspect.signature(MODULES[loss.name]).parameters)) in ("k", "q")
    assert inspect.signature(loss.function).parameters["ignore_index"].default == -100
