"""Settings of the whole process change no bit of the losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from losses import (
    REDUCTIONS,
    Loss,
    each,
    exactly_equal,
    random_labels,
    random_scores,
    variants,
    with_margins,
)
from torch import Tensor

SCORES, LABELS = random_scores(9, 310), random_labels(9, n=310)
WEIGHT, MARGIN = torch.linspace(0.5, 2, 310), torch.linspace(0, 2, 310)


def results(loss: Loss) -> list[Any]:
    return [
        *(loss.with_gradient(SCORES, LABELS, weight=WEIGHT, reduction=r) for r in REDUCTIONS),
        loss.with_gradient(SCORES, LABELS, normalizer=7),
        loss(SCORES, LABELS, return_topk_hits=True)[1],
    ]


@contextmanager
def setting(set_: Callable[[Any], Any], value: Any, before: Any) -> Iterator[None]:
    set_(value)
    try:
        yield
    finally:
        set_(before)


SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "default dtype float64": lambda: setting(torch.set_default_dtype, torch.float64, torch.float32),
    "default dtype float16": lambda: setting(torch.set_default_dtype, torch.float16, torch.float32),
    "default device": lambda: torch.device("meta"),
    "threads": lambda: setting(torch.set_num_threads, 2, torch.get_num_threads()),
    "flush denormals": lambda: setting(torch.set_flush_denormal, True, False),
    "precision of products": lambda: setting(
        torch.set_float32_matmul_precision, "medium", "highest"
    ),
    "warn always": lambda: setting(torch.set_warn_always, True, False),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "no threads of autograd": lambda: torch.autograd.set_multithreading_enabled(False),
}


@pytest.mark.exhaustive(one_in=4)
@each([*variants(5), Loss("smooth_svm", k=60), *with_margins(5, MARGIN)])
@pytest.mark.parametrize("name", SETTINGS)
def test_settings(loss: Loss, name: str) -> None:
    expected = results(loss)
    with SETTINGS[name]():
        found = results(loss)
    exactly_equal(found, expected)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
@each([*variants(5), *with_margins(5, MARGIN)])
def test_the_detection_of_anomalies_finds_none(loss: Loss) -> None:
    expected = results(loss)
    with torch.autograd.detect_anomaly():
        exactly_equal(results(loss), expected)


def test_random_numbers_are_not_drawn() -> None:
    torch.manual_seed(0)
    before: Tensor = torch.get_rng_state()
    for loss in variants(5):
        results(loss)
    assert torch.equal(torch.get_rng_state(), before)
