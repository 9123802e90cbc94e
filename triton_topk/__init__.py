"""Loss functions for top-k classification and noisy labels, as fused Triton kernels."""

from triton_topk import nn
from triton_topk.functional import smooth_svm

__all__ = ["nn", "smooth_svm"]
__version__ = "0.1.0"
