"""Searches: one contract for all of them, and runs that survive being killed."""

import dataclasses
import errno
import functools
import itertools
import json
import math
import multiprocessing
import os
import random
import subprocess
import sys
import time

import pytest
from tiny.searches import CHAIN, OPERATORS, STAGED, cost_of, drain, draw, new, score

from hf_nasbert import records
from hf_nasbert.costs import Budget, cheapest
from hf_nasbert.native import ListedChildren
from hf_nasbert.searching import (
    SEARCHES,
    GradientBoostedSearch,
    LearnedDistributionSearch,
    ParetoSearch,
    ProgressiveShrinking,
    RandomSearch,
    RegularizedEvolution,
    Scored,
    SearchTask,
    SizeMatchedRandomSearch,
    SuccessiveHalving,
    largest_bracket,
    pareto_front,
    run_search,
)
from hf_nasbert.space import Architecture, SearchSpace

LARGE = SearchSpace.staged(num_stages=4, blocks_per_stage=6, operators=OPERATORS, widths=(32, 64))
FEW = SearchSpace.staged(num_stages=2, blocks_per_stage=2, operators=("ffn", "conv3", "skip"), widths=(32, 64))  # 144
SMALL = pytest.mark.parametrize("space", [CHAIN, FEW], ids=["chain", "staged"])
SINGLE = SearchSpace.chain(num_choice_blocks=3, operators=("ffn",))
SINGLE_STAGED = SearchSpace.staged(num_stages=2, blocks_per_stage=1, operators=("ffn",), widths=(32,))


def children_of(asked):
    """Each child asked, once."""
    return list(dict.fromkeys(child for child, _ in asked))


COSTS = {
    "max_parameters": "num_parameters",
    "max_flops": "flops",
    "max_latency_ms": "latency_ms",
    "max_memory": "peak_activation_bytes",
}


def middling_budget(space, caps):
    """Caps that half of all children meet, each cap by itself."""
    cost, rng = cost_of(space, latency=True), random.Random(0)
    drawn = [cost(space.sample(rng, "children")) for _ in range(101)]
    return Budget(**{cap: sorted(costs[COSTS[cap]] for costs in drawn)[50] for cap in caps})


def median_parameters(space):
    cost, rng = cost_of(space), random.Random(0)
    return sorted(cost(space.sample(rng, "children"))["num_parameters"] for _ in range(101))[50]


class SearchContract:
    """What any search promises. Subclass it with a `make` fixture: (space, **keywords) -> search."""

    @pytest.mark.parametrize("space", [CHAIN, STAGED, LARGE], ids=["chain", "staged", "large"])
    def test_asks_only_children_of_the_space_within_the_budget_and_none_twice(self, make, space):
        cost, cap = cost_of(space), median_parameters(space)
        search = make(space, seed=0, cost=cost, budget=Budget(max_parameters=cap), batch_size=8)
        asked = drain(search, 6)
        assert 40 <= len(asked) == len(set(asked)) <= 48
        children = children_of(asked)
        assert all(child in space for child in children)
        assert max(cost(child)["num_parameters"] for child in children) <= cap
        assert search.best().architecture in children

    def test_without_a_budget_large_children_are_asked_too(self, make):
        cost, cap = cost_of(CHAIN), median_parameters(CHAIN)
        asked = drain(make(CHAIN, seed=0, batch_size=8), 6)
        assert max(cost(child)["num_parameters"] for child in children_of(asked)) > cap

    @SMALL
    def test_asks_every_child_of_a_small_space_once_and_then_none(self, make, space):
        search = make(space, seed=0)
        asked = drain(search)
        assert sorted(children_of(asked)) == sorted(space.enumerate())
        assert len(asked) == len(set(asked))
        assert search.ask() == []
        assert search.best().score == min(score(space.enumerate()))

    @SMALL
    def test_asks_every_affordable_child_under_a_tight_budget(self, make, space):
        cost = cost_of(space)
        costs = sorted(cost(child)["flops"] for child in space.enumerate())
        search = make(space, seed=0, cost=cost, budget=Budget(max_flops=costs[3]))
        assert sorted(children_of(drain(search))) == sorted(
            c for c in space.enumerate() if cost(c)["flops"] <= costs[3]
        )

    def test_a_tight_budget_in_a_space_too_large_to_enumerate(self, make):
        cost = cost_of(LARGE)
        smallest = Architecture(["conv3@32", *["skip"] * 5] * 4)
        cap = cost(smallest)["num_parameters"]
        assert children_of(drain(make(LARGE, seed=0, cost=cost, budget=Budget(max_parameters=cap)))) == [smallest]
        # One more operator in any one stage: 4 children, none of which a random draw ever meets.
        larger = cost(Architecture(["conv3@32", "conv3@32", *["skip"] * 4, *smallest[6:]]))["num_parameters"]
        assert len(children_of(drain(make(LARGE, seed=0, cost=cost, budget=Budget(max_parameters=larger))))) > 4

    @pytest.mark.parametrize("caps", [["max_latency_ms"], ["max_memory"], [*COSTS]], ids=lambda caps: "-".join(caps))
    def test_asks_every_child_within_caps_on_latency_and_memory_and_no_other(self, make, caps):
        cost, budget = cost_of(FEW, latency=True), middling_budget(FEW, caps)
        affordable = [child for child in FEW.enumerate() if budget.admits(cost(child))]
        assert 30 < len(affordable) < 90
        assert sorted(children_of(drain(make(FEW, seed=0, cost=cost, budget=budget)))) == sorted(affordable)

    def test_asks_children_within_all_caps_of_a_space_too_large_to_enumerate(self, make):
        cost, budget = cost_of(LARGE, latency=True), middling_budget(LARGE, COSTS)
        asked = drain(make(LARGE, seed=0, cost=cost, budget=budget, batch_size=8), 6)
        assert 40 <= len(asked)
        assert [budget.why_not(cost(child)) for child in children_of(asked)] == [None] * len(children_of(asked))

    @pytest.mark.parametrize("space", [SINGLE, SINGLE_STAGED], ids=["chain", "staged"])
    def test_a_space_with_one_child(self, make, space):
        (only,) = space.enumerate()
        search = make(space, seed=0)
        assert children_of(drain(search)) == [only]
        assert search.ask() == []
        assert search.best().architecture == only

    def test_asks_the_same_again_until_all_are_told(self, make):
        search = make(CHAIN, seed=0, batch_size=4)
        first = search.ask()
        assert search.ask() == first
        search.tell(first[1:3], [1.0, 2.0], num_batches=search.num_batches)
        assert search.ask() == [first[0], first[3]]
        search.tell([first[3], first[0]], [3.0, 4.0], num_batches=search.num_batches)
        assert not set(search.ask()) & set(first)

    def test_same_seed_same_answer_and_another_seed_another(self, make):
        assert drain(make(CHAIN, seed=3), 3) == drain(make(CHAIN, seed=3), 3)
        assert drain(make(CHAIN, seed=3), 3) != drain(make(CHAIN, seed=4), 3)

    def test_leaves_the_global_generator_alone(self, make):
        state = random.getstate()
        drain(make(CHAIN, seed=0))
        assert random.getstate() == state

    @pytest.mark.parametrize("num_batches", [1, 9])
    @pytest.mark.parametrize("space", [CHAIN, STAGED, LARGE], ids=["chain", "staged", "large"])
    def test_resumes_from_its_state_as_if_it_had_never_stopped(self, make, space, num_batches):
        expected = drain(make(space, seed=0, batch_size=8), 11)
        first = make(space, seed=0, batch_size=8)
        head = drain(first, num_batches)
        some = first.ask()[:3]
        first.tell(some, score(some), num_batches=first.num_batches)  # in the middle of a batch
        second = make(space, seed=0, batch_size=8)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert second.best() == first.best()
        assert head + expected[len(head) : len(head) + 3] + drain(second, 11 - num_batches) == expected
        with pytest.raises(ValueError, match="has begun"):
            second.load_state_dict(first.state_dict())

    def test_a_state_of_another_search_is_refused_by_name(self, make):
        state = make(CHAIN, seed=0).state_dict()
        for other, word in [
            (make(CHAIN, seed=1), r"seed \(0 there, 1 here\)"),
            (make(STAGED, seed=0), "space"),
            (make(CHAIN, seed=0, batch_size=7), "batch_size"),
            (make(CHAIN, seed=0, cost=cost_of(CHAIN), budget=Budget(max_parameters=10**9)), "budget"),
        ]:
            with pytest.raises(ValueError, match=word):
                other.load_state_dict(state)

    def test_the_best_is_the_best_ever_told_also_if_never_asked(self, make):
        search = make(CHAIN, seed=0, batch_size=10)
        assert search.best() is None
        stranger = Architecture(["ffn", "skip", "skip", "skip"])
        search.tell([stranger], [-100.0])
        asked = drain(search, 3)
        assert search.best() == Scored(stranger, -100.0)
        assert stranger not in search.ask()
        search.tell([stranger], [100.0])  # the first score stays
        assert search.best().score == -100.0
        search.tell([stranger, stranger], [-200.0, -300.0])
        assert search.best().score == -100.0
        scores = [scored.score for scored in search.ranking()]
        assert scores == sorted(scores)
        assert len(scores) == 1 + sum(num_batches is None for _, num_batches in asked)

    def test_scores_that_are_not_finite_rank_last_and_never_win(self, make):
        def broken(children, num_batches=None):
            return [bad if "attention" in child else value for child, value, bad in zip(
                children, score(children), [math.nan, math.inf, -math.inf] * len(children), strict=False)]  # fmt: skip

        search = make(CHAIN, seed=0, batch_size=10)
        asked = drain(search, 5, broken)
        assert "attention" not in search.best().architecture
        finite = [child for child, part in asked if part is None and "attention" not in child]
        assert [scored.architecture for scored in search.ranking()][: len(finite)] == sorted(
            finite, key=lambda child: score([child])
        )
        all_broken = make(CHAIN, seed=0, batch_size=10)
        assert len(set(drain(all_broken, 20, lambda children, num_batches=None: [math.nan] * len(children)))) > 100
        assert all_broken.best() is None
        json.loads(json.dumps(all_broken.state_dict(), allow_nan=False))

    @pytest.mark.parametrize("cap", ["num_parameters", "flops"])
    def test_an_impossible_budget_is_refused_with_the_smallest_child_and_its_cost(self, make, cap):
        cost = cost_of(STAGED)
        smallest = min(STAGED.enumerate(), key=lambda child: cost(child)[cap])
        least = cost(smallest)[cap]
        name = {"num_parameters": "max_parameters", "flops": "max_flops"}[cap]
        with pytest.raises(ValueError, match=f"{cap} may be at most .*{least:,}") as error:
            make(STAGED, seed=0, cost=cost, budget=Budget(**{name: least - 1}))
        assert str(smallest) in str(error.value)
        assert drain(make(STAGED, seed=0, cost=cost, budget=Budget(**{name: least}))) != []

    def test_caps_that_can_be_met_one_by_one_but_not_together_are_refused(self, make):
        def cost(child):  # many operators cost parameters, few cost latency
            depth = sum(name != "skip" for name in child)
            return {"num_parameters": depth, "latency_ms": 6.0 - depth}

        both = make(CHAIN, seed=0, cost=cost, budget=Budget(max_parameters=3, max_latency_ms=3.0))
        assert {sum(name != "skip" for name in child) for child, _ in drain(both)} == {3}
        with pytest.raises(
            ValueError, match=r"smallest num_parameters is 1, .* smallest latency_ms is 2\.0, of"
        ) as error:
            make(CHAIN, seed=0, cost=cost, budget=Budget(max_parameters=2, max_latency_ms=3.0))
        assert "its caps can be met, but not together" in str(error.value)

    def test_caps_that_can_be_met_together_are_met_far_from_any_cheapest_child(self, make):
        def cost(child):
            depth = sum(name != "skip" for name in child)
            return {"num_parameters": depth, "latency_ms": 30.0 - depth}

        far = make(LARGE, seed=0, cost=cost, budget=Budget(max_parameters=10, max_latency_ms=20.0), batch_size=5)
        assert {sum(name != "skip" for name in child) for child, _ in drain(far, 2)} == {10}

    def test_the_one_child_that_meets_two_caps_is_found_also_where_going_downhill_gets_stuck(self, make):
        table = {(0, "ffn"): (8, 0.0), (1, "ffn"): (5, 2.5), (2, "ffn"): (5, 2.5)}

        def cost(child):
            pairs = [table.get(place, (0, 6.0)) for place in enumerate(child)]
            return {"num_parameters": sum(pair[0] for pair in pairs), "latency_ms": sum(pair[1] for pair in pairs)}

        space = SearchSpace.chain(num_choice_blocks=3, operators=("attention", "ffn"))
        search = make(space, seed=0, cost=cost, budget=Budget(max_parameters=10, max_latency_ms=11.0))
        assert children_of(drain(search)) == [("attention", "ffn", "ffn")]

    @SMALL
    def test_where_draws_run_dry_the_rest_comes_in_an_order_of_the_seed(self, make, space, monkeypatch):
        monkeypatch.setattr("hf_nasbert.searching.base._NUM_DRAWS", 0)
        first, second = (children_of(drain(make(space, seed=seed))) for seed in (0, 1))
        assert sorted(first) == sorted(second) == sorted(space.enumerate())
        assert first != second

    def test_bad_requests_are_refused_by_name(self, make):
        with pytest.raises(ValueError, match="batch_size"):
            make(CHAIN, seed=0, batch_size=0)
        with pytest.raises(ValueError, match="give `cost`"):
            make(CHAIN, seed=0, cost=None, budget=Budget(max_flops=1e9))
        with pytest.raises(ValueError, match="latency_ms"):
            make(CHAIN, seed=0, cost=cost_of(CHAIN), budget=Budget(max_latency_ms=1e9))
        cost = cost_of(CHAIN)
        search = make(CHAIN, seed=0, cost=cost, budget=Budget(max_parameters=median_parameters(CHAIN)))
        with pytest.raises(ValueError, match="conv9"):
            search.tell([["conv9"] * 4], [1.0])
        with pytest.raises(ValueError, match="over the budget"):
            search.tell([max(CHAIN.enumerate(), key=lambda child: cost(child)["num_parameters"])], [1.0])
        with pytest.raises(ValueError, match="1 architectures came back with 2 scores"):
            search.tell([CHAIN.child_at(0)], [1.0, 2.0])
        with pytest.raises(ValueError, match="scores on 99 dev batches were given, but"):
            search.tell([next(iter(search.ask()))], [1.0], num_batches=99)
        assert search.history == []
        assert search.num_evaluations == 0

    def test_a_run_resumed_from_any_prefix_of_its_history_ends_the_same(self, make, tmp_path):
        search = make(CHAIN, seed=0, batch_size=8)
        straight = run_search(search, score, num_evaluations=48, history_path=tmp_path / "a")
        assert 47 < search.num_evaluations <= 48
        lines = (tmp_path / "a").read_bytes().splitlines(keepends=True)
        for kept, torn in [(0, 0), (1, 0), (6, 9), (9, 0), (40, 30), (len(lines), 0)]:
            path, scored = tmp_path / f"b{kept}", []
            rest = lines[kept][:torn] if torn else b""
            path.write_bytes(b"".join(lines[:kept]) + rest)

            def watched(children, num_batches=None, scored=scored):
                scored.extend(children)
                return score(children)

            search = make(CHAIN, seed=0, batch_size=8)
            assert run_search(search, watched, num_evaluations=48, history_path=path) == straight
            assert len(scored) == len(lines) - max(1, kept)
            assert records.read(path)[1:] == records.read(tmp_path / "a")[1:]

    def test_a_run_can_be_extended(self, make, tmp_path):
        straight = run_search(make(CHAIN, seed=0, batch_size=8), score, num_evaluations=40)
        search = make(CHAIN, seed=0, batch_size=8)
        run_search(search, score, num_evaluations=13, history_path=tmp_path / "a")
        assert 12 < search.num_evaluations <= 13
        assert run_search(search, score, num_evaluations=40) == straight
        again = make(CHAIN, seed=0, batch_size=8)
        assert run_search(again, score, num_evaluations=40, history_path=tmp_path / "a") == straight


class TestSearchTask:
    SUMS = SearchSpace.chain(num_choice_blocks=20, operators=("attention", "ffn"))  # 2^20 children
    WEIGHTS = tuple(random.Random(0).sample(range(2, 800, 2), 20))

    def weights(self, child):
        """Both caps together: a subset of the weights is to have a given sum."""
        of_ffn = sum(w for w, name in zip(self.WEIGHTS, child, strict=True) if name == "ffn")
        return {"num_parameters": of_ffn, "flops": sum(self.WEIGHTS) - of_ffn}

    @pytest.mark.parametrize("seed", range(3))
    def test_starts_at_a_child_within_two_caps_that_only_few_of_a_million_meet(self, seed):
        hidden = self.weights(self.SUMS.sample(random.Random(seed)))
        budget = Budget(max_parameters=hidden["num_parameters"], max_flops=hidden["flops"])
        assert self.weights(SearchTask(self.SUMS, seed=0, cost=self.weights, budget=budget).start) == hidden

    def test_caps_that_no_child_of_a_million_meets_are_refused_with_the_smallest_child_for_each(self):
        total = sum(self.WEIGHTS)
        odd = Budget(max_parameters=3_999, max_flops=total - 3_999)  # the weights are even
        with pytest.raises(ValueError, match="its caps can be met, but not together") as error:
            SearchTask(self.SUMS, seed=0, cost=self.weights, budget=odd)
        for name, child, other in [("num_parameters", "attention", "flops"), ("flops", "ffn", "num_parameters")]:
            expected = (
                f"the smallest {name} is 0, of {'-'.join([child] * 20)}, but its {other} is {total:,} and may be"
            )
            assert expected in str(error.value)

    def test_starts_at_a_listed_child_where_others_are_within_the_caps_too(self):
        def cost(child):
            depth = sum(name != "skip" for name in child)
            return {"num_parameters": depth, "latency_ms": 6.0 - depth}

        only = Architecture(["ffn", "conv3", "ffn", "skip"])
        listed = ListedChildren(CHAIN, (only, Architecture(["ffn"] * 4), Architecture(["ffn"] + ["skip"] * 3)))
        budget = Budget(max_parameters=3, max_latency_ms=3.0)
        assert SearchTask(listed, seed=0, cost=cost, budget=budget).start == only

    def test_starts_within_four_caps_together_that_no_smallest_child_meets(self):
        cost = cost_of(LARGE, latency=True)
        some = cost(Architecture([part for name in ("ffn@32", "conv3@32") * 2 for part in [name, *["skip"] * 5]]))
        budget = Budget(**{cap: some[name] for cap, name in COSTS.items()})
        for name in some:
            assert not budget.admits(cost(cheapest(LARGE, lambda child, name=name: cost(child)[name])))
        assert budget.admits(cost(SearchTask(LARGE, seed=0, cost=cost, budget=budget).start))


@functools.cache
def mean_best(kind, **keywords):
    """The mean over seeds of the best score after 250 evaluations in a large space."""
    found = [
        run_search(new(kind, LARGE, seed=seed, batch_size=25, **keywords), score, num_evaluations=250)[0].score
        for seed in range(4)
    ]
    return sum(found) / 4


class TestRandomSearch(SearchContract):
    @pytest.fixture
    def make(self):
        return functools.partial(new, RandomSearch)

    def test_draws_uniformly_among_the_children_within_the_budget(self):
        space = SearchSpace.chain(num_choice_blocks=2, operators=OPERATORS)
        cost = cost_of(space)
        cap = sorted(cost(child)["num_parameters"] for child in space.enumerate())[7]
        affordable = [child for child in space.enumerate() if cost(child)["num_parameters"] <= cap]
        counts = dict.fromkeys(affordable, 0)
        for seed in range(2000):
            search = new(RandomSearch, space, seed=seed, cost=cost, budget=Budget(max_parameters=cap), batch_size=1)
            counts[search.ask()[0]] += 1
        assert max(counts.values()) / min(counts.values()) < 1.4


@pytest.mark.slow
class TestContractOfSizeMatchedRandomSearch(SearchContract):
    @pytest.fixture
    def make(self):
        return lambda space, **keywords: new(SizeMatchedRandomSearch, space, **{"cost": cost_of(space), **keywords})


class TestSizeMatchedRandomSearch:
    def test_draws_the_largest_of_several_children_within_the_budget(self):
        cost, cap = cost_of(LARGE), median_parameters(LARGE)

        def mean_share(num_draws):
            search = new(
                SizeMatchedRandomSearch,
                LARGE,
                seed=0,
                cost=cost,
                budget=Budget(max_parameters=cap),
                num_draws=num_draws,
                batch_size=40,
            )
            return sum(cost(child)["num_parameters"] for child in search.ask()) / 40 / cap

        shares = [mean_share(num_draws) for num_draws in (1, 4, 20)]
        assert shares[0] < 0.85
        assert shares[0] + 0.05 < shares[1] < shares[2] - 0.02
        assert shares[2] > 0.95

    def test_size_is_the_share_of_the_tightest_cap(self):
        cost = cost_of(CHAIN)
        caps = {"max_parameters": 10**9, "max_flops": cost(CHAIN.child_at(0))["flops"]}
        search = new(
            SizeMatchedRandomSearch, CHAIN, seed=0, cost=cost, budget=Budget(**caps), num_draws=30, batch_size=40
        )
        affordable = [c for c in CHAIN.enumerate() if cost(c)["flops"] <= caps["max_flops"]]
        least = sorted(cost(child)["flops"] for child in affordable)[-len(affordable) // 3]
        assert min(cost(child)["flops"] for child in search.ask()[:20]) >= least

    def test_bad_settings_are_refused_by_name(self):
        with pytest.raises(ValueError, match="give `cost`"):
            new(SizeMatchedRandomSearch, CHAIN, seed=0)
        with pytest.raises(ValueError, match="num_draws"):
            new(SizeMatchedRandomSearch, CHAIN, seed=0, cost=cost_of(CHAIN), num_draws=0)
        with pytest.raises(ValueError, match="size=weight is none of the costs of a child: num_parameters, flops"):
            new(SizeMatchedRandomSearch, CHAIN, seed=0, cost=cost_of(CHAIN), size="weight")


class TestRegularizedEvolution(SearchContract):
    @pytest.fixture
    def make(self):
        return lambda space, **keywords: new(
            RegularizedEvolution, space, **{"population_size": 30, "tournament_size": 8, **keywords}
        )

    def test_finds_better_children_than_random_search_in_as_many_evaluations(self):
        assert mean_best(RegularizedEvolution, population_size=50) < mean_best(RandomSearch) - 0.5

    def test_changes_one_block_of_the_best_among_the_youngest(self):
        search = new(RegularizedEvolution, LARGE, seed=0, population_size=10, tournament_size=200, batch_size=10)
        drain(search, 4)
        oldest_best = LARGE.child_at(0)
        youngest = min(search.history[-10:], key=lambda scored: scored.score).architecture
        assert {sum(map(str.__ne__, child, youngest)) for child in search.ask()} == {1}
        # What was told before the last ten is forgotten, however good it was.
        forgetful = new(RegularizedEvolution, LARGE, seed=0, population_size=10, tournament_size=200, batch_size=10)
        forgetful.tell([oldest_best], [-100.0])
        drain(forgetful, 4)
        assert min(sum(map(str.__ne__, child, oldest_best)) for child in forgetful.ask()) > 1

    def test_its_settings_are_part_of_its_state(self):
        state = new(RegularizedEvolution, CHAIN, seed=0, tournament_size=5).state_dict()
        with pytest.raises(ValueError, match=r"tournament_size \(5 there, 6 here\)"):
            new(RegularizedEvolution, CHAIN, seed=0, tournament_size=6).load_state_dict(state)
        with pytest.raises(ValueError, match="search"):
            new(RandomSearch, CHAIN, seed=0).load_state_dict(state)

    @pytest.mark.parametrize("name", ["population_size", "tournament_size"])
    def test_bad_settings_are_refused_by_name(self, name):
        with pytest.raises(ValueError, match=name):
            new(RegularizedEvolution, CHAIN, seed=0, **{name: 0})


@pytest.mark.slow
class TestContractOfSuccessiveHalving(SearchContract):
    @pytest.fixture
    def make(self):
        return lambda space, **keywords: new(
            SuccessiveHalving, space, **{"total_batches": 4, "reduction": 2, "bracket_size": 16, **keywords}
        )


class TestSuccessiveHalving:
    def test_the_best_of_a_rung_go_on_to_more_dev_batches(self):
        def noisy(children, num_batches=None):  # what few batches say is not what all say
            noise = 0 if num_batches is None else 3 / num_batches
            return [score([child])[0] + noise * draw(f"{child}{num_batches}") for child in children]

        search = new(
            SuccessiveHalving,
            CHAIN,
            seed=0,
            total_batches=16,
            min_batches=2,
            reduction=4,
            bracket_size=32,
            batch_size=10,
        )
        asked = drain(search, 4 + 1 + 1, noisy)
        rungs = {part: [child for child, b in asked if b == part] for part in (2, 8, None)}
        assert list(rungs) == list(dict.fromkeys(part for _, part in asked))
        assert [len(children) for children in rungs.values()] == [32, 8, 2]
        for part, following in ((2, 8), (8, None)):
            ranked = sorted(rungs[part], key=lambda child: noisy([child], part))
            assert rungs[following] == ranked[: len(rungs[following])]
        assert search.num_evaluations == (32 * 2 + 8 * 8 + 2 * 16) / 16
        # Losses on few batches never make a child the best one.
        assert search.best() == min(search.history, key=lambda scored: scored.score)
        assert {scored.architecture for scored in search.history} == set(rungs[None])
        assert not set(search.ask()) & set(rungs[2])  # the next bracket is of other children
        assert search.num_batches == 2

    def test_a_bracket_that_the_reduction_does_not_divide_is_rounded_up(self):
        search = new(SuccessiveHalving, CHAIN, seed=0, total_batches=16, reduction=4, bracket_size=10, batch_size=10)
        asked = [part for _, part in drain(search, 3)]
        assert asked == [1] * 10 + [4] * 3 + [None]
        assert largest_bracket(search.num_evaluations, total_batches=16, reduction=4) == 10

    def test_children_without_a_finite_score_do_not_go_on(self):
        search = new(SuccessiveHalving, CHAIN, seed=0, total_batches=4, reduction=2, bracket_size=8)
        children = search.ask()
        search.tell(children, [math.inf] * 3 + [1.0] + [math.inf] * 4, num_batches=1)
        assert (search.ask(), search.num_batches) == ([children[3]], 2)

    def test_a_run_scores_on_as_many_batches_as_were_asked_for_and_records_it(self, tmp_path):
        seen = []

        def watched(children, num_batches=None):
            seen.extend([num_batches] * len(children))
            return score(children)

        search = new(SuccessiveHalving, CHAIN, seed=0, total_batches=4, reduction=2, bracket_size=8)
        run_search(search, watched, num_evaluations=6, history_path=tmp_path / "h")
        assert seen == [1] * 8 + [2] * 4 + [None] * 2
        assert [record.get("num_batches") for record in records.read(tmp_path / "h")[1:]] == seen

    def test_bad_settings_are_refused_by_name(self):
        with pytest.raises(ValueError, match="nothing to save between 1 and 1 dev batches"):
            new(SuccessiveHalving, CHAIN, seed=0, total_batches=1)
        for name, value in [("reduction", 1), ("bracket_size", 0), ("min_batches", 0)]:
            with pytest.raises(ValueError, match=name):
                new(SuccessiveHalving, CHAIN, seed=0, **{name: value})


def additive(children, num_batches=None):
    """A loss in which nothing but ffn at block 1 is good, and nothing but conv3 at block 0 bad."""
    return [5.0 - 0.5 * (child[1] == "ffn") + 0.25 * (child[0] == "conv3") for child in children]


@pytest.mark.slow
class TestContractOfGradientBoostedSearch(SearchContract):
    @pytest.fixture
    def make(self):
        return lambda space, **keywords: new(
            GradientBoostedSearch, space, **{"num_initial": 20, "num_candidates": 400, **keywords}
        )


class TestGradientBoostedSearch:
    @pytest.mark.slow
    def test_finds_better_children_than_random_search_in_as_many_evaluations(self):
        assert mean_best(GradientBoostedSearch, num_candidates=500) < mean_best(RandomSearch) - 1.0

    def test_what_it_asks_next_is_what_the_scores_favour(self):
        search = new(GradientBoostedSearch, CHAIN, seed=0, num_initial=60, batch_size=60)
        drain(search, 1, additive)
        search.task = dataclasses.replace(search.task, batch_size=10)
        assert {(child[1], child[0] != "conv3") for child in search.ask()} == {("ffn", True)}

    def test_effects_of_operators_are_those_of_the_loss(self):
        search = new(GradientBoostedSearch, CHAIN, seed=0, cost=cost_of(CHAIN))
        children = list(CHAIN.enumerate())
        search.tell(children, additive(children))
        effects = search.operator_effects()
        assert (effects[0].block, effects[0].operator) == (1, "ffn")
        assert (effects[-1].block, effects[-1].operator) == (0, "conv3")
        assert effects[0].num_children == sum(child[1] == "ffn" for child in children)
        share = effects[0].num_children / len(children)
        assert effects[0].effect == pytest.approx(-0.5 * (1 - share), abs=0.02)
        assert all(abs(effect.effect) < 0.01 for effect in effects if effect.block > 1)
        report = search.operator_report().splitlines()
        assert report[0] == "| block | attention | ffn | conv3 | skip |"
        assert report[3].split("|")[3].strip() == f"{1000 * effects[0].effect:+.1f}"
        assert len(report) == 2 + 4
        assert report[2].split("|")[5].strip() == ""  # no child skips block 0

    def test_too_few_scores_have_no_effects(self):
        search = new(GradientBoostedSearch, CHAIN, seed=0)
        search.tell([CHAIN.child_at(0), CHAIN.child_at(1)], [1.0, math.nan])
        with pytest.raises(ValueError, match="not 1"):
            search.operator_effects()


@pytest.mark.slow
class TestContractOfLearnedDistribution(SearchContract):
    @pytest.fixture
    def make(self):
        return functools.partial(new, LearnedDistributionSearch)


def test_a_learned_distribution_finds_better_children_than_random_search():
    assert mean_best(LearnedDistributionSearch) < mean_best(RandomSearch) - 0.5


@pytest.mark.slow
class TestContractOfProgressiveShrinking(SearchContract):
    @pytest.fixture
    def make(self):
        return lambda space, **keywords: new(ProgressiveShrinking, space, **{"round_size": 20, **keywords})


class TestProgressiveShrinking:
    def test_finds_better_children_than_random_search_in_as_many_evaluations(self):
        assert mean_best(ProgressiveShrinking) < mean_best(RandomSearch) - 0.5

    def test_the_worse_half_of_what_a_round_has_shown_is_dropped_in_every_bin(self):
        space = SearchSpace.staged(num_stages=2, blocks_per_stage=2, operators=("conv3", "conv5"), widths=(32, 64))
        search = new(ProgressiveShrinking, space, seed=0, cost=cost_of(space), num_bins=2, round_size=64)
        before = [[list(parts) for parts in bins] for bins in search._pools]
        assert search.num_parts == [8, 8]
        assert [len(bins) for bins in before] == [2, 2]
        for bins in before:  # the narrow parts, then the wide ones
            assert {name.partition("@")[2] for part in bins[0] for name in part} == {"32"}
        children = list(space.enumerate())
        search.tell(children, score(children))
        search.task = dataclasses.replace(search.task, batch_size=1)
        assert search.ask() == []  # and the round is over
        for stage, (bins, after) in enumerate(zip(before, search._pools, strict=True)):
            where = space.stage_slices[stage]
            for parts, left in zip(bins, after, strict=True):
                mean = {part: sum(score([c for c in children if c[where] == part])) for part in parts}
                assert set(left) == set(sorted(parts, key=mean.get)[:2])
        assert search.num_parts == [4, 4]

    def test_at_last_the_best_parts_are_joined_first(self):
        space = SearchSpace.staged(
            num_stages=2, blocks_per_stage=1, operators=("attention", "ffn", "conv3"), widths=()
        )
        search = new(ProgressiveShrinking, space, seed=0, num_bins=1, num_kept=3, round_size=3, batch_size=5)
        search.tell([("attention", "attention"), ("ffn", "ffn"), ("conv3", "conv3")], [3.0, 1.0, 2.0])
        asked = search.ask()
        assert [set(asked[:2]), set(asked[2:4])] == [
            {("ffn", "conv3"), ("conv3", "ffn")},
            {("attention", "ffn"), ("ffn", "attention")},
        ]

    def test_a_space_of_one_stage_is_cut_into_runs(self):
        search = new(ProgressiveShrinking, CHAIN, seed=0, run_length=2)
        assert search.num_parts == [
            3 + 9,
            3 + 9 + 1,
        ]  # one operator and a skip, or two; behind the first run also none

    @pytest.mark.parametrize("name", ["round_size", "pool_size", "num_bins", "num_kept", "run_length"])
    def test_bad_settings_are_refused_by_name(self, name):
        with pytest.raises(ValueError, match=name):
            new(ProgressiveShrinking, CHAIN, seed=0, **{name: 0})


def front_of(search):
    """The front of loss and parameters among what was told, as a set of points."""
    points = [(scored.score, search.task.cost(scored.architecture)["num_parameters"]) for scored in search.ranking()]
    return {points[place] for place in pareto_front(points)}


@pytest.mark.slow
class TestContractOfParetoSearch(SearchContract):
    @pytest.fixture
    def make(self):
        return lambda space, **keywords: new(
            ParetoSearch, space, **{"cost": cost_of(space), "population_size": 20, **keywords}
        )


class TestParetoSearch:
    def make_stored(self, storage, **keywords):
        return new(
            ParetoSearch,
            CHAIN,
            **{
                "seed": 0,
                "cost": cost_of(CHAIN),
                "population_size": 10,
                "batch_size": 8,
                "storage": storage,
                **keywords,
            },
        )

    def offspring(self, losses, sizes, **keywords):
        """Children of two parents without an operator in common, and how many blocks each has of either one."""
        space = SearchSpace.chain(40, ("attention", "ffn", "conv3"))
        parents = [Architecture([name] * 40) for name in ("ffn", "conv3")]

        def cost(child):
            return {"num_parameters": sizes[parents.index(child)] if child in parents else 9}

        keywords = {"population_size": 2, "max_changes": 1, "batch_size": 40, **keywords}
        search = new(ParetoSearch, space, seed=0, cost=cost, **keywords)
        search.tell(parents, losses)
        return [(child.count("ffn"), child.count("conv3")) for child in search.ask()]

    def test_the_better_of_two_parents_wins_the_tournament(self):
        # Of two draws at random three in four hold the better one.
        for losses, better in (((1.0, 2.0), 0), ((2.0, 1.0), 1)):
            children = self.offspring(losses, losses, crossover_share=0)
            assert sum(max(counts) >= 39 for counts in children) == 40
            assert sum(counts[better] >= 39 for counts in children) > 20

    def test_crossover_share_is_how_many_have_two_parents(self):
        alone, crossed = (self.offspring((1.0, 2.0), (2, 1), crossover_share=share) for share in (0, 1))
        assert all(max(counts) >= 39 for counts in alone)
        assert sum(max(counts) < 39 for counts in crossed) > 10  # half of all pairs are of one parent with itself

    @pytest.mark.slow
    def test_finds_a_better_front_than_random_search_in_as_many_evaluations(self):
        cost = cost_of(LARGE)

        def area(search):  # of what the front beats
            run_search(search, score, num_evaluations=300)
            edges = [400_000, *(size for _, size in sorted(front_of(search)))]
            losses = [loss for loss, _ in sorted(front_of(search))]
            return sum(
                max(0, left - right) * (40 - loss)
                for (left, right), loss in zip(itertools.pairwise(edges), losses, strict=True)
            )

        ours, others = (
            sum(area(new(kind, LARGE, seed=seed, cost=cost, batch_size=25)) for seed in range(3))
            for kind in (ParetoSearch, RandomSearch)
        )
        assert ours > 1.05 * others

    @pytest.mark.parametrize("storage", ["made/study.journal", pytest.param("sqlite:///", marks=pytest.mark.slow)])
    def test_a_study_in_a_storage_goes_on_where_it_was_left(self, storage, tmp_path):
        storage = f"sqlite:///{tmp_path / 'study.db'}" if storage.startswith("sqlite") else str(tmp_path / storage)
        straight = self.make_stored(None)
        expected = drain(straight, 6)
        asked = []
        for told in (8, 3, 0, 5, 8):  # a new process each time, that dies after some scores of a batch
            search = self.make_stored(storage)
            children = search.ask()
            asked += [child for child in children if child not in asked]
            search.tell(children[:told], score(children[:told]))
        again = self.make_stored(storage)
        assert again.history == straight.history[: len(again.history)]
        assert len(again.history) == 8 + 3 + 0 + 5 + 8
        drain(again, 5)
        assert again.history[:48] == straight.history
        assert asked == [child for child, _ in expected][: len(asked)]
        with pytest.raises(ValueError, match="in its storage"):
            again.state_dict()

    @pytest.mark.parametrize("num_written", [0, 3])
    def test_a_batch_that_was_half_written_is_completed(self, tmp_path, num_written):
        storage = str(tmp_path / "study.journal")
        expected = drain(self.make_stored(None), 4)

        class Killed(Exception):
            pass

        search = self.make_stored(storage)
        drain(search, 2)  # so that parents have been selected for the batch
        add, left = search._study.add_trial, iter(range(num_written))

        def dying(trial):
            if next(left, None) is None:
                raise Killed
            add(trial)

        search._study.add_trial = dying
        with pytest.raises(Killed):
            search.ask()
        assert [(child, None) for child in self.make_stored(storage).ask()] == expected[16:24]
        again = self.make_stored(storage)
        assert drain(again, 2) == expected[16:]
        assert len(again._study.trials) == 32

    def test_workers_share_a_study_and_never_a_child(self, tmp_path):
        storage = str(tmp_path / "study.journal")
        first, second = (self.make_stored(storage, worker=worker) for worker in (0, 1))
        one, two = first.ask(), second.ask()
        assert not set(one) & set(two)
        second.tell(two, score(two))
        first.tell(one, score(one))
        assert len(first.history) == 8  # it learns of the others' scores when it asks
        assert not set(first.ask()) & set(one + two)
        assert len(first.history) == 16
        assert self.make_stored(storage, worker=2).best() == first.best()

    @pytest.mark.slow
    def test_optuna_reads_the_study_and_its_front(self, tmp_path):
        import optuna

        storage = f"sqlite:///{tmp_path / 'study.db'}"
        search = self.make_stored(storage, objectives=("num_parameters", "flops"))
        broken = iter([math.nan])
        run_search(search, lambda children: [next(broken, s) for s in score(children)], num_evaluations=20)
        study = optuna.load_study(study_name="search", storage=storage)
        assert study.metric_names == ["proxy_loss", "num_parameters", "flops"]
        assert study.directions == [optuna.study.StudyDirection.MINIMIZE] * 3
        states = [trial.state.name for trial in study.trials]
        assert (states.count("COMPLETE"), states.count("FAIL"), states.count("RUNNING")) == (19, 1, 4)
        cost = cost_of(CHAIN)
        for trial in study.trials[1:20]:
            child = Architecture(trial.params[f"block_{block:02d}"] for block in range(4))
            assert trial.values == [*score([child]), cost(child)["num_parameters"], cost(child)["flops"]]
        values = [trial.values for trial in study.trials[1:20]]
        assert sorted(map(tuple, (trial.values for trial in study.best_trials))) == sorted(
            tuple(values[place]) for place in pareto_front(values)
        )
        assert self.make_stored(storage, objectives=("num_parameters", "flops")).ranking()[-1].score == math.inf

    def test_a_child_told_twice_at_once_is_one_trial(self):
        search = self.make_stored(None)
        child = search.ask()[0]
        search.tell([child, child, CHAIN.child_at(0), CHAIN.child_at(0)], [1.0, 2.0, 3.0, 4.0])
        complete = [trial.values[0] for trial in search._study.trials if trial.values is not None]
        assert complete == ([1.0, 3.0] if child != CHAIN.child_at(0) else [1.0])
        assert [scored.score for scored in search.history] == complete

    @pytest.mark.slow
    def test_a_study_of_other_settings_is_refused(self, tmp_path):
        storage = f"sqlite:///{tmp_path / 'study.db'}"
        self.make_stored(storage)
        with pytest.raises(ValueError, match=r"the study 'search' is of another search: .*seed \(0 there, 1 here\)"):
            self.make_stored(storage, seed=1)
        self.make_stored(storage, seed=1, study_name="another")

    def test_bad_settings_are_refused_by_name(self):
        with pytest.raises(
            ValueError, match="objective weight is none of the costs of a child: num_parameters, flops"
        ):
            self.make_stored(None, objectives=["weight"])
        for name, value in [("population_size", 1), ("crossover_share", 2.0), ("max_changes", 0)]:
            with pytest.raises(ValueError, match=name):
                self.make_stored(None, **{name: value})
        for keywords in ({"objectives": ()}, {"cost": None}):
            with pytest.raises(ValueError, match="give `cost`"):
                self.make_stored(None, **keywords)


def test_the_front_is_what_no_point_beats():
    rng = random.Random(0)
    points = [tuple(rng.randrange(30) for _ in range(3)) for _ in range(80)] + [(math.nan, 0, 0), (math.inf, 0, 0)]

    def beats(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    expected = [i for i, b in enumerate(points[:80]) if not any(beats(a, b) for a in points[:80])]
    assert sorted(pareto_front(points)) == expected
    assert 5 < len(expected) < 80
    assert pareto_front([]) == []
    assert pareto_front([(1.0, 2.0)]) == [0]
    assert pareto_front([(2.0, 1.0), (1.0, 2.0), (2.0, 2.0)]) == [1, 0]
    assert pareto_front([(1.0, 2.0), (2.0, 1.0), (1.0, 2.0), (2.0, 2.0)]) == [0, 2, 1], "of equal points, all"


def test_every_search_is_known_by_its_name():
    assert {name: kind.name for name, kind in SEARCHES.items()} == {name: name for name in SEARCHES}
    assert len(SEARCHES) == 13


@pytest.mark.parametrize(("kind", "package"), [(ParetoSearch, "optuna"), (GradientBoostedSearch, "lightgbm")])
def test_a_missing_extra_is_named_with_the_way_to_get_it(kind, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError, match=rf'needs {package}, which is not installed: pip install "hf_nasbert\[search\]"'
    ):
        new(kind, CHAIN, seed=0, cost=cost_of(CHAIN))


def test_a_full_disk_ends_the_run_and_leaves_what_it_held(tmp_path, monkeypatch):
    path = tmp_path / "h"
    expected = run_search(new(RandomSearch, CHAIN, seed=0, batch_size=8), score, num_evaluations=32)
    write, left = os.write, iter(range(3))

    def full(descriptor, content):
        if next(left, None) is None:
            write(descriptor, content[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, content)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            run_search(new(RandomSearch, CHAIN, seed=0, batch_size=8), score, num_evaluations=32, history_path=path)
    assert len(records.read(path)) == 1 + 2 * 8
    search = new(RandomSearch, CHAIN, seed=0, batch_size=8)
    assert run_search(search, score, num_evaluations=32, history_path=path) == expected


def test_the_history_holds_every_score_and_cost(tmp_path):
    cost = cost_of(CHAIN)
    search = new(RandomSearch, CHAIN, seed=0, cost=cost, budget=Budget(max_flops=1e12), batch_size=4)
    broken = iter([math.nan])
    path = tmp_path / "h"
    ranking = run_search(
        search, lambda children: [next(broken, s) for s in score(children)], num_evaluations=6, history_path=path
    )
    head, *children = records.read(tmp_path / "h")
    assert head["settings"]["space"] == CHAIN.to_dict()
    assert head["settings"]["budget"] == {"flops": 1e12}
    assert "torch" in head["versions"]
    assert [record["proxy_loss"] for record in children] == [None, *score([c for c, _ in search.history[1:]])]
    assert all(record["cost"] == cost(Architecture.parse(record["architecture"])) for record in children)
    assert ranking[-1].score == math.inf
    again = new(RandomSearch, CHAIN, seed=0, cost=cost, budget=Budget(max_flops=1e12), batch_size=4)
    assert run_search(again, None, num_evaluations=6, history_path=tmp_path / "h") == ranking


def test_the_history_of_something_else_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "h"
    run_search(new(RandomSearch, CHAIN, seed=0), score, num_evaluations=3, history_path=path, about={"supernet": "a"})
    before = path.read_bytes()
    for search, about, word in [
        (new(RandomSearch, CHAIN, seed=1), {"supernet": "a"}, "seed"),
        (new(RegularizedEvolution, CHAIN, seed=0), {"supernet": "a"}, "search"),
        (new(RandomSearch, STAGED, seed=0), {"supernet": "a"}, "space"),
        (new(RandomSearch, CHAIN, seed=0), {"supernet": "b"}, "about"),
        (new(RandomSearch, CHAIN, seed=0), None, "about"),
    ]:
        with pytest.raises(ValueError, match=rf"h is of another search.*{word}"):
            run_search(search, score, num_evaluations=5, history_path=path, about=about)
    assert path.read_bytes() == before
    other = tmp_path / "other"
    records.append(other, {"loss": 1.0})
    with pytest.raises(ValueError, match="not the history of a search"):
        run_search(new(RandomSearch, CHAIN, seed=0), score, num_evaluations=5, history_path=other)


def test_a_wrong_number_of_scores_is_refused():
    with pytest.raises(ValueError, match="1 scores for 50 architectures"):
        run_search(new(RandomSearch, CHAIN, seed=0), lambda children: [1.0], num_evaluations=60)


def test_a_bracket_is_as_large_as_can_be_paid_to_its_end():
    assert [largest_bracket(number, total_batches=4) for number in (1.25, 2, 5, 31, 32, 1000)] == [1, 4, 8, 60, 64, 64]
    for number in (5, 31):
        size = largest_bracket(number, total_batches=4)
        halving = new(SuccessiveHalving, CHAIN, seed=0, total_batches=4, bracket_size=size)
        assert run_search(halving, score, num_evaluations=number), "some are scored on all batches"


def test_parts_that_add_up_but_for_rounding_are_all_scored():
    halving = new(SuccessiveHalving, CHAIN, seed=0, total_batches=10, reduction=10, bracket_size=10, batch_size=9)
    sizes = []

    def counted(children, num_batches=None):
        sizes.append(len(children))
        return score(children, num_batches)

    run_search(halving, counted, num_evaluations=1)
    assert sizes == [9, 1]


def test_a_run_stops_when_the_space_is_exhausted_and_shows_the_best(capsys):
    ranking = run_search(
        new(RandomSearch, SINGLE, seed=0), lambda c: [0.5] * len(c), num_evaluations=99, progress=True
    )
    assert ranking == [Scored(Architecture(["ffn"] * 3), 0.5)]
    assert "best=0.5000" in capsys.readouterr().err


KILLED = {
    "evolution": lambda path: new(RegularizedEvolution, CHAIN, seed=0, batch_size=4, population_size=12),
    "nsga2": lambda path: new(
        ParetoSearch,
        CHAIN,
        seed=0,
        cost=cost_of(CHAIN),
        batch_size=4,
        population_size=12,
        storage=path and f"sqlite:///{path}.db",
    ),
}


def search_slowly(name, path):
    def slow(children):
        time.sleep(0.02)
        return score(children)

    run_search(KILLED[name](str(path)), slow, num_evaluations=100, history_path=path)


@pytest.mark.parametrize("name", ["evolution", pytest.param("nsga2", marks=pytest.mark.slow)])
def test_a_search_killed_at_any_moment_ends_as_if_it_had_not_been(name, tmp_path):
    straight = KILLED[name](None)
    expected = run_search(straight, score, num_evaluations=100)
    path = tmp_path / "history.jsonl"
    for wanted in (2_000, 6_000):
        process = multiprocessing.get_context("fork").Process(target=search_slowly, args=(name, path))
        process.start()
        deadline = time.monotonic() + 20
        while not (path.exists() and path.stat().st_size > wanted) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.join(10)
    assert 2 < len(records.read(path)) < 101
    search = KILLED[name](str(path))
    assert run_search(search, score, num_evaluations=100, history_path=path) == expected
    assert len(records.read(path)) == 101
    if name == "nsga2":
        assert front_of(search) == front_of(straight)
        assert len(front_of(search)) > 1
        assert len(search._study.trials) == 100


def test_searching_needs_neither_torch_nor_transformers():
    heavy = {"torch", "transformers", "optuna", "lightgbm"}
    program = f"import sys, hf_nasbert.searching; raise SystemExit(bool({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
