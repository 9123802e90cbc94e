"""The backends stand in order: the first that has no obstacle computes a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from triton_topk import eager
from triton_topk.batch import Batch
from triton_topk.kernels.backend import Triton
from triton_topk.losses import Loss
from triton_topk.native.backend import Native


class Run(Protocol):
    """A backend computes a loss of a batch into tensors of the caller's."""

    def __call__(
        self,
        batch: Batch,
        loss: Loss,
        *,
        upstream: Tensor | None = None,
        losses: Tensor | None = None,
        hits: Tensor | None = None,
        gradient: Tensor | None = None,
    ) -> None:
        """Fill `losses` (N,), `hits` (N, 2) and `gradient` (N, C), each of which may be None.

        The losses are divided by the normalizer; the gradient is that of sum_i losses_i upstream_i.
        """


class Backend(Protocol):
    """A backend is an object, or a module, that computes losses."""

    @property
    def name(self) -> str:
        """Return the word of the option `backend`."""

    @property
    def in_place(self) -> bool:
        """Return whether the gradient may take the memory of the scores, if they are contiguous."""

    @property
    def run(self) -> Run:
        """Return the function that computes losses."""

    @property
    def summarize(self) -> Callable[[Batch, Loss], None]:
        """Return the function that fills the summary of a batch with that of its scores."""

    @property
    def scale_(self) -> Callable[[Tensor, Tensor], None]:
        """Return the function that multiplies a contiguous gradient by a number, in place."""

    def obstacle_to_tensor(self, tensor: Tensor) -> str | None:
        """Return why the backend cannot work on such a tensor, or None."""

    def obstacle(self, batch: Batch, loss: Loss) -> str | None:
        """Return why the backend cannot compute this loss of this batch, or None."""


BACKENDS: tuple[Backend, ...] = (Triton(), Native(), eager)


def choose(batch: Batch, loss: Loss) -> Backend:
    """Return the first backend without an obstacle; ValueError if the one that is asked for has one."""
    asked = loss.backend
    obstacle: str | None = "does not exist"
    for backend in BACKENDS:
        if asked is None or asked == backend.name:
            obstacle = backend.obstacle(batch, loss)
            if obstacle is None:
                return backend
    raise ValueError(f"backend={asked!r} {obstacle}")


def scale_(gradient: Tensor, factor: Tensor) -> None:
    """Multiply the gradient by a number, in place, with the first backend that can."""
    # on a GPU asking for the number would wait for it
    if gradient.is_cpu and factor.item() == 1:
        return
    for backend in BACKENDS:
        if backend.obstacle_to_tensor(gradient) is None:
            backend.scale_(gradient, factor)
            break
