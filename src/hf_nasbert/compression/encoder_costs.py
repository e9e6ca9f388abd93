"""What children of a base model cost, and their budgets: shares of its own costs, and what cannot be met, refused."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from hf_nasbert.compression.replace_one import Replacement, as_items, places
from hf_nasbert.costs import Budget, Cost, CostFunction, LatencyTable, cheapest, cost_function, in_digits, order_of
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.searching.knapsack import NoChoiceError, best_choices
from hf_nasbert.space import SKIP, Architecture, SearchSpace


@dataclass(frozen=True)
class EncoderCost:
    """The costs of children, of whose parameters only those of the blocks count: all others stay as they are.

    Args:
        whole: The costs of whole children.
        num_blocks: Their blocks.
    """

    whole: CostFunction
    num_blocks: int

    @classmethod
    def of(
        cls, supernet: SupernetPreTrainedModel, sequence_length: int, latency: LatencyTable | None
    ) -> "EncoderCost":
        """The costs of a super-net's children: FLOPs and memory of one sequence, latency where a table is given."""
        whole = cost_function(supernet.config, 1, sequence_length, latency, supernet.head_parameters or 0)
        return cls(whole, supernet.space.num_choice_blocks)

    def __call__(self, architecture: Architecture) -> Cost:
        """The child's costs by name."""
        costs = self.whole(architecture)
        return costs | {"num_parameters": costs["num_parameters"] - self._outside}

    def peaks(self, architecture: Architecture) -> tuple[int, ...]:
        """What orders children by their peak of memory."""
        return self.whole.peaks(architecture)

    @cached_property
    def _outside(self) -> float:
        return self.whole(Architecture((SKIP,) * self.num_blocks))["num_parameters"]


def caps_of(
    budgets: Mapping[str, Budget], cost: EncoderCost, supernet: SupernetPreTrainedModel
) -> dict[str, dict[str, float]]:
    """The caps of budgets in numbers.

    Args:
        budgets: By their names; shares are of the base model's own costs.
        cost: Costs of children.
        supernet: Whose largest child is the base model.

    Raises:
        ValueError: If the base model is within a budget as it is, or no child of the space is: names its cost.
    """
    base = cost(supernet.largest_architecture)
    found = {}
    for name, budget in budgets.items():
        numbers = budget.of(base)
        if numbers.admits(base):
            told = ", ".join(
                f"{one} {in_digits(base[one])} of at most {in_digits(cap)}" for one, cap in numbers.caps.items()
            )
            raise ValueError(f"the base model is within the budget {name} as it is ({told}): nothing to make smaller")
        for one, cap in numbers.caps.items():
            smallest = cost(_smallest(supernet.space, cost, one))[one]
            if smallest > cap:
                cap = math.floor(cap) if isinstance(smallest, int) else cap  # parameters come whole
                raise ValueError(
                    f"no child of this base model is within the budget {name}: its {one} may be at most "
                    f"{in_digits(cap)}, and the smallest there is has {in_digits(smallest)} (the base model "
                    f"{in_digits(base[one])}): allow more, or name smaller variants by heads and ffn"
                )
        if len(numbers.caps) > 1:
            _check_together(name, numbers.caps, cost, supernet)
        found[name] = numbers.caps
    return found


def _check_together(
    budget: str, caps: Mapping[str, float], cost: EncoderCost, supernet: SupernetPreTrainedModel
) -> None:
    """Refuse caps that children meet one by one and none meets together.

    Raises:
        ValueError: If there is no such child: names the smallest costs.
    """
    full = supernet.largest_architecture
    items, fixed = as_items([Replacement(*one, 0.0) for one in places(supernet.space, full)], full, cost, caps)
    summed = {name: cap for name, cap in caps.items() if name in fixed}
    try:
        best_choices(items, len(full), summed, fixed=fixed)
    except NoChoiceError as error:
        raise ValueError(f"no child of this base model is within the budget {budget}: {error}") from None


def _smallest(space: SearchSpace, cost: EncoderCost, name: str) -> Architecture:
    """The child of which a cost is the least, among those of which anything is left to train."""
    child = cheapest(space, order_of(cost, name))
    if set(child) != {SKIP}:
        return child
    with_one = [
        Architecture([*child[:block], operator, *child[block + 1 :]])
        for block, operators in enumerate(space.blocks)
        for operator in operators
        if operator != SKIP
    ]
    return min(with_one, key=lambda one: cost(one)[name])
