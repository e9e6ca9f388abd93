"""`training`: gradients, methods, anchor, resumption. Batches are synthetic token ids; models are tiny."""

import logging
import math
import os
import random
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from helpers import mostly_slow, run_recipe
from tiny.models import gradients, randomise_
from tiny.processes import forked
from tiny.trainings import (
    SPACES,
    KilledBatches,
    TinyBatches,
    make_arguments,
    make_supernet,
    make_trainer,
    save_tiny_recipe,
    train_log,
)
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertTokenizer

from hf_nasbert.data import DataArguments, digest_of
from hf_nasbert.extraction import extract_child, prove_equal_logits
from hf_nasbert.methods import METHODS
from hf_nasbert.modeling import SupernetForMaskedLM
from hf_nasbert.modeling.layouts import LAYOUTS, SeparateWeights, WeightLayout
from hf_nasbert.recipe_arguments import parse_recipe_arguments
from hf_nasbert.samplers import GradualSampler
from hf_nasbert.scoring import score_architectures
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.training import (
    DamagedCheckpointError,
    DivergenceError,
    SupernetArguments,
    SupernetTrainingArguments,
    TrainingOutput,
    checkpoints,
    list_checkpoints,
    machine,
    read_log,
    train_supernet,
)
from hf_nasbert.training.step import make_optimizer

FIRST = ("uniform", "fair", "magic_t", "magic_a", "magic_at", "sandwich")
"""The others are held to the same by check_method (test_testing.py) and by test_every_method.py."""
RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture(autouse=True)
def _a_world_of_its_own(monkeypatch):
    """Accelerate keeps its state for the whole process; each test gets a new one, as each run does."""
    for name in ("WORLD_SIZE", "MASTER_ADDR", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def random_children(space, count, seed=0):
    rng = random.Random(seed)
    return [SPACES[space].sample(rng, "children") for _ in range(count)]


class TestArguments:
    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"method": "magic"}, "method='magic'"),
            ({"max_steps": 0}, "max_steps=0: expected at least 1"),
            ({"alignment_rows": 0}, "alignment_rows=0"),
            ({"alignment_rows": 1.5}, "alignment_rows=1.5: expected at most 1"),
            ({"alignment_start": 1}, "alignment_start=1: expected below 1"),
            ({"alignment_start": -0.1}, "alignment_start=-0.1: expected at least 0"),
            ({"learning_rate": float("nan")}, "learning_rate=nan"),
            ({"adam_beta2": 2.0}, "adam_beta2"),
            ({"torch_compile": True, "torch_compile_backend": "bogus"}, "'bogus': this torch knows .*eager.*inductor"),
        ],
    )
    def test_bad_values_are_named(self, tmp_path, settings, words):
        with pytest.raises(ValueError, match=words):
            make_arguments(tmp_path, **settings)

    @pytest.mark.parametrize(
        ("method", "settings", "words"),
        [
            (
                "uniform",
                {"alignment_rows": 0.5},
                "alignment_rows is a setting of magic_a and magic_at and magic_at_guarded, and method=uni",
            ),
            ("magic_a", {"nonsense": 1}, "nonsense is no setting of any method"),
            ("magic_t", METHODS["magic_a"].Settings(), "method=magic_t has settings of GradualSettings, got MagicAS"),
        ],
    )
    def test_settings_of_other_methods_are_refused(self, method, settings, words):
        with pytest.raises(ValueError, match=words):
            SupernetTrainingArguments(output_dir="x", method=method, method_settings=settings)

    def test_backends_are_looked_up_only_to_compile(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch._dynamo", None)
        monkeypatch.delattr(torch, "_dynamo", raising=False)
        make_arguments(tmp_path, torch_compile_backend="bogus")
        with pytest.raises(ImportError):
            make_arguments(tmp_path, torch_compile=True)

    def test_learning_rate(self, tmp_path):
        linear = make_arguments(tmp_path, max_steps=100, learning_rate=1.0, warmup_steps=10)
        rates = [linear.learning_rate_at(step) for step in range(101)]
        assert rates[0] == pytest.approx(0.1)
        assert rates[9] == rates[10] == 1.0
        assert rates[55] == pytest.approx(0.5)
        assert rates[100] == 0.0
        cosine = make_arguments(
            tmp_path, max_steps=100, learning_rate=1.0, warmup_ratio=0.1, lr_scheduler_type="cosine"
        )
        assert cosine.learning_rate_at(9) == 1.0
        assert cosine.learning_rate_at(55) == pytest.approx(0.5)
        assert cosine.learning_rate_at(25) > linear.learning_rate_at(25)
        share = make_arguments(tmp_path, max_steps=100, learning_rate=1.0, warmup_steps=0.1)
        assert [share.learning_rate_at(step) for step in (0, 9, 50)] == [
            linear.learning_rate_at(step) for step in (0, 9, 50)
        ]
        straight = make_arguments(tmp_path, max_steps=4, learning_rate=1.0, warmup_ratio=0.0)
        assert [straight.learning_rate_at(step) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
        held = make_arguments(
            tmp_path, max_steps=4, learning_rate=1.0, warmup_steps=2, lr_scheduler_type="constant_with_warmup"
        )
        assert [held.learning_rate_at(step) for step in range(5)] == [0.5, 1.0, 1.0, 1.0, 1.0]

    @pytest.mark.parametrize("kind", ["linear", "cosine"])
    def test_the_learning_rate_falls_to_a_floor_and_stays_there(self, tmp_path, kind):
        settings = {"max_steps": 100, "learning_rate": 2.0, "warmup_steps": 10, "lr_scheduler_type": kind}
        free, held = (make_arguments(tmp_path, **settings, min_lr_ratio=ratio) for ratio in (0.0, 0.05))
        assert [held.learning_rate_at(step) for step in range(100)] == [
            rate if step < 10 else max(rate, 0.1) for step, rate in enumerate(map(free.learning_rate_at, range(100)))
        ]
        assert held.learning_rate_at(99) == held.learning_rate_at(98) == 0.1
        # What was rounded so before there was a floor is rounded so now.
        done = (37 - 10) / 90
        of_old = 2.0 * (1 - done) if kind == "linear" else 2.0 * (1 + math.cos(math.pi * done)) / 2
        assert free.learning_rate_at(37) == of_old
        for ratio in (-0.1, 1.5):
            with pytest.raises(ValueError, match="min_lr_ratio"):
                make_arguments(tmp_path, **settings, min_lr_ratio=ratio)

    def test_a_floor_is_trained_at_and_another_one_is_told_when_a_run_goes_on(self, tmp_path, caplog, monkeypatch):
        settings = {"method": "uniform", "num_eval_children": 0, "save_steps": 2, "save_total_limit": 0}
        make_trainer(tmp_path, max_steps=4, min_lr_ratio=0.9, **settings).train()
        assert train_log(tmp_path)[-1]["learning_rate"] == 0.9 * 1e-2
        state = checkpoints.read_state(tmp_path / "checkpoint-2")
        del state["arguments"]["min_lr_ratio"]  # as an earlier version wrote it
        monkeypatch.setattr(checkpoints, "read_state", lambda folder: state)
        for ratio, is_told in ((0.5, True), (0.0, False)):
            caplog.clear()
            make_trainer(
                tmp_path,
                max_steps=4,
                min_lr_ratio=ratio,
                resume_from_checkpoint=str(tmp_path / "checkpoint-2"),
                **settings,
            ).train()
            assert ("min_lr_ratio=0.5; it was made with 0.0" in caplog.text) == is_told

    def test_supernet_arguments_build_configs(self):
        own = SupernetArguments(operators=["attention", "skip"], num_choice_blocks=4, hidden_size=64, ffn_ratio=2)
        config = own.build_config(vocab_size=77)
        assert config.space == SearchSpace.chain(4, ("attention", "skip"))
        assert (config.vocab_size, config.hidden_size, config.ffn_ratio) == (77, 64, 2)
        staged = SupernetArguments(operators=["ffn", "skip"], num_choice_blocks=4, num_stages=2, widths=[32, 64])
        assert staged.build_config().space == SearchSpace.staged(2, 2, ("ffn", "skip"), widths=(32, 64))
        stem = SupernetArguments(blocks=["conv3", "attention, ffn", "attention,ffn"]).build_config()
        assert stem.space.blocks == (("conv3",), ("attention", "ffn"), ("attention", "ffn"))
        for given in ({"operators": ["ffn", "skip"], "num_choice_blocks": 2}, {"blocks": ["ffn,skip", "ffn, skip"]}):
            free = SupernetArguments(**given, skip="anywhere").build_config().space
            assert (
                free == SearchSpace.chain(2, ("ffn", "skip"), skip="anywhere") != SearchSpace.chain(2, ("ffn", "skip"))
            )
        preset = SupernetArguments(preset="quickstart", hidden_dropout_prob=0.0).build_config(vocab_size=50)
        assert (preset.hidden_size, preset.vocab_size, preset.hidden_dropout_prob) == (128, 50, 0.0)

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({}, "preset"),
            ({"operators": ["ffn"]}, "num_choice_blocks"),
            ({"preset": "quickstart", "operators": ["ffn"]}, "operators was given too"),
            ({"preset": "quickstart", "num_stages": 2}, "num_stages"),
            ({"preset": "quickstart", "blocks": ["ffn"]}, "blocks was given too"),
            ({"blocks": ["ffn"], "widths": [64]}, "widths was given too"),
            ({"operators": ["ffn"], "num_choice_blocks": 5, "num_stages": 2}, "2 equal stages"),
            ({"preset": "magic-base", "skip": "anywhere"}, "skip=anywhere.*leave out preset"),
            ({"operators": ["ffn"], "num_choice_blocks": 4, "num_stages": 2, "skip": "anywhere"}, "num_stages"),
            ({"operators": ["ffn"], "num_choice_blocks": 4, "widths": [8], "skip": "anywhere"}, "leave out widths"),
            ({"blocks": ["ffn"], "skip": "middle"}, "skip='middle': expected end or anywhere"),
            ({"preset": "quickstart", "weight_layout": "nestled"}, "weight_layout='nestled' is none of separate"),
        ],
    )
    def test_a_space_that_is_none_is_refused(self, settings, words):
        with pytest.raises(ValueError, match=words):
            SupernetArguments(**settings)

    def test_data_methods_and_arguments_must_fit(self, tmp_path):
        with pytest.raises(ValueError, match=r"hold 5 sequences a step.* take 4"):
            make_trainer(tmp_path, batches=TinyBatches(5))
        with pytest.raises(ValueError, match=r"scores children on 7 dev batches.* there are 2"):
            make_trainer(tmp_path, anchor_dev_batches=7)
        with pytest.raises(ValueError, match=r"choice block 0.*pooling"):
            make_trainer(tmp_path, anchor="pooling-ffn-ffn-ffn")
        with pytest.raises(ValueError, match="report_to='wandbb'"):
            make_trainer(tmp_path, report_to="wandbb")
        with pytest.raises(ValueError, match="fp16 needs a GPU"):
            make_trainer(tmp_path, mixed_precision="fp16")


class TestMachine:
    @pytest.mark.parametrize(("has_units", "precision"), [(True, "bf16"), (False, "no")])
    def test_auto_computes_in_bf16_where_the_cpu_has_units_for_it(self, tmp_path, monkeypatch, has_units, precision):
        monkeypatch.setattr(machine, "has_bf16_units", lambda: has_units)
        trainer = make_trainer(tmp_path, method="uniform", max_steps=2, mixed_precision="auto")
        assert trainer.accelerator.mixed_precision == precision
        trainer.train()
        (start,) = train_log(tmp_path, "start")
        assert start["arguments"]["mixed_precision"] == precision
        other = {True: "no", False: "bf16"}[has_units]
        resumed = make_trainer(tmp_path, method="uniform", resume_from_checkpoint="latest", mixed_precision=other)
        with pytest.raises(ValueError, match=f"mixed_precision was '?{precision}'?, and is '?{other}"):
            resumed.train()

    def test_trainings_of_one_process_may_differ_in_precision(self, tmp_path):
        AcceleratorState._reset_state(reset_partial_state=True)
        for precision in ("no", "bf16", "bf16", "no"):
            accelerator = machine.make_accelerator(make_arguments(tmp_path, mixed_precision=precision))
            assert accelerator.mixed_precision == precision

    @pytest.mark.parametrize(
        ("units", "has_onednn", "has_units"),
        [
            ({"avx512_bf16"}, True, True),
            ({"amx_tile"}, True, True),
            (set(), True, False),
            ({"avx512", "vnni"}, True, False),  # these emulate bf16
            ({"amx_tile"}, False, False),
        ],
    )
    def test_units_are_those_that_onednn_uses(self, monkeypatch, units, has_onednn, has_units):
        for name in ("avx512_bf16", "amx_tile", "avx512", "vnni"):
            supported = f"_is_{name}_supported"
            monkeypatch.setattr(torch.cpu, supported, lambda name=name: name in units, raising=False)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: has_onednn)
        assert machine.has_bf16_units() is has_units

    def test_gpus_and_what_is_asked_for_stay_as_they_are(self, tmp_path, monkeypatch):
        monkeypatch.setattr(machine, "has_bf16_units", lambda: True)
        monkeypatch.setattr(machine, "join", lambda use_cpu: SimpleNamespace(**state))
        monkeypatch.setattr(
            machine, "Accelerator", lambda **settings: SimpleNamespace(device=state["device"], **settings)
        )
        for device, asked, precision in [("cuda", "auto", "no"), ("cuda", "bf16", "bf16"), ("cpu", "no", "no")]:
            state = {"device": torch.device(device), "num_processes": 1, "is_main_process": True}
            accelerator = machine.make_accelerator(make_arguments(tmp_path, mixed_precision=asked))
            assert accelerator.mixed_precision == precision

    def test_allocator_is_tuned_on_glibc_only(self, monkeypatch):
        monkeypatch.setattr(machine.platform, "libc_ver", lambda: ("", ""))
        assert machine.tune_allocator() is False


class TestStep:
    def backward(self, tmp_path, *, architectures, batches=None, number=0, **settings):
        trainer = make_trainer(tmp_path, supernet=make_supernet(), batches=batches, **settings)
        randomise_(trainer.supernet)
        losses = trainer.step.backward(
            number,
            [Architecture.parse(text) for text in architectures],
            trainer.batches.batch(number),
            is_stopping=False,
        )
        return losses, gradients(trainer.supernet), trainer

    @pytest.mark.parametrize("padding", [False, True])
    @pytest.mark.parametrize(
        "settings",
        [
            {"method": "uniform"},
            {"method": "magic_a", "alignment_rows": 1.0},
            {"method": "magic_a", "alignment_rows": 0.3},
        ],
        ids=["uniform", "aligned", "aligned rows"],
    )
    def test_accumulated_equals_unaccumulated(self, tmp_path, padding, settings):
        settings |= {"anchor": "attention-conv3-ffn-conv3"} if settings["method"] == "magic_a" else {}
        batches = TinyBatches(8, padding=padding)
        labels = (batches.batch(0)["labels"] != -100).sum(1)
        assert len(set(labels.view(4, 2).sum(1).tolist())) > 1, "micro-batches must weigh differently"
        found = [
            self.backward(
                tmp_path,
                architectures=["attention-ffn-conv3-attention"],
                batches=batches,
                per_device_train_batch_size=size,
                gradient_accumulation_steps=8 // size,
                **settings,
            )
            for size in (8, 2, 1)
        ]
        whole, expected, _ = found[0]
        assert whole.num_tokens == int(batches.batch(0)["attention_mask"].sum())
        for losses, grads, _ in found[1:]:
            assert losses.masked_lm == pytest.approx(whole.masked_lm, rel=1e-6)
            assert losses.terms == pytest.approx(whole.terms, rel=1e-5)
            assert grads.keys() == expected.keys()
            for name, grad in grads.items():
                torch.testing.assert_close(grad, expected[name], rtol=1e-4, atol=1e-6)

    def test_the_loss_is_the_mean_over_labelled_tokens(self, tmp_path):
        losses, _, trainer = self.backward(tmp_path, architectures=["conv3-ffn-skip-skip"], method="uniform")
        batch, child = trainer.batches.batch(0), Architecture.parse("conv3-ffn-skip-skip")
        logits = trainer.supernet(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], architecture=child
        ).logits
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
        assert losses.masked_lm == pytest.approx(expected.item(), rel=1e-6)
        assert losses.terms == {}

    def test_aligned_rows_estimate_the_mean_over_all_rows(self, tmp_path):
        """The mean over the chosen rows, not a share of the sum: with a single distinct row, the very same number."""
        row = TinyBatches(1).batch(0)

        class Same(TinyBatches):
            def batch(self, step, rows=slice(None)):
                return {key: value.expand(8, -1)[rows] for key, value in row.items()}

        found = [
            self.backward(
                tmp_path,
                architectures=["attention-ffn-conv3-attention"],
                batches=Same(8),
                per_device_train_batch_size=8,
                method="magic_a",
                anchor="attention-conv3-ffn-conv3",
                alignment_rows=share,
            )[0]
            for share in (1.0, 0.25)
        ]
        assert found[0].terms["alignment"] == pytest.approx(found[1].terms["alignment"], rel=1e-5)
        assert found[0].terms["alignment"] > 0
        assert found[0].masked_lm == pytest.approx(found[1].masked_lm, rel=1e-6)

    def test_fair_adds_up_the_gradients_of_its_children(self, tmp_path):
        texts = ["attention-ffn-conv3-attention", "ffn-conv3-skip-skip"]
        together_losses, together, _ = self.backward(tmp_path, architectures=texts, method="fair")
        alone = [self.backward(tmp_path, architectures=[text], method="fair") for text in texts]
        assert together.keys() == alone[0][1].keys() | alone[1][1].keys()
        for name, grad in together.items():
            expected = sum(grads[name] for _, grads, _ in alone if name in grads)
            torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-6)
        assert together_losses.masked_lm == pytest.approx(
            sum(losses.masked_lm for losses, _, _ in alone) / 2, rel=1e-6
        )
        assert together_losses.num_tokens == 2 * alone[0][0].num_tokens

    def test_dropout_is_drawn_per_step_micro_batch_and_child(self, tmp_path):
        same = TinyBatches(2).batch(0)

        class Same(TinyBatches):
            def batch(self, step, rows=slice(None)):
                return {key: torch.cat([value, value])[rows] for key, value in same.items()}

        trainer = make_trainer(
            tmp_path,
            supernet=make_supernet(dropout=0.5),
            batches=Same(4),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            method="fair",
        )
        child = Architecture.parse("attention-ffn-conv3-attention")
        seen = []
        forward = trainer.model.forward

        def listening(*args, **kwargs):
            outputs = forward(*args, **kwargs)
            seen.append(outputs.loss.item())
            return outputs

        trainer.model.forward = listening
        trainer.model.train()
        for number in (0, 1, 0):
            torch.rand(3)  # what others draw in between changes nothing
            trainer.step.backward(number, [child, child], trainer.batches.batch(number), is_stopping=False)
        assert len(set(seen[:8])) == 8
        assert seen[8:] == seen[:4]

    def test_off_path_operators_and_their_moments_do_not_move_a_bit(self, tmp_path):
        trainer = make_trainer(tmp_path, method="uniform", weight_decay=0.1, max_steps=6)
        trainer.train()  # all operators have moments
        before = {name: p.detach().clone() for name, p in trainer.supernet.named_parameters()}
        optimizer = trainer.optimizer.optimizer
        moments = {
            name: {key: value.clone() for key, value in optimizer.state.get(p, {}).items()}
            for name, p in trainer.supernet.named_parameters()
        }
        trainer.global_step = 1  # where the learning rate is high
        child = Architecture.parse("attention-ffn-skip-skip")
        on_path = {id(p) for p in trainer.supernet.parameters_of(child)}
        trainer.method.sampler.next_step = lambda: (child,)
        trainer._take_step(trainer.batches.batch(7))
        num_moved = 0
        for name, parameter in trainer.supernet.named_parameters():
            assert parameter.grad is None
            if id(parameter) in on_path:
                num_moved += not torch.equal(parameter, before[name])
                continue
            assert torch.equal(parameter, before[name]), name
            state = optimizer.state.get(parameter, {})
            assert state.keys() == moments[name].keys()
            assert all(torch.equal(state[key], moments[name][key]) for key in state), name
        assert num_moved > 20
        assert any(moments[name] for name, p in trainer.supernet.named_parameters() if id(p) not in on_path)

    @pytest.mark.parametrize("is_finite", [True, False], ids=["made", "skipped"])
    def test_a_step_looks_at_the_parameters_of_its_children_only(self, tmp_path, monkeypatch, is_finite):
        trainer = make_trainer(tmp_path, method="uniform", max_steps=1, max_skipped_steps=1)
        (child,) = make_trainer(tmp_path, method="uniform").method.children()
        walked = {"clip": [], "step": [], "clear": []}
        clip, optimizer = trainer.accelerator.clip_grad_norm_, trainer.optimizer.optimizer
        step, clear = optimizer.step, optimizer.zero_grad
        held = [list(group["params"]) for group in optimizer.param_groups]

        def in_groups():
            return [parameter for group in optimizer.param_groups for parameter in group["params"]]

        def clip_(parameters, most):
            walked["clip"] = list(parameters)
            return clip(walked["clip"], most) if is_finite else torch.tensor(torch.inf)

        monkeypatch.setattr(trainer.accelerator, "clip_grad_norm_", clip_)
        monkeypatch.setattr(optimizer, "step", lambda closure=None: (walked["step"].extend(in_groups()), step()))
        monkeypatch.setattr(optimizer, "zero_grad", lambda set_to_none: (walked["clear"].extend(in_groups()), clear()))
        trainer.train()
        used = {id(parameter) for parameter in trainer.supernet.parameters_of(child)}
        assert len(used) < len(trainer.step.parameters) / 2
        for what, parameters in walked.items():
            expected = set() if what == "step" and not is_finite else used
            assert len(parameters) == len(expected), what
            assert {id(parameter) for parameter in parameters} == expected, what
        assert all(parameter.grad is None for parameter in trainer.step.parameters)
        for group, before in zip(optimizer.param_groups, held, strict=True):  # whole again: a state holds them all
            assert [id(parameter) for parameter in group["params"]] == [id(parameter) for parameter in before]

    def test_looking_at_few_parameters_changes_no_bit(self, tmp_path):
        """Against the plain loop: AdamW over all parameters, of which it skips those without gradient."""
        trainer, plain = make_trainer(tmp_path, method="uniform", max_steps=6), make_supernet()
        plain.load_state_dict(trainer.supernet.state_dict())
        optimizer = make_optimizer(plain, trainer.arguments)
        method = make_trainer(tmp_path, method="uniform").method
        trainer.train()
        for number in range(6):
            batch = trainer.batches.batch(number)
            (child,) = method.children()
            for group in optimizer.param_groups:
                group["lr"] = trainer.arguments.learning_rate_at(number)
            num_labels = int((batch["labels"] != -100).sum())
            inputs = {"input_ids": batch["input_ids"], "labels": batch["labels"]}
            plain(**inputs, architecture=child, num_items_in_batch=num_labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(plain.parameters(), trainer.arguments.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for (name, one), other in zip(trainer.supernet.named_parameters(), plain.parameters(), strict=True):
            assert torch.equal(one, other), name
            mine, theirs = trainer.optimizer.optimizer.state.get(one, {}), optimizer.state.get(other, {})
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[key], theirs[key]) for key in mine), name

    def test_decay_spares_biases_and_normalisations(self, tmp_path):
        supernet = make_supernet()
        randomise_(supernet)
        optimizer = make_optimizer(supernet, make_arguments(tmp_path, weight_decay=0.5, learning_rate=1.0))
        before = {name: p.detach().clone() for name, p in supernet.named_parameters()}
        for parameter in supernet.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for name, parameter in supernet.named_parameters():
            spared = name.endswith("bias") or "LayerNorm" in name
            expected = before[name] if spared else before[name] * 0.5
            torch.testing.assert_close(parameter.detach(), expected, msg=name)


class TestTraining:
    def test_anchors_are_compared_by_dev_loss_with_the_weights_of_the_moment(self, tmp_path):
        """A replay by hand: after every third step the sampled child against the anchor, on the first dev batch."""
        trainer = make_trainer(tmp_path, method="magic_a", max_steps=24, save_steps=100)
        after_step, judged = trainer.method.after_step, []

        def watching(step, children, *others):
            losses = []
            trainer.supernet.eval()
            for child in (children[-1], trainer.method.anchor):
                with torch.no_grad():
                    losses.append(float(trainer.supernet(**trainer.dev_batches[0], architecture=child).loss))
            trainer.supernet.train()
            judged.append((children[-1], trainer.method.anchor, *losses))
            return after_step(step, children, *others)

        trainer.method.after_step = watching
        trainer.train()
        anchors = [record["anchor"] for record in train_log(tmp_path)]
        for number, (child, anchor, child_loss, anchor_loss) in enumerate(judged, start=1):
            is_replaced = number % 3 == 0 and child_loss < anchor_loss
            assert anchors[number - 1] == str(child if is_replaced else anchor)
        events = train_log(tmp_path, "anchor")
        assert events, "no anchor was replaced in this test"
        assert [event["step"] for event in events] == [n for n in range(2, 25) if anchors[n - 1] != anchors[n - 2]]
        # The first child was the first anchor, so its alignment to itself is zero.
        assert judged[0][0] == judged[0][1]
        for (child, anchor, *_), record in zip(judged, train_log(tmp_path), strict=True):
            assert (record["alignment"] == 0) == (child == anchor)

    @pytest.mark.parametrize(
        ("drawn", "words"),
        [
            ((), r"sampler gave '\(\)' for a step: expected a tuple of one or more children"),
            (Architecture.parse("ffn-ffn-ffn-ffn-ffn"), "expected a tuple of one or more children"),
            ((["ffn", "ffn"],), "names 2 operators"),
        ],
    )
    def test_refuses_steps_that_are_none(self, tmp_path, monkeypatch, drawn, words):
        trainer = make_trainer(tmp_path)
        monkeypatch.setattr(trainer.method.sampler, "next_step", lambda: drawn)
        with pytest.raises(ValueError, match=words):
            trainer.train()

    @pytest.mark.parametrize("method", mostly_slow(FIRST, len(FIRST)))
    def test_learns(self, tmp_path, method):
        trainer = make_trainer(
            tmp_path, method=method, max_steps=30, per_device_train_batch_size=8, save_steps=100, logging_steps=10
        )
        before = score_architectures(trainer.supernet, [trainer.supernet.largest_architecture], trainer.dev_batches)[0]
        output = trainer.train()
        after = dict(output.evaluation)[trainer.supernet.largest_architecture]
        assert after < before - 0.5
        assert output.is_finished
        assert output.global_step == 30
        assert trainer.counter.num_children == 30 * {"fair": 3, "sandwich": 4}.get(method, 1)
        log = train_log(tmp_path)
        assert [record["step"] for record in log] == [10, 20, 30]
        assert log[-1]["learning_rate"] < log[1]["learning_rate"]

    def test_the_learning_rate_reaches_the_optimizer(self, tmp_path):
        trainer = make_trainer(tmp_path, max_steps=6)
        optimizer_step, rates = trainer.optimizer.step, []

        def watching():
            rates.append({group["lr"] for group in trainer.optimizer.param_groups})
            optimizer_step()

        trainer.optimizer.step = watching
        trainer.train()
        assert rates == [{trainer.arguments.learning_rate_at(number)} for number in range(6)]
        assert len(set.union(*rates)) == 4

    def test_trains_the_samplers_children(self, tmp_path):
        trainer = make_trainer(tmp_path, method="magic_t", seed=5)
        trainer.train()
        sampler = GradualSampler(SPACES["chain"], seed=5)
        assert [record["architecture"] for record in train_log(tmp_path)] == [
            str(sampler.next_architecture()) for _ in range(12)
        ]

    def test_alignment_pulls_children_to_the_anchor(self, tmp_path):
        """With a heavy weight the children's states end nearer to the anchor's than without alignment."""
        ends = {}
        for weight in (0.0, 20.0):
            trainer = make_trainer(
                tmp_path / str(weight),
                method="magic_a",
                anchor="attention-attention-ffn-ffn",
                anchor_interval=1000,
                alignment_weight=weight,
                max_steps=20,
                save_steps=100,
            )
            trainer.train()
            ends[weight] = sum(record["alignment"] for record in train_log(tmp_path / str(weight))[-10:])
        assert ends[20.0] < 0.5 * ends[0.0]

    @pytest.mark.slow
    def test_alignment_may_start_late(self, tmp_path):
        """Up to there the run is that without alignment, to the bit; the anchor is judged all the same."""
        logs = {}
        for method, start in (("uniform", 0.0), ("magic_a", 0.5), ("magic_a", 0.0)):
            folder = tmp_path / f"{method}-{start}"
            own = (
                {} if method == "uniform" else {"alignment_start": start, "alignment_rows": 1.0}
            )  # rows stay in order
            make_trainer(folder, method=method, max_steps=12, save_steps=100, **own).train()
            logs[method, start] = train_log(folder)
        late = logs["magic_a", 0.5]
        assert [record["alignment"] > 0 for record in late[:6]] == [False] * 6
        assert any(record["alignment"] > 0 for record in late[6:])
        losses = {key: [record["loss"] for record in log] for key, log in logs.items()}
        assert losses["magic_a", 0.5][:7] == losses["uniform", 0.0][:7]
        assert losses["magic_a", 0.5][7:] != losses["uniform", 0.0][7:]
        assert losses["magic_a", 0.0][:7] != losses["uniform", 0.0][:7]
        assert len({record["anchor"] for record in late[:6]}) > 1

    def test_staged_spaces_train_and_align(self, tmp_path):
        trainer = make_trainer(tmp_path, supernet=make_supernet("staged"), method="magic_at")
        trainer.train()
        assert all(record["alignment"] > 0 for record in train_log(tmp_path)[1:])

    def test_the_final_supernet_loads_and_its_tokenizer_lies_beside(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        vocabulary = {
            token: number for number, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"])
        }
        arguments = make_arguments(tmp_path, max_steps=3)
        dev_batches = [TinyBatches(4, seed=9).batch(0)]
        supernet = make_supernet()
        train_supernet(supernet, arguments, TinyBatches(4), dev_batches, tokenizer=BertTokenizer(vocab=vocabulary))
        loaded = AutoModelForMaskedLM.from_pretrained(tmp_path)
        assert type(loaded) is SupernetForMaskedLM
        batch = TinyBatches(2).batch(0)
        for child in random_children("chain", 3):
            logits = [model.eval()(**batch, architecture=child).logits for model in (supernet, loaded)]
            assert torch.equal(*logits)
        assert AutoTokenizer.from_pretrained(tmp_path).convert_tokens_to_ids("a") == 5
        assert (tmp_path / "notes.txt").read_text() == "mine"
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

    def test_evaluates_the_same_children_always(self, tmp_path):
        trainer = make_trainer(tmp_path, eval_steps=4, num_eval_children=4)
        output = trainer.train()
        evaluations = train_log(tmp_path, "eval")
        assert [record["step"] for record in evaluations] == [4, 8, 12]
        children = [[child["architecture"] for child in record["children"]] for record in evaluations]
        assert children[0] == children[1] == children[2]
        assert len(set(children[0])) == 4
        assert str(trainer.supernet.largest_architecture) in children[0]
        assert evaluations[-1]["loss"] == pytest.approx(sum(loss for _, loss in output.evaluation) / 4)
        assert trainer.supernet.training

    def test_evaluation_does_not_change_training(self, tmp_path):
        logs = []
        for eval_steps in (0, 1):
            folder = tmp_path / str(eval_steps)
            make_trainer(folder, supernet=make_supernet(dropout=0.1), eval_steps=eval_steps).train()
            logs.append(train_log(folder))
        assert logs[0] == logs[1]

    @pytest.mark.parametrize(
        "setting",
        [
            "activation_checkpointing",
            pytest.param(
                "torch_compile",
                marks=[
                    pytest.mark.slow,
                    # torch 2.13's dynamo looks at .grad of any tensor, and hides its own warning but from "error".
                    pytest.mark.filterwarnings(
                        "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
                    ),
                ],
            ),
        ],
    )
    def test_options_that_change_no_result(self, tmp_path, setting):
        logs = []
        for value in (False, True):
            folder = tmp_path / str(value)
            options = {setting: value, "torch_compile_backend": "eager", "max_steps": 3, "num_eval_children": 0}
            make_trainer(folder, supernet=make_supernet(dropout=0.1), **options).train()
            logs.append([record["loss"] for record in train_log(folder)])
        assert logs[0] == pytest.approx(logs[1], rel=1e-5)

    def test_bf16(self, tmp_path):
        trainer = make_trainer(tmp_path, mixed_precision="bf16", max_steps=4)
        trainer.train()
        full = make_trainer(tmp_path / "full", max_steps=4)
        full.train()
        half, whole = ([record["loss"] for record in train_log(folder)] for folder in (tmp_path, tmp_path / "full"))
        assert half != whole
        assert half == pytest.approx(whole, rel=2e-2)
        assert all(p.dtype == torch.float32 for p in trainer.supernet.parameters())
        # Whoever computes with the super-net afterwards gets its own precision; the loop's losses stay those of bf16.
        child = trainer.space.child_at(0)
        assert prove_equal_logits(trainer.supernet, child, extract_child(trainer.supernet, child)) == 0
        evaluated = train_log(tmp_path, "eval")[-1]["children"]
        assert [loss for _, loss in trainer.eval_losses()] == [one["loss"] for one in evaluated]

    @pytest.mark.parametrize("name", ["auto", "tensorboard"])
    def test_reports_to_tensorboard(self, tmp_path, name):
        pytest.importorskip("tensorboard")
        make_trainer(tmp_path, report_to=name, max_steps=2).train()
        assert list(tmp_path.rglob("events.out.tfevents.*"))

    def test_all_wait_for_the_main_process_before_the_first_step(self, tmp_path, monkeypatch):
        trainer = make_trainer(tmp_path, max_steps=2)
        calls = []
        accelerator = trainer.accelerator

        def noting(name, call):
            return lambda *args, **options: (calls.append(name), call(*args, **options))[1]

        monkeypatch.setattr(accelerator, "init_trackers", noting("trackers", accelerator.init_trackers))
        monkeypatch.setattr(accelerator, "wait_for_everyone", noting("wait", accelerator.wait_for_everyone))
        monkeypatch.setattr(trainer, "_run_steps", noting("steps", trainer._run_steps))
        trainer.train()
        assert calls[:3] == ["trackers", "wait", "steps"]

    def test_shows_progress(self, tmp_path, capsys):
        make_trainer(tmp_path, disable_tqdm=False, max_steps=3).train()
        shown = capsys.readouterr().err
        for word in ("magic_at", "3/3", "loss=", "tok/s=", "anchor="):
            assert word in shown


class TestDivergence:
    def test_stops_with_step_and_architecture_and_saves_nothing(self, tmp_path):
        trainer = make_trainer(tmp_path, max_steps=9, save_steps=3)
        take_step = trainer._take_step

        def poisoned(batch):
            if trainer.global_step == 4:
                with torch.no_grad():
                    trainer.supernet.lm_head.bias.fill_(float("nan"))
            return take_step(batch)

        trainer._take_step = poisoned
        with pytest.raises(
            DivergenceError, match=r"loss of step 5 is nan, training .*-.*last checkpoint is checkpoint-3"
        ) as stopped:
            trainer.train()
        sampler = GradualSampler(SPACES["chain"], seed=0)
        assert str([sampler.next_architecture() for _ in range(5)][-1]) in str(stopped.value)
        assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-3"]
        assert [record["step"] for record in train_log(tmp_path)] == [1, 2, 3, 4]

    def test_a_gradient_that_is_infinite_does_not_reach_the_weights(self, tmp_path):
        trainer = make_trainer(tmp_path, method="uniform")
        before = {name: p.detach().clone() for name, p in trainer.supernet.named_parameters()}
        trainer.supernet.lm_head.bias.register_hook(lambda grad: grad + float("inf"))
        with pytest.raises(DivergenceError, match="gradient's norm of step 1 is"):
            trainer.train()
        assert all(torch.equal(p, before[name]) for name, p in trainer.supernet.named_parameters())


class TestResuming:
    @pytest.mark.parametrize(
        ("method", "precision"),
        [
            # The states of all others, of which these are made, are resumed by check_method.
            ("magic_at", "no"),
            *(pytest.param(method, "no", marks=pytest.mark.slow) for method in ("fair", "sandwich")),
            pytest.param("magic_at", "bf16", marks=pytest.mark.slow),  # emulated on most CPUs
        ],
    )
    def test_a_killed_run_goes_on_to_the_bit(self, tmp_path, method, precision):
        options = {
            "method": method,
            "mixed_precision": precision,
            "max_steps": 12,
            "save_steps": 4,
            "logging_steps": 3,
            "eval_steps": 5,
        }
        straight = make_trainer(tmp_path / "straight", supernet=make_supernet(dropout=0.1), **options)
        straight.train()
        folder = tmp_path / "killed"
        with pytest.raises(KeyboardInterrupt):
            make_trainer(
                folder, supernet=make_supernet(dropout=0.1), batches=KilledBatches(4, kill_at=6), **options
            ).train()
        assert [path.name for path in list_checkpoints(folder)] == ["checkpoint-4"]
        # Nothing but the checkpoint is to matter: other initial weights, another generator.
        resumed = make_trainer(
            folder, supernet=make_supernet(dropout=0.1, seed=77), resume_from_checkpoint="latest", **options
        )
        torch.manual_seed(123)
        resumed.train()
        for event in ("train", "eval", "anchor"):
            assert train_log(folder, event) == train_log(tmp_path / "straight", event)
        for (name, one), other in zip(
            straight.supernet.named_parameters(), resumed.supernet.parameters(), strict=True
        ):
            assert torch.equal(one, other), name
        assert resumed.counter.state_dict() == straight.counter.state_dict()

    def test_latest_of_nothing_is_a_fresh_start(self, tmp_path):
        make_trainer(tmp_path, resume_from_checkpoint="latest", max_steps=2).train()
        assert read_log(tmp_path)[0]["event"] == "start"

    def test_killed_before_its_first_checkpoint_a_run_starts_again(self, tmp_path):
        straight = make_trainer(tmp_path / "straight", max_steps=6)
        straight.train()
        folder = tmp_path / "killed"
        with pytest.raises(KeyboardInterrupt):
            make_trainer(folder, max_steps=6, batches=KilledBatches(4, kill_at=3)).train()
        with pytest.raises(ValueError, match="earlier run"):
            make_trainer(folder, max_steps=6).train()
        make_trainer(folder, max_steps=6, resume_from_checkpoint="latest").train()
        assert train_log(folder) == train_log(tmp_path / "straight")

    def test_a_finished_run_has_nothing_left_to_do(self, tmp_path):
        make_trainer(tmp_path, max_steps=5).train()
        again = make_trainer(tmp_path, max_steps=5, resume_from_checkpoint="latest")
        output = again.train()
        assert output.is_finished
        assert len(train_log(tmp_path)) == 5

    def test_asked_to_stop_it_saves_and_returns(self, tmp_path):
        straight = make_trainer(tmp_path / "straight", max_steps=8)
        straight.train()
        trainer = make_trainer(tmp_path / "stopped", max_steps=8)
        backward = trainer.accelerator.backward

        def asked(loss):
            if trainer.global_step == 2:  # in the third step, which has already asked whether to stop
                os.kill(os.getpid(), signal.SIGTERM)
            backward(loss)

        trainer.accelerator.backward = asked
        handler = signal.getsignal(signal.SIGTERM)
        output = trainer.train()
        assert (output.is_finished, output.global_step) == (False, 4)
        assert signal.getsignal(signal.SIGTERM) == handler
        assert [path.name for path in list_checkpoints(tmp_path / "stopped")] == ["checkpoint-4"]
        make_trainer(tmp_path / "stopped", max_steps=8, resume_from_checkpoint="latest").train()
        assert train_log(tmp_path / "stopped") == train_log(tmp_path / "straight")

    def test_a_foreign_checkpoint_destroys_nothing(self, tmp_path):
        make_trainer(tmp_path / "a", max_steps=2, save_steps=1).train()
        make_trainer(tmp_path / "b", max_steps=2, save_steps=1).train()
        before = {file: file.read_bytes() for file in sorted((tmp_path / "b").rglob("*")) if file.is_file()}
        foreign = str(tmp_path / "a" / "checkpoint-1")
        with pytest.raises(ValueError, match="holds an earlier run"):
            make_trainer(tmp_path / "b", max_steps=2, save_steps=1, resume_from_checkpoint=foreign).train()
        assert {file: file.read_bytes() for file in sorted((tmp_path / "b").rglob("*")) if file.is_file()} == before
        elsewhere = make_trainer(tmp_path / "c", max_steps=2, save_steps=1, resume_from_checkpoint=foreign)
        assert elsewhere.train().is_finished

    @pytest.mark.parametrize("most", [1e-3, 0.0])
    def test_gradients_are_clipped_to_their_norm(self, tmp_path, most):
        trainer = make_trainer(tmp_path, max_steps=1, max_grad_norm=most)
        optimizer_step, norms = trainer.optimizer.step, []

        def watching():
            grads = [p.grad for p in trainer.supernet.parameters() if p.grad is not None]
            norms.append(float(torch.stack([grad.norm() for grad in grads]).norm()))
            return optimizer_step()

        trainer.optimizer.step = watching
        trainer.train()
        assert norms[0] <= 1.01e-3 if most else norms[0] > 1e-2

    def test_two_runs_in_one_folder_are_kept_apart(self, tmp_path):
        trainer = make_trainer(tmp_path, max_steps=2)
        other = make_trainer(tmp_path, max_steps=2)
        take_step = trainer._take_step

        def meanwhile(batch):
            with pytest.raises(ValueError, match="another run is at work"):
                other.train()
            return take_step(batch)

        trainer._take_step = meanwhile
        assert trainer.train().is_finished

    def test_refuses_to_start_over_an_earlier_run(self, tmp_path):
        make_trainer(tmp_path, max_steps=5).train()
        (tmp_path / "notes.txt").write_text("mine")
        before = sorted(path.name for path in tmp_path.rglob("*"))
        with pytest.raises(ValueError, match=r"earlier run.*resume_from_checkpoint=latest"):
            make_trainer(tmp_path, max_steps=5).train()
        assert sorted(path.name for path in tmp_path.rglob("*")) == before
        make_trainer(tmp_path, max_steps=4, overwrite_output_dir=True, save_steps=2).train()
        assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-4"]
        assert len(train_log(tmp_path)) == 4
        assert (tmp_path / "notes.txt").read_text() == "mine"

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"supernet": {"space": "staged"}}, "search_space"),
            ({"supernet": {"ffn_ratio": 2}}, r"config\.ffn_ratio was 4, and is 2 here"),
            ({"method": "magic_t"}, "method was magic_at, and is magic_t here"),
            ({"seed": 3}, "seed was 0, and is 3 here"),
            ({"alignment_weight": 0.1}, r"alignment_weight was 0\.5, and is 0\.1 here"),
            ({"batches": TinyBatches(4, seed=8)}, r"data\.seed was 0, and is 8 here"),
        ],
    )
    def test_refuses_a_checkpoint_of_another_run(self, tmp_path, change, words):
        make_trainer(tmp_path, max_steps=5).train()
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        change = {**change, "supernet": make_supernet(**change.get("supernet", {}))}
        with pytest.raises(ValueError, match=f"checkpoint-5 belongs to another run: {words}"):
            make_trainer(tmp_path, max_steps=5, resume_from_checkpoint="latest", **change).train()
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

    def test_refuses_another_dev_set_and_another_model_in_the_folder(self, tmp_path):
        trainer = make_trainer(tmp_path / "run", max_steps=5)
        trainer.train()
        other = make_trainer(tmp_path / "run", max_steps=5, resume_from_checkpoint="latest")
        AcceleratorState._reset_state(reset_partial_state=True)
        dev_batches = [TinyBatches(4, seed=1).batch(0)]
        with pytest.raises(ValueError, match="belongs to another run: dev_data"):
            train_supernet(make_supernet(), other.arguments, TinyBatches(4), dev_batches)
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text("somebody's")
        for resume in (None, "latest"):
            with pytest.raises(ValueError, match=r"another model \(config\.json\)"):
                make_trainer(tmp_path / "model", resume_from_checkpoint=resume).train()
        assert (tmp_path / "model" / "config.json").read_text() == "somebody's"

    def test_a_text_in_which_anything_was_edited_is_another_one(self, tmp_path):
        def batches(content):
            batches = TinyBatches(4)
            described = {**batches.describe(), "content": content}
            batches.describe = lambda: described
            return batches

        make_trainer(tmp_path, max_steps=5, batches=batches("all sequences")).train()
        with pytest.raises(ValueError, match=r"data\.content was all sequences, and is all but one here"):
            make_trainer(
                tmp_path, max_steps=5, batches=batches("all but one"), resume_from_checkpoint="latest"
            ).train()

    def test_a_checkpoint_that_does_not_know_all_of_its_text_is_resumed_with_a_word(self, tmp_path, caplog):
        make_trainer(tmp_path, max_steps=5).train()
        batches = TinyBatches(4)
        batches.describe = lambda: {"seed": 0, "batch_size": 4, "content": "all sequences"}
        make_trainer(tmp_path, max_steps=7, batches=batches, resume_from_checkpoint="latest").train()
        assert "checkpoint-5 is of a version that knew its text by 64 sequences" in caplog.text
        caplog.clear()
        make_trainer(tmp_path, max_steps=8, batches=batches, resume_from_checkpoint="latest").train()
        assert "64 sequences" not in caplog.text

    def test_a_longer_schedule_is_allowed_and_said(self, tmp_path, caplog):
        make_trainer(tmp_path, max_steps=5).train()
        with caplog.at_level(logging.WARNING):
            make_trainer(tmp_path, max_steps=7, resume_from_checkpoint="latest").train()
        assert "max_steps=7" in caplog.text
        assert [record["step"] for record in train_log(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]

    def test_what_lies_behind_the_checkpoint_resumed_from_is_set_aside(self, tmp_path, caplog):
        make_trainer(tmp_path, max_steps=12).train()
        earlier = sorted(tmp_path.glob("checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1]))[0]
        step = int(earlier.name.split("-")[1])
        stopped = make_trainer(tmp_path, max_steps=step + 1, save_steps=1, resume_from_checkpoint=str(earlier))
        with caplog.at_level(logging.WARNING):
            stopped.train()
        assert "checkpoint-12 is now checkpoint-12.replaced" in caplog.text
        # `latest` is of the branch that was taken, not of the one that was left.
        resumed = make_trainer(tmp_path, max_steps=step + 1, save_steps=1, resume_from_checkpoint="latest")
        assert resumed.train().global_step == step + 1
        assert not (tmp_path / "checkpoint-12").exists()

    @pytest.mark.parametrize("name", ["checkpoint-4.replaced", "a copy"])
    def test_goes_on_from_a_checkpoint_of_another_name_in_the_folder(self, tmp_path, name):
        settings = {"max_steps": 8, "save_steps": 2, "save_total_limit": 0}
        make_trainer(tmp_path, **settings).train()
        expected = (tmp_path / "model.safetensors").read_bytes()
        (tmp_path / "checkpoint-4").rename(tmp_path / name)
        resumed = make_trainer(tmp_path, **settings, resume_from_checkpoint=str(tmp_path / name))
        assert resumed.train().is_finished
        assert {path.name for path in tmp_path.glob("checkpoint-*")} - {name} == {
            "checkpoint-2", "checkpoint-6", "checkpoint-6.replaced", "checkpoint-8", "checkpoint-8.replaced",
        }  # fmt: skip
        assert (tmp_path / "model.safetensors").read_bytes() == expected

    def test_a_truncated_checkpoint_is_passed_over(self, tmp_path, caplog):
        straight = make_trainer(tmp_path, max_steps=12)
        straight.train()
        expected = train_log(tmp_path)
        weights = tmp_path / "checkpoint-12" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(DamagedCheckpointError, match=r"model\.safetensors has"):
            make_trainer(tmp_path, resume_from_checkpoint=str(weights.parent)).train()
        with caplog.at_level(logging.WARNING):
            resumed = make_trainer(tmp_path, resume_from_checkpoint="latest")
            resumed.train()
        assert "checkpoint-12" in caplog.text
        assert train_log(tmp_path) == expected
        assert (tmp_path / "checkpoint-12.replaced").is_dir(), "the damaged one may still be of use"

    def test_checkpoints_hold_no_pickle(self, tmp_path):
        make_trainer(tmp_path, max_steps=5).train()
        suffixes = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
        assert suffixes == {".json", ".jsonl", ".safetensors"}


def pretrain(*argv):
    AcceleratorState._reset_state(reset_partial_state=True)
    run_recipe("pretrain_supernet", *argv)


@pytest.fixture
def tiny_recipe(tmp_path):
    return save_tiny_recipe(tmp_path)


class TestRecipe:
    @pytest.mark.parametrize(("name", "method"), [("quickstart-scratch", "magic_at"), ("supernet", "uniform")])
    def test_configs_parse_and_say_their_method(self, name, method):
        supernet, data, training = parse_recipe_arguments(
            [SupernetArguments, DataArguments, SupernetTrainingArguments], ["--config", name]
        )
        assert training.method == method
        built = supernet.build_config(vocab_size=data.vocab_size)
        assert built.max_position_embeddings >= data.max_seq_length

    def test_runs_from_text_to_supernet_and_flags_override(self, tiny_recipe, capsys):
        pretrain("--config", tiny_recipe, "--method", "uniform")
        output_dir = tiny_recipe.parent / "run"
        assert f"{output_dir}: super-net of 4 steps" in capsys.readouterr().out
        supernet = SupernetForMaskedLM.from_pretrained(output_dir)
        assert supernet.space == SearchSpace.chain(3, ("attention", "ffn", "conv3"))
        assert supernet.config.vocab_size == len(AutoTokenizer.from_pretrained(output_dir))
        assert read_log(output_dir)[0]["arguments"]["method"] == "uniform"
        # A finished run is taken up again, and another one refused.
        pretrain("--config", tiny_recipe, "--method", "uniform", "--resume_from_checkpoint", "latest")
        with pytest.raises(SystemExit, match="method was uniform, and is magic_at here"):
            pretrain("--config", tiny_recipe, "--resume_from_checkpoint", "latest")
        with pytest.raises(SystemExit):
            pretrain("--config", tiny_recipe, "--metod", "uniform")
        assert "did you mean --method?" in capsys.readouterr().err

    def test_skips_anywhere_and_a_layout_of_ones_own(self, tiny_recipe, monkeypatch):
        class Mine(SeparateWeights):
            """The same under another name."""

        monkeypatch.setitem(LAYOUTS, "mine", Mine)
        flags = ("--blocks", "ffn,skip", "conv3,skip", "--skip", "anywhere")
        text = tiny_recipe.read_text().replace("magic_at", "uniform")
        own = [line for line in text.splitlines() if not line.startswith(("operators", "num_choice"))]
        tiny_recipe.write_text("\n".join([*own, "weight_layout: mine"]))
        pretrain("--config", tiny_recipe, *flags)
        supernet = SupernetForMaskedLM.from_pretrained(tiny_recipe.parent / "run")
        assert supernet.space == SearchSpace.of_blocks(["ffn,skip", "conv3,skip"], skip="anywhere")
        assert {type(module) for module in supernet.modules() if isinstance(module, WeightLayout)} == {Mine}
        going_on = (*flags, "--resume_from_checkpoint", "latest")
        pretrain("--config", tiny_recipe, *going_on)
        with pytest.raises(SystemExit, match=r"config\.weight_layout was mine, and is separate here"):
            pretrain("--config", tiny_recipe, *going_on, "--weight_layout", "separate")

    def test_seeds_read_the_text_in_other_orders_and_are_judged_alike(self, tiny_recipe, monkeypatch):
        seen = []

        def train(*given, **_):
            seen.append(given[2:4])
            return TrainingOutput(0, {}, [], False)

        monkeypatch.setattr("hf_nasbert.training.pretrain.train_supernet", train)
        for seed in (0, 1):
            pretrain("--config", tiny_recipe, "--seed", seed)
        (first, first_dev), (second, second_dev) = seen
        assert not torch.equal(first.batch(0)["input_ids"], second.batch(0)["input_ids"])
        assert digest_of(first_dev) == digest_of(second_dev)

    def test_sequences_must_fit_the_positions(self, tiny_recipe):
        with pytest.raises(SystemExit, match=r"max_seq_length=16 exceeds .* max_position_embeddings=8"):
            pretrain("--config", tiny_recipe, "--max_position_embeddings", "8")


KILLED = {
    "fair": {},
    "magic_at": {},
    "board": {"board_interval": 2, "board_dev_batches": 1},
    "importance": {},
    "cross_path": {},
    "size_classes": {"save_steps": 4},  # after three the turn is where it began
    "few_shot": {"split": "gradients", "split_settings": 1},
    "mixture": {"mixture_interval": 2},
}
"""The methods that keep the most, and settings under which 24 steps change all of it."""


def train_on(folder, method):
    settings = {"max_steps": 24, "save_steps": 3, "resume_from_checkpoint": "latest", **KILLED[method]}
    arguments = make_arguments(folder, method=method, **settings)
    train_supernet(make_supernet(dropout=0.1), arguments, TinyBatches(4), [TinyBatches(4, seed=99).batch(0)])


@pytest.mark.slow
@pytest.mark.parametrize("method", KILLED)
def test_sigkill_at_any_moment_changes_no_bit(tmp_path, method):
    """A process of its own, killed from outside, and run again: log, super-net, and all that a checkpoint keeps."""
    straight = forked(train_on, tmp_path / "straight", method)
    straight.join(120)
    assert straight.exitcode == 0
    rng = random.Random(f"kill {method}")
    folder, num_kills = tmp_path / "killed", 0
    for _ in range(30):
        target = (len(train_log(folder)) if (folder / "train_log.jsonl").exists() else 0) + rng.randint(3, 12)
        process = forked(train_on, folder, method)
        while process.is_alive():
            if (folder / "train_log.jsonl").exists() and len(train_log(folder)) >= target:
                time.sleep(rng.random() * 0.05)
                process.kill()
                break
            time.sleep(0.005)  # the log is read each time
        process.join(120)
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode == 0:
            break
        num_kills += 1
    assert num_kills >= 2
    assert process.exitcode == 0
    for event in ("train", "anchor", "eval"):
        assert train_log(folder, event) == train_log(tmp_path / "straight", event), event
    places = [path / "checkpoint-24" for path in (folder, tmp_path / "straight")]
    for name in {file.name for file in places[1].iterdir()} - {checkpoints.STATE, checkpoints.MANIFEST}:
        assert (places[0] / name).read_bytes() == (places[1] / name).read_bytes(), name
    states = [checkpoints.read_json(place / checkpoints.STATE) for place in places]
    assert states[0]["method"] == states[1]["method"]  # the whole state tells of its folder too
    final = [(path / "model.safetensors").read_bytes() for path in (folder, tmp_path / "straight")]
    assert final[0] == final[1]
