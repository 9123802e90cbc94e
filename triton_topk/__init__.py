"""The losses for top-k classification and noisy labels run as fused kernels on GPUs and CPUs."""

import sys
import warnings

# The output of `python -m triton_topk` begins with what is installed.
if sys.argv[:1] == ["-m"] and "triton_topk" in sys.orig_argv:
    warnings.filterwarnings("ignore", "Failed to initialize NumPy")

from triton_topk import nn as nn
from triton_topk.functional import TopkHits, hard_svm, lq_loss, smooth_svm, smooth_svm_lq
from triton_topk.linear import (
    linear_hard_svm,
    linear_lq_loss,
    linear_smooth_svm,
    linear_smooth_svm_lq,
)
from triton_topk.shard import ClassShard

# Not nn, which a star import would put in the place of PyTorch's.
__all__ = [
    "ClassShard",
    "TopkHits",
    "hard_svm",
    "linear_hard_svm",
    "linear_lq_loss",
    "linear_smooth_svm",
    "linear_smooth_svm_lq",
    "lq_loss",
    "smooth_svm",
    "smooth_svm_lq",
]
__version__ = "0.1.0"


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__", "nn"])
