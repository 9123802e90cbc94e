"""The command that compares the speed of two commits; nothing here depends on speed."""

import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.compare import measure
from bench.compare.__main__ import main
from bench.compare.checkout import git
from bench.compare.outcomes import (
    Different,
    Lacking,
    Timed,
    difference,
    exit_code,
    joined,
    largest_difference,
    verdict,
)

ROOT = Path(__file__).parents[1]


def timed(*ratios):
    return Timed([2.0] * len(ratios), [2.0 * ratio for ratio in ratios])


def test_quartiles_are_of_the_ratios_of_pairs():
    drifting = [1.0, 10.0, 100.0, 1000.0, 10_000.0]
    ratios = [1.5, 1.1, 1.2, 1.4, 1.3]
    times = Timed(drifting, [x * ratio for x, ratio in zip(drifting, ratios, strict=True)])
    assert times.quartiles == pytest.approx((1.2, 1.3, 1.4))


@pytest.mark.parametrize(
    ("ratios", "said", "code"),
    [
        ((1.15, 1.2, 1.3), "too slow", 1),
        ((1.05, 1.06, 1.5), "slower", 0),
        ((0.8, 1.2, 1.5), "", 0),
        ((0.99, 1.0, 1.01), "", 0),
        ((0.5, 0.9, 0.95), "faster", 0),
    ],
)
def test_a_mark_needs_both_quartiles(ratios, said, code):
    assert verdict(timed(*ratios), fail_above=1.1) == said
    assert exit_code([timed(*ratios)], fail_above=1.1) == code


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([timed(1, 1), Lacking("no lq_loss")], 0),
        ([Lacking("no lq_loss")], 125),
        ([timed(1, 1), Different(0.1, 0.1)], 125),
        ([timed(2, 2), Different(0.1, 0.1), Lacking("no lq_loss")], 1),
    ],
)
def test_what_cannot_be_told_is_skipped_by_bisect(outcomes, code):
    assert exit_code(outcomes, fail_above=1.1) == code


def test_rounds_are_joined():
    assert joined([timed(1, 2), timed(3)]) == timed(1, 2, 3)
    assert joined([timed(1), Different(1, 2), timed(1)]) == Different(1, 2)


def test_difference_is_relative_to_the_largest_entry_of_a_row():
    a = np.array([[1e-3, 1e-9, -4e-3], [0, 0, 0], [1, 2, 3]])
    b = np.array([[1e-3, 2e-9, -4e-3], [0, 0, 0], [1, 2, 3.03]])
    assert largest_difference(a, b) == pytest.approx(0.01, rel=0.02)
    assert largest_difference(a[:2], b[:2]) == pytest.approx(2.5e-7)


@pytest.mark.parametrize(
    ("loss", "gradient", "float32", "bfloat16"),
    [
        (1 + 1e-6, 1 - 1e-6, True, True),
        (1.0, 1 - 2**-7, False, True),
        (1.001, 1.0, False, False),
        (math.nan, 1.0, False, False),
        (1.0, math.nan, False, False),
    ],
)
def test_rounding_is_no_difference(tmp_path, loss, gradient, float32, bfloat16):
    one, other = tmp_path / "one.npz", tmp_path / "other.npz"
    np.savez(one, loss=1.0, gradient=np.ones((2, 3), np.float32))
    np.savez(other, loss=loss, gradient=np.full((2, 3), gradient, np.float32))
    assert (difference(one, other, "float32") is None) == float32
    assert (difference(one, other, "bfloat16") is None) == bfloat16


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of one commit, the package as it is, and the smallest cases."""
    # A hook that runs the tests says where its own repository is.
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "no configuration"))
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "somebody")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "somebody@example.org")
    shapes = [(16, 3, 4, "float32")]
    monkeypatch.setattr(measure, "SHAPES", {"cpu": shapes, "cuda": shapes})
    monkeypatch.setattr(measure, "TURN", 1e-4)
    monkeypatch.setattr(measure, "PAIRS_OF_A_ROUND", 2)
    folder = tmp_path / "repository"
    shutil.copytree(
        ROOT / "triton_topk",
        folder / "triton_topk",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    monkeypatch.chdir(folder)
    git("init", "--quiet")
    (folder / ".gitignore").write_text("__pycache__\n")
    git("add", ".")
    git("commit", "--quiet", "--message", "The package as it is")
    git("tag", "first")
    yield folder
    assert len(git("worktree", "list").splitlines()) == 1


def test_a_commit_against_itself(repository, capfd):
    assert main(["first", "HEAD", "--pairs", "3", "--fail-above", "1e9"]) == 0
    out, _ = capfd.readouterr()
    assert out.count("The package as it is") == 2
    rows = [line for line in out.splitlines() if "n=16 batch=4 float32" in line]
    assert len(rows) == 5
    for row in rows:
        _, base, new, ratio, quartiles, _ = row.strip("│").split("│")
        low, high = map(float, quartiles.split(" to "))
        assert low <= float(ratio) <= high
        assert float(base) > 0
        assert float(new) > 0


@pytest.mark.exhaustive
def test_changes_that_are_not_committed(repository, capfd):
    with (repository / "triton_topk" / "__init__.py").open("a") as module:
        module.write(
            "print('what a package prints is no reply')\n"
            "del lq_loss\n"
            "def hard_svm(scores, labels, k): return functional.hard_svm(scores, labels, k) * 1.5\n"
            "_svm = smooth_svm\n"
            "def smooth_svm(scores, labels, k): return _svm(scores, labels, k)\n"
        )
    # No machine is infinitely fast.
    assert main(["HEAD", "--pairs", "2", "--fail-above", "0"]) == 1
    out, _ = capfd.readouterr()
    assert "new:  the working tree, on" in out

    def row(text):
        return next(line for line in out.splitlines() if text in line)

    assert "other results: loss 3.3e-01, gradient 3.3e-01" in row("hard_svm")
    assert "new: no lq_loss" in row("lq_loss n=")
    assert "new: got an unexpected keyword argument 'gradient'" in row("taylor")
    assert "too slow" in row("smooth_svm k=3 n=")
    assert "too slow" in row("smooth_svm_lq")


def stopped(capfd, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return stop.value.code, capfd.readouterr().err


def test_a_commit_without_the_package(repository, capfd, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    git("rm", "-r", "--quiet", "triton_topk")
    git("commit", "--quiet", "--message", "Nothing")
    code, said = stopped(capfd, "HEAD", "first")
    assert code == 125
    assert f"triton_topk is imported from {ROOT} for " in said


@pytest.mark.exhaustive
def test_a_commit_that_does_not_run(repository, capfd):
    (repository / "triton_topk" / "__init__.py").write_text("raise RuntimeError('broken')\n")
    git("commit", "--quiet", "--all", "--message", "Broken")
    code, said = stopped(capfd, "HEAD", "first")
    assert code == 125
    assert "RuntimeError: broken" in said
    assert re.search("bench.compare: exit code 1 of [0-9a-f]+ Broken\n", said)


def test_bad_input(repository, tmp_path, capfd, monkeypatch):
    unknown = (125, "bench.compare: fatal: invalid reference: nowhere\n")
    assert stopped(capfd, "nowhere") == unknown
    assert stopped(capfd, "HEAD", "nowhere") == unknown
    code, said = stopped(capfd, "HEAD", "--pairs", "1")
    assert code == 2
    assert "a spread needs 2 pairs" in said
    monkeypatch.chdir(tmp_path)
    code, said = stopped(capfd, "HEAD")
    assert code == 125
    assert said.startswith("bench.compare: fatal: not a git repository")
    assert said.count("\n") == 1
    monkeypatch.chdir(repository)


@pytest.mark.exhaustive
def test_no_case_of_that_name(repository, capfd):
    code, said = stopped(capfd, "HEAD", "-k", "cross_entropy")
    assert code == 125
    assert said.endswith("bench.compare: no case has 'cross_entropy' in its name\n")


def test_the_module_is_a_command():
    shown = subprocess.run(
        [sys.executable, "-m", "bench.compare", "--help"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "Exit codes, as `git bisect run` wants them" in shown
