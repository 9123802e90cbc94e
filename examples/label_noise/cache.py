"""Finished runs in a file of JSON lines, so that a killed command goes on where it was."""

import functools
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

import triton_topk
from label_noise.presets import ImageRecipe
from label_noise.runs import Run

# What a result is computed by, beside the library.
SMALL = ("losses", "noise", "side_by_side", "small_tasks")
IMAGES = ("archives", "images", "losses", "noise", "resnet")


@functools.cache
def code_version(modules: tuple[str, ...]) -> str:
    sources = b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in modules)
    return f"{triton_topk.__version__} {torch.__version__} {hashlib.sha256(sources).hexdigest()}"


def key_of(run: Run) -> str:
    """Every setting of the run and the version of the code, as JSON."""
    settings = run._asdict() | {
        "condition": run.condition._asdict(),
        "recipe": asdict(run.recipe),
        "code": code_version(IMAGES if isinstance(run.recipe, ImageRecipe) else SMALL),
    }
    return json.dumps(settings, sort_keys=True)


class Cache:
    """Accuracies of finished runs, from and to `runs.jsonl` in a directory that git ignores."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / ".gitignore").write_text("*\n")
        self._directory = directory
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

    def checkpoint(self, run: Run) -> Path:
        """Where an unfinished run may keep its state."""
        return self._directory / f"{hashlib.sha256(key_of(run).encode()).hexdigest()}.pt"

    def __contains__(self, run: Run) -> bool:
        return key_of(run) in self._results

    def __getitem__(self, run: Run) -> Tensor:
        return self._results[key_of(run)]

    def __setitem__(self, run: Run, accuracies: Tensor) -> None:
        key = key_of(run)
        with self._path.open("a") as file:
            file.write(json.dumps({"key": key, "accuracies": accuracies.tolist()}) + "\n")
        self._results[key] = accuracies
