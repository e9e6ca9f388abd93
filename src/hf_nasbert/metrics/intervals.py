"""How sure a number is: bootstrap intervals, and tests of paired differences."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_nasbert.metrics.checks import Array, check_confidence, paired
from hf_nasbert.metrics.redraws import Redraws, draw

_NUM_AT_ONCE = 100  # redraws of rows, which are many more than children
_NUM_FLIPS = 100_000  # of the signs of paired differences; all ways where there are no more


class Interval(NamedTuple):
    """A statistic of all children and a bootstrap interval around it."""

    estimate: float
    low: float
    high: float


def cluster_interval(
    measure: Callable[[Redraws], Array],
    clusters: ArrayLike,
    score: ArrayLike,
    truth: ArrayLike,
    *,
    num_resamples: int = 1000,
    confidence: float = 0.9,
    seed: int,
) -> Interval:
    """A percentile bootstrap interval over clusters of rows that are not independent of each other.

    Clusters are redrawn with replacement, each with all its rows (Davison and Hinkley, 1997, section 3.8). Redraws on
    which the measure is NaN are left out, which `scipy.stats.bootstrap` cannot. The bounds are NaN if there is one
    cluster only.

    Args:
        measure: A method of `Redraws`, such as `Redraws.spearman`.
        clusters: The cluster of every row, as a whole number.
        score: One value per row.
        truth: One value per row.
        num_resamples: How often to redraw.
        confidence: The share of redraws that the interval covers.
        seed: Seed of this call's own generator.

    Raises:
        ValueError: If the arrays differ in length, or hold fewer than two rows or a number that is not finite.
    """
    cluster_of, score, truth = paired(clusters=clusters, score=score, truth=truth)
    of, counts = _redrawn_clusters(cluster_of, num_resamples, confidence, seed)
    if len(counts) < 2:
        return Interval(float(measure(Redraws(score, truth))[0]), float("nan"), float("nan"))
    starts = range(0, counts.shape[1], _NUM_AT_ONCE)
    parts = [measure(Redraws(score, truth, counts[of, start : start + _NUM_AT_ONCE])) for start in starts]
    values = np.concatenate(parts)
    return percentile_interval(float(values[0]), values[1:], confidence=confidence)


def cluster_mean_interval(
    clusters: ArrayLike, values: ArrayLike, *, num_resamples: int = 1000, confidence: float = 0.9, seed: int
) -> Interval:
    """As `cluster_interval`, of the mean of some values, from sums over clusters."""
    cluster_of, rows = paired(clusters=clusters, values=values)
    of, counts = _redrawn_clusters(cluster_of, num_resamples, confidence, seed)
    if len(counts) < 2:
        return Interval(float(rows.mean()), float("nan"), float("nan"))
    means = np.bincount(of, weights=rows) @ counts / (np.bincount(of) @ counts)
    return percentile_interval(float(rows.mean()), means[1:], confidence=confidence)


def _redrawn_clusters(
    clusters: Array, num_resamples: int, confidence: float, seed: int
) -> tuple[NDArray[np.int64], Array]:
    """The number of every row's cluster, and how often each cluster is in each redraw, as `draw` says."""
    check_confidence(confidence)
    names, of = np.unique(clusters, return_inverse=True)
    return of, draw(len(names), num_resamples, seed)


def mean_of_known(values: Iterable[float]) -> float:
    """The mean of those values that are numbers; NaN if none is."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def means_of_known(values: Array) -> Array:
    """`mean_of_known` of every column of values (rankings, redraws)."""
    known = ~np.isnan(values)
    number = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    means: Array = np.divide(total, number, out=np.full(len(number), np.nan), where=number > 0)
    return means


def percentile_interval(estimate: float, resampled: ArrayLike, *, confidence: float = 0.9) -> Interval:
    """The percentile interval of a statistic from its values on redraws; NaN among them are left out."""
    values = np.asarray(resampled, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return Interval(estimate, float("nan"), float("nan"))
    tail = round((1 - confidence) / 2, 12)  # (1 - 0.9) / 2 is a hair less than 0.05
    # Processors differ in the last bits of a sum: a bound of 25.05 is to be the same number, printed the same, on all.
    low, high = (float(f"{bound:.12g}") for bound in np.quantile(values, [tail, 1 - tail]))
    return Interval(estimate, low, high)


class PairedDifference(NamedTuple):
    """The mean of paired differences, Student's interval around it, and the p-value of flipping their signs."""

    mean: float
    low: float
    high: float
    p_value: float


def paired_difference(differences: ArrayLike, *, confidence: float = 0.9) -> PairedDifference:
    """Whether paired differences, such as those of two methods seed by seed, are more than chance.

    The p-value is two-sided: the share of all 2**n ways to flip signs whose mean is at least as far from zero (Fisher,
    1935), or of 100,000 random ones where there are more. With n = 5 it cannot be less than 0.0625. The interval takes
    the differences as normal.

    Args:
        differences: At least 2 of them.
        confidence: The share of intervals that cover the true mean.
    """
    from scipy import stats

    (values,) = paired(differences=differences)
    check_confidence(confidence)
    flipped = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=_NUM_FLIPS, batch=10_000,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    mean, degrees = float(values.mean()), len(values) - 1
    half = float(stats.t.ppf((1 + confidence) / 2, degrees)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return PairedDifference(mean, mean - half, mean + half, float(flipped.pvalue))
