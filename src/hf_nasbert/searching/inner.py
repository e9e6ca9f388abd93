"""Search on a cheap model in turn with real scores: what a front of predictions holds is scored, and taught."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hf_nasbert.searching.base import Search
from hf_nasbert.searching.evolution import mutated
from hf_nasbert.searching.predictors import better_ridge
from hf_nasbert.settings import setting
from hf_nasbert.space import Architecture


@dataclass(eq=False, repr=False, kw_only=True)
class InnerFrontSearch(Search):
    """Score some children, fit a model, search the front of its predictions by NSGA-II, score that front; and again.

    The first `population_size` children are random. Then before each batch a linear model is fitted to all scores
    (`predictors.better_ridge`), and `num_generations` of NSGA-II run on its predictions and on the costs, which ask
    for no score. The batch is what is new of all that they met, the first fronts first. (LINAS: Cummings et al., 2022,
    https://arxiv.org/abs/2205.10358, which scores its last population of 50 and takes the better of a ridge regression
    and a support-vector machine [public code]; terms for neighbours in place of the second model are ours.)

    Args:
        task: As every search; without a cost the front has one end, the child of the least prediction.
        objectives: The costs to keep low beside the loss.

    Raises:
        ValueError: If an objective is no cost.
    """

    name = "linas"

    objectives: Sequence[str] = ("num_parameters",)
    population_size: int = setting(
        50, "Children of a generation; the first one is random, and scored whole.", at_least=2
    )
    num_generations: int = setting(20, "Generations on the model's predictions between two batches.", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.objectives = () if self.task.cost is None else self.task.check_objectives(self.objectives)

    def _propose(self) -> Iterator[Architecture]:
        told = [scored for scored in self.ranking() if scored.score < math.inf]
        if len(self._scores) < self.population_size or len(told) < 2:
            yield from super()._propose()
        yield from self._evolved([scored.architecture for scored in told], [scored.score for scored in told])

    def _evolved(self, children: list[Architecture], scores: list[float]) -> list[Architecture]:
        """The new children that the inner search has met, best first."""
        model = better_ridge(self.space.blocks, children, scores)
        values: dict[Architecture, tuple[float, ...]] = {}

        def selected(found: Sequence[Architecture]) -> list[Architecture]:
            new = [child for child in dict.fromkeys(found) if child not in values]
            for child, loss in zip(new, model.predict(new) if new else (), strict=True):
                costs = {} if self.task.cost is None else self.task.cost(child)
                values[child] = (float(loss), *(float(costs[name]) for name in self.objectives))
            unique = list(dict.fromkeys(found))
            order = crowded_order(np.array([values[child] for child in unique]))
            return [unique[place] for place in order[: self.population_size]]

        population = selected(children)
        for _ in range(self.num_generations):
            offspring = [self._offspring(population) for _ in range(self.population_size)]
            population = selected([*population, *(child for child in offspring if self.task.why_not(child) is None)])
        new = [child for child in values if self._is_new(child)]
        order = crowded_order(np.array([values[child] for child in new])) if new else []
        return [new[place] for place in order]

    def _offspring(self, population: Sequence[Architecture]) -> Architecture:
        """A mutated child of two parents, each the better of two: the population stands in order."""
        a, b = (population[min(self._rng.randrange(len(population)) for _ in range(2))] for _ in range(2))
        return mutated(self.space, self.space.crossover(a, b, self._rng), self._rng, max_changes=2)


def crowded_order(values: NDArray[np.float64]) -> list[int]:
    """Points in NSGA-II's order: front by front, in each the ends first, then those with most room around them.

    Args:
        values: (points, objectives), smaller is better.
    """
    order = list[int]()
    for front in _fronts(values):
        room = np.zeros(len(front))
        for column in values[front].T:
            by_value = np.argsort(column, kind="stable")
            span = column[by_value[-1]] - column[by_value[0]] or 1.0
            room[by_value[[0, -1]]] = math.inf
            room[by_value[1:-1]] += (column[by_value[2:]] - column[by_value[:-2]]) / span
        order += front[np.argsort(-room, kind="stable")].tolist()
    return order


def _fronts(values: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """The places of the points of every front: of two objectives in n log n steps, without a table of all pairs.

    In lexicographic order whatever beats a point stands before it, so it stands on the first front that does not beat
    it. Of two objectives a front's last point has its least second value, which grows from front to front.
    """
    points, twins = np.unique(values, axis=0, return_inverse=True)
    ranks, fronts, least = np.zeros(len(points), dtype=np.intp), list[list[int]](), list[float]()
    for number, point in enumerate(points):
        if len(point) < 3:
            rank = bisect_right(least, point[-1])
        else:
            is_beaten = (bool((points[front] <= point).all(axis=1).any()) for front in fronts)
            rank = next((place for place, beaten in enumerate(is_beaten) if not beaten), len(fronts))
        if rank == len(fronts):
            fronts.append([])
            least.append(0.0)
        fronts[rank].append(number)
        ranks[number], least[rank] = rank, point[-1]
    of_point = ranks[twins.reshape(-1)]
    return np.split(np.argsort(of_point, kind="stable"), np.cumsum(np.bincount(of_point))[:-1])[: len(fronts)]
