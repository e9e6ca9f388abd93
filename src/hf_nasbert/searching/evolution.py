"""Regularised evolution: new children are changed copies of good young ones."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from hf_nasbert.searching.base import Search
from hf_nasbert.settings import setting
from hf_nasbert.space import Architecture, Candidates


def mutated(space: Candidates, child: Architecture, rng: random.Random, max_changes: int) -> Architecture:
    """A child with one to `max_changes` other choice blocks, or itself where the space has no other."""
    most = min(max_changes, space.max_changes(child))
    return space.mutate(child, rng, num_changes=rng.randint(1, most)) if most else child


@dataclass(eq=False, repr=False, kw_only=True)
class RegularizedEvolution(Search):
    """Change one choice block of the best of a few, drawn from the youngest children: what is old is forgotten.

    Each new child is a mutation of the best among `tournament_size` children drawn from the last `population_size`
    that were told (Real et al., 2019, https://arxiv.org/abs/1802.01548, algorithm 1), by which the Evolved Transformer
    was found (So et al., 2019, https://arxiv.org/abs/1901.11117). A tournament of 25 is the paper's [recalled]; its
    population of 100, for tens of thousands of evaluations, is halved here, for hundreds: see docs/search.md.

    Args:
        task: As every search. Its `batch_size` are children drawn from the same population; the paper's workers draw
            one at a time.
    """

    name = "evolution"

    population_size: int = setting(
        50, "The youngest children, of which parents are drawn; so many are random at first.", at_least=1
    )
    tournament_size: int = setting(
        25, "Of how many of them, drawn with replacement, the best has the offspring.", at_least=1
    )

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
