"""Numbers in, numbers out: how well one ranking of children agrees with another, and how sure that is.

Everywhere `score` is what ranks (a proxy loss, a parameter count, a predictor) and `truth` what is to be ranked (a
stand-alone loss). Both count as losses: **the lowest is the best**. Negate what is better when higher. Where ties
leave open which children are the best few, a measure is its expectation over all ways to break them, so that the order
of the children never matters.

The measures follow Yu et al. (2020, https://arxiv.org/abs/2003.04276; sparse tau) and Ning et al. (2021,
https://arxiv.org/abs/2008.03064; precision and ranks at the top).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_ROWS = 1 << 22  # pairs compared at a time
_NUM_FLIPPED = 20  # paired differences whose signs are flipped in all ways


class Interval(NamedTuple):
    """A statistic of all children and a bootstrap interval around it."""

    estimate: float
    low: float
    high: float


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
    score, truth = _paired(score=score, truth=truth)
    agreement = untied_score = untied_truth = 0
    for _, score_signs, truth_signs in _signs_of_pairs(score, truth):
        agreement += int(np.sum(score_signs * truth_signs, dtype=np.int64))
        untied_score += int(np.count_nonzero(score_signs))
        untied_truth += int(np.count_nonzero(truth_signs))
    if untied_score == 0 or untied_truth == 0:
        return float("nan")
    return agreement / math.sqrt(untied_score * untied_truth)


def kendall_taus_of_redraws(score: ArrayLike, truth: ArrayLike, counts: ArrayLike) -> Array:
    """`kendall_tau` of many redraws of the same children, all at once: what a bootstrap spends its time on.

    Args:
        score: One per child.
        truth: One per child.
        counts: How often each child is in each redraw: (redraws, children).

    Returns:
        The tau of every redraw, to the last bit what `kendall_tau` says of it; NaN where no pair can agree.

    Raises:
        ValueError: If the counts are none of these children.
    """
    score, truth = _paired(score=score, truth=truth)
    drawn = _checked_counts(counts, len(score))
    # Sums of whole numbers, exact as long as they stay below 2**53.
    agreement, untied_score, untied_truth = np.zeros((3, len(drawn)))
    for rows, score_signs, truth_signs in _signs_of_pairs(score, truth):
        for total, pairs in (
            (agreement, score_signs * truth_signs),
            (untied_score, np.abs(score_signs)),
            (untied_truth, np.abs(truth_signs)),
        ):
            total += np.sum(drawn[:, rows] @ pairs.astype(np.float64) * drawn, axis=1)
    known = (untied_score > 0) & (untied_truth > 0)
    taus = np.full(len(drawn), np.nan)
    taus[known] = agreement[known] / np.sqrt(untied_score[known] * untied_truth[known])
    return taus


def _signs_of_pairs(score: Array, truth: Array) -> Iterator[tuple[slice, NDArray[np.int8], NDArray[np.int8]]]:
    """Rows of the table of all pairs, some at a time: which, and the sign of each difference in either ranking."""
    num_rows = max(1, _ROWS // len(score))
    for start in range(0, len(score), num_rows):
        rows = slice(start, start + num_rows)
        signs = []
        for values in (score, truth):
            some = values[rows, None]
            signs.append((some > values).astype(np.int8) - (some < values).astype(np.int8))
        yield rows, signs[0], signs[1]


def sparse_kendall_tau(score: ArrayLike, truth: ArrayLike, resolution: float) -> float:
    """Kendall's tau-b after the truth is cut into steps of `resolution`, such as its seed noise.

    Pairs whose true difference is noise become ties instead of coin flips. NaN if all truths fall into one step.
    """
    if not (np.isfinite(resolution) and resolution > 0):
        raise ValueError(f"resolution must be a positive number, not {resolution}")
    score, truth = _paired(score=score, truth=truth)
    return kendall_tau(score, np.floor(truth / resolution))


def pearson(score: ArrayLike, truth: ArrayLike) -> float:
    """Pearson's linear correlation; NaN if either side is constant."""
    score, truth = _paired(score=score, truth=truth)
    if np.ptp(score) == 0 or np.ptp(truth) == 0:
        return float("nan")
    # Scaled first, so that squares of very large or very small numbers neither overflow nor vanish.
    a, b = ((values - values.mean()) / np.ptp(values) for values in (score, truth))
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


def spearman(score: ArrayLike, truth: ArrayLike) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; NaN if either side is constant."""
    score, truth = _paired(score=score, truth=truth)
    return pearson(_mean_ranks(score), _mean_ranks(truth))


def precision_at_top(score: ArrayLike, truth: ArrayLike, fraction: float) -> float:
    """The share of the predicted best `fraction` of children that is among the truly best as many (P@top-k)."""
    score, truth = _paired(score=score, truth=truth)
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie in (0, 1], not {fraction}")
    k = max(1, round(fraction * len(score)))
    return float(np.dot(_top_membership(score, k), _top_membership(truth, k))) / k


def best_rank_at(score: ArrayLike, truth: ArrayLike, k: int) -> float:
    """The best true rank (1 is the best child of all) among the predicted best `k` (BR@K)."""
    return _expected_extreme_rank(score, truth, k, best=True)


def worst_rank_at(score: ArrayLike, truth: ArrayLike, k: int) -> float:
    """The worst true rank (1 is the best child of all) among the predicted best `k` (WR@K)."""
    return _expected_extreme_rank(score, truth, k, best=False)


def top_tau(score: ArrayLike, truth: ArrayLike, k: int) -> float:
    """Kendall's tau-b among the predicted best `k` children, and those that tie with the last of them."""
    score, truth = _paired(score=score, truth=truth)
    if not 2 <= k <= len(score):
        raise ValueError(f"k must lie between 2 and the {len(score)} children, not {k}")
    chosen = score <= np.partition(score, k - 1)[k - 1]
    return kendall_tau(score[chosen], truth[chosen])


def relative_improvement(score: ArrayLike, truth: ArrayLike) -> float:
    """How many percent lower the true loss of the predicted best child is than that of the average child."""
    score, truth = _paired(score=score, truth=truth)
    average = truth.mean()
    if average <= 0:
        raise ValueError(f"relative improvement needs positive losses, but their mean is {average}")
    return float(100 * (average - truth[score == score.min()].mean()) / average)


def supernet_gap(score: ArrayLike, truth: ArrayLike) -> float:
    """How much higher the mean loss with inherited weights is than that of the same children trained alone."""
    score, truth = _paired(score=score, truth=truth)
    return float(np.mean(score - truth))


def bucketed_tau(score: ArrayLike, truth: ArrayLike, sizes: ArrayLike, num_buckets: int = 4) -> list[Bucket]:
    """Kendall's tau-b among children of similar size, smallest bucket first.

    Size alone ranks children well, so agreement over all sizes proves little. Buckets are cut at quantiles of `sizes`;
    children of equal size are never parted, so there may be fewer buckets than asked for. The tau of a bucket is NaN
    if it has one child or no untied pair.
    """
    score, truth, sizes = _paired(score=score, truth=truth, sizes=sizes)
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
    score, truth, bucket_of = _paired(score=score, truth=truth, bucket_of=bucket_of)
    taus, num_pairs = [], []
    for bucket in np.unique(bucket_of):
        inside = bucket_of == bucket
        number = int(inside.sum())
        tau = kendall_tau(score[inside], truth[inside]) if number > 1 else float("nan")
        if not np.isnan(tau):
            taus.append(tau)
            num_pairs.append(number * (number - 1) / 2)
    return float(np.average(taus, weights=num_pairs)) if taus else float("nan")


def mean_bucketed_taus_of_redraws(
    score: ArrayLike, truth: ArrayLike, bucket_of: ArrayLike, counts: ArrayLike
) -> Array:
    """`mean_bucketed_tau` of many redraws of the same children; see `kendall_taus_of_redraws`."""
    score, truth, bucket_of = _paired(score=score, truth=truth, bucket_of=bucket_of)
    drawn = _checked_counts(counts, len(score))
    total, num_pairs = np.zeros((2, len(drawn)))
    for bucket in np.unique(bucket_of):
        inside = bucket_of == bucket
        if inside.sum() > 1:
            taus = kendall_taus_of_redraws(score[inside], truth[inside], drawn[:, inside])
            number = drawn[:, inside].sum(axis=1)
            pairs = np.where(np.isnan(taus), 0.0, number * (number - 1) / 2)
            total += np.nan_to_num(taus) * pairs
            num_pairs += pairs
    means = np.full(len(drawn), np.nan)
    np.divide(total, num_pairs, out=means, where=num_pairs > 0)
    return means


def bootstrap_interval(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    num_resamples: int = 1000,
    confidence: float = 0.9,
    seed: int,
) -> Interval:
    """A percentile bootstrap interval over children (Efron, 1979).

    Children are redrawn with replacement, the same ones in every array. Redraws on which the statistic is NaN (all
    children equal, likely only when there are few) are left out; if none is left the bounds are NaN.

    Args:
        statistic: Takes as many arrays as are given here and returns a number.
        arrays: One value per child each.
        num_resamples: How often to redraw.
        confidence: The share of redraws that the interval covers.
        seed: Seed of this call's own generator.
    """
    values = _paired(**{f"array {index}": array for index, array in enumerate(arrays)})
    _check_resampling(num_resamples, confidence)
    rng = np.random.default_rng(seed)
    num_children = len(values[0])
    resampled = []
    for _ in range(num_resamples):
        chosen = rng.integers(num_children, size=num_children)
        resampled.append(statistic(*(array[chosen] for array in values)))
    return percentile_interval(float(statistic(*values)), resampled, confidence=confidence)


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
    which the statistic is NaN are left out. The bounds are NaN if there is one cluster only.

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
    cluster_of, *values = _paired(clusters=clusters, **{f"array {index}": array for index, array in enumerate(arrays)})
    _check_resampling(num_resamples, confidence)
    estimate = float(statistic(*values))
    rows_of = [np.flatnonzero(cluster_of == cluster) for cluster in np.unique(cluster_of)]
    if len(rows_of) < 2:
        return Interval(estimate, float("nan"), float("nan"))
    resampled = []
    for redrawn in _redraws(len(rows_of), num_resamples, seed):
        chosen = np.concatenate([rows_of[index] for index in redrawn])
        resampled.append(statistic(*(array[chosen] for array in values)))
    return percentile_interval(estimate, resampled, confidence=confidence)


def cluster_mean_interval(
    clusters: ArrayLike, values: ArrayLike, *, num_resamples: int = 1000, confidence: float = 0.9, seed: int
) -> Interval:
    """`cluster_bootstrap_interval` of the mean, from sums over clusters: the same redraws in far less time."""
    cluster_of, rows = _paired(clusters=clusters, values=values)
    _check_resampling(num_resamples, confidence)
    _, index = np.unique(cluster_of, return_inverse=True)
    sums, counts = np.bincount(index, weights=rows), np.bincount(index)
    estimate = float(rows.mean())
    if len(sums) < 2:
        return Interval(estimate, float("nan"), float("nan"))
    redrawn = _redraws(len(sums), num_resamples, seed)
    return percentile_interval(estimate, sums[redrawn].sum(1) / counts[redrawn].sum(1), confidence=confidence)


def _redraws(num_clusters: int, num_resamples: int, seed: int) -> NDArray[np.int64]:
    """Numbers of clusters, redrawn with replacement, one line per redraw."""
    return np.random.default_rng(seed).integers(num_clusters, size=(num_resamples, num_clusters))


def _check_resampling(num_resamples: int, confidence: float) -> None:
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, not {num_resamples}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), not {confidence}")


def mean_of_known(values: Iterable[float]) -> float:
    """The mean of those values that are numbers; NaN if none is."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


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
    1935), or of 100,000 random ones where there are more than 20 differences. With n = 5 it cannot be less than
    0.0625. The interval takes the differences as normal.

    Args:
        differences: At least 2 of them.
        confidence: The share of intervals that cover the true mean.
    """
    (values,) = _paired(differences=differences)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), not {confidence}")
    num = len(values)
    if num <= _NUM_FLIPPED:
        flips = (np.arange(2**num)[:, None] >> np.arange(num)) & 1
    else:  # the first way is to flip none, as among all
        flips = np.random.default_rng(0).integers(2, size=(100_000, num))
        flips[0] = 0
    means = np.abs((1 - 2 * flips) @ values) / num
    # A hair of slack: the sums of the same numbers in another order differ in their last bit.
    p_value = float(np.mean(means >= abs(values.mean()) * (1 - 1e-12)))
    half = _student_quantile((1 + confidence) / 2, num - 1) * values.std(ddof=1) / math.sqrt(num)
    return PairedDifference(float(values.mean()), float(values.mean() - half), float(values.mean() + half), p_value)


def _student_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's t, by bisection of its integrated density."""

    def upto(bound: float) -> float:
        # Simpson's rule on [0, bound]; the integrand is smooth and small beyond.
        points = np.linspace(0.0, bound, 20_001)
        density = (1 + points**2 / degrees) ** (-(degrees + 1) / 2)
        weights = np.ones(len(points))
        weights[1:-1:2], weights[2:-1:2] = 4, 2
        scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
        return 0.5 + scale * float(weights @ density) * bound / (3 * (len(points) - 1))

    low, high = 0.0, 1.0
    while upto(high) < probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if upto(middle) < probability else (low, middle)
    return (low + high) / 2


def _paired(**arrays: ArrayLike) -> list[Array]:
    """The arguments as arrays of one length, or an error that names the one that is not fit."""
    if not arrays:
        raise ValueError("no array was given")
    checked: dict[str, Array] = {}
    for name, array in arrays.items():
        values = np.asarray(array, dtype=np.float64)
        if values.ndim != 1:
            raise ValueError(f"{name} must be one number per child, but has the shape {values.shape}")
        if not np.isfinite(values).all():
            index = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(f"{name}[{index}] is {values[index]}: leave out children without a finite value")
        checked[name] = values
    lengths = {name: len(values) for name, values in checked.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"one value per child is needed, but the lengths differ: {lengths}")
    if min(lengths.values()) < 2:
        raise ValueError(f"at least 2 children are needed, not {min(lengths.values())}")
    return list(checked.values())


def _checked_counts(counts: ArrayLike, num_children: int) -> Array:
    """How often each child is in each redraw, or an error that says what is wrong with it."""
    drawn = np.asarray(counts, dtype=np.float64)
    if drawn.ndim != 2 or drawn.shape[1] != num_children:
        raise ValueError(f"counts must be (redraws, {num_children} children), but have the shape {drawn.shape}")
    if not (drawn >= 0).all():
        raise ValueError("counts must say how often each child was drawn, but hold numbers below 0, or none")
    return drawn


def _mean_ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def _top_membership(values: Array, k: int) -> Array:
    """The probability that each child is among the lowest `k` when ties are broken at random."""
    last = np.partition(values, k - 1)[k - 1]
    inside, tied = values < last, values == last
    membership: Array = inside + tied * ((k - inside.sum()) / tied.sum())
    return membership


def _expected_extreme_rank(score: ArrayLike, truth: ArrayLike, k: int, best: bool) -> float:
    """The expected best or worst true rank among the lowest `k` scores, over all ways to break ties of the score."""
    score, truth = _paired(score=score, truth=truth)
    if not 1 <= k <= len(score):
        raise ValueError(f"k must lie between 1 and the {len(score)} children, not {k}")
    # Children of equal truth share the best of their ranks.
    ranks = 1.0 + np.searchsorted(np.sort(truth), truth, side="left")
    last = np.partition(score, k - 1)[k - 1]
    sure, tied = ranks[score < last], ranks[score == last]
    if not best:
        sure, tied = -sure, -tied
    # `num_drawn` of the tied children are drawn; the i-th best of them is the best one drawn with probability[i].
    num_drawn, tied = k - len(sure), np.sort(tied)
    probability, left = np.zeros(len(tied)), 1.0
    for index in range(len(tied) - num_drawn + 1):
        probability[index] = left * num_drawn / (len(tied) - index)
        left -= probability[index]
    extreme = np.minimum(tied, sure.min()) if len(sure) else tied
    return abs(float(probability @ extreme))
