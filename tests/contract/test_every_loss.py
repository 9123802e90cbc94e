"""Every loss of the registry has all of its pieces, each of which a new loss needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from losses import MODULES, one_of_each, random_labels, random_scores

import triton_topk
from bench.implementations import IMPLEMENTATIONS
from triton_topk import arguments, eager, reference
from triton_topk.backends import BACKENDS
from triton_topk.check.losses import losses as checked_losses
from triton_topk.losses import LOSSES, Loss, Lq, SmoothSVM

ROOT = Path(__file__).parents[2]
OPERATORS = ("", "_with_gradient", "_gradient")


def named(page: str, *names: str) -> bool:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return all(name in text for name in names)


def _formulas() -> Any:
    constants = pytest.importorskip(
        "triton_topk.kernels.constants", reason="Triton does not exist for this platform"
    )
    return constants.FORMULAS


def _computed_natively(loss: type[Loss]) -> bool:
    pytest.importorskip("numba")
    scores, labels = random_scores(3, 9), random_labels(3, n=9)
    (of_type,) = [x for x in one_of_each(3) if x.name == loss.name]
    return bool(of_type(scores, labels, backend="native").isfinite())


def _timed() -> set[Any]:
    """The benchmark times these functions of ours."""
    made = [
        x.loss(9, 2, "float32", torch.device("cpu")) for x in IMPLEMENTATIONS.values() if x.ours
    ]
    return {getattr(loss, "func", loss) for loss in made}


PIECES: dict[str, Callable[[type[Loss]], Any]] = {
    "operators": lambda loss: all(
        hasattr(torch.ops.triton_topk, loss.name + suffix) for suffix in OPERATORS
    ),
    "a formula of the eager backend": eager._FORMULAS.__contains__,
    "a term of the native backend": _computed_natively,
    "a kernel": lambda loss: loss in _formulas(),
    "a definition": lambda loss: loss in reference.DEFINITIONS and hasattr(reference, loss.name),
    "a public function": lambda loss: loss.name in triton_topk.__all__,
    "a module": lambda loss: (
        loss.name in MODULES and MODULES[loss.name].__name__ in triton_topk.nn.__all__
    ),
    "a check by python -m triton_topk": lambda loss: (
        loss.name in {checked.function for checked in checked_losses(5)}
    ),
    "an entry in docs/api.md": lambda loss: (
        loss.name in MODULES and named("api.md", loss.name, MODULES[loss.name].__name__)
    ),
    "an entry in docs/losses.md": lambda loss: named("losses.md", loss.name),
    "an implementation to time": lambda loss: getattr(triton_topk, loss.name) in _timed(),
    "a place in tests/losses.py": lambda loss: loss.name in {x.name for x in one_of_each(3)},
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("piece", PIECES)
def test_a_loss_has_every_piece(name: str, piece: str) -> None:
    assert PIECES[piece](LOSSES[name]), f"{name} needs {piece}"


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_loss_has_the_name_of_its_registration_and_a_check(loss: type[Loss]) -> None:
    assert LOSSES[loss.name] is loss
    assert callable(loss.checked)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_loss_is_the_same_after_its_operators_arguments(loss: type[Loss]) -> None:
    assert set(loss.parameters()) == {field.name for field in fields(loss)}
    values = tuple(range(len(loss.parameters())))
    assert loss.of(values).values == values


def test_losses_of_equal_parameters_and_other_kinds_differ() -> None:
    class Other(Lq):
        pass

    assert Lq(0.7) != Other(0.7)
    assert Lq(0.7) == Lq(0.7)
    assert hash(SmoothSVM(5, 1.0, 1.0)) == hash(SmoothSVM(5, 1.0, 1.0))


def test_the_option_names_the_backends_in_their_order() -> None:
    assert get_args(arguments.Backend) == tuple(backend.name for backend in BACKENDS)
