"""The losses as modules."""

from __future__ import annotations

import copy
import inspect
import io
import pickle

import pytest
import torch
from losses import MODULES, Loss, each, every_loss, exactly_equal, random_labels, random_scores

from triton_topk import ClassShard
from triton_topk.nn import LqLoss, TruncatedLqLoss

SVM = {"k": 3, "margin": 2.0}
LQ = {"q": 0.5, "truncation": 0.1}
OPTIONS = {
    "smooth_svm": {**SVM, "tau": 0.5, "gradient": "taylor", "order": 3},
    "hard_svm": SVM,
    "lq_loss": LQ,
    "smooth_svm_lq": {**SVM, **LQ, "mix": 0.25, "tau": 0.5, "gradient": "taylor", "order": 3},
}
with_options = each([Loss(name, **options) for name, options in OPTIONS.items()])


@with_options
def test_module_is_the_function(loss):
    scores, labels = random_scores(6, 11), torch.tensor([3, 0, 10, 0, 7, 7])
    common = {
        "weight": torch.rand(11),
        "ignore_index": 7,
        "reduction": "sum",
        "backend": "eager",
    }
    module = loss.module(**common)
    scores.requires_grad_()
    found = module(scores, labels)
    found.backward()
    exactly_equal((found.detach(), scores.grad), loss.with_gradient(scores, labels, **common))


@every_loss
def test_a_module_takes_what_its_function_does_in_the_same_order(loss):
    of_function = inspect.signature(loss.function).parameters
    of_module = inspect.signature(MODULES[loss.name]).parameters
    of_call = inspect.signature(loss.module().forward).parameters
    # of the classes for a module, of the samples for its call, of either for a function
    weight = of_function["weight"].replace(annotation="Tensor | None")
    of_function = of_function | {"weight": weight}
    assert [p for name, p in of_function.items() if name in of_call] == list(of_call.values())
    of_call = of_call.keys() - {"weight"}
    assert [p for name, p in of_function.items() if name not in of_call] == list(of_module.values())
    by_position = [name for name, p in of_module.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert by_position == [name for name in loss.options if name in ("k", "q")]


def test_the_truncated_loss_takes_its_options_as_the_lq_loss_does():
    of_lq = inspect.signature(LqLoss).parameters
    samples, *options = inspect.signature(TruncatedLqLoss).parameters.values()
    assert samples.name == "num_samples"
    names = {p.name for p in options}
    kinds = [(name, p.kind) for name, p in of_lq.items() if name in names]
    assert [(p.name, p.kind) for p in options] == kinds


@with_options
def test_options_are_attributes(loss):
    scores, labels = random_scores(6, 11), random_labels(6, n=11)
    module = Loss(loss.name).module(reduction="none")
    for name, value in loss.options.items():
        setattr(module, name, value)
    exactly_equal(module(scores, labels), loss(scores, labels, reduction="none"))


@every_loss
def test_state_dict_holds_the_weight_and_nothing_else(loss):
    weight = torch.rand(11)
    assert not loss.module().state_dict()
    module = loss.module(weight=weight)
    assert list(module.state_dict()) == ["weight"]
    assert not list(module.parameters())
    other = loss.module(weight=torch.zeros(11))
    other.load_state_dict(module.state_dict())
    exactly_equal(other.weight, weight)


@with_options
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("how", ["pickle", "deepcopy", "torch.save"])
def test_copies_of_the_module(loss, weighted, how):
    scores, labels = random_scores(6, 11), random_labels(6, n=11)
    weight = torch.rand(11) if weighted else None
    module = loss.module(weight=weight, reduction="none")
    if how == "pickle":
        twin = pickle.loads(pickle.dumps(module))
    elif how == "deepcopy":
        twin = copy.deepcopy(module)
    else:
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    exactly_equal(twin(scores, labels), module(scores, labels))
    assert repr(twin) == repr(module)
    if weighted:
        assert twin.weight is not module.weight


@every_loss
def test_module_follows_to(loss):
    module = loss.module(weight=torch.rand(11))
    assert module.double().weight.dtype == torch.float64
    assert module.to(torch.bfloat16).weight.dtype == torch.bfloat16
    assert module.to("meta").weight.device.type == "meta"
    assert loss.module().to("meta").weight is None


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (
            Loss("smooth_svm", k=3, tau=0.5, margin=2.0, reduction="sum", gradient="taylor"),
            "SmoothSVMLoss(k=3, tau=0.5, margin=2.0, ignore_index=-100, reduction='sum', gradient='taylor')",
        ),
        (
            Loss("hard_svm", k=3, ignore_index=7),
            "HardSVMLoss(k=3, margin=1.0, ignore_index=7, reduction='mean')",
        ),
        (
            Loss("lq_loss", q=0, backend="eager"),
            "LqLoss(q=0, ignore_index=-100, reduction='mean', k=5, backend='eager')",
        ),
        (
            Loss("hard_svm", margin=torch.ones(11), weight=torch.ones(11), return_topk_hits=True),
            "HardSVMLoss(k=5, margin=<Tensor of shape (11,)>, ignore_index=-100, reduction='mean', "
            "return_topk_hits=True, weight=<Tensor of shape (11,)>)",
        ),
        (
            Loss("smooth_svm_lq", k=3, mix=0, truncation=0.5),
            "SmoothSVMLqLoss(k=3, q=0.7, mix=0, tau=1.0, margin=1.0, truncation=0.5, "
            "ignore_index=-100, reduction='mean', gradient='exact')",
        ),
        (
            Loss("lq_loss", shard=ClassShard(start=500_000, total=1_000_000)),
            "LqLoss(q=0.7, ignore_index=-100, reduction='mean', k=5, "
            "shard=ClassShard(group=None, start=500000, total=1000000, size=None))",
        ),
    ],
    ids=["smooth_svm", "hard_svm", "lq_loss", "tensors", "smooth_svm_lq", "shard"],
)
def test_repr_of_the_module(loss, text):
    assert repr(loss.module()) == text
