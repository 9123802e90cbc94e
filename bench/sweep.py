"""Launch configurations beside those of the table (triton_topk/kernels/config.py), each timed as the kernel alone.

    python -m bench.sweep --compile 8        # on any machine: fills Triton's cache for sm_90, in 8 processes
    python -m bench.sweep --out sweep.jsonl  # on a GPU: a line for each configuration, as it is measured

A table of configurations is made of what this finds; nothing is chosen when a loss is called.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from triton.backends.compiler import GPUTarget

from bench.ahead_of_time import Case, compile_only
from bench.machine import l2_bytes
from bench.rounds import Contestant, measure
from bench.timing import DeviceStopwatch, Graph, Result, cycled, flush
from triton_topk.kernels import launch
from triton_topk.kernels.config import Config

_SCORES = 2**26
_MOST_SCORES = 128  # of a lane; more would take minutes to compile
F32, BF16 = torch.float32, torch.bfloat16

CASES = [
    *(Case(n, 5, dtype) for n in (1000, 4096, 32_768, 16_384, 128) for dtype in (F32, BF16)),
    *(Case(131_072, 5, dtype) for dtype in (F32, BF16)),
    *(Case(1000, k, F32) for k in (10, 16, 1, 2)),
    *(Case(n, 5, F32, loss="smooth_svm_lq") for n in (1000, 32_768, 131_072)),
    *(Case(n, 5, BF16, loss="smooth_svm_lq") for n in (1000, 32_768)),
    *(Case(n, None, dtype, loss="lq_loss") for n in (1000, 32_768) for dtype in (F32, BF16)),
    Case(1000, 5, F32, loss="hard_svm"),
    Case(1000, 10, BF16),
]


def variants(case: Case) -> list[Config]:
    """The table's first; then what differs from it in one thing, or in two that go together."""
    base = launch.choose(case.parameters, case.n, case.dtype)
    tried: list[dict[str, int | bool]] = [
        {"registers": r} for r in (base.registers or 128, 80, 96, 128, 168, 255)
    ]
    tried += [{"stream": not base.stream, "registers": r} for r in (80, 96, 128)]
    if base.parts > 1:
        tried += [
            {"warps": warps, "parts": parts * base.warps // warps, "registers": registers}
            for warps in (2, 4, 8, 16)
            for parts in (base.parts, 2 * base.parts)
            for registers in (80, 128)
        ]
    else:
        wide, narrow = 2 * base.lanes, base.lanes // 2
        one = base.warps == 1  # several rows then share a warp, or one is alone in it
        for r in (72, 80, 96, 128):
            tried.append(
                {"lanes": wide, "warps": base.warps * (1 if base.rows > 1 else 2), "registers": r}
            )
        for r in (128, 168, 255) if base.stream else (255,):
            tried.append({"lanes": narrow, "warps": max(1, base.warps // 2), "registers": r})
        tried += [
            {"lanes": wide, "warps": 2 * base.warps, "registers": 96},
            {"lanes": 2 * wide, "warps": base.warps * (1 if base.rows > 2 else 4), "registers": 80},
            {"warps": 2 * base.warps, "registers": 128},
            {"vectors": 3 - base.vectors, "registers": 128},
            *(
                {"stream": True, "lanes": narrow, "warps": max(1, base.warps // 2), "registers": r}
                for r in (80, 128)
            ),
        ]
        if not one and case.n >= 16_384:
            tried += [
                {"parts": parts, "warps": base.warps // parts, "registers": 128} for parts in (2, 4)
            ]
    return list(dict.fromkeys(filter(None, (_laid_out(case, base, changes) for changes in tried))))


def _laid_out(case: Case, base: Config, changes: Mapping[str, Any]) -> Config | None:
    """None where there is no such kernel, or none that compiles in seconds."""
    new = replace(base, **changes)
    vector = 16 // case.dtype.itemsize
    tile = new.warps * 32 * vector
    lanes = tile if new.parts > 1 else min(new.lanes, tile)
    blocks = _ceil_div(_ceil_div(case.n, lanes * new.vectors), new.parts)
    new = replace(new, lanes=lanes, rows=tile // lanes, blocks=blocks)
    fits = 32 * new.warps * (new.registers or 0) <= 65_536 and new.warps <= 16
    short = new.stream or new.blocks * new.vectors * vector <= _MOST_SCORES
    known = launch.in_range(case.parameters, case.n, case.dtype, new)
    return new if fits and short and known else None


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _compile(job: tuple[Case, Config]) -> str:
    start = time.perf_counter()
    try:
        compile_only(*job, GPUTarget("cuda", 90, 32))
    except Exception as error:
        return f"{job}: {type(error).__name__}: {error}"
    return f"{job[0]} {_text(job[1])} {time.perf_counter() - start:.0f} s"


def _text(c: Config) -> str:
    kind = "s" if c.stream else "r"
    return f"{c.rows}x{c.lanes}x{c.vectors}x{c.blocks}{kind} w{c.warps} r{c.registers} p{c.parts}"


class Launches:
    """A case on inputs that fill the device, launched with any configuration."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        shape = _SCORES // case.n, case.n
        self.case = case
        self.inputs = [torch.randn(shape, device="cuda").to(case.dtype) for _ in range(2)]
        self.gradient = torch.full_like(self.inputs[0], torch.nan)
        self._labels = torch.randint(case.n, shape[:1], device="cuda")
        self._losses = torch.empty(shape[:1], device="cuda")
        self._normalizer = torch.tensor(float(shape[0]), device="cuda")

    def __call__(self, config: Config, which: int = 0) -> Result:
        launch.run(
            self.inputs[which],
            self._labels,
            self.case.parameters,
            normalizer=self._normalizer,
            losses=self._losses,
            gradient=self.gradient,
            config=config,
        )
        return self._losses, self.gradient


def times(case: Case, configs: Sequence[Config]) -> Iterator[dict[str, object]]:
    """For each configuration its time, and its share of the copy bandwidth in the same rounds."""
    launches = Launches(case)
    evict = flush(l2_bytes(torch.device("cuda")))
    memory = torch.cuda.graph_pool_handle()
    contestants: list[Contestant] = []
    said: list[dict[str, object]] = []
    truth = None

    def enter(step: Callable[[int], Result]) -> None:
        graph = Graph(cycled([partial(step, which) for which in range(2)]), memory)
        contestants.append(Contestant(graph.replay, len(graph.results), evict))

    for config in configs:
        about: dict[str, object] = {"case": str(case), "text": _text(config)} | asdict(config)
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
    enter(lambda which: (launches.inputs[which].clone(), None))
    *entered, copy = contestants
    timings = measure(entered, copy, 1.0, DeviceStopwatch(), lambda: 0.0)
    for about, timing in zip(said, timings, strict=True):
        spread = timing.stats.iqr / timing.stats.median
        yield about | {"share": timing.share, "seconds": timing.stats.median, "spread": spread}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--compile", type=int, metavar="PROCESSES")
    parser.add_argument("--out", type=Path, default=Path("build/sweep.jsonl"))
    parser.add_argument("--table", action="store_true", help="only the table's configurations")
    parser.add_argument("--once", action="store_true", help="launch the table's, for a profiler")
    parser.add_argument("-k", default="", help="only cases whose names match")
    arguments = parser.parse_args()
    cases = [case for case in CASES if re.search(arguments.k, str(case))]

    def configs(case: Case) -> list[Config]:
        return variants(case)[: 1 if arguments.table else None]

    if arguments.compile:
        jobs = [(case, config) for case in cases for config in configs(case)]
        print(len(jobs), "configurations", flush=True)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(arguments.compile, mp_context=context) as pool:
            for line in pool.map(_compile, jobs):
                print(line, flush=True)
        return
    if arguments.once:
        for case in cases:
            launches = Launches(case)
            launches(launch.choose(case.parameters, case.n, case.dtype))
        torch.cuda.synchronize()
        return
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w") as out:
        for case in cases:
            found = list(times(case, configs(case)))
            for line in found:
                print(json.dumps(line), file=out, flush=True)
            timed = sorted((x for x in found if "share" in x), key=lambda x: -x["share"])
            table = _text(variants(case)[0])
            of_table = [x["share"] for x in timed if x["text"] == table]
            print(f"{case}: table {table} {of_table}", end="; ")
            print(*(f"{x['text']} {x['share']:.3f}" for x in timed[:4]), sep=", ", flush=True)


if __name__ == "__main__":
    main()
