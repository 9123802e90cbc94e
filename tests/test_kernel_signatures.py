"""The kernels' functions have few parameters, so that a reader can hold them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

KERNELS = sorted((Path(__file__).parents[1] / "triton_topk/kernels").glob("*.py"))


@pytest.mark.parametrize("file", KERNELS, ids=lambda file: file.stem)
def test_a_kernel_has_at_most_29_parameters_and_its_functions_10(file: Path) -> None:
    for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(function, ast.FunctionDef):
            number = len(function.args.args) + len(function.args.kwonlyargs)
            assert number <= (29 if function.name == "loss_kernel" else 10), function.name


def test_the_kernel_is_short_enough_to_read_as_its_steps() -> None:
    (kernel,) = (file for file in KERNELS if file.stem == "kernel")
    assert len(kernel.read_text(encoding="utf-8").splitlines()) <= 220
