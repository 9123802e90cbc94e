"""A commit as a folder."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class ComparisonError(Exception):
    """The message is for the user."""


@dataclass(frozen=True)
class Checkout:
    name: str
    folder: Path


@contextmanager
def checkout(commit: str | None) -> Iterator[Checkout]:
    """A commit of the repository of the current folder; None is the working tree as it is."""
    root = Path(git("rev-parse", "--show-toplevel"))
    if commit is None:
        yield Checkout(f"the working tree, on {_name(root)}", root)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "commit")
        git("worktree", "add", "--quiet", "--detach", str(folder), commit)
        try:
            yield Checkout(_name(folder), folder)
        finally:
            git("worktree", "remove", "--force", str(folder))


def git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    except FileNotFoundError as missing:
        raise ComparisonError("git is not installed") from missing
    if done.returncode != 0:
        raise ComparisonError(done.stderr.strip() or f"git {arguments[0]} failed")
    return done.stdout.strip()


def _name(folder: Path) -> str:
    return git("-C", str(folder), "log", "-1", "--format=%h %s")
