"""A process that runs the losses of one checkout; child.py is what it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.compare.checkout import Checkout, ComparisonError

CHILD = Path(__file__).with_name("child.py")


class Worker:
    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self._name = name
        self._process = process
        started = self._reply()
        self.package = Path(started["package"])
        self.device: str = started["device"]  # "cpu" or "cuda"
        self.machine: str = started["machine"]

    def prepare(self, case: dict[str, Any], results: Path) -> str | None:
        """What this commit lacks for the case, or None with its loss and gradient saved in a .npz."""
        return self._ask(case | {"results": str(results)})["lacks"]

    def seconds(self, iterations: int) -> float:
        """Of one iteration of the case prepared last."""
        return self._ask({"iterations": iterations})["seconds"]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ComparisonError(f"exit code {self._process.wait()} of {self._name}")
        return json.loads(line)


@contextmanager
def worker(of: Checkout) -> Iterator[Worker]:
    paths = [str(of.folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    with subprocess.Popen(
        # -P: the folder of child.py is no place to import from.
        [sys.executable, "-P", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    ) as process:
        try:
            started = Worker(of.name, process)
            home = started.package.parent.resolve()
            if home != of.folder.resolve():
                raise ComparisonError(f"triton_topk is imported from {home} for {of.name}")
            yield started
        finally:
            process.kill()
