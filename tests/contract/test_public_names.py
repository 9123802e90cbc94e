"""What the package shows of itself: names."""

from __future__ import annotations

from typing import Any

import torch

import triton_topk


def test_a_star_import_leaves_the_nn_of_pytorch() -> None:
    names: dict[str, Any] = {"nn": torch.nn}
    exec("from triton_topk import *", names)
    assert names["nn"] is torch.nn
    assert names.keys() - {"__builtins__", "nn"} == set(triton_topk.__all__)


def test_dir_shows_what_is_public() -> None:
    public = ["TopkHits", "hard_svm", "lq_loss", "nn", "smooth_svm", "smooth_svm_lq"]
    assert [name for name in dir(triton_topk) if not name.startswith("__")] == public
    for name in dir(triton_topk):
        assert hasattr(triton_topk, name)
