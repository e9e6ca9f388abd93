"""What every search is given: where to search, from which seed, what children cost and what they may cost."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hf_nasbert.costs import Budget, Cost, cheapest
from hf_nasbert.space import Architecture, SearchSpace

MAX_ENUMERATED = 50_000
"""Children of a space that is still looked through as a whole where nothing quicker helps."""


@dataclass(frozen=True)
class SearchTask:
    """Where to search, and what no search may leave.

    Args:
        space: Where to search.
        seed: Seed of the search's own generator. The global `random` state is neither read nor written.
        cost: The costs of a child; needed where there is a budget. Each is to be a sum over stages and blocks (see
            `costs.cheapest`), as parameters, FLOPs and tabled latencies are.
        budget: Caps on the costs.
        batch_size: How many children to ask for at a time.

    Raises:
        ValueError: If no child is within the budget; the message names the cheapest and its cost.
    """

    space: SearchSpace
    seed: int = field(kw_only=True)
    cost: Callable[[Architecture], Cost] | None = field(default=None, kw_only=True)
    budget: Budget = field(default=Budget(), kw_only=True)
    batch_size: int = field(default=50, kw_only=True)
    start: Architecture = field(init=False, compare=False)
    """Some child within the budget, found without scoring anything."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {self.batch_size}")
        if self.budget.caps and self.cost is None:
            raise ValueError(
                f"a budget that caps {', '.join(self.budget.caps)} needs the costs of a child: give `cost`"
            )
        object.__setattr__(self, "start", self._affordable_child())

    @property
    def described(self) -> dict[str, Any]:
        """What it is, as plain JSON, but for the costs, which no JSON holds."""
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "budget": self.budget.caps,
            "space": self.space.to_dict(),
        }

    def why_not(self, child: Architecture) -> str | None:
        """Which cap a child exceeds, in words, or None."""
        return None if self.cost is None or not self.budget.caps else self.budget.why_not(self.cost(child))

    def _affordable_child(self) -> Architecture:
        cost, caps = self.cost, self.budget.caps
        if cost is None or not caps:
            return self.space.child_at(0)
        self.budget.why_not(cost(self.space.child_at(0)))  # names a capped cost that is not measured
        corners = []
        for name, cap in caps.items():
            corner = cheapest(self.space, partial(_one_cost, cost, name))
            least = cost(corner)[name]
            if not least <= cap:
                raise ValueError(
                    f"no child is within the budget: {name} may be at most {cap:,}, "
                    f"but that of the smallest child, {corner}, is {least:,}"
                )
            corners.append(corner)

        def excess(child: Architecture) -> float:
            costs = cost(child)
            return max(costs[name] / cap for name, cap in caps.items())

        # Each cap alone can be met. To meet them together, go downhill from the corners.
        child = min(corners, key=excess)
        while excess(child) > 1:
            step = min(self.space.neighbours(child), key=excess, default=child)
            if excess(step) >= excess(child):
                break
            child = step
        if excess(child) > 1 and self.space.num_children <= MAX_ENUMERATED:
            child = min(self.space.enumerate(), key=excess)
        if excess(child) > 1:
            raise ValueError(f"found no child within the budget {caps}: the nearest, {child}, costs {cost(child)}")
        return child


def _one_cost(cost: Callable[[Architecture], Cost], name: str, child: Architecture) -> float:
    return cost(child)[name]
