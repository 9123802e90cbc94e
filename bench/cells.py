"""Which shapes, types and implementations are measured, smaller on a CPU than on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.implementations import IMPLEMENTATIONS, Implementation
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

    def shapes(self) -> Iterator[tuple[int, int, int]]:
        """(n, k, batch), each once."""
        in_n = [(n, K, self.scores // n) for n in self.n]
        in_k = [(n, k, self.scores // n) for n in self.n_of_k for k in self.k]
        in_batch = [(self.n_of_batch, K, batch) for batch in self.batch]
        yield from dict.fromkeys(in_n + in_k + in_batch)

    def cells(self, dtypes: tuple[str, ...]) -> Iterator[Cell]:
        """Implementations of the same thing one after the other, so that they meet the same machine."""
        for n, k, batch in self.shapes():
            for dtype in dtypes:
                for work in (FORWARD, BOTH):
                    for implementation in IMPLEMENTATIONS.values():
                        if self._measures(implementation, n, k, batch, dtype, work):
                            own_k = k if implementation.has_k else None
                            yield Cell(implementation.name, n, own_k, batch, dtype, work)

    def _measures(
        self, implementation: Implementation, n: int, k: int, batch: int, dtype: str, work: str
    ) -> bool:
        """All of them at all n, and forward alone there; elsewhere what varies with the axis."""
        if n in self.n and k == K and batch == self.scores // n:
            return True
        return work == BOTH and (k == K or implementation.has_k)


GPU = Plan(
    scores=2**26,
    n=(128, 1000, 4096, 16_384, 32_768, 131_072, 2**20),
    k=(1, 2, 3, 5, 8, 10, 16, 20, 50),
    n_of_k=(1000, 32_768),
    batch=(1, 16, 256, 4096, 65_536),
    n_of_batch=1000,
)
CPU = Plan(
    scores=2**18,
    n=(128, 1000, 4096, 32_768, 131_072, 2**18),
    k=GPU.k,
    n_of_k=GPU.n_of_k,
    batch=(1, 16, 2048, 16_384),
    n_of_batch=1000,
)
TINY = Plan(scores=2**10, n=(32, 64), k=(1, 2, 5), n_of_k=(64,), batch=(1, 4), n_of_batch=64)
