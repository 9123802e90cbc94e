"""Losses in many threads at once have the bits that they have in one."""

from __future__ import annotations

import multiprocessing
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest
import torch
from kernel_stand_in import Kernel
from losses import (
    REDUCTIONS,
    Loss,
    exactly_equal,
    one_of_each,
    random_labels,
    random_scores,
    variants,
)
from torch import Tensor
from torch.func import jvp

from triton_topk import autograd

THREADS = 8
Result = list[Tensor]
Job = Callable[[], Any]


def step(loss: Callable[..., Tensor], n_rows: int, n: int, **options: object) -> Result:
    """A training step and an evaluation."""
    scores, labels = random_scores(n_rows, n, seed=n).requires_grad_(), random_labels(n_rows, n=n)
    labels[1:2] = -100
    found = loss(scores, labels, **options)
    found.sum().backward()
    with torch.no_grad():
        alone = loss(scores, labels, **options)
    assert scores.grad is not None
    return [found.detach(), scores.grad, alone]


def evaluation(loss: Loss, n_rows: int, n: int) -> Result:
    scores, labels = random_scores(n_rows, n, seed=n), random_labels(n_rows, n=n)
    found, hits = loss(scores, labels, normalizer=n_rows, return_topk_hits=True)
    return [found, *hits]


def jobs() -> list[Job]:
    shapes = (1, 11), (7, 20), (33, 257)
    return [
        *(
            lambda loss=loss, shape=shape, reduction=reduction: step(
                loss, *shape, reduction=reduction
            )
            for loss in variants(5)
            for shape, reduction in zip(shapes, REDUCTIONS, strict=True)
        ),
        *(lambda loss=loss: evaluation(loss, 7, 20) for loss in variants(5)),
    ]


def in_threads(jobs: list[Job]) -> list[list[Any]]:
    """The results of all jobs in each thread, which starts them in an order of its own."""
    start = threading.Barrier(THREADS)

    def run(seed: int) -> list[Any]:
        order = random.Random(seed).sample(range(len(jobs)), len(jobs))
        start.wait()
        results = {i: jobs[i]() for i in order}
        return [results[i] for i in range(len(jobs))]

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def same_in_threads(jobs: list[Job]) -> None:
    expected = [job() for job in jobs]
    for results in in_threads(jobs):
        exactly_equal(results, expected)


@pytest.fixture(autouse=True)
def switching() -> Iterator[None]:
    """Threads take turns as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_functions() -> None:
    same_in_threads(jobs())


def test_shared_modules() -> None:
    weight = torch.linspace(0.5, 2, 20)
    modules = [
        loss.module(weight=weight, reduction=reduction)
        for loss in one_of_each(5)
        for reduction in REDUCTIONS
    ]
    same_in_threads([lambda module=module: step(module, 9, 20) for module in modules])


def test_modes_of_a_thread_are_its_own() -> None:
    """One thread's no_grad and inference_mode are not another's."""
    loss = Loss("smooth_svm", k=3)
    scores, labels = random_scores(5, 11).requires_grad_(), random_labels(5, n=11)

    def without() -> Result:
        with torch.inference_mode():
            found = loss(scores, labels)
        return [found.clone(), torch.tensor(found.requires_grad)]

    def with_gradient() -> Result:
        found = loss(scores, labels)
        (gradient,) = torch.autograd.grad(found, scores)
        return [found.detach(), gradient]

    same_in_threads([without, with_gradient] * 20)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of torch.func
def test_forward_mode_that_another_thread_begins_during_a_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss, scores, labels = Loss("smooth_svm", k=3), random_scores(5, 11), random_labels(5, n=11)
    expected = loss(scores, labels)
    begun, over = threading.Event(), threading.Event()

    def wait(x: Tensor) -> Tensor:
        begun.set()
        assert over.wait(60)
        return x

    def decide(*, is_observed: Callable[[], bool] = autograd.is_observed) -> bool:
        answer = is_observed()
        found.append(pool.submit(jvp, wait, (scores,), (scores,)))
        assert begun.wait(60)
        return answer

    found: list[Future[Any]] = []
    monkeypatch.setattr(autograd, "is_observed", decide)
    with ThreadPoolExecutor(1) as pool:
        try:
            exactly_equal(loss(scores, labels), expected)
        finally:
            over.set()
        (other,) = found
        exactly_equal(other.result(), (scores, scores))


def _first_calls() -> tuple[list[list[Any]], list[Any]]:
    sys.setswitchinterval(1e-6)
    return in_threads(jobs()), [job() for job in jobs()]


def test_first_calls() -> None:
    """Threads make the first calls of a new process, in which nothing has been cached yet."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        found, expected = pool.submit(_first_calls).result()
    for results in found:
        exactly_equal(results, expected)


# Launches


def step_on_meta(loss: Loss, n: int, dtype: torch.dtype, reduction: str) -> None:
    scores = torch.empty(6, n, dtype=dtype, device="meta", requires_grad=True)
    labels = torch.empty(6, dtype=torch.int64, device="meta")
    loss(scores, labels, reduction=reduction).sum().backward()


def launched(kernels: dict[str, Kernel]) -> Counter[tuple[str, ...]]:
    """Count how often each kernel was launched with what, since this was asked last."""

    def described(x: Any) -> str:
        return f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else repr(x)

    out: Counter[tuple[str, ...]] = Counter()
    for name, kernel in kernels.items():
        for given in kernel.launched:
            out[name, *(f"{argument}={described(x)}" for argument, x in given.items())] += 1
        kernel.launched.clear()
    return out


def test_launches(like_a_gpu: dict[str, Kernel]) -> None:
    """Threads do not mix up the kernels that are kept compiled, first calls included."""
    jobs: list[Job] = [
        lambda loss=loss, n=n, dtype=dtype, reduction=reduction: step_on_meta(
            loss, n, dtype, reduction
        )
        for loss in variants(5)
        for n, dtype in ((20, torch.float32), (100, torch.float32), (100, torch.bfloat16))
        for reduction in ("mean", "none")
    ]
    in_threads(jobs)
    found = launched(like_a_gpu)
    asked = {name: kernel.asked for name, kernel in like_a_gpu.items()}
    for job in jobs:
        job()
    assert found == Counter({kind: THREADS * n for kind, n in launched(like_a_gpu).items()})
    assert {name: kernel.asked for name, kernel in like_a_gpu.items()} == asked
