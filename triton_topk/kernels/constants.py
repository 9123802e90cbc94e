"""A kernel is compiled for a layout of rows over programs and lanes, and for the losses that take part."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton.language as tl
from triton import knobs

from triton_topk.batch import accumulation_dtype
from triton_topk.kernels import summary
from triton_topk.kernels.config import Config, reducible_length, top_size, vector_of
from triton_topk.losses import HardSVM, Loss, Lq, Mixture, SmoothSVM

_LARGEST_COEFFICIENT = 1e36  # and its reciprocal: in the range of float32


@dataclass(frozen=True)
class Constants:
    """A group of a kernel's constants gives the kernel each of its attributes as a tl.constexpr."""

    group: Any

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.group, name)
        # Triton's interpreter wants the constant itself
        return value if knobs.runtime.interpret else tl.constexpr(value)


class Numbers(NamedTuple):
    """The losses' numbers are arguments of the kernel, in float64."""

    margin: float = 0.0  # k * margin
    inverse: float = 0.0  # 1 / (k tau)
    rate: float = 0.0  # log2(e) / (k tau)
    tau: float = 0.0
    q: float = 0.0
    cut: float = 0.0  # -log of the truncation
    truncated: float = 0.0  # the loss there
    mix: float = 1.0  # the share of the smooth SVM beside Lq


@dataclass(frozen=True)
class Formula:
    """A Formula says which losses take part, and for what their formulas are unrolled."""

    smooth: bool = False
    hard: bool = False
    lq: bool = False
    k: int = 1
    top: int = 1  # how many of the largest scores are treated one by one
    degree: int = 0  # of the polynomials
    threshold: float | None = (
        None  # of e u_k for the series of the Taylor-type gradient; None: the exact one
    )
    truncated: bool = False
    scaled: bool = False  # whether coefficients leave the range of float32

    @property
    def mixed(self) -> bool:
        """Return whether two losses weigh the same scores."""
        return self.smooth and self.lq

    @property
    def has_top(self) -> bool:
        """Return whether the gradients of Top are computed one by one."""
        return self.smooth and self.k > 1

    @property
    def summed(self) -> bool:
        """Return whether a loss takes part that needs a sum over the scores."""
        return self.hard or self.lq

    @property
    def taken(self) -> int:
        """Count the positions that are taken: the label's, and one for each of the largest scores."""
        return self.top + 1

    @property
    def sorted(self) -> int:
        """Return the length of lists that are merged."""
        return reducible_length(self.top)

    @property
    def sorted_positions(self) -> int:
        """Return the length of lists of positions that are merged."""
        return reducible_length(self.taken)

    @property
    def reducible(self) -> int:
        """Return the degree of polynomials that are multiplied."""
        return reducible_length(self.degree)


@dataclass(frozen=True, kw_only=True)
class Layout(Config):
    """A Layout lays rows of one kind over programs and lanes; scores have the shape [rows, columns]."""

    acc: tl.dtype  # of the arithmetic
    coarse: bool  # whether scores have 16 bits
    vector: int  # adjacent scores of a lane
    align_rows: int  # scores of which each row's start is a multiple
    align_n: int  # scores of which n is a multiple
    finish: bool = False  # whether the launch begins with the summaries of a row's parts
    merged: bool = False  # whether it begins with the summary of all shards of a row's classes
    summarize: bool = False  # whether it ends with the summary of a row, which is that of a shard
    numbers: int  # of a part's summary
    summary: int  # the same and its positions

    @property
    def accumulates(self) -> bool:
        """Return whether the launch does not begin with a summary."""
        return not (self.finish or self.merged)

    @property
    def vec(self) -> int:
        """Count the adjacent columns of a lane."""
        return min(self.vector, self.columns, max(1, self.rows * self.columns // (32 * self.warps)))

    @property
    def lanes(self) -> int:
        """Count the lanes that hold a row."""
        return self.columns // self.vec

    @property
    def block(self) -> int:
        """Count the columns of a block."""
        return self.vectors * self.columns

    @property
    def slots(self) -> int:
        """Count the positions of a lane in each tensor of a block."""
        return min(self.vec, 4)

    @property
    def fold(self) -> int:
        """Count the columns of a position in a block."""
        return self.vec // self.slots

    @property
    def height(self) -> int:
        """Count the scores of a position, rounded up to a power of two."""
        return 1 << (self.blocks * self.fold - 1).bit_length()


def _smooth_svm(loss: Any, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, float]]:
    k, order, eps = loss.k, loss.order, torch.finfo(accumulation_dtype(dtype)).eps
    formula = {
        "smooth": True,
        "k": k,
        "top": top_size(k),
        "degree": k if order is None else k + order - 1,
        "threshold": None if order is None else loss.series_threshold(eps),
    }
    return formula, {
        "margin": k * loss.margin,
        "inverse": 1 / (k * loss.tau),
        "rate": math.log2(math.e) / (k * loss.tau),
        "tau": loss.tau,
    }


def _hard_svm(loss: Any, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, float]]:
    return {"hard": True, "k": loss.k, "top": loss.k}, {"margin": loss.k * loss.margin}


def _lq(loss: Any, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, float]]:
    formula: dict[str, Any] = {"lq": True}
    if loss.hits is not None:
        formula |= {"k": loss.hits, "top": loss.hits}
    if loss.truncation is None:
        return formula, {"q": loss.q}
    cut = -math.log(loss.truncation)
    return formula | {"truncated": True}, {
        "q": loss.q,
        "cut": cut,
        "truncated": loss.truncated_loss,
    }


def _mixture(loss: Any, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, float]]:
    lq, of_lq = _lq(loss.lq, dtype)
    smooth, of_smooth = _smooth_svm(loss.svm, dtype)
    return lq | smooth, of_lq | of_smooth | {"mix": loss.mix}


FORMULAS: dict[type[Loss], Callable[..., tuple[dict[str, Any], dict[str, float]]]] = {
    SmoothSVM: _smooth_svm,
    HardSVM: _hard_svm,
    Lq: _lq,
    Mixture: _mixture,
}


@lru_cache(maxsize=1024)
def formula(
    loss: Loss, n: int, dtype: torch.dtype, sharded: bool = False
) -> tuple[Formula, Numbers]:
    """Return the formula of a loss for rows of n scores, and its numbers."""
    chosen, numbers = FORMULAS[type(loss)](loss, dtype)
    found = Formula(**chosen)
    if sharded:
        # the summaries of all backends have one form, and the other shards any number of scores
        found = replace(found, top=loss.form.top, scaled=found.degree > 1)
    else:
        scaled = math.comb(n - 1, found.degree) > _LARGEST_COEFFICIENT
        found = replace(found, scaled=scaled)
    return found, Numbers(**numbers)


def layout(config: Config, of: Formula, n: int, dtype: torch.dtype, aligned: bool) -> Layout:
    """Return the layout of rows of n scores, which start at multiples of `vector` if they are aligned."""
    vector = vector_of(n, dtype)
    numbers = summary.size(of.top, of.degree)
    return Layout(
        **asdict(config),
        acc=tl.float64 if dtype == torch.float64 else tl.float32,
        coarse=dtype.itemsize == 2,
        vector=vector,
        align_rows=vector if aligned else 1,
        align_n=math.gcd(n, vector),
        numbers=numbers,
        summary=numbers + of.taken,
    )
