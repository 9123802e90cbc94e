"""The types of the losses' options."""

from __future__ import annotations

from typing import Literal, TypedDict

from torch import Tensor

Reduction = Literal["none", "mean", "sum"]
Backend = Literal["triton", "eager"]
Gradient = Literal["exact", "taylor"]


class Options(TypedDict, total=False):
    """What every loss has."""

    weight: Tensor | None
    ignore_index: int
    reduction: Reduction
    normalizer: float | Tensor | None
    backend: Backend | None


class HardSVMOptions(Options, total=False):
    margin: float | Tensor


class SmoothSVMOptions(HardSVMOptions, total=False):
    tau: float
    gradient: Gradient
    order: int | None


class LqOptions(Options, total=False):
    truncation: float | None
    k: int


class SmoothSVMLqOptions(SmoothSVMOptions, total=False):
    mix: float
    truncation: float | None
