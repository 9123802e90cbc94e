"""Which shapes, types and implementations are measured, smaller on a CPU than on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.implementations import IMPLEMENTATIONS
from bench.results import BOTH, FORWARD, Cell

K = 5  # where k is not what varies


@dataclass(frozen=True)
class Plan:
    scores: int  # in all, on the axes of n and k
    n: tuple[int, ...]
    k: tuple[int, ...]
    n_of_k: tuple[int, ...]
    batch: tuple[int, ...]
    n_of_batch: int
    every_dtype: bool  # on all axes, not on that of n alone

    def is_in_n(self, n: int, k: int, batch: int) -> bool:
        return n in self.n and k == K and batch == self.scores // n

    def shapes(self) -> Iterator[tuple[int, int, int]]:
        """(n, k, batch), each once."""
        in_n = [(n, K, self.scores // n) for n in self.n]
        in_k = [(n, k, self.scores // n) for n in self.n_of_k for k in self.k]
        in_batch = [(self.n_of_batch, K, batch) for batch in self.batch]
        yield from dict.fromkeys(in_n + in_k + in_batch)

    def cells(self, dtypes: tuple[str, ...]) -> Iterator[Cell]:
        """Forward alone is measured along n; along k ours that have one, beside all others."""
        for n, k, batch in self.shapes():
            in_n = self.is_in_n(n, k, batch)
            works = (FORWARD, BOTH) if in_n else (BOTH,)
            for dtype in dtypes if in_n or self.every_dtype else dtypes[:1]:
                for work in works:
                    for name, implementation in IMPLEMENTATIONS.items():
                        if k == K or implementation.has_k or not implementation.ours:
                            yield Cell(name, n, k, batch, dtype, work)


GPU = Plan(
    scores=2**26,
    n=(128, 1000, 4096, 16_384, 32_768, 131_072, 2**20),
    k=(1, 2, 3, 5, 8, 10, 16, 20, 50),
    n_of_k=(1000, 32_768),
    batch=(1, 16, 256, 4096, 65_536),
    n_of_batch=1000,
    every_dtype=True,
)
CPU = Plan(
    scores=2**18,
    n=(128, 1000, 4096, 32_768, 131_072, 2**18),
    k=GPU.k,
    n_of_k=GPU.n_of_k,
    batch=(1, 16, 1024, 4096),
    n_of_batch=1000,
    every_dtype=False,
)
TINY = Plan(
    scores=2**10,
    n=(32, 64),
    k=(1, 5),
    n_of_k=(64,),
    batch=(1,),
    n_of_batch=64,
    every_dtype=False,
)
