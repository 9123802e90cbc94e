"""Layouts, the normalizer and the way past the operators, around the kernel of a loss, work in Triton's interpreter."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from losses import exactly_equal
from running import run
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import triton_topk
from triton_topk import batch as batches
from triton_topk import eager
from triton_topk.batch import Batch
from triton_topk.kernels import launch
from triton_topk.losses import Lq

# As in test_kernels.py.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

LQ = Lq(0.7)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(6, 20), torch.tensor([3, 4, -100, 19, 0, 3]), torch.rand(20)


def test_labels_and_weights_of_any_stride(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    scores, labels, weight = batch
    expected = triton_topk.lq_loss(scores, labels, weight=weight, backend="triton")
    spread_labels = torch.stack([labels, labels.flip(0)], 1)[:, 0]
    spread_weight = torch.stack([weight, weight.flip(0)], 1)[:, 0]
    assert not spread_labels.is_contiguous()
    found = triton_topk.lq_loss(scores, spread_labels, weight=spread_weight, backend="triton")
    assert torch.equal(found, expected)
    repeated = torch.tensor([3]).expand(6)
    found = triton_topk.lq_loss(scores, repeated, backend="triton")
    assert torch.equal(found, triton_topk.lq_loss(scores, repeated.clone(), backend="triton"))


@pytest.mark.parametrize("backend", [launch, eager], ids=["kernel", "eager"])
def test_losses_are_divided_by_the_normalizer(
    backend: object, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    scores, labels, weight = batch
    losses, gradient = run(backend, scores, labels, LQ, weight=weight)
    by_four = run(backend, scores, labels, LQ, weight=weight, normalizer=torch.tensor(4.0))
    assert torch.equal(by_four[0], losses / 4)
    torch.testing.assert_close(by_four[1], gradient / 4)


@pytest.mark.parametrize("backend", [launch, eager], ids=["kernel", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n_rows", "ignored"), [(1, 0), (6, 2), (256, 256), (257, 1), (600, 85)])
def test_labels_that_are_not_ignored_are_counted(
    n_rows: int, ignored: int, dtype: torch.dtype, backend: object
) -> None:
    scores, labels = torch.randn(n_rows, 20, dtype=dtype), torch.randint(20, (n_rows,))
    labels[torch.randperm(n_rows)[:ignored]] = LQ.ignore_index
    number = torch.tensor(n_rows - ignored, dtype=dtype)
    spread = torch.stack([labels, labels], 1)[:, 0]
    expected = run(backend, scores, labels, LQ, normalizer=number)
    found = run(backend, scores, spread, LQ, uncounted=LQ.ignore_index)
    exactly_equal(found, expected, equal_nan=True)


@pytest.mark.parametrize("given", ["losses", "upstream", None])
def test_labels_are_counted_whatever_is_computed(
    given: str | None, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    scores, labels, _ = batch
    kwargs = {} if given is None else {given: torch.ones(6)}
    gradient = torch.full_like(scores, math.nan)
    launch.run(Batch(scores, labels, uncounted=-100), LQ, gradient=gradient, **kwargs)
    assert torch.equal(gradient, run(launch, scores, labels, LQ, normalizer=torch.tensor(5.0))[1])


@pytest.mark.parametrize("k", [3, 17])  # which no kernel has
def test_a_mean_is_the_same_where_the_kernel_counts(
    k: int, batch: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU stands for a GPU, whose labels are not looked at."""
    scores, labels, _ = batch
    monkeypatch.setattr(batches, "look", lambda *_: None)
    found = []
    for few in (False, True):
        monkeypatch.setattr(batches, "_are_few", lambda _, few=few: few)
        leaf = scores.clone().requires_grad_()
        loss = triton_topk.smooth_svm(leaf, labels, k)
        results = [
            loss,
            *(torch.autograd.grad(x * loss, leaf, retain_graph=True)[0] for x in (1, 2)),
        ]
        (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
        found.append([*results, gradient, *torch.autograd.grad(gradient.square().sum(), leaf)])
        found[-1].append(triton_topk.smooth_svm(scores, labels, k))
    exactly_equal(*found)


@pytest.mark.parametrize(
    ("n_rows", "n", "few"),
    [(0, 5, False), (1, 5, True), (2048, 1024, True), (2049, 5, False), (2048, 1025, False)],
)
def test_few_labels_of_few_scores_are_counted_by_a_kernel(n_rows: int, n: int, few: bool) -> None:
    rows = torch.empty(n_rows, n, device="meta")
    assert not batches._are_few(rows)
    on_a_gpu = SimpleNamespace(is_cuda=True, shape=rows.shape, numel=rows.numel)
    assert batches._are_few(on_a_gpu) == few


@pytest.mark.parametrize("n_rows", [0, 3])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_mean_of_no_row(n_rows: int, requires_grad: bool) -> None:
    scores = torch.randn(n_rows, 11, requires_grad=requires_grad)
    labels = torch.full((n_rows,), -100)
    mean = triton_topk.lq_loss(scores, labels, backend="triton")
    assert mean.isnan()
    if requires_grad:
        mean.backward()
        assert scores.grad is not None
        assert (scores.grad == 0).all()


def test_the_mean_is_the_same_with_and_without_a_gradient(
    batch: tuple[Tensor, Tensor, Tensor],
) -> None:
    scores, labels, weight = batch
    for options in ({}, {"weight": weight}):
        without = triton_topk.smooth_svm(scores, labels, 3, backend="triton", **options)
        leaf = scores.clone().requires_grad_()
        assert torch.equal(
            triton_topk.smooth_svm(leaf, labels, 3, backend="triton", **options), without
        )


@pytest.mark.parametrize("factor", [1.0, -2.5])
@pytest.mark.parametrize("size", [1, 4095, 4096, 10_000])
@pytest.mark.parametrize("programs", [1, 2, 1024])
def test_scale(size: int, factor: float, programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(launch._SCALE, "PROGRAMS", programs)
    torch.manual_seed(0)
    # NaN on both sides, to see what is written
    around = torch.full((size + 2,), math.nan)
    gradient = around[1:-1]
    gradient.copy_(torch.randn(size))
    expected = gradient * factor
    launch.scale_(gradient, torch.tensor(factor))
    assert torch.equal(gradient, expected)
    assert around[[0, -1]].isnan().all()


# Who has a say in what happens to a tensor sees operators.


class _Log(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "triton_topk":
            self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_a_dispatch_mode_sees_the_operators(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    scores, labels, _ = batch
    leaf = scores.clone().requires_grad_()
    with _Log() as log:
        mean = triton_topk.lq_loss(leaf, labels)
        mean.backward()
    assert log.names == ["lq_loss_with_gradient.default", "scale_.default"]
    plain = scores.clone().requires_grad_()
    expected = triton_topk.lq_loss(plain, labels)
    expected.backward()
    assert torch.equal(mean, expected)
    assert torch.equal(leaf.grad, plain.grad)


def test_fake_tensors_reach_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "loss_kernel", None)
    monkeypatch.setattr(launch, "scale_kernel", None)
    with FakeTensorMode():
        scores = torch.empty(4, 11, requires_grad=True)
        mean = triton_topk.smooth_svm(scores, torch.empty(4, dtype=torch.int64))
        mean.backward()
    assert mean.shape == ()
    assert scores.grad is not None
    assert scores.grad.shape == scores.shape


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch.fx's own
def test_a_trace_holds_operators(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    scores, labels, _ = batch
    traced = make_fx(lambda s: triton_topk.lq_loss(s, labels, reduction="sum"))(scores)
    called = {str(node.target) for node in traced.graph.nodes if node.op == "call_function"}
    assert "triton_topk.lq_loss.default" in called
    torch.testing.assert_close(
        traced(2 * scores), triton_topk.lq_loss(2 * scores, labels, reduction="sum")
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_of_jit_holds_operators(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    scores, labels, _ = batch
    traced = torch.jit.trace(lambda s: triton_topk.lq_loss(s, labels), scores)
    assert "triton_topk::lq_loss" in str(traced.graph)
    torch.testing.assert_close(traced(2 * scores), triton_topk.lq_loss(2 * scores, labels))


class _Logged(Tensor):
    names: list[str] = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.names.append(str(func))
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("argument", ["scores", "labels", "weight"])
def test_a_subclass_of_tensor_goes_through_the_operators(
    argument: str, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    given = dict(zip(("scores", "labels", "weight"), batch, strict=True))
    expected = triton_topk.lq_loss(**given)
    _Logged.names.clear()
    given[argument] = given[argument].as_subclass(_Logged)
    found = triton_topk.lq_loss(**given)
    assert any("lq_loss" in name for name in _Logged.names)
    assert found == expected


@pytest.mark.parametrize("backend", ["eager", "triton"])
def test_operators_take_scores_of_any_stride(
    backend: str, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    scores, labels, _ = batch
    options = labels, *[None] * 5, *replace(LQ, backend=backend).values
    expected = torch.ops.triton_topk.lq_loss_with_gradient(scores, *options)
    for laid_out in (scores.t().contiguous().t(), torch.stack([scores, -scores], 2)[:, :, 0]):
        assert laid_out.stride(1) != 1
        found = torch.ops.triton_topk.lq_loss_with_gradient(laid_out, *options)
        assert all(map(torch.equal, found, expected))


# A tensor's values are not always those in its memory.


def negated_twice(tensor: Tensor) -> Tensor:
    """The same values, as a view of their negatives."""
    out = torch._neg_view(-tensor)
    assert out.is_neg()
    return out


def zeros_without_memory(tensor: Tensor) -> Tensor:
    out = torch._efficientzerotensor(tensor.shape, dtype=tensor.dtype)
    assert out._is_zerotensor()
    return out


LAZY = {"negative": negated_twice, "zeros": zeros_without_memory}
every_backend = pytest.mark.parametrize("backend", ["eager", "triton"])


@every_backend
@pytest.mark.parametrize("kind", LAZY)
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("argument", ["scores", "labels", "weight", "margin", "normalizer"])
def test_a_tensor_that_does_not_hold_its_values(
    argument: str,
    requires_grad: bool,
    kind: str,
    backend: str,
    batch: tuple[Tensor, Tensor, Tensor],
) -> None:
    scores, labels, weight = batch
    given = {
        "scores": scores,
        "labels": labels,
        "weight": weight,
        "margin": weight.flip(0),
        "normalizer": torch.tensor(3.0),
    }
    lazy = LAZY[kind](given[argument])
    found = []
    for x in (lazy, lazy + torch.zeros_like(given[argument])):
        arguments = given | {argument: x}
        leaf = arguments["scores"].detach().requires_grad_(requires_grad)
        arguments["scores"] = leaf
        out = triton_topk.smooth_svm(**arguments, k=3, backend=backend)
        if requires_grad:
            out.backward()
        found.append((out.detach(), leaf.grad))
    torch.testing.assert_close(*found, rtol=0, atol=0, equal_nan=True)


@every_backend
@pytest.mark.parametrize("kind", LAZY)
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_an_upstream_gradient_that_does_not_hold_its_values(
    reduction: str, kind: str, backend: str, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    scores, labels, weight = batch

    def gradient(upstream: Tensor) -> Tensor:
        leaf = scores.clone().requires_grad_()
        out = triton_topk.lq_loss(leaf, labels, reduction=reduction, backend=backend)
        return torch.autograd.grad(out, leaf, upstream)[0]

    upstream = torch.tensor(-2.0) if reduction == "sum" else weight[:6]
    lazy = LAZY[kind](upstream)
    assert torch.equal(gradient(lazy), gradient(lazy + torch.zeros_like(upstream)))


@every_backend
def test_parts_of_complex_numbers(backend: str, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    parts, labels, _ = batch
    found = []
    for minus_imaginary in (lambda z: z.conj().imag, lambda z: -z.imag):
        z = torch.complex(parts.flip(0), parts).requires_grad_()
        scores = minus_imaginary(z)
        losses = triton_topk.lq_loss(scores, labels, reduction="none", backend=backend)
        # the upstream gradient is a view of such a number, too
        minus_imaginary(torch.complex(losses, losses)).sum().backward()
        found.append(z.grad)
    assert torch.equal(*found)


@every_backend
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # its loop
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_a_batch_of_upstream_gradients(
    reduction: str, backend: str, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    scores, labels, _ = batch
    leaf = scores.clone().requires_grad_()
    out = triton_topk.lq_loss(leaf, labels, reduction=reduction, backend=backend)
    upstream = torch.randn(3, *out.shape)
    (found,) = torch.autograd.grad(out, leaf, upstream, retain_graph=True, is_grads_batched=True)
    for i in range(3):
        (expected,) = torch.autograd.grad(out, leaf, upstream[i], retain_graph=True)
        torch.testing.assert_close(found[i], expected)


@every_backend
def test_operators_given_tensors_that_do_not_hold_their_values(
    backend: str, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    operators, (scores, labels, weight) = torch.ops.triton_topk, batch
    plain = scores, labels, weight, weight[:6], weight.expand(6, 20), torch.tensor(3.0)
    lazy = tuple(map(negated_twice, plain))
    # without a summary
    parameters = replace(LQ, backend=backend).values
    for name in ("lq_loss", "lq_loss_with_gradient"):
        operator = getattr(operators, name)
        for found, expected in zip(
            operator(*lazy, None, *parameters), operator(*plain, None, *parameters), strict=True
        ):
            assert torch.equal(found, expected)
    upstream = weight[:6]
    assert torch.equal(
        operators.lq_loss_gradient(*lazy, None, negated_twice(upstream), *parameters),
        operators.lq_loss_gradient(*plain, None, upstream, *parameters),
    )
    gradient = scores.clone()
    operators.scale_(gradient, negated_twice(torch.tensor(-2.0)))
    assert torch.equal(gradient, -2 * scores)
