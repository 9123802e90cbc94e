"""The losses with the names of the authors' package: the calls of scripts that were written for it."""

from __future__ import annotations

import copy
import inspect
import io
import re
from typing import Any

import pytest
import torch
from losses import exactly_equal, random_labels, random_scores
from torch import Tensor, nn

from triton_topk import hard_svm, reference, smooth_svm, topk_svm
from triton_topk.topk_svm import MaxTop1SVM, MaxTopkSVM, SmoothTop1SVM, SmoothTopkSVM

CRITERIA = (SmoothTop1SVM, SmoothTopkSVM, MaxTop1SVM, MaxTopkSVM)
every_criterion = pytest.mark.parametrize("criterion", CRITERIA, ids=lambda x: x.__name__)


def with_gradient(criterion: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.detach().requires_grad_()
    loss = criterion(leaf, y)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), gradient


def definition(criterion: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the mean of the loss that the criterion is named after, with its options."""
    k, margin = criterion.k, criterion.alpha
    if isinstance(criterion, MaxTopkSVM):
        return reference.hard_svm(x, y, k, margin=margin).mean()
    return reference.smooth_svm(x, y, k, tau=criterion.tau, margin=margin).mean()


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize(
    "criterion",
    [
        SmoothTop1SVM(2),
        SmoothTop1SVM(13, alpha=0.5, tau=0.1),
        SmoothTopkSVM(2, k=1),
        SmoothTopkSVM(13),
        SmoothTopkSVM(100, alpha=2, tau=3, k=10),
        SmoothTopkSVM(6, 0.0, 0.5, 5),
        MaxTop1SVM(2),
        MaxTop1SVM(13, 0.0),
        MaxTopkSVM(2, k=1),
        MaxTopkSVM(13, alpha=0.5),
        MaxTopkSVM(1000, 2.0, 3),
    ],
    ids=repr,
)
def test_loss_and_gradient_are_those_of_the_definition(criterion: nn.Module, rows: int) -> None:
    scores = random_scores(rows, criterion.n_classes, dtype=torch.float64)
    labels = random_labels(rows, n=criterion.n_classes)
    found = with_gradient(criterion, scores, labels)
    expected = with_gradient(lambda x, y: definition(criterion, x, y), scores, labels)
    torch.testing.assert_close(found, expected)


@every_criterion
def test_no_alpha_is_a_margin_of_1(criterion: type[nn.Module]) -> None:
    scores, labels = random_scores(6, 11), random_labels(6, n=11)
    assert criterion(11).alpha == 1
    assert criterion(11, alpha=None).alpha == 1
    exactly_equal(criterion(11)(scores, labels), criterion(11, alpha=1.0)(scores, labels))


@pytest.mark.parametrize(
    ("criterion", "arguments"),
    [
        (SmoothTop1SVM, {"n_classes": inspect.Parameter.empty, "alpha": None, "tau": 1.0}),
        (SmoothTopkSVM, {"n_classes": inspect.Parameter.empty, "alpha": None, "tau": 1.0, "k": 5}),
        (MaxTop1SVM, {"n_classes": inspect.Parameter.empty, "alpha": None}),
        (MaxTopkSVM, {"n_classes": inspect.Parameter.empty, "alpha": None, "k": 5}),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_a_constructor_takes_the_authors_arguments_in_their_order(
    criterion: type[nn.Module], arguments: dict[str, object]
) -> None:
    parameters = inspect.signature(criterion).parameters.values()
    assert [(p.name, p.default) for p in parameters] == list(arguments.items())
    assert {p.kind for p in parameters} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


@every_criterion
def test_scores_and_labels_may_be_called_x_and_y(criterion: type[nn.Module]) -> None:
    scores, labels = random_scores(6, 11), random_labels(6, n=11)
    exactly_equal(criterion(11)(x=scores, y=labels), criterion(11)(scores, labels))


class Model(nn.Module):
    """A classifier of a bag of rows (N, 8) holds the criterion of its most and least attended rows, as CLAM does."""

    def __init__(self, instance_loss_fn: nn.Module) -> None:
        super().__init__()
        self.attention = nn.Linear(8, 1)
        self.instance_classifiers = nn.ModuleList([nn.Linear(8, 2) for _ in range(2)])
        self.instance_loss_fn = instance_loss_fn

    def forward(self, rows: Tensor, label: int, k: int) -> Tensor:
        order = self.attention(rows).squeeze(1).argsort(descending=True)
        scores = self.instance_classifiers[label](torch.cat((rows[order[:k]], rows[order[-k:]])))
        targets = torch.cat((torch.ones(k), torch.zeros(k))).long()
        return self.instance_loss_fn(scores, targets)


def test_a_model_of_bags_trains() -> None:
    torch.manual_seed(0)
    model = Model(SmoothTop1SVM(n_classes=2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    bag = torch.randn(30, 8)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = model(bag, label=1, k=8)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_the_loss_of_a_bag_of_two_classes_may_be_that_of_a_single_row() -> None:
    scores = torch.tensor([[2.0, 1.0]])
    expected = torch.tensor(0.0).exp().log1p()  # (alpha + 1 - 2) / tau is 0
    torch.testing.assert_close(SmoothTop1SVM(n_classes=2)(scores, torch.tensor([0])), expected)
    assert MaxTop1SVM(n_classes=2)(scores, torch.tensor([1])) == 2


def test_a_checkpoint_of_a_model_that_holds_a_criterion_has_the_authors_buffer() -> None:
    saved = Model(SmoothTop1SVM(n_classes=2)).state_dict()
    # a criterion of topk.svm has this buffer and no other
    assert [name for name in saved if "loss" in name] == ["instance_loss_fn.labels"]
    exactly_equal(saved["instance_loss_fn.labels"], torch.arange(2))
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    Model(SmoothTop1SVM(n_classes=2)).load_state_dict(torch.load(file), strict=True)


@every_criterion
def test_a_criterion_follows_to_and_cpu(criterion: type[nn.Module]) -> None:
    made = criterion(11)
    assert made.to("meta") is made
    assert made.labels.is_meta
    assert criterion(11).cpu()(random_scores(6, 11), random_labels(6, n=11)).isfinite()


@every_criterion
def test_options_are_attributes_that_count_when_they_are_set(criterion: type[nn.Module]) -> None:
    scores, labels = random_scores(6, 11), random_labels(6, n=11)
    made = criterion(n_classes=11, alpha=0.5)
    assert made.n_classes == 11
    assert made.alpha == 0.5
    made.alpha = 0.25
    exactly_equal(made(scores, labels), criterion(11, 0.25)(scores, labels))


def test_tau_may_be_lowered_between_epochs() -> None:
    scores, labels = random_scores(6, 11), random_labels(6, n=11)
    for criterion in (SmoothTop1SVM(11), SmoothTopkSVM(11)):
        for tau in (1, 0.5, 0.1):
            criterion.tau = tau
            k = criterion.k
            exactly_equal(criterion(scores, labels), smooth_svm(scores, labels, k, tau=tau))


def test_k_may_be_read_and_set() -> None:
    scores, labels = random_scores(6, 11), random_labels(6, n=11)
    smooth, hard = SmoothTopkSVM(11), MaxTopkSVM(11)
    assert smooth.k == hard.k == 5
    smooth.k = hard.k = 3
    exactly_equal(smooth(scores, labels), smooth_svm(scores, labels, 3))
    exactly_equal(hard(scores, labels), hard_svm(scores, labels, 3))


def test_nothing_is_printed_when_tau_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    criterion = SmoothTopkSVM(11)
    criterion.tau = 0.5
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("criterion", "text"),
    [
        (SmoothTop1SVM(2), "SmoothTop1SVM(n_classes=2, alpha=1.0, k=1, tau=1.0)"),
        (MaxTopkSVM(11, alpha=0.5), "MaxTopkSVM(n_classes=11, alpha=0.5, k=5)"),
    ],
    ids=["smooth", "hard"],
)
def test_a_criterion_prints_its_options(criterion: nn.Module, text: str) -> None:
    assert repr(criterion) == text
    assert repr(copy.deepcopy(criterion)) == text


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"n_classes": 5.0}, TypeError, r"^n_classes .*int.* 5\.0"),
    ({"n_classes": True}, TypeError, "^n_classes .*int.* True"),
    ({"n_classes": 1}, ValueError, "^k .*1 <= k < C=1.*k="),
    ({"n_classes": -3}, ValueError, "^k .*1 <= k < C=-3.*k="),
    ({"alpha": -1}, ValueError, "^alpha .*>= 0.* -1"),
    ({"alpha": float("nan")}, ValueError, "^alpha .*>= 0.* nan"),
    ({"alpha": "wide"}, TypeError, "^alpha .*number.*'wide'"),
    ({"tau": 0}, ValueError, "^tau .*1e-37, 1e37.* 0"),
    ({"tau": None}, TypeError, "^tau .*number.*None"),
    ({"k": 0}, ValueError, "^k .*1 <= k < C=11.*k=0"),
    ({"k": 11}, ValueError, "^k .*1 <= k < C=11.*k=11"),
    ({"k": 2.0}, TypeError, r"^k .*int.*2\.0"),
]


@pytest.mark.parametrize(
    ("criterion", "arguments", "error", "message"),
    [
        (criterion, *wrong)
        for criterion in CRITERIA
        for wrong in WRONG
        if wrong[0].keys() <= inspect.signature(criterion).parameters.keys()
    ],
)
def test_a_wrong_argument_of_a_constructor_is_named(
    criterion: type[nn.Module], arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        criterion(**{"n_classes": 11} | arguments)


@every_criterion
def test_scores_of_another_number_of_classes_are_refused(criterion: type[nn.Module]) -> None:
    for shape in ((3, 10), (3, 1), (11,), (), (3, 11, 2)):
        labels = torch.zeros(shape[:1], dtype=torch.int64)
        with pytest.raises(
            ValueError, match="^x must be .*n_classes=11, got " + re.escape(f"{shape}")
        ):
            criterion(11)(torch.zeros(shape), labels)


@every_criterion
def test_what_is_no_tensor_is_refused(criterion: type[nn.Module]) -> None:
    with pytest.raises(TypeError, match="must be a Tensor"):
        criterion(11)([[0.0] * 11], torch.tensor([0]))


@every_criterion
def test_a_criterion_compiles_in_one_graph(criterion: type[nn.Module], compiler: None) -> None:
    scores, labels = random_scores(6, 11), random_labels(6, n=11)
    made = criterion(11)
    compiled = torch.compile(made, backend="eager", fullgraph=True)
    exactly_equal(compiled(scores, labels), made(scores, labels))


def test_every_criterion_is_tested() -> None:
    assert sorted(x.__name__ for x in CRITERIA) == topk_svm.__all__
