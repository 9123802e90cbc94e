"""Launch configurations: a table keyed by shape and dtype, never by timing."""

import math
from dataclasses import dataclass, replace

import torch

from triton_topk.kernels.polynomial import REDUCIBLE_DEGREES

_VECTOR_BYTES = 16
_WARP = 32


@dataclass(frozen=True)
class Config:
    """How rows of n scores are laid over programs; see docs/algorithm.md, "Kernels"."""

    rows: int  # rows a program
    lanes: int  # columns a block, each with its own list of largest values
    blocks: int  # blocks a row
    stream: bool  # read the row once a phase instead of keeping it in registers
    warps: int


def choose(n: int, degree: int, dtype: torch.dtype, mixed: bool = False) -> Config:
    """The configuration for rows of n scores and polynomials of this degree, for warps of 32.

    mixed: two losses of the same scores, which both have to be weighed again for the gradient.
    """
    # What fits the registers of a lane without spilling: `scores` of the row, and of each block `wide`
    # scores, every one with a polynomial and a list of its own.  Beyond degree 10 these alone fill them.
    vector = _VECTOR_BYTES // dtype.itemsize
    if dtype == torch.float64:
        scores, wide, max_warps = 16, vector, 8
    elif degree <= 5:
        scores, wide, max_warps = 32, vector, 64 // vector
    elif degree <= 10:
        scores, wide, max_warps = 32, 4, 8
    else:
        scores, wide, max_warps = 32, 2, 8
    if mixed:
        # what the second loss needs has to come from somewhere; 16 warps have 128 registers a lane
        wide, max_warps = min(wide, 4 if degree <= 10 else 1), min(max_warps, 8)
    wanted = _power_of_two(_ceil_div(n, scores * _WARP))
    stream = wanted > max_warps or degree > 10
    warps = min(wanted, max_warps)
    if warps == 16 and not stream:
        # 128 registers a lane instead of 255: fewer blocks have shorter lists
        wide = 8
    tile = warps * _WARP * wide
    # short rows share a program
    lanes = tile if n > 2 * tile else max(16, _power_of_two(_ceil_div(n * wide, scores)))
    rows = tile // lanes
    if mixed:
        rows = max(1, rows // 2)
    return Config(rows, lanes, _ceil_div(n, lanes), stream, warps)


def in_range(config: Config, degree: int) -> bool:
    """Whether the polynomial of one lane's scores is in range when they are all equal."""
    blocks = config.blocks
    return math.comb(blocks, min(degree, blocks // 2)) < torch.finfo(torch.float32).max / 100


def for_waves_of_64(config: Config) -> Config:
    """The same with as many scores a lane: half the warps, or of one warp the lanes twice as wide."""
    if config.warps > 1:
        return replace(config, warps=config.warps // 2)
    return replace(config, lanes=2 * config.lanes, blocks=_ceil_div(config.blocks, 2))


def top_size(k: int, others: int) -> int:
    """How many of the largest scores a kernel treats one by one: a few more than k bound the
    amplification of the gradient polynomial; see docs/algorithm.md."""
    return min(others, k + min(4, max(0, (k - 4) // 2)))


def reducible_degree(degree: int) -> int | None:
    """The smallest degree not below this one that kernels can reduce; None above all."""
    return next((d for d in REDUCIBLE_DEGREES if d >= degree), None)


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _power_of_two(x: int) -> int:
    """The smallest power of two not below x."""
    return 1 << (x - 1).bit_length()
