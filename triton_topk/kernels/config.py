"""Launch configurations: a table keyed by shape and dtype, never by timing."""

import math
from dataclasses import dataclass, replace

import torch

from triton_topk.kernels.polynomial import REDUCIBLE_DEGREES

_VECTOR_BYTES = 16
_WARP = 32
_MAX_WARPS = 16
_REGISTERS = 65536  # of a multiprocessor
_MAX_CANDIDATES = 16  # a lane's; more take minutes to compile
_LONG = 2048
_PART = 16_384  # scores, or as many as this many warps can hold
_MAX_PART_WARPS = 8
_MAX_PARTS = 256


@dataclass(frozen=True)
class Config:
    """How rows of n scores are laid over programs; see docs/algorithm.md, "Kernels"."""

    rows: int  # rows a program
    lanes: int  # columns of a block, or of each half of it
    blocks: int  # blocks a row, or a part of it
    stream: bool  # read the row once a phase instead of keeping it in registers
    warps: int
    registers: int | None = None  # a lane's, at most
    vectors: int = 1  # of a lane in a block: 2 of blocks in halves
    parts: int = 1  # of a row too long for one program


def choose(n: int, degree: int, dtype: torch.dtype, mixed: bool = False) -> Config:
    """The configuration for rows of n scores and polynomials of this degree, for warps of 32.

    mixed: two losses of the same scores, which both have to be weighed again for the gradient.
    """
    size = dtype.itemsize
    vector = _VECTOR_BYTES // size
    # Where the registers hold the scores, no more is run for them than where they are read again, from a cache, in each
    # phase.  But those leave registers to more scores a lane, of which what a row does once is shared by more.
    stream = degree > 5 or mixed or size == 8 or (size == 2 and n > _LONG)
    scores = {8: 32, 4: 64, 2: 128 if n > _LONG and degree <= 10 else 64}[size]
    warps = min(_power_of_two(_ceil_div(n, scores * _WARP)), _MAX_WARPS)
    in_parts = n > scores * _WARP * warps
    if in_parts:
        # long polynomials: what a part does once is most of its work
        scores = 128 if degree > 10 else scores
        warps = min(_PART // (scores * _WARP), _MAX_PART_WARPS)
    tile = warps * _WARP * vector
    # long polynomials: most work is done for the candidates, of which smaller positions have fewer
    vectors = 2 if degree > 5 else 1
    # Short rows share a program.  A row's candidates are about degree n / lanes scores, which its lanes share: as many
    # lanes as leave each a few.
    few_candidates = math.isqrt(2 * n * degree // (5 * vectors))
    least = max(4 * vector, *map(_power_of_two, (_ceil_div(n * vector, scores), few_candidates)))
    lanes = tile if in_parts else min(tile, least)
    top = top_size(degree)
    while (
        lanes < tile
        and _candidates(top, _ceil_div(n, lanes * vectors), lanes, vector) > _MAX_CANDIDATES
    ):
        lanes *= 2
    blocks = _ceil_div(n, lanes * vectors)
    # a function of n alone, so that a row's bits do not depend on the batch
    parts = _ceil_div(blocks * vector * vectors, scores) if in_parts else 1
    # 128 keep 16 warps resident; vectors of 8 scores in registers, and long polynomials, need a few more, if there are
    most = 168 if degree > 10 or (size == 2 and not stream) else 128
    registers = min(most, _REGISTERS // (warps * _WARP)) if size < 8 else None
    blocks = _ceil_div(blocks, parts)
    return Config(tile // lanes, lanes, blocks, stream, warps, registers, vectors, parts)


def in_range(config: Config, top: int, degree: int, dtype: torch.dtype) -> bool:
    """Whether the kernel can hold rows this long.

    The polynomial of one lane's scores must be in range when they are all equal, before any scaling; and the
    candidates, the scores of the label's position and `top` others, must be few for every lane.
    """
    vector = _VECTOR_BYTES // dtype.itemsize
    scores = config.blocks * config.vectors * vector
    largest = math.comb(scores, min(degree, scores // 2))
    candidates = _candidates(top, config.blocks, config.lanes, vector)
    return (
        largest < torch.finfo(torch.float32).max / 100
        and candidates <= _MAX_CANDIDATES
        and config.parts <= _MAX_PARTS
    )


def for_waves_of_64(config: Config) -> Config:
    """The same with as many scores a lane: half the warps, or of one warp the lanes twice as wide."""
    if config.warps > 1:
        return replace(config, warps=config.warps // 2, registers=None)
    return replace(
        config, lanes=2 * config.lanes, blocks=_ceil_div(config.blocks, 2), registers=None
    )


def top_size(k: int) -> int:
    """How many of the largest scores a kernel treats one by one: a few more than k bound the amplification of the
    gradient polynomial; see docs/algorithm.md."""
    return k + min(3, max(0, (k - 4) // 2))


def reducible_degree(degree: int) -> int | None:
    """The smallest degree not below this one that kernels can reduce; None above all."""
    return next((d for d in REDUCIBLE_DEGREES if d >= degree), None)


def _candidates(top: int, blocks: int, lanes: int, vector: int) -> int:
    """Of a lane, where the label's position and `top` others are taken."""
    height = _power_of_two(blocks * max(1, vector // 4))
    return (top + 1) * height * vector // lanes


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _power_of_two(x: int) -> int:
    """The smallest power of two not below x."""
    return 1 << (x - 1).bit_length()
