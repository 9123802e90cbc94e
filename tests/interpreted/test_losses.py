"""The kernel's other losses, in Triton's interpreter: against the truth, and against the eager backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from accuracy_lq import assert_promised, errors
from adversarial_lq import QS, cases
from running import LAYOUTS, difficult_rows, run
from torch import Tensor

import triton_topk
from triton_topk import eager
from triton_topk.kernels import launch
from triton_topk.kernels.config import Config
from triton_topk.losses import HardSVM, Loss, Lq, Mixture

# As in test_kernels.py.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

HARD = HardSVM(5, 1.0)
LQ = Lq(0.7)
TRUNCATED = Lq(0.7, 0.3)
CROSS_ENTROPY = Lq(0.0)
MIXED = Mixture(5, 1.0, 1.0, None, 0.7, None, 0.3)
TAYLOR = Mixture(3, 0.5, 1.0, 2, 0.3, 0.3, 0.6)
LOSSES = [HARD, LQ, TRUNCATED, CROSS_ENTROPY, MIXED, TAYLOR]
IDS = ["hard", "lq", "truncated", "cross-entropy", "mixed", "mixed-taylor"]


def assert_same(
    scores: Tensor, labels: Tensor, loss: Loss, config: Config | None = None, **kwargs: object
) -> None:
    """The kernel's answer is that of the eager backend, which has its own tests of everything."""
    losses, gradient = run(launch, scores, labels, loss, config, **kwargs)
    expected_losses, expected_gradient = run(eager, scores, labels, loss, **kwargs)
    torch.testing.assert_close(losses, expected_losses, rtol=2e-6, atol=1e-7, equal_nan=True)
    atol = max(2e-6, _rounding_of_taylor(loss, scores.dtype))
    torch.testing.assert_close(gradient, expected_gradient, atol=atol, rtol=1e-4, equal_nan=True)


def _rounding_of_taylor(loss: Loss, dtype: torch.dtype) -> float:
    """Return what the recursion upwards multiplies rounding by, (e u_k)^k, where it ends, e u_k = eps^(-1 / (k + p)).

    In float64 that is next to nothing, so that the formula is checked there.
    """
    if not isinstance(loss, Mixture) or loss.order is None:
        return 0.0
    return float(torch.finfo(dtype).eps ** (loss.order / (loss.k + loss.order)))


@pytest.mark.parametrize("n", [2, 10, 60])
@pytest.mark.parametrize("q", QS)
@pytest.mark.usefixtures("many_rows")
def test_lq_against_the_truth(q: float, n: int) -> None:
    assert_promised(cases(n), q, backend="triton")


@pytest.mark.usefixtures("many_rows")
def test_lq_against_the_truth_in_float64() -> None:
    for e in errors(cases(10), 0.7, torch.float64, backend="triton"):
        # as in tests/test_lq.py
        assert e.loss <= 1e-13, e
        assert e.gradient <= 1e-13, e
        assert e.entry <= 1e-13, e


@pytest.mark.parametrize("q", [0.0, 0.7])
def test_lq_of_streamed_rows_against_the_truth(q: float, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(rows=64, columns=16, blocks=4, stream=True, warps=1)
    monkeypatch.setattr(launch, "run", partial(launch.run, config=config))
    assert_promised(cases(60), q, backend="triton")


@pytest.mark.exhaustive(one_in=2)
@pytest.mark.parametrize("layout", [None, *LAYOUTS])
@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_every_layout(loss: Loss, layout: str | None) -> None:
    config = None if layout is None else LAYOUTS[layout]
    torch.manual_seed(0)
    for n in (6, 70):
        scores = torch.randn(5, n) * 3
        scores[3:] = scores[3:].round()  # ties everywhere
        labels = torch.randint(n, (5,))
        assert_same(scores, labels, loss, config)
        assert_same(scores.double(), labels, loss, config)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_wherever_the_largest_are(layout: str, dtype: torch.dtype) -> None:
    n, k = 150, 16
    torch.manual_seed(0)
    column = torch.arange(n)
    # in adjacent columns, each fourth, each 32nd, anywhere
    order = [column, -column, column % 4 * n + column, column % 32 * n + column, torch.randperm(n)]
    scores = torch.stack([x.argsort().argsort() for x in order]).to(dtype)
    assert_same(scores, torch.randint(n, (5,)), replace(HARD, k=k), LAYOUTS[layout])


@pytest.mark.parametrize("k", [1, 2, 9, 16])
@pytest.mark.usefixtures("many_rows")
def test_every_k(k: int) -> None:
    torch.manual_seed(k)
    for n in (k + 1, 40):
        scores = torch.randn(5, n) * 3
        labels = torch.randint(n, (5,))
        assert_same(scores, labels, replace(HARD, k=k))
        assert_same(scores.round(), labels, replace(HARD, k=k))
        assert_same(scores, labels, replace(MIXED, k=k))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_half_precision(loss: Loss, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    scores = (torch.randn(6, 50) * 3).to(dtype)
    # the distances at which p_y leaves the range of half and of single precision
    scores[:3, 7] += torch.tensor([30.0, 100.0, 1000.0]).to(dtype)
    labels = torch.randint(50, (6,))
    losses, gradient = run(launch, scores, labels, loss)
    expected_losses, expected = run(launch, scores.float(), labels, loss)
    torch.testing.assert_close(losses, expected_losses)  # another layout, another order of sums
    assert gradient.isfinite().all()
    # the interpreter cuts off where a GPU rounds
    torch.testing.assert_close(gradient, expected.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 5, 16])
def test_any_sixteen_bits(k: int, dtype: torch.dtype) -> None:
    """Zeros of both signs, subnormal numbers of float16, many ties, and fewer positions than are taken."""
    torch.manual_seed(k)
    for n in (17, 32, 300):
        bits = torch.randint(-(2**15), 2**15, (6, n)).to(torch.int16)
        scores = bits.view(dtype).nan_to_num(-0.0).clamp(-1000, 1000)
        scores[3:] *= 1e-6
        # the interpreter has no subnormal numbers of bfloat16
        scores = torch.where(scores.float().abs() < 1e-37, -0.0, scores)
        labels = torch.randint(n, (6,))
        losses, gradient = run(launch, scores, labels, replace(HARD, k=k))
        expected_losses, expected = run(eager, scores.float(), labels, replace(HARD, k=k))
        torch.testing.assert_close(losses, expected_losses)
        # the interpreter cuts off where a GPU rounds
        rtol = torch.finfo(dtype).eps
        torch.testing.assert_close(gradient, expected.to(dtype), rtol=rtol, atol=1e-7)


@pytest.mark.exhaustive(one_in=2)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_masked_nan_infinite_ignored_and_wrong_labels(loss: Loss, layout: str) -> None:
    scores, labels, known, poisoned, clean = difficult_rows()
    expected_losses, expected = run(eager, scores, known, loss)
    losses, gradient = run(launch, scores, labels, loss, LAYOUTS[layout])
    assert losses[poisoned].isnan().all()
    assert gradient[poisoned].isnan().all()
    torch.testing.assert_close(losses[clean], expected_losses[clean])
    torch.testing.assert_close(gradient[clean], expected[clean])
    assert losses[8] == losses[12] == 0
    assert (gradient[[8, 12]] == 0).all()


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_weight_normalizer_upstream_and_stride(loss: Loss) -> None:
    torch.manual_seed(0)
    labels = torch.tensor([3, 4, -100, 19, 0, 3])
    tensors = {
        "weight": torch.rand(20),
        "sample_weight": torch.rand(12)[::2],
        "normalizer": torch.tensor(2.5),
        "upstream": torch.randn(6),
    }
    assert_same(torch.randn(6, 40)[:, 3:23], labels, loss, **tensors)
    assert_same(torch.randn(1, 20).expand(6, 20), labels, loss, **tensors)


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_row_alone_and_in_a_batch_have_the_same_bits(loss: Loss) -> None:
    torch.manual_seed(0)
    scores = torch.randn(9, 37)
    labels = torch.randint(37, (9,))
    losses, gradient = run(launch, scores, labels, loss)
    for i in range(0, 9, 4):
        alone = run(launch, scores[i : i + 1], labels[i : i + 1], loss)
        assert torch.equal(alone[0], losses[i : i + 1])
        assert torch.equal(alone[1], gradient[i : i + 1])


def test_gradcheck_of_the_kernel() -> None:
    torch.manual_seed(0)
    scores = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(7, (3,))
    settings = {"backend": "triton", "reduction": "none"}
    for loss in (
        lambda s: triton_topk.hard_svm(s, labels, 3, **settings),
        lambda s: triton_topk.lq_loss(s, labels, 0.7, **settings),
        lambda s: triton_topk.lq_loss(s, labels, 0.0, truncation=0.2, **settings),
        lambda s: triton_topk.smooth_svm_lq(s, labels, 3, 0.4, **settings),
    ):
        assert torch.autograd.gradcheck(loss, scores, fast_mode=True)


def test_one_class() -> None:
    scores = torch.tensor([[2.5], [-3.0]], requires_grad=True)
    labels = torch.zeros(2, dtype=torch.long)
    losses = triton_topk.lq_loss(scores, labels, backend="triton", reduction="none")
    losses.sum().backward()
    assert (losses == 0).all()
    assert scores.grad is not None
    assert (scores.grad == 0).all()


@pytest.mark.parametrize("backend", ["triton", "eager"])
@pytest.mark.parametrize(
    "loss",
    [
        triton_topk.smooth_svm,
        triton_topk.hard_svm,
        triton_topk.lq_loss,
        triton_topk.smooth_svm_lq,
    ],
)
def test_offsets_past_two_to_the_31(loss: Callable[..., Tensor], backend: str) -> None:
    torch.manual_seed(0)
    near = torch.randn(4, 64).half()
    # 6 GB, of which four rows are ever touched
    far = torch.empty(3 * 2**30 + 64, dtype=torch.float16).as_strided((4, 64), (2**30, 1))
    far.copy_(near)
    labels = torch.randint(64, (4,))
    found = []
    for scores in (far, near):
        leaf = scores.detach().requires_grad_()
        losses = loss(leaf, labels, backend=backend, reduction="none")
        found.append((losses.detach(), *torch.autograd.grad(losses.sum(), leaf)))
    for of_far, of_near in zip(*found, strict=True):
        assert torch.equal(of_far, of_near)
