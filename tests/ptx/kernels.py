"""The package's launches on CPU tensors, by the PTX that Triton compiles for sm_90, run in the emulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from bench.ahead_of_time import Driver
from tests.ptx.listing import Listing, parse
from tests.ptx.machine import Machine
from tests.ptx.memory import Fault, Memory
from triton_topk.kernels import launch
from triton_topk.kernels.kernel import loss_kernel
from triton_topk.kernels.scale import scale_kernel

_TARGET = GPUTarget("cuda", 90, 32)
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_OUTPUTS = ("losses", "hits", "gradient", "summaries")


@contextmanager
def emulated(change: Callable[[str], str] = str) -> Iterator[None]:
    """Kernels run in the emulator, from PTX that `change` may change."""
    kernels = {x.__name__: _Kernel(x, change) for x in (loss_kernel, scale_kernel)}
    with (
        knobs.cache.scope(),
        mock.patch.object(driver, "_active", Driver(_TARGET)),
        mock.patch.object(knobs.runtime, "add_stages_inspection_hook", _without_assembler),
        mock.patch.multiple(launch, **kernels),
    ):
        # Triton 3.6 would take what it finds there for code of the assembler.
        knobs.cache.dir = str(Path(knobs.cache.dir) / "ptx-only")
        yield


def _without_assembler(*arguments: Any) -> tuple[str, str] | None:
    """A hook of Triton: PTX is the last thing that it makes."""
    if not arguments:
        return ("PTX only",) * 2  # of the key of its cache
    arguments[1]["cubin"] = lambda ptx, metadata: b"none"
    return None


@cache
def _parsed(text: str) -> Listing:
    return parse(text)


class _Kernel:
    """Stands for a kernel in the launch code."""

    def __init__(self, kernel: Any, change: Callable[[str], str]) -> None:
        self._kernel = kernel
        self._change = change
        self.arg_names = kernel.arg_names
        self._of_summaries: Any = None  # which bytes the first launch wrote

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return partial(self._run, grid=grid)

    def _run(self, *arguments: Any, grid: tuple[int, ...], **options: Any) -> None:
        compiled = self._kernel.run(*arguments, grid=grid, warmup=True, **options)
        listing = _parsed(self._change(compiled.asm["ptx"]))
        given = dict(zip(self.arg_names, arguments, strict=False)) | options
        types = compiled.src.signature.items()
        taken = {name: (given[name], kind) for name, kind in types if kind != "constexpr"}
        tensors = {name: x for name, (x, _) in taken.items() if isinstance(x, Tensor)}
        storages = {x.untyped_storage().data_ptr(): _bytes(x) for x in tensors.values()}
        memory = Memory([len(data) for data in storages.values()])
        places = {
            address: memory.allocate(data, address % 16) for address, data in storages.items()
        }
        of_outputs = {}
        for name, x in tensors.items():
            place, covered = places[x.untyped_storage().data_ptr()], _covered(x)
            memory.readable[place] |= covered
            layout = given.get("LAYOUT")
            if name == "summaries" and layout.group.finish:
                memory.written[place] |= self._of_summaries
            elif name == "summaries" and layout.group.merged:
                memory.written[place] |= covered
            elif name in _OUTPUTS:
                memory.writable[place] |= covered
                of_outputs[name] = place, covered
            # the first argument is read, whatever comes of it
            if name not in _OUTPUTS or x is arguments[0]:
                memory.written[place] |= covered
        numbers = [
            _bits(x, kind)
            if name not in tensors
            else places[x.untyped_storage().data_ptr()].start
            + x.storage_offset() * x.element_size()
            for name, (x, kind) in taken.items()
        ]
        # scratch memory that Triton may add, of which there is none
        numbers += [0] * (len(listing.parameters) - len(numbers))
        Machine(listing, numbers, grid[0], memory, compiled.metadata.shared).run()
        for address, place in places.items():
            storages[address][:] = memory.bytes[place]
        for name, (place, covered) in of_outputs.items():
            if name == "summaries":
                self._of_summaries = memory.written[place]
            elif not memory.written[place][covered].all():
                raise Fault(f"leaves elements of {name} unwritten")


def _bytes(x: Tensor) -> Any:
    """The bytes are those of the whole storage, and share its memory."""
    return torch.empty(0, dtype=torch.uint8).set_(x.untyped_storage()).numpy()


def _covered(x: Tensor) -> Any:
    """The result says which bytes of its storage a tensor has."""
    found = torch.zeros(len(_bytes(x)), dtype=torch.uint8)
    found.view(_INTEGERS[x.element_size()]).as_strided(
        x.shape, x.stride(), x.storage_offset()
    ).fill_(-1)
    return found.numpy() > 0


def _bits(x: float, kind: str) -> int:
    if kind == "fp64":
        return int(np.float64(x).view(np.uint64))
    if kind not in ("i32", "i64"):
        raise NotImplementedError(f"an argument of type {kind}")
    return x % 2**64
