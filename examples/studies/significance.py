"""A test of two losses: do they differ by more than chance?"""

from scipy.stats import ttest_rel
from torch import Tensor

SIGNIFICANT = 0.01
MARKS = {1: " ↑", 0: "", -1: " ↓"}


def sign_of_difference(ours: Tensor, theirs: Tensor) -> int:
    """1 or -1 where accuracies [seeds] are significantly higher or lower than others, else 0.

    By a paired t-test over the seeds: both have the same splits, noise and initial weights.
    """
    difference = ours - theirs
    if len(difference) < 2 or difference.std() == 0:
        return 0
    significant = ttest_rel(ours, theirs).pvalue < SIGNIFICANT
    return int(difference.mean().sign()) if significant else 0
