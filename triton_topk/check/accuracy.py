"""Every loss in every dtype, on rows that are hard for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from triton_topk.check.errors import Errors, allowed, errors
from triton_topk.check.losses import KS, Loss, losses
from triton_topk.check.rows import cases

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_ROW = "{:37}{:7}" + len(_DTYPES) * "{:>13}"


@dataclass(frozen=True)
class Failure:
    what: str
    exception: Exception | None = None


def check(device: torch.device) -> tuple[list[str], list[Failure]]:
    """A table with the backends and the largest errors, and what is wrong."""
    table = [_ROW.format("", "", *map(_name, _DTYPES))]
    failures: list[Failure] = []
    obstacles: dict[str, None] = {}  # in the order in which they were met
    for loss in losses(*KS):
        cells, of_dtypes = zip(*(_check(loss, dtype, device) for dtype in _DTYPES), strict=True)
        wrong = [failure for of_dtype in of_dtypes for failure in of_dtype]
        failures += wrong
        backend = "?"
        if not any(failure.exception for failure in wrong):
            obstacle = loss.obstacle(device)
            backend = "eager" if obstacle else "triton"
            obstacles |= {obstacle: None} if obstacle else {}
        table.append(_ROW.format(str(loss), backend, *cells))
    return [*table, *(f"eager: triton {obstacle}" for obstacle in obstacles)], failures


def _check(loss: Loss, dtype: torch.dtype, device: torch.device) -> tuple[str, list[Failure]]:
    hard = cases(loss.k)
    what = f"{loss}, {_name(dtype)}"
    try:
        found = list(errors(loss, hard, dtype, device))
    except Exception as exception:  # whatever it is, it is what the report is about
        return "fails", [Failure(f"{what}: {type(exception).__name__}", exception)]
    limit = allowed(loss, dtype)
    wrong = [
        Failure(f"{what}, {case.name}: {excess}")
        for case, of_case in zip(hard, found, strict=True)
        for excess in _excesses(of_case, limit)
    ]
    worst = torch.tensor(found, dtype=torch.float64).amax(0)  # NaN if one is
    return str(Errors(*worst.tolist())), wrong


def _excesses(found: Errors, limit: Errors) -> Iterator[str]:
    for what, error, most in zip(Errors._fields, found, limit, strict=True):
        if not error <= most:  # NaN too
            yield f"{what} off by {error:.1e}, allowed {most:.1e}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
