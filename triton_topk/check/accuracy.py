"""The check computes every loss in every dtype, on rows that are hard for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from triton_topk.check.errors import Errors, allowed, errors
from triton_topk.check.losses import KS, Loss, losses
from triton_topk.check.rows import cases

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_LINE = "{:37}{:7}" + len(_DTYPES) * "{:>13}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


HEADER = _LINE.format("", "", *map(_name, _DTYPES))
_BOUNDS = [f"{x.approximation:.0e} at k = {x.k}" for x in losses(*KS) if x.approximation]
TAYLOR = f"taylor: the paper's approximation, its gradient may be off by {', '.join(_BOUNDS)}"


@dataclass(frozen=True)
class Failure:
    """A failure has a sentence, and the exception if there was one."""

    what: str
    exception: Exception | None = None


@dataclass(frozen=True)
class Row:
    """A row of the table shows the largest errors of one loss."""

    line: str
    failures: list[Failure]
    why: list[str]  # another backend than the first computes it


def rows(device: torch.device) -> Iterator[Row]:
    for loss in losses(*KS):
        cells, of_dtypes = zip(*(_check(loss, dtype, device) for dtype in _DTYPES), strict=True)
        failures = [failure for of_dtype in of_dtypes for failure in of_dtype]
        if any(failure.exception for failure in failures):
            backend, obstacles = "?", list[str]()
        else:
            backend, obstacles = loss.backend(device)
        why = [f"{backend}, since {obstacle}" for obstacle in obstacles]
        yield Row(_LINE.format(str(loss), backend, *cells), failures, why)


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
