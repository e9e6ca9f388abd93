"""Regularised evolution: new children are changed copies of good young ones."""

import math
import random
from collections.abc import Iterator

from hf_nasbert.search.base import Hyperparameter, Search
from hf_nasbert.search.task import SearchTask
from hf_nasbert.space import Architecture, Candidates


def mutated(space: Candidates, child: Architecture, rng: random.Random, max_changes: int) -> Architecture:
    """A child with one to `max_changes` other choice blocks, or itself where the space has no other."""
    most = min(max_changes, space.max_changes(child))
    return space.mutate(child, rng, num_changes=rng.randint(1, most)) if most else child


class RegularizedEvolution(Search):
    """Change one choice block of the best of a few, drawn from the youngest children: what is old is forgotten.

    Each new child is a mutation of the best among `tournament_size` children drawn from the last `population_size`
    that were told (Real et al., 2019, https://arxiv.org/abs/1802.01548, algorithm 1), by which the Evolved Transformer
    was found (So et al., 2019, https://arxiv.org/abs/1901.11117). A tournament of 25 is the paper's [recalled]; its
    population of 100, for tens of thousands of evaluations, is halved here, for hundreds: see docs/search.md.

    Args:
        task: As every search. Its `batch_size` are children drawn from the same population; the paper's workers draw
            one at a time.
        population_size: The youngest children; so many are random at first.
        tournament_size: Of how many children, drawn with replacement, the best has the offspring.
    """

    name = "evolution"
    hyperparameters = {
        "population_size": Hyperparameter(
            "The youngest children, of which parents are drawn; so many are random at first."
        ),
        "tournament_size": Hyperparameter("Of how many of them, drawn with replacement, the best has the offspring."),
    }

    def __init__(
        self,
        task: SearchTask,
        *,
        population_size: int = 50,
        tournament_size: int = 25,
    ) -> None:
        self.check(population_size=population_size, tournament_size=tournament_size)
        super().__init__(task)
        self.population_size = population_size
        self.tournament_size = tournament_size

    def _propose(self) -> Iterator[Architecture]:
        population = [scored for scored in self.history[-self.population_size :] if scored.score < math.inf]
        num_told = len(self._scores)
        while True:
            if num_told + len(self._pending) < self.population_size or not population:
                yield self._sample()
            else:
                tournament = self._rng.choices(population, k=self.tournament_size)
                best = min(tournament, key=lambda scored: scored.score)
                yield mutated(self.space, best.architecture, self._rng, max_changes=1)
