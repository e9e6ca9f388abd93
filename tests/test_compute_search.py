"""A search under a compute budget: what is divided how, replayed on our table; and halving over steps."""

import random
from bisect import bisect_right
from pathlib import Path

import pytest

from hf_nasbert import records
from hf_nasbert.costs import Budget
from hf_nasbert.native import ListedChildren
from hf_nasbert.ranking import GroundTruth, load_table
from hf_nasbert.searching import (
    OperatorRidge,
    Prices,
    RegularizedEvolution,
    SearchTask,
    TrainedHalving,
    calibrated,
    plan_compute,
    plan_for,
    random_children,
    run_search,
    search_under_compute,
)
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.testing.searches import CHAIN, cost, score

RECORDS = Path(__file__).parents[1] / "benchmarks" / "records"
PRICES = Prices(score=64, step=3, judge=64, training=3 * 1200 + 480)
"""Of our table: 16 dev batches of 64 sequences and training batches of 16; 1,200 steps to the end."""


def planned(trainings, num_children=243, prices=PRICES):
    return plan_compute(trainings * prices.training, prices, num_children=num_children)


class TestPlan:
    @pytest.mark.parametrize("trainings", [0.02, 0.4, 0.6, 1, 2, 2.5, 3, 5, 12, 40, 1000])
    @pytest.mark.parametrize("num_children", [10, 20, 243])
    def test_never_spends_more_than_it_has(self, trainings, num_children):
        plan = planned(trainings, num_children)
        assert plan.passes <= plan.budget
        assert max(plan.num_scored, plan.num_adapted, plan.num_drawn + plan.num_best) <= num_children
        assert plan.num_scored == 0 or plan.num_adapted == 0

    def test_what_it_decides(self):
        assert planned(0.4).num_scored == 25
        assert (planned(1).num_adapted, planned(1).num_best) == (29, 0)
        assert planned(2.4).num_adapted == 30
        assert planned(2.4).num_steps == 87
        assert (planned(3).num_adapted, planned(3).num_steps, planned(3).num_best) == (15, 69, 2)
        assert (planned(5).num_adapted, planned(5).num_best, planned(5).num_drawn) == (30, 3, 0)
        assert (planned(40).num_drawn, planned(40).num_best) == (15, 23)
        assert (planned(1000).num_steps, planned(1000).num_best) == (100, 243 - 15), "all are trained, none for longer"

    def test_more_compute_never_trains_fewer(self):
        trained = [planned(quarter / 4).num_best + planned(quarter / 4).num_drawn for quarter in range(1, 200)]
        assert trained == sorted(trained)

    def test_says_it_in_one_line(self):
        assert str(planned(5)) == (
            "20,400 passes (5.00 trainings of a child): adapt 30 children for 69 steps (40 %), then train 3 children "
            "alone, predicted best (60 %)"
        )
        assert str(planned(0.4)).endswith("score 25 children (98 %)")

    def test_no_child_above_the_caps_is_counted(self):
        """Of 120 children few keep to the cap: what is planned for others would be spent on nothing."""
        for cap in (1100, 1150, 1300, None):
            task = SearchTask(CHAIN, seed=0, cost=cost, budget=Budget() if cap is None else Budget(max_parameters=cap))
            within = sum(task.why_not(child) is None for child in CHAIN.enumerate())
            for trainings in (0.4, 3, 12, 40, 1000):
                plan = plan_for(task, trainings * PRICES.training, PRICES)
                assert plan == planned(trainings, within)
                assert max(plan.num_scored, plan.num_adapted, plan.num_drawn + plan.num_best) <= within
        assert within == CHAIN.num_children

    def test_too_little_for_anything_is_refused(self):
        with pytest.raises(ValueError, match=r"a compute budget of 40.8 passes scores no child, which takes 64"):
            planned(0.01)


class Replay:
    """Hands that look up what was trained once."""

    def __init__(self, steps, adapted, trained):
        self.steps, self.adapted, self.trained = steps, adapted, trained
        self.asked = []

    def adapt(self, children, num_steps):
        self.asked.append((num_steps, list(children)))
        place = bisect_right(self.steps, num_steps) - 1
        return [self.adapted[child][place] for child in children]

    def train(self, children):
        self.asked.append(("alone", list(children)))
        return [self.trained[child] for child in children]


def search(space, seed, plan, hands, **task):
    task = SearchTask(space, seed=seed, **task)

    def explore(predict):
        return run_search(RegularizedEvolution(task), predict, num_evaluations=300)

    return search_under_compute(task, plan, hands, explore)


def test_drawn_children_that_were_adapted_too_are_foretold_by_the_others():
    task, plan, rng = SearchTask(CHAIN, seed=0, cost=cost), planned(40, CHAIN.num_children), random.Random(0)
    children = list(CHAIN.enumerate())
    adapted, trained = ({child: rng.gauss(0, 1) for child in children} for _ in range(2))
    foretold = []

    def explore(predict):
        foretold.extend(predict(children))
        return []

    search_under_compute(task, plan, Replay([0], {child: [loss] for child, loss in adapted.items()}, trained), explore)
    sample, drawn = random_children(task, plan.num_adapted), random_children(task, plan.num_drawn)
    assert set(sample) & set(drawn)
    model = OperatorRidge(CHAIN.blocks).fit(sample, [adapted[child] for child in sample])
    left_out, in_sample = (
        calibrated(CHAIN.blocks, {child: trained[child] for child in drawn}, score, sample)(children)
        for score in (model.predict_left_out, model.predict)
    )
    assert foretold == pytest.approx(left_out)
    assert foretold != pytest.approx(in_sample)


@pytest.fixture(scope="module")
def table():
    truth = GroundTruth(load_table("imdb"), containing="conv3")
    return truth, dict(zip(truth.architectures, truth.loss.tolist(), strict=True))


def recorded():
    """What the pilot adapted, of the three super-nets at their end."""
    for record in records.read(RECORDS / "ranking-adapted.jsonl.gz"):
        if record["step"] == record["max_steps"]:
            yield (
                record["steps"],
                {Architecture.parse(child): losses for child, losses in record["dev_losses"].items()},
            )


def ranks(trainings, table, *, is_blind=False, seeds=range(8)):
    """The true rank of what is found with so much compute, mean over seeds and super-nets."""
    truth, loss_of = table
    found = []
    for steps, adapted in recorded():
        space = ListedChildren(truth.space, tuple(adapted))
        order = sorted(loss_of[child] for child in adapted)
        if is_blind:
            adapted = {child: [random.Random(str(child)).random()] * len(steps) for child in adapted}
        for seed in seeds:
            plan = planned(trainings, space.num_children)
            best = search(space, seed, plan, Replay(steps, adapted, loss_of))[0][0]
            found.append(1 + order.index(loss_of[best.architecture]))
    return sum(found) / len(found)


def test_five_trainings_find_one_of_the_best_where_training_at_random_does_not(table):
    """Of 40 and 60 children: the best of five trained at random has a mean rank of 7; and adaptation is what helps."""
    _, loss_of = table
    at_random = []
    for _, adapted in recorded():
        order = sorted(loss_of[child] for child in adapted)
        for seed in range(40):
            drawn = random.Random(seed).sample(sorted(adapted), 5)
            at_random.append(1 + min(order.index(loss_of[child]) for child in drawn))
    assert ranks(5, table) < 2 < 5 < sum(at_random) / len(at_random)
    assert ranks(5, table, is_blind=True) > 4


def test_more_compute_finds_better_children(table):
    found = [ranks(trainings, table, seeds=range(4)) for trainings in (1, 3, 5, 12)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(1, abs=0.1)


class TestSearchUnderCompute:
    ADAPTED = {child: [loss] for child, loss in zip(CHAIN.enumerate(), score(list(CHAIN.enumerate())), strict=True)}
    TRAINED = {child: 10 - losses[0] for child, losses in ADAPTED.items()}  # the other way round

    def hands(self):
        return Replay([0], self.ADAPTED, self.TRAINED)

    def test_asks_what_its_plan_says_and_puts_the_trained_ones_first(self):
        plan, hands = planned(6, 120), self.hands()
        ranking, num_trained = search(CHAIN, 0, plan, hands)
        assert [(what, len(children)) for what, children in hands.asked] == [(plan.num_steps, 30), ("alone", 4)]
        assert num_trained == 4
        trained = ranking[:4]
        assert [one.score for one in trained] == sorted(self.TRAINED[one.architecture] for one in trained)
        assert len({one.architecture for one in ranking}) == len(ranking) == 120
        predicted = [one.score for one in ranking[4:]]
        assert predicted == sorted(predicted)

    def test_the_predicted_best_are_trained(self):
        hands = self.hands()
        search(CHAIN, 0, planned(6, 120), hands)
        (_, sample), (_, trained) = hands.asked
        model = OperatorRidge(CHAIN.blocks).fit(sample, [self.ADAPTED[child][0] for child in sample])
        children = list(CHAIN.enumerate())
        predicted = dict(zip(children, model.predict(children), strict=True))
        assert set(trained) == set(sorted(children, key=predicted.get)[:4])

    def test_much_compute_calibrates_by_drawn_children_and_so_turns_a_wrong_prediction_round(self):
        plan, hands = planned(40, 120), self.hands()
        assert plan.num_drawn == 15
        ranking, _ = search(CHAIN, 0, plan, hands)
        drawn, best = (children for what, children in hands.asked if what == "alone")
        assert (len(drawn), len(best)) == (15, plan.num_best)
        assert not set(drawn) & set(best)
        order = sorted(self.TRAINED.values())
        assert order.index(ranking[0].score) < 3

    def test_keeps_to_the_budget_of_costs_and_ends_the_same_under_one_seed(self):
        caps = {"cost": cost, "budget": Budget(max_parameters=1150)}
        runs = []
        for _ in range(2):
            hands = self.hands()
            search(CHAIN, 3, planned(6, 120), hands, **caps)
            runs.append(hands.asked)
        assert runs[0] == runs[1]
        assert all(cost(child)["num_parameters"] <= 1150 for _, children in runs[0] for child in children)

    def test_random_children_are_all_there_are_at_most(self):
        task = SearchTask(SearchSpace.chain(2, ("ffn", "conv3")), seed=0)
        assert len(set(random_children(task, 30))) == len(random_children(task, 30)) == 4
        assert random_children(task, 3) == random_children(task, 4)[:3]


def curve_losses(trained, children, num_batches=None):
    """The losses of children of a table after so many steps of their training, or at its end."""
    rows = [trained[child] for child in children]
    return [row["dev_loss"] if num_batches is None else dict(row["curve"])[num_batches] for row in rows]


class TestTrainedHalving:
    def rows(self):
        return {Architecture.parse(r["architecture"]): r for r in load_table("imdb")
                if r["seed"] == 0}  # fmt: skip

    def test_replayed_on_the_curves_of_our_table_it_finds_a_good_child_for_less(self):
        trained, regrets = self.rows(), {"halving": [], "random": []}
        space = SearchSpace.chain(5, ("attention", "ffn", "conv3"))
        best = min(record["dev_loss"] for record in trained.values())
        for seed in range(20):
            halving = TrainedHalving(
                SearchTask(space, seed=seed), min_steps=200, max_steps=1200, reduction=3, bracket_size=45
            )
            found = run_search(halving, lambda c, **part: curve_losses(trained, c, **part), num_evaluations=20)
            assert 0 < len(found) < 20
            regrets["halving"].append(found[0].score - best)
            drawn = random_children(SearchTask(space, seed=seed), 20)
            regrets["random"].append(min(curve_losses(trained, drawn)) - best)
        assert sum(regrets["halving"]) < 0.9 * sum(regrets["random"])

    def test_rungs_are_steps_and_only_the_last_counts(self):
        halving = TrainedHalving(SearchTask(CHAIN, seed=0), min_steps=2, max_steps=10, reduction=2, bracket_size=8)
        asked = []

        def train(children, num_batches=None):
            asked.append((num_batches, len(children)))
            return score(children)

        found = run_search(halving, train, num_evaluations=6)
        assert asked[:4] == [(2, 8), (4, 4), (8, 2), (None, 1)]
        assert len(found) < 6
        assert halving.settings["max_steps"] == 10

    def test_refusals(self):
        task = SearchTask(CHAIN, seed=0)
        with pytest.raises(ValueError, match="max_steps=6 must be above min_steps=6: there is nothing to save"):
            TrainedHalving(task, max_steps=6)
