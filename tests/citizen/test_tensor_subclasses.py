"""Subclasses of Tensor and layouts: they work, or fail with an error that says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from losses import (
    REDUCTIONS,
    Loss,
    each,
    every_loss,
    exactly_equal,
    one_of_each,
    random_scores,
    with_margins,
)
from torch import Tensor
from torch.masked import masked_tensor
from torch.nn import functional as F
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils import _pytree as pytree

SCORES, LABELS = random_scores(4, 11), torch.tensor([3, -100, 10, 0])


class Named(Tensor):
    """Only a name of its own, by PyTorch's default __torch_function__."""


class Wrapper(Tensor):
    """Holds a tensor and does with it what is done to itself."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Wrapper:
        out = Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=inner.device
        )
        out.inner = inner
        return out

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        unwrapped = pytree.tree_map_only(Wrapper, lambda x: x.inner, (args, kwargs or {}))
        out = func(*unwrapped[0], **unwrapped[1])
        return pytree.tree_map_only(Tensor, Wrapper, out)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("cls", [Named, torch.nn.Parameter, torch.nn.Buffer])
def test_subclasses_that_change_nothing(loss: Loss, reduction: str, cls: type[Tensor]) -> None:
    def subclassed(x: Tensor) -> Tensor:
        return x.clone().as_subclass(cls) if cls is Named else cls(x.clone())

    expected, gradient = loss.with_gradient(SCORES, LABELS, reduction=reduction)
    scores = subclassed(SCORES).requires_grad_()
    found = loss(scores, LABELS, reduction=reduction)
    # as of the losses of PyTorch
    assert type(found) is type(F.cross_entropy(scores, LABELS, reduction=reduction))
    found.sum().backward()
    exactly_equal((found.detach(), scores.grad), (expected, gradient))


@each([*one_of_each(3), *with_margins(3, torch.linspace(0, 2, 11))])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_wrapper(loss: Loss, reduction: str) -> None:
    scores = Wrapper(SCORES.clone()).requires_grad_()
    found = loss(scores, LABELS, reduction=reduction)
    found.sum().backward()
    _, hits = loss(scores, LABELS, return_topk_hits=True)
    exactly_equal(hits.topk.inner, loss(SCORES, LABELS, return_topk_hits=True)[1].topk)
    assert isinstance(found, Wrapper)
    assert isinstance(scores.grad, Wrapper)
    exactly_equal(
        (found.inner, scores.grad.inner), loss.with_gradient(SCORES, LABELS, reduction=reduction)
    )


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_an_upstream_gradient_of_two_tensors(loss: Loss, reduction: str) -> None:
    scores = SCORES.clone().requires_grad_()
    found = loss(scores, LABELS, reduction=reduction)
    ones = torch.ones_like(found)
    (gradient,) = torch.autograd.grad(found, scores, TwoTensor(2 * ones, 3 * ones))
    _, expected = loss.with_gradient(SCORES, LABELS, reduction=reduction)
    torch.testing.assert_close((gradient.a, gradient.b), (2 * expected, 3 * expected))


def nested(layout: torch.layout) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.nested.nested_tensor(list(x), layout=layout)


OTHER_LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "sparse_coo": Tensor.to_sparse,
    "sparse_csr": Tensor.to_sparse_csr,
    "mkldnn": Tensor.to_mkldnn,
    "nested": nested(torch.strided),
    "jagged": nested(torch.jagged),
    "quantized": lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
}
# PyTorch says of some that they are young or old
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(prototype|beta state|deprecated):UserWarning",
    # and of a masked tensor what the error says, too
    "ignore:.*is not implemented in __torch_dispatch__ for MaskedTensor:UserWarning",
)


@every_loss
@pytest.mark.parametrize("layout", OTHER_LAYOUTS)
def test_scores_that_are_not_dense(loss: Loss, layout: str) -> None:
    with pytest.raises(TypeError, match=r"^scores must"):
        loss(OTHER_LAYOUTS[layout](SCORES), LABELS)


@every_loss
def test_other_arguments_that_are_not_dense(loss: Loss) -> None:
    with pytest.raises(TypeError, match=r"^labels must"):
        loss(SCORES, LABELS.to_sparse())
    with pytest.raises(TypeError, match=r"^weight must"):
        loss(SCORES, LABELS, weight=torch.ones(11).to_sparse())
    with pytest.raises(TypeError, match=r"^normalizer must"):
        loss(SCORES, LABELS, normalizer=torch.ones(1).to_sparse())


@each([Loss(name, k=3) for name in ("smooth_svm", "hard_svm", "smooth_svm_lq")])
def test_margins_that_are_not_dense(loss: Loss) -> None:
    with pytest.raises(TypeError, match=r"^margin must"):
        loss(SCORES, LABELS, margin=torch.ones(11).to_sparse())


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_masked_scores(loss: Loss, reduction: str) -> None:
    with pytest.raises(TypeError, match="MaskedTensor"):
        loss(masked_tensor(SCORES, SCORES > 0), LABELS, reduction=reduction)
