"""Launch configurations: a table keyed by shape and dtype, never by timing."""

import math
from dataclasses import dataclass, replace

import torch

from triton_topk.kernels.polynomial import REDUCIBLE_DEGREES

_VECTOR_BYTES = 16
_WARP = 32
_MAX_WARPS = 16
_MAX_CANDIDATES = 32  # a lane's
_PART = 32_768  # scores, about
_MAX_PARTS = 64


@dataclass(frozen=True)
class Config:
    """How rows of n scores are laid over programs; see docs/algorithm.md, "Kernels"."""

    rows: int  # rows a program
    lanes: int  # columns a block
    blocks: int  # blocks a row, or a part of it
    parts: int  # that a row too long for one program is split into; 0: the row is kept in registers
    warps: int
    registers: int | None = None  # a lane's, at most


def choose(n: int, degree: int, dtype: torch.dtype, mixed: bool = False) -> Config:
    """The configuration for rows of n scores and polynomials of this degree, for warps of 32.

    mixed: two losses of the same scores, which both have to be weighed again for the gradient.
    """
    vector = _VECTOR_BYTES // dtype.itemsize
    # Scores a lane: with what else a lane needs they fill its registers, and the more there are, the less
    # weighs what a row does once.
    scores = 64 if degree <= 5 and not mixed else 32
    if dtype == torch.float64:
        scores = 16
    warps = min(_power_of_two(_ceil_div(n, scores * _WARP)), _MAX_WARPS)
    # beyond a degree of 10 the code for rows in registers is more than the compiler can take
    if n > scores * _WARP * warps or degree > 10:
        return _split(n, vector, degree, dtype)
    tile = warps * _WARP * vector
    # Short rows share a program.  A row's candidates are about degree n / lanes scores, which its lanes share: as many
    # lanes as leave each a few.
    few_candidates = math.isqrt(2 * n * degree // 5)
    least = max(4 * vector, *map(_power_of_two, (_ceil_div(n * vector, scores), few_candidates)))
    lanes = min(tile, least)
    registers = None
    if degree <= 10 and dtype != torch.float64:
        # 128 keep 16 warps resident; vectors of 8 scores and two losses need a few more
        registers = 168 if mixed or vector == 8 else 128
    return Config(tile // lanes, lanes, _ceil_div(n, lanes), 0, warps, registers)


def _split(n: int, vector: int, degree: int, dtype: torch.dtype) -> Config:
    """Rows in parts, which are a function of n alone: a row's bits do not depend on the batch."""
    parts = min(_MAX_PARTS, _ceil_div(n, _PART))
    size = _ceil_div(n, parts)
    # as many lanes as leave each enough scores to make up for what is done once a part
    group = min(2 * _WARP, max(4, _power_of_two(_ceil_div(size, 128))))
    lanes = group * vector
    blocks = _ceil_div(size, lanes)
    parts = _ceil_div(n, blocks * lanes)
    warps = max(1, group // _WARP)
    registers = None
    if degree <= 10 and dtype != torch.float64:
        registers = 168 if vector == 8 else 128
    return Config(max(1, _WARP // group), lanes, blocks, parts, warps, registers)


def in_range(config: Config, top: int, degree: int, dtype: torch.dtype) -> bool:
    """Whether the kernels can hold rows this long.

    The polynomial of one lane's scores must be in range when they are all equal, before any scaling; and the
    candidates of a row in registers, `top` scores of each of a lane's columns, must be few for every lane.
    """
    vector = _VECTOR_BYTES // dtype.itemsize
    scores = config.blocks * vector
    if math.comb(scores, min(degree, scores // 2)) > torch.finfo(torch.float32).max / 100:
        return False
    per_column = max(1, vector // 4)
    candidates = top * _power_of_two(config.blocks * per_column) * vector // config.lanes
    return config.parts > 0 or candidates <= _MAX_CANDIDATES


def for_waves_of_64(config: Config) -> Config:
    """The same with as many scores a lane: half the warps, or of one warp the lanes twice as wide."""
    if config.warps > 1:
        return replace(config, warps=config.warps // 2, registers=None)
    return replace(
        config, lanes=2 * config.lanes, blocks=_ceil_div(config.blocks, 2), registers=None
    )


def top_size(k: int, n: int) -> int:
    """The rank of the score above which a kernel treats scores one by one: a few more than k bound the
    amplification of the gradient polynomial; see docs/algorithm.md."""
    more = min(4, max(0, (k - 4) // 2))
    return min(n, k + 1 + more, REDUCIBLE_DEGREES[-1]) if k > 1 else 1


def reducible_degree(degree: int) -> int | None:
    """The smallest degree not below this one that kernels can reduce; None above all."""
    return next((d for d in REDUCIBLE_DEGREES if d >= degree), None)


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _power_of_two(x: int) -> int:
    """The smallest power of two not below x."""
    return 1 << (x - 1).bit_length()
