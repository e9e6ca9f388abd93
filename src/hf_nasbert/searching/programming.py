"""Search by integer programs: a model of the scores, and the children that are best by it, found exactly."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from hf_nasbert.searching.base import Search
from hf_nasbert.searching.knapsack import Item, NoChoiceError, Rule, best_choices
from hf_nasbert.searching.predictors import OperatorRidge, better_ridge
from hf_nasbert.settings import setting
from hf_nasbert.space import SKIP, Architecture, FreeStage, SearchSpace, operator_width

_MAX_ENUMERATED = 5000  # children of a space that are all predicted: the same choice, and sooner
_MAX_FORBIDDEN = 200  # known children that a program is told to pass over; another one costs it a round


@dataclass(eq=False, repr=False, kw_only=True)
class KnapsackSearch(Search):
    """Fit what every operator adds to the loss, solve for the best sum within the budget, score it; and again.

    The first `num_initial` children are random. Before each batch a linear model is fitted, with terms for neighbours
    where additivity fails (`predictors.better_ridge`), and an integer program finds the `num_solved` children that it
    predicts to be best and that are not scored (`knapsack.best_choices`); their neighbours predicted best fill the
    batch. A space of few children needs no program: all are predicted. (One program over scores of blocks: Puzzle,
    Bercovich et al., 2024, https://arxiv.org/abs/2411.19146; a model fitted to whole children, pairs and turns, ours.)

    Costs enter the program as a linear fit to those of random children, which is exact where they are sums over the
    blocks. A child that is over the budget all the same is passed over.
    """

    name = "knapsack"

    num_initial: int = setting(50, "Random children before the first fit.", at_least=1)
    num_solved: int = setting(4, "Children that an integer program gives for each batch.", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._costs = self._fit_costs()

    def _fit_costs(self) -> dict[str, OperatorRidge]:
        """A linear model of every capped cost."""
        cost, caps = self.task.cost, self.task.budget.caps
        if cost is None or not caps:
            return {}
        blocks = self.space.blocks
        children = [self._sample() for _ in range(4 * sum(map(len, blocks)))]
        known = [cost(child) for child in children]
        ridge = partial(OperatorRidge, blocks, penalties=(1e-7,))
        return {name: ridge().fit(children, [one[name] for one in known]) for name in caps}

    def _propose(self) -> Iterator[Architecture]:
        told = [scored for scored in self.ranking() if scored.score < math.inf]
        if len(self._scores) < self.num_initial or len(told) < 2:
            yield from super()._propose()
        model = better_ridge(self.space.blocks, [one.architecture for one in told], [one.score for one in told])
        if isinstance(self.space, SearchSpace) and self.space.num_children > _MAX_ENUMERATED:
            solved = self._solve(self.space, model)
            yield from solved
            starts = solved or [told[0].architecture]
            children = list(dict.fromkeys(near for child in starts for near in self.space.neighbours(child)))
        else:
            children = [child for child in self.space.enumerate() if self._is_new(child)]
        yield from (children[place] for place in np.argsort(model.predict(children), kind="stable"))

    def _solve(self, space: SearchSpace, model: OperatorRidge) -> list[Architecture]:
        """The children of least prediction within the budget that are not scored, as the program sees both."""
        costs = {cap: fit.effects for cap, fit in self._costs.items()}
        items, pairs, number = list[Item](), dict[tuple[int, int], float](), dict[tuple[int, str], int]()
        for (block, names), effect in model.effects.items():
            if len(names) == 1:
                number[block, names[0]] = len(items)
                items.append(Item(block, names, effect, {cap: of[block, names] for cap, of in costs.items()}))
            elif effect:
                pairs[number[block, names[0]], number[block + 1, names[1]]] = effect
        known = sorted(self._scores, key=self._scores.__getitem__)[:_MAX_FORBIDDEN]
        try:
            choices = best_choices(
                items,
                len(space.blocks),
                {name: cap * (1 + 1e-6) for name, cap in self.task.budget.caps.items()},  # the fit is that exact
                fixed={name: fit.mean for name, fit in self._costs.items()},
                num_choices=self.num_solved,
                pairs=pairs,
                rules=list(_rules(space, number)),
                forbidden=[*known, *self._pending],
            )
        except NoChoiceError:  # all of them are known, or the linear costs leave none
            return []
        return [choice.architecture for choice in choices if space.why_not(choice.architecture) is None]


def _rules(space: SearchSpace, number: dict[tuple[int, str], int]) -> Iterator[Rule]:
    """What makes a choice of operators a child: skips at a stage's end only, and one width in every stage."""
    for stage, where in zip(space.stages, space.stage_slices, strict=True):
        if isinstance(stage, FreeStage):
            continue
        for block in range(where.start, where.stop):
            skip, after = number.get((block, SKIP)), number.get((block + 1, SKIP))
            is_last = block + 1 == where.stop
            if skip is not None and (block == where.start or not is_last):
                ends = {} if block == where.start or after is None else {after: -1.0}
                yield {skip: 1.0} | ends, 0.0
            for width in stage.widths if not is_last else ():
                here, there = (
                    {
                        number[at, name]: 1.0
                        for name in space.blocks[at]
                        if operator_width(name) == width and name != SKIP
                    }
                    for at in (block, block + 1)
                )
                yield there | dict.fromkeys(here, -1.0), 0.0
