"""What operators add to a loss, block by block: one ridge regression on few children, which then ranks all others."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_nasbert.space import Architecture

Array = NDArray[np.float64]

PENALTY = 1.0
"""The ridge's weight on squared coefficients: that of the pilot, by which all our figures are made."""
_BROKEN = 10.0  # standard deviations behind the mean


def columns_of(blocks: Sequence[Sequence[str]]) -> dict[tuple[int, str], int]:
    """A number for every operator at every choice block."""
    return {
        place: column for column, place in enumerate((b, name) for b, names in enumerate(blocks) for name in names)
    }


def one_hot(children: Sequence[Sequence[str]], columns: Mapping[tuple[int, str], int]) -> Array:
    """Which operator stands at which block: (children, columns), 1 where it does."""
    rows = np.zeros((len(children), len(columns)))
    found = [columns[place] for child in children for place in enumerate(child)]
    np.put_along_axis(rows, np.reshape(found, (len(children), -1)), 1, axis=1)
    return rows


class AdditiveModel:
    """A child's loss as a sum: a mean, what each operator adds at its block, and a share of every further feature.

    Fitted to thirty children it ranks a space of hundreds; what an operator is worth must not depend on its
    neighbours. A ridge, for there are hardly more children than columns. (Ours.)

    Args:
        blocks: The candidates of every choice block.
        penalty: Weight of the squared coefficients.
    """

    def __init__(self, blocks: Sequence[Sequence[str]], *, penalty: float = PENALTY) -> None:
        self._columns = columns_of(blocks)
        self._penalty = penalty
        self._mean = math.nan
        self._centre: Array = np.zeros(0)
        self._weights: Array = np.zeros(0)

    def fit(
        self, children: Sequence[Sequence[str]], losses: Sequence[float], features: ArrayLike | None = None
    ) -> Self:
        """Learn from children whose losses are known; those without a finite loss say nothing.

        Args:
            children: The children.
            losses: One each.
            features: What else is known of each, (children,) or (children, features), of about unit spread.

        Raises:
            ValueError: If no loss is finite.
        """
        known = np.isfinite(np.asarray(losses, dtype=np.float64))
        if not known.any():
            raise ValueError(f"none of {len(children)} children has a finite loss: there is nothing to fit")
        rows, values = self._rows(children, features)[known], np.asarray(losses, dtype=np.float64)[known]
        self._mean, self._centre = float(values.mean()), rows.mean(axis=0)
        rows = rows - self._centre
        squares = rows.T @ rows + self._penalty * np.eye(rows.shape[1])
        self._weights = np.asarray(np.linalg.solve(squares, rows.T @ (values - self._mean)), dtype=np.float64)
        return self

    def predict(self, children: Sequence[Sequence[str]], features: ArrayLike | None = None) -> list[float]:
        """The losses of any children of the space; arguments as of `fit`."""
        predicted = self._mean + (self._rows(children, features) - self._centre) @ self._weights
        return [float(loss) for loss in predicted]

    @property
    def effects(self) -> dict[tuple[int, str], float]:
        """What every operator adds at its block, against the others there; negative is good."""
        return {place: float(self._weights[column]) for place, column in self._columns.items()}

    def _rows(self, children: Sequence[Sequence[str]], features: ArrayLike | None) -> Array:
        rows = one_hot(children, self._columns)
        if features is None:
            return rows
        return np.column_stack([rows, np.asarray(features, dtype=np.float64).reshape(len(children), -1)])


Predict = Callable[[Sequence[Architecture]], Sequence[float]]
"""Foretells the losses of children; or looks them up."""


def calibrated(
    blocks: Sequence[Sequence[str]],
    trained: Mapping[Architecture, float],
    score: Predict,
    reference: Sequence[Architecture],
) -> Predict:
    """What children would reach, by a score of each and by a few that were really trained: one ridge on both.

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
    model = AdditiveModel(blocks).fit(children, list(trained.values()), feature(children))
    return lambda children: model.predict(children, feature(children))
