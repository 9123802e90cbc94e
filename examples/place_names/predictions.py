"""First guesses for names, from networks that have not seen them."""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from place_names.losses import LOSSES
from place_names.names import Places, hashed_ngrams, load
from place_names.plan import QUARTER
from place_names.study import Results, Trial
from place_names.training import Split, fit, split

GUESSES = 5


def spelling(name: str) -> str:
    """Drop case, accents and blanks at the ends, which people leave out when they type."""
    letters = unicodedata.normalize("NFKD", name.strip().casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def places_with(places: Places, name: str) -> Tensor:
    """Return a mask of the pairs [pairs] with this name, however it is spelt."""
    spelt = spelling(name)
    alike = [i for i, other in enumerate(places.names) if spelling(other) == spelt]
    return torch.isin(places.name, torch.tensor(alike, dtype=torch.long))


def probabilities(trial: Trial, results: Results, names: Sequence[str]) -> Tensor:
    """Softmax of scores / scale [names, classes], after training without the names.

    The network learns a quarter of all names, with the settings that the trial has chosen.
    """
    run = trial.chosen(results)
    run = run._replace(condition=QUARTER._replace(task=run.condition.task))
    places = load(run.condition.task)
    training, *_ = split(places, run.condition, run.seed)
    asked = places.name[torch.stack([places_with(places, name) for name in names]).any(0)]
    others = ~torch.isin(training.name, asked)
    network = fit(run, Split(*(part[others] for part in training)))
    ngrams, start = hashed_ngrams(names)
    network.places = replace(places, names=names, ngrams=ngrams, start=start)
    with torch.no_grad():
        return torch.softmax(network(torch.arange(len(names))) / LOSSES[run.loss].scale, 1)


def answer(names: Sequence[str], trials: Sequence[Trial], results: Results) -> None:
    """Print the first guesses of every name and loss; those that are right have a star."""
    places = load(trials[0].condition.task)
    guesses = [probabilities(trial, results, names).topk(GUESSES) for trial in trials]
    for i, name in enumerate(names):
        right = set(places.label[places_with(places, name)].tolist())
        print(f"\n{name}: found in {len(right)} of {len(places.titles)} classes, which have a *")
        table = Table(*(trial.loss for trial in trials))
        for guess in range(GUESSES):
            table.add_row(
                *(
                    f"{100 * guessed.values[i, guess]:4.1f} % {escape(places.titles[label])}"
                    f"{' *' if label in right else ''}"
                    for guessed in guesses
                    for label in [int(guessed.indices[i, guess])]
                )
            )
        Console().print(table)
