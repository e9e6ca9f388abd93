"""Searches: one contract for all of them, and runs that survive being killed."""

import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from hf_nasbert import records
from hf_nasbert.costs import Budget, cost_function
from hf_nasbert.search import EvolutionarySearch, RandomSearch, Scored, run_search
from hf_nasbert.space import Architecture, SearchSpace

OPERATORS = ("attention", "ffn", "conv3", "skip")
CHAIN = SearchSpace.chain(num_choice_blocks=5, operators=OPERATORS)  # 363 children
STAGED = SearchSpace.staged(num_stages=2, blocks_per_stage=2, operators=OPERATORS, widths=(32, 64))
LARGE = SearchSpace.staged(num_stages=4, blocks_per_stage=6, operators=OPERATORS, widths=(32, 64))
SINGLE = SearchSpace.chain(num_choice_blocks=3, operators=("ffn",))


def cost_of(space, hidden_size=64):
    """The real arithmetic on a stand-in for a config."""
    config = SimpleNamespace(
        search_space=space.to_dict(), hidden_size=hidden_size, embedding_size=16, vocab_size=50, ffn_ratio=4,
        num_conv_layers=2, max_position_embeddings=32, type_vocab_size=2, tie_word_embeddings=True,
    )  # fmt: skip
    return cost_function(config, sequence_length=32)


def score(children):
    """A fixed made-up loss with interactions between neighbouring blocks."""
    return [
        sum(random.Random(f"{i}{name}").random() for i, name in enumerate(child))
        + sum(random.Random(f"{i}{a}{b}").random() for i, (a, b) in enumerate(itertools.pairwise(child)))
        for child in children
    ]


def drain(search, num_batches=10_000, score=score):
    """Ask and tell until nothing is left; every child asked, in order."""
    asked = []
    for _ in range(num_batches):
        children = search.ask()
        if not children:
            break
        asked += children
        search.tell(children, score(children))
    return asked


def median_parameters(space):
    cost, rng = cost_of(space), random.Random(0)
    return sorted(cost(space.sample(rng, "children"))["num_parameters"] for _ in range(101))[50]


class SearchContract:
    """What any search promises. Subclass it with a `make` fixture: (space, **keywords) -> search."""

    @pytest.mark.parametrize("space", [CHAIN, STAGED, LARGE], ids=["chain", "staged", "large"])
    def test_asks_only_children_of_the_space_within_the_budget_and_none_twice(self, make, space):
        cost, cap = cost_of(space), median_parameters(space)
        search = make(space, seed=0, cost=cost, budget=Budget(max_parameters=cap), batch_size=20)
        asked = drain(search, 6)
        assert len(asked) == 120 == len(set(asked))
        assert all(child in space for child in asked)
        assert max(cost(child)["num_parameters"] for child in asked) <= cap
        assert search.best().architecture in asked

    def test_without_a_budget_large_children_are_asked_too(self, make):
        cost, cap = cost_of(CHAIN), median_parameters(CHAIN)
        asked = drain(make(CHAIN, seed=0, batch_size=20), 6)
        assert max(cost(child)["num_parameters"] for child in asked) > cap

    def test_asks_every_child_of_a_small_space_once_and_then_none(self, make):
        search = make(CHAIN, seed=0)
        assert sorted(drain(search)) == sorted(CHAIN.enumerate())
        assert search.ask() == []
        assert search.best().score == min(score(CHAIN.enumerate()))

    def test_asks_every_affordable_child_under_a_tight_budget(self, make):
        cost = cost_of(CHAIN)
        costs = sorted(cost(child)["flops"] for child in CHAIN.enumerate())
        search = make(CHAIN, seed=0, cost=cost, budget=Budget(max_flops=costs[3]))
        assert sorted(drain(search)) == sorted(c for c in CHAIN.enumerate() if cost(c)["flops"] <= costs[3])

    def test_a_tight_budget_in_a_space_too_large_to_enumerate(self, make):
        cost = cost_of(LARGE)
        smallest = Architecture(["conv3@32", *["skip"] * 5] * 4)
        cap = cost(smallest)["num_parameters"]
        assert drain(make(LARGE, seed=0, cost=cost, budget=Budget(max_parameters=cap))) == [smallest]
        # One more operator in any one stage: 4 children, none of which a random draw ever meets.
        larger = cost(Architecture(["conv3@32", "conv3@32", *["skip"] * 4, *smallest[6:]]))["num_parameters"]
        assert len(drain(make(LARGE, seed=0, cost=cost, budget=Budget(max_parameters=larger)))) > 4

    def test_a_space_with_one_child(self, make):
        search = make(SINGLE, seed=0)
        assert drain(search) == [("ffn", "ffn", "ffn")]
        assert search.ask() == []

    def test_asks_the_same_again_until_all_are_told(self, make):
        search = make(CHAIN, seed=0, batch_size=4)
        first = search.ask()
        assert search.ask() == first
        search.tell(first[1:3], [1.0, 2.0])
        assert search.ask() == [first[0], first[3]]
        search.tell([first[3], first[0]], [3.0, 4.0])
        assert not set(search.ask()) & set(first)

    def test_same_seed_same_answer_and_another_seed_another(self, make):
        assert drain(make(CHAIN, seed=3), 3) == drain(make(CHAIN, seed=3), 3)
        assert drain(make(CHAIN, seed=3), 3) != drain(make(CHAIN, seed=4), 3)

    def test_leaves_the_global_generator_alone(self, make):
        state = random.getstate()
        drain(make(CHAIN, seed=0))
        assert random.getstate() == state

    @pytest.mark.parametrize("num_batches", [1, 17])
    @pytest.mark.parametrize("space", [CHAIN, LARGE], ids=["chain", "large"])
    def test_resumes_from_its_state_as_if_it_had_never_stopped(self, make, space, num_batches):
        expected = drain(make(space, seed=0, batch_size=20), 19)
        first = make(space, seed=0, batch_size=20)
        head = drain(first, num_batches)
        first.tell(first.ask()[:3], score(first.ask()[:3]))  # in the middle of a batch
        second = make(space, seed=0, batch_size=20)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert second.best() == first.best()
        assert head + expected[len(head) : len(head) + 3] + drain(second, 19 - num_batches) == expected

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
        stranger = Architecture(["ffn", "skip", "skip", "skip", "skip"])
        search.tell([stranger], [-100.0])
        drain(search, 3)
        assert search.best() == Scored(stranger, -100.0)
        assert stranger not in search.ask()
        search.tell([stranger], [100.0])  # the first score stays
        assert search.best().score == -100.0
        scores = [scored.score for scored in search.ranking()]
        assert scores == sorted(scores)
        assert len(scores) == 31

    def test_scores_that_are_not_finite_rank_last_and_never_win(self, make):
        def broken(children):
            return [bad if "attention" in child else value for child, value, bad in zip(
                children, score(children), [math.nan, math.inf, -math.inf] * len(children), strict=False)]  # fmt: skip

        search = make(CHAIN, seed=0, batch_size=10)
        asked = drain(search, 5, broken)
        assert "attention" not in search.best().architecture
        finite = [child for child in asked if "attention" not in child]
        assert [scored.architecture for scored in search.ranking()][: len(finite)] == sorted(
            finite, key=lambda child: score([child])
        )
        all_broken = make(CHAIN, seed=0, batch_size=10)
        assert len(drain(all_broken, 20, lambda children: [math.nan] * len(children))) == 200
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
        assert {sum(name != "skip" for name in child) for child in drain(both)} == {3}
        with pytest.raises(ValueError, match="no child within the budget"):
            make(CHAIN, seed=0, cost=cost, budget=Budget(max_parameters=2, max_latency_ms=3.0))

    def test_caps_that_can_be_met_together_are_met_far_from_any_cheapest_child(self, make):
        def cost(child):
            depth = sum(name != "skip" for name in child)
            return {"num_parameters": depth, "latency_ms": 30.0 - depth}

        far = make(LARGE, seed=0, cost=cost, budget=Budget(max_parameters=10, max_latency_ms=20.0), batch_size=5)
        assert {sum(name != "skip" for name in child) for child in drain(far, 2)} == {10}

    def test_the_one_child_that_meets_two_caps_is_found_also_where_going_downhill_gets_stuck(self, make):
        table = {(0, "ffn"): (8, 0.0), (1, "ffn"): (5, 2.5), (2, "ffn"): (5, 2.5)}

        def cost(child):
            pairs = [table.get(place, (0, 6.0)) for place in enumerate(child)]
            return {"num_parameters": sum(pair[0] for pair in pairs), "latency_ms": sum(pair[1] for pair in pairs)}

        space = SearchSpace.chain(num_choice_blocks=3, operators=("attention", "ffn"))
        search = make(space, seed=0, cost=cost, budget=Budget(max_parameters=10, max_latency_ms=11.0))
        assert drain(search) == [("attention", "ffn", "ffn")]

    def test_where_draws_run_dry_the_rest_comes_in_an_order_of_the_seed(self, make, monkeypatch):
        monkeypatch.setattr("hf_nasbert.search._NUM_DRAWS", 0)
        first, second = (drain(make(CHAIN, seed=seed)) for seed in (0, 1))
        assert sorted(first) == sorted(second) == sorted(CHAIN.enumerate())
        assert first != second

    def test_bad_requests_are_refused_by_name(self, make):
        with pytest.raises(ValueError, match="batch_size"):
            make(CHAIN, seed=0, batch_size=0)
        with pytest.raises(ValueError, match="give `cost`"):
            make(CHAIN, seed=0, budget=Budget(max_flops=1e9))
        with pytest.raises(ValueError, match="latency_ms"):
            make(CHAIN, seed=0, cost=cost_of(CHAIN), budget=Budget(max_latency_ms=1e9))
        cost = cost_of(CHAIN)
        search = make(CHAIN, seed=0, cost=cost, budget=Budget(max_parameters=median_parameters(CHAIN)))
        with pytest.raises(ValueError, match="conv9"):
            search.tell([["conv9"] * 5], [1.0])
        with pytest.raises(ValueError, match="over the budget"):
            search.tell([max(CHAIN.enumerate(), key=lambda child: cost(child)["num_parameters"])], [1.0])
        with pytest.raises(ValueError, match="1 architectures were told with 2 scores"):
            search.tell([CHAIN.child_at(0)], [1.0, 2.0])
        assert search.history == []

    def test_a_run_resumed_from_any_prefix_of_its_history_ends_the_same(self, make, tmp_path):
        search = make(CHAIN, seed=0, batch_size=8)
        straight = run_search(search, score, num_evaluations=60, history_path=tmp_path / "a")
        assert len(straight) == 60
        lines = (tmp_path / "a").read_bytes().splitlines(keepends=True)
        assert len(lines) == 61
        for kept, torn in [(0, 0), (1, 0), (6, 9), (9, 0), (50, 30), (61, 0)]:
            path, scored = tmp_path / f"b{kept}", []
            rest = lines[kept][:torn] if torn else b""
            path.write_bytes(b"".join(lines[:kept]) + rest)

            def watched(children, scored=scored):
                scored.extend(children)
                return score(children)

            search = make(CHAIN, seed=0, batch_size=8)
            assert run_search(search, watched, num_evaluations=60, history_path=path) == straight
            assert len(scored) == 60 - max(0, kept - 1)
            assert [r["architecture"] for r in records.read(path)[1:]] == [
                r["architecture"] for r in records.read(tmp_path / "a")[1:]
            ]

    def test_a_run_can_be_extended(self, make, tmp_path):
        straight = run_search(make(CHAIN, seed=0, batch_size=8), score, num_evaluations=50)
        search = make(CHAIN, seed=0, batch_size=8)
        assert len(run_search(search, score, num_evaluations=13, history_path=tmp_path / "a")) == 13
        assert run_search(search, score, num_evaluations=50) == straight
        again = make(CHAIN, seed=0, batch_size=8)
        assert run_search(again, score, num_evaluations=50, history_path=tmp_path / "a") == straight


class TestRandomSearch(SearchContract):
    @pytest.fixture
    def make(self):
        return RandomSearch

    def test_draws_uniformly_among_the_children_within_the_budget(self):
        space = SearchSpace.chain(num_choice_blocks=2, operators=OPERATORS)
        cost = cost_of(space)
        cap = sorted(cost(child)["num_parameters"] for child in space.enumerate())[7]
        affordable = [child for child in space.enumerate() if cost(child)["num_parameters"] <= cap]
        counts = dict.fromkeys(affordable, 0)
        for seed in range(2000):
            search = RandomSearch(space, seed=seed, cost=cost, budget=Budget(max_parameters=cap), batch_size=1)
            counts[search.ask()[0]] += 1
        assert max(counts.values()) / min(counts.values()) < 1.4


class TestEvolutionarySearch(SearchContract):
    @pytest.fixture
    def make(self):
        return lambda space, **keywords: EvolutionarySearch(space, **{"population_size": 30, **keywords})

    def test_finds_better_children_than_random_search_in_as_many_evaluations(self):
        def mean_best(search_class):
            return sum(
                run_search(search_class(LARGE, seed=seed, batch_size=25), score, num_evaluations=250)[0].score
                for seed in range(4)
            )

        assert mean_best(EvolutionarySearch) < mean_best(RandomSearch) - 4 * 1.0

    def test_offspring_stay_close_to_the_best_parents(self):
        search = EvolutionarySearch(
            LARGE, seed=0, population_size=40, num_parents=1, batch_size=40, crossover_share=0.0, max_changes=2
        )
        drain(search, 1)
        parent = search.best().architecture
        distances = [sum(a != b for a, b in zip(child, parent, strict=True)) for child in search.ask()]
        assert set(distances) == {1, 2}

    def test_crossover_mixes_two_parents(self):
        search = EvolutionarySearch(
            LARGE, seed=0, population_size=2, num_parents=2, batch_size=2, crossover_share=1.0, max_changes=1
        )
        drain(search, 1)
        first, second = (scored.architecture for scored in search.ranking())
        search.batch_size = 50
        nearest = [
            min(sum(a != b for a, b in zip(child, parent, strict=True)) for parent in (first, second))
            for child in search.ask()
        ]
        assert max(nearest) > 1

    @pytest.mark.parametrize(
        ("name", "value"),
        [("population_size", 0), ("num_parents", 0), ("max_changes", 0), ("crossover_share", 1.5)],
    )
    def test_bad_settings_are_refused_by_name(self, name, value):
        with pytest.raises(ValueError, match=name):
            EvolutionarySearch(CHAIN, seed=0, **{name: value})

    def test_its_settings_are_part_of_its_state(self):
        state = EvolutionarySearch(CHAIN, seed=0, num_parents=5).state_dict()
        with pytest.raises(ValueError, match=r"num_parents \(5 there, 6 here\)"):
            EvolutionarySearch(CHAIN, seed=0, num_parents=6).load_state_dict(state)
        with pytest.raises(ValueError, match="search"):
            RandomSearch(CHAIN, seed=0).load_state_dict(state)


def test_the_history_holds_every_score_and_cost(tmp_path):
    cost = cost_of(CHAIN)
    search = RandomSearch(CHAIN, seed=0, cost=cost, budget=Budget(max_flops=1e12), batch_size=4)
    broken = iter([math.nan])
    path = tmp_path / "h"
    ranking = run_search(
        search, lambda children: [next(broken, s) for s in score(children)], num_evaluations=6, history_path=path
    )
    head, *children = records.read(tmp_path / "h")
    assert head["settings"]["space"] == CHAIN.to_dict()
    assert head["settings"]["budget"] == {"flops": 1e12}
    assert "torch" in head["versions"]
    assert [record["score"] for record in children] == [None, *score([c for c, _ in search.history[1:]])]
    assert all(record["cost"] == cost(Architecture.parse(record["architecture"])) for record in children)
    assert ranking[-1].score == math.inf
    again = RandomSearch(CHAIN, seed=0, cost=cost, budget=Budget(max_flops=1e12), batch_size=4)
    assert run_search(again, None, num_evaluations=6, history_path=tmp_path / "h") == ranking


def test_the_history_of_something_else_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "h"
    run_search(RandomSearch(CHAIN, seed=0), score, num_evaluations=3, history_path=path, about={"supernet": "a"})
    before = path.read_bytes()
    for search, about, word in [
        (RandomSearch(CHAIN, seed=1), {"supernet": "a"}, "seed"),
        (EvolutionarySearch(CHAIN, seed=0), {"supernet": "a"}, "search"),
        (RandomSearch(STAGED, seed=0), {"supernet": "a"}, "space"),
        (RandomSearch(CHAIN, seed=0), {"supernet": "b"}, "about"),
        (RandomSearch(CHAIN, seed=0), None, "about"),
    ]:
        with pytest.raises(ValueError, match=rf"h is of another search.*{word}"):
            run_search(search, score, num_evaluations=5, history_path=path, about=about)
    assert path.read_bytes() == before
    other = tmp_path / "other"
    records.append(other, {"loss": 1.0})
    with pytest.raises(ValueError, match="not the history of a search"):
        run_search(RandomSearch(CHAIN, seed=0), score, num_evaluations=5, history_path=other)


def test_a_wrong_number_of_scores_is_refused():
    with pytest.raises(ValueError, match="1 scores for 50 architectures"):
        run_search(RandomSearch(CHAIN, seed=0), lambda children: [1.0], num_evaluations=60)


def test_a_run_stops_when_the_space_is_exhausted_and_shows_the_best(capsys):
    ranking = run_search(RandomSearch(SINGLE, seed=0), lambda c: [0.5] * len(c), num_evaluations=99, progress=True)
    assert ranking == [Scored(Architecture(["ffn"] * 3), 0.5)]
    assert "best=0.5000" in capsys.readouterr().err


PROGRAM = """
import sys, time
sys.path.insert(0, sys.argv[2])
from test_search import *

def slow(children):
    time.sleep(0.02)
    return score(children)

run_search(EvolutionarySearch(CHAIN, seed=0, batch_size=4, population_size=12), slow, num_evaluations=100,
           history_path=sys.argv[1])
"""


def test_a_search_killed_at_any_moment_ends_as_if_it_had_not_been(tmp_path):
    make = {"seed": 0, "batch_size": 4, "population_size": 12}
    expected = run_search(EvolutionarySearch(CHAIN, **make), score, num_evaluations=100)
    path = tmp_path / "history.jsonl"
    for wanted in (2_000, 6_000):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path), os.path.dirname(__file__)])  # noqa: PTH120
        deadline = time.monotonic() + 20
        while not (path.exists() and path.stat().st_size > wanted) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert 2 < len(records.read(path)) < 101
    assert run_search(EvolutionarySearch(CHAIN, **make), score, num_evaluations=100, history_path=path) == expected
    assert len(records.read(path)) == 101


def test_searching_needs_neither_torch_nor_transformers():
    program = "import sys, hf_nasbert.search; raise SystemExit(bool({'torch', 'transformers'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
