"""`learned_distribution`, and the distribution: it moves to operators whose children do better, and draws follow."""

import math
import random
from collections import Counter

import pytest
from tiny.searches import CHAIN, new
from tiny.searches import score as made_up
from tiny.trainings import make_supernet, make_trainer, train_log

from hf_nasbert.costs import num_parameters
from hf_nasbert.methods import METHODS
from hf_nasbert.searching import SEARCHES
from hf_nasbert.space import Architecture, Distribution, SearchSpace
from hf_nasbert.testing import check_method
from hf_nasbert.testing.samplers import SPACES

TWO = SearchSpace.chain(1, ("attention", "ffn"))


def make(cost=None, **settings):
    config = make_supernet().config
    kind = METHODS["learned_distribution"]
    cost = (lambda child: num_parameters(config, child)) if cost is None else cost
    return kind(config.space, kind.Settings(**settings), cost=cost, seed=0, max_steps=10)


class TestDistribution:
    @pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
    def test_draws_are_children_and_all_of_them_come(self, space):
        distribution, rng = Distribution(space), random.Random(0)
        drawn = {distribution.draw(rng) for _ in range(min(20 * space.num_children, 3000))}
        assert all(child in space for child in drawn)
        assert len(drawn) > 0.6 * min(space.num_children, 1000)
        assert distribution.draw() in space

    def test_a_step_by_hand(self):
        distribution = Distribution(TWO)
        distribution.learn([Architecture(["attention"]), Architecture(["ffn"])], [1.0, 3.0], 2.0, 0.4)
        omega = 1 / (1 + math.exp(-1))
        assert distribution.logits == [pytest.approx({"attention": 0.4 * (omega - 0.5), "ffn": -0.4 * (omega - 0.5)})]
        assert distribution.draw() == ("attention",)

    def test_equal_losses_move_nothing(self):
        distribution, rng = Distribution(CHAIN), random.Random(0)
        distribution.learn([distribution.draw(rng) for _ in range(5)], [2.0] * 5, 0.1, 1.0)
        assert all(logit == pytest.approx(0) for logits in distribution.logits for logit in logits.values())

    def test_entropy(self):
        distribution = Distribution(CHAIN)
        assert distribution.entropy_share() == pytest.approx(1)
        of_half = [{"attention": 0.0, "ffn": 0.0} | dict.fromkeys(names[2:], -1e3) for names in CHAIN.blocks]
        half = Distribution(CHAIN, of_half).entropy_share()
        assert half == pytest.approx(4 * math.log(2) / sum(math.log(len(names)) for names in CHAIN.blocks))
        assert Distribution(SearchSpace.chain(2, ("ffn",))).entropy_share() == 0


def steps(method, number, loss_of):
    """Children trained and events, where dev losses are made up."""
    trained, events = [], []
    for step in range(1, number + 1):
        children = method.children()
        trained += children
        event = method.after_step(step, children, [1.0], lambda some, _: [loss_of(child) for child in some], None)
        events += [] if event is None else [event]
    return trained, events


def good(child):
    return 3.0 - (child[0] == "ffn") * 0.2


def test_the_better_operator_is_learned_and_trained_more():
    method = make(distribution_interval=2)
    _, events = steps(method, 150, good)
    assert method.distribution.probabilities(())["ffn"] > 0.9
    assert events[-1]["likeliest"].startswith("ffn")
    assert events[-1]["loss"] < 2.85 < events[0]["loss"]
    assert events[0]["num_drawn"] == 8 > events[-1]["num_drawn"] >= 2
    trained, _ = steps(method, 200, lambda child: 1.0)
    share = sum(child[0] == "ffn" for child in trained) / 200
    assert 0.6 < share < 0.95, "a third or so of it stays uniform"


def test_it_learns_from_every_draw_on_the_same_dev_batches(monkeypatch):
    """A child that is drawn twice counts twice, as in PARSEC's sum over draws; it is scored once."""
    learned, scored = [], []
    monkeypatch.setattr(Distribution, "learn", lambda self, children, losses, *_: learned.append((children, losses)))
    method = make(distribution_interval=1, distribution_draws=400)

    def score(children, number):
        scored.append((children, number))
        return [float(place) for place in range(len(children))]

    method.after_step(1, method.children(), [1.0], score, None)
    ((children, losses),), ((unlike, number),) = learned, scored
    assert len(children) == 400 > len(set(children)) == len(unlike)
    assert losses == [unlike.index(child) for child in children]
    assert number == method.num_dev_batches == 2


def test_a_floor_of_one_learns_and_draws_uniformly():
    method = make(distribution_interval=2, distribution_floor=1.0)
    trained, _ = steps(method, 150, good)
    assert method.distribution.probabilities(())["ffn"] > 0.9
    uniform = METHODS["uniform"](
        method.space, METHODS["uniform"].Settings(), cost=lambda child: 1.0, seed=0, max_steps=10
    )
    assert trained == [uniform.children()[0] for _ in range(150)]


def test_what_is_above_the_target_pays():
    def mean_size(**settings):
        method = make(cost=lambda child: 100.0 + 100 * Counter(child)["ffn"], distribution_interval=1, **settings)
        steps(method, 40, lambda child: 1.0)
        rng = random.Random(0)
        return sum(method.cost(method.distribution.draw(rng)) for _ in range(200)) / 200

    assert mean_size() == pytest.approx(mean_size(target_parameters=500)), "none is above"
    assert mean_size(target_parameters=100) < mean_size() - 40


def test_a_run_tells_its_steps_and_scores_on_dev_batches(tmp_path):
    make_trainer(
        tmp_path, method="learned_distribution", distribution_interval=4, max_steps=8, num_eval_children=0
    ).train()
    events = train_log(tmp_path, "distribution")
    assert [event["step"] for event in events] == [4, 8]
    assert [line["likeliest"] for line in train_log(tmp_path)][4] == events[0]["likeliest"]
    assert make(distribution_interval=4).passes_per_step == 3 + 8 * 2 / 4


def test_it_keeps_its_promises_over_several_steps_of_the_distribution():
    check_method("learned_distribution", make_supernet().config.space, distribution_interval=3)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("distribution_interval", 0),
        ("distribution_draws", 1),
        ("distribution_temperature", 0),
        ("distribution_rate", -1),
        ("distribution_floor", 1.5),
        ("target_parameters", -1),
    ],
)
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(ValueError, match=setting):
        make(**{setting: value})


class TestSearch:
    def test_it_moves_to_what_scores_well_and_asks_for_fewer(self):
        search = new(SEARCHES["learned"], SPACES["chain"], seed=0)
        sizes = []
        for _ in range(8):
            children = search.ask()
            sizes.append(len(children))
            search.tell(children, [-sum(name == "ffn" for name in child) for child in children])
        assert sizes[0] == 16 > sizes[-1] >= 4
        assert all(search.distribution.probabilities(["ffn"] * block)["ffn"] > 0.6 for block in range(5))

    def test_the_unit_of_the_loss_does_not_matter(self):
        def asked(unit):
            search, found = new(SEARCHES["learned"], CHAIN, seed=0), []
            for _ in range(4):
                children = search.ask()
                found += children
                search.tell(children, [unit * loss for loss in made_up(children)])
            return found

        assert asked(1.0) == asked(1024.0)

    def test_a_tenth_of_the_draws_is_uniform(self, monkeypatch):
        calls = Counter()

        def counted(kind, name, original):
            monkeypatch.setattr(kind, name, lambda self, *given: calls.update([name]) or original(self, *given))

        counted(SearchSpace, "child_at", SearchSpace.child_at)
        counted(Distribution, "draw", Distribution.draw)
        search = new(SEARCHES["learned"], SearchSpace.chain(8, ("attention", "ffn", "conv3")), seed=0)
        for _ in range(20):
            children = search.ask()
            search.tell(children, [1.0] * len(children))
        assert calls.total() >= 320
        assert calls["child_at"] / calls.total() == pytest.approx(0.1, abs=0.05)

    def test_every_score_teaches_once(self, monkeypatch):
        learned = []
        monkeypatch.setattr(Distribution, "learn", lambda self, children, *_: learned.extend(children))
        search = new(SEARCHES["learned"], CHAIN, seed=0)
        for _ in range(3):
            children = search.ask()
            for part in (children[:3], children[3:]):  # told in parts
                search.tell(part, made_up(part))
        search.ask()
        assert learned == [scored.architecture for scored in search.history]

    def test_children_without_a_finite_score_teach_nothing(self):
        search = new(SEARCHES["learned"], CHAIN, seed=0)
        children = search.ask()
        search.tell(children, [math.nan] * len(children))
        assert search.distribution.entropy_share() == pytest.approx(1)
