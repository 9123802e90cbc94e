"""Finished runs by their settings, and checkpoints of unfinished ones."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from studies.finished import FinishedRuns, code_version

from label_noise.presets import ImageRecipe
from label_noise.runs import Run

# A result depends on these modules, beside the library.
SMALL = ("losses", "noise", "side_by_side", "small_tasks")
IMAGES = ("archives", "images", "losses", "noise", "resnet")


def settings(run: Run) -> dict[str, Any]:
    modules = IMAGES if isinstance(run.recipe, ImageRecipe) else SMALL
    return run._asdict() | {
        "condition": run.condition._asdict(),
        "recipe": asdict(run.recipe),
        "code": code_version(*(Path(__file__).with_name(f"{name}.py") for name in modules)),
    }


class Cache(FinishedRuns[Run]):
    """Accuracies of finished runs."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, settings)

    def checkpoint(self, run: Run) -> Path:
        """Return the path at which an unfinished run may keep its state."""
        return self.directory / f"{hashlib.sha256(self.key(run).encode()).hexdigest()}.pt"
