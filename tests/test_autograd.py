"""Autograd, torch.compile and the registered operators, on the CPU without Triton."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from triton_topk import ops, smooth_svm
from triton_topk.nn import SmoothSVMLoss
from triton_topk.parameters import HardSVM, Loss, Lq, SmoothSVM, SmoothSVMLq

REDUCTIONS = ("none", "mean", "sum")
operators = torch.ops.triton_topk


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the package allocates without a value holds NaN, so that nothing left unwritten passes."""

    def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def allocate_nan(*args: Any, **kwargs: Any) -> Tensor:
            out = allocate(*args, **kwargs)
            caller = sys._getframe(1).f_globals.get("__name__", "")
            if caller.split(".")[0] == "triton_topk" and out.is_floating_point():
                out.fill_(float("nan"))
            return out

        return allocate_nan

    for owner, name in (
        (torch, "empty"),
        (torch, "empty_like"),
        (torch, "empty_strided"),
        (Tensor, "new_empty"),
        (Tensor, "new_empty_strided"),
    ):
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))


poisoned = pytest.mark.usefixtures("poison")


@pytest.fixture
def compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def random_scores(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def random_labels(*shape: int, n: int, seed: int = 1) -> Tensor:
    return torch.randint(n, shape, generator=torch.Generator().manual_seed(seed))


@poisoned
def test_the_poison_works():
    scores = torch.zeros(3, 11)
    assert ops._new_losses(scores).isnan().all()
    assert ops._new_gradient(scores).isnan().all()
    assert not torch.empty(0).isnan().any()


@poisoned
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("k", "n"), [(1, 2), (3, 4), (5, 21), (5, 64), (33, 70), (260, 300)])
@pytest.mark.parametrize("gradient", ["exact", "taylor"])
def test_every_output_is_written(dtype, reduction, k, n, gradient):
    scores = random_scores(5, n, dtype=dtype)
    scores[3, 1:] = -float("inf")
    labels = torch.tensor([0, 1, -100, 0, 0])
    for layout in (scores, scores.t().contiguous().t()):
        leaf = layout.detach().requires_grad_()
        loss = smooth_svm(leaf, labels, k, reduction=reduction, gradient=gradient)
        loss.sum().backward()
        assert not loss.isnan().any()
        assert not leaf.grad.isnan().any()
        without = smooth_svm(leaf.detach(), labels, k, reduction=reduction, gradient=gradient)
        torch.testing.assert_close(without, loss.detach())


# First derivatives


@poisoned
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("k", "n"), [(1, 2), (1, 9), (2, 3), (3, 12), (5, 6), (5, 20), (12, 30)])
def test_gradcheck(k, n, reduction, weighted):
    scores = random_scores(4, n, dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, n - 1, -100, n // 2])
    weight = torch.linspace(0.5, 2, n, dtype=torch.float64) if weighted else None

    def loss(s: Tensor) -> Tensor:
        return smooth_svm(s, labels, k, tau=0.8, margin=0.7, weight=weight, reduction=reduction)

    assert torch.autograd.gradcheck(loss, scores)


@pytest.mark.parametrize("shape", [(9,), (3, 9, 2)])
def test_gradcheck_of_other_shapes(shape):
    scores = random_scores(*shape, dtype=torch.float64).requires_grad_()
    labels = torch.tensor(4) if len(shape) == 1 else random_labels(3, 2, n=9)
    assert torch.autograd.gradcheck(lambda s: smooth_svm(s, labels, 3, reduction="none"), scores)


def test_gradcheck_of_a_long_series():
    scores = random_scores(4, 12, dtype=torch.float64).requires_grad_()
    labels = random_labels(4, n=12)
    assert torch.autograd.gradcheck(
        lambda s: smooth_svm(s, labels, 3, gradient="taylor", order=9, reduction="none"), scores
    )


def test_gradcheck_of_column_major_and_expanded_scores():
    labels = random_labels(4, n=9)
    columns = random_scores(9, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: smooth_svm(s.t(), labels, 3), columns)
    row = random_scores(1, 9, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: smooth_svm(s.expand(4, 9), labels, 3), row)


# What is done with the gradient


@poisoned
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_scaled_loss(dtype, reduction):
    scores, labels = random_scores(5, 11, dtype=dtype), random_labels(5, n=11)
    a, b = scores.clone().requires_grad_(), scores.double().requires_grad_()
    (-3.5 * smooth_svm(a, labels, reduction=reduction)).backward()
    smooth_svm(b, labels, reduction=reduction).backward()
    torch.testing.assert_close(a.grad, (-3.5 * b.grad).to(dtype))


@poisoned
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_backward_again(dtype, reduction, weighted):
    scores = random_scores(5, 11, dtype=dtype).requires_grad_()
    labels = torch.tensor([0, -100, 10, 4, 4])
    weight = torch.linspace(0.5, 2, 11) if weighted else None
    loss = smooth_svm(scores, labels, 3, weight=weight, reduction=reduction)
    (first,) = torch.autograd.grad(loss, scores, torch.full_like(loss, 2), retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(loss, scores, torch.full_like(loss, -4), retain_graph=True)
    (third,) = torch.autograd.grad(loss, scores)
    torch.testing.assert_close(first, kept, rtol=0, atol=0)
    torch.testing.assert_close(second, -2 * kept)
    torch.testing.assert_close(third, kept / 2)


def test_backward_again_accumulates():
    scores, labels = random_scores(5, 11).requires_grad_(), random_labels(5, n=11)
    loss = smooth_svm(scores, labels)
    loss.backward(retain_graph=True)
    once = scores.grad.clone()
    loss.backward(retain_graph=True)
    torch.testing.assert_close(scores.grad, 2 * once)
    loss.backward()
    torch.testing.assert_close(scores.grad, 3 * once)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_backward_again_without_retain_graph(reduction):
    scores, labels = random_scores(5, 11).requires_grad_(), random_labels(5, n=11)
    loss = smooth_svm(scores, labels, reduction=reduction).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_scores_changed_before_the_gradient_is_recomputed():
    leaf, labels = random_scores(5, 11).requires_grad_(), random_labels(5, n=11)
    scores = leaf * 1
    loss = smooth_svm(scores, labels, reduction="none").sum()
    scores.detach().mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@poisoned
@pytest.mark.parametrize("k", [1, 5])
def test_any_upstream_gradient_of_the_losses(k):
    scores, labels = random_scores(5, 11), torch.tensor([0, -100, 10, 4, 4])
    rows = scores.clone().requires_grad_()
    smooth_svm(rows, labels, k, reduction="sum").backward()
    for upstream in (random_scores(5, seed=7), random_scores(10, seed=8)[::2], torch.zeros(5)):
        leaf = scores.clone().requires_grad_()
        smooth_svm(leaf, labels, k, reduction="none").backward(upstream)
        torch.testing.assert_close(leaf.grad, upstream[:, None] * rows.grad)


def test_accumulation_over_parts_of_a_batch():
    scores, labels = random_scores(8, 11), random_labels(8, n=11)
    model = torch.nn.Linear(11, 11)
    smooth_svm(model(scores), labels).backward()
    whole = model.weight.grad.clone()
    model.zero_grad()
    for part in (slice(0, 3), slice(3, 4), slice(4, 8)):
        size = part.stop - part.start
        (smooth_svm(model(scores[part]), labels[part]) * size / 8).backward()
    torch.testing.assert_close(model.weight.grad, whole)


def test_two_losses_of_the_same_scores():
    scores, labels = random_scores(5, 11).requires_grad_(), random_labels(5, n=11)
    gradients = [
        torch.autograd.grad(smooth_svm(scores, labels, k, reduction=reduction).sum(), scores)[0]
        for k, reduction in ((1, "mean"), (5, "none"))
    ]
    total = smooth_svm(scores, labels, 1) + smooth_svm(scores, labels, 5, reduction="none").sum()
    total.backward()
    torch.testing.assert_close(scores.grad, sum(gradients))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_no_second_derivative(reduction):
    scores, labels = random_scores(5, 11).requires_grad_(), random_labels(5, n=11)
    loss = smooth_svm(scores, labels, reduction=reduction).sum()
    # an error, not a gradient that autograd takes for a constant

    def differentiate_twice() -> None:
        (gradient,) = torch.autograd.grad(loss, scores, create_graph=True)
        (gradient.square().sum() + scores.sum()).backward()

    with pytest.raises(RuntimeError, match=r"(?i)twice|second|not implement|once_differentiable"):
        differentiate_twice()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_gradient_is_computed_where_none_is_wanted(reduction, mode, monkeypatch):
    wanted = []
    run = ops.eager.run

    def spy(*args: Any, **kwargs: Any) -> None:
        wanted.append(kwargs.get("gradient") is not None)
        run(*args, **kwargs)

    monkeypatch.setattr(ops.eager, "run", spy)
    scores, labels = random_scores(5, 11), random_labels(5, n=11)
    expected = smooth_svm(scores, labels, reduction=reduction)
    scores.requires_grad_()
    with mode():
        loss = smooth_svm(scores, labels, reduction=reduction)
    assert not expected.requires_grad
    assert not loss.requires_grad
    assert wanted == [False, False]
    torch.testing.assert_close(loss.clone(), expected)


@poisoned
def test_inference_tensors():
    with torch.inference_mode():
        scores, labels = random_scores(5, 11), random_labels(5, n=11)
        loss = smooth_svm(scores, labels)
    torch.testing.assert_close(loss.clone(), smooth_svm(scores.clone(), labels.clone()))


# Mixed precision


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_autocast(reduction):
    torch.manual_seed(0)
    model, x, labels = torch.nn.Linear(8, 11), torch.randn(5, 8), random_labels(5, n=11)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = model(x)
        loss = smooth_svm(scores, labels, 3, reduction=reduction)
    assert scores.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    outside = smooth_svm(scores.detach(), labels, 3, reduction=reduction)
    torch.testing.assert_close(loss.detach(), outside, rtol=0, atol=0)
    loss.sum().backward()
    actual = model.weight.grad.clone()
    model.zero_grad()
    smooth_svm(model(x), labels, 3, reduction=reduction).sum().backward()
    torch.testing.assert_close(actual, model.weight.grad, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_small_float16_gradients_survive_in_a_scaled_loss(reduction):
    scores = (8 * random_scores(64, 1000)).half()
    labels = random_labels(64, n=1000)
    scale = 65536.0 if reduction == "mean" else 1024.0
    truth = scores.double().requires_grad_()
    smooth_svm(truth, labels, reduction=reduction).sum().backward()
    tiny = torch.finfo(torch.float16).smallest_normal
    rescued = (truth.grad.abs() < tiny / 64) & (truth.grad.abs() * scale > tiny)
    assert rescued.sum() > 1000

    scores.requires_grad_()
    (scale * smooth_svm(scores, labels, reduction=reduction).sum()).backward()
    gradient = scores.grad.double() / scale
    torch.testing.assert_close(gradient[rescued], truth.grad[rescued], rtol=1e-3, atol=0)


# torch.compile


class Model(torch.nn.Module):
    def __init__(self, reduction: str = "mean", weighted: bool = False, **arguments: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(8, 11)
        weight = torch.linspace(0.5, 2, 11) if weighted else None
        self.loss = SmoothSVMLoss(3, reduction=reduction, weight=weight, **arguments)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.loss(self.layer(x), labels)


def same_as_without_compiling(compiled: Callable[..., Tensor], model: Model, n_rows: int) -> None:
    x = random_scores(n_rows, 8, seed=n_rows)
    labels = random_labels(n_rows, n=11)
    labels[0] = -100
    results = []
    for function in (compiled, model):
        model.zero_grad()
        leaf = x.clone().requires_grad_()
        loss = function(leaf, labels)
        loss.backward(torch.linspace(1, 2, loss.numel()).reshape(loss.shape))
        results.append((loss.detach(), leaf.grad, model.layer.weight.grad.clone()))
    torch.testing.assert_close(*results)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_compiled_model(reduction, weighted):
    model = Model(reduction, weighted)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    same_as_without_compiling(compiled, model, 6)


@pytest.mark.usefixtures("compiler")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # inductor's own
def test_compiled_model_with_inductor():
    model = Model(weighted=True, gradient="taylor")
    compiled = torch.compile(model, fullgraph=True)
    same_as_without_compiling(compiled, model, 6)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_compiled_model_with_batches_of_any_size(reduction):
    model = Model(reduction)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for n_rows in (6, 7, 16, 33):
            same_as_without_compiling(compiled, model, n_rows)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_compiled_model_with_batches_marked_dynamic(reduction):
    model = Model(reduction)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")

    def marked(x: Tensor, labels: Tensor) -> Tensor:
        torch._dynamo.mark_dynamic(x, 0)
        torch._dynamo.mark_dynamic(labels, 0)
        return compiled(x, labels)

    with torch._dynamo.config.patch(error_on_recompile=True):
        for n_rows in (6, 7, 16, 33):
            same_as_without_compiling(marked, model, n_rows)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_compiled_without_gradient(reduction):
    model = Model(reduction)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x, labels = random_scores(6, 8), random_labels(6, n=11)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, labels), model(x, labels))


@pytest.mark.usefixtures("compiler")
def test_compiled_segmentation():
    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        return smooth_svm(scores, labels, 3)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    scores, labels = random_scores(2, 11, 3, 4), random_labels(2, 3, 4, n=11)
    gradients = []
    for function in (compiled, loss):
        leaf = scores.clone().requires_grad_()
        function(leaf, labels).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


# Registered operators


def operator_inputs() -> Iterator[tuple[str, Tensor, Tensor, Tensor | None, Loss]]:
    labels = torch.tensor([0, -100, 10, 4, 4])
    weight = torch.linspace(0.5, 2, 11)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        scores = random_scores(5, 11, dtype=dtype)
        yield "smooth_svm", scores, labels, None, SmoothSVM(3, 1.0, 1.0, None, -100, None)
        yield "lq_loss", scores, labels, None, Lq(0.7, None, -100, None)
    scores = random_scores(5, 11)
    cut = random_scores(5, 13)[:, :11]
    yield "smooth_svm", scores, labels.int(), weight, SmoothSVM(1, 0.5, 0.0, None, -100, "eager")
    yield "smooth_svm", scores, labels, weight, SmoothSVM(5, 2.0, 1.0, 2, -100, None)
    yield "smooth_svm", cut, labels, None, SmoothSVM(5, 1.0, 1.0, None, -100, None)
    yield "smooth_svm", scores[:1], labels[:1], None, SmoothSVM(5, 1.0, 1.0, None, -100, None)
    expanded = scores[:1].expand(5, 11)
    yield "smooth_svm", expanded, labels, None, SmoothSVM(10, 1.0, 1.0, None, -100, None)
    yield "hard_svm", scores, labels.int(), weight, HardSVM(3, 1.0, -100, "eager")
    yield "hard_svm", cut, labels, None, HardSVM(5, 0.0, -100, None)
    yield "lq_loss", scores, labels, weight, Lq(0.0, 0.3, -100, None)
    yield "lq_loss", expanded, labels, None, Lq(1.0, None, -100, "eager")
    mixed = SmoothSVMLq(3, 1.0, 1.0, None, 0.7, None, 0.5, -100, None)
    yield "smooth_svm_lq", scores, labels, weight, mixed
    yield "smooth_svm_lq", cut, labels, None, mixed._replace(order=2, truncation=0.2)


INPUTS = list(operator_inputs())


@pytest.mark.parametrize("inputs", INPUTS, ids=range(len(INPUTS)))
@pytest.mark.parametrize("requires_grad", [False, True])
def test_operator(inputs, requires_grad):
    name, scores, labels, weight, loss = inputs
    scores = scores.detach().requires_grad_(requires_grad)
    torch.library.opcheck(getattr(operators, name).default, (scores, labels, weight, *loss))


@pytest.mark.parametrize("inputs", INPUTS, ids=range(len(INPUTS)))
@pytest.mark.parametrize("normalized", [False, True])
def test_operator_with_gradient(inputs, normalized):
    name, scores, labels, weight, loss = inputs
    normalizer = torch.tensor(3.0) if normalized else None
    operator = getattr(operators, f"{name}_with_gradient")
    torch.library.opcheck(operator.default, (scores, labels, weight, normalizer, *loss))


@pytest.mark.parametrize("inputs", INPUTS, ids=range(len(INPUTS)))
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("expanded", [False, True])
def test_operator_gradient(inputs, normalized, expanded):
    name, scores, labels, weight, loss = inputs
    normalizer = torch.tensor(3.0) if normalized else None
    n_rows = len(labels)
    upstream = torch.tensor(2.0).expand(n_rows) if expanded else random_scores(n_rows)
    operator = getattr(operators, f"{name}_gradient")
    torch.library.opcheck(operator.default, (scores, labels, weight, normalizer, upstream, *loss))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_operator_scale(dtype):
    factor = torch.tensor(3.0, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    gradient = random_scores(5, 11, dtype=dtype)
    torch.library.opcheck(operators.scale_.default, (gradient, factor))
    expected = (gradient.to(factor.dtype) * factor).to(dtype)
    operators.scale_(gradient, factor)
    torch.testing.assert_close(gradient, expected)
