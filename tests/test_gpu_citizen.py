"""PyTorch's modes, streams, graphs and threads on a GPU work with a loss and every argument."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from losses import Loss, each, exactly_equal, one_of_each, random_labels, random_scores
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device"),
]

N, C = 64, 1000
every_loss = each(one_of_each(5))
every_backend = pytest.mark.parametrize("backend", ["triton", "eager"])
with_margin = each([loss for loss in one_of_each(5) if loss.name != "lq_loss"])
MARGINS = {
    "of all": torch.tensor(0.5),
    "of classes": torch.linspace(0, 2, C),
    "of samples": torch.linspace(0, 2, N)[:, None],
}


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    scores, labels = random_scores(N, C, seed=seed), random_labels(N, n=C, seed=seed)
    scores[:8] = scores[:8].round()
    labels[3] = -100
    return scores.cuda(), labels.cuda()


def tensors(loss: Loss) -> dict[str, Any]:
    """All that a loss takes beside scores and labels."""
    given = {"normalizer": torch.tensor(50)}
    if loss.name != "lq_loss":
        given["margin"] = MARGINS["of samples"]
    weight = torch.linspace(0.5, 2, C).cuda(), torch.linspace(0, 1, N)[:, None].cuda()
    return {"weight": weight} | {name: x.cuda() for name, x in given.items()}


def step(loss: Loss, scores: Tensor, labels: Tensor, **options: Any) -> list[Tensor]:
    """Loss, gradient and hits."""
    leaf = scores.detach().requires_grad_()
    found, hits = loss(leaf, labels, return_topk_hits=True, **options)
    found.sum().backward()
    assert leaf.grad is not None
    return [found.detach(), leaf.grad, *hits]


def on_the_cpu(loss: Loss, scores: Tensor, labels: Tensor, **options: Any) -> list[Tensor]:
    moved = tree_map(lambda x: x.cpu() if isinstance(x, Tensor) else x, options)
    return step(loss, scores.double().cpu(), labels.cpu(), **moved)


def assert_close(found: list[Tensor], truth: list[Tensor]) -> None:
    for x, y, rtol, atol in zip(found, truth, (4e-6, 1e-4, 0, 0), (0, 1e-7, 0, 0), strict=True):
        torch.testing.assert_close(x.cpu(), y, rtol=rtol, atol=atol, check_dtype=False)


@every_loss
@every_backend
def test_every_argument(loss: Loss, backend: str) -> None:
    scores, labels = batch()
    truth = on_the_cpu(loss, scores, labels, **tensors(loss))
    assert_close(step(loss, scores, labels, **tensors(loss), backend=backend), truth)


@with_margin
@pytest.mark.parametrize("margin", MARGINS)
@every_backend
def test_margins(loss: Loss, margin: str, backend: str) -> None:
    scores, labels = batch()
    given = {"margin": MARGINS[margin].cuda(), "reduction": "none"}
    found = step(loss, scores, labels, **given, backend=backend)
    assert_close(found, on_the_cpu(loss, scores, labels, **given))


@every_loss
def test_a_normalizer_on_the_cpu(loss: Loss) -> None:
    scores, labels = batch()
    expected = step(loss, scores, labels, normalizer=50)
    exactly_equal(step(loss, scores, labels, normalizer=torch.tensor(50)), expected)


@contextmanager
def no_synchronisation() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@every_loss
@every_backend
def test_no_synchronisation(loss: Loss, backend: str) -> None:
    scores, labels = batch()
    given = tensors(loss) | {"backend": backend}
    normalizer = given.pop("normalizer")
    calls: list[dict[str, Any]] = [
        *({"normalizer": x} for x in (normalizer, 50, 50.0)),
        *({"reduction": reduction} for reduction in ("none", "mean", "sum")),
    ]
    for call in calls:
        # what is compiled at the first call may wait
        step(loss, scores, labels, **given, **call)
        with no_synchronisation():
            step(loss, scores, labels, **given, **call)


@every_loss
@every_backend
def test_cuda_graph(loss: Loss, backend: str) -> None:
    scores, labels = batch()
    given = tensors(loss)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(loss, scores, labels, **given, backend=backend)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step(loss, scores, labels, **given, backend=backend)
    for seed in (1, 2):
        for held, new in zip((scores, labels), batch(seed), strict=True):
            held.copy_(new)
        for x in tree_leaves(given):
            x.add_(1)
        graph.replay()
        exactly_equal(found, step(loss, scores, labels, **given, backend=backend))


@every_loss
@every_backend
def test_another_stream(loss: Loss, backend: str) -> None:
    scores, labels = batch()
    expected = step(loss, scores, labels, **tensors(loss), backend=backend)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        # what is waited for on this stream alone
        torch.cuda._sleep(10_000_000)
        late = scores.clone()
        found = step(loss, late, labels, **tensors(loss), backend=backend)
    side.synchronize()
    exactly_equal(found, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two devices")
@every_loss
@every_backend
def test_a_device_that_is_not_the_current_one(loss: Loss, backend: str) -> None:
    scores, labels = batch()
    expected = step(loss, scores, labels, **tensors(loss), backend=backend)
    given = tree_map(lambda x: x.to("cuda:1"), tensors(loss))
    found = step(loss, scores.to("cuda:1"), labels.to("cuda:1"), **given, backend=backend)
    assert {x.device.index for x in found} == {1}
    exactly_equal([x.to("cuda:0") for x in found], expected)


@every_backend
def test_threads(backend: str) -> None:
    scores, labels = batch()
    losses = one_of_each(5)
    expected = [step(loss, scores, labels, **tensors(loss), backend=backend) for loss in losses]

    def run(first: int) -> list[list[Tensor]]:
        with torch.cuda.stream(torch.cuda.Stream()):
            order = [(first + i) % len(losses) for i in range(len(losses))]
            found = {
                i: step(losses[i], scores, labels, **tensors(losses[i]), backend=backend)
                for i in order
            }
            torch.cuda.current_stream().synchronize()
        return [found[i] for i in range(len(losses))]

    torch.cuda.synchronize()
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(run, range(32)):
            exactly_equal(found, expected)


@every_loss
@every_backend
def test_deterministic_mode(loss: Loss, backend: str) -> None:
    scores, labels = batch()
    expected = step(loss, scores, labels, **tensors(loss), backend=backend)
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(3):
            found = step(loss, scores, labels, **tensors(loss), backend=backend)
            exactly_equal(found[2:], expected[2:])
            torch.testing.assert_close(found[:2], expected[:2])
            again = step(loss, scores, labels, **tensors(loss), backend=backend)
            exactly_equal(again, found)
    finally:
        torch.use_deterministic_algorithms(False)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_and_scaler(loss: Loss, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(32, C, bias=False).cuda()
    x, labels = random_scores(N, 32).cuda(), batch()[1]
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**20)
    optimizer = torch.optim.SGD(model.parameters())
    with torch.autocast("cuda", dtype=dtype):
        scores = model(x)
        found = loss(scores, labels, normalizer=1e6)
    assert scores.dtype == dtype
    assert found.dtype == torch.float32
    scaler.scale(found).backward()
    scaler.unscale_(optimizer)
    _, gradient = loss.with_gradient(scores.double(), labels, normalizer=1e6)
    truth = gradient.t() @ x.double()
    atol = 8 * torch.finfo(dtype).eps * float(truth.abs().max())
    assert model.weight.grad is not None
    torch.testing.assert_close(model.weight.grad.double(), truth, rtol=0, atol=atol)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # inductor's own
@every_loss
def test_torch_compile(loss: Loss, compiler: None) -> None:
    def run(scores: Tensor, labels: Tensor, given: dict[str, Any]) -> Any:
        return loss(scores, labels, return_topk_hits=True, **given)

    compiled: Callable[..., Any] = torch.compile(run, fullgraph=True, dynamic=True)
    scores, labels = batch()
    for n_rows in (N, 33, 17):
        weight, of_samples = tensors(loss)["weight"]
        given = tensors(loss) | {"weight": (weight, of_samples[:n_rows])}
        if "margin" in given:
            given["margin"] = given["margin"][:n_rows]
        rows, of_rows = scores[:n_rows], labels[:n_rows]
        leaf = rows.clone().requires_grad_()
        found, hits = compiled(leaf, of_rows, given)
        found.backward()
        torch.testing.assert_close(
            [found.detach(), leaf.grad, *hits], step(loss, rows, of_rows, **given)
        )


@with_margin
@every_backend
def test_margins_past_two_to_the_31(loss: Loss, backend: str, memory_given_back: None) -> None:
    scores, labels = batch()
    scores, labels = scores[:4], labels[:4]
    near = MARGINS["of samples"][:4].half().cuda()
    far = torch.empty(3 * 2**30 + 1, dtype=torch.float16, device="cuda")
    far = far.as_strided((4, 1), (2**30, 1)).copy_(near)
    expected = step(loss, scores, labels, margin=near, backend=backend)
    exactly_equal(step(loss, scores, labels, margin=far, backend=backend), expected)
