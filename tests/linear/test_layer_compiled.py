"""A layer with its loss under torch.compile, and its operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from layers import Layer
from losses import REDUCTIONS, Loss, each, every_loss, one_of_each
from torch import Tensor
from torch.testing import assert_close

from triton_topk import layer as layers
from triton_topk.batch import Batch
from triton_topk.losses import HardSVM, Lq, Mixture, SmoothSVM
from triton_topk.losses import Loss as Checked

pytestmark = pytest.mark.usefixtures("compiler")
SMOOTH_SVM, *OTHERS = one_of_each(3)
CASES = [*((SMOOTH_SVM, reduction) for reduction in REDUCTIONS), *((x, "mean") for x in OTHERS)]


def step_of(loss: Loss, **options: Any) -> Callable[..., Tensor]:
    def step(x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
        layer = Layer.__new__(Layer)
        layer.labels = labels
        return layer.fused(loss, x, weight, bias, chunk_rows=4, **options)

    return step


def same_as_without_compiling(
    compiled: Callable[..., Tensor], layer: Layer, loss: Loss, **options: Any
) -> None:
    """Loss and gradients."""
    found = compiled(*layer.tensors, layer.labels)
    expected = layer.unfused(loss, **options)
    low = layer.input.dtype == torch.float16
    tolerance = {"rtol": 0.01, "atol": 0.01} if low else {}
    assert_close(found, expected, **tolerance)
    assert_close(layer.gradients(found, 3.0), layer.gradients(expected, 3.0), **tolerance)


@pytest.mark.parametrize(("loss", "reduction"), CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_step(loss: Loss, reduction: str, dtype: torch.dtype) -> None:
    compiled = torch.compile(
        step_of(loss, reduction=reduction), fullgraph=True, backend="aot_eager"
    )
    same_as_without_compiling(compiled, Layer(dtype=dtype), loss, reduction=reduction)


@pytest.mark.parametrize(("loss", "reduction"), CASES, ids=str)
def test_backward_again(loss: Loss, reduction: str) -> None:
    layer = Layer(dtype=torch.float32)
    with torch._functorch.config.patch(donated_buffer=False):
        step = step_of(loss, reduction=reduction)
        compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
        found = compiled(*layer.tensors, layer.labels)
        first = layer.gradients(found, 3.0, retain_graph=True)
        assert_close(layer.gradients(found, 3.0), first)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # inductor's own
def test_with_inductor() -> None:
    options = {"weight": torch.linspace(0, 2, 11), "margin": torch.ones(13, 1)}
    compiled = torch.compile(step_of(SMOOTH_SVM, **options), fullgraph=True)
    same_as_without_compiling(compiled, Layer(dtype=torch.float32), SMOOTH_SVM, **options)


@pytest.mark.parametrize(("loss", "reduction"), CASES, ids=str)
def test_batches_of_any_size(loss: Loss, reduction: str) -> None:
    compiled = torch.compile(
        step_of(loss, reduction=reduction), fullgraph=True, dynamic=True, backend="aot_eager"
    )
    with torch._dynamo.config.patch(error_on_recompile=True):
        for n_rows in (5, 7, 16, 33):
            layer = Layer(n_rows, dtype=torch.float32)
            same_as_without_compiling(compiled, layer, loss, reduction=reduction)


@every_loss
def test_a_compiled_step_computes_the_scores_once(
    loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = []
    multiply = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *x, **named: products.append(multiply(*x, **named)))
    layer = Layer(dtype=torch.float32)
    compiled = torch.compile(step_of(loss), fullgraph=True, backend="aot_eager")
    compiled(*layer.tensors, layer.labels).backward()
    assert len(products) == 4  # of the chunks


def test_autocast_in_the_graph() -> None:
    layer = Layer(dtype=torch.float32)
    step = step_of(SMOOTH_SVM)

    def under_autocast(*tensors: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return step(*tensors)

    compiled = torch.compile(under_autocast, fullgraph=True, backend="aot_eager")
    found, expected = (f(*layer.tensors, layer.labels) for f in (compiled, under_autocast))
    assert_close(found, expected)
    assert_close(layer.gradients(found), layer.gradients(expected))


def test_without_gradient_and_with_hits() -> None:
    layer = Layer(dtype=torch.float32)
    step = step_of(SMOOTH_SVM, return_topk_hits=True)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert_close(
            compiled(*layer.tensors, layer.labels), layer.unfused(SMOOTH_SVM, return_topk_hits=True)
        )


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of any check of a shape
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@each([SMOOTH_SVM])
def test_export_and_jit_trace(loss: Loss) -> None:
    layer = Layer(dtype=torch.float32)
    inputs = (*(tensor.detach() for tensor in layer.tensors), layer.labels)
    step = step_of(loss)

    class Model(torch.nn.Module):
        def forward(self, *inputs: Tensor) -> Tensor:
            return step(*inputs)

    exported = torch.export.export(Model(), inputs).module()
    for program in (exported, torch.jit.trace(step, inputs)):
        assert_close(program(*inputs), step(*inputs))


LOSSES: list[Checked] = [
    SmoothSVM(3, 1.0, 1.0),
    SmoothSVM(2, 0.5, 0.0, 2, hits=2),
    HardSVM(3, 1.0, backend="eager"),
    Lq(0.7, hits=3),
    Mixture(3, 1.0, 1.0, None, 0.7, None, 0.5),
]


@pytest.mark.exhaustive(one_in=3)
@each(LOSSES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("wanted", [(False,) * 3, (True, True, False), (True,) * 3])
@pytest.mark.parametrize("upstream", [False, True])
def test_operators(
    loss: Checked, dtype: torch.dtype, wanted: tuple[bool, ...], upstream: bool
) -> None:
    layer = Layer(5, 3, dtype=dtype)
    if not wanted[2]:
        layer.bias = layer.bias.detach()
    tensors = [x.detach() for x in layer.tensors] if upstream else layer.tensors
    arguments = (
        *tensors,
        layer.labels,
        torch.linspace(0.5, 2, 11),
        torch.linspace(1, 2, 5),
        torch.ones(5, 1).expand(5, 11),
        torch.tensor(3.0),
        None,
        torch.ones(5) if upstream else None,
        dtype,
        2,
        wanted,
        *loss.values,
    )
    operator = getattr(torch.ops.triton_topk, f"linear_{loss.name}").default
    torch.library.opcheck(operator, arguments)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("labels", {"labels": torch.arange(4)}),
        ("margins", {"margins": torch.ones(2, 11)}),
        ("weight", {"weight": torch.ones(3)}),
        ("upstream", {"upstream": torch.ones(3)}),
        ("k", {"loss": SmoothSVM(11, 1.0, 1.0)}),
    ],
)
def test_arguments_that_do_not_go_together(name: str, wrong: dict[str, Any]) -> None:
    layer = Layer(5, 3)
    fused = layers.Layer(*layer.tensors, torch.float64, None)
    given = {"loss": SmoothSVM(3, 1.0, 1.0), "labels": layer.labels, "upstream": torch.ones(5)}
    loss, labels, upstream, *others = (given | wrong).values()
    batch = Batch(fused.like_scores(), labels)
    if others:
        batch = batch._replace(**{name: others[0]})
    with pytest.raises(ValueError, match=f"^{name} must"):
        layers._call(loss, batch, fused, (True,) * 3, upstream)
