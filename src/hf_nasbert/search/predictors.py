"""A linear model of scores: what every operator adds where it stands, and what every two neighbours add together."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_nasbert.space import Architecture

_PENALTIES = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)  # of the ridge; the one of least leave-one-out error is taken

Place = tuple[int, str]
"""A choice block and the operator that stands there."""


class OperatorRidge:
    """A ridge regression on which operator stands in which choice block, and which two stand in neighbouring ones.

    Additive models of this kind predict children of a chain well (LINAS: Cummings et al., 2022,
    https://arxiv.org/abs/2205.10358, in which ridge regression and a support-vector machine compete [public code]).

    Args:
        blocks: The operators of every choice block.
        has_pairs: Whether neighbours have terms of their own.
    """

    error = float("inf")
    """Mean squared leave-one-out error of the fit."""

    def __init__(self, blocks: Sequence[Sequence[str]], *, has_pairs: bool = False) -> None:
        self._starts = np.cumsum([0, *map(len, blocks)])
        self._place_of = [{name: place for place, name in enumerate(names)} for names in blocks]
        self._has_pairs = has_pairs
        sizes = [len(a) * len(b) for a, b in itertools.pairwise(blocks)] if has_pairs else []
        self._pair_starts = self._starts[-1] + np.cumsum([0, *sizes])
        self._weights = np.zeros(int(self._pair_starts[-1]))
        self.mean = 0.0  # what a child of no effects would have

    def fit(
        self, children: Sequence[Architecture], scores: Sequence[float], penalties: Sequence[float] = _PENALTIES
    ) -> "OperatorRidge":
        """Fit to finite scores of at least one child; returns itself."""
        rows, losses = self._rows(children), np.asarray(scores, dtype=np.float64)
        centre = rows.mean(axis=0)
        rows -= centre
        # The eigenvectors of the smaller of the two products; directions that no two children differ in say nothing.
        is_tall = len(rows) > rows.shape[1]
        roots, vectors = np.linalg.eigh(rows.T @ rows if is_tall else rows @ rows.T)
        is_seen = roots > 1e-9 * max(roots[-1], 1e-9)
        roots, vectors = roots[is_seen], vectors[:, is_seen]
        if not is_tall:
            vectors = rows.T @ vectors / np.sqrt(roots)
        turned = rows @ vectors
        residual = losses - losses.mean()
        for penalty in penalties:
            found = (turned.T @ residual) / (roots + penalty)
            leverage = 1 / len(losses) + turned**2 @ (1 / (roots + penalty))
            left = (residual - turned @ found) / np.maximum(1 - leverage, 1e-9)
            if (error := float(np.mean(left**2))) < self.error:
                self.error, self._weights = error, vectors @ found
        self.mean = float(losses.mean() - centre @ self._weights)
        return self

    def predict(self, children: Sequence[Architecture]) -> NDArray[np.float64]:
        """The predicted scores of children: (children,)."""
        found: NDArray[np.float64] = self._weights[self._columns(children)].sum(axis=1) + self.mean
        return found

    def effect(self, block: int, name: str) -> float:
        """What an operator adds in a block."""
        return float(self._weights[self._starts[block] + self._place_of[block][name]])

    def pair_effect(self, block: int, name: str, behind: str) -> float:
        """What an operator in a block and another one in the next block add together, beside what each adds."""
        if not self._has_pairs:
            return 0.0
        places = self._place_of[block][name], self._place_of[block + 1][behind]
        return float(self._weights[self._pair_starts[block] + places[0] * len(self._place_of[block + 1]) + places[1]])

    def _columns(self, children: Sequence[Architecture]) -> NDArray[Any]:
        """Which features each child has: (children, features of one)."""
        shape = (len(children), len(self._place_of))
        names = [[self._place_of[block][name] for block, name in enumerate(child)] for child in children]
        places = np.array(names, dtype=np.intp).reshape(shape)
        columns: NDArray[Any] = places + self._starts[:-1]
        if not self._has_pairs:
            return columns
        behind = np.array([len(names) for names in self._place_of[1:]], dtype=np.intp)
        return np.hstack([columns, places[:, :-1] * behind + places[:, 1:] + self._pair_starts[:-1]])

    def _rows(self, children: Sequence[Architecture]) -> NDArray[np.float64]:
        rows = np.zeros((len(children), len(self._weights)))
        np.put_along_axis(rows, self._columns(children), 1, axis=1)
        return rows


def better_ridge(
    blocks: Sequence[Sequence[str]], children: Sequence[Architecture], scores: Sequence[float]
) -> OperatorRidge:
    """The model without pairs, or with them where that predicts a child left out better: where additivity fails."""
    models = (OperatorRidge(blocks, has_pairs=has_pairs).fit(children, scores) for has_pairs in (False, True))
    return min(models, key=lambda model: model.error)
