"""run.py: what it installs, from where, and that it does so once."""

from __future__ import annotations

import io
import runpy
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A copy in a project without an environment, whose name has a space."""
    project = tmp_path / "a project"
    project.mkdir()
    for name in ("run.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, project)
    return project / "run.py"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the commands of run.py without running them, where there is no NVIDIA driver."""
    found: list[list[str]] = []

    def call(command: tuple[object, ...], **_: Any) -> int:
        found.append([str(part) for part in command])
        if "venv" in command:
            python = Path(str(command[3])) / "bin" / "python"
            python.parent.mkdir(parents=True, exist_ok=True)
            python.touch()
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO())
    return found


def run(script: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    runpy.run_path(str(script), run_name="__main__")


def installed(commands: list[list[str]]) -> list[list[str]]:
    """Return what pip is told after its own options."""
    return [c[c.index("constraints.txt") + 1 :] for c in commands if "pip" in c]


CPU = ["torch", "--index-url", "https://download.pytorch.org/whl/cpu"]
EXAMPLE = ["-e", ".[cpu]", *GROUPS["examples"]]


def test_the_first_run_installs_and_the_next_does_not(script, commands, monkeypatch):
    run(script, monkeypatch, "example", "--seeds", "2")
    assert installed(commands) == [CPU, EXAMPLE]
    assert commands[-1][1:] == ["examples/place_names.py", "--seeds", "2"]
    commands.clear()
    run(script, monkeypatch, "example")
    assert [command[1:] for command in commands] == [["examples/place_names.py"]]


def test_other_versions_are_installed(script, commands, monkeypatch):
    run(script, monkeypatch, "example")
    with script.with_name("constraints.txt").open("a") as file:
        file.write("six==1.17.0\n")
    commands.clear()
    run(script, monkeypatch, "example")
    assert installed(commands) == [CPU, EXAMPLE]


def test_each_change_of_versions_is_installed(script, commands, monkeypatch):
    """So is one back to what had been installed for another task."""
    constraints = script.with_name("constraints.txt")
    before = constraints.read_text()
    for task in ("test", "example"):
        run(script, monkeypatch, task)
    constraints.write_text(before + "six==1.17.0\n")
    run(script, monkeypatch, "example")
    constraints.write_text(before)
    commands.clear()
    run(script, monkeypatch, "test")
    ((cpu, of_test),) = [installed(commands)]
    assert cpu == CPU
    # the group's own, and those of the groups that it includes
    assert {"ruff", "scikit-learn", "transformers"} < set(of_test)
    assert len(set(of_test)) == len(of_test)


def test_an_environment_without_its_python_is_made_anew(script, commands, monkeypatch):
    run(script, monkeypatch, "example")
    script.with_name(".venv").joinpath("bin", "python").unlink()
    commands.clear()
    run(script, monkeypatch, "example")
    assert commands[0][-1] == "--clear"
    assert installed(commands) == [CPU, EXAMPLE]


def test_a_driver_is_served_by_the_default_index(script, commands, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    run(script, monkeypatch, "example")
    assert ["/usr/bin/nvidia-smi"] in commands
    assert installed(commands) == [EXAMPLE]


def test_without_the_cpu_builds_the_default_index_is_taken(script, commands, monkeypatch, capsys):
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    run(script, monkeypatch, "example")
    assert installed(commands) == [EXAMPLE]
    assert "no route to host" in capsys.readouterr().out


def test_a_command_that_fails_ends_all(script, commands, monkeypatch):
    monkeypatch.setattr(subprocess, "call", lambda *_, **__: 3)
    with pytest.raises(SystemExit) as ended:
        run(script, monkeypatch, "check")
    assert ended.value.code == 3


def test_tasks_are_listed_and_have_what_they_need(script, monkeypatch):
    with pytest.raises(SystemExit) as ended:
        run(script, monkeypatch)
    tasks = runpy.run_path(str(script))["TASKS"]
    for task, (about, group, _) in tasks.items():
        assert task in str(ended.value)
        assert about in str(ended.value)
        assert group in GROUPS
