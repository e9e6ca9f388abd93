"""Policies that are replayed on tables: what each chooses by, and what it pays, on a made-up case and on `imdb`."""

import random
from pathlib import Path

import numpy as np
import pytest
from tiny.minilm import SPACE, benchmark

from hf_nasbert.ranking import load_table

SEEDS = range(6)
_MOST_DRAWN = 43  # children that a policy with a model trains


@pytest.fixture(scope="module")
def regret():
    with benchmark("regret") as module:
        yield module


def worth(child):
    """A sum over blocks, no two children alike."""
    parts = {"attention": 0.0, "attention6": 0.11, "skip": 0.53, "ffn": 0.0, "ffn8": 0.23, "norm": 0.71}
    return 1 + sum(parts[name] / (1 + 0.7 * block) for block, name in enumerate(child))


@pytest.fixture(scope="module")
def case(regret):
    """150 children whose losses are sums; the super-net `good` knows them, one of two adapted rankings too."""
    children = random.Random(0).sample(list(SPACE.enumerate()), 150)
    seen = {child: worth(child) for child in children}
    order = sorted(seen, key=seen.__getitem__)
    return regret.Case(
        SPACE, seen, seen, {child: [-loss, loss, loss, loss] for child, loss in seen.items()},
        {"whole": children, "screened": order[::2]}, {"super-net, good": regret.Ranking([seen], 5.0)}, {}, 0.8,
        {"steps": regret.Ranking([seen], 2.0, 0.1)}, screening=1.5,
    )  # fmt: skip


def ends(policy, case):
    """The child that a policy ends with, and what it has spent, under some seeds."""
    return [list(policy(case, random.Random(seed)))[-1] for seed in SEEDS]


def test_a_model_of_trained_children_says_which_to_train_next(regret, case):
    def regret_of(policy):
        return np.mean([case.regret(child) for _, child in ends(policy, case)])

    by_chance = np.mean(
        [case.regret(list(regret.at_random("whole")(case, random.Random(s)))[_MOST_DRAWN - 1][1]) for s in SEEDS]
    )
    for policy in (
        regret.modelled("whole"), regret.modelled("whole", has_shared=True), regret.active, regret.trees,
        regret.adapting("steps", 30),
    ):  # fmt: skip
        assert regret_of(policy) < by_chance / 4


def test_what_is_trained_and_scored_is_paid_for(regret, case):
    at_random, halved, additive = (
        [spent for spent, _ in policy("whole")(case, random.Random(0))]
        for policy in (regret.at_random, regret.halving, regret.modelled)
    )
    assert at_random[:3] == pytest.approx([1, 1.8, 2.6])
    assert halved[0] == pytest.approx(0.2 + 0.8 * (4 + 2 + 1 + 1) / 4)
    assert additive[0] == pytest.approx(1 + (5 + 3 - 1) * 0.8)
    for policy, unscreened in zip(
        (regret.at_random, regret.halving, regret.modelled), (at_random, halved, additive), strict=True
    ):
        spent, _ = next(iter(policy("screened")(case, random.Random(0))))
        assert spent == pytest.approx(unscreened[0] + 1.5)
    (spent, _), *_ = regret.modelled("screened", "super-net, good")(case, random.Random(0))
    assert spent == pytest.approx(5 + 1 + 7 * 0.8), "a ranking's price holds what screens its space"
    (spent, _), (more, _), *_ = regret.ranked("super-net, good")(case, random.Random(0))
    assert (spent, more) == pytest.approx((6, 6.8))
    (spent, _), *_ = regret.adapting("steps", 15)(case, random.Random(0))
    assert spent == pytest.approx(2 + 15 * 0.1 + 1)


def test_halving_goes_by_what_a_curve_says_at_each_look(regret, case):
    """The first look turns the order round, so that the best of those drawn is dropped there."""
    _, child = next(iter(regret.halving("whole")(case, random.Random(1))))
    drawn = sorted(random.Random(1).sample(list(case.pools["whole"]), 4), key=case.seen.__getitem__)
    assert child == drawn[2], "the better one of the two worst"


def test_of_equal_scores_any_child_may_be_the_first(regret, case):
    equal = regret.Ranking([dict.fromkeys(case.seen, 0.0)], 0.0)
    case.rankings["equal"] = equal
    first = {next(iter(regret.ranked("equal")(case, random.Random(seed))))[1] for seed in range(5)}
    del case.rankings["equal"]
    assert len(first) > 1


def test_what_is_near_the_sums_is_never_drawn_for_a_model(regret, case):
    import dataclasses

    few = list(case.seen)[:12]
    rest = dataclasses.replace(case, near=frozenset(case.seen) - {*few})
    for policy in (regret.active, regret.trees):
        (_, child), *_ = policy(rest, random.Random(0))
        assert child in few
    assert rest.drawable(case.seen) == few


def test_of_policies_within_the_noise_the_cheapest_is_named(regret):
    def replays(*steps):
        return [[regret.Replay([spent for spent, _ in steps], [left for _, left in steps], [0.0] * len(steps))]]

    found = {"cheap": replays((1, 1.0)), "best": replays((8, 0.7)), "worse": replays((1, 3.0))}
    assert [name for name, _ in regret.winners(found, (10,), 0.5)] == ["cheap"]
    assert [name for name, _ in regret.winners(found, (10,), 0.1)] == ["best"]
    assert regret.ties(found, 10, 0.5) == ["best", "cheap"]
    rows = [{"architecture": "a", "seed": seed, "dev_loss": loss} for seed, loss in ((0, 2.0), (1, 2.1), (2, 9.0))]
    assert regret.noise_of([*rows, {"architecture": "b", "seed": 0, "dev_loss": 1.0}]) == pytest.approx(5)


def test_the_case_of_imdb_pays_for_super_nets_and_looks_where_the_curves_do(regret):
    rows = load_table("imdb")
    recipe, (row, *_) = rows[0]["recipe"], [row for row in rows if row["seed"] == 0]
    case = regret.imdb_cases(Path(regret.RECORDS))["all"]
    per_batch = recipe["dev_batch_size"] / recipe["train_batch_size"]
    training = 3 * recipe["max_steps"] + recipe["num_dev_batches"] * per_batch
    scored = case.rankings["super-net, uniform at half time"]
    assert scored.price * training == pytest.approx(3 * recipe["max_steps"] + 243 * 16 * per_batch)
    adapted = case.adapted["25 steps from a super-net"]
    assert adapted.price * training == pytest.approx(6 * recipe["max_steps"])
    assert adapted.of_each * training == pytest.approx(75 + 16 * per_batch)
    at = {step / recipe["max_steps"]: loss for step, loss in row["curve"]}
    child = next(child for child in case.seen if str(child) == row["architecture"])
    assert case.curves[child] == [at[share] for share in case.shares]
    assert case.shares[-1] == 1
    assert all(share >= quarter / 4 for quarter, share in enumerate(case.shares, start=1))
