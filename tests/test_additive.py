"""The additive model and what is calibrated by it: a planted truth, our records of real children, refusals."""

import random
from pathlib import Path

import numpy as np
import pytest

from hf_nasbert import records
from hf_nasbert.metrics import kendall_tau
from hf_nasbert.ranking import GroundTruth, calibrations, load_table, proxy_losses, report
from hf_nasbert.searching import OperatorRidge, calibrated, shared_ridge
from hf_nasbert.space import Architecture, SearchSpace

RECORDS = Path(__file__).parents[1] / "benchmarks" / "records"
SPACE = SearchSpace.chain(5, ("attention", "ffn", "conv3"))
CHILDREN = list(SPACE.enumerate())
WORTH = {(block, name): random.Random(f"{block} {name}").random() for block, names in enumerate(SPACE.blocks)
         for name in names}  # fmt: skip


def planted(child):
    return 5.0 + sum(WORTH[place] for place in enumerate(child))


def tau(predicted, children=CHILDREN, truth=planted):
    return kendall_tau(predicted, [truth(child) for child in children])


class TestOperatorRidge:
    def test_finds_a_planted_sum_from_few_children(self):
        few = random.Random(0).sample(CHILDREN, 30)
        model = OperatorRidge(SPACE.blocks, penalties=(1e-6,)).fit(few, [planted(child) for child in few])
        assert model.predict(CHILDREN) == pytest.approx([planted(child) for child in CHILDREN], abs=1e-4)
        for block, names in enumerate(SPACE.blocks):
            effects = [model.effects[block, (name,)] for name in names]
            assert np.diff(effects) == pytest.approx(np.diff([WORTH[block, name] for name in names]), abs=1e-4)

    def test_ranks_better_by_more_children(self):
        taus = []
        for number in (3, 10, 30):
            few = random.Random(0).sample(CHILDREN, number)
            noisy = [planted(child) + random.Random(str(child)).gauss(0, 0.3) for child in few]
            taus.append(tau(OperatorRidge(SPACE.blocks).fit(few, noisy).predict(CHILDREN)))
        assert taus == sorted(taus)
        assert taus[-1] > 0.7

    def test_says_where_a_block_matters_and_not_only_how_often(self):
        """Which counts of operators could not: the same operator is good in one block and bad in another."""

        def by_place(child):
            return float(child[0] == "ffn") - float(child[4] == "ffn")

        few = random.Random(1).sample(CHILDREN, 40)
        model = OperatorRidge(SPACE.blocks).fit(few, [by_place(child) for child in few])
        assert model.effects[0, ("ffn",)] > 0.3 > -0.3 > model.effects[4, ("ffn",)]

    def test_children_without_a_finite_loss_say_nothing(self):
        few = CHILDREN[::9]
        losses = [planted(child) for child in few]
        broken = OperatorRidge(SPACE.blocks).fit([*few, CHILDREN[1]], [*losses, float("nan")])
        assert broken.predict(CHILDREN) == OperatorRidge(SPACE.blocks).fit(few, losses).predict(CHILDREN)
        with pytest.raises(ValueError, match="none of 1 children has a finite loss"):
            OperatorRidge(SPACE.blocks).fit(few[:1], [float("inf")])

    def test_a_shared_part_says_of_a_block_what_was_seen_at_others(self):
        """Of eight children no one has a convolution at the first block; what it is worth elsewhere is known."""
        few = [child for child in CHILDREN if child[0] != "conv3"][::21]
        losses = [float(child.count("conv3") + 2 * child.count("ffn")) for child in few]
        model = shared_ridge(SPACE.blocks).fit(few, losses)
        assert len(few) == 8
        assert model.effects[0, ("attention",)] + 0.2 < model.effects[0, ("conv3",)] < model.effects[0, ("ffn",)] - 0.2
        apart = OperatorRidge(SPACE.blocks).fit(few, losses)
        assert apart.effects[0, ("conv3",)] == pytest.approx(0, abs=1e-9)

        def count(child):
            return child.count("conv3") + 2 * child.count("ffn")

        assert tau(model.predict(CHILDREN), truth=count) > tau(apart.predict(CHILDREN), truth=count) + 0.2
        assert model.predict(few) == pytest.approx(losses, abs=2), "effects that are shared are part of a prediction"

    def test_the_ridge_by_hand(self):
        """Two children of one block, losses 0 and 1: weights solve (X'X + I) w = X'y, X the centred one-hot rows."""
        model = OperatorRidge([("ffn", "conv3")]).fit([("ffn",), ("conv3",)], [0.0, 1.0])
        assert model.effects == pytest.approx({(0, ("ffn",)): -0.25, (0, ("conv3",)): 0.25})
        assert model.predict([("ffn",), ("conv3",)]) == pytest.approx([0.25, 0.75])


class TestCalibrated:
    @pytest.mark.parametrize("number", [2, 5, 8])
    def test_a_few_children_do_not_spoil_a_score_that_is_right(self, number):
        trained = {child: planted(child) for child in random.Random(4).sample(CHILDREN, number)}

        def score(children):
            return [3 * planted(child) - 40 for child in children]

        assert tau(calibrated(SPACE.blocks, trained, score, CHILDREN)(CHILDREN)) > 0.99

    def test_a_score_that_turns_the_order_round_is_left_out(self):
        trained = {child: planted(child) for child in random.Random(4).sample(CHILDREN, 12)}

        def score(children):
            return [-planted(child) for child in children]

        model = calibrated(SPACE.blocks, trained, score, CHILDREN)
        alone = shared_ridge(SPACE.blocks).fit(list(trained), list(trained.values()))
        assert model(CHILDREN) == pytest.approx(alone.predict(CHILDREN))
        assert tau(model(CHILDREN)) > 0.4

    def test_the_score_tells_what_is_not_additive_and_the_trained_children_what_is(self):
        def score(children):
            return [random.Random(str(child)).gauss(0, 0.6) for child in children]

        def truth(child):
            return planted(child) + score([child])[0]

        trained = {child: truth(child) for child in random.Random(3).sample(CHILDREN, 20)}
        together = tau(calibrated(SPACE.blocks, trained, score, CHILDREN)(CHILDREN), truth=truth)
        alone = shared_ridge(SPACE.blocks).fit(list(trained), list(trained.values())).predict(CHILDREN)
        assert together > tau(alone, truth=truth) + 0.1
        assert together > tau(score(CHILDREN), truth=truth) + 0.1

    def test_does_not_depend_on_who_is_asked_with_whom_nor_on_the_scale_of_the_score(self):
        trained = {child: planted(child) for child in CHILDREN[::20]}

        def score(children):
            return [float(CHILDREN.index(child) % 7) for child in children]

        model = calibrated(SPACE.blocks, trained, score, CHILDREN)
        one_by_one = [model([child])[0] for child in CHILDREN[:5]]
        assert one_by_one == pytest.approx(list(model(CHILDREN[:5])))
        other = calibrated(SPACE.blocks, trained, lambda c: [100 * x - 3 for x in score(c)], CHILDREN)
        assert other(CHILDREN) == pytest.approx(model(CHILDREN))

    @pytest.mark.parametrize("broken", [float("inf"), float("nan")])
    def test_a_child_without_a_finite_score_is_foretold_badly(self, broken):
        trained = {child: planted(child) for child in CHILDREN[::9]}

        def score(children):
            return [broken if child == CHILDREN[1] else planted(child) for child in children]

        losses = dict(zip(CHILDREN, calibrated(SPACE.blocks, trained, score, CHILDREN)(CHILDREN), strict=True))
        assert max(losses, key=losses.get) == CHILDREN[1]
        assert all(np.isfinite(list(losses.values())))


def test_a_child_that_was_learned_of_is_foretold_by_the_others():
    rng = random.Random(0)
    few = rng.sample(CHILDREN, 12)
    scores = [rng.gauss(0, 1) for _ in few]
    model = OperatorRidge(SPACE.blocks).fit(few, scores)
    found = dict(zip(CHILDREN, model.predict_left_out(CHILDREN), strict=True))
    for place, child in enumerate(few):
        others = OperatorRidge(SPACE.blocks).fit(few[:place] + few[place + 1 :], scores[:place] + scores[place + 1 :])
        assert found[child] == pytest.approx(others.predict([child])[0])
        assert abs(found[child] - scores[place]) > abs(model.predict([child])[0] - scores[place])
    unseen = [child for child in CHILDREN if child not in few]
    assert [found[child] for child in unseen] == model.predict(unseen)


@pytest.fixture(scope="module")
def truth():
    return GroundTruth(load_table("imdb"), containing="conv3")


@pytest.fixture(scope="module")
def uniform():
    """The super-nets of uniform sampling at half time and at their end."""
    found = [r for r in records.read(RECORDS / "ranking.jsonl.xz") if r["method"] == "uniform"]
    return {share: [r for r in found if r["step"] == share * r["max_steps"]] for share in (0.5, 1.0)}


@pytest.mark.slow
def test_calibration_beats_the_supernets_score_on_our_records(truth, uniform):
    page = (Path(__file__).parents[1] / "docs" / "search.md").read_text(encoding="utf-8")
    proxies = {"half": [proxy_losses(record, truth) for record in uniform[0.5]]}
    own = np.mean([kendall_tau(losses, truth.loss) for losses in proxies["half"]])
    for number, name in ((5, "calibrated: with the super-net at half time"), (15, "calibrated")):
        alone, half = calibrations(truth, number, proxies)
        assert (alone.name, half.name) == (f"{number} trained, additive", f"half, calibrated by {number}")
        assert half.num_children == len(truth.loss) - number
        taus = [one.measured["kendall_tau"].mean for one in (alone, half)]
        assert taus[1] > max(taus[0], own) + 0.003
        assert f"| additive on {number} children really trained | {taus[0]:.2f} | {number} |" in page
        assert f"| the same, {name} | {taus[1]:.2f} | {number} |" in page


def test_a_shared_part_ranks_better_on_our_records(truth, monkeypatch):
    shared = calibrations(truth, 15, {})[0].measured["kendall_tau"].mean
    monkeypatch.setattr("hf_nasbert.ranking.calibration.shared_ridge", OperatorRidge)
    apart = calibrations(truth, 15, {})[0].measured["kendall_tau"].mean
    assert shared > apart + 0.02
    page = (Path(__file__).parents[1] / "docs" / "search.md").read_text(encoding="utf-8")
    assert f"| additive on 15, without a shared part | {apart:.2f} | 15 |" in page


def test_every_draw_takes_another_super_net_of_a_method(truth, monkeypatch):
    monkeypatch.setattr("hf_nasbert.ranking.calibration._NUM_DRAWS", 4)
    good, bad = truth.loss, np.random.default_rng(0).permutation(truth.loss)
    kinds = {"good": [good], "bad": [bad], "both": [good, bad]}
    taus = {row.name.partition(",")[0]: row.measured["kendall_tau"].mean for row in calibrations(truth, 15, kinds)[1:]}
    assert taus["bad"] + 0.1 < taus["both"] < taus["good"] - 0.1


def test_the_report_has_calibrated_rows_where_they_are_asked_for(truth, uniform, monkeypatch):
    monkeypatch.setattr("hf_nasbert.ranking.study.baselines", lambda *_, **__: [])
    monkeypatch.setattr("hf_nasbert.ranking.calibration._NUM_DRAWS", 3)
    settings = {"num_resamples": 5}
    plain, asked = (report(truth, uniform[1.0][:2], calibrate=k, **settings) for k in (0, 8))
    assert "calibrated" not in plain.as_markdown()
    assert "| uniform, calibrated by 8 | 3 | 0." in asked.as_markdown()
    assert "| 8 trained, additive | 3 | 0." in asked.as_markdown()
    with pytest.raises(ValueError, match="calibrate=209: of 211 children in the table, 2 would be left to rank"):
        report(truth, uniform[1.0][:1], calibrate=209, **settings)


@pytest.mark.slow
def test_adaptation_mends_the_ranking_of_the_recorded_supernets(truth):
    """With no steps the model ranks little better than inherited losses do; 25 steps are worth a third more."""
    page = (Path(__file__).parents[1] / "docs" / "search.md").read_text(encoding="utf-8")
    loss_of = dict(zip(truth.architectures, truth.loss, strict=True))
    ends = [r for r in records.read(RECORDS / "ranking-adapted.jsonl.gz") if r["step"] == r["max_steps"]]
    assert [(record["seed"], len(record["dev_losses"])) for record in ends] == [(500, 60), (501, 40), (502, 40)]
    spans = {steps: [] for steps in (0, 25, 100)}
    for record in ends:
        losses = {Architecture.parse(child): values for child, values in record["dev_losses"].items()}
        children = sorted(losses)
        taus = {}
        for steps in (0, 25, 100):
            place, found = record["steps"].index(steps), []
            for draw in range(40):
                few = random.Random(draw).sample(children, 30)
                model = shared_ridge(truth.space.blocks).fit(few, [losses[child][place] for child in few])
                others = [child for child in loss_of if child not in few]
                found.append(kendall_tau(model.predict(others), [loss_of[child] for child in others]))
            taus[steps] = np.mean(found)
            spans[steps].append(taus[steps])
        assert taus[25] > taus[0] + 0.05
        assert taus[100] > taus[0] + 0.05
    for name, steps in (("that inherit, no step |", 0), ("adapted for 25 steps |", 25), ("for 100 steps |", 100)):
        assert f"{name} {min(spans[steps]):.2f} to {max(spans[steps]):.2f} |" in page
