"""The cheapest child, and a child within all caps at once: exactly and without enumeration."""

import bisect
import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from hf_nasbert.costs.budget import Budget
from hf_nasbert.costs.child import PEAK, Cost, order_of
from hf_nasbert.space import Architecture, SearchSpace


def cheapest(space: SearchSpace, cost: Callable[[Architecture], Any]) -> Architecture:
    """The child of least cost, exactly and without enumeration; of equals the one whose operators come first.

    `cost` must be a sum over stages, each a sum over its blocks given the stage's width: so are parameters, FLOPs and
    latencies from a table; or be ordered as if it were, as `block_peaks` are. Then stages, and blocks within a stage
    of given width and depth, can be chosen one by one.
    """
    best: list[str] = list(next(space.enumerate()))

    def cost_with(where: slice, names: list[str]) -> Any:
        return cost(Architecture(_replaced(best, where, names)))

    for stage, where in zip(space.stages, space.stage_slices, strict=True):
        cost_of = functools.partial(cost_with, where)
        offers = [_cheapest_part(chain, cost_of) for chain in stage.chains()]
        best = _replaced(best, where, min(offers, key=cost_of))
    return Architecture(best)


def affordable(space: SearchSpace, cost: Callable[[Architecture], Cost], budget: Budget) -> Architecture | None:
    """A child within all caps at once, or None if there is none: exactly and without enumeration.

    Stage by stage, those beginnings of children are kept that can still end within the caps, but for those that cost
    as much as another one or more by every sum. Peak memory is no sum: it rules out the operators that exceed its cap,
    each by itself.

    Args:
        space: Where to look.
        cost: The costs of a child: sums as for `cheapest`, but for the peak of memory, whose order is `order_of`'s.
            Where sums of fractions meet a cap to the last digit, their rounding decides.
        budget: The caps.
    """
    start, caps = next(space.enumerate()), budget.caps
    peak, order = PEAK if PEAK in caps else None, order_of(cost, PEAK)
    sums = [name for name in caps if name != peak]
    if peak is not None:  # so that only what is tried in this child can exceed the cap
        start = cheapest(space, order)
    start_costs = cost(start)

    def with_part(where: slice, names: list[str]) -> Architecture:
        return Architecture(_replaced(list(start), where, names))

    def parts_of(where: slice, chain: list[list[str]]) -> list[_Part]:
        names = _cheapest_part(chain, lambda names: 0 if peak is None else order(with_part(where, names)))
        parts, before = [_Part((0,) * len(sums), ())], start_costs
        for block, candidates in enumerate(chain):
            offers = []
            for name in candidates:
                costs = cost(with_part(where, [*names[:block], name, *names[block + 1 :]]))
                if peak is None or costs[peak] <= caps[peak]:
                    offers.append(_Part(tuple(costs[name] - before[name] for name in sums), (name,)))
            parts = _undominated(_joined(parts, offers))
            before = cost(with_part(where, names))  # the first block bears what sets the chain apart from the start
        return parts

    stages = [
        _undominated(part for chain in stage.chains() for part in parts_of(where, chain))
        for stage, where in zip(space.stages, space.stage_slices, strict=True)
    ]
    found = [_Part(tuple(start_costs[name] for name in sums), ())]
    for number, stage in enumerate(stages):
        # What the stages that follow leave of each cap, at best; a hair more, for sums of fractions are rounded.
        room = [
            caps[name] * (1 + 1e-9)
            - sum(min((part.costs[i] for part in later), default=0) for later in stages[number + 1 :])
            for i, name in enumerate(sums)
        ]
        fitting = (part for part in _joined(found, stage) if all(map(operator.le, part.costs, room)))
        found = _undominated(fitting)
    children = (Architecture(part.names) for part in found)
    return next((child for child in children if budget.admits(cost(child))), None)


def _cheapest_part(chain: list[list[str]], cost: Callable[[list[str]], Any]) -> list[str]:
    """The operators of a chain whose cost is least, chosen block by block."""
    names = [candidates[0] for candidates in chain]
    for block, candidates in enumerate(chain):
        names = min(([*names[:block], name, *names[block + 1 :]] for name in candidates), key=cost)
    return names


class _Part(NamedTuple):
    """Neighbouring operators of a child, and what they add to each of its costs."""

    costs: tuple[float, ...]
    names: tuple[str, ...]


def _joined(firsts: Iterable[_Part], seconds: Sequence[_Part]) -> Iterator[_Part]:
    """Every part followed by every other one."""
    for first in firsts:
        for second in seconds:
            yield _Part(tuple(map(operator.add, first.costs, second.costs)), first.names + second.names)


def _undominated(parts: Iterable[_Part]) -> list[_Part]:
    """The parts that no other one undercuts or equals in every cost; of equal ones one. Of at most three costs."""
    found = []
    # The costs but for the first, by which they come, of the parts that others are yet to be compared with.
    seconds: list[float] = []  # ascending
    thirds: list[float] = []  # descending
    for part in sorted(parts, key=lambda part: part.costs):
        _, second, third = (*part.costs, 0, 0, 0)[:3]
        place = bisect.bisect_right(seconds, second)
        if place and thirds[place - 1] <= third:
            continue
        found.append(part)
        start = stop = bisect.bisect_left(seconds, second)
        while stop < len(thirds) and thirds[stop] >= third:
            stop += 1
        seconds[start:stop], thirds[start:stop] = [second], [third]
    return found


def _replaced(names: list[str], where: slice, part: list[str]) -> list[str]:
    return [*names[: where.start], *part, *names[where.stop :]]
