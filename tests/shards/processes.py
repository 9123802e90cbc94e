"""Processes of a group on the CPU, each of which waits for functions to run."""

from __future__ import annotations

import io
import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist

# The imports are made once, and each process is a fork of the one that has made them.
_IMPORTS = [
    "torch._dynamo",
    "torch.distributed.tensor.debug",
    "torch.distributed.tensor.parallel",
    "triton_topk.native.launch",
]
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(_IMPORTS)


class Ranks:
    """Call it with a function and arguments to run it on every rank; the results come in their order."""

    def __init__(self, world: int, timeout: float = 60, debug: bool = False) -> None:
        self.world = world
        self._folder = TemporaryDirectory()
        store = f"file://{Path(self._folder.name) / 'store'}"
        ends = [_CONTEXT.Pipe() for _ in range(world)]
        self._pipes = [own for own, _ in ends]
        self._processes = []
        for rank, (_, end) in enumerate(ends):
            args = end, store, rank, world, timeout, debug
            process = _CONTEXT.Process(target=_serve, args=args, daemon=True)
            process.start()
            end.close()
            self._processes.append(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, _: TracebackType | None
    ) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(5)
            process.kill()
        self._folder.cleanup()

    def __call__(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        outcomes = self.outcomes(function, *args)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        return outcomes

    def outcomes(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """The result of each rank, or the exception that it raised; EOFError of a process that has ended."""
        message = _pickled((function, args))
        for pipe in self._pipes:
            pipe.send_bytes(message)
        return [_answer(pipe) for pipe in self._pipes]

    def errors(self, function: Callable[..., Any], *args: Any) -> list[str]:
        """The kind of exception of each rank, and what it says."""
        outcomes = self.outcomes(function, *args)
        assert all(isinstance(e, Exception) for e in outcomes), outcomes
        return [f"{type(e).__name__}: {e}" for e in outcomes]


def _answer(pipe: Connection) -> Any:
    try:
        return _unpickled(pipe.recv_bytes())
    except (EOFError, ConnectionError) as error:
        return error


def _serve(
    pipe: Connection, store: str, rank: int, world: int, timeout: float, debug: bool
) -> None:
    if debug:
        os.environ["TORCH_DISTRIBUTED_DEBUG"] = "DETAIL"
        # it has been read when PyTorch was imported
        dist.set_debug_level_from_env()
    wait = timedelta(seconds=timeout)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=wait)
    while True:
        try:
            function, args = _unpickled(pipe.recv_bytes())
        except EOFError:
            return
        outcome: Any
        try:
            outcome = function(*args)
        except Exception as error:
            error.add_note(f"rank {rank}: {traceback.format_exc()}")
            outcome = error
        try:
            message = _pickled(outcome)
            _unpickled(message)
        except Exception:
            # PyTorch has exceptions that no pickle brings back
            message = _pickled(RuntimeError(f"{type(outcome).__name__}: {outcome}"))
        pipe.send_bytes(message)


def _pickled(value: Any) -> bytes:
    """The bytes of tensors of any dtype too, which pickle by itself does not give."""
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def _unpickled(message: bytes) -> Any:
    return torch.load(io.BytesIO(message), weights_only=False)
