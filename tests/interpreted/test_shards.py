"""Shards of the classes in Triton's interpreter, against all classes at once in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import in_shards
import pytest
import torch
from losses import exactly_equal
from running import HALVES, PARTS, RESIDENT, STREAM, STREAMED_HALVES, STREAMED_PARTS, fit
from smoke import hard_rows
from torch import Tensor

from triton_topk import eager
from triton_topk.backends import choose
from triton_topk.batch import Batch
from triton_topk.kernels import launch
from triton_topk.kernels.config import MAX_K_OF_SHARDS, Config
from triton_topk.losses import HardSVM, Loss, Lq, Mixture, SmoothSVM
from triton_topk.summary import Summary, merge, numbers

# As in test_kernels.py.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

N = 41
# One of them is too narrow for a Top, and one is empty.
WIDTHS = (20, 3, 0, 18)
SVM = SmoothSVM(5, 1.0, 1.0, hits=5)
LOSSES = [
    SVM,
    SmoothSVM(1, 0.5, 1.0, hits=1),
    SmoothSVM(1, 1.0, 0.0, 3),
    SmoothSVM(2, 0.1, 1.0),
    SmoothSVM(3, 1.0, 0.5, 2, hits=3),
    SmoothSVM(10, 1.0, 1.0, hits=10),
    HardSVM(5, 1.0, hits=5),
    HardSVM(1, 1.0),
    Lq(0.7, hits=5),
    Lq(0.0),
    Lq(0.7, 0.3),
    Mixture(5, 1.0, 1.0, None, 0.7, None, 0.3, hits=5),
]
LAYOUTS = {
    "resident": RESIDENT,
    "stream": STREAM,
    "halves": HALVES,
    "streamed halves": STREAMED_HALVES,
    "parts": PARTS,
    "streamed parts": STREAMED_PARTS,
    "many parts": replace(PARTS, columns=8, parts=64),
}
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=str)


def fitted(config: Config, widths: Sequence[int] = WIDTHS) -> list[dict[str, Any]]:
    """The options of the launches of each shard."""
    # all rows in one program take the interpreter little longer than a few
    return [{"config": replace(fit(config, max(1, width)), rows=32)} for width in widths]


def rows(loss: Loss, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    scores, labels = hard_rows(N, getattr(loss, "k", 5))
    # ties of the smallest scores of Top, within shards and across them
    scores[20] = -torch.arange(float(N)) / 10
    scores[20, [1, 4, 19, 20, 30, 40]] = 5.0
    scores[20, [2, 33]] = 7.0
    scores[21, 20:23] = 9.0
    scores[22, :3] = 9.0
    return scores.to(dtype), labels


def outputs(scores: Tensor, loss: Loss) -> dict[str, Tensor]:
    kind = torch.float64 if scores.dtype == torch.float64 else torch.float32
    out = {
        "losses": torch.full(scores.shape[:1], math.nan, dtype=kind),
        "gradient": torch.full_like(scores, math.nan),
    }
    if loss.hits is not None:
        out["hits"] = torch.zeros(len(scores), 2, dtype=torch.bool)
    return out


def computed(
    batch: Batch, loss: Loss, options: list[dict[str, Any]], **given: Tensor
) -> dict[str, Tensor]:
    out = outputs(batch.scores, loss)
    in_shards.run([launch] * 4, batch, loss, WIDTHS, options=options, **out, **given)
    return out


def truth(batch: Batch, loss: Loss, **given: Tensor) -> dict[str, Tensor]:
    """The answer of all classes at once, in float64."""
    tensors = (x if x is None or not x.is_floating_point() else x.double() for x in batch.tensors)
    batch = Batch(*tensors)
    out = outputs(batch.scores, loss)
    eager.run(batch, loss, **out, **{name: x.double() for name, x in given.items()})
    return out


def assert_accurate(
    found: dict[str, Tensor], expected: dict[str, Tensor], loss: Loss, dtype: torch.dtype
) -> None:
    rounding = 1e-11 if dtype == torch.float64 else 1e-6
    # the interpreter cuts off where a GPU rounds
    of_gradient = torch.finfo(dtype).eps + 2 * rounding
    if getattr(loss, "order", None) is not None and loss.k > 1:
        of_gradient += 3e-3  # as in test_losses.py
    for name, bound in (("losses", rounding), ("gradient", of_gradient)):
        x, y = (of[name].double().reshape(len(found["losses"]), -1) for of in (found, expected))
        assert torch.equal(x.isnan(), y.isnan()), name
        x, y = x.nan_to_num(0.0), y.nan_to_num(0.0)
        error = (x - y).abs().amax(1) / (y.abs().amax(1) + 1e-30)
        assert error.max() <= bound, (name, error)
    if "hits" in found:
        assert torch.equal(found["hits"], expected["hits"])


@pytest.mark.exhaustive(one_in=5)
@every_loss
def test_each_shard_of_difficult_rows(loss: Loss) -> None:
    scores, labels = rows(loss)
    batch = Batch(scores, labels)
    found = computed(batch, loss, fitted(RESIDENT))
    assert_accurate(found, truth(batch, loss), loss, scores.dtype)


@pytest.mark.exhaustive(one_in=11)
@pytest.mark.parametrize(
    ("layout", "dtype"),
    [
        *((layout, torch.float32) for layout in LAYOUTS),
        *((x, t) for x in ("halves", "many parts") for t in (torch.bfloat16, torch.float64)),
    ],
)
@every_loss
def test_every_layout(loss: Loss, layout: str, dtype: torch.dtype) -> None:
    scores, labels = rows(loss, dtype)
    batch = Batch(scores, labels)
    found = computed(batch, loss, fitted(LAYOUTS[layout]))
    assert_accurate(found, truth(batch, loss), loss, dtype)


@pytest.mark.exhaustive(one_in=5)
@every_loss
def test_shards_of_other_layouts_and_backends_understand_each_other(loss: Loss) -> None:
    """A loss has the same bits on all ranks with kernels; another backend's are not compared."""
    scores, labels = rows(loss)
    batch = Batch(scores, labels)
    options = [fitted(config)[i] for i, config in enumerate((PARTS, STREAM, HALVES, RESIDENT))]
    expected = truth(batch, loss)
    assert_accurate(computed(batch, loss, options), expected, loss, scores.dtype)
    local = in_shards.localize(batch, loss, WIDTHS)
    backends = [eager, launch, launch, eager]
    summaries = [in_shards.summarize(b, *of) for b, of in zip(backends, local, strict=True)]
    merged = merge(torch.stack(summaries), loss.form)
    for (of_shard, of_local, _), start in zip(local, (0, 20, 23, 23), strict=True):
        found = outputs(of_shard.scores, loss)
        launch.run(of_shard._replace(summary=merged), of_local, **found)
        width = of_shard.scores.shape[1] if start != 23 or of_shard.scores.shape[1] > 1 else 0
        found["gradient"] = found["gradient"][:, :width]
        columns = expected["gradient"][:, start : start + width]
        largest = expected["gradient"].abs().amax(1, keepdim=True) + 1e-30
        bound = 3e-3 if getattr(loss, "order", None) else 1e-5
        error = ((found["gradient"] - columns) / largest).nan_to_num(0.0).abs()
        assert (error <= bound).all()
        torch.testing.assert_close(
            found["losses"].double(), expected["losses"], rtol=1e-6, atol=0, equal_nan=True
        )


@pytest.mark.exhaustive(one_in=5)
@every_loss
def test_a_summary_has_the_form_of_another_backend(loss: Loss) -> None:
    torch.manual_seed(0)
    batch = Batch(torch.randn(9, N).round(decimals=1), torch.randint(N, (9,)))
    for local in in_shards.localize(batch, loss, WIDTHS):
        own = local[2] == 0
        found, expected = (
            Summary.of(in_shards.summarize(backend, *local), loss.form)
            for backend in (launch, eager)
        )
        assert torch.equal(found.v, expected.v)
        torch.testing.assert_close(found.r, expected.r, rtol=2e-6, atol=1e-6)
        torch.testing.assert_close(found.total, expected.total, rtol=1e-6, atol=0)
        assert torch.equal(found.place, expected.place)
        assert torch.equal(found.s_y[own], expected.s_y[own])
        if loss.hits is not None:
            within = [torch.clamp(x.rank[own], max=loss.hits) for x in (found, expected)]
            assert torch.equal(*within)


def test_the_labels_that_divide_are_those_of_all_shards() -> None:
    scores, labels = rows(SVM)
    labels[::3] = SVM.ignore_index
    counted = labels != SVM.ignore_index
    of_labels = Batch(scores, labels, uncounted=SVM.ignore_index)
    given = Batch(scores, labels, normalizer=counted.sum(dtype=torch.float32))
    found, expected = (
        computed(batch, SVM, fitted(LAYOUTS["resident"])) for batch in (of_labels, given)
    )
    exactly_equal(found, expected, equal_nan=True)


@pytest.mark.exhaustive(one_in=5)
@pytest.mark.parametrize("loss", [SVM, LOSSES[6], LOSSES[8], LOSSES[11]], ids=str)
@pytest.mark.parametrize("layout", ["resident", "many parts"])
def test_weights_margins_and_what_comes_back(loss: Loss, layout: str) -> None:
    scores, labels = rows(loss)
    torch.manual_seed(0)
    batch = Batch(
        scores,
        labels,
        weight=torch.rand(N),
        sample_weight=torch.rand(len(labels)) + 0.5,
        margins=torch.rand(len(labels), N),
        normalizer=torch.tensor(2.0),
    )
    if "margin" not in loss.parameters():
        batch = batch._replace(margins=None)
    # other strides than those of a fresh tensor
    upstream = torch.linspace(-2, 2, 2 * len(labels))[::2]
    found = computed(batch, loss, fitted(LAYOUTS[layout]), upstream=upstream)
    expected = truth(batch, loss, upstream=upstream)
    assert_accurate(found, expected, loss, scores.dtype)


@pytest.mark.exhaustive(one_in=5)
@every_loss
@pytest.mark.parametrize("layout", ["resident", "stream", "many parts"])
def test_equal_scores_of_a_shard_have_equal_gradients(loss: Loss, layout: str) -> None:
    scores, labels = rows(loss)
    found = computed(Batch(scores, labels), loss, fitted(LAYOUTS[layout]))["gradient"]
    for row, of_row, label in zip(scores, found.nan_to_num(0.0), labels, strict=True):
        others = torch.arange(N) != label
        for start, width in ((0, 20), (20, 3), (23, 18)):
            of_shard = slice(start, start + width)
            x = row[of_shard][others[of_shard]]
            for value in x.unique():
                equal = of_row[of_shard][others[of_shard]][x == value]
                assert value.isnan() or equal.unique().numel() == 1


@pytest.mark.exhaustive(one_in=5)
@every_loss
@pytest.mark.parametrize("layout", ["halves", "many parts"])
def test_a_row_alone_has_the_same_bits(loss: Loss, layout: str) -> None:
    scores, labels = rows(loss)
    options = fitted(LAYOUTS[layout])
    whole = computed(Batch(scores, labels), loss, options)
    for i in (3, 20):
        alone = computed(Batch(scores[i : i + 1], labels[i : i + 1]), loss, options)
        for name, x in alone.items():
            assert torch.equal(x, whole[name][i : i + 1]), name


@pytest.mark.exhaustive(one_in=4)
@every_loss
@pytest.mark.parametrize("layout", ["resident", "parts"])
def test_losses_alone_take_no_scores(loss: Loss, layout: str) -> None:
    scores, labels = rows(loss)
    config = LAYOUTS[layout]
    expected = computed(Batch(scores, labels), loss, fitted(config))
    local = in_shards.localize(Batch(scores, labels), loss, WIDTHS)
    options = fitted(config)
    summaries = [
        in_shards.summarize(launch, *of, **given) for of, given in zip(local, options, strict=True)
    ]
    merged = merge(torch.stack(summaries), loss.form)
    for (of_shard, of_local, _), given in zip(local, options, strict=True):
        found = outputs(of_shard.scores, loss)
        del found["gradient"]
        unread = torch.full_like(of_shard.scores, math.nan)
        launch.run(of_shard._replace(scores=unread, summary=merged), of_local, **found, **given)
        for name, x in found.items():
            torch.testing.assert_close(x, expected[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("loss", [SmoothSVM(10, 1.0, 1.0), SmoothSVM(5, 1.0, 1.0, 6)], ids=str)
def test_coefficients_of_all_shards_beyond_the_range_of_float32(loss: Loss) -> None:
    n, width = 60_000, 200
    assert math.comb(n - 1, loss.form.degree) > 1e38
    torch.manual_seed(0)
    scores = torch.randn(3, n) / 10
    scores[1] += torch.linspace(0, 20, n)
    scores[2] = 0
    batch = Batch(scores, torch.tensor([0, n - 1, 700]))
    widths = (width, n - 2 * width, width)
    found = outputs(scores, loss)
    local = in_shards.localize(batch, loss, widths)
    backends = (launch, eager, launch)
    summaries = [in_shards.summarize(b, *of) for b, of in zip(backends, local, strict=True)]
    merged = merge(torch.stack(summaries), loss.form)
    expected = truth(batch, loss)
    for i, columns in ((0, slice(0, width)), (2, slice(n - width, n))):
        of_shard, of_local, _ = local[i]
        found = outputs(of_shard.scores, loss)
        launch.run(of_shard._replace(summary=merged), of_local, **found)
        torch.testing.assert_close(found["losses"].double(), expected["losses"], rtol=1e-6, atol=0)
        error = (found["gradient"] - expected["gradient"][:, columns]).abs().amax(1)
        assert (error <= 3e-6 * expected["gradient"].abs().amax(1)).all()


def test_long_shards_are_read_in_parts_of_the_table() -> None:
    torch.manual_seed(0)
    widths = (40_000, 33_001)
    assert all(launch.choose(SVM, n, torch.float32, True).parts > 1 for n in widths)
    scores = torch.randn(2, sum(widths))
    batch = Batch(scores, torch.tensor([0, scores.shape[1] - 1]))
    found = outputs(scores, SVM)
    in_shards.run([launch] * 2, batch, SVM, widths, **found)
    assert_accurate(found, truth(batch, SVM), SVM, scores.dtype)


def test_larger_k_is_left_to_another_backend() -> None:
    scores, labels = torch.zeros(1, N), torch.zeros(1, dtype=torch.int64)
    for k, expected in ((MAX_K_OF_SHARDS, True), (MAX_K_OF_SHARDS + 1, False)):
        loss = replace(SVM, k=k, hits=None, backend=None)
        summary = torch.zeros(numbers(loss.form), 1, dtype=torch.float64)
        assert (choose(Batch(scores, labels, summary=summary), loss).name == "triton") == expected
    with pytest.raises(ValueError, match=r"supports shards of classes for k <= 12, got k=13"):
        choose(Batch(scores, labels, summary=summary), replace(loss, backend="triton"))
