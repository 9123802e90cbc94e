"""Second derivatives and torch.func."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from losses import REDUCTIONS, Loss, each, every_loss, one_of_each, random_labels, random_scores
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

# torch.func's own
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

N, C = 4, 9
LABELS = torch.tensor([2, -100, 8, 0])
WEIGHT = torch.linspace(0.5, 2, C, dtype=torch.float64)
OPTIONS = {"weight": WEIGHT}
# Two derivatives of either loss at both ends: the binary one, and all but one of the classes.
TWICE = [
    *one_of_each(3),
    Loss("smooth_svm", k=1),
    Loss("smooth_svm", k=C - 1, tau=0.3),
    Loss("smooth_svm", k=2, margin=torch.linspace(0, 2, C, dtype=torch.float64)),
    Loss("lq_loss", q=0.0),
    Loss("lq_loss", q=0.7, truncation=0.05),
]


def scores_in_float64() -> Tensor:
    return random_scores(N, C, dtype=torch.float64)


@each(TWICE)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_second_derivative(loss: Loss, reduction: str) -> None:
    def of_scores(scores: Tensor) -> Tensor:
        return loss(scores, LABELS, reduction=reduction, **OPTIONS)

    assert torch.autograd.gradgradcheck(
        of_scores, scores_in_float64().requires_grad_(), fast_mode=True
    )


def test_third_derivative() -> None:
    def derivative(scores: Tensor) -> Tensor:
        loss = Loss("smooth_svm", k=2)(scores, LABELS, reduction="sum")
        return torch.autograd.grad(loss, scores, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(
        derivative, scores_in_float64().requires_grad_(), fast_mode=True
    )


def test_the_second_derivative_of_the_taylor_gradient_is_that_of_the_exact_one() -> None:
    def hessian(gradient: str) -> Tensor:
        loss = Loss("smooth_svm", k=3, gradient=gradient)
        return torch.autograd.functional.hessian(lambda s: loss(s, LABELS), scores_in_float64())

    torch.testing.assert_close(hessian("taylor"), hessian("exact"), rtol=0, atol=0)


@every_loss
@pytest.mark.parametrize("spread", [1.0, 1e3])
def test_second_derivative_where_scores_are_special(loss: Loss, spread: float) -> None:
    scores = spread * scores_in_float64()
    scores[0, 3:6] = -math.inf
    scores[1] = math.nan  # its label is ignored
    scores[2, 1] = math.nan
    scores[3, :4] = scores[3, 5]
    scores.requires_grad_()
    (gradient,) = torch.autograd.grad(
        loss(scores, LABELS, reduction="sum"), scores, create_graph=True
    )
    (second,) = torch.autograd.grad(gradient[[0, 1, 3]].square().sum(), scores)
    assert (second[1] == 0).all()
    assert second[[0, 3]].isfinite().all()
    assert (second[0, 3:6] == 0).all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_second_derivative_in_other_dtypes(loss: Loss, dtype: torch.dtype) -> None:
    found = []
    for scores in (random_scores(N, C, dtype=dtype), random_scores(N, C, dtype=dtype).double()):
        leaf = scores.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf, LABELS), leaf, create_graph=True)
        vector = random_scores(N, C, dtype=dtype, seed=1).to(scores.dtype)
        (second,) = torch.autograd.grad(gradient, leaf, vector)
        assert second.dtype == scores.dtype
        found.append(second.double())
    torch.testing.assert_close(*found, rtol=2 * torch.finfo(dtype).eps, atol=1e-7)


def ordinary_gradient(loss: Loss, scores: Tensor, labels: Tensor, **options: object) -> Tensor:
    return loss.with_gradient(scores, labels, **options)[1]


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_grad(loss: Loss, reduction: str, dtype: torch.dtype) -> None:
    scores = random_scores(N, C, dtype=dtype)
    found = grad(lambda s: loss(s, LABELS, reduction=reduction))(scores)
    expected = ordinary_gradient(loss, scores, LABELS, reduction=reduction)
    torch.testing.assert_close(found, expected)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_per_sample_gradients(loss: Loss, dtype: torch.dtype) -> None:
    """vmap over the samples of the gradient of a model's parameters, labels and normalizer its own."""
    inputs, labels = random_scores(N, 5), random_labels(N, n=C)
    labels[1] = -100
    normalizers = torch.linspace(1, 2, N)
    layer = torch.nn.Linear(5, C)
    parameters = dict(layer.named_parameters())

    def of_sample(
        parameters: dict[str, Tensor], x: Tensor, label: Tensor, normalizer: Tensor
    ) -> Tensor:
        scores = torch.func.functional_call(layer, parameters, (x,))
        return loss(scores, label, weight=WEIGHT.to(dtype), normalizer=normalizer)

    found = vmap(grad(of_sample), in_dims=(None, 0, 0, 0))(parameters, inputs, labels, normalizers)
    for i in range(N):
        layer.zero_grad()
        of_sample(parameters, inputs[i], labels[i], normalizers[i]).backward()
        torch.testing.assert_close(found["weight"][i], layer.weight.grad)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_vmap(loss: Loss, reduction: str) -> None:
    """Batches may differ in every argument, in any dimension."""
    scores, labels = random_scores(N, C, 3), random_labels(3, N, n=C)
    weights = torch.rand(C, 3)
    options = {} if loss.name == "lq_loss" else {"margin": torch.linspace(0, 1, C)}

    def of_batch(scores: Tensor, labels: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        found, hits = loss(
            scores, labels, weight=weight, reduction=reduction, return_topk_hits=True, **options
        )
        return found, *hits

    found = vmap(of_batch, in_dims=(2, 0, 1))(scores, labels, weights)
    for i in range(3):
        expected = of_batch(scores[:, :, i], labels[i], weights[:, i])
        torch.testing.assert_close(tuple(x[i] for x in found), expected)


def test_vmap_over_margins() -> None:
    scores, labels = random_scores(N, C), random_labels(N, n=C)
    margins = torch.rand(3, C)
    loss = Loss("smooth_svm", k=3)
    found = vmap(lambda margin: loss(scores, labels, margin=margin))(margins)
    expected = torch.stack([loss(scores, labels, margin=margin) for margin in margins])
    torch.testing.assert_close(found, expected)


@every_loss
def test_jacobians(loss: Loss) -> None:
    scores = scores_in_float64()

    def losses(scores: Tensor) -> Tensor:
        return loss(scores, LABELS, reduction="none", **OPTIONS)

    expected = torch.autograd.functional.jacobian(losses, scores)
    torch.testing.assert_close(jacrev(losses)(scores), expected)
    torch.testing.assert_close(vjp(losses, scores)[1](torch.ones(N).double())[0], expected.sum(0))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # its loop
@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_batch_of_gradients(loss: Loss, reduction: str) -> None:
    scores = scores_in_float64().requires_grad_()
    found = loss(scores, LABELS, reduction=reduction)
    upstream = torch.linspace(-1, 2, 3 * found.numel()).double().reshape(3, *found.shape)
    (gradients,) = torch.autograd.grad(
        found, scores, upstream, is_grads_batched=True, retain_graph=True
    )
    for i in range(3):
        (expected,) = torch.autograd.grad(found, scores, upstream[i], retain_graph=True)
        torch.testing.assert_close(gradients[i], expected)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_no_graph_of_a_batch_of_gradients(loss: Loss, reduction: str, dtype: torch.dtype) -> None:
    # PyTorch would drop it
    scores = random_scores(N, C, dtype=dtype).requires_grad_()
    found = loss(scores, LABELS, reduction=reduction)
    (gradient,) = torch.autograd.grad(found.sum(), scores, create_graph=True)
    for output in (found, gradient):
        batch = torch.ones(3, *output.shape, dtype=output.dtype)
        with pytest.raises(NotImplementedError, match=rf"^{loss.name} has no create_graph=True"):
            torch.autograd.grad(output, scores, batch, is_grads_batched=True, create_graph=True)


@every_loss
def test_hessian(loss: Loss) -> None:
    def of_scores(scores: Tensor) -> Tensor:
        return loss(scores, LABELS, **OPTIONS)

    scores = scores_in_float64()
    expected = torch.autograd.functional.hessian(of_scores, scores)
    torch.testing.assert_close(jacrev(jacrev(of_scores))(scores), expected)


@each([Loss("smooth_svm", k=3), Loss("lq_loss")])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_where_nothing_comes_back_nothing_is_handed_on(loss: Loss, reduction: str) -> None:
    class Stop(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, _: Tensor) -> None:
            return None

    scores = scores_in_float64().requires_grad_()
    for level in (nullcontext(), forward_ad.dual_level()):
        with level:
            found = loss(scores, LABELS, reduction=reduction)
            (gradient,) = torch.autograd.grad(found.sum(), scores, create_graph=True)
            for stopped in (Stop.apply(found), Stop.apply(gradient)):
                (nothing,) = torch.autograd.grad(stopped.sum(), scores, allow_unused=True)
                assert nothing is None or not nothing.any()


# Forward mode


@pytest.mark.exhaustive(one_in=3)
@each(TWICE)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_forward_mode(loss: Loss, reduction: str) -> None:
    """Finite differences agree with the derivatives of the loss and of its gradient."""

    def of_scores(scores: Tensor) -> Tensor:
        return loss(scores, LABELS, reduction=reduction, **OPTIONS)

    scores = scores_in_float64().requires_grad_()
    assert torch.autograd.gradcheck(
        of_scores,
        scores,
        check_forward_ad=True,
        check_batched_forward_grad=True,
        check_undefined_grad=False,
    )
    assert torch.autograd.gradgradcheck(of_scores, scores, check_fwd_over_rev=True)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_transforms_of_forward_mode(loss: Loss, reduction: str) -> None:
    def of_scores(scores: Tensor) -> Tensor:
        return loss(scores, LABELS, reduction=reduction, **OPTIONS)

    scores = scores_in_float64()
    torch.testing.assert_close(jacfwd(of_scores)(scores), jacrev(of_scores)(scores))
    expected = jacrev(jacrev(of_scores))(scores)
    torch.testing.assert_close(hessian(of_scores)(scores), expected)
    torch.testing.assert_close(jacrev(jacfwd(of_scores))(scores), expected)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_vmap_of_tangents(loss: Loss, reduction: str) -> None:
    def of_batch(scores: Tensor, labels: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        return jvp(lambda s: loss(s, labels, reduction=reduction), (scores,), (tangent,))

    batches = random_scores(3, N, C), random_labels(3, N, n=C), random_scores(3, N, C, seed=1)
    found = vmap(of_batch)(*batches)
    for i, batch in enumerate(zip(*batches, strict=True)):
        torch.testing.assert_close(tuple(x[i] for x in found), of_batch(*batch))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_forward_mode_in_other_dtypes(loss: Loss, dtype: torch.dtype) -> None:
    scores, tangent = random_scores(N, C, dtype=dtype), random_scores(N, C, dtype=dtype, seed=1)

    def hits_and_losses(scores: Tensor) -> tuple[Tensor, Tensor]:
        found, hits = loss(scores, LABELS, reduction="none", return_topk_hits=True)
        return hits.topk, found

    (hits, found), (_, of_losses) = jvp(hits_and_losses, (scores,), (tangent,))
    assert of_losses.dtype == torch.float32
    torch.testing.assert_close((hits, found), hits_and_losses(scores))
    _, (_, expected) = jvp(hits_and_losses, (scores.double(),), (tangent.double(),))
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(of_losses.double(), expected, rtol=tolerance, atol=tolerance)


@every_loss
def test_tangents_of_float16_under_a_large_divisor(loss: Loss) -> None:
    tangents = []
    for dtype in (torch.float16, torch.float32):
        scores, tangent = (
            random_scores(N, C, dtype=torch.float16, seed=i).to(dtype) for i in (0, 1)
        )
        tangents.append(jvp(lambda s: loss(s, LABELS, normalizer=2**16), (scores,), (tangent,))[1])
    torch.testing.assert_close(*tangents, rtol=1e-5, atol=0)


@every_loss
def test_tangents_where_scores_are_special(loss: Loss) -> None:
    scores, tangent = scores_in_float64(), random_scores(N, C, dtype=torch.float64, seed=1)
    scores[0, 3:6] = -math.inf
    scores[1] = math.nan  # its label is ignored
    scores[2, 1] = math.nan

    def losses(scores: Tensor) -> Tensor:
        return loss(scores, LABELS, reduction="none")

    expected = jvp(losses, (scores,), (tangent,))[1]
    assert expected[1] == 0
    assert expected.isnan().tolist() == [False, False, True, False]
    # of what counts for nothing the tangent does, too
    tangent[0, 3:6] = math.nan
    tangent[1] = math.inf
    found = jvp(losses, (scores,), (tangent,))[1]
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_an_upstream_gradient_with_a_tangent(loss: Loss, reduction: str) -> None:
    scores = scores_in_float64().requires_grad_()
    found = loss(scores, LABELS, reduction=reduction)
    ones = torch.ones_like(found)
    with forward_ad.dual_level():
        upstream = forward_ad.make_dual(ones, 3 * ones)
        (gradient,) = torch.autograd.grad(found, scores, upstream)
        primal, tangent = forward_ad.unpack_dual(gradient)
    assert tangent is not None
    torch.testing.assert_close(tangent, 3 * primal)


CONSTANTS = {
    "weight": torch.ones(C),
    "sample weight": torch.ones(N, 1),
    "margin": torch.ones(C),
    "normalizer": torch.tensor(3.0),
}


@pytest.mark.parametrize(
    ("loss", "argument"),
    [
        (loss, argument)
        for loss in one_of_each(3)
        for argument in CONSTANTS
        if (loss.name, argument) != ("lq_loss", "margin")
    ],
    ids=str,
)
@pytest.mark.parametrize("of_gradient", [False, True])
def test_other_arguments_have_no_tangent(loss: Loss, argument: str, of_gradient: bool) -> None:
    # an error, not a tangent of zero
    given = CONSTANTS[argument]
    name = argument.removeprefix("sample ")

    def of_argument(x: Tensor) -> Tensor:
        def of_scores(scores: Tensor) -> Tensor:
            return loss(scores, LABELS, **{name: x})

        return (grad(of_scores) if of_gradient else of_scores)(random_scores(N, C))

    with pytest.raises(NotImplementedError, match=f"^{name} must have no tangent.*{loss.name}"):
        jvp(of_argument, (given,), (given,))


@every_loss
def test_no_forward_mode_of_forward_mode(loss: Loss) -> None:
    # PyTorch would say that it is zero
    def of_scores(scores: Tensor) -> Tensor:
        return loss(scores, LABELS)

    with pytest.raises(NotImplementedError, match=rf"^{loss.name} .*jacfwd\(jacrev\(f\)\)"):
        jacfwd(jacfwd(of_scores))(random_scores(N, C))


def test_operators_have_no_forward_mode() -> None:
    scores = random_scores(N, C)
    options = *[None] * 5, 0.7, None, -100, None, None

    def losses(scores: Tensor) -> Tensor:
        return torch.ops.triton_topk.lq_loss(scores, LABELS, *options)[0]

    with pytest.raises(NotImplementedError, match=r"operators .*forward-mode"):
        jvp(losses, (scores,), (scores,))
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        losses(forward_ad.make_dual(scores, scores))


@pytest.mark.usefixtures("compiler")
@each([Loss("smooth_svm", k=3), Loss("lq_loss")])
def test_forward_mode_is_not_compiled(loss: Loss) -> None:
    scores, tangent = scores_in_float64(), random_scores(N, C, dtype=torch.float64, seed=1)

    def of_scores(scores: Tensor) -> Tensor:
        return loss(scores, LABELS)

    def both(scores: Tensor) -> tuple[Tensor, Tensor]:
        return jvp(of_scores, (scores,), (tangent,))

    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(both, fullgraph=True, backend="aot_eager")(scores)
    # a graph break is what it takes
    compiled = torch.compile(both, backend="aot_eager")
    torch.testing.assert_close(compiled(scores), both(scores))


@pytest.mark.usefixtures("compiler")
@each([Loss("smooth_svm", k=3), Loss("lq_loss")])
def test_a_compiled_loss_has_no_forward_mode(loss: Loss) -> None:
    scores = scores_in_float64()
    graph = torch.compile(lambda s: loss(s, LABELS), fullgraph=True, backend="aot_eager")
    graph(scores)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        graph(forward_ad.make_dual(scores, scores))


@pytest.mark.usefixtures("compiler")
@each([Loss("smooth_svm", k=3), Loss("lq_loss")])
def test_a_compiled_loss_without_a_tangent_works_in_forward_mode(loss: Loss) -> None:
    scores = scores_in_float64()
    graph = torch.compile(lambda s: loss(s, LABELS), fullgraph=True, backend="aot_eager")
    with forward_ad.dual_level():
        torch.testing.assert_close(graph(scores), loss(scores, LABELS))
