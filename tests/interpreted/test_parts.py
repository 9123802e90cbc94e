"""Rows that are read in parts, in Triton's interpreter: what is particular to them."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import accuracy
import accuracy_lq
import adversarial
import adversarial_lq
import pytest
import torch
from running import PARTS, STREAMED_PARTS, fit, run

from triton_topk import eager
from triton_topk.batch import Batch
from triton_topk.kernels import config as table
from triton_topk.kernels import launch
from triton_topk.kernels.config import Config
from triton_topk.losses import HardSVM, Loss, Lq, Mixture, SmoothSVM

# As in test_kernels.py.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

# One narrow block a part.
MANY = replace(PARTS, columns=8, parts=64)
SVM = SmoothSVM(5, 1.0, 1.0)
HARD = HardSVM(5, 1.0)
LQ = Lq(0.0)
MIXED = Mixture(5, 1.0, 1.0, None, 0.7, None, 0.3)
LOSSES = [SVM, HARD, LQ, MIXED]
IDS = ["smooth", "hard", "lq", "mixed"]


def force(monkeypatch: pytest.MonkeyPatch, config: Config, n: int) -> None:
    monkeypatch.setattr(launch, "run", partial(launch.run, config=fit(config, n)))


@pytest.mark.exhaustive(one_in=2)
@pytest.mark.parametrize(
    ("k", "n", "config"),
    [
        (1, 13, MANY),
        (5, 24, MANY),
        (2, 30, PARTS),
        (10, 14, MANY),
        (14, 64, PARTS),  # whose merged lists are longer than Top
        (16, 20, STREAMED_PARTS),
    ],
)
def test_float32(k: int, n: int, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, config, n)
    accuracy.assert_promised(adversarial.cases(k, n), k, n, backend="triton")


@pytest.mark.parametrize(("k", "n"), [(1, 13), (5, 24)])
def test_float64(k: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, MANY, n)
    for e in accuracy.errors(adversarial.cases(k, n), torch.float64, backend="triton"):
        assert e.loss <= 1e-12, e
        assert e.gradient <= 1e-12, e


@pytest.mark.parametrize("q", [0.0, 0.7])
def test_lq(q: float, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, MANY, 60)
    accuracy_lq.assert_promised(adversarial_lq.cases(60), q, backend="triton")


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_label_in_any_part(loss: Loss) -> None:
    torch.manual_seed(0)
    scores = torch.randn(1, 50).repeat(50, 1).round()
    labels = torch.arange(50)
    for config in (PARTS, STREAMED_PARTS, MANY):
        found = run(launch, scores, labels, loss, config)
        expected = run(eager, scores, labels, loss)
        torch.testing.assert_close(found[0], expected[0])
        torch.testing.assert_close(found[1], expected[1], atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("loss", [SVM, HARD, MIXED], ids=["smooth", "hard", "mixed"])
def test_ties_in_several_parts_have_equal_gradients(loss: Loss) -> None:
    # the k-th largest and its ties: in the first part alone, in several, in more than a list holds
    groups = ([0, 1], [*range(7)], [0, 9, 30], [*range(0, 48, 5)], [*range(48)])
    cases = [(ties, above) for ties in groups for above in ([], [7, 33], [2, 3, 4, 13])]
    scores = -torch.arange(50.0).repeat(len(cases), 1) / 10
    labels = torch.full((len(cases),), 49)
    for row, (ties, above) in zip(scores, cases, strict=True):
        row[ties] = 2.0
        row[above] = 3.0 + torch.arange(len(above))
    losses, gradient = run(launch, scores, labels, loss, MANY)
    expected = run(eager, scores, labels, loss)
    torch.testing.assert_close(losses, expected[0])
    torch.testing.assert_close(gradient, expected[1], atol=1e-7, rtol=1e-5)
    for row, (ties, above) in zip(gradient, cases, strict=True):
        assert row[[i for i in ties if i not in above]].unique().numel() == 1


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_one_poisoned_part_poisons_its_row_alone(loss: Loss) -> None:
    torch.manual_seed(0)
    scores = torch.randn(12, 50)
    labels = torch.full((12,), 20)
    clean = run(launch, scores, labels, loss, MANY)
    poison = [(c, x) for c in (0, 20, 49) for x in (float("nan"), float("inf"))]
    for row, (column, value) in zip(scores[::2], poison, strict=True):
        row[column] = value
    losses, gradient = run(launch, scores, labels, loss, MANY)
    assert losses[::2].isnan().all()
    assert gradient[::2].isnan().all()
    assert torch.equal(losses[1::2], clean[0][1::2])
    assert torch.equal(gradient[1::2], clean[1][1::2])


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_forward_alone_and_a_row_alone_have_the_same_bits(loss: Loss) -> None:
    torch.manual_seed(0)
    scores = torch.randn(19, 50)
    labels = torch.randint(50, (19,))
    losses, gradient = run(launch, scores, labels, loss, PARTS)
    forward = torch.full((19,), float("nan"))
    launch.run(Batch(scores, labels), loss, losses=forward, config=fit(PARTS, 50))
    assert torch.equal(forward, losses)
    for i in (0, 11, 18):
        alone = run(launch, scores[i : i + 1], labels[i : i + 1], loss, PARTS)
        assert torch.equal(alone[0], losses[i : i + 1])
        assert torch.equal(alone[1], gradient[i : i + 1])


def test_coefficients_that_have_to_be_scaled() -> None:
    k, n = 16, 1300
    assert math.comb(n - 1, k) > 1e36
    torch.manual_seed(0)
    # of three parts one has the largest scores, or all have some
    offset = torch.zeros(4, n)
    offset[1, 500:] = 20
    offset[2] = torch.linspace(0, 30, n)
    offset[3, ::3] = 100
    scores, labels = torch.randn(4, n) + offset, torch.tensor([0, 1, n - 1, 650])
    config = Config(rows=4, columns=128, blocks=0, stream=True, warps=1, parts=3)
    losses, gradient = run(launch, scores, labels, replace(SVM, k=k), config)
    expected = run(eager, scores.double(), labels, replace(SVM, k=k))
    torch.testing.assert_close(losses.double(), expected[0], rtol=1e-6, atol=0)
    error = (gradient.double() - expected[1]).abs().amax(1)
    assert (error <= 1e-6 * expected[1].abs().amax(1)).all()


@pytest.mark.parametrize("spread", [0.0, 0.01])
def test_parts_that_have_nothing_but_their_largest_scores(spread: float) -> None:
    # Their polynomials are 1, and only together are the coefficients out of range.  The summaries are made by hand.
    k, parts = 16, 100
    top = table.top_size(k)
    torch.manual_seed(0)
    v = (torch.rand(parts, top) * spread).sort(dim=1, descending=True).values
    n = v.numel() + 1
    assert math.comb(n - 1, k) > torch.finfo(torch.float32).max
    loss = replace(SVM, k=k)
    scores = torch.cat((torch.zeros(1), v.flatten()))[None]
    config = Config(rows=1, columns=1, blocks=20, stream=True, warps=1, parts=parts)
    plan = launch._plan(loss, n, torch.float32, False, config)
    summaries = torch.zeros(1, parts, plan.summary)
    summaries[0, :, :top] = v
    labels, found = torch.zeros(1, dtype=torch.int64), torch.full((1,), math.nan)
    tensors = (scores, labels, *[None] * 5, found, None, None, summaries)
    numbers = (1, n, n, 0, 0, 0, -100, 0, *plan.numbers)
    launch._launch(launch.loss_kernel, 1, tensors, numbers, *plan.last)
    expected, _ = run(eager, scores.double(), labels, loss)
    torch.testing.assert_close(found.double(), expected, rtol=5e-7, atol=0)


def test_long_rows_are_read_in_parts_of_the_table() -> None:
    torch.manual_seed(0)
    n = 70_001
    assert launch.choose(SVM, n, torch.float32).parts == 9
    scores = torch.randn(2, n)
    labels = torch.tensor([0, n - 1])
    losses, gradient = run(launch, scores, labels, SVM)
    true_losses, true_gradient = run(eager, scores.double(), labels, SVM)
    torch.testing.assert_close(losses.double(), true_losses, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.double(), true_gradient, rtol=2e-5, atol=1e-9)
