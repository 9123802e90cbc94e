"""Wheel and sdist hold what they should, and the package imports little."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module that is None cannot be imported and has no spec, as one that is not installed.
WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
import torch
from triton_topk import smooth_svm
scores = torch.randn(2, 10, requires_grad=True)
labels = torch.tensor([1, 2])
smooth_svm(scores, labels).backward()
assert scores.grad.count_nonzero() == 20
try:
    smooth_svm(scores, labels, backend="triton")
except ValueError as error:
    print(error)
"""

IMPORTED = """
import sys
import torch
before = set(sys.modules)
import triton_topk
print(*{name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)
print(triton_topk.__file__)
"""


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    return done.stdout


def build(source: Path, kind: str, out: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", out, cwd=source)
    (built,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.mark.exhaustive
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    files = contents(wheel)
    about = {name for name in files if ".dist-info/" in name}
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "triton_topk").rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    assert files - about == package
    assert "triton_topk/py.typed" in package
    assert {Path(name).name for name in about} == {"METADATA", "WHEEL", "LICENSE", "RECORD"}


@pytest.mark.exhaustive
def test_the_wheel_is_also_built_from_the_sdist(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build(ROOT, "sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("triton_topk-*")
    assert contents(build(source, "wheel", tmp_path / "wheel")) == contents(wheel)


@pytest.mark.exhaustive
def test_the_wheel_installs_and_imports(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(*pip, "install", "--no-index", "--no-deps", "--target", target, wheel, cwd=tmp_path)
    packages, file = run(
        sys.executable, "-c", IMPORTED, cwd=tmp_path, PYTHONPATH=str(target)
    ).splitlines()
    assert Path(file).is_relative_to(target)
    assert set(packages.split()) <= {"torch", "triton_topk"}, "neither Triton nor anything else"


def test_without_triton(tmp_path: Path) -> None:
    said = run(sys.executable, "-c", WITHOUT_TRITON, cwd=tmp_path, TRITON_INTERPRET="1")
    assert said.strip() == "backend='triton' needs the package triton, which is not installed"
