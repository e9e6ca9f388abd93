"""`board`: who is on it, by numbers; and that the best child of a class of size teaches that class."""

import json

import pytest
import torch
from tiny.models import randomise_
from tiny.trainings import SPACES, TinyBatches, make_supernet

from hf_nasbert.costs import num_parameters
from hf_nasbert.methods import METHODS, ChildRun, Counts, StepContext
from hf_nasbert.methods.board import Entry
from hf_nasbert.objectives import distillation_loss
from hf_nasbert.space import Architecture

CHILDREN = list(SPACES["chain"].enumerate())


def make_method(**settings):
    kind, config = METHODS["board"], make_supernet().config
    cost = lambda child: num_parameters(config, child)  # noqa: E731
    return kind(SPACES["chain"], kind.Settings(**settings), cost=cost, seed=0, max_steps=9)


def entry(name, loss, cost):
    return Entry(name, loss, cost)


def of_class(method, number):
    return [child for child in CHILDREN if method.class_of(child) == number]


def test_classes_hold_about_equally_many_drawn_children():
    method = make_method()
    drawn = [method.class_of(method.children()[0]) for _ in range(400)]
    assert len(method.classes) == 4
    assert all(60 < drawn.count(number) < 140 for number in range(4))


def test_a_size_that_a_class_begins_with_is_in_it():
    kind = METHODS["board"]
    method = kind(SPACES["chain"], kind.Settings(), cost=lambda child: 7.0 + (child[0] == "ffn"), seed=0, max_steps=9)
    assert {method.class_of(child): child[0] == "ffn" for child in CHILDREN} == {0: False, 1: True}


class TestWhoIsOnTheBoard:
    BOARD = (entry("a", 2.0, 100), entry("b", 3.0, 200))

    @pytest.mark.parametrize(
        ("newcomer", "kept"),
        [
            (entry("c", 2.5, 300), "ac"),  # better than the worst
            (entry("c", 3.005, 100), "ac"),  # as good, and smaller
            (entry("c", 3.005, 200), "ab"),  # as good, and no smaller
            (entry("c", 3.02, 100), "ab"),  # worse
        ],
    )
    def test_a_full_one_takes_who_is_better_or_as_good_and_smaller(self, newcomer, kept):
        found = make_method(board_size=2).with_newcomer(self.BOARD, newcomer)
        assert "".join(sorted(one.child for one in found)) == kept

    def test_while_there_is_room_anybody(self):
        assert len(make_method(board_size=3).with_newcomer(self.BOARD, entry("c", 9.0, 900))) == 3

    def test_losses_are_averages_and_a_newcomers_begins_with_their_lag(self):
        method = make_method(board_interval=5)
        one, other = of_class(method, 1)[:2]
        events = []
        for step, child, losses in ((4, one, None), (5, one, [4.0]), (10, other, [3.0, 3.2]), (15, one, [3.0, 1.0])):
            told = method.after_step(step, (child,), (1.0,), lambda asked, _, losses=losses: losses, None)
            events.append(None if told is None else told["event"])
        assert events == [None, "board", "board", None]
        # One: 4, then (4 + 3) / 2 = 3.5, then (3.5 + 3) / 2 = 3.25. Other: 3.2 + 0.5 of lag, then (3.7 + 1) / 2. The
        # second of the scores is whoever is second on the board.
        found = {line.child: line.loss for line in method.classes[1]}
        assert found == {str(one): pytest.approx(3.25), str(other): pytest.approx(2.35)}
        assert [line.child for line in method.classes[1]] == [str(other), str(one)]

    def test_it_is_the_same_in_a_run_that_goes_on(self):
        method, other = make_method(), make_method()
        for number, child in enumerate(of_class(method, 1)[:2]):
            method.after_step(
                10, (child,), (1.0,), lambda asked, _: [4.0 - place for place in range(len(asked))], None
            )
            assert len(method.classes[1]) == number + 1
        other.load_state_dict(json.loads(json.dumps(method.state_dict())))
        assert other.classes == method.classes

    def test_a_measurement_is_on_so_many_dev_batches_and_counts(self):
        method = make_method(board_size=2, board_interval=6, board_dev_batches=3)
        asked = []
        method.after_step(6, (CHILDREN[0],), (1.0,), lambda children, number: asked.append(number) or [1.0], None)
        assert asked == [3]
        # Three of the child, one of its teacher; three children on three batches, every sixth step.
        assert method.passes_per_step == pytest.approx(3 + 1 + 3 * 3 / 6)

    def test_a_damaged_state_is_refused(self):
        method = make_method()
        with pytest.raises(ValueError, match="expected 4 lists"):
            method.load_state_dict(method.state_dict() | {"board": []})
        with pytest.raises(ValueError, match="nobody"):
            method.load_state_dict(method.state_dict() | {"board": [[["nobody", 1.0, 2]], [], [], []]})


class TestTheBestOfTheClassTeaches:
    @torch.no_grad()
    def made(self, child, method, **settings):
        supernet = randomise_(make_supernet().eval())
        batch = TinyBatches(4).batch(0)
        number = int((batch["labels"] != -100).sum())
        context = StepContext(
            supernet, 0, batch["input_ids"], None, batch["labels"], None, Counts(number, 40, number, 40), False,
            **settings,
        )  # fmt: skip

        def read(one):
            return supernet(batch["input_ids"], labels=batch["labels"], architecture=one)

        own = read(child)
        loss, (divergence,) = method.loss(ChildRun(child, own.loss, own.logits), (), context)
        return loss, divergence, own, read

    def test_and_nobody_else(self):
        method = make_method(board_weight=0.25)
        child, worse, best = of_class(method, 2)[:3]
        other = of_class(method, 0)[0]
        method.classes[2] = [entry(str(best), 1.0, 1), entry(str(worse), 2.0, 1)]
        method.classes[0] = [entry(str(other), 0.1, 1)]
        loss, divergence, own, read = self.made(child, method)
        expected = distillation_loss(own.logits, read(best).logits.detach())
        assert float(expected) > 0.01
        assert float(divergence) == pytest.approx(float(expected), rel=1e-4)
        assert float(loss) == pytest.approx(float(0.75 * own.loss + 0.25 * expected), rel=1e-4)

    def test_the_best_itself_and_an_empty_class_learn_from_labels(self):
        method = make_method()
        child, best = of_class(method, 2)[:2]
        assert float(self.made(child, method)[1]) == 0
        method.classes[2] = [entry(str(best), 1.0, 1)]
        loss, divergence, own, _ = self.made(best, method)
        assert (float(loss), float(divergence)) == (float(own.loss), 0)

    def test_the_teacher_is_a_constant(self):
        method = make_method()
        child = Architecture.parse("attention-ffn-ffn-ffn")
        best = Architecture.parse("attention-conv3-conv3-conv3")
        method.classes[method.class_of(child)] = [entry(str(best), 1.0, 1)]
        supernet = make_supernet().train()
        batch = TinyBatches(2).batch(0)
        context = StepContext(supernet, 0, batch["input_ids"], None, batch["labels"], None, Counts(1, 1, 1, 1), False)
        made = supernet(batch["input_ids"], labels=batch["labels"], architecture=child)
        method.loss(ChildRun(child, made.loss, made.logits), (), context)[0].backward()
        operators = supernet.nasbert.encoder.blocks[1].operators
        assert all(parameter.grad is None for parameter in operators["conv3"].parameters())
        assert all(isinstance(parameter.grad, torch.Tensor) for parameter in operators["ffn"].parameters())


def test_refusals():
    with pytest.raises(ValueError, match="board_weight=0 learns nothing"):
        make_method(board_weight=0.0)
    with pytest.raises(ValueError, match="board_size=0"):
        make_method(board_size=0)
