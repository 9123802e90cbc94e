"""Losses of a linear layer, whose scores and gradient the kernels have in two places."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import triton_topk

# As in test_kernels.py.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.mark.parametrize("name", ["smooth_svm", "hard_svm", "lq_loss", "smooth_svm_lq"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer(name: str, reduction: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(shape, dtype=dtype) for shape in ((7, 4), (30, 4), (30,))]
    x, weight, bias = (tensor.requires_grad_() for tensor in tensors)
    labels = torch.tensor([3, 4, -100, 29, 0, 3, 3])
    options = {"weight": torch.rand(30), "reduction": reduction, "backend": "triton"}
    fused, loss = (getattr(triton_topk, prefix + name) for prefix in ("linear_", ""))
    found = fused(x, weight, labels, linear_bias=bias, chunk_rows=3, **options)
    expected = loss(F.linear(x, weight, bias), labels, **options)
    torch.testing.assert_close(found, expected)
    upstream = torch.full_like(found, 3.0)
    for a, b in zip(
        *(torch.autograd.grad(y, tensors, upstream) for y in (found, expected)), strict=True
    ):
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(a, b, rtol=4 * eps, atol=4 * eps * float(b.abs().max()))
