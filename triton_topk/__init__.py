"""Loss functions for top-k classification and noisy labels, as fused Triton kernels."""

from triton_topk import nn
from triton_topk.functional import TopkHits, hard_svm, lq_loss, smooth_svm, smooth_svm_lq

__all__ = ["TopkHits", "hard_svm", "lq_loss", "nn", "smooth_svm", "smooth_svm_lq"]
__version__ = "0.1.0"
