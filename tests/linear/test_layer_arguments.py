"""Errors name the argument, its value and what was expected."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from losses import Loss, every_loss
from torch import Tensor

import triton_topk

GOOD: dict[str, Any] = {
    "input": torch.zeros(3, 6),
    "linear_weight": torch.zeros(11, 6),
    "labels": torch.zeros(3, dtype=torch.int64),
    "linear_bias": torch.zeros(11),
}
BAD = [
    ({"input": [[0.0] * 6]}, TypeError, "input .*Tensor.* list"),
    ({"input": torch.zeros(3, 6).int()}, TypeError, "input .*float16.* torch.int32"),
    ({"input": torch.zeros(3, 6).double()}, TypeError, "linear_weight .*float64.*float32"),
    ({"input": torch.zeros(3, 6).to_sparse()}, TypeError, "input .*dense.*sparse"),
    ({"input": torch.tensor(0.0)}, ValueError, r"input .*\(D,\) or \(N, D\).* \(\)"),
    (
        {"input": torch.zeros(3, 2, 6)},
        ValueError,
        r"input .*\(D,\) or \(N, D\), as of input.flatten.*\(3, 2, 6\)",
    ),
    ({"linear_weight": 3.0}, TypeError, "linear_weight .*Tensor.* float"),
    ({"linear_weight": torch.zeros(6)}, ValueError, r"linear_weight .*\(C, 6\).*\(6,\)"),
    (
        {"linear_weight": torch.zeros(11, 5)},
        ValueError,
        r"linear_weight .*\(C, 6\).*\(3, 6\).*\(11, 5\)",
    ),
    ({"linear_weight": torch.zeros(11, 6).half()}, TypeError, "linear_weight .*float32.*float16"),
    ({"linear_weight": torch.zeros(11, 6, device="meta")}, ValueError, "linear_weight .*cpu.*meta"),
    ({"linear_weight": torch.zeros(0, 6), "linear_bias": None}, ValueError, r"scores .*\(3, 0\)"),
    ({"labels": torch.zeros(2, dtype=torch.int64)}, ValueError, r"labels .*\(3,\).*\(2,\)"),
    ({"labels": torch.full((3,), 11)}, IndexError, r"labels .*\[0, 11\).*11"),
    ({"linear_bias": 1.0}, TypeError, "linear_bias .*Tensor.* float"),
    ({"linear_bias": torch.zeros(6)}, ValueError, r"linear_bias .*\(11,\).*\(6,\)"),
    ({"linear_bias": torch.zeros(11).double()}, TypeError, "linear_bias .*float32.*float64"),
    ({"linear_bias": torch.zeros(11, device="meta")}, ValueError, "linear_bias .*cpu.*meta"),
    ({"chunk_rows": 0}, ValueError, r"chunk_rows .*\[1, 2\*\*63\).* 0"),
    ({"chunk_rows": 2**63}, ValueError, "chunk_rows .* 9223372036854775808"),
    ({"chunk_rows": 2.0}, TypeError, r"chunk_rows .*int.*2\.0"),
    ({"chunk_rows": True}, TypeError, "chunk_rows .*int.*True"),
    ({"weight": torch.ones(6)}, ValueError, r"weight .*\(11,\).*\(6,\)"),
    ({"reduction": "avg"}, ValueError, "reduction .*'avg'"),
    ({"k": 11, "return_topk_hits": True}, ValueError, "k .*C=11.*k=11"),
    ({"target": torch.zeros(3)}, TypeError, r"linear_\w+\(\) got .*'target': use labels"),
    ({"label_smoothing": 0.1}, TypeError, r"linear_\w+\(\) got .*label smoothing is not"),
    ({"bias": None}, TypeError, r"linear_\w+\(\) got .*'bias': use linear_bias"),
    ({"chunk_size": 2}, TypeError, r"linear_\w+\(\) got .*'chunk_size': use chunk_rows"),
    ({"lin": None}, TypeError, r"linear_\w+\(\) got .*'lin': expected one of input, linear_w"),
]


@pytest.mark.exhaustive(one_in=3)
@every_loss
@pytest.mark.parametrize(("bad", "error", "message"), BAD, ids=lambda x: str(x)[:30])
def test_bad_arguments(
    loss: Loss, bad: dict[str, Any], error: type[Exception], message: str
) -> None:
    function = getattr(triton_topk, f"linear_{loss.name}")
    with pytest.raises(error, match=f"^{message}"):
        function(**GOOD | bad)


@every_loss
def test_good_arguments(loss: Loss) -> None:
    function = getattr(triton_topk, f"linear_{loss.name}")
    found = function(**GOOD)
    assert isinstance(found, Tensor)
    x, weight, labels = list(GOOD.values())[:3]
    torch.testing.assert_close(function(x, weight, labels, linear_bias=None), found)
