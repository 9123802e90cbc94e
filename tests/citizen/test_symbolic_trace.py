"""torch.fx.symbolic_trace of a model that holds a loss."""

# No `from __future__ import annotations`: torch.fx cannot pickle types that are strings.
import pickle
from typing import Any

import pytest
import torch
from classifier import Classifier
from losses import Loss, each, every_loss, exactly_equal, random_labels, random_scores, with_margins
from torch import Tensor, fx

import triton_topk

# torch.fx's own
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def same(traced: fx.GraphModule, model: Classifier) -> None:
    """The same loss and gradients, for batches of any size."""
    for n_rows in (4, 7):
        batch = random_scores(n_rows, 8), random_labels(n_rows, n=11)
        results = []
        for module in (traced, model):
            loss = module(*batch)
            gradients = torch.autograd.grad(loss.sum(), module.layer.parameters())
            results.append((loss.detach(), *gradients))
        exactly_equal(*results)


@each([*with_margins(3, torch.linspace(0, 2, 11)), Loss("lq_loss", q=0.5, reduction="none")])
def test_the_traced_model_computes_the_same(loss: Loss) -> None:
    model = Classifier(loss.module(weight=torch.linspace(0.5, 2, 11)))
    traced = fx.symbolic_trace(model)
    assert loss.function in [node.target for node in traced.graph.nodes]
    same(traced, model)
    # the buffers are the model's
    assert traced.state_dict().keys() == model.state_dict().keys()
    traced.load_state_dict({name: 2 * x for name, x in traced.state_dict().items()})
    model.load_state_dict(traced.state_dict())
    same(traced, model)


@every_loss
def test_a_function_in_a_model(loss: Loss) -> None:
    model = Classifier(lambda *args: loss.function(*args, reduction="sum"))
    same(fx.symbolic_trace(model), model)


@every_loss
def test_the_traced_model_can_be_pickled_and_traced_again(loss: Loss) -> None:
    model = Classifier(loss.module())
    traced = pickle.loads(pickle.dumps(fx.symbolic_trace(model)))
    same(traced, model)
    same(fx.symbolic_trace(traced), model)


@every_loss
def test_what_comes_after_the_loss_is_traced_too(loss: Loss) -> None:
    class Accuracy(Classifier):
        def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            found, hits = self.loss(self.layer(x), labels, normalizer=labels.new_tensor(4))
            return 2 * found, hits.topk.float().mean()

    model = Accuracy(loss.module(return_topk_hits=True))
    batch = random_scores(7, 8), random_labels(7, n=11)
    exactly_equal(fx.symbolic_trace(model)(*batch), model(*batch))


def test_the_truncated_loss_is_traced_for_evaluation() -> None:
    model = Classifier(triton_topk.nn.TruncatedLqLoss(100)).eval()
    same(fx.symbolic_trace(model), model)


def test_the_truncated_loss_as_a_leaf() -> None:
    class Tracer(fx.Tracer):
        def is_leaf_module(self, module: torch.nn.Module, name: str) -> bool:
            leaf = isinstance(module, triton_topk.nn.TruncatedLqLoss)
            return leaf or super().is_leaf_module(module, name)

    class Training(Classifier):
        def forward(self, x: Tensor, labels: Tensor) -> Tensor:
            return self.loss(self.layer(x), labels, labels)

    model = Training(triton_topk.nn.TruncatedLqLoss(100))
    same(fx.GraphModule(model, Tracer().trace(model)), model)


@every_loss
def test_errors_are_those_of_the_call_that_was_traced(loss: Loss) -> None:
    traced = fx.symbolic_trace(Classifier(lambda *args: loss.function(*args, ignore_index=0.5)))
    with pytest.raises(TypeError, match=r"ignore_index must be an int, got 0\.5"):
        traced(random_scores(4, 8), random_labels(4, n=11))
    with pytest.raises(TypeError, match="unexpected keyword argument 'alpha'"):
        fx.symbolic_trace(Classifier(lambda *args: loss.function(*args, alpha=1)))


@every_loss
def test_what_is_like_a_tensor_may_answer_a_call_itself(loss: Loss) -> None:
    class Like:
        @classmethod
        def __torch_function__(cls, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
            if "weight" in kwargs:
                return NotImplemented
            return function, args, kwargs

    given = Like(), random_labels(4, n=11)
    assert loss.function(*given, reduction="sum") == (loss.function, given, {"reduction": "sum"})
    with pytest.raises(TypeError, match=f"no implementation found for .*{loss.name}"):
        loss.function(*given, weight=None)
