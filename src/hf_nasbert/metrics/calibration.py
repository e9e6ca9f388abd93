"""How far a classifier's confidence is from its accuracy."""

import numpy as np
from numpy.typing import ArrayLike

from hf_nasbert.metrics.checks import Array


def calibration_error(logits: ArrayLike, labels: ArrayLike, num_bins: int = 15) -> float:
    """The expected calibration error: |accuracy - mean confidence| of equal bins of confidence, weighted by size.

    A weak diagnostic of small splits: under perfect calibration it is not 0 but of the order of the noise of a bin's
    accuracy. (Guo et al., 2017, https://arxiv.org/abs/1706.04599.)

    Args:
        logits: (examples, classes).
        labels: (examples,), class numbers.
        num_bins: Bins of equal width between 0 and 1.

    Returns:
        Between 0 and 1; NaN without examples.
    """
    scores: Array = np.asarray(logits, dtype=np.float64)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-np.inf))
    confidence = (scores / scores.sum(axis=1, keepdims=True)).max(axis=1, initial=0.0)
    is_right = scores.argmax(axis=1) == np.asarray(labels)
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, weights=is_right - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(confidence)) if len(confidence) else float("nan")
