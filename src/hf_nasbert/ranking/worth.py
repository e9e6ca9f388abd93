"""What some losses of the same children say of each operator in each block, and whether they say the same."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from hf_nasbert import metrics
from hf_nasbert.metrics import Array, Interval, Redraws, draw
from hf_nasbert.space import Architecture


class Worth(NamedTuple):
    """What some losses of the same children say of each operator, and whether they say the same.

    Intervals are 90 % bootstrap intervals over children.
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

    Where the children are too few, or too similar, to separate the operators, nothing is said of effects (NaN), and of
    redraws that are so nothing is taken.
    """
    rankings = [np.asarray(each, dtype=np.float64) for each in losses]
    counts = draw(len(architectures), num_resamples, seed)
    names = sorted({name for child in architectures for name in child})
    stands = np.array([[[at == name for name in names] for at in child] for child in architectures], dtype=np.float64)
    effects, explained = _fits(stands, np.mean(rankings, axis=0), counts.T)
    pairs = itertools.combinations(rankings, 2)
    taus = [Redraws(*pair, counts).kendall_tau() for pair in pairs]
    agreement = metrics.means_of_known(np.reshape(taus, (-1, counts.shape[1])))
    return Worth(
        name,
        len(rankings),
        metrics.percentile_interval(float(agreement[0]), agreement[1:]),
        {
            operator: [
                metrics.percentile_interval(float(effects[0, block, place]), effects[1:, block, place])
                for block in range(stands.shape[1])
            ]
            for place, operator in enumerate(names)
        },
        metrics.percentile_interval(float(explained[0]), explained[1:]),
    )


def _fits(stands: Array, losses: Array, counts: Array) -> tuple[Array, Array]:
    """Least squares on what stands where, for every redraw of the children; NaN where the effects are not determined.

    Args:
        stands: (children, blocks, operators), 1 where the operator stands in the block.
        losses: (children,).
        counts: (redraws, children).

    Returns:
        The effects (redraws, blocks, operators) and the share of the variance that they explain (redraws,).
    """
    shares = stands.mean(axis=0)  # (blocks, operators)
    num_free = 1 + int((shares > 0).sum() - len(shares))  # a mean, and in every block all candidates but one
    design = stands.reshape(len(stands), -1)
    total = counts.sum(axis=1, keepdims=True)
    centred = losses - losses.mean()
    centred = centred - counts @ centred[:, None] / total  # (redraws, children), each around its own mean
    # The least solution of the normal equations, whose matrices hold small whole numbers: a root is 0, or far from it.
    squares = np.einsum("cp,cq->cpq", design, design).reshape(len(design), -1)
    roots, vectors = np.linalg.eigh((counts @ squares).reshape(len(counts), *2 * [design.shape[1]]))
    is_root = roots > 1e-9 * roots[:, -1:]
    sides = (vectors.transpose(0, 2, 1) @ ((counts * centred) @ design)[..., None])[..., 0]
    inverse = np.divide(sides, roots, out=np.zeros_like(sides), where=is_root)
    weights = (vectors @ inverse[..., None])[..., 0]
    determined = (is_root.sum(axis=1) >= num_free) & ((counts > 0).sum(axis=1) != num_free)
    effects = weights.reshape(-1, *shares.shape)
    # Only differences within a block are determined: here against the average of all children.
    effects = np.where(shares > 0, effects - (shares * effects).sum(axis=2, keepdims=True), math.nan)
    effects[~determined] = math.nan
    residual = centred - weights @ design.T
    residual -= (counts * residual).sum(axis=1, keepdims=True) / total
    left, whole = ((counts * values**2).sum(axis=1) for values in (residual, centred))
    differ = determined & (
        np.where(counts > 0, losses, -np.inf).max(axis=1) > np.where(counts > 0, losses, np.inf).min(axis=1)
    )
    explained = np.full(len(counts), math.nan)
    explained[differ] = 1 - left[differ] / whole[differ]
    return effects, explained
