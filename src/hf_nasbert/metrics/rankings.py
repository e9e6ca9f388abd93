"""One number that says how well one ranking of children agrees with another.

Everywhere `score` is what ranks (a proxy loss, a parameter count, a predictor) and `truth` what is to be ranked (a
stand-alone loss). Both count as losses: **the lowest is the best**. Negate what is better when higher. Where ties
leave open which children are the best few, a measure is its expectation over all ways to break them, so that the order
of the children never matters.

The measures follow Yu et al. (2020, https://arxiv.org/abs/2003.04276; sparse tau) and Ning et al. (2021,
https://arxiv.org/abs/2008.03064; precision and ranks at the top).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_nasbert.metrics.checks import paired
from hf_nasbert.metrics.redraws import Redraws


class Bucket(NamedTuple):
    """The rank agreement among children of similar size, from `smallest` to `largest`."""

    smallest: float
    largest: float
    num_children: int
    tau: float


def kendall_tau(score: ArrayLike, truth: ArrayLike) -> float:
    """Kendall's tau-b: concordant minus discordant pairs, over the geometric mean of the pairs untied in each.

    NaN if either side is constant, since then no pair can agree.
    """
    from scipy.stats import kendalltau

    score, truth = paired(score=score, truth=truth)
    return float(kendalltau(score, truth).statistic)


def sparse_kendall_tau(score: ArrayLike, truth: ArrayLike, resolution: float) -> float:
    """Kendall's tau-b after the truth is cut into steps of `resolution`, such as its seed noise.

    Pairs whose true difference is noise become ties instead of coin flips. NaN if all truths fall into one step.
    """
    if not (np.isfinite(resolution) and resolution > 0):
        raise ValueError(f"resolution must be a positive number, not {resolution}")
    score, truth = paired(score=score, truth=truth)
    return kendall_tau(score, np.floor(truth / resolution))


def pearson(score: ArrayLike, truth: ArrayLike) -> float:
    """Pearson's linear correlation; NaN if either side is constant."""
    return float(Redraws(score, truth).pearson()[0])


def spearman(score: ArrayLike, truth: ArrayLike) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; NaN if either side is constant."""
    return float(Redraws(score, truth).spearman()[0])


def precision_at_top(score: ArrayLike, truth: ArrayLike, fraction: float) -> float:
    """The share of the predicted best `fraction` of children that is among the truly best as many (P@top-k)."""
    return float(Redraws(score, truth).precision_at_top(fraction)[0])


def best_rank_at(score: ArrayLike, truth: ArrayLike, k: int) -> float:
    """The best true rank (1 is the best child of all) among the predicted best `k` (BR@K)."""
    return float(Redraws(score, truth).best_rank_at(k)[0])


def worst_rank_at(score: ArrayLike, truth: ArrayLike, k: int) -> float:
    """The worst true rank (1 is the best child of all) among the predicted best `k` (WR@K)."""
    return float(Redraws(score, truth).worst_rank_at(k)[0])


def relative_improvement(score: ArrayLike, truth: ArrayLike) -> float:
    """How many percent lower the true loss of the predicted best child is than that of the average child."""
    return float(Redraws(score, truth).relative_improvement()[0])


def supernet_gap(score: ArrayLike, truth: ArrayLike) -> float:
    """How much higher the mean loss with inherited weights is than that of the same children trained alone."""
    return float(Redraws(score, truth).supernet_gap()[0])


def bucketed_tau(score: ArrayLike, truth: ArrayLike, sizes: ArrayLike, num_buckets: int = 4) -> list[Bucket]:
    """Kendall's tau-b among children of similar size, smallest bucket first.

    Size alone ranks children well, so agreement over all sizes proves little. Buckets are cut at quantiles of `sizes`;
    children of equal size are never parted, so there may be fewer buckets than asked for. The tau of a bucket is NaN
    if it has one child or no untied pair.
    """
    score, truth, sizes = paired(score=score, truth=truth, sizes=sizes)
    bucket_of = size_buckets(sizes, num_buckets)
    buckets = []
    for index in np.unique(bucket_of):
        inside = bucket_of == index
        tau = kendall_tau(score[inside], truth[inside]) if inside.sum() > 1 else float("nan")
        buckets.append(Bucket(float(sizes[inside].min()), float(sizes[inside].max()), int(inside.sum()), tau))
    return buckets


def size_buckets(sizes: ArrayLike, num_buckets: int = 4) -> NDArray[np.int64]:
    """The bucket of every child, cut at quantiles of `sizes`; see `bucketed_tau`."""
    if num_buckets < 1:
        raise ValueError(f"num_buckets must be at least 1, not {num_buckets}")
    values = np.asarray(sizes, dtype=np.float64)
    edges = np.quantile(values, np.arange(1, num_buckets) / num_buckets)
    return np.searchsorted(edges, values, side="left")


def mean_bucketed_tau(score: ArrayLike, truth: ArrayLike, bucket_of: ArrayLike) -> float:
    """Kendall's tau-b within buckets, averaged with each weighted by its pairs of children.

    Args:
        score: One per child.
        truth: One per child.
        bucket_of: The bucket of every child, as `size_buckets` cuts them. A bootstrap redraws it with the children:
            cut anew on every redraw, buckets would be others.

    Returns:
        The mean over the buckets that have a tau; NaN if none has.
    """
    return float(Redraws(score, truth).mean_bucketed_tau(bucket_of)[0])
