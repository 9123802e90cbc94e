"""The kernels on a GPU, compiled, against the eager backend in float64 on the CPU."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import triton_topk

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device"),
]


def both(scores: Tensor, labels: Tensor, k: int, **kwargs: object) -> tuple[Tensor, ...]:
    """Losses and gradients on the GPU, and the true ones."""
    found: list[Tensor] = []
    for device, dtype in (("cuda", scores.dtype), ("cpu", torch.float64)):
        leaf = scores.to(device).to(dtype).requires_grad_()
        losses = triton_topk.smooth_svm(leaf, labels.to(device), k, reduction="none", **kwargs)
        losses.sum().backward()
        assert leaf.grad is not None
        found += [losses.detach().cpu().double(), leaf.grad.cpu().double()]
    return tuple(found)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 10, 16, 20])
@pytest.mark.parametrize("n", [21, 100, 1000, 1001, 4096, 21_841, 50_257, 131_072])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_losses_and_gradients(k: int, n: int, dtype: torch.dtype) -> None:
    torch.manual_seed(n + k)
    scores = (torch.randn(9, n) * 2).to(dtype)
    labels = torch.randint(n, (9,))
    for tau in (0.1, 1.0, 10.0):
        losses, gradients, true_losses, true_gradients = both(scores, labels, k, tau=tau)
        # the exponentials of a GPU are good to 2 units in the last place
        torch.testing.assert_close(losses, true_losses, rtol=2e-6, atol=1e-30)
        largest = true_gradients.abs().amax(1, keepdim=True)
        rounding = torch.finfo(dtype).eps / 2 + 4e-6
        assert ((gradients - true_gradients).abs() <= rounding * largest + 6e-8).all()


@pytest.mark.parametrize("order", [1, 2, 4])
def test_taylor(order: int) -> None:
    torch.manual_seed(order)
    scores, labels = torch.randn(8, 1000), torch.randint(1000, (8,))
    gpu, _, true, _ = both(scores, labels, 5, gradient="taylor", order=order)
    torch.testing.assert_close(gpu, true, rtol=2e-6, atol=0)


def test_hard_rows() -> None:
    torch.manual_seed(0)
    scores = torch.randn(8, 1000)
    labels = torch.randint(1, 1000, (8,))
    scores[0] = (scores[0] * 2).round()
    scores[1, ::2] = -math.inf
    scores[2] = 1.0
    scores[3, :5] = 40.0
    scores[4, labels[4]] = -math.inf
    scores[5] += 1e4
    labels[6] = -100
    scores[6, 3] = math.nan
    losses, gradients, true_losses, true_gradients = both(scores, labels, 5)
    torch.testing.assert_close(losses, true_losses, rtol=2e-6, atol=0)
    torch.testing.assert_close(gradients, true_gradients, rtol=1e-4, atol=2e-6)


def test_nan_and_wrong_labels_stay_in_their_rows() -> None:
    torch.manual_seed(0)
    scores = torch.randn(4, 1000, device="cuda")
    labels = torch.tensor([5, 1000, -7, 9], device="cuda")
    scores[3, 17] = math.nan
    scores.requires_grad_()
    losses = triton_topk.smooth_svm(scores, labels, reduction="none")
    losses.sum().backward()
    assert losses.isnan().tolist() == [False, True, True, True]
    assert scores.grad is not None
    assert scores.grad.isnan().all(1).tolist() == [False, True, True, True]
    assert not scores.grad[0].isnan().any()


def test_no_host_synchronisation() -> None:
    scores = torch.randn(64, 1000, device="cuda", requires_grad=True)
    labels = torch.randint(1000, (64,), device="cuda")
    weight = torch.rand(1000, device="cuda")

    def step() -> None:
        for reduction in ("mean", "sum", "none"):
            loss = triton_topk.smooth_svm(scores, labels, weight=weight, reduction=reduction)
            (2 * loss.sum()).backward()

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_bits_depend_on_neither_batch_nor_run() -> None:
    torch.manual_seed(0)
    scores = torch.randn(37, 1000, device="cuda")
    labels = torch.randint(1000, (37,), device="cuda")

    def run(rows: slice) -> tuple[Tensor, Tensor]:
        leaf = scores[rows].clone().requires_grad_()
        losses = triton_topk.smooth_svm(leaf, labels[rows], reduction="none")
        losses.sum().backward()
        assert leaf.grad is not None
        return losses, leaf.grad

    for whole, again, alone in zip(
        run(slice(None)), run(slice(None)), run(slice(7, 8)), strict=True
    ):
        assert torch.equal(whole, again)
        assert torch.equal(whole[7:8], alone)


def test_offsets_past_two_to_the_31() -> None:
    base = torch.empty(3 * 2**30 + 64, dtype=torch.float16, device="cuda")
    scores = base.as_strided((4, 64), (2**30, 1))
    torch.manual_seed(0)
    small = torch.randn(4, 64, device="cuda").half()
    scores.copy_(small)
    labels = torch.randint(64, (4,), device="cuda")
    found = triton_topk.smooth_svm(scores, labels, reduction="none")
    assert torch.equal(found, triton_topk.smooth_svm(small, labels, reduction="none"))


def test_cuda_graph() -> None:
    scores = torch.randn(16, 1000, device="cuda", requires_grad=True)
    labels = torch.randint(1000, (16,), device="cuda")
    scores.grad = torch.zeros_like(scores)

    def step() -> Tensor:
        assert scores.grad is not None
        scores.grad.zero_()
        loss = triton_topk.smooth_svm(scores, labels)
        loss.backward()
        return loss

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    with torch.no_grad():
        scores.copy_(torch.randn_like(scores))
    graph.replay()
    torch.testing.assert_close(loss, triton_topk.smooth_svm(scores, labels))


def test_equals_cross_entropy() -> None:
    torch.manual_seed(0)
    scores = torch.randn(32, 1000, device="cuda")
    labels = torch.randint(1000, (32,), device="cuda")
    torch.testing.assert_close(
        triton_topk.smooth_svm(scores, labels, 1, margin=0.0), F.cross_entropy(scores, labels)
    )
