"""The time of a kernel alone, with any configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from bench.ahead_of_time import Case
from bench.machine import l2_bytes
from bench.rounds import Contestant, measure
from bench.sweep.variants import text
from bench.timing import DeviceStopwatch, Graph, Result, cycled, flush, in_mebibytes
from triton_topk.batch import Batch
from triton_topk.kernels import launch
from triton_topk.kernels.config import Config

_SCORES = 2**26


class Launches:
    """A case on inputs that fill the device, launched with any configuration."""

    def __init__(self, case: Case, device: torch.device) -> None:
        torch.manual_seed(0)
        shape = _SCORES // case.n, case.n
        self.case = case
        self.inputs = [torch.randn(shape, device=device).to(case.dtype) for _ in range(2)]
        self.gradient = torch.full_like(self.inputs[0], torch.nan)
        self._labels = torch.randint(case.n, shape[:1], device=device)
        self._losses = torch.empty(shape[:1], device=device)
        self._normalizer = torch.tensor(float(shape[0]), device=device)

    def __call__(self, config: Config, which: int = 0) -> Result:
        launch.run(
            Batch(self.inputs[which], self._labels, normalizer=self._normalizer),
            self.case.parameters,
            losses=self._losses,
            gradient=self.gradient,
            config=config,
        )
        return self._losses, self.gradient


def times(
    case: Case, configs: Sequence[Config], device: torch.device
) -> Iterator[dict[str, object]]:
    """For each configuration its time, and its share of the copy bandwidth in the same rounds."""
    launches = Launches(case, device)
    evict = flush(l2_bytes(device))
    memory = torch.cuda.graph_pool_handle()
    contestants: list[Contestant] = []
    said: list[dict[str, object]] = []
    truth = None

    def enter(step: Callable[[int], Result]) -> None:
        graph = Graph(cycled([partial(step, which) for which in range(2)]), memory)
        contestants.append(Contestant(graph.replay, len(graph.results), evict))

    for config in configs:
        about: dict[str, object] = {"case": str(case), "config": text(config)}
        launches.gradient.fill_(torch.nan)
        try:
            launches(config)
            found = launches.gradient.float()
            enter(partial(launches, config))
        except Exception as error:  # more registers than there are, say
            yield about | {"error": str(error)[:200]}
            continue
        truth = found.clone() if truth is None else truth
        said.append(about | {"wrong": float((found - truth).abs().amax() / truth.abs().amax())})
    copied = [in_mebibytes(x) for x in launches.inputs]
    enter(lambda which: (copied[which].clone(), None))
    *entered, copy = contestants
    nbytes = 2 * launches.inputs[0].nbytes
    traffic = nbytes / (2 * copied[0].nbytes)
    timings = measure(entered, copy, traffic, DeviceStopwatch(), lambda: 0.0)
    for about, timing in zip(said, timings, strict=True):
        seconds, spread = timing.stats.median, timing.stats.iqr / timing.stats.median
        yield about | {"bytes": nbytes, "seconds": seconds, "share": timing.share, "spread": spread}
