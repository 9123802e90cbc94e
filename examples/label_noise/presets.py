"""Recipes of training: the small tasks' grid, and the paper's for image files."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class SmallRecipe:
    """AdamW on a network with one hidden layer; `length` and the other durations in updates.

    Pruning of the truncated Lq loss starts after a third of the training and is repeated every
    twelfth, as in `ImageRecipe`.
    """

    lr: float
    decay: float
    batch: int = 100
    hidden: int = 128
    length: int = 960
    evaluate_every: int = 48
    prune_from: int = 320
    prune_every: int = 80


@dataclass(frozen=True)
class ImageRecipe:
    """SGD with momentum on a ResNet-18; `length` and the other durations in epochs.

    The defaults are those of Zhang and Sabuncu (NeurIPS 2018) for CIFAR. The learning rate is
    divided by 10 at each of the milestones. `crop`: random crops of images padded by 4 pixels.
    """

    lr: float = 0.01
    momentum: float = 0.9
    decay: float = 1e-4
    batch: int = 128
    length: int = 120
    milestones: tuple[int, ...] = (40, 80)
    prune_from: int = 40
    prune_every: int = 10
    validation: float = 0.1
    crop: bool = True
    flip: bool = True
    width: int = 64


Recipe = SmallRecipe | ImageRecipe

# Learning rates and weight decays to choose from, the same for every loss.
GRID = ((1e-3, 1.0), (1e-3, 0.0), (4e-3, 1.0), (4e-3, 0.0))


def shortened(recipe: Recipe, length: int | None) -> Recipe:
    """The recipe with another length, by which all of its durations move in proportion."""
    if length is None:
        return recipe

    def scaled(duration: int) -> int:
        return max(1, duration * length // recipe.length)

    timing = {"prune_from": scaled(recipe.prune_from), "prune_every": scaled(recipe.prune_every)}
    if isinstance(recipe, SmallRecipe):
        timing["evaluate_every"] = scaled(recipe.evaluate_every)
    else:
        timing["milestones"] = tuple(map(scaled, recipe.milestones))
    return replace(recipe, length=length, **timing)


PRESETS: dict[str, tuple[Recipe, ...]] = {
    "digits": tuple(SmallRecipe(lr, decay) for lr, decay in GRID),
    "pairs": tuple(
        shortened(SmallRecipe(lr, decay, batch=200, hidden=256), 720) for lr, decay in GRID
    ),
    "cifar10": (ImageRecipe(),),
    "cifar100": (ImageRecipe(),),
    "fashion-mnist": (ImageRecipe(crop=False),),
}
