"""The child of a budget: the best sums of lone replacements, scored again, and measured where a latency is capped."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hf_nasbert.compression.encoder_costs import EncoderCost
from hf_nasbert.compression.replace_one import Replacement, as_items
from hf_nasbert.costs import Budget, Share
from hf_nasbert.searching.knapsack import Choice, best_choices
from hf_nasbert.space import SKIP, Architecture

LATENCY = "latency_ms"
MEASURED_AT_ONCE = 4
"""Children of one timing run, beside the base model."""
_MOST_TIMING_RUNS = 6
_ROOM = 0.97  # of what is allowed, that children of one latency in the table are aimed at: by the clock they scatter


class Worth(NamedTuple):
    """What a child is worth: its distance from the base model, and the task's metric, where that ranks."""

    loss: float
    metric: float | None = None

    @property
    def rank(self) -> tuple[float, float]:
        """What children are sorted by, the best first: the metric, the larger the better, ties by the distance."""
        return (-(self.metric or 0.0), self.loss)


Score = Callable[[Sequence[Architecture]], list[Worth]]
Measure = Callable[[Sequence[Architecture]], list[float]]


@dataclass(frozen=True)
class Scored:
    """A child within a budget: the sum of its lone replacements, what it is worth, and its costs."""

    architecture: Architecture
    sum: float
    worth: Worth
    costs: dict[str, float]


def ranked_choices(
    replacements: Sequence[Replacement],
    full: Architecture,
    cost: EncoderCost,
    caps: Mapping[str, float],
    score: Score | None,
    num_choices: int,
) -> list[Scored]:
    """The best sums of lone replacements within the caps, best score first.

    Args:
        replacements: As `replace_one` gives them.
        full: The base model.
        cost: Costs of children.
        caps: The caps.
        score: Scores the children again; None takes the sums.
        num_choices: How many of the best sums are scored again.

    Raises:
        ValueError: If nothing is within the caps, or nothing that has a block.
    """
    items, fixed = as_items(replacements, full, cost, caps)
    number = 1 if score is None and LATENCY not in caps else num_choices
    summed = {name: cap for name, cap in caps.items() if name in fixed}  # a peak of memory is no sum
    choices: list[Choice] = best_choices(items, len(full), summed, fixed=fixed, num_choices=number)
    choices = [one for one in choices if any(name != SKIP for name in one.architecture)]  # that one learns nothing
    if not choices:
        raise ValueError("within the budget is only the child of which every block is left out: allow a larger budget")
    children = [one.architecture for one in choices]
    worths = [Worth(one.loss) for one in choices] if score is None else score(children)
    found = [
        Scored(one.architecture, one.loss, worth, cost(one.architecture))
        for one, worth in zip(choices, worths, strict=True)
    ]
    return sorted(found, key=lambda one: one.worth.rank)


def corrected_by_clock(
    best_sums: Callable[[Mapping[str, float]], list[Scored]],
    budget: Budget,
    caps: Mapping[str, float],
    full: Architecture,
    measure: Measure,
) -> dict[str, float]:
    """The caps, that of the latency raised where the clock finds some children faster than their sums predict.

    A sum of operators' latencies only predicts a child's; children of one size it misses by about the same factor.
    Where they are slower the cap stays: `within_measured` lowers it, by the children that it would take.

    Args:
        best_sums: Given caps, children within them, best first; by their sums alone, for that costs little.
        budget: The budget, whose latency may be a share of the base model's.
        caps: Its caps in numbers, by the table.
        full: The base model.
        measure: Milliseconds of children, measured in turn.
    """
    tried = best_sums(caps)[:MEASURED_AT_ONCE]
    base_ms, *found = measure([full, *(one.architecture for one in tried)])
    factor = max(1.0, _ROOM * _allowed(budget, base_ms) / statistics.median(found))
    return {**caps, LATENCY: factor * caps[LATENCY]}


def within_measured(
    rank: Callable[[Mapping[str, float]], list[Scored]],
    budget: Budget,
    caps: Mapping[str, float],
    full: Architecture,
    measure: Measure,
) -> tuple[list[Scored], Scored, list[float]]:
    """The best child that is as fast as asked by the clock.

    The best ones are run side by side with the base model. Where all are too slow, the search is repeated under a cap
    that is lower by as much.

    Args:
        rank: Given caps, children within them, best first.
        budget: As of `corrected_by_clock`.
        caps: What that made of the caps.
        full: The base model.
        measure: Milliseconds of children, measured in turn.

    Returns:
        The ranked children, the one that is taken, and its and the base model's milliseconds.

    Raises:
        ValueError: If none is fast enough.
    """
    caps = dict(caps)
    for _ in range(_MOST_TIMING_RUNS):
        ranked = rank(caps)
        tried = ranked[:MEASURED_AT_ONCE]
        base_ms, *found = measure([full, *(one.architecture for one in tried)])
        allowed = _allowed(budget, base_ms)
        for one, milliseconds in zip(tried, found, strict=True):
            if milliseconds <= allowed:
                return ranked, one, [milliseconds, base_ms]
        caps[LATENCY] *= min(0.99, allowed / min(found))
    raise ValueError(
        f"no child is measured at {allowed:.4g} ms or less here, though latencies of operators predict it (the best: "
        f"{min(found):.4g} ms): run it again on a quiet machine, or allow more"
    )


def _allowed(budget: Budget, base_ms: float) -> float:
    limit = budget.max_latency_ms
    return limit.factor * base_ms if isinstance(limit, Share) else float(limit or 0)
