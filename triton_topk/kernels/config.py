"""A table keyed by shape and dtype chooses launch configurations; no timing does."""

import math
from dataclasses import dataclass, replace

import torch

from triton_topk.kernels.tuples import REDUCIBLE_LENGTHS
from triton_topk.polynomial import largest_coefficient

MAX_K = 16
MAX_K_OF_SHARDS = 12  # of the smooth SVM, whose Top of a shard has more scores than others
MAX_DEGREE = 20  # of polynomials
_VECTOR_BYTES = 16
_WARP = 32
_MAX_WARPS = 16
_REGISTERS = 65536  # of a multiprocessor
_MAX_CANDIDATES = 16  # a lane's; more take minutes to compile
_FEW_CANDIDATES = 4  # a lane's
_LOW = 8  # scores of a position, all of which are candidates
_FEW_CLASSES = 16
_MOST_LOADS = 32  # of a lane, which are unrolled; more take a minute to compile
_SHORT = 2048
_LONG = 8192
_PART_WARPS = 4
_LONGEST_PART = 16_384  # scores
_MAX_PARTS = 256


@dataclass(frozen=True)
class Config:
    """A Config lays rows of n scores over programs; see docs/algorithm.md, "Kernels"."""

    rows: int  # rows a program
    columns: int  # of a block, or of each half of it
    blocks: int  # blocks a row, or a part of it
    stream: bool  # read the row once a phase instead of keeping it in registers
    warps: int
    registers: int | None = None  # a lane's, at most
    vectors: int = 1  # of a lane in a block: 2 of blocks in halves
    parts: int = 1  # of a row too long for one program


def choose(n: int, degree: int, dtype: torch.dtype, mixed: bool = False) -> Config:
    """Choose the configuration for rows of n scores and polynomials of this degree, for warps of 32.

    mixed: two losses of the same scores, which both have to be weighed again for the gradient.

    On an H100 (docs/performance.md) the instructions of a score decided little, and three things much: how many warps
    the registers leave room for, whether the code fits the caches of instructions, and the number of candidates.
    """
    size = dtype.itemsize
    # Registers hold the scores where they can.  Else they are read again, from a cache, in each phase.
    stream = (
        degree > 5 or mixed or size == 8 or (size == 2 and n > (_SHORT if degree == 1 else 512))
    )
    fills_registers = size == 4 and not stream and n > _LONG
    # More scores a lane share what a row does once, and fewer warps wait for each other.
    scores = {8: 32, 4: 64, 2: 128 if n > _SHORT and degree <= 10 else 64}[size]
    scores = 128 if fills_registers else scores
    most_warps = _MAX_WARPS // 2 if fills_registers else _MAX_WARPS
    warps = min(_power_of_two(_ceil_div(n, scores * _WARP)), most_warps)
    parts = 1
    if n > scores * _WARP * warps:
        # long polynomials: what a part does once is most of its work
        scores = {8: 32, 4: 128 if degree > 10 else 64, 2: 128}[size]
        warps = _PART_WARPS
        if n > _MAX_PARTS * scores * _WARP * warps:
            warps = _LONGEST_PART // (scores * _WARP)
        # a function of n alone, so that a row's bits do not depend on the batch
        parts = _ceil_div(n, scores * _WARP * warps)
    columns, vectors = _columns(n, degree, dtype, stream, scores, warps)
    config = laid_out(Config(1, columns, 1, stream, warps, None, vectors, parts), n, dtype)
    registers = _registers(config, n, degree, dtype, mixed)
    if registers is None:
        return config
    return replace(config, registers=min(registers, _REGISTERS // (warps * _WARP)))


def laid_out(config: Config, n: int, dtype: torch.dtype) -> Config:
    """Compute the rows a program and blocks a row that columns, warps and parts make of rows of n scores."""
    tile = config.warps * _WARP * vector_of(n, dtype)
    columns = min(config.columns, tile) if config.parts == 1 else tile
    blocks = _ceil_div(_ceil_div(n, columns * config.vectors), config.parts)
    return replace(config, rows=tile // columns, columns=columns, blocks=blocks)


def vector_of(n: int, dtype: torch.dtype) -> int:
    """Count the adjacent scores of a lane: as many as 16 bytes hold, or fewer where short rows begin in between.

    Triton reads a longer row that does so score by score, and moves the scores between lanes to vectors of 16 bytes.
    That takes few instructions where a row has a warp for itself; code for single scores would take minutes to compile.
    """
    vector = _VECTOR_BYTES // dtype.itemsize
    return math.gcd(n, vector) if n <= _SHORT // 2 else vector


def _columns(
    n: int, degree: int, dtype: torch.dtype, stream: bool, scores: int, warps: int
) -> tuple[int, int]:
    """Choose columns and vectors for rows that are not in parts; short rows share a program."""
    vector = vector_of(n, dtype)
    tile = warps * _WARP * vector
    most = 40 if dtype.itemsize == 4 and degree <= 5 else scores
    if not stream:
        most = min(most, _MOST_LOADS * vector)
    fewest = (2 if n <= _FEW_CLASSES else 4) * vector
    columns = min(tile, max(fewest, _power_of_two(_ceil_div(n * vector, most))))
    vectors = 1 if degree == 1 else 2
    top = top_size(degree)
    while (
        columns < tile
        and _candidates(top, _ceil_div(n, columns * vectors), columns, vector) > _MAX_CANDIDATES
    ):
        columns *= 2
    # positions of half the height only where they are high, or a lane has many candidates
    blocks = _ceil_div(n, columns)
    low = _height(blocks, vector) <= _LOW
    if columns >= n or (low and _candidates(top, blocks, columns, vector) <= _FEW_CANDIDATES):
        vectors = 1
    return columns, vectors


def _registers(config: Config, n: int, degree: int, dtype: torch.dtype, mixed: bool) -> int | None:
    """Limit the registers of a lane: fewer make room for more warps, but none should be spilled."""
    size, vector = dtype.itemsize, vector_of(n, dtype)
    short, stream = n <= _SHORT, config.stream
    few = config.blocks * config.vectors * vector <= 32  # scores of a lane
    if size == 8:
        return None
    if degree > 10:
        return 168
    if size == 4 and not stream and n > _LONG and config.parts == 1:
        return 255
    if degree > 5:
        return 128
    if size == 4 and short and (config.vectors == 1 or not stream) and few:
        return 88 if stream else 96
    if size == 2 and stream and not (mixed and short):
        return 96 if short or config.parts > 1 else 112
    return 128


def in_range(config: Config, n: int, top: int, degree: int, dtype: torch.dtype) -> bool:
    """Return whether the kernel can hold rows of n scores.

    The polynomial of one lane's scores must be in range when they are all equal, before any scaling; and the
    candidates, the scores of the label's position and `top` others, must be few for every lane.
    """
    vector = vector_of(n, dtype)
    scores = config.blocks * config.vectors * vector
    largest = largest_coefficient(scores, degree)
    candidates = _candidates(top, config.blocks, config.columns, vector)
    return (
        largest < torch.finfo(torch.float32).max / 100
        and candidates <= _MAX_CANDIDATES
        # the shortest summaries can be merged for any number of parts
        and (config.parts <= _MAX_PARTS or top + degree == 1)
    )


def for_waves_of_64(config: Config) -> Config:
    """Keep the scores of a lane: take half the warps, or for one warp twice the columns."""
    if config.warps > 1:
        return replace(config, warps=config.warps // 2, registers=None)
    return replace(
        config, columns=2 * config.columns, blocks=_ceil_div(config.blocks, 2), registers=None
    )


def top_size(k: int) -> int:
    """Return how many of the largest scores a kernel treats one by one.

    A few more than k bound the amplification of the gradient polynomial; see docs/algorithm.md.
    """
    return k + min(3, max(0, (k - 4) // 2))


def k_of_top(top: int) -> int:
    """Return the smallest k for which a kernel treats so many scores one by one."""
    return next(k for k in range(1, top + 1) if top_size(k) >= top)


def reducible_length(degree: int) -> int | None:
    """Return the smallest length not below this one that kernels can reduce; None above all."""
    return next((d for d in REDUCIBLE_LENGTHS if d >= degree), None)


def _candidates(top: int, blocks: int, columns: int, vector: int) -> int:
    """Count a lane's candidates, where the label's position and `top` others are taken."""
    return (top + 1) * _height(blocks, vector) * vector // columns


def _height(blocks: int, vector: int) -> int:
    """Count the scores of a position, which has two of each block of vectors of 8 scores."""
    return _power_of_two(blocks * max(1, vector // 4))


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _power_of_two(x: int) -> int:
    """Return the smallest power of two not below x."""
    return 1 << (x - 1).bit_length()
