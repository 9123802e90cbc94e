"""The studies: one by default, and all of them with `--full`."""

from collections.abc import Iterable
from itertools import product

from place_names.losses import CROSS_ENTROPY, KS, MAIN, MIXES, QS, SCALED, SMOOTH, TAUS
from place_names.study import DECAYS, LRS, Study, Trial
from place_names.training import Condition

SMALL = Condition(fraction=0.05, epochs=12)
QUARTER = Condition(fraction=0.25, epochs=6)
WHOLE = Condition(fraction=1.0, epochs=3)
NOISES = (0.0, 0.2, 0.4, 0.6)
WIDTHS = (8, 16)
STEEP = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)  # learning rates, up to far too large ones
CONTROLLED = (CROSS_ENTROPY, SCALED, SMOOTH)
FEW = {"lrs": LRS[1:3], "decays": DECAYS[1:]}  # settings, where others were seldom the best
WEAK = (0.02, *DECAYS[1:3])  # decays, where others were too large


def trials(
    conditions: Iterable[Condition], losses: Iterable[str], **settings: tuple[float, ...]
) -> list[Trial]:
    return [Trial(condition, loss, **settings) for condition, loss in product(conditions, losses)]


def without_decay(condition: Condition) -> list[Trial]:
    """Nothing but the learning rate keeps a network from learning the training names by heart."""
    return trials([condition], CONTROLLED, lrs=(LRS[0] / 2, *LRS[:3]), decays=(0.0,))


def at_each_rate(condition: Condition, rates: Iterable[float]) -> list[Trial]:
    """Nothing is chosen: every learning rate is a trial of its own."""
    return [
        trial for lr in rates for trial in trials([condition], CONTROLLED, lrs=(lr,), decays=(0.0,))
    ]


def default(task: str) -> Study:
    condition = SMALL._replace(task=task)
    return Study(
        "Losses",
        "Which loss is best, and how much of its lead is the scale of the scores?",
        [*trials([condition], MAIN, **FEW), *without_decay(condition)],
    )


def full() -> list[Study]:
    noisy = [QUARTER._replace(noise=noise) for noise in NOISES]
    countries = [condition._replace(task="country") for condition in noisy]
    grouped = QUARTER._replace(noise=0.4, grouped=True)
    long = grouped._replace(epochs=15, constant=True)
    cities = QUARTER._replace(task="city")
    return [
        Study(
            "Label noise",
            "Does a loss help where labels are wrong?",
            [
                trial
                for condition in noisy
                for trial in [*trials([condition], MAIN), *without_decay(condition)]
            ],
        ),
        Study(
            "Learning rate",
            "How well does a loss stand a learning rate that is too large, without weight decay?",
            at_each_rate(QUARTER, STEEP),
        ),
        Study(
            "tau",
            "Which temperature? The scaled cross-entropy has the same scale, k tau.",
            trials(
                [QUARTER],
                [CROSS_ENTROPY, *TAUS.values()],
                lrs=(0.025, 0.05, 0.1, 0.2),
                decays=WEAK,
            ),
        ),
        Study(
            "Countries",
            "Fewer classes: what does the missing order of the first k cost?",
            trials(countries[::2], MAIN, **FEW),
        ),
        Study(
            "Mixture",
            "Does a share of another loss order the first k?",
            trials(countries[:1], [CROSS_ENTROPY, SMOOTH, "mixture", *MIXES], **FEW),
        ),
        Study(
            "Mixture elsewhere",
            "Is a mixture of equal scales better on other problems, too?",
            trials(
                [noisy[0], noisy[2], countries[2]],
                [CROSS_ENTROPY, SMOOTH, *(name for name in MIXES if "q = 0.7, tau = 0.2" in name)],
                **FEW,
            ),
        ),
        Study("Few names", "Does a loss help where data are few?", default("region").trials),
        Study(
            "Training to the end",
            "The paper's setting, with noise inside groups: what is gained if nothing is tuned?",
            [*trials([grouped], CONTROLLED), *at_each_rate(long, STEEP[1:5])],
        ),
        Study(
            "q",
            "Which q? Is a smaller q as good as a mixture?",
            trials(noisy[::2], [CROSS_ENTROPY, *QS.values()], **FEW),
        ),
        Study(
            "k",
            "Which k for which accuracy?",
            trials([QUARTER], [CROSS_ENTROPY, *KS.values()], **FEW),
        ),
        Study(
            "Width",
            "Does a loss help where the network is small?",
            trials([QUARTER._replace(width=width) for width in WIDTHS], CONTROLLED, **FEW),
        ),
        Study(
            "Cities",
            "Does a loss help with many classes?",
            trials([cities], CONTROLLED, lrs=(0.2, 0.4, 0.8), decays=WEAK),
        ),
        Study(
            "Many names",
            "Does a loss help where data are many?",
            [
                *trials([WHOLE], [*CONTROLLED, "Lq", "mixture"], lrs=(0.05, 0.1, 0.2), decays=WEAK),
                *without_decay(WHOLE),
            ],
        ),
    ]
