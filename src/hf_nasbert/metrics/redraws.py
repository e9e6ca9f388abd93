"""The measures of `rankings.py` on many redraws of the same children, all at once: what a bootstrap needs."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_nasbert.metrics.checks import Array, paired

_PAIRS = 1 << 22  # compared at a time
_MANY = 1000  # children, from which on sorting a redraw takes less than a table of all pairs


def draw(num_children: int, num_resamples: int, seed: int) -> Array:
    """Redraw children with replacement.

    Returns:
        How often each child is in each redraw: (children, 1 + num_resamples), the first of which holds each once.

    Raises:
        ValueError: If there is to be no redraw.
    """
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, not {num_resamples}")
    chosen = np.random.default_rng(seed).integers(num_children, size=(num_resamples, num_children))
    places = chosen + num_children * np.arange(num_resamples)[:, None]
    counts = np.bincount(places.ravel(), minlength=places.size).reshape(places.shape)
    # In the order of memory in which all is computed.
    return np.ascontiguousarray(np.vstack([np.ones(num_children), counts]).T, dtype=np.float64)


class _Levels(NamedTuple):
    """The different values of some children, the lowest first, and how many children of each redraw have them."""

    of: NDArray[np.int64]  # (children,): small whole numbers in the order of the values
    counts: Array  # (levels, redraws)
    upto: Array  # (levels, redraws): children of that level and those below
    before: Array  # (levels, redraws): children of those below

    @property
    def num_untied(self) -> Array:
        """How many pairs of children differ: (redraws,)."""
        untied: Array = (self.upto[-1] ** 2 - np.einsum("lr,lr->r", self.counts, self.counts)) / 2
        return untied


class Redraws:
    """Two rankings of the same children, and how often each child is in each redraw of them.

    A child that is in a redraw twice ties with itself. Every measure returns one value per redraw, which is what the
    function of the same name in `rankings.py` says of the children drawn; NaN where it is not defined.

    Args:
        score: One per child; the lowest is the best.
        truth: One per child; the lowest is the best.
        counts: (children, redraws), as `draw` gives them; by default one redraw, which holds each child once.

    Raises:
        ValueError: If there are not as many of each, or one holds what it cannot.
    """

    def __init__(self, score: ArrayLike, truth: ArrayLike, counts: ArrayLike | None = None) -> None:
        self.score, self.truth = paired(score=score, truth=truth)
        number = len(self.score)
        self.counts = np.ones((number, 1)) if counts is None else np.asarray(counts, dtype=np.float64)
        if self.counts.ndim != 2 or len(self.counts) != number:
            raise ValueError(f"counts must be ({number} children, redraws), but have the shape {self.counts.shape}")
        if not (self.counts >= 0).all():
            raise ValueError("counts must say how often each child was drawn, but hold numbers below 0, or none")

    def among(self, inside: NDArray[np.bool_]) -> "Redraws | None":
        """The same redraws, of which only some children are left; None where they are fewer than two."""
        if inside.sum() < 2:
            return None
        return Redraws(self.score[inside], self.truth[inside], self.counts[inside])

    @cached_property
    def _number(self) -> Array:
        """Children in each redraw: (redraws,)."""
        number: Array = self.counts.sum(axis=0)
        return number

    @cached_property
    def _scores(self) -> _Levels:
        return self._levels(self.score)

    @cached_property
    def _truths(self) -> _Levels:
        return self._levels(self.truth)

    def _levels(self, values: Array) -> _Levels:
        _, of, sizes = np.unique(values, return_inverse=True, return_counts=True)
        counts = self.counts[np.argsort(of, kind="stable")]
        if len(sizes) < len(of):
            counts = np.add.reduceat(counts, np.cumsum(sizes) - sizes, axis=0)
        upto = np.cumsum(counts, axis=0)
        return _Levels(of, counts, upto, upto - counts)

    def nothing(self) -> Array:
        """NaN for every redraw."""
        return np.full(self.counts.shape[1], np.nan)

    def kendall_tau(self) -> Array:
        """Kendall's tau-b, to the last bit what `rankings.kendall_tau` says of each redraw."""
        return self._kendall_tau(self.truth, self._truths)

    def sparse_kendall_tau(self, resolution: float) -> Array:
        """Kendall's tau-b after the truth is cut into steps of `resolution`."""
        steps = np.floor(self.truth / resolution)
        return self._kendall_tau(steps, self._levels(steps))

    def _kendall_tau(self, truth: Array, truths: _Levels) -> Array:
        if len(truth) > _MANY:
            from scipy.stats import kendalltau

            redrawn = [np.repeat(np.arange(len(truth)), counts.astype(np.int64)) for counts in self.counts.T]
            return np.array(
                [kendalltau(self.score[each], truth[each]).statistic for each in redrawn], dtype=np.float64
            )
        # Sums of whole numbers, exact as long as they stay below 2**53; each pair is in them twice.
        agreement = np.zeros(self.counts.shape[1])
        ranks = [levels.of.astype(np.float64) for levels in (self._scores, truths)]
        num_rows = max(1, _PAIRS // len(truth))
        for start in range(0, len(truth), num_rows):
            rows = slice(start, start + num_rows)
            signs = [np.sign(values[rows, None] - values) for values in ranks]
            agreement += np.einsum("cr,cr->r", self.counts[rows], (signs[0] * signs[1]) @ self.counts)
        untied_score, untied_truth = self._scores.num_untied, truths.num_untied
        known = (untied_score > 0) & (untied_truth > 0)
        taus = self.nothing()
        taus[known] = agreement[known] / 2 / np.sqrt(untied_score[known]) / np.sqrt(untied_truth[known])
        return np.clip(taus, -1, 1)

    def mean_bucketed_tau(self, bucket_of: ArrayLike) -> Array:
        """Kendall's tau-b within buckets, averaged with each weighted by its pairs of children."""
        (buckets, _) = paired(bucket_of=bucket_of, score=self.score)
        total, num_pairs = np.zeros((2, self.counts.shape[1]))
        for bucket in np.unique(buckets):
            part = self.among(buckets == bucket)
            if part is not None:
                taus = part.kendall_tau()
                pairs = np.where(np.isnan(taus), 0.0, part._number * (part._number - 1) / 2)
                total += np.nan_to_num(taus) * pairs
                num_pairs += pairs
        return np.divide(total, num_pairs, out=self.nothing(), where=num_pairs > 0)

    def pearson(self) -> Array:
        """Pearson's linear correlation."""
        # Scaled first, so that squares of very large or very small numbers neither overflow nor vanish.
        a, b = ((values - values.mean()) / (np.ptp(values) or 1.0) for values in (self.score, self.truth))
        return self._correlation(*(each[:, None] - each @ self.counts / self._number for each in (a, b)))

    def spearman(self) -> Array:
        """Spearman's rank correlation, ties sharing their mean rank."""
        middle = (self._number + 1) / 2
        ranks = [(each.upto - (each.counts - 1) / 2 - middle)[each.of] for each in (self._scores, self._truths)]
        return self._correlation(*ranks)

    def _correlation(self, a: Array, b: Array) -> Array:
        """The correlation of values that are centred in each redraw: (children, redraws)."""
        products, a_squares, b_squares = (
            np.einsum("cr,cr,cr->r", self.counts, x, y) for x, y in ((a, b), (a, a), (b, b))
        )
        known = (self._scores.num_untied > 0) & (self._truths.num_untied > 0)
        found = self.nothing()
        found[known] = products[known] / np.sqrt(a_squares[known] * b_squares[known])
        return np.clip(found, -1, 1)

    def precision_at_top(self, fraction: float) -> Array:
        """The share of the predicted best `fraction` of children that is among the truly best as many (P@top-k)."""
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction must lie in (0, 1], not {fraction}")
        k = np.maximum(1, np.round(fraction * self._number))
        # The probability that each child is among the lowest `k` when ties are broken at random.
        probabilities = [
            np.clip((k - levels.before) / np.maximum(levels.counts, 1), 0, 1)[levels.of]
            for levels in (self._scores, self._truths)
        ]
        found: Array = np.einsum("cr,cr,cr->r", self.counts, *probabilities) / k
        return found

    def best_rank_at(self, k: int) -> Array:
        """The best true rank (1 is the best child of all) among the predicted best `k` (BR@K)."""
        return self._expected_extreme_rank(k, sign=1)

    def worst_rank_at(self, k: int) -> Array:
        """The worst true rank (1 is the best child of all) among the predicted best `k` (WR@K)."""
        return self._expected_extreme_rank(k, sign=-1)

    def _expected_extreme_rank(self, k: int, sign: int) -> Array:
        """The expected best (1) or worst (-1) true rank among the lowest `k` scores, over all ways to break ties."""
        if not 1 <= k <= self._number.min():
            raise ValueError(f"k must lie between 1 and the {self._number.min():.0f} children, not {k}")
        # Children of equal truth share the best of their ranks; from here on the lowest is the one that is looked for.
        ranks = sign * (1 + self._truths.before)[self._truths.of]
        last = (self._scores.upto >= k).argmax(axis=0)  # the level some of which are drawn, and all below it
        of = self._scores.of[:, None]
        is_in = self.counts > 0
        extreme = np.where(is_in & (of <= last), ranks, np.inf).min(axis=0)
        tied = np.where(of == last, self.counts, 0.0)
        missing = k - self._scores.before[last, np.arange(len(last))]
        # Where all of the last level are drawn, or one child over again, nothing is left open.
        is_open = ((tied > 0).sum(axis=0) > 1) & (missing < tied.sum(axis=0))
        if is_open.any():
            sure = np.where(is_in & (of < last), ranks, np.inf).min(axis=0)
            order = np.argsort(sign * self.truth, kind="stable")
            ranks, tied = ranks[order][:, is_open], tied[order][:, is_open]
            probabilities = _of_first_drawn(tied, missing[is_open])
            extreme[is_open] = np.einsum("cr,cr->r", probabilities, np.minimum(ranks, sure[is_open]))
        found: Array = np.abs(extreme)
        return found

    def relative_improvement(self) -> Array:
        """How many percent lower the true loss of the predicted best child is than that of the average child."""
        average = self.truth @ self.counts / self._number
        if average.min() <= 0:
            raise ValueError(f"relative improvement needs positive losses, but their mean is {average.min()}")
        best = (self._scores.counts > 0).argmax(axis=0)
        picked = np.where(self._scores.of[:, None] == best, self.counts, 0.0)
        improvement: Array = 100 * (average - self.truth @ picked / picked.sum(axis=0)) / average
        return improvement

    def supernet_gap(self) -> Array:
        """How much higher the mean loss with inherited weights is than that of the same children trained alone."""
        gap: Array = (self.score - self.truth) @ self.counts / self._number
        return gap


def _of_first_drawn(tied: Array, num_drawn: Array) -> Array:
    """The probability of each child to be the first in line that is drawn: (children, redraws).

    Args:
        tied: How many of each stand in line: (children, redraws).
        num_drawn: How many of them are drawn, all as likely as each other: (redraws,).
    """
    from scipy.special import gammaln

    # That none of the first, second, ... is drawn has the probability of a quotient of two binomials.
    number = tied.sum(axis=0)
    left = number - np.cumsum(tied, axis=0)
    rest = np.maximum(left - num_drawn, 0)
    none = np.exp(gammaln(1 + left) - gammaln(1 + number) + gammaln(1 + number - num_drawn) - gammaln(1 + rest))
    none = np.where(left >= num_drawn, none, 0.0)
    return -np.diff(none, axis=0, prepend=1.0)
