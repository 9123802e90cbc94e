"""A training step of a linear layer with its loss, fused and not, takes some time and memory at its peak.

    python -m bench.linear

Writes linear-DEVICE.md.  On a CPU each step runs in a process of its own; the implementations take turns.
"""

import importlib.util
import multiprocessing
import platform
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cpuinfo
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.arguments import Parser
from bench.machine import Load, commit, describe
from bench.pages import fill, number, size
from triton_topk import linear_lq_loss, linear_smooth_svm, smooth_svm
from triton_topk.layer import Layer

SHAPES = ("4096,512,32768", "1024,768,262144")  # N, D, C
_FEW = 16  # rows, of a first step on a CPU, where no shape has kernels of its own
_PROCESS = Path("/proc/self")

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def _chunked(x: Tensor, weight: Tensor, labels: Tensor, rows: int | None = None) -> Tensor:
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=rows)
    return F.linear_cross_entropy(x, weight, labels, options=options)


def _chunked_as_ours(x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    rows = Layer(x, weight, None, x.dtype, None).rows_of_chunk(x.itemsize * (2 if x.is_cuda else 1))
    return _chunked(x, weight, labels, rows)


CHUNKED, UNFUSED = "linear_cross_entropy, chunked", "smooth_svm of F.linear"
IMPLEMENTATIONS: dict[str, Loss] = {
    "linear_smooth_svm": linear_smooth_svm,
    "linear_lq_loss, q = 0": lambda x, weight, labels: linear_lq_loss(x, weight, labels, 0.0),
    UNFUSED: lambda x, weight, labels: smooth_svm(F.linear(x, weight), labels),
}
if hasattr(F, "linear_cross_entropy"):  # of PyTorch 2.13
    IMPLEMENTATIONS |= {
        "linear_cross_entropy": F.linear_cross_entropy,
        CHUNKED: _chunked,
        "linear_cross_entropy, our chunks": _chunked_as_ours,
    }
if torch.cuda.is_available() and importlib.util.find_spec("liger_kernel"):
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    IMPLEMENTATIONS["Liger fused_linear_cross_entropy"] = liger_fused_linear_cross_entropy


def run(name: str, shape: str, dtype: str, device: str) -> tuple[float, float, float]:
    """Return the seconds of a step, the peak of its memory and that of its inputs and their gradients, in bytes."""
    n, d, c = map(int, shape.split(","))
    options = {"device": device, "dtype": getattr(torch, dtype)}
    memory = _MEMORY[device]()

    def step(rows: int) -> tuple[float, float, float]:
        before = memory.held()
        x = torch.randn(rows, d, **options).requires_grad_()
        weight = torch.randn(c, d, **options).mul_(d**-0.5).requires_grad_()
        labels = torch.randint(c, (rows,), device=device)
        memory.wait()
        start = time.perf_counter()
        torch.autograd.grad(IMPLEMENTATIONS[name](x, weight, labels), (x, weight))
        memory.wait()
        seconds = time.perf_counter() - start
        return seconds, memory.peak() - before, 2.0 * (x.nbytes + weight.nbytes)

    step(n if device == "cuda" else min(n, _FEW))
    memory.forget()
    return step(n)


class Resident:
    """The memory of a CPU is what is resident of this process, which Linux says."""

    def wait(self) -> None:
        """Return: nothing is queued."""

    def held(self) -> int:
        return self._status("VmRSS")

    def peak(self) -> int:
        return self._status("VmHWM")

    def forget(self) -> None:
        """Let the peak begin anew."""
        (_PROCESS / "clear_refs").write_text("5")

    def _status(self, name: str) -> int:
        status = (_PROCESS / "status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return 1024 * int(found[1])


class Allocated:
    """The memory of a GPU is what PyTorch has given out."""

    wait = staticmethod(torch.cuda.synchronize)
    held = staticmethod(torch.cuda.memory_allocated)
    peak = staticmethod(torch.cuda.max_memory_allocated)
    forget = staticmethod(torch.cuda.reset_peak_memory_stats)


_MEMORY = {"cpu": Resident, "cuda": Allocated}


def measure(shape: str, dtype: str, device: str, rounds: int) -> pd.DataFrame:
    """Return medians by implementation."""
    spawn = multiprocessing.get_context("spawn")
    found = []
    # a CPU's memory is that of a process
    tasks = 1 if device == "cpu" else None
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=tasks) as pool:
        for _ in range(rounds):
            for name in IMPLEMENTATIONS:
                seconds, peak, layer = pool.submit(run, name, shape, dtype, device).result()
                found.append((name, seconds, peak, peak - layer))
    columns = ["implementation", "seconds", "peak", "beyond"]
    return pd.DataFrame(found, columns=columns).groupby("implementation", sort=False).median()


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the page, each beside the chunked cross-entropy and beside the loss that is not fused."""
    # PyTorch may not have it
    chunked = found.reindex([CHUNKED]).loc[CHUNKED]
    unfused = found.loc[UNFUSED]
    return pd.DataFrame(
        {
            "": found.index,
            "s": found["seconds"].map(number),
            "/ chunked": (found["seconds"] / chunked["seconds"]).map(number),
            "peak": found["peak"].map(size),
            "/ chunked ": (found["peak"] / chunked["peak"]).map(number),
            "beyond": found["beyond"].map(size),
            "not fused /": (unfused["beyond"] / found["beyond"]).map(number),
        }
    )


def main(given: Sequence[str] | None = None) -> None:
    parser = Parser("bench.linear", __doc__)
    parser.add_argument("--out", type=Path, default=Path("build/reports"))
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=default)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--shape", nargs="+", default=SHAPES, metavar="N,D,C")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args(given)
    cpu = cpuinfo.get_cpu_info().get("brand_raw", platform.machine())
    load, about = Load(), describe(torch.device(asked.device), cpu) | commit()
    of = asked.dtype, asked.device, asked.rounds
    tables = {shape: table(measure(shape, *of)) for shape in asked.shape}
    text = fill("linear.md", about=about, asked=asked, tables=tables, others=load.others())
    asked.out.mkdir(parents=True, exist_ok=True)
    report = asked.out / f"linear-{asked.device}.md"
    report.write_text(text)
    print(text, f"Written: {report}", sep="\n")


if __name__ == "__main__":
    main()
