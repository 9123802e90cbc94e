"""Inclusion probabilities follow from those of fewer or of more classes."""

from __future__ import annotations

import torch
from torch import Tensor


def difference(e: Tensor, u: Tensor, inverse: Tensor, threshold: float) -> Tensor:
    """Return P_k(i) - P_{k-1}(i), given u_1, ..., u_k and 1 / u_k, 1 / u_{k+1}, ...

    Where e u_k is below the threshold, P_j = e u_j (1 - P_{j-1}) leads upwards from P_0 = 0, and its rounding grows as
    (e u_k)^k; else 1 - P_{j-1} = P_j / (e u_j) leads downwards from P = 1 for the last j there is.
    """
    P_below = P = torch.zeros_like(e)
    for u_j in u.unbind(0):
        P_below, P = P, e * u_j * (1 - P)
    Q_below = Q = torch.zeros_like(e)
    for inverse_j in inverse.flip(0).unbind(0):
        Q, Q_below = Q_below, (1 - Q_below) * inverse_j / e
    return torch.where(e * u[-1] < threshold, P - P_below, Q_below - Q)
