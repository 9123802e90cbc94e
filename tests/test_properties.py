"""Any small row against the truth, and the absence of jumps."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import triton_topk
from bench.exact import exact_smooth_svm


@settings(deadline=None, max_examples=150, derandomize=True)
@given(data=st.data())
def test_any_small_row(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 12), "n")
    k = data.draw(st.integers(1, n - 1), "k")
    score = st.one_of(st.sampled_from([0.0, 1.0, -math.inf]), st.floats(-30, 30, width=32))
    row = data.draw(st.lists(score, min_size=n, max_size=n), "row")
    label = data.draw(st.integers(0, n - 1), "label")
    tau = data.draw(st.sampled_from([0.1, 1.0, 7.0]), "tau")
    margin = data.draw(st.sampled_from([0.0, 0.3, 1.0]), "margin")
    loss, gradient = exact_smooth_svm(row, label, k, tau=tau, margin=margin)
    scores = torch.tensor(row, dtype=torch.float64, requires_grad=True)
    ours = triton_topk.smooth_svm(scores, torch.tensor(label), k, tau=tau, margin=margin)
    ours.backward()
    assert ours.item() == pytest.approx(float(loss), rel=1e-11, abs=1e-100, nan_ok=True)
    if not ours.isnan():
        assert scores.grad.tolist() == pytest.approx([float(g) for g in gradient], abs=1e-12)


def test_no_jump_where_the_top_scores_leave_the_rest() -> None:
    # where the original implementation switches to the hard loss: a gap of k tau log(1000) = 34.5
    k, step = 5, 0.05
    gaps = torch.arange(30, 40, step)
    scores = torch.zeros(len(gaps), 1000)
    scores[:, 1 : k + 1] = gaps[:, None]
    scores[:, 0] = gaps - 2
    labels = torch.zeros(len(gaps), dtype=torch.long)
    losses = triton_topk.smooth_svm(scores, labels, k, reduction="none")
    assert (losses > 0.1).all()
    # the gradients of the label and of the others each sum to 1 / k at most
    assert (losses.diff().abs() <= 2 * step / k + 1e-5).all()
