"""Every registered search keeps the published contract, and the contract notices one that does not."""

import dataclasses
import functools
import math
import random

import pytest

from hf_nasbert.searching import SEARCHES, RandomSearch
from hf_nasbert.testing import searches
from hf_nasbert.testing.searches import CHECKS


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_registered_search_keeps_its_promises(name, check):
    # A rung, a round or a generation that ends within the few children of the contract.
    brackets = {key: {"bracket_size": 16} for key in ("halving", "trained_halving")}
    own = brackets | {"nsga2": {"population_size": 10}, "gbdt": {"num_initial": 10}}
    own |= {"pnas": {"beam_size": 8}, "linas": {"population_size": 10, "num_generations": 3}}
    own |= {"knapsack": {"num_initial": 10, "num_solved": 2}}
    check(functools.partial(SEARCHES[name], **own.get(name, {})))


class Careless(RandomSearch):
    """Asks for whatever it draws."""

    def _is_new(self, child):
        return child not in self._pending


class Forgetful(RandomSearch):
    """Asks for what it has been told of."""

    def _next_batch(self):
        self._pending = [self._sample() for _ in range(self.task.batch_size)]


class Restless(RandomSearch):
    """Draws from a generator of nobody's seed."""

    def __init__(self, task):
        super().__init__(task)
        self._rng = random.SystemRandom()


class Settled(RandomSearch):
    """Draws from a generator that is the same under every seed."""

    def __init__(self, task):
        super().__init__(task)
        self._rng = random.Random(0)


class Absent(RandomSearch):
    """Loses what it was told when it is loaded."""

    def load_state_dict(self, state):
        pass


class Lazy(RandomSearch):
    """Ends after its first batch."""

    def ask(self):
        return [] if self._scores else super().ask()


class Proud(RandomSearch):
    """Knows of no best child but the first it was told."""

    def best(self):
        return self.history[0] if self._scores else None


class Silent(RandomSearch):
    """Asks for nothing."""

    def ask(self):
        return []


class Hasty(RandomSearch):
    """Asks for others before it was told."""

    def ask(self):
        self._pending = []
        return super().ask()


class Greedy(RandomSearch):
    """Asks for more than a batch."""

    def __init__(self, task):
        super().__init__(dataclasses.replace(task, batch_size=task.batch_size + 1))


class Sloppy(RandomSearch):
    """Forgets the rest of a batch that was told in part."""

    def tell(self, *told, **options):
        super().tell(*told, **options)
        self._pending = []


class Revived(RandomSearch):
    """Asks again behind its end."""

    has_ended = False

    def ask(self):
        if self.has_ended:
            return list(self._scores)[:1]
        found = super().ask()
        self.has_ended = not found
        return found


class Blank(RandomSearch):
    """Has no best child when it is loaded."""

    is_loaded = False

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.is_loaded = True

    def best(self):
        return None if self.is_loaded else super().best()


class Curt(RandomSearch):
    """Does not say what is wrong with a state."""

    def load_state_dict(self, state):
        raise ValueError("no")


class Eager(RandomSearch):
    """Has a best child before it was told of any."""

    def best(self):
        return super().best() or self.task.space.child_at(0)


class Modest(RandomSearch):
    """Has none where one of those it was told of has no finite score."""

    def best(self):
        return super().best() if all(map(math.isfinite, self._scores.values())) else None


@pytest.mark.parametrize(
    ("broken", "check", "message"),
    [
        (Careless, searches.asks_only_children_of_the_space_under_the_budget, "over the budget"),
        (Silent, searches.asks_only_children_of_the_space_under_the_budget, "it asks for nothing"),
        (Hasty, searches.asks_for_no_child_twice, "others before it was told"),
        (Greedy, searches.asks_for_no_child_twice, "more than `batch_size`"),
        (Sloppy, searches.asks_for_no_child_twice, "told in part"),
        (Forgetful, searches.asks_for_no_child_twice, "it asks twice for"),
        (Restless, searches.asks_the_same_under_the_same_seed, "under one seed"),
        (Settled, searches.asks_the_same_under_the_same_seed, "under every seed"),
        (Restless, searches.goes_on_from_its_state, "asks for other children"),
        (Blank, searches.goes_on_from_its_state, "its best child is lost"),
        (Curt, searches.refuses_the_state_of_another, "does not say that the seed is another one: no"),
        (Absent, searches.refuses_the_state_of_another, "takes the state"),
        (Lazy, searches.finishes_a_small_space, "never asks for"),
        (Careless, searches.finishes_a_small_space, "asks for ever|over the budget"),
        (Revived, searches.finishes_a_small_space, "goes on after its end"),
        (Silent, searches.finishes_a_small_space, "never asks for"),
        (Proud, searches.finishes_a_small_space, "another child is the best"),
        (Eager, searches.knows_the_best_of_what_it_was_told, "before it was told any score"),
        (Modest, searches.knows_the_best_of_what_it_was_told, "no best child though it was told"),
        (Proud, searches.knows_the_best_of_what_it_was_told, "not its best"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_promise_is_noticed_by_name(broken, check, message):
    with pytest.raises((AssertionError, ValueError), match=message):
        check(broken)


def test_no_check_is_forgotten():
    written = [
        value for name, value in vars(searches).items()
        if callable(value) and getattr(value, "__annotations__", {}).get("make") is not None
    ]  # fmt: skip
    assert written == [*CHECKS, searches.check_search]
    with pytest.raises((AssertionError, ValueError), match="over the budget"):
        searches.check_search(Careless)


def test_hardly_two_children_of_the_contract_have_the_same_loss():
    for space in (searches.CHAIN, searches.STAGED):
        losses = searches.score(list(space.enumerate()))
        assert len(set(losses)) > 0.95 * len(losses)
