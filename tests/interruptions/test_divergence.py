"""A loss or gradient that is no finite number ends a run by name, or costs a step that was allowed to be lost."""

import logging
import math
import re
from functools import partial

import pytest
import torch
from interruption_helpers import at_step, tiny_trainer
from tiny.trainings import train_log

from hf_nasbert.training import DivergenceError, checkpoints, list_checkpoints, loop, read_log
from hf_nasbert.training.journal import Window


def poison_loss(trainer, steps):
    """Make the loss of some steps, counted from 0, no number."""
    loss = trainer.method.loss

    def poisoned(run, peers, context):
        total, terms = loss(run._replace(loss=run.loss), peers, context)
        return total, tuple(term * float("nan") if context.step in steps else term for term in terms)

    trainer.method.loss = poisoned


def poison_gradient(trainer, steps):
    bias = trainer.supernet.lm_head.bias
    bias.register_hook(lambda grad: grad + float("inf") if trainer.global_step in steps else grad)


class TestDivergence:
    @pytest.mark.parametrize("poison", [poison_loss, poison_gradient])
    def test_names_step_architecture_and_batch(self, tmp_path, poison):
        trainer = tiny_trainer(tmp_path)
        poison(trainer, {3})
        with pytest.raises(DivergenceError, match=r"of step 4 is .*on the sequences 12, 13, 14, 15\. Nothing of this"):
            trainer.train()
        (last,) = (record for record in read_log(tmp_path) if record["event"] == "divergence")
        assert (last["step"], last["samples"]) == (4, [12, 13, 14, 15])
        assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-2"]

    @pytest.mark.parametrize("poison", [poison_loss, poison_gradient])
    def test_skipped_steps_have_no_effect_are_counted_and_capped(self, tmp_path, poison, caplog):
        bad, options = {1, 3}, {"max_skipped_steps": 2}
        trainer = tiny_trainer(tmp_path / "straight", **options)
        poison(trainer, bad)
        weights = {}

        def watch(step):
            weights[step] = [parameter.detach().clone() for parameter in trainer.supernet.parameters()]

        for step in (1, 2, 3, 4):
            at_step(trainer, step, partial(watch, step))
        with caplog.at_level(logging.WARNING):
            assert trainer.train().is_finished
        assert "skipped, 2 of at most 2" in caplog.text
        for step in (1, 3):
            assert all(map(torch.equal, weights[step], weights[step + 1])), "a skipped step moved weights"
        assert not all(map(torch.equal, weights[2], weights[3]))
        assert [record["step"] for record in train_log(tmp_path / "straight")] == [1, 3, 5, 6]
        skips = train_log(tmp_path / "straight", "skip")
        assert [(skip["step"], skip["samples"][0]) for skip in skips] == [(2, 4), (4, 12)]
        assert [sum(counts.values()) for counts in trainer.counter.counts] == [4, 4, 4, 4]

        # Resumed between the two, the count goes on: the same run, and the same cap.
        killed = tiny_trainer(tmp_path / "killed", **options)
        poison(killed, bad)
        at_step(killed, 3, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            killed.train()
        resumed = tiny_trainer(tmp_path / "killed", resume_from_checkpoint="latest", **options)
        poison(resumed, bad)
        resumed.train()
        assert train_log(tmp_path / "killed") == train_log(tmp_path / "straight")
        assert train_log(tmp_path / "killed", "skip") == skips
        for name in ("straight", "killed"):
            state = checkpoints.read_json(tmp_path / name / "checkpoint-6" / checkpoints.STATE)
            assert state["num_skipped"] == 2
        final = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "killed")]
        assert final[0] == final[1]

        one_too_many = tiny_trainer(tmp_path / "capped", max_skipped_steps=1)
        poison(one_too_many, bad)
        with pytest.raises(DivergenceError, match=r"of step 4 is .*more than 1 such steps"):
            one_too_many.train()
        assert [folder.name for folder in list_checkpoints(tmp_path / "capped")] == ["checkpoint-2"]

    def test_poisoned_weights_are_not_saved(self, tmp_path):
        """On an operator that no child of these steps uses, no loss and no gradient shows it."""
        trainer = tiny_trainer(tmp_path, method="uniform")
        trainer.method.sampler.next_step = lambda: (trainer.space.child_at(0),)
        used = {id(parameter) for parameter in trainer.supernet.parameters_of(trainer.space.child_at(0))}
        name, unused = next((name, p) for name, p in trainer.supernet.named_parameters() if id(p) not in used)

        def poison():
            with torch.no_grad():
                unused.view(-1)[0] = float("nan")

        at_step(trainer, 3, poison)
        with pytest.raises(DivergenceError, match=rf"{re.escape(name)} after step 4 is nan.*checkpoint-2\."):
            trainer.train()
        assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-2"]

    def test_the_log_can_hold_what_fp16_passes_over(self):
        window = Window()
        window.add(2.0, {}, 1.0, 0.1)
        window.add(4.0, {}, float("inf"), 0.1)
        assert window.means() == {"loss": 3.0, "grad_norm": 0.5, "learning_rate": 0.1}

    def test_a_dev_loss_that_is_no_number_ends_the_run(self, tmp_path, monkeypatch):
        trainer = tiny_trainer(tmp_path, eval_steps=3)
        score = loop.score_architectures
        monkeypatch.setattr(
            loop, "score_architectures", lambda *args, **options: [loss * math.nan for loss in score(*args, **options)]
        )
        with pytest.raises(DivergenceError, match=r"dev loss of .* after step 3 is nan"):
            trainer.train()
