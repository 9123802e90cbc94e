"""torch.export of an evaluation graph."""

from __future__ import annotations

import io

import pytest
import torch
from classifier import Classifier, batch
from losses import (
    REDUCTIONS,
    Loss,
    each,
    every_loss,
    exactly_equal,
    one_of_each,
    with_margins,
)
from torch import Tensor

pytestmark = pytest.mark.usefixtures("compiler")


class Evaluation(Classifier):
    def __init__(self, loss: Loss, reduction: str) -> None:
        super().__init__(loss.module(reduction=reduction, weight=torch.linspace(0.5, 2, 11)))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x, labels)


def exported(model: Evaluation, strict: bool) -> torch.export.ExportedProgram:
    rows = {0: torch.export.Dim("rows")}
    return torch.export.export(model, batch(4), dynamic_shapes=(rows, rows), strict=strict)


@pytest.mark.exhaustive(one_in=2)
@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("strict", [False, True])
def test_same_numbers_for_any_batch(loss: Loss, reduction: str, strict: bool) -> None:
    model = Evaluation(loss, reduction)
    program = exported(model, strict)
    for n_rows in (4, 7, 33):
        exactly_equal(program.module()(*batch(n_rows)), model(*batch(n_rows)))


class OfLabelled(Evaluation):
    """An evaluation of the rows that have a label."""

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        labelled = labels != -100
        return super().forward(x[labelled], labels[labelled])


@pytest.mark.exhaustive(one_in=2)
@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("strict", [False, True])
def test_rows_chosen_in_the_graph(loss: Loss, reduction: str, strict: bool) -> None:
    model = OfLabelled(loss, reduction)
    program = exported(model, strict)
    for x, labels in (batch(4), batch(7), (batch(3)[0], torch.full((3,), -100))):
        exactly_equal(program.module()(x, labels), model(x, labels), equal_nan=True)


@every_loss
def test_saved_and_loaded(loss: Loss) -> None:
    model = Evaluation(loss, "mean")
    file = io.BytesIO()
    torch.export.save(exported(model, strict=False), file)
    file.seek(0)
    exactly_equal(torch.export.load(file).module()(*batch(7)), model(*batch(7)))


@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")  # PyTorch's own
@every_loss
def test_decomposed(loss: Loss) -> None:
    model = Evaluation(loss, "mean")
    program = exported(model, strict=False).run_decompositions()
    exactly_equal(program.module()(*batch(7)), model(*batch(7)))


class Accuracy(Evaluation):
    """An evaluation with all that a loss takes and gives."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss, "sum")
        self.loss = loss.module(weight=torch.linspace(0.5, 2, 11), return_topk_hits=True)

    def forward(self, x: Tensor, labels: Tensor, normalizer: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            found, hits = self.loss(self.layer(x), labels, normalizer=normalizer)
        return found, hits.top1, hits.topk.float().mean()


@pytest.mark.exhaustive(one_in=2)
@each([*one_of_each(3), *with_margins(3, torch.linspace(0, 2, 11))])
@pytest.mark.parametrize("strict", [False, True])
def test_margins_normalizer_and_hits(loss: Loss, strict: bool) -> None:
    model = Accuracy(loss)
    rows = {0: torch.export.Dim("rows")}
    given = (*batch(4), torch.tensor(3))
    program = torch.export.export(model, given, dynamic_shapes=(rows, rows, None), strict=strict)
    given = (*batch(9), torch.tensor(8))
    exactly_equal(program.module()(*given), model(*given))


@every_loss
@pytest.mark.parametrize("strict", [False, True])
def test_no_gradient_is_exported(loss: Loss, strict: bool) -> None:
    """An evaluation would compute it at each call."""
    model = Classifier(loss.module())
    program = torch.export.export(model, batch(4), strict=strict)
    operators = [str(node.target) for node in program.graph.nodes]
    assert f"triton_topk.{loss.name}.default" in operators
    assert not any("gradient" in operator for operator in operators)
