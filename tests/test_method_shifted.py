"""`size_shifted`: size groups that improve more are drawn more, in exact counts that the log tells."""

import math
from collections import Counter

import pytest
from tiny.trainings import make_supernet, make_trainer, train_log

from hf_nasbert.costs import num_parameters
from hf_nasbert.methods import METHODS
from hf_nasbert.methods.shifted import shifted
from hf_nasbert.space import Architecture
from hf_nasbert.testing import check_method


def make(cost=None, **settings):
    config = make_supernet().config
    kind = METHODS["size_shifted"]
    cost = (lambda child: num_parameters(config, child)) if cost is None else cost
    return kind(config.space, kind.Settings(**settings), cost=cost, seed=0, max_steps=10)


def run(method, num_steps, loss_of, first=1):
    """Groups of the children of some steps, and the events."""
    groups, events = Counter(), []
    for step in range(first, first + num_steps):
        children = method.children()
        groups[method.group_of(children[0])] += 1
        event = method.after_step(step, children, [loss_of(children[0], step)], None, None)
        events += [] if event is None else [event]
    return groups, events


def test_probabilities_by_hand():
    better, worse = math.exp(1) / (math.exp(1) + math.exp(-1)), math.exp(-1) / (math.exp(1) + math.exp(-1))
    assert shifted([2.0, 0.0], 1.0, 0.3) == pytest.approx([0.15 + 0.7 * better, 0.15 + 0.7 * worse])
    assert shifted([0.002, 0.0], 1.0, 0.3) == pytest.approx(shifted([2.0, 0.0], 1.0, 0.3)), "drops are standardised"
    assert shifted([5.0, 5.0, 5.0], 1.0, 0.3) == pytest.approx([1 / 3] * 3)
    assert shifted([None, None], 1.0, 0.3) == pytest.approx([0.5, 0.5])
    hidden = shifted([3.0, None, 1.0], 1.0, 0.3)
    assert hidden[0] > hidden[1] > hidden[2]
    assert shifted([2.0, 0.0], 1.0, 1.0) == pytest.approx([0.5, 0.5])


def test_the_group_that_improves_is_drawn_more_and_no_other_below_the_floor():
    method = make(num_size_groups=4, shift_interval=200)
    uniform, (first,) = run(method, 200, lambda child, step: 5.0)
    assert first["probabilities"] == [0.25] * 4, "nothing is known of one window"
    assert first["counts"] == [uniform[group] for group in range(4)]
    assert min(uniform.values()) > 25, "the groups are alike frequent among uniform draws"
    improving = {3: 1.0}
    _, (second,) = run(method, 200, lambda child, step: 5.0 - improving.get(method.group_of(child), 0.0), 201)
    assert second["losses"] == pytest.approx([5.0, 5.0, 5.0, 4.0])
    assert second["probabilities"] == pytest.approx(shifted([0, 0, 0, 1.0], 1.0, 0.3))
    drawn, _ = run(method, 200, lambda child, step: 5.0, 401)
    assert drawn[3] > 0.5 * 200 > 1.5 * max(uniform.values())
    assert min(drawn.values()) > 0.3 / 4 * 200 * 0.4


def test_a_size_that_a_group_begins_with_is_in_it():
    method = make(cost=lambda child: 7.0 + (child[0] == "ffn"))
    assert method.bounds == [8.0]
    assert {method.group_of(child): child[0] == "ffn" for child in method.space.enumerate()} == {0: False, 1: True}


def test_of_a_group_that_was_not_seen_no_drop_is_known():
    """It is taken for one like the mean, and not for one that does not improve; its loss is kept for later."""
    method = make(num_size_groups=4, shift_interval=8)
    of_group = {method.group_of(child): child for child in method.space.enumerate()}
    told = [(group, 5.0) for group in range(4)] * 2 + [(0, 3.0), (1, 4.0), (2, 4.5), (0, 3.0)] * 2
    told += [(group, 3.0) for group in range(4)] * 2
    events = [
        method.after_step(step, (of_group[group],), [loss], None, None) for step, (group, loss) in enumerate(told, 1)
    ]
    _, second, third = (event["probabilities"] for event in events if event is not None)
    assert second == pytest.approx(shifted([2.0, 1.0, 0.5, None], 1.0, 0.3))
    assert third == pytest.approx(shifted([0.0, 1.0, 1.5, 2.0], 1.0, 0.3))


def test_the_log_has_exact_counts(tmp_path):
    trainer = make_trainer(tmp_path, method="size_shifted", shift_interval=4, max_steps=12, num_eval_children=0)
    trainer.train()
    events, group_of = train_log(tmp_path, "shift"), trainer.method.group_of
    trained = [group_of(Architecture.parse(line["architecture"])) for line in train_log(tmp_path)]
    assert [event["step"] for event in events] == [4, 8, 12]
    for number, event in enumerate(events):
        window = trained[4 * number : 4 * number + 4]
        assert event["counts"] == [window.count(group) for group in range(len(event["counts"]))]
        assert sum(event["probabilities"]) == pytest.approx(1)


def test_it_keeps_its_promises_over_several_windows():
    check_method("size_shifted", make_supernet().config.space, shift_interval=7)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("group_floor", 0.2),
        ("group_floor", 1.1),
        ("num_size_groups", 1),
        ("shift_interval", 0),
        ("shift_temperature", 0),
    ],
)
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(ValueError, match=setting):
        make(**{setting: value})


def test_one_size_is_refused():
    with pytest.raises(ValueError, match="children of this space have one: take uniform"):
        make(cost=lambda child: 7.0)
