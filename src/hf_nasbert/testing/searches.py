"""What any search promises, as checks of a second altogether, for `hf_nasbert`'s searches and for one of your own.

    import pytest
    from hf_nasbert.testing.searches import CHECKS

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_search(check):
        check(MySearch)

A check takes what makes a search of a `SearchTask`: the class, or a function where it has arguments of its own. It
raises AssertionError where a promise is broken, and says which.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hf_nasbert.costs import Budget, Cost
from hf_nasbert.native import ListedChildren
from hf_nasbert.searching import Search, SearchTask
from hf_nasbert.space import SKIP, Architecture, Candidates, SearchSpace

MakeSearch = Callable[[SearchTask], Search]

CHAIN = SearchSpace.chain(4, ("attention", "ffn", "conv3", SKIP))
"""120 children of one stage."""
STAGED = SearchSpace.staged(2, 2, ("ffn", "conv3", SKIP), widths=(32, 64))
"""144 children of two stages, each of one of two widths."""
_SIZES = {"attention": 40, "ffn": 80, "conv3": 10, SKIP: 0}
_NUM_ROUNDS = 6


class Asked(NamedTuple):
    """A child that was asked for, and on how many of the dev batches; None: on all."""

    child: Architecture
    num_batches: int | None


def cost(child: Sequence[str]) -> Cost:
    """Made-up costs: a sum over the blocks, in which wide operators count double."""
    total = sum(_SIZES[name.partition("@")[0]] * (2 if name.endswith("@64") else 1) for name in child)
    return {"num_parameters": float(1000 + total)}


def score(children: Sequence[Sequence[str]]) -> list[float]:
    """Made-up losses, in which neighbours matter to each other; hardly two children of a space have the same."""
    values = {"attention": 1.0, "ffn": 1.618, "conv3": 2.718, SKIP: 3.142}
    losses = []
    for child in children:
        parts = [values[name.partition("@")[0]] - 0.25 * name.endswith("@64") for name in child]
        pairs = itertools.pairwise(parts)
        losses.append(sum(part / (3 + place) for place, part in enumerate(parts)) + sum(a * b % 0.7 for a, b in pairs))
    return losses


def run(search: Search, num_rounds: int | None = None) -> list[Asked]:
    """Ask and tell so often, or until nothing is left; everything asked, in order.

    Raises:
        AssertionError: If the search asks for ever.
    """
    asked: list[Asked] = []
    limit = 5 * search.space.num_children if num_rounds is None else num_rounds
    for _ in range(limit):
        children = search.ask()
        if not children:
            return asked
        num_batches = search.num_batches
        asked += [Asked(child, num_batches) for child in children]
        search.tell(children, score(children), num_batches=num_batches)
    assert num_rounds is not None, "it asks for ever: `ask` should return nothing when no unseen child is left"
    return asked


def asks_only_children_of_the_space_under_the_budget(make: MakeSearch) -> None:
    """A child outside of the space, or over a cap, is never asked for."""
    for space in (CHAIN, STAGED):
        budget = Budget(max_parameters=_middle(space))
        asked = run(make(SearchTask(space, seed=0, cost=cost, budget=budget, batch_size=8)), _NUM_ROUNDS)
        assert asked, "it asks for nothing"
        for child, _ in asked:
            assert space.why_not(child) is None, f"it asks for {child}, which is not in the space"
            assert budget.admits(cost(child)), f"it asks for {child}, which is over the budget"


def asks_for_no_child_twice(make: MakeSearch) -> None:
    """What has been told is not asked for again, unless on more dev batches; what is pending is, until it is told."""
    search = make(SearchTask(CHAIN, seed=0, cost=cost, batch_size=8))
    first = search.ask()
    assert search.ask() == first, "it asks for others before it was told of those asked for"
    assert len(first) <= 8, "it asks for more than `batch_size`"
    search.tell(first[:1], score(first[:1]), num_batches=search.num_batches)
    assert search.ask() == first[1:], "of a batch that was told in part it does not ask for the rest"
    asked = [Asked(first[0], search.num_batches), *run(search, _NUM_ROUNDS)]
    assert len(set(asked)) == len(asked), f"it asks twice for {max(asked, key=asked.count).child}"


def asks_the_same_under_the_same_seed(make: MakeSearch) -> None:
    """All chance comes from the task's seed."""

    def asked(seed: int) -> list[Asked]:
        return run(make(SearchTask(CHAIN, seed=seed, cost=cost, batch_size=8)), _NUM_ROUNDS)

    assert asked(3) == asked(3), "under one seed it asks for one thing, then for another"
    assert asked(3) != asked(4), "it asks the same under every seed"


def goes_on_from_its_state(make: MakeSearch) -> None:
    """A search that is given what another one's `state_dict` says, as JSON, asks for what that one would."""
    for num_rounds in (1, 4):
        task = SearchTask(CHAIN, seed=0, cost=cost, batch_size=8)
        first, second = make(task), make(task)
        run(first, num_rounds)
        some = first.ask()[:3]
        first.tell(some, score(some), num_batches=first.num_batches)  # in the middle of a batch
        second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
        assert second.best() == first.best(), "its best child is lost on the way"
        assert run(second, _NUM_ROUNDS) == run(first, _NUM_ROUNDS), "loaded, it asks for other children"


def refuses_the_state_of_another(make: MakeSearch) -> None:
    """A state of other settings is no state of this search."""
    other = make(SearchTask(CHAIN, seed=1, cost=cost))
    said = None
    try:
        other.load_state_dict(make(SearchTask(CHAIN, seed=0, cost=cost)).state_dict())
    except ValueError as error:
        said = str(error)
    assert said is not None, "it takes the state of a search of another seed"
    assert "seed" in said, f"it does not say that the seed is another one: {said}"


def finishes_a_small_space(make: MakeSearch) -> None:
    """Asked long enough it has asked for every child within the budget, and ends; its best child is the best."""
    listed = ListedChildren(CHAIN, tuple(CHAIN.enumerate())[::7])
    cases: list[tuple[Candidates, float]] = [(CHAIN, _middle(CHAIN)), (STAGED, _middle(STAGED)), (listed, 1e9)]
    for space, cap in cases:
        search = make(SearchTask(space, seed=0, cost=cost, budget=Budget(max_parameters=cap)))
        asked = {child for child, _ in run(search)}
        missing = {child for child in space.enumerate() if cost(child)["num_parameters"] <= cap} - asked
        assert not missing, f"it never asks for {len(missing)} children within the budget, such as {min(missing)}"
        assert search.ask() == [], "it goes on after its end"
        told, best = search.history, search.best()
        assert best is not None, "it has no best child at its end"
        assert best.score == min(scored.score for scored in told), "another child is the best"


def knows_the_best_of_what_it_was_told(make: MakeSearch) -> None:
    """Also where it has never asked for it; a score that is not finite never wins."""
    search = make(SearchTask(CHAIN, seed=0, cost=cost, batch_size=8))
    assert search.best() is None, "it has a best child before it was told any score"
    broken, good = CHAIN.child_at(3), CHAIN.child_at(50)
    search.tell([broken, good], [float("nan"), -100.0])
    run(search, 2)
    best = search.best()
    assert best is not None, "it has no best child though it was told of one"
    assert best.architecture == good, "a child that it did not ask for is not its best"


CHECKS: tuple[Callable[[MakeSearch], None], ...] = (
    asks_only_children_of_the_space_under_the_budget,
    asks_for_no_child_twice,
    asks_the_same_under_the_same_seed,
    goes_on_from_its_state,
    refuses_the_state_of_another,
    finishes_a_small_space,
    knows_the_best_of_what_it_was_told,
)
"""Every promise of a search."""


def check_search(make: MakeSearch) -> None:
    """Hold a search against every promise in `CHECKS`; a second altogether.

    Args:
        make: What makes the search of a `SearchTask`: its class, or a function where it has arguments of its own.

    Raises:
        AssertionError: If a promise is broken; says which.
    """
    for check in CHECKS:
        check(make)


def _middle(space: Candidates) -> float:
    """What half of the children do not exceed."""
    sizes = sorted(cost(child)["num_parameters"] for child in space.enumerate())
    return sizes[len(sizes) // 2]
