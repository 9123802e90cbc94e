"""The loss of a row and its slope at the label's score follow from the pivot, or from z."""

import math

from triton_topk.native.compile import jit
from triton_topk.native.terms import SMOOTH

_NOTHING = 1e-20  # which 1 does not notice


@jit
def hard_loss(violation):
    """Return max(0, violation) and its derivative."""
    return (violation, 1.0) if violation > 0 else (0.0, 0.0)


@jit
def loss_of_z(term, z):
    """Return tau softplus(z) and sigmoid(z); or, with p = sigmoid(-z), (1 - p^q) / q and its derivative."""
    tail = math.exp(-abs(z))
    softplus = max(z, 0.0) + math.log1p(tail)
    sigmoid = (1.0 if z > 0 else tail) / (1.0 + tail)
    if term.kind == SMOOTH:
        return term.tau * softplus, sigmoid
    if softplus >= term.cut:
        return term.cut_loss, 0.0
    log_p_to_q = -term.q * softplus
    # the limit for q softplus to 0, which may also be NaN, as 0 times infinity
    if not log_p_to_q < -_NOTHING:
        return softplus, sigmoid
    return -math.expm1(log_p_to_q) / term.q, math.exp(log_p_to_q) * sigmoid
