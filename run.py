"""python3 run.py TASK ...  runs a task with nothing but Python 3.11 or newer; what follows goes to its last command.

What a task needs is installed into .venv first: some minutes and 3 GB of disk in all, 6 with PyTorch's CUDA build.
"""

import shutil
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
LINTERS = "-m ruff check; -m ruff format --check; -m mypy"
TASKS = {  # what it does, the dependency group that it needs, what Python runs
    "example": ("compares losses on place names, 3 minutes", "examples", "examples/place_names.py"),
    "test": ("runs the tests, 10 minutes", "test", "-m pytest"),
    "check": ("lints and runs every test, 25 minutes", "test", f"{LINTERS}; -m pytest --all"),
}


def run(*command):
    if status := subprocess.call(command, cwd=ROOT):
        sys.exit(status)


def requirements(group):
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    for item in groups[group]:
        yield from requirements(item["include-group"]) if isinstance(item, dict) else [item]


def install(group):
    pinned = "".join((ROOT / name).read_text() for name in ("pyproject.toml", "constraints.txt"))
    installed = VENV / f"{group}-installed"
    if PYTHON.exists() and installed.exists() and installed.read_text() == pinned:
        return
    print(__doc__.split("\n\n")[1], flush=True)
    for other in [file for file in VENV.glob("*-installed") if file.read_text() != pinned]:
        other.unlink()
    run(sys.executable, "-m", "venv", VENV, *([] if PYTHON.exists() else ["--clear"]))
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    pip += ["-c", "constraints.txt"]
    driver = shutil.which("nvidia-smi")
    no_gpu = driver is None or subprocess.call([driver], stdout=subprocess.DEVNULL) != 0
    if sys.platform == "linux" and no_gpu:  # the default index has a CUDA build
        try:
            urllib.request.urlopen(f"{CPU_BUILDS}/torch/", timeout=10).close()
            run(*pip, "torch", "--index-url", CPU_BUILDS)
        except OSError as error:
            print(f"PyTorch's build is the default index's; {CPU_BUILDS}: {error}", flush=True)
    run(*pip, "-e", ".[cpu]", *dict.fromkeys(requirements(group)))
    installed.write_text(pinned)


if __name__ == "__main__":
    task, *arguments = sys.argv[1:] or [""]
    if task not in TASKS or sys.version_info < (3, 11):
        sys.exit("\n".join([__doc__, *(f"    {task:8} {TASKS[task][0]}" for task in TASKS)]))
    about, group, commands = TASKS[task]
    print(f"{task}: {about} on two cores.", flush=True)
    install(group)
    for command in commands.split("; "):
        run(PYTHON, *command.split(), *(arguments if commands.endswith(command) else []))
