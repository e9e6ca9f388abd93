"""What some losses of the same children say of each operator in each block, and whether they say the same."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from hf_nasbert import metrics
from hf_nasbert.space import Architecture


class Worth(NamedTuple):
    """What some losses of the same children say of each operator, and whether they say the same."""

    name: str
    num_rankings: int
    agreement: float
    """Mean Kendall's tau between two of them; NaN for a single one."""
    effects: dict[str, list[float]]
    """By operator, block after block: how far its children's mean loss lies from the average, in nats, all other
    blocks held equal; NaN where the block has no such operator. Negative is good."""
    explained: float
    """The share of the variance that these effects explain; NaN where all losses are equal."""


def operator_worth(name: str, losses: Sequence[ArrayLike], architectures: Sequence[Architecture]) -> Worth:
    """Least squares on which operator stands in which block, for the mean of some losses of these children.

    Agreement between the losses tells a bias that all of them share from noise: super-nets of several seeds that agree
    with each other, but not with the truth, are wrong in the same way, and a mean over more of them is too.
    """
    rankings = [np.asarray(each, dtype=np.float64) for each in losses]
    mean = np.mean(rankings, axis=0)
    names = sorted({name for child in architectures for name in child})
    stands = np.array([[[at == name for name in names] for at in child] for child in architectures])
    design = stands.reshape(len(architectures), -1).astype(np.float64)
    weights = np.linalg.lstsq(design, mean - mean.mean(), rcond=None)[0]
    residual = mean - mean.mean() - design @ weights
    effects = weights.reshape(stands.shape[1:])
    shares = stands.mean(axis=0)
    # Only differences within a block are determined: here against the block's average child.
    effects = np.where(shares > 0, effects - (shares * effects).sum(axis=1, keepdims=True), math.nan)
    taus = [metrics.kendall_tau(first, second) for first, second in itertools.combinations(rankings, 2)]
    return Worth(
        name,
        len(rankings),
        float(np.mean(taus)) if taus else math.nan,
        {operator: effects[:, place].tolist() for place, operator in enumerate(names)},
        1 - float(residual.var() / mean.var()) if mean.var() > 0 else math.nan,
    )
