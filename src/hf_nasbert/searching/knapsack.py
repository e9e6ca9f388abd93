"""The best sum under caps, exactly: one variant per choice block, or one item over several blocks.

An integer program: binary x_r for every item; minimise the sum of losses, cover every block once, keep every cost
within its cap (Puzzle, https://arxiv.org/abs/2411.19146). HiGHS, by `scipy.optimize.milp`, solves it; costs and losses
are added up again afterwards, and the next best solutions follow by forbidding those found.

Where losses are no sum, pairs of items add a loss of their own: y_rs, which is 1 where both are chosen, as the rows
sum_s y_rs = x_r and sum_r y_rs = x_s say for the items of two blocks.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hf_nasbert.costs import in_digits
from hf_nasbert.space import Architecture

Rule = tuple[Mapping[int, float], float]
"""Coefficients by the places of items, and what their sum over the chosen ones may be at most."""

_LARGEST_LOSS = 1e4  # losses are scaled to this: the solver takes totals within 1e-6 for equal


class NoChoiceError(ValueError):
    """Nothing is within the caps, keeps to the rules and is not forbidden."""


@dataclass(frozen=True)
class Item:
    """One thing to choose: operators for one or several neighbouring blocks.

    Args:
        first_block: The first block that it is for.
        operators: The operators, one per block.
        loss: What it adds to the loss.
        costs: What it adds to each cost, by name; may be negative, as what a variant saves.
    """

    first_block: int
    operators: tuple[str, ...]
    loss: float
    costs: Mapping[str, float] = field(default_factory=dict)

    @property
    def blocks(self) -> range:
        """The blocks that it covers."""
        return range(self.first_block, self.first_block + len(self.operators))


@dataclass(frozen=True)
class Choice:
    """A solution: the architecture, the sum of the losses of its items and their pairs, its costs and the items."""

    architecture: Architecture
    loss: float
    costs: dict[str, float]
    items: tuple[Item, ...]


def best_choices(
    items: Sequence[Item],
    num_blocks: int,
    caps: Mapping[str, float],
    *,
    fixed: Mapping[str, float] | None = None,
    num_choices: int = 1,
    pairs: Mapping[tuple[int, int], float] | None = None,
    rules: Sequence[Rule] = (),
    forbidden: Iterable[Architecture] = (),
) -> list[Choice]:
    """The choices of least loss within all caps, best first.

    No two are the same architecture: where an item covers several blocks, its operators are not chosen one by one as
    well, since it says what they cost together.

    Args:
        items: What there is to choose from.
        num_blocks: Blocks of an architecture; every one is covered exactly once.
        caps: Largest costs, by name.
        fixed: What every architecture costs beside its items (embeddings, or the whole model that items save from).
        num_choices: How many to give; fewer come back where there are no more.
        pairs: What two items add together, beside what each adds; by their places among the items.
        rules: What else a choice has to keep to.
        forbidden: Architectures that are not to be given; of items for one block each.

    Raises:
        NoChoiceError: If nothing is within the caps: names the smallest cost there is.
        ValueError: If a block has no item, an item
            lies outside of the blocks or lacks a capped cost, a number is not finite, or a pair is not of items for
            one block each, the first one's block before the second one's.
    """
    fixed = dict.fromkeys(caps, 0.0) | dict(fixed or {})
    pairs = dict(pairs or {})
    _check(items, num_blocks, caps, num_choices)
    _check_pairs(items, pairs)
    solver = _Solver(items, num_blocks, caps, fixed, pairs)
    solver.keep_to(rules, forbidden)
    choices: list[Choice] = []
    while len(choices) < num_choices:
        found = solver.next()
        if found is None:
            break
        # Within the solver's tolerance a cap may be exceeded by a little: such a solution is only forbidden.
        is_new = found.architecture not in [choice.architecture for choice in choices]
        if is_new and all(found.costs[name] <= cap for name, cap in caps.items()):
            choices.append(found)
    if not choices:
        raise NoChoiceError(_why_none(items, num_blocks, caps, fixed))
    # Equal but for the solver's tolerance they may come in another order.
    return sorted(choices, key=lambda choice: choice.loss)


def _check(items: Sequence[Item], num_blocks: int, caps: Mapping[str, float], num_choices: int) -> None:
    if num_choices < 1:
        raise ValueError(f"num_choices={num_choices} must be at least 1")
    for name, cap in caps.items():
        if not math.isfinite(cap):
            raise ValueError(f"the cap of {name} must be a finite number, not {cap}")
    for item in items:
        if not item.operators or item.first_block < 0 or item.blocks.stop > num_blocks:
            raise ValueError(f"{_shown(item)} lies outside of the {num_blocks} blocks")
        missing = [name for name in caps if name not in item.costs]
        if missing:
            raise ValueError(f"{_shown(item)} has no {missing[0]}, which is capped: it has {sorted(item.costs)}")
        if not all(math.isfinite(number) for number in (item.loss, *(item.costs[name] for name in caps))):
            raise ValueError(f"{_shown(item)} has a loss or a cost that is not finite")
    empty = set(range(num_blocks)) - {block for item in items for block in item.blocks}
    if empty:
        raise ValueError(f"block {min(empty)} has no item")


def _check_pairs(items: Sequence[Item], pairs: Mapping[tuple[int, int], float]) -> None:
    for (first, second), loss in pairs.items():
        blocks = [items[place].blocks for place in (first, second)]
        if blocks[0].stop > blocks[1].start or any(len(each) > 1 for each in blocks):
            raise ValueError(
                f"{_shown(items[first])} and {_shown(items[second])} are no pair: expected items for one block each, "
                "the first one's block before the second one's"
            )
        if not math.isfinite(loss):
            raise ValueError(f"the loss of {_shown(items[first])} with {_shown(items[second])} is not finite")


def _shown(item: Item) -> str:
    return f"the item {'-'.join(item.operators)} of block {item.first_block}"


class _Solver:
    """One integer program after the other, each without the solutions of those before it."""

    def __init__(
        self,
        items: Sequence[Item],
        num_blocks: int,
        caps: Mapping[str, float],
        fixed: Mapping[str, float],
        pairs: Mapping[tuple[int, int], float],
    ) -> None:
        self._items, self._num_blocks, self._fixed, self._pairs = items, num_blocks, fixed, pairs
        self._losses = [item.loss for item in items]
        # Rows of (coefficients by item, lowest sum, highest sum).
        self._rows: list[tuple[dict[int, float], float, float]] = []
        for block in range(num_blocks):
            self._rows.append(({index: 1 for index, item in enumerate(items) if block in item.blocks}, 1, 1))
        for name, cap in caps.items():
            left = cap - fixed[name]
            unit = max(abs(left), *(abs(item.costs[name]) for item in items)) or 1
            self._rows.append(
                ({index: item.costs[name] / unit for index, item in enumerate(items)}, -math.inf, left / unit)
            )
        self._rows += [*self._singles_of_several(), *self._rows_of_pairs()]
        scale = max(map(abs, self._losses), default=0) or 1
        self._losses = [loss / scale * _LARGEST_LOSS for loss in self._losses]

    def _rows_of_pairs(self) -> Iterator[tuple[dict[int, float], float, float]]:
        """Rows by which one pair of two blocks is chosen, that of their chosen items; adds a column for every pair."""
        tables = dict.fromkeys(
            (self._items[first].first_block, self._items[second].first_block) for first, second in self._pairs
        )
        for blocks in tables:
            sides = [[place for place, item in enumerate(self._items) if block in item.blocks] for block in blocks]
            columns = {}
            for pair in itertools.product(sides[0], sides[1]):
                covers_both = any(set(blocks) <= set(self._items[place].blocks) for place in pair)
                if covers_both == (pair[0] == pair[1]):  # an item of both blocks goes with itself
                    columns[pair] = len(self._losses)
                    self._losses.append(self._pairs.get(pair, 0.0))
            for side, places in enumerate(sides):
                for place in places:
                    row = {column: 1.0 for pair, column in columns.items() if pair[side] == place}
                    yield row | {place: -1.0}, 0.0, 0.0

    def keep_to(self, rules: Sequence[Rule], forbidden: Iterable[Architecture]) -> None:
        """Add rules, and architectures that are not to be found."""
        self._rows += [(dict(numbers), -math.inf, highest) for numbers, highest in rules]
        place = {(item.first_block, item.operators): index for index, item in enumerate(self._items)}
        for child in forbidden:
            parts = [place[block, (name,)] for block, name in enumerate(child) if (block, (name,)) in place]
            if len(parts) == self._num_blocks:
                self._rows.append((dict.fromkeys(parts, 1.0), -math.inf, float(self._num_blocks - 1)))

    def _singles_of_several(self) -> list[tuple[dict[int, float], float, float]]:
        """Rows that forbid to put an item of several blocks together from items of one."""
        place = {(item.first_block, item.operators): index for index, item in enumerate(self._items)}
        rows = []
        for item in self._items:
            parts = [((block, (name,))) for block, name in zip(item.blocks, item.operators, strict=True)]
            if len(parts) > 1 and all(part in place for part in parts):
                rows.append(({place[part]: 1.0 for part in parts}, -math.inf, float(len(parts) - 1)))
        return rows

    def next(self) -> Choice | None:
        """The best solution that was not found before; None if there is none."""
        import numpy as np
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        places = [(row, column) for row, (numbers, _, _) in enumerate(self._rows) for column in numbers]
        numbers = [number for row, _, _ in self._rows for number in row.values()]
        shape = (len(self._rows), len(self._losses))
        indices = np.array(places)
        matrix = csr_array((numbers, (indices[:, 0], indices[:, 1])), shape=shape)
        lowest, highest = ([row[side] for row in self._rows] for side in (1, 2))
        result = milp(
            np.array(self._losses),
            constraints=LinearConstraint(matrix, lowest, highest),
            integrality=(np.arange(len(self._losses)) < len(self._items)).astype(int),  # pairs follow from their items
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": 0.0},
        )
        if result.status == 2:  # infeasible
            return None
        if result.x is None:
            raise ValueError(f"the solver found no choice ({' '.join(str(result.message).split())})")
        chosen = [index for index, share in enumerate(result.x[: len(self._items)]) if share > 0.5]
        self._rows.append((dict.fromkeys(chosen, 1.0), -math.inf, float(len(chosen) - 1)))
        return self._as_choice(chosen)

    def _as_choice(self, chosen: Sequence[int]) -> Choice:
        items = sorted((self._items[index] for index in chosen), key=lambda item: item.first_block)
        covered = [block for item in items for block in item.blocks]
        assert covered == list(range(self._num_blocks)), "the solver covered a block twice or not at all"
        pairs = itertools.permutations(chosen, 2)
        names = set.intersection(*(set(item.costs) for item in items)) & set(self._fixed)
        return Choice(
            Architecture(name for item in items for name in item.operators),
            math.fsum([*(item.loss for item in items), *(self._pairs.get(pair, 0.0) for pair in pairs)]),
            {name: self._fixed[name] + math.fsum(item.costs[name] for item in items) for name in sorted(names)},
            tuple(items),
        )


def _why_none(items: Sequence[Item], num_blocks: int, caps: Mapping[str, float], fixed: Mapping[str, float]) -> str:
    smallest = {name: fixed[name] + _smallest(items, num_blocks, name) for name in caps}
    said = [
        f"{name} of {in_digits(caps[name])} (the smallest there is: {in_digits(smallest[name])})"
        for name in caps
        if smallest[name] > caps[name]
    ]
    if said:
        return f"no choice is within the cap on {' nor that on '.join(said)}: allow more, or add smaller variants"
    listed = ", ".join(
        f"{name} of {in_digits(cap)} (smallest: {in_digits(smallest[name])})" for name, cap in caps.items()
    )
    return f"no choice is within all caps at once: {listed}: allow more of one of them"


def _smallest(items: Sequence[Item], num_blocks: int, name: str) -> float:
    """The least sum of a cost, block by block."""
    least = [0.0] + [math.inf] * num_blocks
    for end in range(1, num_blocks + 1):
        for item in items:
            if item.blocks.stop == end:
                least[end] = min(least[end], least[item.first_block] + item.costs[name])
    return least[num_blocks]
