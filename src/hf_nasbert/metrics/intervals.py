"""How sure a number is: bootstrap intervals, and tests of paired differences."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from hf_nasbert.metrics.checks import Array, check_confidence, paired
from hf_nasbert.metrics.redraws import draw

_NUM_FLIPS = 100_000  # of the signs of paired differences; all ways where there are no more


class Interval(NamedTuple):
    """A statistic of all children and a bootstrap interval around it."""

    estimate: float
    low: float
    high: float


def cluster_bootstrap_interval(
    statistic: Callable[..., float],
    clusters: ArrayLike,
    *arrays: ArrayLike,
    num_resamples: int = 1000,
    confidence: float = 0.9,
    seed: int,
) -> Interval:
    """A percentile bootstrap interval over clusters of rows that are not independent of each other.

    Clusters are redrawn with replacement, each with all its rows (Davison and Hinkley, 1997, section 3.8). Redraws on
    which the statistic is NaN are left out, which `scipy.stats.bootstrap` cannot. The bounds are NaN if there is one
    cluster only.

    Args:
        statistic: Takes as many arrays as are given here and returns a number.
        clusters: The cluster of every row, as a whole number.
        arrays: One value per row each.
        num_resamples: How often to redraw.
        confidence: The share of redraws that the interval covers.
        seed: Seed of this call's own generator.

    Raises:
        ValueError: If the arrays differ in length, or hold fewer than two rows or a number that is not finite.
    """
    cluster_of, *values = paired(clusters=clusters, **{f"array {index}": array for index, array in enumerate(arrays)})
    estimate = float(statistic(*values))
    rows_of = [np.flatnonzero(cluster_of == cluster) for cluster in np.unique(cluster_of)]
    counts = _drawn_clusters(len(rows_of), num_resamples, confidence, seed)
    if len(rows_of) < 2:
        return Interval(estimate, float("nan"), float("nan"))
    resampled = []
    for row in counts.T.astype(np.int64):
        chosen = np.concatenate([np.tile(rows_of[index], row[index]) for index in np.flatnonzero(row)])
        resampled.append(statistic(*(array[chosen] for array in values)))
    return percentile_interval(estimate, resampled, confidence=confidence)


def cluster_mean_interval(
    clusters: ArrayLike, values: ArrayLike, *, num_resamples: int = 1000, confidence: float = 0.9, seed: int
) -> Interval:
    """`cluster_bootstrap_interval` of the mean, from sums over clusters: the same redraws in far less time."""
    cluster_of, rows = paired(clusters=clusters, values=values)
    _, index = np.unique(cluster_of, return_inverse=True)
    sums, sizes = np.bincount(index, weights=rows), np.bincount(index)
    counts = _drawn_clusters(len(sums), num_resamples, confidence, seed)
    estimate = float(rows.mean())
    if len(sums) < 2:
        return Interval(estimate, float("nan"), float("nan"))
    return percentile_interval(estimate, sums @ counts / (sizes @ counts), confidence=confidence)


def _drawn_clusters(num_clusters: int, num_resamples: int, confidence: float, seed: int) -> Array:
    check_confidence(confidence)
    return draw(num_clusters, num_resamples, seed)[:, 1:]


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
    # Processors differ in the last bits of a sum: a bound of 25.05 is to be the same number, printed alike, on all.
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
