"""Second derivatives and torch.func where the kernels compute the losses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jacrev, jvp, vmap

import triton_topk

pytestmark = [
    # numpy's, of infinite scores
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    # torch.func's own
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]
Loss = Callable[..., Tensor]
LOSSES: list[Loss] = [partial(triton_topk.smooth_svm, k=3), triton_topk.lq_loss]
LABELS = torch.tensor([2, 0, 8])
IDS = ["smooth_svm", "lq_loss"]


def random_scores() -> Tensor:
    return torch.randn(3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_second_derivative(loss: Loss) -> None:
    found = []
    for backend in ("eager", "triton"):
        scores = random_scores().requires_grad_()
        value = loss(scores, LABELS, backend=backend)
        (gradient,) = torch.autograd.grad(value, scores, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), scores))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
@pytest.mark.parametrize("return_topk_hits", [False, True])
def test_gradients_of_samples(loss: Loss, return_topk_hits: bool) -> None:
    def of_sample(backend: str, scores: Tensor, label: Tensor) -> Tensor:
        out = loss(scores, label, backend=backend, return_topk_hits=return_topk_hits)
        return out[0] if return_topk_hits else out

    of_batch = (vmap(grad(partial(of_sample, backend))) for backend in ("eager", "triton"))
    torch.testing.assert_close(*(function(random_scores(), LABELS) for function in of_batch))


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_jacobian(loss: Loss) -> None:
    def losses(backend: str, scores: Tensor) -> Tensor:
        return loss(scores, LABELS, backend=backend, reduction="none")

    of_backend = (jacrev(partial(losses, backend)) for backend in ("eager", "triton"))
    torch.testing.assert_close(*(function(random_scores()) for function in of_backend))


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_forward_mode(loss: Loss, reduction: str) -> None:
    def of_scores(backend: str, scores: Tensor) -> Tensor:
        return loss(scores, LABELS, backend=backend, reduction=reduction)

    scores = random_scores()
    functions = [partial(of_scores, backend) for backend in ("eager", "triton")]
    torch.testing.assert_close(*(jvp(f, (scores,), (scores.flip(0),)) for f in functions))
    torch.testing.assert_close(*(hessian(f)(scores) for f in functions))
