"""The native backend among threads, forked processes, and other users of the processor's modes."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
import torch
from losses import Loss, exactly_equal, random_labels, random_scores
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from triton_topk import ops
from triton_topk.native import launch

LOSS = Loss("smooth_svm", k=5, backend="native")
SHAPE = 64, 2000


BATCHES = [
    (random_scores(*SHAPE, seed=seed), random_labels(SHAPE[0], n=SHAPE[1])) for seed in range(4)
]


def step(seed: int) -> list[Tensor]:
    # of forked processes PyTorch's own threads are not to be asked for anything
    return list(LOSS.with_gradient(*BATCHES[seed % 4]))


def step_with_threads(seed: int) -> list[Tensor]:
    torch.set_num_threads(1 + seed % 3)
    return step(seed)


class Steps(Dataset[list[Tensor]]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> list[Tensor]:
        return step(i)


def in_numpy(results: list[Tensor]) -> list[object]:
    """NumPy arrays go to another process without sharing memory."""
    return [x.numpy() for x in results]


def forked_step(seed: int) -> list[object]:
    return in_numpy(step_with_threads(seed))


def test_many_threads_with_threads_of_their_own() -> None:
    expected = [step(seed) for seed in range(24)]
    with ThreadPoolExecutor(6) as pool:
        exactly_equal(list(pool.map(step_with_threads, range(24))), expected)


forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@forks
def test_forked_processes_after_the_threads_were_used() -> None:
    torch.set_num_threads(3)
    expected = [in_numpy(step(seed)) for seed in range(4)]
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        found = list(pool.map(forked_step, range(4), timeout=120))
    for ours, theirs in zip(found, expected, strict=True):
        for x, y in zip(ours, theirs, strict=True):
            assert (x == y).all()
    exactly_equal(in_numpy(step(0))[0], expected[0][0])


@forks
def test_workers_of_a_data_loader() -> None:
    torch.set_num_threads(2)
    expected = [step(seed) for seed in range(4)]
    loader = DataLoader(
        Steps(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=120
    )
    exactly_equal(list(loader), expected)


@pytest.fixture
def flushing() -> Iterator[None]:
    yield
    torch.set_flush_denormal(False)


@pytest.mark.usefixtures("flushing")
@pytest.mark.parametrize("flushes", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_mode_of_the_processor_is_as_it_was(flushes: bool, threads: int) -> None:
    torch.set_num_threads(threads)
    assert torch.set_flush_denormal(flushes)
    tiny = torch.tensor(1e-38)
    before = tiny / 8
    step(0)
    assert (before == 0) == flushes
    exactly_equal(tiny / 8, before)


@pytest.mark.usefixtures("flushing")
def test_the_mode_of_the_caller_changes_nothing_in_any_thread() -> None:
    scores, labels = random_scores(*SHAPE) * 1e-39, random_labels(SHAPE[0], n=SHAPE[1])
    loss = Loss("smooth_svm", k=5, tau=1e-37, margin=0.0, backend="native")
    torch.set_num_threads(3)
    expected = loss.with_gradient(scores, labels, reduction="none")
    torch.set_flush_denormal(True)
    for threads in (3, 1):
        torch.set_num_threads(threads)
        exactly_equal(loss.with_gradient(scores, labels, reduction="none"), expected)


def test_an_error_waits_for_the_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """They read tensors that the caller may change."""
    begun, ended = threading.Event(), threading.Event()

    def rows(*_: object) -> bool:
        if threading.current_thread() is threading.main_thread():
            assert begun.wait(100)
            raise KeyboardInterrupt
        begun.set()
        time.sleep(0.1)
        ended.set()
        return True

    torch.set_num_threads(2)
    monkeypatch.setattr(launch, "compute", rows)
    with pytest.raises(KeyboardInterrupt):
        step(0)
    assert ended.is_set()


def test_a_thread_that_an_interrupt_leaves_behind_keeps_the_tensors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C may end the wait for it, too, while it writes to them."""
    begun, interrupted, ended = threading.Event(), threading.Event(), threading.Event()
    alive = []

    def rows(*_: object) -> bool:
        if threading.current_thread() is threading.main_thread():
            assert begun.wait(100)
            raise KeyboardInterrupt
        begun.set()
        assert interrupted.wait(100)
        alive.append(gradients[0]() is not None)
        ended.set()
        return True

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    def new_gradient(loss: object, scores: Tensor) -> Tensor:
        gradient = torch.empty_like(scores)
        gradients.append(weakref.ref(gradient))
        return gradient

    gradients: list[weakref.ref[Tensor]] = []
    torch.set_num_threads(2)
    monkeypatch.setattr(launch, "compute", rows)
    monkeypatch.setattr(launch, "wait", interrupt)
    monkeypatch.setattr(ops, "_new_gradient", new_gradient)
    with contextlib.suppress(KeyboardInterrupt):
        step(0)
    gc.collect()
    interrupted.set()
    assert ended.wait(100)
    assert alive == [True]


@pytest.mark.parametrize("shape", [(7, 50), SHAPE])
def test_labels_that_no_call_sees_change_are_an_error_and_not_a_place_in_memory(
    shape: tuple[int, int],
) -> None:
    """PyTorch does not know what NumPy writes."""
    scores, labels = random_scores(*shape).requires_grad_(), random_labels(shape[0], n=shape[1])
    torch.set_num_threads(2)
    losses = LOSS(scores, labels, reduction="none")
    for wrong in (shape[1], -1, 10**12):
        labels.numpy()[5] = wrong
        with pytest.raises(IndexError, match=r"^labels must be in \[0, "):
            torch.autograd.grad(losses.sum(), scores, retain_graph=True)


def test_threads_are_kept_for_batches_of_other_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def executor(*arguments: object) -> ThreadPoolExecutor:
        made.append(arguments)
        return ThreadPoolExecutor(*arguments)

    torch.set_num_threads(3)
    monkeypatch.setattr(launch, "ThreadPoolExecutor", executor)
    launch._helpers.cache_clear()
    for _ in range(3):
        for n_rows in (33, 64):
            LOSS(random_scores(n_rows, 2000), random_labels(n_rows, n=2000))
    assert len(made) == 1
