import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "noisy_digits.py"


def test_noisy_digits(tmp_path):
    settings = ["--noise-rates", "0", "0.5", "--seeds", "2", "--epochs", "10", "--out"]
    subprocess.run([sys.executable, EXAMPLE, *settings, tmp_path], check=True, timeout=300)

    table = (tmp_path / "noisy-digits.md").read_text()
    accuracies = [float(mean) for mean in re.findall(r"([\d.]+) ± [\d.]+", table)]
    assert len(accuracies) == 2 * 2 * 4  # noise rates, losses, columns
    assert all(50 < accuracy <= 100 for accuracy in accuracies)
    assert (tmp_path / "noisy-digits.png").read_bytes().startswith(b"\x89PNG")
