"""Search guided by gradient-boosted trees: score some children, predict many, score those predicted best."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hf_nasbert.searching.base import Search
from hf_nasbert.searching.evolution import mutated
from hf_nasbert.searching.predictors import columns_of, one_hot
from hf_nasbert.settings import setting
from hf_nasbert.space import Architecture

if TYPE_CHECKING:
    from lightgbm import Booster

_NUM_ROUNDS = 100
# Rate, shares and rounds are GBDT-NAS's. Its 31 leaves of at least 20 children are for a thousand children and more.
_SETTINGS = {
    "objective": "regression",
    "learning_rate": 0.05,
    "num_leaves": 8,
    "min_data_in_leaf": 3,
    "feature_fraction": 0.9,
    "bagging_fraction": 0.8,
    "bagging_freq": 5,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}


class OperatorEffect(NamedTuple):
    """By how much an operator at a choice block moves the predicted score, in the score's unit; negative is good."""

    block: int
    operator: str
    effect: float
    num_children: int


@dataclass(eq=False, repr=False, kw_only=True)
class GradientBoostedSearch(Search):
    """Fit trees to the scores so far, predict many children, score those predicted best; and again.

    The first `num_initial` children are random. Then each batch is the best predicted of `num_candidates` children
    that are not scored yet: half of them random, half changed copies of the best (all children, in a space no larger).
    Trees see which operator stands at which choice block, and the costs. (GBDT-NAS: Luo et al., 2020,
    https://arxiv.org/abs/2007.04785, in which all candidates are random.)

    Args:
        task: As every search; the trees see costs if it has them. Its `batch_size` are the children scored between
            two fits.

    Raises:
        ImportError: If LightGBM is not installed.
    """

    name = "gbdt"
    needs = ("lightgbm", "GBDT-guided search")

    num_initial: int = setting(50, "Random children before the first fit.", at_least=1)
    num_candidates: int = setting(5000, "Children predicted between two fits.", at_least=1)
    num_parents: int = setting(25, "How many of the best are copied and changed for candidates.", at_least=1)

    def __post_init__(self) -> None:
        self.check_installed()
        import lightgbm

        self._lightgbm = lightgbm
        super().__post_init__()
        self._column_of = columns_of(self.space.blocks)
        self._rows: dict[Architecture, NDArray[np.float64]] = {}  # the features of told children

    def operator_effects(self) -> list[OperatorEffect]:
        """What the scored children say of every operator at every choice block, best first.

        Trees are fitted to the operators alone, for costs would take away a part of their effect. An effect is the
        mean, over the scored children that have the operator there, of the block's share of the prediction: the sum
        of the SHAP values (Lundberg et al., 2020, https://doi.org/10.1038/s42256-019-0138-9) of all candidates of
        that block, present or absent.

        Raises:
            ValueError: If fewer than two children have a finite score.
        """
        children, scores = self._told()
        if len(children) < 2:
            raise ValueError(f"effects need two children with a finite score at least, not {len(children)}")
        rows = one_hot(children, self._column_of)
        shares = np.asarray(self._fit(rows, scores).predict(rows, pred_contrib=True))
        found = []
        for block, names in enumerate(self.space.blocks):
            columns = [self._column_of[block, (name,)] for name in names]
            of_block = shares[:, columns].sum(axis=1)
            for name, column in zip(names, columns, strict=True):
                has_it = rows[:, column] > 0
                if has_it.any():
                    found.append(OperatorEffect(block, name, float(of_block[has_it].mean()), int(has_it.sum())))
        return sorted(found, key=lambda effect: effect.effect)

    def operator_report(self) -> str:
        """The effects as a Markdown table, a row per choice block and a column per operator, in thousandths."""
        effect_of = {(effect.block, effect.operator): effect.effect for effect in self.operator_effects()}
        names = list(dict.fromkeys(name for names in self.space.blocks for name in names))
        lines = [f"| block | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
        for block in range(len(self.space.blocks)):
            cells = [f"{1000 * effect_of[block, name]:+.1f}" if (block, name) in effect_of else "" for name in names]
            lines.append(f"| {block} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def _propose(self) -> Iterator[Architecture]:
        children, scores = self._told()
        if len(self._scores) < self.num_initial or len(children) < 2:
            yield from super()._propose()
        candidates = self._candidates()
        if candidates:
            predicted = np.asarray(self._fit(self._known(children), scores).predict(self._features_of(candidates)))
            for place in np.argsort(predicted, kind="stable"):
                yield candidates[place]

    def _told(self) -> tuple[list[Architecture], list[float]]:
        finite = [scored for scored in self.history if scored.score < math.inf]
        return [scored.architecture for scored in finite], [scored.score for scored in finite]

    def _candidates(self) -> list[Architecture]:
        """Children to predict, each once, none known or over the budget."""
        if self.space.num_children <= self.num_candidates:
            return [child for child in self.space.enumerate() if self._is_new(child)]
        best = [scored.architecture for scored in self.ranking()[: self.num_parents]]
        found: dict[Architecture, None] = {}
        for draw in range(self.num_candidates):
            if draw % 2:
                found[mutated(self.space, self._rng.choice(best), self._rng, max_changes=2)] = None
            else:
                found[self._sample()] = None
        return [child for child in found if self._is_new(child)]

    def _features_of(self, children: Sequence[Architecture]) -> NDArray[np.float64]:
        rows = one_hot(children, self._column_of)
        if self.task.cost is None:
            return rows
        costs = [self.task.cost(child) for child in children]
        return np.column_stack([rows, [[one[name] for name in sorted(one)] for one in costs]])

    def _known(self, children: Sequence[Architecture]) -> NDArray[np.float64]:
        """The features of told children, each made once."""
        new = [child for child in children if child not in self._rows]
        self._rows.update(zip(new, self._features_of(new), strict=True) if new else ())
        return np.array([self._rows[child] for child in children])

    def _fit(self, rows: NDArray[np.float64], scores: Sequence[float]) -> "Booster":
        lightgbm = self._lightgbm
        data = lightgbm.Dataset(rows, np.asarray(scores))
        booster: Booster = lightgbm.train(_SETTINGS | {"seed": self.task.seed}, data, num_boost_round=_NUM_ROUNDS)
        return booster
