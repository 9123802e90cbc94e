"""The command: kept results, a kill and what it writes."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from image_files import TINY, write_cifar100
from label_noise import images, noise
from label_noise.cache import Cache
from label_noise.losses import LOSSES
from label_noise.presets import PRESETS, ImageRecipe, SmallRecipe
from label_noise.runs import Condition, Run
from label_noise.side_by_side import train

COMMAND = Path(__file__).parents[2] / "examples" / "label_noise.py"
SHORT = "--data digits --noise-rates 0.4 --fractions 0.25 --seeds 2 --length 8 --workers 1 --out"


def run_of(**changes):
    return Run(Condition("digits"), "Lq", SmallRecipe(1e-3, 0), (0, 1))._replace(**changes)


def test_a_key_has_every_setting(tmp_path):
    different = [
        run_of(),
        run_of(loss="MAE"),
        run_of(seeds=(0, 2)),
        run_of(root="elsewhere"),
        run_of(condition=Condition("digits", noise.UNIFORM, 0.2)),
        run_of(condition=Condition("digits", fraction=0.5)),
        run_of(recipe=ImageRecipe()),
        *(
            run_of(recipe=replace(SmallRecipe(1e-3, 0), **{field: 7}))
            for field in asdict(SmallRecipe(1e-3, 0))
        ),
    ]
    assert len({Cache(tmp_path).key(run) for run in different}) == len(different)


def load_command():
    spec = importlib.util.spec_from_file_location("label_noise_command", COMMAND)
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    return command


def finished(out):
    cache = out / ".label-noise-cache" / "runs.jsonl"
    return cache.read_text().splitlines() if cache.exists() else []


@pytest.mark.exhaustive
def test_a_killed_command_goes_on_where_it_was(tmp_path):
    arguments = [sys.executable, COMMAND, *SHORT.split(), tmp_path]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as process:
        while len(finished(tmp_path)) < 10:
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    with (tmp_path / ".label-noise-cache" / "runs.jsonl").open("a") as file:
        file.write('{"key": "half a li')
    before = finished(tmp_path)[:-1]
    assert not (tmp_path / "label-noise-digits.md").exists()

    subprocess.run(arguments, check=True, timeout=300, stdout=subprocess.DEVNULL)
    lines = finished(tmp_path)
    assert lines[: len(before)] == before
    command = load_command()
    planned = command.plan(command.parse([*SHORT.split(), str(tmp_path)]))
    assert len(lines) == len(planned) == 2 * len(LOSSES) * 4 + 2 * 4
    cache = Cache(tmp_path / ".label-noise-cache")
    assert {json.loads(line)["key"] for line in lines} == set(map(cache.key, planned))
    # each the result of its own run, finished before the kill or after it
    for run in planned[::5]:
        torch.testing.assert_close(cache[run], train(run), rtol=0, atol=0.51)

    report = (tmp_path / "label-noise-digits.md").read_text()
    accuracies = [float(mean) for mean in re.findall(r"([\d.]+) ± [\d.]+", report)]
    # (losses x conditions + two losses x fractions) x (top-1, top-k) x regimes
    assert len(accuracies) == (len(LOSSES) * 2 + 2 * 1) * 2 * 2
    assert max(accuracies) > 75
    for figure in re.findall(r"\((.*\.png)\)", report):
        assert (tmp_path / figure).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "wrong", ["--noise-rates 1.5", "--fractions 0", "--seeds 0", "--length -1", "--data mnist"]
)
def test_wrong_arguments_are_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        load_command().parse(wrong.split())
    assert re.search(rf"error: .*{wrong.split()[0]}: ", capsys.readouterr().err)


@pytest.mark.exhaustive
def test_image_files_go_through_the_same_command(tmp_path, monkeypatch):
    write_cifar100(tmp_path, n=100)
    command = load_command()
    monkeypatch.setitem(PRESETS, "cifar100", (TINY,))
    settings = "--data cifar100 --noise-rates 0 --fractions --seeds 1 --length 1 --root"
    monkeypatch.setattr(
        sys, "argv", ["", *settings.split(), *(str(tmp_path), "--out", str(tmp_path))]
    )
    command.main()
    report = (tmp_path / "label-noise-cifar100.md").read_text()
    assert "| no noise" in report
    assert len(finished(tmp_path)) == len(LOSSES)
    assert not list((tmp_path / ".label-noise-cache").glob("*.pt"))

    (tmp_path / "label-noise-cifar100.md").write_text(f"What it means.\n\n{report}")
    monkeypatch.setattr(images, "train", None)  # nothing is left to train
    command.main()
    kept, _, written = (tmp_path / "label-noise-cifar100.md").read_text().partition("<!--")
    assert kept == "What it means.\n\n# Label noise\n\n"
    assert written == report.partition("<!--")[2]
