import re
import runpy
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).parents[1] / "examples" / "noisy_digits.py"


@pytest.mark.exhaustive
def test_noisy_digits(tmp_path):
    settings = ["--noise-rates", "0", "0.5", "--seeds", "2", "--epochs", "10", "--out"]
    subprocess.run([sys.executable, EXAMPLE, *settings, tmp_path], check=True, timeout=300)

    table = (tmp_path / "noisy-digits.md").read_text()
    accuracies = [float(mean) for mean in re.findall(r"([\d.]+) ± [\d.]+", table)]
    assert len(accuracies) == 2 * 2 * 4  # noise rates, losses, columns
    assert all(50 < accuracy <= 100 for accuracy in accuracies)
    assert (tmp_path / "noisy-digits.png").read_bytes().startswith(b"\x89PNG")


def test_the_figure_says_what_its_bands_are():
    example = runpy.run_path(str(EXAMPLE))
    conditions = product([0.0, 0.5], example["LOSSES"], example["TOP"], example["REGIMES"])
    results = {condition: torch.tensor([90.0, 91, 92, 93]) for condition in conditions}
    assert example["draw"](results, [0.0, 0.5]).get_supylabel().endswith("mean ± 1 s.d., 4 seeds")
