"""What operators add to a score, block by block: one ridge regression on few children, which then ranks all others."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_nasbert.space import Architecture

Array = NDArray[np.float64]
Place = tuple[int, tuple[str, ...]]
"""A choice block, and the operator that stands there, or the one there and the one in the next block."""

PENALTY = 1.0
"""The ridge's weight on squared coefficients: that of the pilot, by which our figures of adaptation are made."""
FEW_PENALTIES = (1.0, 3.0, 10.0)
"""Weights to choose from, where children are a few dozen: what they say of it is noisy."""
PENALTIES = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
"""Weights to choose from, where children are many enough to tell."""
_BROKEN = 10.0  # standard deviations behind the mean


def columns_of(blocks: Sequence[Sequence[str]], *, has_pairs: bool = False) -> dict[Place, int]:
    """A number for every operator at every choice block, and if wanted for every two in neighbouring ones."""
    choices: list[Iterable[tuple[Sequence[str], ...]]] = [zip(blocks, strict=True)]
    choices += [itertools.pairwise(blocks)] if has_pairs else []
    places = [(b, names) for each in choices for b, one in enumerate(each) for names in itertools.product(*one)]
    return {place: column for column, place in enumerate(places)}


def columns_in(
    children: Sequence[Sequence[str]], columns: Mapping[Place, int], has_pairs: bool = False
) -> NDArray[np.intp]:
    """Which columns each child has: (children, columns of one)."""
    found = [
        [columns[place] for place in enumerate(zip(child, strict=True))]
        + [columns[place] for place in enumerate(itertools.pairwise(child) if has_pairs else ())]
        for child in children
    ]
    return np.array(found, dtype=np.intp).reshape(len(children), -1 if children else 0)


def one_hot(children: Sequence[Sequence[str]], columns: Mapping[Place, int], *, has_pairs: bool = False) -> Array:
    """Which operator stands at which block: (children, columns), 1 where it does."""
    rows = np.zeros((len(children), len(columns)))
    np.put_along_axis(rows, columns_in(children, columns, has_pairs), 1, axis=1)
    return rows


def shared_by(columns: Mapping[Place, int]) -> Array:
    """Which columns are of the same operator, or the same two, wherever they stand: (columns, operators and pairs)."""
    groups = {names: number for number, names in enumerate(dict.fromkeys(names for _, names in columns))}
    found = np.zeros((len(columns), len(groups)))
    for (_, names), column in columns.items():
        found[column, groups[names]] = 1
    return found


class _Fit(NamedTuple):
    """A ridge of one penalty: its leave-one-out error, and by child what all others predict of it."""

    error: float
    weights: Array
    slope: float
    left_out: Array


class OperatorRidge:
    """A child's score as a sum: a mean, what each operator adds at its block, what neighbours and a feature add.

    Fitted to thirty children it ranks a space of hundreds, if what an operator is worth depends little on others. A
    ridge, for there are hardly more children than columns. With a shared part, an operator's effect at a block is the
    sum of what it adds anywhere and of how much this block differs: so a few dozen children, which show an operator at
    a block once or twice, say of that block what they say of the operator elsewhere. Hundreds need no such help.
    Models of this kind predict children of a chain well (LINAS: Cummings et al., 2022,
    https://arxiv.org/abs/2205.10358, in which ridge regression and a support-vector machine compete [public code]);
    its use on adapted children, and the shared part, are ours.

    Args:
        blocks: The candidates of every choice block.
        has_pairs: Whether neighbours have terms of their own.
        has_shared: Whether operators have a part that all blocks share, and pairs likewise.
        penalties: Weights of the squared coefficients; the one of least leave-one-out error is taken.
    """

    error = math.inf
    """Mean squared leave-one-out error of the fit."""
    mean = math.nan
    """What a child of no effects would have."""

    def __init__(
        self,
        blocks: Sequence[Sequence[str]],
        *,
        has_pairs: bool = False,
        has_shared: bool = False,
        penalties: Sequence[float] = (PENALTY,),
    ) -> None:
        self.has_pairs, self._penalties = has_pairs, penalties
        self._columns = columns_of(blocks, has_pairs=has_pairs)
        self._shared = shared_by(self._columns) if has_shared else np.zeros((len(self._columns), 0))
        self._weights, self._slope = np.zeros(0), 0.0
        self._left_out: dict[tuple[str, ...], float] = {}

    def fit(
        self, children: Sequence[Sequence[str]], scores: Sequence[float], feature: ArrayLike | None = None
    ) -> Self:
        """Learn from children whose scores are known; those without a finite one say nothing.

        Args:
            children: The children.
            scores: One each.
            feature: Another score of each, (children,), lower is better. A line through it is fitted without a
                penalty; where that line falls, the feature is left out.

        Raises:
            ValueError: If no score is finite.
        """
        values = np.asarray(scores, dtype=np.float64)
        known = np.isfinite(values)
        if not known.any():
            raise ValueError(f"none of {len(children)} children has a finite loss: there is nothing to fit")
        places, values = one_hot(children, self._columns, has_pairs=self.has_pairs)[known], values[known]
        rows = np.column_stack([places, places @ self._shared])
        line = np.zeros(len(values)) if feature is None else np.asarray(feature, dtype=np.float64)[known]
        found = self._best_fit(rows, values, line)
        if found.slope < 0:
            line = np.zeros(len(values))
            found = self._best_fit(rows, values, line)
        own, shared = np.split(found.weights, [len(self._columns)])
        self.error, self._slope, self._weights = found.error, found.slope, own + self._shared @ shared
        self.mean = float(np.mean(values - places @ self._weights - self._slope * line))
        seen = (tuple(child) for child, is_known in zip(children, known, strict=True) if is_known)
        self._left_out = dict(zip(seen, found.left_out.tolist(), strict=True))
        return self

    def _best_fit(self, rows: Array, values: Array, line: Array) -> _Fit:
        """Mean, slope of the line, and a ridge on what they leave: by the penalty of least leave-one-out error."""
        line = line - line.mean()
        length = float(np.linalg.norm(line))
        has_line = length > 1e-9
        # Mean and line are projected out: (children, 1 or 2), orthonormal.
        free = np.column_stack([np.full(len(rows), len(rows) ** -0.5), *([line / length] if has_line else [])])
        rest, residual = rows - free @ (free.T @ rows), values - free @ (free.T @ values)
        # The eigenvectors of the smaller of the two products; directions that no two children differ in say nothing.
        is_tall = len(rest) > rest.shape[1]
        roots, vectors = np.linalg.eigh(rest.T @ rest if is_tall else rest @ rest.T)
        is_seen = roots > 1e-9 * max(roots[-1], 1e-9)
        roots, vectors = roots[is_seen], vectors[:, is_seen]
        if not is_tall:
            vectors = rest.T @ vectors / np.sqrt(roots)
        turned, fits = rest @ vectors, []
        for penalty in self._penalties:
            found = (turned.T @ residual) / (roots + penalty)
            leverage = np.sum(free**2, axis=1) + turned**2 @ (1 / (roots + penalty))
            left = (residual - turned @ found) / np.maximum(1 - leverage, 1e-9)
            weights = vectors @ found
            slope = float(line @ (values - rows @ weights)) / length**2 if has_line else 0.0
            fits.append(_Fit(float(np.mean(left**2)), weights, slope, values - left))
        return min(fits, key=lambda fit: fit.error)

    def predict(self, children: Sequence[Sequence[str]], feature: ArrayLike | None = None) -> list[float]:
        """The scores of any children of the space; arguments as of `fit`."""
        found = self._weights[columns_in(children, self._columns, self.has_pairs)].sum(axis=1) + self.mean
        known: list[float] = (found if feature is None else found + self._slope * np.asarray(feature)).tolist()
        return known

    def predict_left_out(self, children: Sequence[Sequence[str]]) -> list[float]:
        """As `predict`, but a child that it was fitted to is predicted by all others: so a ranking's error shows."""
        predicted = zip(children, self.predict(children), strict=True)
        return [self._left_out.get(tuple(child), score) for child, score in predicted]

    @property
    def effects(self) -> dict[Place, float]:
        """What every operator adds at its block, against the others there, and every pair beside; negative is good."""
        return {place: float(self._weights[column]) for place, column in self._columns.items()}


def shared_ridge(blocks: Sequence[Sequence[str]]) -> OperatorRidge:
    """The model that ranks a whole space by a few dozen children, or fewer.

    On our tables its order is by far the better one; the child that it puts first is not (docs/evidence.md).
    """
    return OperatorRidge(blocks, has_shared=True, penalties=FEW_PENALTIES)


def better_ridge(
    blocks: Sequence[Sequence[str]], children: Sequence[Architecture], scores: Sequence[float]
) -> OperatorRidge:
    """The model without pairs, or with them where that predicts a child left out better: where additivity fails."""
    models = (OperatorRidge(blocks, has_pairs=pairs, penalties=PENALTIES) for pairs in (False, True))
    return min((model.fit(children, scores) for model in models), key=lambda model: model.error)


Predict = Callable[[Sequence[Architecture]], Sequence[float]]
"""Predicts the losses of children; or looks them up."""


def calibrated(
    blocks: Sequence[Sequence[str]],
    trained: Mapping[Architecture, float],
    score: Predict,
    reference: Sequence[Architecture],
) -> Predict:
    """What children would reach, by a score of each and by a few that were really trained: a line and a ridge.

    Args:
        blocks: The candidates of every choice block.
        trained: Children with the losses that they reached.
        score: What is known of any child: the super-net's loss, or another prediction.
        reference: Children by whose scores those of all are brought to a common scale, as a ridge needs it.
    """
    scores = np.asarray(score(reference), dtype=np.float64)
    scores = scores[np.isfinite(scores)]
    centre, spread = (scores.mean(), scores.std()) if len(scores) else (0.0, 0.0)

    def feature(children: Sequence[Architecture]) -> Array:
        values = np.asarray(score(children), dtype=np.float64) - centre
        # One without a finite score is as bad as none that has one.
        return np.nan_to_num(values / (spread or 1.0), nan=_BROKEN, posinf=_BROKEN)

    children = list(trained)
    model = shared_ridge(blocks).fit(children, list(trained.values()), feature(children))
    return lambda children: model.predict(children, feature(children))
