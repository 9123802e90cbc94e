"""The losses that are compared, and the scale of scores that each asks for."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

import triton_topk

K, TAU, Q = 5, 1.0, 0.7


def scaled_cross_entropy(scores: Tensor, labels: Tensor, k: int, tau: float) -> Tensor:
    """Cross-entropy of scores / (k tau), with gradients as large as those of cross-entropy."""
    return k * tau * F.cross_entropy(scores / (k * tau), labels)


class Loss(NamedTuple):
    """A function of scores (N, C) and labels (N,) with its options.

    `scale` is the difference of scores that it takes to change the loss much: 1 for cross-entropy.
    """

    name: str
    options: dict[str, Any]
    scale: float = 1.0

    @property
    def function(self) -> Callable[[Tensor, Tensor], Tensor]:
        if self.name == "scaled_cross_entropy":
            return partial(scaled_cross_entropy, **self.options)
        library = F if self.name == "cross_entropy" else triton_topk
        return partial(getattr(library, self.name), **self.options)


def scaled(k: int = K, tau: float = TAU) -> Loss:
    return Loss("scaled_cross_entropy", {"k": k, "tau": tau}, k * tau)


def smooth(k: int = K, tau: float = TAU) -> Loss:
    return Loss("smooth_svm", {"k": k, "tau": tau}, k * tau)


def lq(q: float) -> Loss:
    return Loss("lq_loss", {"q": q})


def mixture(mix: float, q: float, tau: float) -> Loss:
    """The margin is tau as well: with tau = 1/k the smooth SVM has the other part's scale."""
    options = {"k": K, "tau": tau, "margin": tau, "q": q, "mix": mix}
    return Loss("smooth_svm_lq", options, K * tau)


CROSS_ENTROPY, SCALED, SMOOTH = "cross-entropy", "scaled cross-entropy", "smooth SVM"
MIX = {"mix": 0.8, "q": 0.0, "tau": 1 / K}
MAIN = {
    CROSS_ENTROPY: Loss("cross_entropy", {}),
    "label smoothing": Loss("cross_entropy", {"label_smoothing": 0.1}),
    SCALED: scaled(),
    SMOOTH: smooth(),
    "hard SVM": Loss("hard_svm", {"k": K}, K),
    "Lq": lq(Q),
    "mixture": mixture(**MIX),
}
TAUS = {
    (name, tau): name if tau == TAU else f"{name}, tau = {tau:g}"
    for name in (SCALED, SMOOTH)
    for tau in (0.1, 0.3, 1.0, 3.0, 10.0)
}
KS = {k: SMOOTH if k == K else f"{SMOOTH}, k = {k}" for k in (1, 2, 5, 10)}
QS = {q: "Lq" if q == Q else f"Lq, q = {q:g}" for q in (0.1, 0.3, 0.5, Q)}
MIXES = {
    f"mixture, mix = {mix:g}, q = {q:g}, tau = {tau:g}": mixture(mix, q, tau)
    for mix, q, tau in [
        (0.5, 0.0, 1 / K),
        (0.95, 0.0, 1 / K),
        (0.8, Q, 1 / K),
        (0.95, Q, 1 / K),
        (0.5, 0.0, TAU),
        (0.5, Q, TAU),
    ]
}
LOSSES = (
    {name: (scaled if of == SCALED else smooth)(tau=tau) for (of, tau), name in TAUS.items()}
    | {name: smooth(k=k) for k, name in KS.items()}
    | {name: lq(q) for q, name in QS.items()}
    | MIXES
    | MAIN
)
