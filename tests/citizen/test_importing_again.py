"""The package imported a second time in a process, as notebooks and plugins do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Losses before and after, eager and compiled, with their gradients.  One that was compiled before is called after.
SCRIPT = """
import gc, importlib, sys
import torch, triton_topk, triton_topk.ops

# All functions that are compiled here are one to the compiler.
torch._dynamo.config.recompile_limit = 64

scores = torch.linspace(-1, 1, 33).sin().reshape(3, 11).requires_grad_()
labels = torch.tensor([0, 3, 10])
layer = torch.linspace(-1, 1, 121).cos().reshape(11, 11)

def results(function, name):
    given = (scores, layer, labels) if name.startswith("linear_") else (scores, labels)
    loss = function(*given)
    return loss.detach(), *torch.autograd.grad(loss, scores)

def compiled(name):
    loss = getattr(triton_topk, name)
    return torch.compile(lambda *args: loss(*args), fullgraph=True, backend="aot_eager")

NAMES = [name for name in triton_topk.__all__ if name.islower()]
expected = {name: results(getattr(triton_topk, name), name) for name in NAMES}
before = {name: compiled(name) for name in NAMES}
for name in NAMES[:2]:
    results(before[name], name)

AGAIN
gc.collect()

for name in NAMES:
    for function in (getattr(triton_topk, name), before[name], compiled(name)):
        torch.testing.assert_close(results(function, name), expected[name])
torch.testing.assert_close(results(triton_topk.nn.SmoothSVMLoss(), "module"), expected["smooth_svm"])
"""
WAYS = {
    "deleted": """
for name in [name for name in sys.modules if name.partition(".")[0] == "triton_topk"]:
    del sys.modules[name]
import triton_topk
""",
    "reloaded": """
importlib.reload(triton_topk.ops)
importlib.reload(triton_topk)
""",
}


@pytest.mark.parametrize("way", WAYS)
def test_losses_work_after_the_package_was_imported_again(way: str) -> None:
    script = SCRIPT.replace("AGAIN", WAYS[way])
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
