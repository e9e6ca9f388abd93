"""What a suggestion takes does not grow with what was told before: counted, not timed."""

import json
import random
import sys
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial
from tiny.searches import CHAIN, OPERATORS, cost_of, drain, new

from hf_nasbert.costs import counts
from hf_nasbert.searching import SEARCHES, GradientBoostedSearch, ParetoSearch
from hf_nasbert.space import SearchSpace

ROOT = Path(__file__).parents[1]
SPACE = SearchSpace.chain(num_choice_blocks=7, operators=OPERATORS)  # 3,279 children


class Counter:
    """Counts the calls of what it stands for."""

    def __init__(self, function):
        self.function, self.number = function, 0

    def __call__(self, *arguments):
        self.number += 1
        return self.function(*arguments)


def numbers_of_batches(search, counter, num_batches=12):
    """How often something was called in each batch."""
    found = []
    for _ in range(num_batches):
        counter.number = 0
        drain(search, 1)
        found.append(counter.number)
    return found


def test_a_trial_that_has_ended_is_not_read_again(monkeypatch):
    counter = Counter(lambda trial: child_of(trial))
    from hf_nasbert.searching.pareto import _child_of as child_of

    monkeypatch.setattr("hf_nasbert.searching.pareto._child_of", counter)
    search = new(ParetoSearch, SPACE, seed=0, cost=cost_of(SPACE), batch_size=10, population_size=10)
    numbers = numbers_of_batches(search, counter)
    assert max(numbers[-3:]) <= 2 * min(numbers[1:4])  # read anew, they would be 5 times as many and more


def test_a_trial_that_has_ended_is_sorted_into_its_generation_once(monkeypatch):
    asked = []
    attributes = FrozenTrial.user_attrs

    def counted(trial):
        asked.append(sys._getframe(1).f_code.co_name)
        return attributes.__get__(trial)

    search = new(ParetoSearch, SPACE, seed=0, cost=cost_of(SPACE), batch_size=10, population_size=10)
    monkeypatch.setattr(FrozenTrial, "user_attrs", property(counted, attributes.__set__))
    numbers = []
    for _ in range(12):
        asked.clear()
        drain(search, 1)
        numbers.append(asked.count("_read"))
    assert max(numbers[-3:]) <= 2 * max(min(numbers[1:4]), 10)  # read anew, they would be 5 times as many and more


def test_the_features_of_told_children_are_made_once(monkeypatch):
    search = new(
        GradientBoostedSearch, SPACE, seed=0, cost=cost_of(SPACE), batch_size=10, num_initial=20, num_candidates=20
    )
    made = []
    features_of = search._features_of
    monkeypatch.setattr(search, "_features_of", lambda children: made.append(list(children)) or features_of(children))
    drain(search, 8)
    told = [child for children in made[::2] for child in children]
    assert len(told) == len(set(told)) == 70  # all but the last batch


def test_an_operator_is_counted_once_for_all_children(monkeypatch):
    cost = cost_of.__wrapped__(CHAIN).__wrapped__  # without what `cost_of` remembers
    counter = Counter(counts.operator_parameters)
    monkeypatch.setattr(counts, "operator_parameters", counter)
    costs = {child: cost(child)["num_parameters"] for child in CHAIN.enumerate()}
    # Each operator as the first block of all, one inside and the last.
    assert counter.number <= 3 * len(OPERATORS)
    monkeypatch.setattr(
        "hf_nasbert.costs.child.geometry_of", None
    )  # of children whose blocks are known it is not made
    assert all(cost(child)["num_parameters"] == known for child, known in costs.items())
    rng = random.Random(0)
    config = cost.config
    for child in rng.sample(sorted(costs), 20):
        assert costs[child] == counts.num_parameters(config, child)


@pytest.mark.parametrize("num_changes", [1, 2])
def test_a_parent_that_is_changed_again_is_not_looked_at_again(num_changes, monkeypatch):
    space = SearchSpace.chain(num_choice_blocks=7, operators=OPERATORS)
    parent, rng = space.child_at(1234), random.Random(0)
    space.mutate(parent, rng, num_changes)
    counter = Counter(space.validate)
    monkeypatch.setattr(type(space), "validate", lambda self, child: counter(child))
    children = {space.mutate(parent, rng, num_changes) for _ in range(50)}
    assert counter.number == 0
    assert len(children) > 5


def test_the_page_tells_what_a_suggestion_takes():
    times = json.loads((ROOT / "benchmarks/records/search-suggestions.json").read_text(encoding="utf-8"))[
        "milliseconds"
    ]
    assert set(times) == {name for name in SEARCHES if "halving" not in name}
    page = " ".join((ROOT / "docs" / "search.md").read_text(encoding="utf-8").split())
    said = {
        "nsga2": "{} ms of one processor after 1,000 children and {} ms",
        "gbdt": "`gbdt` {} and {} ms",
        "pnas": "{} and {} (`pnas`)",
        "linas": "{} and {} (`linas`)",
        "knapsack": "{} and {} ms (`knapsack`)",
    }
    for name, words in said.items():
        assert words.format(*(f"{times[name][number]:.1f}" for number in ("1000", "10000"))) in page, name
    assert "every other search less than 0.4 ms" in page
    assert all(time < 0.4 for name in times.keys() - said.keys() for time in times[name].values())
