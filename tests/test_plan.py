"""`hf-nasbert plan`: a space that fits the budget, steps that fit the minutes, commands that parse."""

import shlex

import pytest

from hf_nasbert import cli
from hf_nasbert.costs import num_parameters
from hf_nasbert.costs.feasibility import cheapest
from hf_nasbert.native import native_children
from hf_nasbert.next_commands import ending_of
from hf_nasbert.pipeline import PlanArguments, plan_search
from hf_nasbert.pipeline.plan import OPERATORS, measure_step
from hf_nasbert.recipe_arguments import parse_recipe_arguments


def planned(seconds=0.1, **settings):
    return plan_search(PlanArguments(**{"max_parameters": "1.5M", **settings}), lambda *_: seconds)


@pytest.mark.parametrize("cap", ["400K", "1.5M", "5M", "20M", "100M"])
def test_a_bert_of_the_space_fills_the_budget(cap):
    plan = planned(max_parameters=cap)
    config = plan.config
    berts = native_children(config.space, hidden_size=config.hidden_size, embedding_size=config.hidden_size)
    costs = [num_parameters(config, child) for child in berts.enumerate()]
    bert = max(count for count in costs if count <= plan.cap)
    assert 0.75 * plan.cap < bert <= plan.cap
    assert f"the largest BERT within it {bert:,}" in str(plan)
    assert config.hidden_size % config.attention_head_size == 0
    assert {name for names in config.space.blocks for name in names} == set(OPERATORS)


@pytest.mark.parametrize(
    ("cap", "said"),
    [
        ("1M", None),
        ("1.5M", None),
        ("5M", None),
        ("20M", None),
        ("100M", None),
        ("400K", "it rules few children out: embeddings and head take 275,680 of it; a smaller --vocab_size"),
        ("500M", "it rules no child out: no larger space is offered here"),
    ],
)
def test_the_space_reaches_over_the_budget_or_the_plan_says_why_not(cap, said):
    """A cap that no child exceeds decides nothing."""
    plan = planned(max_parameters=cap, minutes=120)
    config = plan.config
    largest = num_parameters(config, cheapest(config.space, lambda child: -num_parameters(config, child)))
    smallest = num_parameters(config, cheapest(config.space, lambda child: num_parameters(config, child)))
    assert smallest < plan.cap
    assert f"the largest child has {largest / plan.cap:.2f} times as many" in str(plan)
    assert f" of {smallest:,} to {largest:,} parameters" in str(plan)
    if said is None:
        assert 1.3 <= largest / plan.cap <= 2
        assert "rules" not in str(plan)
    else:
        assert largest / plan.cap < 1.3
        assert said in str(plan)


def test_steps_take_the_minutes_and_no_more():
    plan = planned(seconds=0.1, minutes=10)
    scored = plan.num_evaluations * 0.1 / 3 * 2  # 4 batches of 16 forwards, in steps of 32
    spent = 0.1 * (plan.max_steps + plan.child_steps) + scored
    assert 0.85 * 600 < spent <= 600
    assert planned(seconds=0.2, minutes=10).max_steps == plan.max_steps // 2
    assert "few for a super-net" not in str(plan)
    assert "few for a super-net" in str(planned(seconds=1.0, minutes=10))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"max_parameters": "50K"},
            "max_parameters=50K: with a vocabulary of 8,192.*smallest .*lower --vocab_size",
        ),
        ({"max_parameters": "many"}, r"max_parameters='many': expected a number .*--max_parameters 15M"),
        ({"max_parameters": "0.5x"}, r"max_parameters='0\.5x' is a share, and there is no model yet"),
        ({"minutes": 0.0}, "minutes=0.0: expected above 0"),
        ({"minutes": 0.001}, "give more minutes"),
    ],
)
def test_what_cannot_be_planned_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        planned(**settings)


def test_the_printed_commands_parse_and_say_what_was_planned():
    asked = PlanArguments(max_parameters="1.5M", train_files=["my text.txt"])
    plan = plan_search(asked, lambda *_: 0.1)
    lines = ending_of("plan", plan, asked).splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("  hf-nasbert ")]
    assert [argv[1] for argv in commands] == ["pretrain", "search", "extract", "pretrain-child"]
    made = {}
    for _, name, *argv in commands:
        text = ["--train_files", "x"] if cli.COMMANDS[name].look == cli._TRAINED_ON else []
        made[name] = parse_recipe_arguments([cli.find(kind) for kind in cli.COMMANDS[name].arguments], argv + text)
    supernet, data, training = made["pretrain"]
    config = supernet.build_config(vocab_size=data.vocab_size)
    assert config.space == plan.config.space
    assert (config.hidden_size, training.max_steps, data.train_files) == (
        plan.config.hidden_size, plan.max_steps, ["my text.txt"],
    )  # fmt: skip
    assert made["search"][0].num_evaluations == plan.num_evaluations
    assert made["search"][0].output == made["extract"][0].search
    assert made["pretrain-child"][0].max_steps == plan.child_steps


def test_a_step_is_measured_here():
    plan = planned(max_parameters="400K", vocab_size=100, max_seq_length=8, per_device_train_batch_size=2)
    assert 0 < measure_step(plan.config, 2, 8) < 60
