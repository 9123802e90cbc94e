"""torch.jit.trace of a model that holds a loss."""

from __future__ import annotations

import io

import pytest
import torch
from classifier import Classifier, batch
from losses import REDUCTIONS, Loss, each, every_loss, exactly_equal, with_margins

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    # that what was checked of the shapes is not checked again
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


@pytest.mark.exhaustive(one_in=2)
@each([*with_margins(3, torch.linspace(0, 2, 11)), Loss("lq_loss", q=0.5)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_same_numbers_for_any_batch(loss: Loss, reduction: str) -> None:
    model = Classifier(loss.module(reduction=reduction, weight=torch.linspace(0.5, 2, 11)))
    traced = torch.jit.trace(model, batch(4))
    for n_rows in (4, 7, 0):
        results = []
        for module in (traced, model):
            found = module(*batch(n_rows))
            results.append((found, *torch.autograd.grad(found.sum(), model.layer.parameters())))
        torch.testing.assert_close(*results, equal_nan=True)


@every_loss
def test_saved_and_loaded_with_hits(loss: Loss) -> None:
    model = Classifier(loss.module(return_topk_hits=True))
    file = io.BytesIO()
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(model, batch(4)), file)
        file.seek(0)
        found, hits = torch.jit.load(file)(*batch(7))
        expected, expected_hits = model(*batch(7))
    exactly_equal(found, expected)
    exactly_equal(tuple(hits), tuple(expected_hits))


@every_loss
def test_batches_that_the_model_would_refuse(loss: Loss) -> None:
    scores, labels = torch.randn(4, 11), torch.arange(4)
    module = loss.module(weight=torch.ones(11))
    traced = torch.jit.trace(module, (scores, labels))
    for wrong in ((scores, labels[:3]), (torch.randn(4, 3), labels % 3)):
        with pytest.raises((RuntimeError, ValueError), match=r"labels must|weight must"):
            traced(*wrong)
