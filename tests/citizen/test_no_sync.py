"""No step of a loss asks for a value, which on a GPU would be waited for, nor brings one there.

A tensor on the device "meta" has no values, and whatever needs one fails. Here it stands for one on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from kernel_stand_in import Kernel
from losses import Loss, each, one_of_each, variants
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from triton_topk import backends

ASK: dict[str, Callable[[Tensor], Any]] = {
    "item": Tensor.item,
    "bool": bool,
    "int": int,
    "list": Tensor.tolist,
    "nonzero": Tensor.nonzero,
    "mask": lambda x: x[x > 0],
    "equal": lambda x: torch.equal(x, x),
    "cpu": Tensor.cpu,
    "numpy": Tensor.numpy,
    "copy": lambda x: torch.zeros(1).copy_(x),
}


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


class OnTheDevice(TorchFunctionMode):
    """Nothing is made elsewhere, from where it would have to be copied."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        elsewhere = [x for x in pytree.tree_leaves(out) if isinstance(x, Tensor) and not x.is_meta]
        assert not elsewhere, func
        return out


def step(loss: Loss, n: int, dtype: torch.dtype, **options: Any) -> None:
    """Training, two backwards, and evaluation."""
    scores = meta(6, n, dtype=dtype).requires_grad_()
    labels = meta(6, dtype=torch.int64)
    with OnTheDevice():
        found = loss(scores, labels, **options)
        (2 * found.sum()).backward(retain_graph=True)
        found.sum().backward()
        with torch.no_grad():
            loss(scores, labels, **options)


def options(loss: Loss, n: int) -> Iterator[dict[str, Any]]:
    of_rows: dict[str, Any] = {"weight": (meta(n), meta(6, 1))}
    if "k" in loss.options:
        of_rows["margin"] = meta(6, 1)
    for tensors in ({}, of_rows):
        for reduction in ("none", "mean", "sum"):
            yield {"reduction": reduction, **tensors}
        for normalizer in (7, meta(), meta(1, dtype=torch.int64)):
            yield {"normalizer": normalizer, **tensors}


@pytest.mark.parametrize("ask", ASK)
def test_a_value_is_missed(ask: str) -> None:
    with pytest.raises((RuntimeError, NotImplementedError, TypeError)):
        ASK[ask](meta(1))


def test_a_copy_to_the_device_is_missed() -> None:
    with OnTheDevice(), pytest.raises(AssertionError):
        torch.tensor(3.0).to("meta")


@pytest.mark.usefixtures("like_a_gpu")
@each(variants(5))
def test_every_argument(loss: Loss) -> None:
    for given in options(loss, 20):
        step(loss, 20, torch.float32, backend="eager", **given)


@pytest.mark.usefixtures("like_a_gpu")
@each([*one_of_each(1), *(Loss("smooth_svm", k=k) for k in (60, 260))])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_every_algorithm(loss: Loss, dtype: torch.dtype) -> None:
    step(loss, 300, dtype, backend="eager")


@pytest.mark.usefixtures("like_a_gpu")
@each(one_of_each(5))
def test_long_rows(loss: Loss) -> None:
    step(loss, 5000, torch.float32, backend="eager")


def test_the_scale_of_a_gradient() -> None:
    with OnTheDevice():
        backends.scale_(meta(6, 11), meta())


@each(variants(5))
def test_the_launch_of_the_kernels(loss: Loss, like_a_gpu: dict[str, Kernel]) -> None:
    for given in options(loss, 20):
        step(loss, 20, torch.float32, **given)
    assert all(kernel.launched for kernel in like_a_gpu.values())
