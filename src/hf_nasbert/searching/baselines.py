"""Searches that learn nothing from scores: what any other has to beat."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from hf_nasbert.searching.base import Search
from hf_nasbert.settings import setting
from hf_nasbert.space import Architecture


class RandomSearch(Search):
    """Draw children uniformly among all within the budget: the baseline that any other search has to beat.

    In a space too large to enumerate, under a budget that fewer than about one child in two hundred meets, they come
    from a random walk instead, and are no longer uniform.

    (Li and Talwalkar, 2019, https://arxiv.org/abs/1902.07638; Yu et al., 2020, https://arxiv.org/abs/1902.08142.)
    """

    name = "random"


@dataclass(eq=False, repr=False, kw_only=True)
class SizeMatchedRandomSearch(Search):
    """Of several random children within the budget take the largest: random search that spends what it may spend.

    Size alone orders children well, so a search that merely finds large ones looks clever beside plain random search;
    beside this one it does not. A child's size is the share of its budget that it uses, of the tightest cap. The form
    is ours: a window below the cap would need a width that fits no two spaces.

    Args:
        task: As every search; its `cost` is always needed.

    Raises:
        ValueError: If there is no cost, or none of that name.
    """

    name = "size_matched"

    num_draws: int = setting(10, "Of how many random children the largest is taken.", at_least=1)
    size: str = setting("num_parameters", "The cost that is size where nothing is capped.")

    def __post_init__(self) -> None:
        super().__post_init__()
        task = self.task
        if task.cost is None:
            raise ValueError("a search by size needs the costs of a child: give `cost`")
        known = task.cost(task.start)
        if not task.budget.caps and self.size not in known:
            raise ValueError(f"size={self.size} is none of the costs of a child: {', '.join(known)}")
        self._cost_of = task.cost

    def _propose(self) -> Iterator[Architecture]:
        while True:
            draws = (self._sample() for _ in range(50 * self.num_draws))
            new = list(islice(filter(self._is_new, draws), self.num_draws))
            if not new:
                return
            yield max(new, key=self._size_of)

    def _size_of(self, child: Architecture) -> float:
        costs, caps = self._cost_of(child), self.task.budget.caps
        return max(costs[name] / cap for name, cap in caps.items()) if caps else costs[self.size]
