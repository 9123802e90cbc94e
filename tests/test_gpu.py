"""The kernels on a GPU, compiled, against the eager backend in float64 on the CPU.

Most of the time goes into compiling, on one core for each process of pytest-xdist: -n 8.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import in_shards
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import triton_topk
from triton_topk import eager
from triton_topk.batch import _FEW_LABELS, Batch
from triton_topk.kernels.backend import kernels
from triton_topk.losses import HardSVM, Lq, Mixture, SmoothSVM
from triton_topk.losses import Loss as Parameters
from triton_topk.summary import merge
from triton_topk.topk_svm import MaxTopkSVM, SmoothTop1SVM

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device"),
]


Loss = Callable[..., Tensor]
LOSSES: dict[str, Loss] = {
    "smooth_svm": triton_topk.smooth_svm,
    "hard_svm": triton_topk.hard_svm,
    "lq_loss": triton_topk.lq_loss,
    "cross-entropy": partial(triton_topk.lq_loss, q=0.0),
    "truncated": partial(triton_topk.lq_loss, truncation=1e-4),
    "smooth_svm_lq": triton_topk.smooth_svm_lq,
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def both(loss: Loss, scores: Tensor, labels: Tensor, **kwargs: object) -> tuple[Tensor, ...]:
    """Losses and gradients on the GPU, and the true ones."""
    found: list[Tensor] = []
    for device, dtype in (("cuda", scores.dtype), ("cpu", torch.float64)):
        leaf = scores.detach().to(device, dtype, copy=True).requires_grad_()
        losses = loss(leaf, labels.to(device), reduction="none", **kwargs)
        losses.sum().backward()
        assert leaf.grad is not None
        found += [losses.detach().cpu().double(), leaf.grad.cpu().double()]
    return tuple(found)


def assert_accurate(found: tuple[Tensor, ...], dtype: torch.dtype) -> None:
    losses, gradients, true_losses, true_gradients = found
    # the exponentials of a GPU are good to 2 units in the last place
    torch.testing.assert_close(losses, true_losses, rtol=2e-6, atol=1e-30)
    largest = true_gradients.abs().amax(1, keepdim=True)
    rounding = torch.finfo(dtype).eps / 2 + 4e-6
    assert ((gradients - true_gradients).abs() <= rounding * largest + 6e-8).all()


DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
WIDTHS = [21, 100, 1000, 1001, 4096, 21_841, 50_257, 131_072]

# Each is a kernel for the losses and one for the gradient, seconds of compilation.
SMOOTH_SVM = [
    *((5, n, dtype) for n in WIDTHS for dtype in DTYPES),
    *((k, 1000, dtype) for k in (1, 2, 3, 8, 10, 16) for dtype in (torch.float32, torch.bfloat16)),
    *((16, n, torch.float32) for n in (21, 4096, 131_072)),
    *((5, 1_048_576, dtype) for dtype in (torch.float32, torch.bfloat16)),
    (20, 1000, torch.float32),
]
OTHERS = [
    *((5, n, dtype) for n in WIDTHS for dtype in (torch.float32, torch.bfloat16)),
    *((k, 1000, torch.float32) for k in (1, 16)),
    (5, 1000, torch.float64),
]


@pytest.mark.parametrize(("k", "n", "dtype"), SMOOTH_SVM)
def test_smooth_svm(k: int, n: int, dtype: torch.dtype) -> None:
    torch.manual_seed(n + k)
    scores = (torch.randn(9, n) * 2).to(dtype)
    labels = torch.randint(n, (9,))
    for tau in (0.1, 1.0, 10.0):
        assert_accurate(both(triton_topk.smooth_svm, scores, labels, k=k, tau=tau), dtype)


@pytest.mark.parametrize(("k", "n", "dtype"), OTHERS)
def test_hard_svm_and_the_mixture(k: int, n: int, dtype: torch.dtype) -> None:
    torch.manual_seed(n + k)
    scores = (torch.randn(9, n) * 2).to(dtype)
    labels = torch.randint(n, (9,))
    for loss in (triton_topk.hard_svm, triton_topk.smooth_svm_lq):
        assert_accurate(both(loss, scores, labels, k=k), dtype)


@pytest.mark.parametrize("q", [0.0, 1e-7, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("n", WIDTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_lq_loss(q: float, n: int, dtype: torch.dtype) -> None:
    torch.manual_seed(n)
    scores = (torch.randn(9, n) * 2).to(dtype)
    labels = torch.randint(n, (9,))
    # the label far below and far above the others
    for row, gap in enumerate((30.0, 100.0, 1000.0, -30.0)):
        scores[row, labels[row]] = scores[row].max() - gap
    assert_accurate(both(triton_topk.lq_loss, scores, labels, q=q), dtype)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_taylor(order: int) -> None:
    torch.manual_seed(order)
    scores, labels = torch.randn(8, 1000), torch.randint(1000, (8,))
    gpu, _, true, _ = both(triton_topk.smooth_svm, scores, labels, gradient="taylor", order=order)
    torch.testing.assert_close(gpu, true, rtol=2e-6, atol=0)


@every_loss
def test_hard_rows(loss: Loss) -> None:
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
    losses, gradients, true_losses, true_gradients = both(loss, scores, labels)
    torch.testing.assert_close(losses, true_losses, rtol=2e-6, atol=0)
    torch.testing.assert_close(gradients, true_gradients, rtol=1e-4, atol=2e-6)


@every_loss
def test_nan_and_wrong_labels_stay_in_their_rows(loss: Loss) -> None:
    torch.manual_seed(0)
    scores = torch.randn(4, 1000, device="cuda")
    labels = torch.tensor([5, 1000, -7, 9], device="cuda")
    scores[3, 17] = math.nan
    scores.requires_grad_()
    losses = loss(scores, labels, reduction="none")
    losses.sum().backward()
    assert losses.isnan().tolist() == [False, True, True, True]
    assert scores.grad is not None
    assert scores.grad.isnan().all(1).tolist() == [False, True, True, True]
    assert not scores.grad[0].isnan().any()
    weight = torch.rand(1000, device="cuda")
    for given in (weight, (weight, torch.rand(4, 1, device="cuda"))):
        assert loss(scores, labels, weight=given).isnan()


@every_loss
def test_the_second_call_is_the_first(loss: Loss) -> None:
    """A compiled kernel is kept for another batch, other alignment, another stream."""
    torch.manual_seed(0)
    whole = torch.randn(65, 1008, device="cuda")
    labels = torch.randint(1000, (65,), device="cuda")
    views = [whole[:64, :1000], whole[:1, :1000], whole[:64, 1:1001], whole[:33, 4:1004]]
    streams = [torch.cuda.current_stream(), torch.cuda.Stream()]
    for view in [*views, *views]:
        for stream in streams:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                leaf = view.detach().clone(memory_format=torch.preserve_format).requires_grad_()
                found = loss(view, labels[: len(view)], reduction="none")
                mean = loss(leaf, labels[: len(view)])
                mean.backward()
            stream.synchronize()
            rows = view.double().cpu().requires_grad_()
            expected = loss(rows, labels[: len(view)].cpu(), reduction="none")
            expected.mean().backward()
            torch.testing.assert_close(found.double().cpu(), expected.detach(), rtol=2e-6, atol=0)
            assert leaf.grad is not None
            assert rows.grad is not None
            torch.testing.assert_close(leaf.grad.double().cpu(), rows.grad, rtol=1e-4, atol=1e-8)


@every_loss
def test_no_host_synchronisation(loss: Loss) -> None:
    scores = torch.randn(64, 1000, device="cuda", requires_grad=True)
    labels = torch.randint(1000, (64,), device="cuda")
    weight = torch.rand(1000, device="cuda"), torch.rand(64, 1, device="cuda")

    def step() -> None:
        for reduction in ("mean", "sum", "none"):
            losses = loss(scores, labels, weight=weight, reduction=reduction)
            (2 * losses.sum()).backward()

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@every_loss
def test_bits_depend_on_neither_batch_nor_run(loss: Loss) -> None:
    torch.manual_seed(0)
    scores = torch.randn(37, 1000, device="cuda")
    labels = torch.randint(1000, (37,), device="cuda")

    def run(rows: slice) -> tuple[Tensor, Tensor]:
        leaf = scores[rows].clone().requires_grad_()
        losses = loss(leaf, labels[rows], reduction="none")
        losses.sum().backward()
        assert leaf.grad is not None
        return losses, leaf.grad

    whole = run(slice(None))
    for _ in range(100):
        assert all(map(torch.equal, run(slice(None)), whole))
    for found, alone in zip(whole, run(slice(7, 8)), strict=True):
        assert torch.equal(found[7:8], alone)


@pytest.mark.parametrize(
    ("loss", "k", "n", "dtype"),
    [
        *(("smooth_svm", k, n, torch.float32) for k in (10, 16) for n in (21, 128, 1001)),
        *((loss, 5, 1000, torch.float64) for loss in ("smooth_svm", "smooth_svm_lq")),
        *((loss, 5, 1000, torch.float32) for loss in ("smooth_svm", "smooth_svm_lq", "hard_svm")),
        *((loss, 5, 131_072, torch.float32) for loss in ("smooth_svm", "smooth_svm_lq")),
        *(("lq_loss", None, n, torch.float32) for n in (1000, 131_072)),
        ("lq_loss", None, 1000, torch.float64),
    ],
)
def test_equal_scores_have_equal_gradients(
    loss: str, k: int | None, n: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(n)
    scores = (torch.randn(8, n) * 4).round().div(2).to("cuda", dtype).requires_grad_()
    labels = torch.randint(n, (8,)).cuda()
    options = {} if k is None else {"k": k}
    (gradient,) = torch.autograd.grad(LOSSES[loss](scores, labels, **options), scores)
    rows = zip(scores.tolist(), gradient.tolist(), labels.tolist(), strict=True)
    for row, of_row, label in rows:
        del row[label], of_row[label]
        assert len(set(zip(row, of_row, strict=True))) == len(set(row))


@every_loss
@pytest.mark.parametrize("n", [1000, 5000])
@pytest.mark.parametrize(("few", "counted"), [(7, 0), (7, 5), (7, 7), (400, 300)])
def test_a_kernel_counts_few_labels(loss: Loss, few: int, counted: int, n: int) -> None:
    """The mean of a batch is the same with rows of ignored labels, with which its labels are not few."""
    torch.manual_seed(counted)
    scores = torch.randn(few + _FEW_LABELS, n, device="cuda")
    labels = torch.randint(n, scores.shape[:1], device="cuda")
    labels[counted:few] = labels[few:] = -100
    found = []
    for leaf in (scores[:few].clone().requires_grad_(), scores.requires_grad_()):
        mean = loss(leaf, labels[: len(leaf)])
        gradients = [torch.autograd.grad(mean, leaf, retain_graph=True)[0] for _ in range(2)]
        found.append((mean, *(gradient[:few] for gradient in gradients)))
    of_few, of_all = found
    # losses are added up in another order
    torch.testing.assert_close(of_all[0], of_few[0], rtol=2e-6, atol=0, equal_nan=True)
    torch.testing.assert_close(of_all[1:], of_few[1:], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("n_rows", [5, 6000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loss_that_is_scaled(n_rows: int, dtype: torch.dtype) -> None:
    """Fewer scores than the programs that scale take at once, and more."""
    torch.manual_seed(0)
    scores = torch.randn(n_rows, 1001, device="cuda").to(dtype)
    labels = torch.randint(1001, (n_rows,), device="cuda")
    once, four_times = (
        torch.autograd.grad(factor * triton_topk.lq_loss(leaf, labels, reduction="sum"), leaf)[0]
        for factor, leaf in ((1, scores.clone().requires_grad_()), (4, scores.requires_grad_()))
    )
    assert torch.equal(4 * once, four_times)


@every_loss
def test_offsets_past_two_to_the_31(loss: Loss, memory_given_back: None) -> None:
    base = torch.empty(3 * 2**30 + 64, dtype=torch.float16, device="cuda")
    scores = base.as_strided((4, 64), (2**30, 1))
    torch.manual_seed(0)
    small = torch.randn(4, 64, device="cuda").half()
    scores.copy_(small)
    labels = torch.randint(64, (4,), device="cuda")
    found = loss(scores, labels, reduction="none")
    assert torch.equal(found, loss(small, labels, reduction="none"))


@every_loss
def test_cuda_graph(loss: Loss) -> None:
    scores = torch.randn(16, 1000, device="cuda", requires_grad=True)
    labels = torch.randint(1000, (16,), device="cuda")
    scores.grad = torch.zeros_like(scores)

    def step() -> Tensor:
        assert scores.grad is not None
        scores.grad.zero_()
        mean = loss(scores, labels)
        mean.backward()
        return mean

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        mean = step()
    with torch.no_grad():
        scores.copy_(torch.randn_like(scores))
    graph.replay()
    torch.testing.assert_close(mean, loss(scores, labels))


SHARDED = [
    SmoothSVM(5, 1.0, 1.0, hits=5),
    SmoothSVM(1, 0.5, 1.0),
    HardSVM(5, 1.0, hits=5),
    Lq(0.7, hits=5),
    Mixture(5, 1.0, 1.0, None, 0.7, None, 0.3, hits=5),
]


@pytest.mark.parametrize("loss", SHARDED, ids=str)
@pytest.mark.parametrize(
    ("widths", "dtype"),
    [
        ((500, 0, 500), torch.float32),
        ((4096, 4096, 3, 1001), torch.bfloat16),
        ((40_000, 70_000), torch.float32),
        ((1000, 999), torch.float64),
    ],
)
def test_shards(loss: Parameters, widths: tuple[int, ...], dtype: torch.dtype) -> None:
    """Each shard of the classes is summarized and computed on this GPU."""
    n = sum(widths)
    torch.manual_seed(n)
    scores, labels = (torch.randn(16, n) * 2).to(dtype), torch.randint(n, (16,))
    scores[0] = scores[0].round()
    labels[3] = -100

    def outputs(like: Tensor) -> dict[str, Tensor]:
        kind = torch.float64 if like.dtype == torch.float64 else torch.float32
        out = {
            "losses": like.new_full((16,), math.nan, dtype=kind),
            "gradient": torch.full_like(like, math.nan),
        }
        if loss.hits is not None:
            out["hits"] = like.new_zeros((16, 2), dtype=torch.bool)
        return out

    def run(rows: slice) -> dict[str, Tensor]:
        out = outputs(scores.cuda())
        found = {name: x[rows] for name, x in out.items()}
        batch = Batch(scores[rows].cuda(), labels[rows].cuda())
        in_shards.run([kernels()] * len(widths), batch, loss, widths, **found)
        return {name: x.cpu() for name, x in found.items()}

    true = outputs(scores.double())
    eager.run(Batch(scores.double(), labels), loss, **true)
    found = run(slice(None))
    results = found["losses"].double(), found["gradient"].double()
    assert_accurate((*results, true["losses"], true["gradient"]), dtype)
    if loss.hits is not None:
        assert torch.equal(found["hits"], true["hits"])
    for rows in (slice(None), slice(7, 8)):
        assert all(torch.equal(x, found[name][rows]) for name, x in run(rows).items())


@pytest.mark.parametrize("loss", SHARDED, ids=str)
def test_no_host_synchronisation_of_shards(loss: Parameters) -> None:
    batch = Batch(torch.randn(16, 1000, device="cuda"), torch.randint(1000, (16,), device="cuda"))
    gradient = torch.zeros(16, 500, device="cuda")

    def step() -> None:
        local = in_shards.localize(batch, loss, (500, 500))
        merged = merge(
            torch.stack([in_shards.summarize(kernels(), *of) for of in local]), loss.form
        )
        for of_shard, of_loss, _ in local:
            kernels().run(of_shard._replace(summary=merged), of_loss, gradient=gradient)

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_equals_cross_entropy() -> None:
    torch.manual_seed(0)
    scores = torch.randn(32, 1000, device="cuda")
    labels = torch.randint(1000, (32,), device="cuda")
    expected = F.cross_entropy(scores, labels)
    torch.testing.assert_close(triton_topk.smooth_svm(scores, labels, 1, margin=0.0), expected)
    torch.testing.assert_close(triton_topk.lq_loss(scores, labels, 0.0), expected)


@pytest.mark.parametrize("criterion", [SmoothTop1SVM(2), MaxTopkSVM(2, k=1)], ids=repr)
def test_a_criterion_with_the_authors_names_follows_cuda(criterion: torch.nn.Module) -> None:
    scores, labels = torch.tensor([[2.0, 1.0]]), torch.tensor([1])
    expected = criterion(scores, labels)
    assert criterion.cuda() is criterion
    assert criterion.labels.is_cuda
    torch.testing.assert_close(criterion(scores.cuda(), labels.cuda()).cpu(), expected)


def test_pruning() -> None:
    torch.manual_seed(0)
    loss = triton_topk.nn.TruncatedLqLoss(12, truncation=0.5).to("cuda")
    scores = torch.randn(12, 5, device="cuda", requires_grad=True)
    labels = scores.argmax(1)
    labels[:4] = scores[:4].argmin(1)
    indices = torch.arange(12, device="cuda")
    with torch.no_grad():
        scores *= 20
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss.prune(scores, labels, indices)
        loss(scores, labels, indices).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert scores.grad is not None
    kept = loss.kept.tolist()
    assert kept[:4] == [False] * 4
    assert sum(kept[4:]) >= 6
    assert scores.grad[loss.kept == 0].count_nonzero() == 0
