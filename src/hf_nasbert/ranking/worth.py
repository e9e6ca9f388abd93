"""What some losses of the same children say of each operator in each block, and whether they say the same."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_nasbert import metrics
from hf_nasbert.metrics import Array, Interval
from hf_nasbert.space import Architecture


class Worth(NamedTuple):
    """What some losses of the same children say of each operator, and whether they say the same.

    Intervals are 90 % bootstrap intervals over children (`metrics.bootstrap_interval`).
    """

    name: str
    num_rankings: int
    agreement: Interval
    """Mean Kendall's tau between two of them; NaN for a single one."""
    effects: dict[str, list[Interval]]
    """By operator, block after block: how far its children's mean loss lies from the average, in nats, all other
    blocks held equal; NaN where the block has no such operator. Negative is good."""
    explained: Interval
    """The share of the variance that these effects explain; NaN where all losses are equal. Redraws hold some children
    more than once, so its interval leans upward."""


def operator_worth(
    name: str,
    losses: Sequence[ArrayLike],
    architectures: Sequence[Architecture],
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Worth:
    """Least squares on which operator stands in which block, for the mean of some losses of these children.

    Agreement between the losses tells a bias that all of them share from noise: super-nets of several seeds that agree
    with each other, but not with the truth, are wrong in the same way, and a mean over more of them is too. Losses
    that are all equal have no tau with others, and do not count for it.

    Where the children are too few, or too alike, to tell the operators apart, nothing is said of effects (NaN), and of
    redraws that are so nothing is taken.
    """
    rankings = [np.asarray(each, dtype=np.float64) for each in losses]
    mean = np.mean(rankings, axis=0)
    names = sorted({name for child in architectures for name in child})
    stands = np.array([[[at == name for name in names] for at in child] for child in architectures], dtype=np.float64)
    shares = stands.mean(axis=0)  # (blocks, operators)
    num_free = 1 + int((shares > 0).sum() - len(shares))  # a mean, and in every block all candidates but one

    def fit(drawn: NDArray[np.int64]) -> tuple[Array, float]:
        """Effects (blocks, operators) and explained variance of some of the children."""
        design = stands[drawn].reshape(len(drawn), -1)
        centred = mean[drawn] - mean[drawn].mean()
        weights, _, num_determined, _ = np.linalg.lstsq(design, centred, rcond=None)
        if num_determined < num_free or len(np.unique(drawn)) == num_free:
            return np.full(shares.shape, math.nan), math.nan
        residual = centred - design @ weights
        effects = weights.reshape(shares.shape)
        # Only differences within a block are determined: here against the average of all children.
        effects = np.where(shares > 0, effects - (shares * effects).sum(axis=1, keepdims=True), math.nan)
        return effects, 1 - float(residual.var() / centred.var()) if np.ptp(mean[drawn]) > 0 else math.nan

    everyone = np.arange(len(mean))
    redraws = np.random.default_rng(seed).integers(len(mean), size=(num_resamples, len(mean)))
    effects, explained = fit(everyone)
    fits = [fit(drawn) for drawn in redraws]
    effects_of_redraws = np.array([each for each, _ in fits])
    counts = [np.bincount(drawn, minlength=len(mean)) for drawn in redraws]
    pairs = list(itertools.combinations(rankings, 2))
    taus = [metrics.kendall_tau(*pair) for pair in pairs]
    taus_of_redraws = zip(*(metrics.kendall_taus_of_redraws(*pair, counts) for pair in pairs), strict=True)
    return Worth(
        name,
        len(rankings),
        metrics.percentile_interval(metrics.mean_of_known(taus), [*map(metrics.mean_of_known, taus_of_redraws)]),
        {
            operator: [
                metrics.percentile_interval(float(effects[block, place]), effects_of_redraws[:, block, place])
                for block in range(len(effects))
            ]
            for place, operator in enumerate(names)
        },
        metrics.percentile_interval(explained, [each for _, each in fits]),
    )
