"""`methods` and `teachers`: what each training method does that others do not.

What all of them promise is in `hf_nasbert.testing`, and tested by test_testing.py.
"""

import copy
import itertools
import json
import random
import re
from dataclasses import dataclass, field, make_dataclass
from functools import partial
from typing import ClassVar

import pytest
import torch
from helpers import mostly_slow
from tiny.models import gradients, randomise_
from tiny.trainings import SPACES, TinyBatches, make_supernet, make_trainer, train_log

from hf_nasbert import methods
from hf_nasbert.cli import COMMANDS, find
from hf_nasbert.costs import num_parameters
from hf_nasbert.methods import (
    METHODS,
    ChildRun,
    Counts,
    MethodSettings,
    StepContext,
    TrainingMethod,
    Wants,
    methods_with,
    register,
)
from hf_nasbert.methods.base import RunKind
from hf_nasbert.methods.uniform import Uniform
from hf_nasbert.modeling import last_mixing_block
from hf_nasbert.objectives import alignment_loss, alpha_divergence_loss, distillation_loss
from hf_nasbert.recipe_arguments import parse_recipe_arguments
from hf_nasbert.samplers import FairSampler, GradualSampler, UniformSampler
from hf_nasbert.space import Architecture, hamming
from hf_nasbert.teachers import aligned_states
from hf_nasbert.training import SupernetTrainingArguments, checkpoints

FIRST = ("uniform", "fair", "magic_t", "magic_a", "magic_at", "sandwich")
"""The methods that are tested here; every other one has a file of its own, test_method_NAME.py."""


def make_method(name, space="chain", max_steps=10, **settings):
    kind = METHODS[name]
    config = make_supernet(space).config
    return kind(
        SPACES[space],
        kind.Settings(**settings),
        cost=lambda child: num_parameters(config, child),
        seed=0,
        max_steps=max_steps,
    )


class TestRegistry:
    def test_the_built_in_methods_are_what_their_names_say(self):
        samplers = {name: method.sampler_class for name, method in METHODS.items()}
        assert (
            samplers.items()
            >= {
                "uniform": UniformSampler,
                "fair": FairSampler,
                "magic_t": GradualSampler,
                "magic_a": UniformSampler,
                "magic_at": GradualSampler,
                "sandwich": UniformSampler,
            }.items()
        )
        assert methods_with("alignment_weight") == ["magic_a", "magic_at", "magic_at_guarded"]
        looks = [method.look for method in METHODS.values()]
        assert len(set(looks)) == len(looks), "one look each in figures"
        assert all(method.summary and method.source for method in METHODS.values())

    def test_one_of_ones_own_is_registered_once(self, monkeypatch):
        monkeypatch.setattr(methods, "METHODS", dict(METHODS))

        class Own(TrainingMethod):
            name = "own"
            summary = "mine"
            sampler_class = UniformSampler

        assert register(Own) is Own
        with pytest.raises(ValueError, match="the name own is taken by Own"):
            register(Own)

    @pytest.mark.parametrize(
        ("name", "words"),
        [("uniform", "uniform is taken by Uniform"), ("my-own", "needs a name of letters"), (None, "needs")],
    )
    def test_a_name_that_is_none_or_taken_is_refused(self, name, words):
        kind = type("Own", (TrainingMethod,), {"name": name, "sampler_class": UniformSampler})
        with pytest.raises(ValueError, match=words):
            register(kind)

    @pytest.mark.parametrize(
        ("what", "shown"),
        [("text", "'text'"), (None, "None"), (int, "int"), (TrainingMethod, "TrainingMethod"), (["x"] * 99, "['x', ")],
    )
    def test_what_is_no_method_is_refused(self, what, shown):
        with pytest.raises(ValueError, match=f"^{re.escape(shown)}.* is no method: expected a subclass of Training"):
            register(what)

    @pytest.mark.parametrize(
        "setting",
        ["seed", "hidden_size", "max_seq_length", "output_dir", "num_evaluations", "method", "config", "help",
         "search_space", "data", "dev_data"],
    )  # fmt: skip
    def test_a_setting_that_every_training_has_is_refused(self, monkeypatch, setting):
        monkeypatch.setattr(methods, "METHODS", dict(METHODS))
        own = field(default=1, metadata={"help": "Of its own."})
        settings = make_dataclass("OwnSettings", [(setting, int, own)], bases=(MethodSettings,), kw_only=True)
        kind = type("Own", (TrainingMethod,), {"name": "own", "sampler_class": UniformSampler, "Settings": settings})
        with pytest.raises(ValueError, match=f"method own has a setting {setting}, which every training has"):
            register(kind)
        assert "own" not in methods.METHODS

    @pytest.mark.parametrize(
        ("part", "words"),
        [
            ({"sampler_class": "uniform"}, "is no method: expected a subclass of TrainingMethod with a sampler_class"),
            ({"Settings": int}, "the Settings of method own are no @dataclass below MethodSettings"),
            (
                {"Settings": type("Plain", (MethodSettings,), {})},
                "the Settings of method own are no @dataclass below MethodSettings",
            ),
            ({"terms": ("loss",)}, "method own has a term loss, a name that the log has already"),
            ({"terms": ("mine", "mine")}, "method own has a term mine"),
            ({"summary": ""}, "method own needs a summary"),
        ],
    )
    def test_a_part_that_training_cannot_use_is_refused(self, monkeypatch, part, words):
        monkeypatch.setattr(methods, "METHODS", dict(METHODS))
        whole = {"name": "own", "summary": "mine", "sampler_class": UniformSampler}
        with pytest.raises(ValueError, match=words):
            register(type("Own", (TrainingMethod,), whole | part))
        register(type("Own", (TrainingMethod,), whole))

    @pytest.mark.parametrize("name", FIRST)
    def test_what_a_step_costs(self, name):
        """Three passes for each child, and what an anchor costs on top, on half of the rows."""
        method = make_method(name)
        beside = 0.5 + 2 * 2 / 25 if "alignment" in method.terms else 0.0
        assert method.passes_per_step == pytest.approx(3.0 * len(method.children()) + beside)

    def test_ours_have_none_of_those(self, monkeypatch):
        monkeypatch.setattr(methods, "METHODS", {})
        assert [register(kind) for kind in METHODS.values()] == list(METHODS.values())

    def test_every_command_with_a_method_is_asked_for_its_settings(self):
        asked = {f"{room}.{name}" for room, names in methods._BESIDE.items() for name in names}
        found = set()
        for command in COMMANDS.values():
            if any(name.endswith(".SupernetTrainingArguments") for name in command.arguments):
                kinds = map(find, command.arguments)
                found |= {f"{kind.__module__}.{kind.__name__}" for kind in kinds}
        assert found == asked

    def test_settings_of_another_method_are_refused(self):
        with pytest.raises(
            ValueError, match="the settings of method magic_a are a MagicASettings, got MethodSettings"
        ):
            METHODS["magic_a"](SPACES["chain"], MethodSettings(), cost=len, seed=0, max_steps=1)

    def test_help_knows_one_that_was_registered_late(self, monkeypatch, capsys):
        monkeypatch.setitem(METHODS, "late", type("Late", (Uniform,), {"name": "late", "summary": "at 50 % of it"}))
        with pytest.raises(SystemExit):
            parse_recipe_arguments([SupernetTrainingArguments], ["--help"])
        assert "late: at 50 % of it" in " ".join(capsys.readouterr().out.split())

    @pytest.mark.parametrize(("method", "setting"), [("magic_t", "--num_changes"), ("magic_at", "--anchor_interval")])
    def test_help_lists_the_settings_of_the_chosen_method_alone(self, method, setting, capsys):
        for chosen, is_listed in ((method, True), ("fair", False)):
            with pytest.raises(SystemExit):
                parse_recipe_arguments([SupernetTrainingArguments], ["--method", chosen, "--help"])
            assert (setting in capsys.readouterr().out) == is_listed

    @pytest.mark.parametrize("flag", ["--num_changes=2", "--num-changes=2"])
    def test_a_flag_of_another_method_is_refused_by_name(self, flag, capsys):
        with pytest.raises(SystemExit):
            parse_recipe_arguments([SupernetTrainingArguments], ["--output_dir", "x", flag])
        words = "num.changes belongs to method magic_t or magic_at or magic_at_guarded, and method is 'uniform'"
        assert re.search(words, capsys.readouterr().err)


def test_what_a_sampler_gives_is_read_as_children(monkeypatch):
    method, child = make_method("uniform"), Architecture.parse("ffn-ffn-attention-skip")
    monkeypatch.setattr(method.sampler, "next_step", lambda: (str(child), list(child)))
    found = method.children()
    assert found == (child, child)
    assert {type(one) for one in found} == {Architecture}


class TestSamplersSettings:
    @pytest.mark.parametrize("name", ["magic_t", "magic_at"])
    def test_so_many_blocks_change_between_steps(self, name):
        for number in (1, 2):
            method = make_method(name, num_changes=number)
            drawn = [method.children()[0] for _ in range(20)]
            assert {hamming(*pair) for pair in itertools.pairwise(drawn)} == {number}

    @pytest.mark.parametrize("name", ["uniform", "magic_a", "sandwich"])
    def test_uniform_over_children_means_deep_ones(self, name):
        depths = {}
        for over in ("operators", "children"):
            method = make_method(name, uniform_over=over)
            drawn = [method.children()[-1] for _ in range(400)]
            depths[over] = sum(operator != "skip" for child in drawn for operator in child) / len(drawn)
        assert depths["children"] > depths["operators"] + 0.2

    @pytest.mark.parametrize(
        ("name", "settings", "words"),
        [
            ("magic_t", {"num_changes": 0}, "num_changes=0: expected at least 1"),
            ("magic_at", {"num_changes": 0}, "num_changes=0: expected at least 1"),
            ("magic_at", {"alignment_weight": -1}, "alignment_weight=-1: expected at least 0"),
            ("sandwich", {"uniform_over": "x"}, "uniform_over='x': expected operators or children"),
            ("sandwich", {"num_random_children": 0}, "num_random_children=0: expected at least 1"),
            ("sandwich", {"distillation_divergence": "x"}, "distillation_divergence='x': expected kl or alpha"),
            ("sandwich", {"divergence_clip": 0.5}, "divergence_clip=0.5: expected at least 1"),
        ],
    )
    def test_what_is_none_is_refused(self, name, settings, words):
        with pytest.raises(ValueError, match=words):
            METHODS[name].Settings(**settings)

    def test_more_changes_than_the_space_has_are_refused(self):
        with pytest.raises(ValueError, match="cannot change 9 choice blocks per step"):
            make_method("magic_t", num_changes=9)


def unasked():
    pytest.fail("the super-net was asked for")


class TestMagicA:
    space = SPACES["chain"]
    first, second = (Architecture.parse(text) for text in ("ffn-ffn-ffn-ffn", "attention-ffn-ffn-ffn"))

    def make(self, **settings):
        return make_method("magic_a", **{"anchor_interval": 3, **settings})

    def test_the_first_child_is_the_first_anchor(self):
        method = self.make()
        assert method.anchor is None
        (child,) = method.children()
        method.children()
        assert method.anchor == child
        assert self.make(anchor=str(self.second)).anchor == self.second

    @pytest.mark.parametrize("step", range(1, 8))
    def test_children_are_compared_every_interval(self, step):
        scored = []
        self.make(anchor=str(self.first)).after_step(
            step,
            [self.second],
            [1.0],
            lambda children, number: scored.append((children, number)) or (2.0, 1.0),
            unasked,
        )
        assert scored == ([([self.second, self.first], 2)] if step in (3, 6) else [])

    @pytest.mark.parametrize(
        ("losses", "is_replaced"),
        [((1.0, 2.0), True), ((2.0, 1.0), False), ((1.0, 1.0), False), ((float("nan"), 1.0), False)],
    )
    def test_the_better_one_stays(self, losses, is_replaced):
        method = self.make(anchor=str(self.first))
        event = method.after_step(6, [self.first, self.second], [9.0, 9.0], lambda *_: losses, unasked)
        assert method.anchor == (self.second if is_replaced else self.first)
        assert (event is not None) == is_replaced == bool(method.history)
        if is_replaced:
            assert (event["event"], event["architecture"], event["previous"]) == (
                "anchor", str(self.second), str(self.first)
            )  # fmt: skip
            assert (event["step"], event["loss"], event["previous_loss"]) == (6, 1.0, 2.0)

    def test_the_last_child_of_a_step_is_compared(self):
        scored = []
        self.make(anchor=str(self.first)).after_step(
            3,
            [self.first, self.second],
            [1.0, 1.0],
            lambda children, _: scored.extend(children) or (2.0, 1.0),
            unasked,
        )
        assert scored == [self.second, self.first]

    def test_an_anchor_is_not_compared_with_itself(self):
        method = self.make(anchor=str(self.first))
        assert method.after_step(3, [self.first], [1.0], lambda *_: pytest.fail("scored"), unasked) is None

    def test_state_comes_back(self):
        method, other = self.make(anchor=str(self.first)), self.make()
        method.after_step(3, [self.second], [1.0], lambda *_: (1.0, 2.0), unasked)
        other.load_state_dict(json.loads(json.dumps(method.state_dict())))
        assert (other.anchor, other.history) == (method.anchor, method.history)

    def test_a_damaged_state_is_refused_and_changes_nothing(self):
        method = self.make(anchor=str(self.first))
        state = method.state_dict()
        before = json.dumps(state)
        for damage, words in (
            ({"anchor": 3}, "the anchor is 3, expected text"),
            ({"anchor": "conv7-ffn-ffn-ffn"}, "conv7"),
            ({"history": "none"}, "history is 'none', expected a list of objects"),
            ({"history": [1]}, "expected a list of objects"),
            ({"anchor": str(self.second), "sampler": {}}, "expected the state_dict"),
        ):
            with pytest.raises(ValueError, match=words):
                method.load_state_dict({**state, **damage})
            assert json.dumps(method.state_dict()) == before

    def test_the_last_replacements_are_kept(self, monkeypatch):
        monkeypatch.setattr("hf_nasbert.methods.magic._HISTORY", 2)
        method = self.make(anchor=str(self.first))
        for step, child in ((3, self.second), (6, self.first), (9, self.second)):
            method.after_step(step, [child], [1.0], lambda *_: (1.0, 2.0), unasked)
        assert [event["step"] for event in method.history] == [6, 9]
        assert method.shown() == {"anchor": str(self.second)}

    def test_alignment_begins_after_its_share_of_the_steps(self):
        method = self.make(alignment_start=0.3)  # of 10 steps
        assert [method.wants(step).hidden_states for step in range(5)] == [False, False, False, True, True]
        assert not self.make(alignment_start=0.31).wants(3).hidden_states
        assert self.make().wants(0).hidden_states

    def test_passes_are_the_childs_the_anchors_and_those_of_comparisons(self):
        settings = {"alignment_rows": 0.5, "alignment_start": 0.2, "anchor_interval": 10, "anchor_dev_batches": 4}
        assert self.make(**settings).passes_per_step == pytest.approx(3 + 0.5 * 0.8 + 2 * 4 / 10)

    def test_comparisons_take_as_many_dev_batches_as_were_asked_for(self):
        scored = []
        method = self.make(anchor=str(self.first), anchor_dev_batches=7)
        method.after_step(3, [self.second], [1.0], lambda _, number: scored.append(number) or (2.0, 1.0), unasked)
        assert scored == [7] == [method.num_dev_batches]

    def test_the_sampler_hears_the_losses(self, monkeypatch):
        method, heard = self.make(anchor=str(self.first)), []
        monkeypatch.setattr(method.sampler, "observe", lambda *what: heard.append(what))
        method.after_step(1, [self.second], [1.5], lambda *_: pytest.fail("scored"), unasked)
        assert heard == [([self.second], [1.5])]

    @pytest.mark.parametrize(("share", "expected"), [(0.25, 4), (0.5, 8), (0.3, 5), (0.01, 1), (0.99, 16)])
    def test_aligned_rows_are_a_share_evenly_spread(self, share, expected):
        rows = self.make(alignment_rows=share).chosen_rows(16)
        assert int(rows.sum()) == expected
        assert max(abs(float(rows[:n].sum()) - share * n) for n in range(17)) <= 1.0
        assert self.make(alignment_rows=1.0).chosen_rows(16) is None

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"alignment_rows": 0}, "alignment_rows=0"),
            ({"alignment_start": 1}, "alignment_start=1: expected below 1"),
            ({"anchor_interval": 0}, "anchor_interval=0: expected at least 1"),
            ({"anchor_dev_batches": 0}, "anchor_dev_batches=0: expected at least 1"),
            ({"alignment_rows": 1.5}, "alignment_rows=1.5"),
            ({"anchor": "conv7-ffn-ffn-ffn"}, "conv7"),
            ({"alignment_weight": float("inf")}, "alignment_weight=inf: expected a finite number"),
            ({"alignment_weight": float("nan")}, "alignment_weight=nan"),
        ],
    )
    def test_bad_settings_are_named(self, settings, words):
        with pytest.raises(ValueError, match=words):
            self.make(**settings)


class TestSandwich:
    def backward(self, tmp_path, children, batch=None, **settings):
        trainer = make_trainer(tmp_path, supernet=make_supernet(), method="sandwich", **settings)
        randomise_(trainer.supernet)
        batch = trainer.batches.batch(0) if batch is None else batch
        losses = trainer.step.backward(0, children, batch, is_stopping=False)
        return losses, gradients(trainer.supernet), trainer

    def test_the_step_has_the_largest_the_smallest_and_random_ones(self):
        method = make_method("sandwich", num_random_children=3)
        first, second = method.children(), method.children()
        config = make_supernet().config
        sizes = {child: num_parameters(config, child) for child in SPACES["chain"].enumerate()}
        for children in (first, second):
            assert len(children) == 5
            assert sizes[children[0]] == max(sizes.values())
            assert sizes[children[1]] == min(sizes.values())
        assert first[2:] != second[2:]

    def test_the_others_learn_from_the_largest_one_and_not_from_labels(self, tmp_path):
        """Other labels at the same places change what the largest child learns, and nothing of what the others do."""
        method = make_method("sandwich")
        largest, smallest = method.largest, method.smallest
        batch = TinyBatches(4).batch(0)
        others = {**batch, "labels": torch.where(batch["labels"] == -100, -100, (batch["labels"] + 7) % 20)}
        found = {
            (name, which): self.backward(tmp_path / f"{name}{which}", [largest, child], chosen)[1]
            for name, child in (("alone", largest), ("both", smallest))
            for which, chosen in (("labels", batch), ("others", others))
        }
        own = {
            name for name in found["both", "labels"].keys() - found["alone", "labels"].keys() if ".operators." in name
        }
        assert own, "the two share all operators in this space"
        for name in own:
            assert found["both", "labels"][name].abs().sum() > 0
            torch.testing.assert_close(found["both", "labels"][name], found["both", "others"][name])
        shared = [name for name in found["alone", "labels"] if ".operators." in name]
        assert any(
            not torch.allclose(found["alone", "labels"][name], found["alone", "others"][name]) for name in shared
        )

    @pytest.mark.parametrize(
        ("settings", "divergence_of"),
        [
            ({}, distillation_loss),
            ({"distillation_divergence": "alpha"}, alpha_divergence_loss),
            ({"distillation_divergence": "alpha", "divergence_clip": 2.0}, partial(alpha_divergence_loss, clip=2.0)),
        ],
    )
    def test_every_other_child_learns_from_the_largest_one(self, settings, divergence_of):
        """Not from the one that came before it."""
        method = make_method("sandwich", **settings)
        logits = torch.randn(3, 5, 20, generator=torch.Generator().manual_seed(0))
        runs = [
            ChildRun(child, torch.zeros(()), one) for child, one in zip(method.children()[:3], logits, strict=True)
        ]
        labels = torch.ones(1, 5, dtype=torch.long)
        context = StepContext(make_supernet(), 0, labels, None, labels, None, Counts(10, 10, 10, 10), False)
        for number in (1, 2):
            loss, (term,) = method.loss(runs[number], runs[:number], context)
            assert float(loss) == float(term) == pytest.approx(float(divergence_of(logits[number], logits[0])) / 2)

    def test_the_largest_child_is_a_constant_to_the_others(self, tmp_path):
        """Its gradient is that of its own loss: with a second child beside it, its own operators get no other one."""
        method = make_method("sandwich")
        _, alone, _ = self.backward(tmp_path / "alone", [method.largest])
        _, both, _ = self.backward(tmp_path / "both", [method.largest, method.smallest])
        only = [
            name
            for name in alone
            for block, (one, other) in enumerate(zip(method.largest, method.smallest, strict=True))
            if one != other and f".blocks.{block}.operators.{one}." in name
        ]
        assert only
        for name in only:
            torch.testing.assert_close(alone[name], both[name])

    def test_what_is_learned_does_not_depend_on_micro_batches(self, tmp_path):
        method = make_method("sandwich")
        children = [method.largest, method.smallest]
        batches = TinyBatches(8, padding=True)
        found = [
            self.backward(
                tmp_path / str(size),
                children,
                batches.batch(0),
                batches=batches,
                per_device_train_batch_size=size,
                gradient_accumulation_steps=8 // size,
            )
            for size in (8, 2)
        ]
        assert found[0][0].terms["distillation"] == pytest.approx(found[1][0].terms["distillation"], rel=1e-5)
        for name, grad in found[0][1].items():
            torch.testing.assert_close(grad, found[1][1][name], rtol=1e-4, atol=1e-6)

    @pytest.mark.slow
    def test_children_come_nearer_to_the_largest_one(self, tmp_path):
        trainer = make_trainer(
            tmp_path, method="sandwich", max_steps=30, save_steps=100, per_device_train_batch_size=8, logging_steps=1
        )
        trainer.train()
        log = train_log(tmp_path)
        assert all(record["distillation"] > 0 for record in log)
        assert log[-1]["loss"] < log[0]["loss"] - 0.5


@dataclass(kw_only=True)
class WeightSettings(MethodSettings):
    weights: tuple[float, ...] = field(default=(1.0, 3.0), metadata={"help": "Of the children."})


class Weighted(TrainingMethod):
    """Two children of unlike weight, of a sampler that remembers what it observes."""

    name = "weighted"
    summary = "for this test"
    sampler_class = UniformSampler
    Settings = WeightSettings

    def children(self):
        return super().children() + super().children()

    def weight(self, number, children):
        return self.settings.weights[number]


def test_children_have_weights_and_their_losses_are_observed(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "weighted", Weighted)
    pair = [Architecture.parse(text) for text in ("attention-attention-ffn-ffn", "conv3-conv3-conv3-conv3")]
    found = {}
    for name, method, children in (
        ("both", "weighted", pair),
        ("one", "uniform", pair[:1]),
        ("two", "uniform", pair[1:]),
    ):
        trainer = make_trainer(tmp_path / name, method=method)
        randomise_(trainer.supernet)
        losses = trainer.step.backward(0, children, trainer.batches.batch(0), is_stopping=False)
        found[name] = losses.of_children, gradients(trainer.supernet)
    assert found["both"][0] == pytest.approx(found["one"][0] + found["two"][0], rel=1e-6)
    for name, gradient in found["both"][1].items():
        parts = [
            grads[name] * weight for (_, grads), weight in ((found["one"], 1), (found["two"], 3)) if name in grads
        ]
        torch.testing.assert_close(gradient, sum(parts), rtol=1e-4, atol=1e-6)

    trainer = make_trainer(tmp_path / "observing", method="weighted", max_steps=3)
    observed = []
    trainer.method.sampler.observe = lambda children, losses: observed.append((len(children), losses))
    trainer.train()
    assert [number for number, _ in observed] == [2] * 3
    log = train_log(tmp_path / "observing")
    assert [sum(losses) / 2 for _, losses in observed] == pytest.approx([record["loss"] for record in log])


def test_of_a_step_that_is_not_made_nobody_learns(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, method="uniform", max_steps=2, max_skipped_steps=1)
    clip, told = trainer.accelerator.clip_grad_norm_, []
    norms = iter([torch.tensor(torch.inf), None])
    monkeypatch.setattr(trainer.accelerator, "clip_grad_norm_", lambda *of: next(norms) or clip(*of))
    monkeypatch.setattr(trainer.method, "after_step", lambda step, *_: told.append(step))
    trainer.train()
    assert told == [2]


class Slowing(Weighted):
    def decay_exponent(self, children):
        return 2.0


class Reading(Weighted):
    def read_gradients(self, children, terms, supernet):
        """Look."""


@pytest.mark.parametrize(
    ("kind", "run", "words"),
    [
        (Slowing, {"is_constant": True}, "decides how fast the learning rate falls"),
        (Reading, {"is_fp16": True}, "reads gradients, which FSDP cuts into parts and fp16 scales"),
        (Reading, {"is_sharded": True}, "reads gradients"),
    ],
)
def test_a_run_is_refused_by_what_a_method_overrides(kind, run, words):
    runs = RunKind(*[False] * 5), RunKind(*[False] * 5)._replace(**run)
    own, plain = (one(SPACES["chain"], one.Settings(), cost=len, seed=0, max_steps=3) for one in (kind, Weighted))
    with pytest.raises(ValueError, match=words):
        own.check_run(runs[1])
    own.check_run(runs[0])
    plain.check_run(runs[1])


class Listening(Weighted):
    """The second child may read what the first one made of the same micro-batch."""

    name = "listening"
    terms = ("first", "second")

    def wants(self, step):
        return Wants(hidden_states=True, peers=True)

    def loss(self, run, peers, context):
        self.heard = [*getattr(self, "heard", []), (run, tuple(peers))]
        return run.loss, (run.loss,) * self.num_terms

    num_terms = 2


def test_a_child_can_learn_from_the_logits_and_states_of_another_one(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "listening", Listening)
    pair = [Architecture.parse(text) for text in ("attention-attention-ffn-ffn", "conv3-conv3-conv3-conv3")]
    trainer = make_trainer(tmp_path, method="listening")
    trainer.step.backward(0, pair, trainer.batches.batch(0), is_stopping=False)
    (first, nobody), (second, (peer,)) = trainer.method.heard
    assert (nobody, second.architecture, peer.architecture) == ((), pair[1], pair[0])
    assert len(peer.hidden_states) == len(pair[0]) + 1
    for seen, own in zip((peer.logits, *peer.hidden_states), (first.logits, *first.hidden_states), strict=True):
        torch.testing.assert_close(seen, own.detach(), rtol=0, atol=0)
        assert not seen.requires_grad


class Telling(Weighted):
    """It says what it is told to, and keeps all weights, those that are tied by both their names."""

    name = "telling"
    says = None
    shows: ClassVar[dict[str, str]] = {}

    def begin(self, supernet, tensors):
        self.kept = dict(tensors) or copy.deepcopy(supernet().state_dict())

    def tensors(self):
        return self.kept

    def shown(self):
        return self.shows

    def after_step(self, *told):
        super().after_step(*told)
        return self.says


@pytest.mark.parametrize(
    ("says", "shows", "words"),
    [
        ({"event": "finish"}, {}, "method telling records the event 'finish'"),
        ({"event": 3}, {}, "method telling records the event 3"),
        ({"step": 1}, {}, "method telling records the event None"),
        (None, {"loss": "low"}, "method telling shows loss"),
    ],
)
def test_what_the_log_could_not_tell_from_its_own_is_refused(tmp_path, monkeypatch, says, shows, words):
    monkeypatch.setitem(METHODS, "telling", Telling)
    monkeypatch.setattr(Telling, "says", says)
    monkeypatch.setattr(Telling, "shows", shows)
    with pytest.raises(ValueError, match=words):
        make_trainer(tmp_path, method="telling", max_steps=1).train()


def test_an_event_is_logged_with_its_step_and_tied_tensors_are_saved(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "telling", Telling)
    monkeypatch.setattr(Telling, "says", {"event": "told"})
    trainer = make_trainer(tmp_path, method="telling", max_steps=2, save_steps=2)
    before = copy.deepcopy(trainer.supernet.state_dict())
    trainer.train()
    assert train_log(tmp_path, "told") == [{"event": "told", "step": step} for step in (1, 2)]
    saved = checkpoints.load_tensors(tmp_path / "checkpoint-2")
    assert saved.keys() == before.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_loss_comes_with_as_many_terms_as_have_names(tmp_path, monkeypatch, number):
    monkeypatch.setitem(METHODS, "listening", Listening)
    trainer = make_trainer(tmp_path, method="listening")
    trainer.method.num_terms = number
    children = trainer.method.children()
    with pytest.raises(ValueError, match=f"the loss of method listening came with {number} terms: expected 2"):
        trainer.step.backward(0, children, trainer.batches.batch(0), is_stopping=False)


class TestAlignedStates:
    """Every shortcut must give what the plain way gives: two whole forward passes, compared."""

    @pytest.mark.parametrize(
        ("space", "padding", "num_rows"),
        mostly_slow([("staged", True, None), ("chain", False, None), ("chain", True, 2), ("staged", False, 1)], 2),
    )
    def test_loss_and_gradient_are_those_of_the_plain_way(self, space, padding, num_rows):
        supernet = make_supernet(space).train()
        randomise_(supernet)
        batch = TinyBatches(6, padding=padding).batch(0)
        kept = slice(num_rows)
        labelled = batch["labels"] != -100
        rng = random.Random(0)
        drawn = [SPACES[space].sample(rng, "children") for _ in range(16)]
        children = [
            *itertools.pairwise(drawn[:9]),
            *((child, SPACES[space].mutate(child, rng)) for child in drawn[8:]),
        ]
        for child, anchor in children:
            outputs = supernet(**batch, architecture=child, output_hidden_states=True)
            states = aligned_states(
                supernet,
                child,
                anchor,
                outputs.hidden_states,
                batch["input_ids"],
                batch["attention_mask"] if padding else None,
                batch["labels"],
                num_rows=num_rows,
            )
            found = alignment_loss(states.child, states.teacher, states.padding_mask, positions=states.positions)
            (found * 10 + 0 * outputs.loss).backward()
            found_grads = gradients(supernet)
            supernet.zero_grad()

            # Two whole forward passes, everything at all tokens, compared in float64 with numpy-like indexing.
            inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
            own = supernet(**inputs, architecture=child, output_hidden_states=True).hidden_states[1:]
            with torch.no_grad():
                other = supernet(**inputs, architecture=anchor, output_hidden_states=True).hidden_states[1:]
            last = min(last_mixing_block(network) for network in (child, anchor))
            terms = []
            for block, (one, two) in enumerate(zip(own, other, strict=True)):
                if one.shape[-1] != two.shape[-1]:
                    continue
                is_shared = child[: block + 1] == anchor[: block + 1]
                where = labelled if block >= last and not is_shared else batch["attention_mask"].bool()
                terms.append((one - two)[kept][where[kept]].square().mean())
            expected = sum(terms) / len(terms)
            assert found.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-9)
            if not expected.requires_grad:
                continue
            (expected * 10 + 0 * outputs_zero(supernet, batch, child)).backward()
            expected_grads = gradients(supernet)
            supernet.zero_grad()
            assert found_grads.keys() == expected_grads.keys()
            for name, grad in expected_grads.items():
                torch.testing.assert_close(found_grads[name], grad, rtol=1e-3, atol=1e-6, msg=name)

    def test_the_teacher_is_a_constant(self):
        supernet = make_supernet().train()
        child, anchor = (Architecture.parse(text) for text in ("attention-ffn-ffn-ffn", "attention-conv3-conv3-conv3"))
        batch = TinyBatches(4).batch(0)
        outputs = supernet(**batch, architecture=child, output_hidden_states=True)
        states = aligned_states(
            supernet, child, anchor, outputs.hidden_states, batch["input_ids"], None, batch["labels"]
        )
        alignment_loss(states.child, states.teacher, positions=states.positions).backward()
        own, other = (supernet.nasbert.encoder.blocks[1].operators[name] for name in ("ffn", "conv3"))
        assert all(p.grad is None for p in other.parameters())
        assert all(p.grad is not None for p in own.parameters())

    def test_no_work_that_changes_nothing(self):
        """The common prefix is not run again; dropout is off."""
        supernet = make_supernet(dropout=0.5).train()
        child, anchor = (
            Architecture.parse(text) for text in ("attention-ffn-ffn-conv3", "attention-conv3-conv3-conv3")
        )
        batch = TinyBatches(4).batch(0)
        outputs = supernet(**batch, architecture=child, output_hidden_states=True)
        run = []
        run_block = supernet.nasbert.run_block
        supernet.nasbert.run_block = lambda block, *args: run.append(block) or run_block(block, *args)
        inputs = (outputs.hidden_states, batch["input_ids"], None, batch["labels"])
        states = aligned_states(supernet, child, anchor, *inputs)
        assert run == [1, 2, 3]
        assert states.teacher[0] is states.child[0] is outputs.hidden_states[1]
        again = aligned_states(supernet, child, anchor, *inputs)
        assert all(torch.equal(one, other) for one, other in zip(states.teacher, again.teacher, strict=True))
        # Behind its last mixing block the child has states at labelled tokens only. What the anchor shares with it
        # there is run again, for all tokens, but stays the same network: dropout is no distance.
        child, anchor = (Architecture.parse(text) for text in ("attention-ffn-ffn-ffn", "attention-ffn-conv3-ffn"))
        states = aligned_states(supernet, child, anchor, *inputs)
        assert all(states.teacher[block] is states.child[block] for block in (0, 1))
        assert states.teacher[2] is not states.child[2]
        # An anchor that mixes no more tokens goes on at the labelled ones.
        child, anchor = (Architecture.parse(text) for text in ("attention-ffn-conv3-conv3", "attention-ffn-ffn-skip"))
        outputs = supernet(**batch, architecture=child, output_hidden_states=True)
        states = aligned_states(supernet, child, anchor, outputs.hidden_states, *inputs[1:])
        assert [len(states.teacher[block]) for block in (2, 3)] == [len(states.positions)] * 2
        assert all(module.training for module in supernet.modules())


def outputs_zero(supernet, batch, child):
    """A loss that reaches every parameter of a child, so that the same ones have a gradient."""
    return supernet(**batch, architecture=child).loss
