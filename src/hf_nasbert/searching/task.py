"""What every search is given: where to search, from which seed, what children cost and what they may cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_nasbert.costs import Budget, Cost, affordable, cheapest, order_of
from hf_nasbert.space import Architecture, Candidates, SearchSpace

MAX_ENUMERATED = 50_000
"""Children of a space that is still looked through as a whole where nothing quicker helps."""


@dataclass(frozen=True)
class SearchTask:
    """Where to search, and what no search may leave.

    Args:
        space: Where to search: a space, or listed children of one.
        seed: Seed of the search's own generator. The global `random` state is neither read nor written.
        cost: The costs of a child; needed where there is a budget. Each is to be a sum over stages and blocks
            (see `costs.cheapest`), but for the peak of memory (see `costs.order_of`).
        budget: Caps on the costs.
        batch_size: How many children to ask for at a time.

    Raises:
        ValueError: If no child is within the budget; the message names the cheapest and its cost, and
            where no cap alone is too low, the cheapest by each.
    """

    space: Candidates
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

    def check_objectives(self, names: Sequence[str]) -> tuple[str, ...]:
        """Names of costs.

        Raises:
            ValueError: If one is none of the costs of a child.
        """
        known = {} if self.cost is None else self.cost(self.start)
        for name in names:
            if name not in known:
                raise ValueError(f"objective {name} is none of the costs of a child: {', '.join(known)}")
        return tuple(names)

    def _affordable_child(self) -> Architecture:
        cost, caps = self.cost, self.budget.caps
        if cost is None or not caps:
            return self.space.child_at(0)
        self.budget.why_not(cost(self.space.child_at(0)))  # names a capped cost that is not measured
        smallest = {name: self._cheapest(order_of(cost, name)) for name in caps}
        least = {name: cost(child)[name] for name, child in smallest.items()}
        for name, cap in caps.items():
            if not least[name] <= cap:
                raise ValueError(
                    f"no child is within the budget: {name} may be at most {cap:,}, "
                    f"but that of the smallest child, {smallest[name]}, is {least[name]:,}"
                )
        for child in smallest.values():
            if self.why_not(child) is None:
                return child
        found = affordable(self.space, cost, self.budget) if isinstance(self.space, SearchSpace) else None
        if found is None and self.space.num_children <= MAX_ENUMERATED:
            found = next((child for child in self.space.enumerate() if self.why_not(child) is None), None)
        if found is None:
            reasons = (
                f"the smallest {name} is {least[name]:,}, of {child}, but its {self.why_not(child)}"
                for name, child in smallest.items()
            )
            raise ValueError(
                f"no child is within the budget: its caps can be met, but not together: {'; '.join(reasons)}"
            )
        return found

    def _cheapest(self, cost: Callable[[Architecture], Any]) -> Architecture:
        """The child of least cost; there are few enough listed ones to look through."""
        if isinstance(self.space, SearchSpace):
            return cheapest(self.space, cost)
        return min(self.space.enumerate(), key=cost)
