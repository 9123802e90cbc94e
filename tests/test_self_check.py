"""`python -m triton_topk`: passes here, and finds a loss that is wrong."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import collect_env

import triton_topk
from triton_topk.check import accuracy, environment, speed
from triton_topk.check.command import main

ROOT = Path(__file__).parents[1]
LOSSES = ("hard_svm", "smooth_svm", "lq_loss", "smooth_svm_lq")


WITHOUT_NUMPY = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "numpy":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def test_command(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_NUMPY)  # which Python runs first
    done = subprocess.run(
        [sys.executable, "-m", "triton_topk"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    versions, checked, timed = done.stdout.split("\n\n", 2)
    for version in (triton_topk.__version__, torch.__version__):
        assert version in versions
    sections = checked + timed
    for loss in (*LOSSES, "gradient='taylor'", "truncation=0.05"):
        assert sections.count(loss) >= 2, "checked and timed"
    for dtype in ("float32", "bfloat16", "float16", "float64"):
        assert dtype in sections
    assert "times F.cross_entropy" in timed
    assert ", since triton needs " in sections
    assert (
        "taylor: the paper's approximation, its gradient may be off by 3e-03 at k = 1" in sections
    )
    assert len(re.findall(r"(?m)^(?:F\.|\w+\().* \d+%$", timed)) == 7  # spreads
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "triton_topk", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m triton_topk")
    assert "float32" not in done.stdout


def test_losses_are_timed_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    called: list[int] = []

    def call(which: int) -> None:
        nonlocal now
        called.append(which)
        slow = 50 if called.count(which) < speed.CALLS * speed.ROUNDS / 2 else 1
        now += (1 + which) * slow

    monkeypatch.setattr(speed.time, "perf_counter", lambda: now)
    found = speed.in_turns([partial(call, which) for which in range(3)], torch.device("cpu"))

    assert called[:3] == [0, 1, 2]  # where there is something to compile
    turn = [which for which in range(3) for _ in range(speed.CALLS)]
    assert called[3:] == turn * speed.ROUNDS
    assert [min(seconds) for seconds in found] == pytest.approx([1, 2, 3])
    assert [max(seconds) for seconds in found] == pytest.approx([50, 100, 150])


@pytest.mark.parametrize("share", [0.0, 0.48])
def test_says_that_the_machine_is_busy(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "ROUNDS", 2)
    monkeypatch.setattr(speed, "waiting", lambda: share * speed.time.perf_counter())
    *_, last = speed.table(torch.device("cpu"))
    said = "The machine is busy: threads waited for a CPU for 48% of the time."
    assert (last == said) == (share > 0)


def wrong_value(loss: Tensor, scores: Tensor) -> Tensor:
    return loss + 1e-4 * loss.detach()


def wrong_gradient(loss: Tensor, scores: Tensor) -> Tensor:
    scores.register_hook(lambda gradient: 1.01 * gradient)
    return loss


def not_a_number(loss: Tensor, scores: Tensor) -> Tensor:
    return loss + torch.nan


def no_kernel(loss: Tensor, scores: Tensor) -> Tensor:
    raise RuntimeError("the compiler gives up")


IN_GRADIENT = "float32, all equal: gradient off by 1.0e-02, allowed 5.1e-06"


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        *((name, wrong_gradient, IN_GRADIENT) for name in LOSSES),
        ("smooth_svm", wrong_value, "float64, spread 1: loss off by 1.0e-04, allowed 1.0e-11"),
        ("lq_loss", not_a_number, "float16, spread 30: loss off by nan, allowed 5.0e-06"),
        ("hard_svm", no_kernel, "bfloat16: RuntimeError"),
    ],
)
def test_finds_a_wrong_loss(
    name: str,
    spoil: Callable[[Tensor, Tensor], Tensor],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    right = getattr(triton_topk, name)

    def wrong(scores: Tensor, labels: Tensor, **options: Any) -> Tensor:
        return spoil(right(scores, labels, **options), scores)

    monkeypatch.setattr(triton_topk, name, wrong)
    monkeypatch.setattr(accuracy, "KS", (5,))
    assert main() == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED ")]
    assert all(line.startswith(f"FAILED {name}(") for line in failed)
    assert any(said in line for line in failed), failed


def test_says_what_a_bug_report_needs_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    gpu = SimpleNamespace(name="NVIDIA A100", major=8, minor=0)
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(collect_env, "get_nvidia_driver_version", lambda run: "570.1")
    versions, _, device = environment.lines(torch.device("cuda"))
    assert versions.endswith("triton absent, numba absent")
    assert device == "device: NVIDIA A100, compute capability 8.0, CUDA 12.8, driver 570.1"
