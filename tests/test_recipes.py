"""The examples of training frameworks and of several processes: they run without a network, and the loss falls."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.exhaustive
EXAMPLES = Path(__file__).parents[1] / "examples"
# To import a framework takes ten times as long as to run its example.
RUN = """
import runpy, sys
example, *runs = sys.argv[1:]
for arguments in runs:
    sys.argv = [example, *arguments.split()]
    runpy.run_path(example, run_name="__main__")
"""


def run(example: str, directory: Path, *runs: str) -> str:
    """Return what an example prints, run with each of these arguments; files of its own are left in the directory."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, EXAMPLES / f"{example}.py", *runs],
        cwd=directory,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    return done.stdout


def numbers(name: str, output: str) -> list[float]:
    return [float(number) for number in re.findall(rf"\b{name} ([\d.]+)", output)]


@pytest.mark.parametrize("example", ["lightning_module", "mixup", "timm_style"])
def test_the_loss_falls(example: str, tmp_path: Path) -> None:
    output = run(example, tmp_path, "")
    losses = numbers("loss", output)
    assert len(losses) == 8
    assert losses[-1] < losses[0] / 4
    if example == "lightning_module":
        top1, top3 = numbers("top1", output), numbers("top3", output)
        assert all(one < three for one, three in zip(top1, top3, strict=True))
        assert top1[-1] > 0.8 > top1[0], "hits of the labels that were learnt"


def test_a_step_of_several_batches_is_that_of_one(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    output = run(
        "hugging_face_trainer",
        tmp_path,
        "--batch 4 --accumulate 4 --out several",
        "--batch 16 --accumulate 1 --out one",
    )
    losses = numbers("loss", output)
    assert len(losses) == 16
    for of_a_run in (losses[:8], losses[8:]):
        assert of_a_run[-1] < of_a_run[0] / 4
    learnt = [load_file(tmp_path / out / "model.safetensors") for out in ("several", "one")]
    # 64 steps of float32 leave 5e-4; the mean of the batches' means would be off by 0.9
    torch.testing.assert_close(*learnt, rtol=0, atol=5e-3)


@pytest.mark.parametrize("processes", [2, 3])
def test_sharded_classes_train_as_on_a_single_process(processes: int, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [sys.executable, *launcher, EXAMPLES / "sharded_classes.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    sharded, alone = numbers("loss", done.stdout), numbers("alone", done.stdout)
    assert len(sharded) == 20
    assert sharded == alone
    assert sharded[-1] < sharded[0] / 2
