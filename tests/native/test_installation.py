"""numba, its cache, and the end of a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numba
import pytest
from numba.core import caching

from triton_topk.native import compile as compiling

PREAMBLE = """
import sys, threading
import torch, triton_topk
assert "numba" not in sys.modules
torch.set_num_threads(2)
scores, labels = torch.randn(256, 2000, requires_grad=True), torch.arange(256)

def step(**options):
    triton_topk.smooth_svm(scores, labels, **options).backward()
    assert scores.grad.isfinite().all()
"""
WITHOUT_NUMBA = """
sys.modules["numba"] = None
step()
try:
    step(backend="native")
except ValueError as error:
    assert "needs numba (pip install numba)" in str(error), error
else:
    raise AssertionError
"""
WITH_A_NUMBA_THAT_CANNOT_BE_IMPORTED = """
from importlib.abc import MetaPathFinder

class Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "numba.core":
            raise ImportError("Numba needs an older NumPy")

sys.meta_path.insert(0, Finder())
step()
try:
    step(backend="native")
except (ValueError, ImportError) as error:
    assert "Numba needs an older NumPy" in str(error), error
else:
    raise AssertionError
"""
ON_A_FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
step(backend="native")
"""
ANNOUNCEMENT = (
    "triton_topk compiles its kernel for {} scores in {} arithmetic on this CPU, "
    "which takes about 10 seconds, once\n"
)
OF_FLOAT32 = ANNOUNCEMENT.format("float32", "float32")
AFTER_THE_MAIN_THREAD = """
def later():
    threading.main_thread().join()
    step(backend="native")
    print("done")

threading.Thread(target=later).start()
"""
A_POOL_THAT_OUTLIVES_THE_SCRIPT = """
from concurrent.futures import ThreadPoolExecutor

def later():
    ended.wait()
    step(backend="native")
    print("done")

step()
ended = threading.Event()
threading._register_atexit(ended.set)
pool = ThreadPoolExecutor()
pool.submit(later)
"""


def start(script: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + script],
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=500)
    assert process.returncode == 0, out
    return out


def test_without_numba_the_losses_are_eager_and_native_says_what_to_install() -> None:
    assert finish(start(WITHOUT_NUMBA)) == ""


def test_with_a_numba_that_cannot_be_imported_the_losses_are_eager() -> None:
    assert finish(start(WITH_A_NUMBA_THAT_CANNOT_BE_IMPORTED)) == ""


def test_with_a_numba_that_does_not_compile_the_losses_are_eager() -> None:
    """Who debugs a program of his own switches numba off."""
    assert finish(start("step()", NUMBA_DISABLE_JIT="1")) == ""


def test_a_thread_that_outlives_the_main_one() -> None:
    assert finish(start(AFTER_THE_MAIN_THREAD)).endswith("done\n")


def test_a_thread_of_a_pool_that_the_interpreter_waits_for_at_its_end() -> None:
    assert finish(start(A_POOL_THAT_OUTLIVES_THE_SCRIPT)).endswith("done\n")


def test_float16_where_numba_is_to_compile_for_any_processor(tmp_path: Path) -> None:
    """The compiler ends the process where it calls a function that it does not find."""
    script = "scores = scores.detach().half().requires_grad_()\nstep()"
    finish(start(script, NUMBA_CPU_NAME="generic", NUMBA_CACHE_DIR=str(tmp_path)))


def test_no_folder_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_folder(*_: object) -> None:
        raise OSError

    for locator in caching.FunctionCache._impl_class._locator_classes:
        monkeypatch.setattr(locator, "from_function", no_folder, raising=False)
    monkeypatch.setattr(caching.FunctionCache._impl_class, "_locator_classes", [])
    assert compiling.entry(lambda x: x + 1)(1) == 2


def compiled_of_a_sum() -> Callable[[int], int]:
    return compiling.entry(lambda x: x + 1)


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_damaged_cache_is_made_anew(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert compiled_of_a_sum()(1) == 2
    (file,) = tmp_path.rglob(f"*.{suffix}")
    file.write_bytes(file.read_bytes()[:10])
    assert compiled_of_a_sum()(1) == 2
    (said,) = caplog.messages
    assert said.startswith("numba cannot read what it has compiled: ")
    assert compiled_of_a_sum()(1) == 2
    assert len(caplog.messages) == 1


@pytest.mark.exhaustive
def test_two_processes_that_compile_into_an_empty_cache(tmp_path: Path) -> None:
    said = [
        [finish(process) for process in processes]
        for _ in range(2)
        for processes in [
            [start('step(backend="native")', NUMBA_CACHE_DIR=str(tmp_path)) for _ in "ab"]
        ]
    ]
    assert said == [[OF_FLOAT32, OF_FLOAT32], ["", ""]]


@pytest.mark.exhaustive
def test_each_kernel_that_is_compiled_is_announced(tmp_path: Path) -> None:
    script = """
step(backend="native", k=51)
scores = scores.detach().bfloat16().requires_grad_()
step(backend="native", k=50)
"""
    said = finish(start(script, NUMBA_CACHE_DIR=str(tmp_path)))
    kernels = ("float32", "float64"), ("bfloat16", "float32")
    assert said == "".join(ANNOUNCEMENT.format(*types) for types in kernels)


@pytest.mark.exhaustive
def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    said = finish(start(ON_A_FULL_DISK, NUMBA_CACHE_DIR=str(tmp_path)))
    assert OF_FLOAT32 in said
    assert "numba cannot keep what it has compiled: " in said
