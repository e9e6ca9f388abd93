"""Rows of children that copies of a super-net serve: by the operator in one choice block, or by size."""

import random
from collections.abc import Sequence

from hf_nasbert.costs import cheapest
from hf_nasbert.methods.base import Cost
from hf_nasbert.modeling.copies import Copies
from hf_nasbert.space import SKIP, Architecture, SearchSpace

_NUM_DRAWN = 200  # children whose sizes cut the space into classes


def operators_of(space: SearchSpace, block: int) -> tuple[str, ...]:
    """The operators that children have in a block: its candidates, without a skip that no child begins with."""
    child = next(space.enumerate())
    for stop in (block + 1, next(stage.stop for stage in space.stage_slices if block < stage.stop)):
        if Architecture([*child[:block], *(SKIP,) * (stop - block), *child[stop:]]) in space:
            return space.blocks[block]
    return tuple(name for name in space.blocks[block] if name != SKIP)


def first_choice(space: SearchSpace) -> int:
    """The first block that has a choice.

    Raises:
        ValueError: If none has.
    """
    block = next((block for block in range(space.num_choice_blocks) if len(operators_of(space, block)) > 1), None)
    if block is None:
        raise ValueError("copies serve children of a space with a choice, and this one has a single child")
    return block


def by_operator(space: SearchSpace, block: int, owners: Sequence[int], number: int) -> Copies:
    """A row for each operator of a block."""
    return Copies(number=number, owners=tuple(owners), block=block, operators=operators_of(space, block))


def size_bounds(sizes: Sequence[float], number: int) -> list[float]:
    """The smallest size of every class but the first, of equally many of these; fewer where many are of one size."""
    sizes = sorted(sizes)
    return sorted({sizes[len(sizes) * part // number] for part in range(1, number)} - {sizes[0]})


class SizeClasses:
    """Classes of children by their number of parameters, each with an equal share of children drawn at random.

    Args:
        space: The space.
        cost: A child's number of parameters.
        number: How many classes there are.

    Raises:
        ValueError: If the children have too few sizes for so many classes.
    """

    def __init__(self, space: SearchSpace, cost: Cost, number: int) -> None:
        self.cost, self.number = cost, number
        rng = random.Random("sizes of children")
        smallest, largest = cheapest(space, cost), cheapest(space, lambda child: -cost(child))
        drawn = sorted((smallest, largest, *(space.sample(rng) for _ in range(_NUM_DRAWN))), key=cost)
        self.smallest = smallest
        sizes = [self._size(child) for child in drawn]
        self.bounds = tuple(sizes[len(sizes) * part // number - 1] for part in range(1, number))
        if sorted({*self.bounds, sizes[-1]}) != [*self.bounds, sizes[-1]]:
            raise ValueError(f"the children of the space have too few sizes for {number} classes: ask for fewer")
        self.children = [[child for child in drawn if self.class_of(child) == place] for place in range(number)]
        """Children of each class, from the smallest to the largest of those that were drawn."""

    def _size(self, child: Architecture) -> int:
        return round(self.cost(child) - self.cost(self.smallest))

    def class_of(self, child: Architecture) -> int:
        """The class of a child, from 0, the smallest ones."""
        return self.copies((0,) * self.number, 1).row_of(child, self._size(child))

    def copies(self, owners: Sequence[int], number: int) -> Copies:
        """A row for each class."""
        return Copies(number=number, owners=tuple(owners), reference=str(self.smallest), bounds=self.bounds)
