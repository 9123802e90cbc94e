"""Errors that name the argument, its value and what was expected."""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest
import torch
from losses import (
    MODULES,
    REDUCTIONS,
    Loss,
    every_loss,
    random_scores,
)
from torch import Tensor

SCORES = torch.zeros(3, 11)
LABELS = torch.zeros(3, dtype=torch.int64)
INDICES = "not one-hot or probabilities"
BAD = [
    ({"scores": [[0.0]]}, TypeError, "scores .*Tensor.* list"),
    ({"scores": SCORES.int()}, TypeError, "scores .*float16.* torch.int32"),
    ({"scores": SCORES.to(torch.complex64)}, TypeError, "scores .* torch.complex64"),
    ({"scores": torch.tensor(1.0)}, ValueError, r"scores .*\(C,\).* \(\)"),
    ({"scores": torch.zeros(3, 0)}, ValueError, r"scores .*at least one class.*\(3, 0\)"),
    ({"labels": [0, 0, 0]}, TypeError, "labels .*Tensor.* list"),
    ({"labels": 0}, TypeError, "labels .*Tensor.* int"),
    ({"labels": LABELS.float()}, TypeError, f"labels .*integer.*{INDICES}.* torch.float32"),
    ({"labels": LABELS.bool()}, TypeError, f"labels .*integer.*{INDICES}.* torch.bool"),
    ({"labels": SCORES}, TypeError, f"labels .*class indices.*{INDICES}.* torch.float32"),
    (
        {"labels": SCORES.long()},
        ValueError,
        rf"labels .*\(3,\).*\(3, 11\).*class indices.*{INDICES}",
    ),
    (
        {"scores": torch.zeros(2, 5, 11), "labels": torch.zeros(2, 5).long()},
        ValueError,
        r"labels .*\(2, 11\).*\(2, 5, 11\).*\(2, 5\).*dimension 1: scores\.movedim\(-1, 1\)$",
    ),
    ({"labels": LABELS[:2]}, ValueError, r"labels .*\(3,\).*\(3, 11\).*\(2,\)"),
    ({"labels": LABELS[:, None]}, ValueError, r"labels .*\(3,\).*\(3, 11\).*\(3, 1\)"),
    ({"labels": LABELS[0]}, ValueError, r"labels .*\(3,\).*\(3, 11\).*\(\)"),
    ({"labels": LABELS.to("meta")}, ValueError, "labels .*device.*cpu.*meta"),
    ({"k": 0, "return_topk_hits": True}, ValueError, "k .*1 <= k < C.*k=0$"),
    ({"k": -3, "return_topk_hits": True}, ValueError, "k .*1 <= k < C.*k=-3$"),
    ({"k": 11, "return_topk_hits": True}, ValueError, "k .*1 <= k < C=11.*k=11$"),
    ({"k": 2.0, "return_topk_hits": True}, TypeError, r"k .*int.*2\.0"),
    ({"k": True, "return_topk_hits": True}, TypeError, "k .*int.*True"),
    ({"k": np.bool_(True), "return_topk_hits": True}, TypeError, "k .*int.*True"),
    ({"k": np.float64(2), "return_topk_hits": True}, TypeError, r"k .*int.*2\.0"),
    ({"k": np.array([2]), "return_topk_hits": True}, TypeError, r"k .*int.*\[2\]"),
    ({"k": torch.tensor(2), "return_topk_hits": True}, TypeError, r"k .*int.*Tensor of shape \(\)"),
    ({"k": np.int64(11), "return_topk_hits": True}, ValueError, "k .*1 <= k < C=11.*k=11$"),
    ({"k": None, "return_topk_hits": False}, TypeError, "k .*int.*None"),
    ({"k": "5", "return_topk_hits": True}, TypeError, "k .*int.*'5'"),
    ({"k": [5], "return_topk_hits": True}, TypeError, r"k .*int.*\[5\]"),
    ({"tau": 0}, ValueError, "tau .*1e-37, 1e37.* 0"),
    ({"tau": -1.5}, ValueError, r"tau .*1e-37, 1e37.* -1\.5"),
    ({"tau": math.nan}, ValueError, "tau .*1e-37, 1e37.* nan"),
    ({"tau": math.inf}, ValueError, "tau .*1e-37, 1e37.* inf"),
    ({"tau": "hot"}, TypeError, "tau .*number.*'hot'"),
    ({"tau": None}, TypeError, "tau .*number.*None"),
    ({"tau": [1.0]}, TypeError, r"tau .*number.*\[1\.0\]"),
    ({"margin": -0.5}, ValueError, r"margin .*>= 0.* -0\.5"),
    ({"margin": math.nan}, ValueError, "margin .*>= 0.* nan"),
    ({"margin": math.inf}, ValueError, "margin .*>= 0.* inf"),
    ({"margin": "wide"}, TypeError, "margin .*number.*'wide'"),
    ({"margin": [0.5]}, TypeError, r"margin .*a number or a Tensor.*\[0\.5\]"),
    ({"q": -1e-9}, ValueError, r"q .*\[0, 1\].* -1e-09"),
    ({"q": 1.5}, ValueError, r"q .*\[0, 1\].* 1\.5"),
    ({"q": math.nan}, ValueError, r"q .*\[0, 1\].* nan"),
    ({"q": math.inf}, ValueError, r"q .*\[0, 1\].* inf"),
    ({"q": "0.7"}, TypeError, r"q .*number.*'0\.7'"),
    ({"q": None}, TypeError, "q .*number.*None"),
    ({"q": True}, TypeError, "q .*number.*True"),
    ({"q": torch.tensor(0.7)}, TypeError, r"q .*number.*<Tensor of shape \(\)>"),
    ({"truncation": 0}, ValueError, r"truncation .*None or in \(0, 1\).* 0"),
    ({"truncation": 1.0}, ValueError, r"truncation .*None or in \(0, 1\).* 1\.0"),
    ({"truncation": -0.5}, ValueError, r"truncation .*None or in \(0, 1\).* -0\.5"),
    ({"truncation": math.nan}, ValueError, r"truncation .*None or in \(0, 1\).* nan"),
    ({"truncation": "half"}, TypeError, "truncation .*number.*'half'"),
    ({"truncation": False}, TypeError, "truncation .*number.*False"),
    ({"mix": -0.1}, ValueError, r"mix .*\[0, 1\].* -0\.1"),
    ({"mix": 1.1}, ValueError, r"mix .*\[0, 1\].* 1\.1"),
    ({"mix": math.nan}, ValueError, r"mix .*\[0, 1\].* nan"),
    ({"mix": "half"}, TypeError, "mix .*number.*'half'"),
    ({"mix": None}, TypeError, "mix .*number.*None"),
    ({"margin": torch.ones(3)}, ValueError, r"margin .*\(11,\).*\(3, 1\).* \(3,\)"),
    ({"margin": torch.ones(3, 11)}, ValueError, r"margin .*\(11,\).*\(3, 1\).* \(3, 11\)"),
    ({"margin": torch.ones(11).int()}, TypeError, "margin .*float32.* torch.int32"),
    ({"margin": torch.ones(11, requires_grad=True)}, ValueError, "margin .*gradient.*True"),
    ({"margin": torch.ones(11, device="meta")}, ValueError, "margin .*device.*cpu.*meta"),
    ({"margin": torch.ones(11).to_sparse()}, TypeError, "margin .*dense.*sparse"),
    ({"normalizer": 0}, ValueError, "normalizer .*> 0.* 0"),
    ({"normalizer": 2**130}, ValueError, "normalizer .*finite in torch.float32.* 1361129"),
    ({"normalizer": 1e-50}, ValueError, "normalizer .*> 0.* 1e-50"),
    ({"normalizer": math.inf}, ValueError, "normalizer .*finite.* inf"),
    ({"normalizer": "mean"}, TypeError, "normalizer .*number.*'mean'"),
    ({"normalizer": [2]}, TypeError, r"normalizer .*a number or a Tensor.*\[2\]"),
    ({"normalizer": True}, TypeError, "normalizer .*number.*True"),
    ({"normalizer": torch.ones(2)}, ValueError, r"normalizer .*one element.*\(2,\)"),
    ({"normalizer": torch.tensor(True)}, TypeError, "normalizer .*real.* torch.bool"),
    ({"normalizer": torch.ones((), device="meta")}, ValueError, "normalizer .*device.*cpu.*meta"),
    ({"normalizer": torch.ones((), requires_grad=True)}, ValueError, "normalizer .*gradient.*True"),
    ({"normalizer": 2, "reduction": "none"}, ValueError, "normalizer .*'mean' or 'sum'.*'none'"),
    ({"return_topk_hits": 1}, TypeError, "return_topk_hits .*bool.* 1"),
    ({"return_topk_hits": None}, TypeError, "return_topk_hits .*bool.* None"),
    ({"weight": [1.0] * 11}, TypeError, "weight .*Tensor.* list"),
    ({"scores": SCORES.to_sparse()}, TypeError, "scores .*dense.*sparse_coo"),
    ({"scores": SCORES.to_mkldnn()}, TypeError, "scores .*dense.*mkldnn"),
    (
        {"scores": torch.nested.nested_tensor([*SCORES], layout=torch.jagged)},
        TypeError,
        "scores .*dense.*nested",
    ),
    ({"labels": LABELS.to_sparse()}, TypeError, "labels .*dense.*sparse_coo"),
    ({"weight": torch.ones(11).to_sparse()}, TypeError, "weight .*dense.*sparse_coo"),
    ({"weight": torch.ones(11).to(torch.float8_e5m2)}, TypeError, "weight .*float32.*float8_e5m2"),
    ({"weight": torch.ones(11).int()}, TypeError, "weight .*float32.* torch.int32"),
    ({"weight": torch.ones(10)}, ValueError, r"weight .*\(11,\).* \(10,\)"),
    ({"weight": torch.ones(3, 4)}, ValueError, r"weight .*\(\w+,\).* \(3, 4\)"),
    ({"weight": torch.ones(11, device="meta")}, ValueError, "weight .*device.*cpu.*meta"),
    ({"weight": torch.ones(11, requires_grad=True)}, ValueError, "weight .*gradient.*True"),
    ({"weight": (torch.ones(11),)}, TypeError, "weight .*Tensor.* tuple"),
    ({"ignore_index": 1.0}, TypeError, r"ignore_index .*int.*1\.0"),
    ({"ignore_index": None}, TypeError, "ignore_index .*int.*None"),
    ({"ignore_index": True}, TypeError, "ignore_index .*int.*True"),
    ({"ignore_index": np.bool_(True)}, TypeError, "ignore_index .*int.*True"),
    ({"ignore_index": np.uint64(2**63)}, ValueError, "ignore_index .*64 bits.*9223372036854775808"),
    ({"ignore_index": {}}, TypeError, r"ignore_index .*int.*\{\}"),
    ({"reduction": "avg"}, ValueError, "reduction .*'none', 'mean', 'sum'.*'avg'"),
    ({"reduction": ["mean"]}, ValueError, r"reduction .*'none', 'mean', 'sum'.*\['mean'\]"),
    ({"reduction": None}, ValueError, "reduction .*'none', 'mean', 'sum'.*None"),
    ({"gradient": "paper"}, ValueError, "gradient .*'exact', 'taylor'.*'paper'"),
    ({"shard": 0}, TypeError, "shard .*ClassShard or None.* 0"),
    ({"backend": "cuda"}, ValueError, "backend .*'triton', 'native', 'eager'.*'cuda'"),
    ({"backend": "triton"}, ValueError, "backend='triton' .*GPU.*TRITON_INTERPRET.*cpu"),
    ({"order": 2}, ValueError, "order .*'taylor'.*order=2"),
    ({"gradient": "taylor", "order": 0}, ValueError, "order .*1 <= order <= C.* 0"),
    ({"gradient": "taylor", "order": -1}, ValueError, "order .*1 <= order <= C.* -1"),
    ({"gradient": "taylor", "order": 12}, ValueError, "order .*1 <= order <= C=11.* 12"),
    ({"gradient": "taylor", "order": 1.5}, TypeError, r"order .*int.*1\.5"),
    ({"gradient": "taylor", "order": np.int64(12)}, ValueError, "order .*1 <= order <= C=11.* 12"),
    ({"gradient": "taylor", "order": True}, TypeError, "order .*int.*True"),
]
# Every loss is given what it has an argument for.
BAD_OF_EACH = [
    pytest.param(name, arguments, error, message, id=f"{name}-{'-'.join(arguments)}")
    for name in MODULES
    for arguments, error, message in BAD
    if arguments.keys() <= inspect.signature(Loss(name).function).parameters.keys()
]


@pytest.mark.parametrize(("name", "arguments", "error", "message"), BAD_OF_EACH)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_bad_arguments(name, arguments, error, message, requires_grad):
    given = {"scores": SCORES, "labels": LABELS, **arguments}
    scores = given["scores"]
    if requires_grad and isinstance(scores, Tensor) and scores.is_floating_point():
        given["scores"] = scores.clone().requires_grad_()
    with pytest.raises(error, match=f"^{message}"):
        Loss(name)(**given)


def test_every_argument_is_given_something_bad():
    tried = {argument for arguments, _, _ in BAD for argument in arguments}
    for name in MODULES:
        assert inspect.signature(Loss(name).function).parameters.keys() <= tried


@pytest.mark.parametrize("name", [name for name in MODULES if name != "lq_loss"])
def test_a_single_class_has_no_k(name):
    with pytest.raises(ValueError, match=r"^k .*1 <= k < C=1, got k=1$"):
        Loss(name, k=1)(torch.zeros(3, 1), LABELS)


@pytest.mark.parametrize(
    ("name", "argument"),
    [("smooth_svm", "k"), ("smooth_svm", "tau"), ("hard_svm", "margin"), ("lq_loss", "q")]
    + [(name, "ignore_index") for name in MODULES],
)
def test_true_is_no_number_after_1_was_one(name, argument):
    Loss(name)(SCORES, LABELS, **{argument: 1})
    with pytest.raises(TypeError, match=f"{argument} .*True"):
        Loss(name)(SCORES, LABELS, **{argument: True})


@every_loss
@pytest.mark.parametrize("label", [11, 12, -1, -99, 2**40])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_labels_that_are_no_class(loss, label, reduction, requires_grad, weighted):
    scores = random_scores(3, 11).requires_grad_(requires_grad)
    weight = torch.ones(11) if weighted else None
    with pytest.raises(IndexError, match=rf"labels .*\[0, 11\).*-100.* {label}$"):
        loss(scores, torch.tensor([0, label, 3]), weight=weight, reduction=reduction)


@every_loss
def test_minus_100_is_no_class_when_something_else_is_ignored(loss):
    with pytest.raises(IndexError, match=r"labels .*ignore_index=-1, got -100"):
        loss(random_scores(3, 11), torch.tensor([0, -1, -100]), ignore_index=-1)


@every_loss
def test_a_module_says_the_same_of_what_was_set_since(loss):
    module = loss.module()
    module.reduction = "avg"
    with pytest.raises(ValueError, match=r"^reduction .*'avg'"):
        module(SCORES, LABELS)


@every_loss
def test_a_message_shows_no_thousands_of_numbers(loss):
    for value in (torch.rand(1000), [1.0] * 1000, "x" * 1000):
        with pytest.raises(TypeError) as raised:
            loss.function(SCORES, LABELS, ignore_index=value)
        assert len(str(raised.value)) < 100


@pytest.mark.parametrize("name", MODULES)
def test_a_default_k_that_is_too_large(name):
    with pytest.raises(ValueError, match=r"k .*1 <= k < C=5, got k=5 \(the default\)$"):
        Loss(name)(torch.zeros(3, 5), LABELS, return_topk_hits=True)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        case
        for case in BAD_OF_EACH
        if case.values[1].keys() <= inspect.signature(MODULES[case.values[0]]).parameters.keys()
    ],
)
def test_a_module_says_the_same_when_it_is_made(name, arguments, error, message):
    # only the scores have a number of classes and a device
    if re.search("11|device|GPU", message):
        module = MODULES[name](**arguments)
        with pytest.raises(error, match=f"^{message}"):
            module(SCORES, LABELS)
    else:
        with pytest.raises(error, match=f"^{message}"):
            MODULES[name](**arguments)
