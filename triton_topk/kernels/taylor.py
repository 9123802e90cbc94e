"""The Taylor-type gradient of Top is the paper's (section 3.3 and appendix D).

Where e u_K is below a threshold the recursion P_j = e u_j (1 - P_{j-1}) gives the inclusion probabilities; else the
series of order p does, which this recursion gives downwards from P_{K+p-1} = 1: 1 - P_{j-1} = P_j / (e u_j).
"""

import triton
import triton.language as tl

# exp2 of it is still in range after a multiplication by u_j.
_EXPONENT_CAP = tl.constexpr(115.0)


@triton.jit
def top_gradient(V, u, p, rate, LOSS: tl.constexpr):
    """Return P_K(i) - P_{K-1}(i) for the scores V of Top [ROWS, LANES], from the row's u_j and pivot."""
    K: tl.constexpr = LOSS.k
    e = tl.exp2(tl.minimum((V - p[:, None]) * rate, _EXPONENT_CAP))
    P_below = tl.zeros_like(V)
    P = e * u[0][:, None]
    for j in tl.static_range(1, K):
        P_below = P
        P = e * u[j][:, None] * (1.0 - P_below)
    Q = tl.zeros_like(V)
    for i in tl.static_range(len(u) - K):
        Q = (1.0 - Q) / (e * u[len(u) - 1 - i][:, None])
    Q_below = (1.0 - Q) / (e * u[K - 1][:, None])
    return tl.where(e * u[K - 1][:, None] < LOSS.threshold, P - P_below, Q_below - Q)
