"""Place names as data: n-grams, classes, noise, splits and accuracies."""

from itertools import pairwise

import pytest
import torch
from place_names import predictions
from place_names.losses import CROSS_ENTROPY
from place_names.names import BUCKETS, Places, hashed_ngrams, load
from place_names.study import Trial
from place_names.training import (
    HELD_OUT,
    Condition,
    Network,
    Recipe,
    Run,
    Split,
    accuracies,
    redraw,
    split,
    train,
)

NAMES = ["Paris", "paris", "Å", "San José", "Parish"]


@pytest.fixture(scope="module")
def regions():
    return load("region")


def ngrams_of(names):
    ngrams, start = hashed_ngrams(names)
    return [ngrams[a:b].tolist() for a, b in pairwise(start)]


def test_a_name_has_the_same_ngrams_among_all_others():
    together = ngrams_of(NAMES)
    assert together == [ngrams_of([name])[0] for name in NAMES]
    for name, ngrams in zip(NAMES, together, strict=True):
        length = len(name.lower().encode()) + 2
        assert len(ngrams) == (length - 1) + (length - 2) + (length - 3)
        assert 0 <= min(ngrams) <= max(ngrams) < BUCKETS
    assert together[0] == together[1]
    # "Parish" has all but the end of "Paris": 5 + 4 + 3 of its 2-, 3- and 4-grams
    assert len(set(together[0]) & set(together[4])) == 12


def test_bags_are_the_names(regions):
    names = torch.tensor([3, 0, 3, len(regions.names) - 1])
    ngrams, offsets = regions.bags(names)
    bags = torch.tensor_split(ngrams, offsets[1:])
    assert [bag.tolist() for bag in bags] == ngrams_of([regions.names[i] for i in names])


def test_classes_have_enough_names_and_their_groups(regions):
    assert len(regions.titles) == len(regions.group) == 1233
    assert regions.label.bincount().min() >= 20
    pairs = torch.stack([regions.name, regions.label], 1)
    assert len(pairs.unique(dim=0)) == len(pairs)
    # the same name is right in several classes
    name = regions.names.index("San José")
    right = {regions.titles[label] for label in regions.label[regions.name == name]}
    assert {"San José, Costa Rica", "Ecatepec de Morelos, Mexico"} < right
    countries = {title.rpartition(", ")[2] for title in regions.titles}
    assert len(regions.group.unique()) == len(countries)


def test_noise_is_as_frequent_as_asked_and_stays_in_its_group():
    group = torch.tensor([0, 1, 0, 2, 1, 1])
    labels = torch.arange(6).repeat(20_000)
    generator = torch.Generator().manual_seed(0)
    noisy = redraw(labels, 0.6, group, generator)
    assert torch.equal(group[noisy], group[labels])
    for label, size in [(0, 2), (1, 3), (3, 1)]:
        drawn = noisy[labels == label].bincount(minlength=6) / 20_000
        expected = torch.where(group == group[label], 0.6 / size, 0)
        expected[label] += 0.4
        torch.testing.assert_close(drawn, expected, atol=0.02, rtol=0)
    assert torch.equal(redraw(labels, 0.0, group, generator), labels)


def test_no_name_is_in_two_splits(regions):
    condition = Condition(fraction=1.0, noise=0.4, grouped=True)
    splits = split(regions, condition, seed=1)
    assert sum(len(part.name) for part in splits) == len(regions.name)
    names = [set(part.name.tolist()) for part in splits]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    for held_out in names[1:]:
        assert len(held_out) == pytest.approx(HELD_OUT * len(regions.names), rel=0.02)
    truth = set(zip(regions.name.tolist(), regions.label.tolist(), strict=True))
    wrong = [
        sum(pair not in truth for pair in zip(*map(torch.Tensor.tolist, part), strict=True))
        / len(part.name)
        for part in splits
    ]
    assert wrong[0] == pytest.approx(wrong[1], abs=0.02)
    assert 0.3 < wrong[0] < 0.4
    assert wrong[2] == 0


def test_a_part_of_the_names_and_noise_change_nothing_else(regions):
    whole, *held_out = split(regions, Condition(fraction=1.0), seed=0)
    part, *same = split(regions, Condition(fraction=0.01, noise=0.5), seed=0)
    assert torch.equal(part.name, whole.name[: len(part.name)])
    assert len(part.name) == round(0.01 * len(whole.name))
    for one, other in zip(held_out, same, strict=True):
        assert torch.equal(one.name, other.name)


def test_equal_scores_and_nan_are_no_hits():
    class Given(torch.nn.Module):
        def forward(self, name):
            return scores[name]

    scores = torch.zeros(4, 20)
    scores[0, 3] = 1
    scores[1] = -torch.arange(20.0)
    scores[3] = torch.nan
    pairs = Split(torch.arange(4), torch.tensor([3, 4, 0, 0]))
    assert accuracies(Given(), pairs) == [25, 50, 50]


def test_training_learns_and_is_reproducible():
    run = Run(Condition(task="country", fraction=0.02, epochs=6), "smooth SVM", Recipe(0.06, 0), 0)
    validation, test = train(run)
    assert 25 < test[0] < test[1] < test[2]
    assert validation == pytest.approx(test, abs=5)
    torch.testing.assert_close([validation, test], train(run), atol=0.5, rtol=0)


def test_scores_have_a_row_for_every_name(regions):
    places = Places(*(getattr(regions, field) for field in Places.__dataclass_fields__))
    assert Network(places, 8)(torch.tensor([5, 2])).shape == (2, 1233)


def test_asked_names_are_in_no_training_however_they_are_spelt(regions, monkeypatch, capsys):
    trained = []

    def fit(run, training):
        trained.append(training)
        return Network(regions, 8)

    monkeypatch.setattr(predictions, "fit", fit)
    trial = Trial(Condition(), CROSS_ENTROPY)
    results = {run: torch.zeros(2, 3) for run in trial.tried()}
    predictions.answer([" sao paulo", "[/]", "Neustadt"], [trial], results)

    whole = split(regions, Condition(), 0)[0]
    gone = set(whole.name.tolist()) - set(trained[0].name.tolist())
    assert {regions.names[i] for i in gone} <= {"São Paulo", "Neustadt"}
    assert gone
    assert len(trained[0].name) == len(trained[0].label) > 0.99 * len(whole.name)
    out = capsys.readouterr().out
    assert " sao paulo: found in 2 of 1233 classes" in out
    assert "[/]: found in 0 of 1233 classes" in out
