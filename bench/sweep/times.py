"""A kernel alone is timed, with any configuration."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from triton.testing import do_bench

from bench.ahead_of_time import Case
from bench.sweep.variants import text
from triton_topk.batch import Batch, accumulation_dtype
from triton_topk.kernels import launch
from triton_topk.kernels.config import Config

_SCORES = 2**26
_ROUNDS = 5


class Launches:
    """A case is launched on inputs that fill the device, with any configuration."""

    def __init__(self, case: Case, device: torch.device) -> None:
        torch.manual_seed(0)
        shape = max(1, _SCORES // case.n), case.n
        self.scores = torch.randn(shape, device=device).to(case.dtype)
        self.gradient = torch.empty_like(self.scores)
        labels = torch.randint(case.n, shape[:1], device=device)
        of_rows = {"device": device, "dtype": accumulation_dtype(case.dtype)}
        batch = Batch(self.scores, labels, normalizer=torch.tensor(float(shape[0]), **of_rows))
        tensors = {"losses": torch.empty(shape[:1], **of_rows), "gradient": self.gradient}
        self._launch = partial(launch.run, batch, case.parameters, **tensors)

    def __call__(self, config: Config) -> None:
        self._launch(config=config)


def times(case: Case, configs: Sequence[Config], device: torch.device) -> Iterator[dict[str, Any]]:
    """Return each configuration's time and its share of the copy bandwidth, all measured in turns."""
    launches = Launches(case, device)
    # whole mebibytes: CUDA's copies of other sizes are slower by a fifth
    copied = torch.randn(_SCORES, device=device).to(case.dtype)
    calls: list[Callable[[], Any]] = [copied.clone]
    said: list[dict[str, Any]] = []
    truth = None
    for config in configs:
        about: dict[str, Any] = {"case": str(case), "config": text(config)}
        launches.gradient.fill_(torch.nan)
        try:
            launches(config)
        except Exception as error:  # more registers than there are, say
            yield about | {"error": str(error)[:200]}
            continue
        found = launches.gradient.float()
        truth = found.clone() if truth is None else truth
        said.append(about | {"wrong": float((found - truth).abs().amax() / truth.abs().amax())})
        calls.append(partial(launches, config))
    rounds = [[do_bench(call, return_mode="median") for call in calls] for _ in range(_ROUNDS)]
    copy, *timed = (sorted(of_call) for of_call in zip(*rounds, strict=True))  # milliseconds
    nbytes = 2 * launches.scores.nbytes
    rate = 2 * copied.nbytes / statistics.median(copy)
    for about, found in zip(said, timed, strict=True):
        median = statistics.median(found)
        share, spread = nbytes / median / rate, (found[-1] - found[0]) / median
        yield about | {"bytes": nbytes, "seconds": median / 1e3, "share": share, "spread": spread}
