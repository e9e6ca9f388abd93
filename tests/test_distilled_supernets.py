"""Super-nets of a base model, trained by a teacher: what is learned, by every method, and what stays as it is."""

import copy
import dataclasses
import random

import pytest
import torch
from helpers import mostly_slow, run_recipe
from safetensors.torch import load_file
from tiny.bases import MODULES, classifier_base, documents, save_base
from tiny.compress import batches
from tiny.distilling import make_taught_trainer, supernet_and_teacher
from tiny.models import assert_equal_states, gradients, randomise_
from tiny.trainings import KilledBatches, TinyBatches, make_arguments, make_supernet, make_trainer, train_log
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
)

from hf_nasbert import cli, records
from hf_nasbert.elastic.distance import Distance, Target
from hf_nasbert.extraction import load_supernet
from hf_nasbert.modeling import SupernetForMaskedLM, SupernetModel
from hf_nasbert.modeling.sentence_transformer import read_sentence_modules
from hf_nasbert.objectives import distillation_loss, relation_loss
from hf_nasbert.space import Architecture
from hf_nasbert.teachers import read_child
from hf_nasbert.training import SupernetArguments, list_checkpoints, read_log
from hf_nasbert.training.checkpoints import MODEL, read_state
from hf_nasbert.training.distillation import Distillation

FULL = Architecture.parse("attention-ffn-attention-ffn-attention-ffn")
CHILD = Architecture.parse("attention1-ffn32-skip-ffn-norm-ffn16")


reading = torch.no_grad()(read_child)


def whole(batch):
    """The text of a masked batch."""
    input_ids = torch.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])
    return {"input_ids": input_ids, "attention_mask": batch["attention_mask"]}


def step_of(trainer, children=(CHILD,), number=0):
    """One step's losses and gradients, without moving anything."""
    with trainer.distillation.teaching():
        losses = trainer.step.backward(number, children, trainer.batches.batch(number), is_stopping=False)
    found = gradients(trainer.supernet)
    trainer.supernet.zero_grad()
    return losses, found


class TestWhatIsLearned:
    def made(self, tmp_path, child=CHILD, **settings):
        trainer = make_taught_trainer(tmp_path, **settings)
        randomise_(trainer.supernet, seed=3)
        batch = trainer.batches.batch(0)
        read = batch if trainer.distillation.is_masked else batch | whole(batch)
        own = reading(trainer.supernet.eval(), read, child, vectors=True)
        taught = reading(trainer.distillation.base_model.model, read, vectors=True)
        (loss,) = step_of(trainer, [child])[0].of_children
        return trainer, loss, own, taught, batch

    def test_states_and_vectors_of_the_text_as_it_is(self, tmp_path):
        """Relative error of the last states, and five times 1 - cosine of the mean vectors: as compress distils."""
        trainer, loss, own, taught, batch = self.made(tmp_path)
        mask = batch["attention_mask"].bool()
        one, other = own.hidden_states[-1], taught.hidden_states[-1]
        states = (one - other)[mask].square().sum(1).mean() / trainer.distillation.base_model.spread.variances[-1]
        vectors = [
            torch.stack([row[real].mean(0) for row, real in zip(tensor, mask, strict=True)]) for tensor in (one, other)
        ]
        expected = states + 5 * (1 - torch.nn.functional.cosine_similarity(*vectors).mean())
        assert loss == pytest.approx(expected.item(), rel=1e-4)

    def test_it_is_the_distance_of_compress(self, tmp_path):
        trainer, loss, own, taught, batch = self.made(tmp_path)
        spread, mask = trainer.distillation.base_model.spread, batch["attention_mask"].bool()
        distance = Distance(spread.means[-1], variance=spread.variances[-1])
        parts = distance.parts(own.hidden_states[-1], mask, Target(taught.hidden_states[-1][mask]))
        assert loss == pytest.approx(float(distance.total(parts)), rel=1e-4)

    def test_relations_and_predictions_of_masked_words(self, tmp_path):
        terms = ["relations", "logits", "masked_lm"]
        _, loss, own, taught, batch = self.made(
            tmp_path, head=BertForMaskedLM, distillation=terms, distillation_weights=[2.0, 3.0, 0.5]
        )
        mask, labels = batch["attention_mask"].bool(), batch["labels"]
        relations = [relation_loss(*pair, mask, num_heads=2) for pair in zip(own.vectors, taught.vectors, strict=True)]
        expected = (
            2 * sum(relations) / 3
            + 3 * distillation_loss(own.logits, taught.logits)
            + 0.5 * torch.nn.functional.cross_entropy(own.logits, labels[labels != -100])
        )
        assert loss == pytest.approx(expected.item(), rel=1e-4)

    def test_a_child_without_attention_has_no_relations_to_learn(self, tmp_path):
        child = Architecture.parse("norm-ffn-norm-ffn-skip-ffn")
        assert self.made(tmp_path, child, distillation=["relations"])[1] == 0

    def test_a_classifier_learns_predictions_first(self, tmp_path):
        trainer, loss, own, taught, batch = self.made(tmp_path, head=BertForSequenceClassification)
        mask, spread = batch["attention_mask"].bool(), trainer.distillation.base_model.spread
        error = (own.hidden_states[-1] - taught.hidden_states[-1])[mask].square().sum(1).mean() / spread.variances[-1]
        expected = 0.2 * error + distillation_loss(own.logits, taught.logits)
        assert loss == pytest.approx(expected.item(), rel=1e-4)

    def test_every_label_is_a_yes_or_no_of_its_own_where_the_base_model_has_several_at_once(self, tmp_path):
        trainer = make_taught_trainer(tmp_path, head=BertForSequenceClassification)
        teacher = trainer.distillation.base_model
        assert not trainer.distillation.distance.is_multi_label
        teacher.model.config.problem_type = "multi_label_classification"
        arguments = dataclasses.replace(trainer.arguments, teacher="base_model")
        assert Distillation(trainer.supernet, teacher, arguments, num_sequences=4).distance.is_multi_label

    def test_children_are_scored_on_the_text_as_it_is(self, tmp_path):
        """Dev batches are masked, whoever teaches."""
        distillation = make_taught_trainer(tmp_path).distillation
        batch = TinyBatches(4, seed=99).batch(0)
        assert not torch.equal(batch["input_ids"], whole(batch)["input_ids"])
        found = distillation.score([CHILD], [batch])
        distillation._targets.clear()
        assert found == distillation.score([CHILD], [batch | whole(batch)])

    @pytest.mark.parametrize(
        ("head", "settings"),
        [
            (BertModel, {"distillation": ["states", "vectors", "relations"]}),
            (BertForMaskedLM, {"distillation": ["states", "logits", "masked_lm"], "method": "magic_a"}),
            (BertForSequenceClassification, {"method": "magic_a", "anchor": "base_model", "alignment_rows": 0.5}),
        ],
    )
    def test_what_is_learned_does_not_depend_on_micro_batches(self, tmp_path, head, settings):
        found = []
        for size in (8, 2):
            trainer = make_taught_trainer(
                tmp_path / str(size), head=head, batches=TinyBatches(8, padding=True),
                per_device_train_batch_size=size, gradient_accumulation_steps=8 // size, **settings,
            )  # fmt: skip
            randomise_(trainer.supernet, seed=3)
            trainer.method.anchor = FULL if settings.get("anchor") is None else None
            found.append(step_of(trainer))
        (one, expected), (other, grads) = found
        assert one.of_children == pytest.approx(other.of_children, rel=1e-4)
        assert one.terms == pytest.approx(other.terms, rel=1e-4)
        assert grads.keys() == expected.keys()
        for name, grad in grads.items():
            torch.testing.assert_close(grad, expected[name], rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize("teacher", ["base_model", "full_child"])
    def test_the_base_model_itself_has_nothing_to_learn(self, tmp_path, teacher):
        losses, _ = step_of(make_taught_trainer(tmp_path, teacher=teacher), [FULL])
        assert losses.of_children[0] == pytest.approx(0, abs=1e-5)

    def test_in_place_the_full_child_teaches_and_learns_from_the_base_model(self, tmp_path):
        trainer = make_taught_trainer(tmp_path, teacher="full_child")
        randomise_(trainer.supernet, seed=3)
        batch = whole(trainer.batches.batch(0))
        mask, spread = batch["attention_mask"].bool(), trainer.distillation.base_model.spread
        distance = Distance(spread.means[-1], variance=spread.variances[-1])
        own, full = (reading(trainer.supernet.eval(), batch, child) for child in (CHILD, FULL))
        base = reading(trainer.distillation.base_model.model, batch)
        expected = [
            float(distance.total(distance.parts(one.hidden_states[-1], mask, Target(other.hidden_states[-1][mask]))))
            for one, other in ((own, full), (full, base), (own, full))
        ]
        for children in ((CHILD, FULL), (FULL, CHILD)):  # a pass of its own, or the one that was made
            losses, _ = step_of(trainer, children)
            wanted = {CHILD: expected[0], FULL: expected[1]}
            assert losses.of_children == pytest.approx([wanted[child] for child in children], rel=1e-4)

    def test_nobody_teaches_where_none_is_asked_for(self, tmp_path):
        found = [
            step_of(make_taught_trainer(tmp_path / "taught", head=BertForMaskedLM, teacher="none"))[0].masked_lm,
        ]
        supernet = supernet_and_teacher(BertForMaskedLM)[0].eval()
        plain = make_trainer(
            tmp_path / "plain", supernet=supernet, batches=TinyBatches(4, padding=True), method="fair"
        )
        assert plain.arguments.teacher == "none"
        found.append(plain.step.backward(0, [CHILD], plain.batches.batch(0), is_stopping=False).masked_lm)
        assert found[0] == pytest.approx(found[1], rel=1e-6)

    @pytest.mark.slow
    def test_children_come_nearer_than_by_masked_words_at_equal_steps(self, tmp_path):
        """The effect: the mean distance of eight children from the base model, before and behind."""
        fallen = {}
        for teacher in ("base_model", "full_child", "none"):
            trainer = make_taught_trainer(
                tmp_path / teacher, head=BertForMaskedLM, teacher=teacher, max_steps=40, learning_rate=3e-3,
                save_steps=100, logging_steps=100, num_eval_children=0, method="sandwich",
            )  # fmt: skip
            rng = random.Random(0)
            children = [trainer.space.sample(rng) for _ in range(8)]
            before = sum(trainer.distillation.score(children, trainer.dev_batches))
            trainer.train()
            fallen[teacher] = sum(trainer.distillation.score(children, trainer.dev_batches)) / before
        assert fallen["base_model"] < 0.8
        assert fallen["full_child"] < 0.9
        assert fallen["none"] > max(fallen["base_model"], fallen["full_child"]) + 0.1, fallen


class TestEveryMethod:
    @pytest.mark.parametrize(
        ("method", "settings"),
        mostly_slow(
            [
                ("sandwich", {"teacher": "full_child", "head": BertForMaskedLM, "distillation": ["logits", "states"]}),
                *((method, {}) for method in ("uniform", "fair", "magic_t", "magic_a", "sandwich")),
                ("magic_at", {}),
                ("attentive", {"teacher": "full_child"}),
                ("conflict_projection", {}),
                ("uniform", {"teacher": "full_child"}),
                ("magic_at", {"anchor": "base_model"}),
                ("magic_a", {"anchor": "base_model", "teacher": "none", "head": BertForMaskedLM}),
            ],
            every=12,
        ),
    )
    def test_a_killed_run_goes_on_to_the_bit(self, tmp_path, method, settings):
        options = {"method": method, "max_steps": 4, "save_steps": 2, "logging_steps": 2, "eval_steps": 2} | settings
        straight = make_taught_trainer(tmp_path / "straight", **options)
        straight.train()
        folder = tmp_path / "killed"
        with pytest.raises(KeyboardInterrupt):
            make_taught_trainer(folder, batches=KilledBatches(4, kill_at=3, padding=True), **options).train()
        other = randomise_(supernet_and_teacher(options.get("head", BertModel))[0], seed=7)
        resumed = make_taught_trainer(folder, supernet=other, resume_from_checkpoint="latest", **options)
        torch.manual_seed(123)
        resumed.train()
        for event in ("train", "eval", "anchor"):
            assert train_log(folder, event) == train_log(tmp_path / "straight", event)
        assert train_log(folder)
        assert_equal_states(resumed.supernet, straight.supernet)

    def test_a_divergence_from_the_largest_child_is_refused_where_a_teacher_teaches(self, tmp_path):
        settings = {"method": "sandwich", "head": BertForMaskedLM, "distillation_divergence": "alpha"}
        with pytest.raises(ValueError, match=r"distillation_divergence=alpha learns from .*: give teacher=none"):
            make_taught_trainer(tmp_path, **settings)
        losses, _ = step_of(make_taught_trainer(tmp_path, teacher="none", **settings), (FULL, CHILD))
        assert losses.terms["distillation"] > 0

    def test_a_method_of_two_children_weighs_their_losses(self, tmp_path):
        trainer = make_taught_trainer(tmp_path, method="sandwich")
        losses, _ = step_of(trainer, (trainer.method.largest, trainer.method.smallest, CHILD))
        assert losses.terms["distillation"] == pytest.approx(sum(losses.of_children) / 3)


class TestWhatStays:
    @pytest.fixture
    def trained(self, tmp_path):
        trainer = make_taught_trainer(tmp_path, method="sandwich", teacher="full_child", max_steps=4, save_steps=2)
        base = trainer.distillation.base_model.model
        trainer.before = copy.deepcopy(base), copy.deepcopy(trainer.supernet)
        trainer.train()
        return trainer

    def test_the_teacher_has_no_gradient_and_does_not_move(self, trained):
        base = trained.distillation.base_model.model
        assert_equal_states(base, trained.before[0])
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in base.parameters())
        assert not base.training

    def test_checkpoints_do_not_hold_the_teacher(self, trained, tmp_path):
        (folder, *_) = list_checkpoints(tmp_path)
        assert load_file(folder / MODEL).keys() == trained.supernet.state_dict().keys()
        digest = trained.distillation.base_model.digest
        assert read_state(folder)["identity"]["base_model"]["digest"] == digest
        assert read_log(tmp_path)[0]["base_model"]["digest"] == digest

    def test_embeddings_and_dropout_are_as_they_were(self, trained):
        """The embeddings are the base model's to the bit; flags and modes come back."""
        for one, other in zip(
            trained.supernet.embeddings.parameters(), trained.before[1].embeddings.parameters(), strict=True
        ):
            assert torch.equal(one, other)
            assert one.requires_grad
        off = [name for name, module in trained.supernet.named_modules() if not module.training]
        assert not off
        assert trained.supernet.config.hidden_dropout_prob == 0.1

    def test_embeddings_learn_with_masked_words(self, tmp_path):
        trainer = make_taught_trainer(tmp_path, head=BertForMaskedLM, distillation=["states", "masked_lm"])
        assert "nasbert.embeddings.word_embeddings.weight" in step_of(trainer)[1]

    def test_nothing_is_drawn(self, tmp_path):
        """Without dropout, though the config has it: two steps on one batch are the same."""
        trainer = make_taught_trainer(tmp_path)
        assert trainer.supernet.config.hidden_dropout_prob == 0.1
        trainer.supernet.train()  # as it is while it learns

        def losses():
            batch = trainer.batches.batch(0)
            return [trainer.step.backward(number, [CHILD], batch, is_stopping=False).masked_lm for number in (0, 5)]

        with trainer.distillation.teaching():
            one, other = losses()
        assert one == other
        one, other = losses()
        assert one != other

    def test_one_pass_of_the_teacher_serves_all_children_and_the_anchor(self, tmp_path, monkeypatch):
        trainer = make_taught_trainer(tmp_path, method="magic_a", anchor="base_model")
        base, calls = trainer.distillation.base_model.model, []
        hook = base.embeddings.register_forward_hook(lambda *_: calls.append(1))
        step_of(trainer, [CHILD, FULL, CHILD])
        hook.remove()
        assert len(calls) == 1


class TestAnchor:
    def test_the_error_is_relative_and_centred(self, tmp_path):
        """By the variance of the base model's state behind the same block, mean over blocks."""
        trainer = make_taught_trainer(
            tmp_path, method="magic_a", anchor="base_model", alignment_rows=1.0, alignment_weight=2.0
        )
        randomise_(trainer.supernet, seed=3)
        losses, _ = step_of(trainer)
        batch = whole(trainer.batches.batch(0))
        mask, base = batch["attention_mask"].bool(), trainer.distillation.base_model
        own, theirs = (
            one.hidden_states for one in (reading(trainer.supernet.eval(), batch, CHILD), reading(base.model, batch))
        )
        pairs = zip(own[1:], theirs[1:], base.spread.variances[1:], strict=True)
        errors = [float((one - other)[mask].square().sum(1).mean()) / variance for one, other, variance in pairs]
        assert losses.terms["alignment"] == pytest.approx(sum(errors) / len(errors), rel=1e-3)

    def test_spread_is_measured_over_tokens(self):
        _, teacher = supernet_and_teacher()
        for block in (0, 6):
            states = torch.cat(
                [
                    reading(teacher.model, batch).hidden_states[block][batch["attention_mask"].bool()]
                    for batch in batches()
                ]
            )
            assert torch.allclose(teacher.spread.means[block], states.mean(0), atol=1e-5)
            expected = (states - states.mean(0)).square().sum(1).mean()
            assert teacher.spread.variances[block] == pytest.approx(expected.item(), rel=1e-4)

    @pytest.mark.slow
    def test_children_are_pulled_to_it_and_it_stays(self, tmp_path):
        terms = {}
        for weight in (0.0001, 3.0):
            folder = tmp_path / str(weight)
            make_taught_trainer(
                folder, head=BertForMaskedLM, teacher="none", method="magic_a", anchor="base_model", max_steps=30,
                alignment_weight=weight, save_steps=100, learning_rate=3e-3, num_eval_children=0,
            ).train()  # fmt: skip
            log = train_log(folder)
            assert {record["anchor"] for record in log} == {"base_model"}
            assert not train_log(folder, "anchor")
            terms[weight] = sum(record["alignment"] for record in log[-8:])
        assert terms[3.0] < 0.8 * terms[0.0001]

    def test_no_dev_batch_is_read_for_it(self, tmp_path):
        trainer = make_taught_trainer(tmp_path, method="magic_at", anchor="base_model", alignment_rows=0.5)
        assert trainer.method.num_dev_batches == 0
        assert trainer.method.passes_per_step == 3.5


class TestRefusals:
    def test_a_super_net_of_random_weights_has_no_teacher(self, tmp_path):
        for settings in ({"teacher": "base_model"}, {"teacher": "full_child"}):
            with pytest.raises(
                ValueError, match="teaches the super-net of a base model, and this one begins with ran"
            ):
                make_trainer(tmp_path, method="uniform", **settings)
        with pytest.raises(ValueError, match="distillation says what is learned from a teacher, and there is none"):
            make_trainer(tmp_path, method="uniform", distillation=["states"])
        with pytest.raises(ValueError, match="method=magic_a aligns children to the base model that"):
            make_trainer(tmp_path, method="magic_a", anchor="base_model")

    def test_a_head_is_needed_for_masked_words(self, tmp_path):
        with pytest.raises(ValueError, match="a SupernetModel has no head that predicts masked words"):
            make_taught_trainer(tmp_path, teacher="none")
        for term in ("logits", "masked_lm"):
            with pytest.raises(ValueError, match=f"distillation={term}: the base model has no head for it"):
                make_taught_trainer(tmp_path, distillation=[term])

    def test_another_base_model_is_refused(self, tmp_path):
        make_taught_trainer(tmp_path, max_steps=2, save_steps=1).train()
        with pytest.raises(ValueError, match=r"belongs to another run: base_model\.digest was .* here"):
            make_taught_trainer(tmp_path, seed=1, max_steps=2, resume_from_checkpoint="latest").train()
        with pytest.raises(ValueError, match=r"belongs to another run: base_model\.teacher was base_model, and is"):
            make_taught_trainer(tmp_path, teacher="full_child", max_steps=2, resume_from_checkpoint="latest").train()
        with pytest.raises(ValueError, match=r"base_model\.weights\.vectors was 5\.0, and is 2\.0 here"):
            make_taught_trainer(
                tmp_path, distillation=["states", "vectors"], distillation_weights=[1.0, 2.0], max_steps=2,
                resume_from_checkpoint="latest",
            ).train()  # fmt: skip

    def test_another_models_super_net_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="the base model has 6 blocks of width 32"):
            make_taught_trainer(tmp_path, supernet=make_supernet())

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"teacher": "mine"}, "teacher='mine': expected auto or base_model or full_child or none"),
            ({"distillation": ["states", "logit"]}, "distillation has 'logit': expected some of states, vectors"),
            ({"distillation": ["states", "states"]}, "distillation has one of them twice"),
            ({"distillation": []}, "distillation holds nothing"),
            ({"distillation": ["states"], "teacher": "none"}, "and teacher is none"),
            ({"distillation_weights": [1.0]}, "say what is learned"),
            ({"distillation": ["states"], "distillation_weights": [1.0, 2.0]}, "expected 1 positive numbers"),
            ({"distillation": ["states"], "distillation_weights": [0.0]}, "expected 1 positive numbers"),
        ],
    )
    def test_settings_that_say_nothing(self, tmp_path, settings, words):
        with pytest.raises(ValueError, match=words):
            make_arguments(tmp_path, **settings)

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"base_model": "x", "hidden_size": 8}, "brings its own space and sizes, but hidden_size was given"),
            ({"base_model": "x", "preset": "quickstart"}, "but preset was given"),
            ({"base_model": "x", "blocks": ["ffn"], "heads": [1]}, "blocks names the operators .* but heads"),
            ({"preset": "quickstart", "heads": [1]}, "heads is a setting of super-nets of a base model"),
            ({"preset": "quickstart", "refit": False}, "refit is a setting of super-nets of a base model"),
            ({}, "a super-net needs a base_model, a preset"),
        ],
    )
    def test_a_base_model_brings_what_else_would_be_asked_for(self, settings, words):
        with pytest.raises(ValueError, match=words):
            SupernetArguments(**settings)

    def test_run_says_who_makes_it(self):
        with pytest.raises(ValueError, match="is made by `hf-nasbert pretrain`, and by `compress`"):
            SupernetArguments(base_model="x").build_config()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("\n".join(documents(200)) + "\n")
    return file


def flags_of(text, base, output_dir, **settings):
    given = {
        "base_model": base, "train_files": text, "cache_dir": text.parent / "cache", "max_seq_length": 16,
        "output_dir": output_dir, "max_steps": 6, "per_device_train_batch_size": 4, "num_eval_batches": 2,
        "num_eval_children": 2, "save_steps": 3, "logging_steps": 1, "use_cpu": "true", "disable_tqdm": "true",
        "report_to": "none", **settings,
    }  # fmt: skip
    return [word for name, value in given.items() for word in (f"--{name}", *str(value).split())]


HEADS = {
    "sentences": (save_base, SupernetModel, AutoModel),
    "masked words": (lambda folder: save_base(folder, BertForMaskedLM), SupernetForMaskedLM, AutoModelForMaskedLM),
    "classifier": (classifier_base, None, AutoModelForSequenceClassification),
}


@pytest.mark.parametrize("kind", mostly_slow(HEADS, every=3))
def test_from_an_encoder_to_a_child_by_commands(tmp_path, text, kind, capsys):
    """Train, score, search, extract: the child does as the super-net does, and loads as what the base model was."""
    save, supernet_class, auto_class = HEADS[kind]
    base, folder = save(tmp_path / "base"), tmp_path / "supernet"
    before = {path: path.read_bytes() for path in base.iterdir() if path.is_file()}
    run_recipe("pretrain_supernet", *flags_of(text, base, folder, method="magic_at", anchor="base_model"))
    supernet = load_supernet(folder, None)
    assert supernet_class is None or type(supernet) is supernet_class
    assert supernet.largest_architecture == FULL
    assert {path: path.read_bytes() for path in base.iterdir() if path.is_file()} == before
    start = read_log(folder)[0]
    assert start["base_model"]["teacher"] == start["arguments"]["teacher"] == "base_model"
    common = ["--supernet", folder, "--num_dev_batches", 2, "--dev_batch_size", 4, "--train_files", text]
    common = [str(word) for word in [*common, "--cache_dir", text.parent / "cache"]]
    scores, history = tmp_path / "scores.jsonl", tmp_path / "search.jsonl"
    assert cli.main(["score", *common, "--output", str(scores), "--architectures", str(FULL), str(CHILD)]) == 0
    if kind == "masked words":
        assert all(record["proxy_loss"] > 1 for record in records.read(scores)[1:])
    else:
        losses = {record["architecture"]: record["proxy_loss"] for record in records.read(scores)[1:]}
        assert losses[str(FULL)] == pytest.approx(0, abs=1e-6)
        assert losses[str(CHILD)] > 0.1
    search = ["--output", str(history), "--search", "random", "--num_evaluations", "5", "--max_parameters", "0.9x"]
    assert cli.main(["search", *common, *search]) == 0
    child = tmp_path / "child"
    assert (
        cli.main(["extract", "--supernet", str(folder), "--architecture", str(CHILD), "--output_dir", str(child)]) == 0
    )
    loaded = auto_class.from_pretrained(child)
    assert loaded.config.operators == list(CHILD) or tuple(loaded.config.operators) == CHILD
    assert read_sentence_modules(child) == (MODULES if kind == "sentences" else None)  # pooling and all
    card = (child / "README.md").read_text()
    assert ("fill-mask" in card) == (kind == "masked words")
    assert auto_class.__name__ in card or kind == "masked words"
    capsys.readouterr()


def base_at(folder):
    """A base model with a tokenizer, saved once."""
    return folder / "base" if (folder / "base").exists() else save_base(folder / "base")


class TestTheStart:
    def pretrain(self, tmp_path, text, **settings):
        folder = tmp_path / "run"
        base = base_at(tmp_path)
        run_recipe("pretrain_supernet", *flags_of(text, base, folder, max_steps=1, num_eval_children=0, **settings))
        return load_supernet(folder, SupernetModel)

    def test_the_space_is_cut_as_asked(self, tmp_path, text):
        supernet = self.pretrain(tmp_path, text, heads="1", ffn="40 8", kernels="3", drop_blocks="false")
        assert supernet.space.blocks == (("attention", "attention1", "conv3"), ("ffn", "ffn40", "ffn8")) * 3

    def test_blocks_name_the_operators(self, tmp_path, text):
        blocks = ["attention,skip", "ffn,ffn8", "attention", "ffn", "attention,attention1", "ffn,norm"]
        supernet = self.pretrain(tmp_path, text, blocks=" ".join(blocks))
        assert [",".join(names) for names in supernet.space.blocks] == blocks

    @pytest.mark.slow
    def test_variants_are_refitted_unless_they_are_not(self, tmp_path, text):
        """By the log's first loss: refitted on the text, children begin nearer to the base model."""
        first = {}
        for refit in ("true", "false"):
            folder, base = tmp_path / f"run-{refit}", base_at(tmp_path)
            settings = {"refit": refit, "max_steps": 3, "num_eval_children": 8, "learning_rate": "1e-9"}
            run_recipe("pretrain_supernet", *flags_of(text, base, folder, drop_blocks="false", **settings))
            (evaluation,) = [record for record in read_log(folder) if record["event"] == "eval"]
            first[refit] = evaluation["loss"]
        assert first["true"] < 0.8 * first["false"]

    def test_a_teacher_needs_a_base_model(self, tmp_path, text):
        flags = flags_of(text, "x", tmp_path / "run", teacher="base_model", preset="quickstart")
        del flags[:2]
        with pytest.raises(SystemExit, match="teacher=base_model teaches the super-net of a base model"):
            run_recipe("pretrain_supernet", *flags)

    def test_sequences_must_fit_the_base_model(self, tmp_path, text):
        with pytest.raises(SystemExit, match="max_seq_length asks for 99 tokens, and the base model has 24 positions"):
            self.pretrain(tmp_path, text, max_seq_length=99)
