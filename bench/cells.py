"""A plan says which implementations are measured, and on scores of which shapes and types."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from bench.implementations import IMPLEMENTATIONS

FORWARD, BOTH = "forward", "forward + backward"
SIZES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}  # bytes of a score, by dtype
K = 5  # where k is not what varies


@dataclass(frozen=True)
class Cell:
    implementation: str
    n: int
    k: int  # of the implementations beside it, where it has none itself
    batch: int
    dtype: str
    work: str  # FORWARD or BOTH

    @property
    def traffic(self) -> int:
        """These bytes must move: the scores are read once, the gradient is written once."""
        return self.batch * self.n * SIZES[self.dtype] * (2 if self.work == BOTH else 1)

    @property
    def task(self) -> Self:
        """All implementations of a task take turns in the same rounds."""
        return replace(self, implementation="")

    def __str__(self) -> str:
        return f"n = {self.n:,}, k = {self.k}, batch {self.batch:,}, {self.dtype}, {self.work}"


@dataclass(frozen=True)
class Plan:
    scores: int  # in all, along n and k
    n: tuple[int, ...]
    n_of_k: tuple[int, ...]
    batch: tuple[int, ...]
    n_of_batch: int = 1000
    k: tuple[int, ...] = (1, 2, 3, 5, 8, 10, 16, 20, 50)
    every_dtype: bool = False  # along k and the batch, not along n alone

    def cells(self, dtypes: tuple[str, ...]) -> Iterator[Cell]:
        """Forward alone is measured along n only, ours without k only where k does not vary."""
        along_n = [(n, K, self.scores // n) for n in self.n]
        along_k = [(n, k, self.scores // n) for n in self.n_of_k for k in self.k]
        along_batch = [(self.n_of_batch, K, batch) for batch in self.batch]
        for shape in dict.fromkeys(along_n + along_k + along_batch):
            for dtype in dtypes if shape in along_n or self.every_dtype else dtypes[:1]:
                for work in (FORWARD, BOTH) if shape in along_n else (BOTH,):
                    for each in IMPLEMENTATIONS.values():
                        if shape[1] == K or each.has_k or not each.ours:
                            yield Cell(each.name, *shape, dtype, work)


CPU = Plan(2**18, (128, 1000, 4096, 32_768, 131_072, 2**18), (1000, 32_768), (1, 16, 1024, 4096))
GPU = Plan(
    scores=2**26,
    n=(128, 1000, 4096, 16_384, 32_768, 131_072, 2**20),
    n_of_k=(1000, 32_768),
    batch=(1, 16, 256, 4096, 65_536),
    every_dtype=True,
)
TINY = Plan(2**10, n=(16, 32, 64), n_of_k=(64,), batch=(1,), n_of_batch=64, k=(1, 2, 5))
