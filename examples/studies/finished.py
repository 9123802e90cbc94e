"""Results of finished runs in a file, so that a killed command goes on where it was."""

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

import triton_topk

Run = TypeVar("Run")


@functools.cache
def code_version(*files: Path) -> str:
    """The versions of what a result is computed by: the library, PyTorch and these files."""
    sources = b"".join(file.read_bytes() for file in files)
    return f"{triton_topk.__version__} {torch.__version__} {hashlib.sha256(sources).hexdigest()}"


class FinishedRuns(Generic[Run]):
    """Accuracies by run, from and to `runs.jsonl` in a directory that git ignores.

    `settings` gives all that a run's result depends on, which JSON can hold.
    """

    def __init__(self, directory: Path, settings: Callable[[Run], dict[str, Any]]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / ".gitignore").write_text("*\n")
        self.directory = directory
        self._settings = settings
        self._path = directory / "runs.jsonl"
        self._results: dict[str, Tensor] = {}
        if self._path.exists():
            self._read()

    def _read(self) -> None:
        text = self._path.read_text()
        complete, newline, _ = text.rpartition("\n")
        # A killed command may leave half a line, which the next one would be appended to.
        if complete + newline != text:
            self._path.write_text(complete + newline)
        for line in complete.splitlines():
            entry = json.loads(line)
            self._results[entry["key"]] = torch.tensor(entry["accuracies"])

    def key(self, run: Run) -> str:
        return json.dumps(self._settings(run), sort_keys=True)

    def __contains__(self, run: Run) -> bool:
        return self.key(run) in self._results

    def __getitem__(self, run: Run) -> Tensor:
        return self._results[self.key(run)]

    def __setitem__(self, run: Run, accuracies: Tensor) -> None:
        key = self.key(run)
        with self._path.open("a") as file:
            file.write(json.dumps({"key": key, "accuracies": accuracies.tolist()}) + "\n")
        self._results[key] = accuracies
