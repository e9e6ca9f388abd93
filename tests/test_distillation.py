"""Distillation: the loss that is minimised by hand, a teacher that never moves, runs that go on, clear refusals."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny.finetuning import WatchedTeachers, distillation_arguments, first_batch, save_models, watch_projections
from tiny.models import randomise_
from torch.nn import functional
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    RobertaConfig,
    RobertaForMaskedLM,
    TrainerCallback,
)

from hf_nasbert.data import DataArguments
from hf_nasbert.finetuning import PretrainChildArguments, pretrain_child
from hf_nasbert.modeling import NasBertConfig, NasBertForMaskedLM, SupernetConfig
from hf_nasbert.objectives import alignment_loss, distillation_loss
from hf_nasbert.teachers import find_attention, predicting_at

pytestmark = pytest.mark.usefixtures("quiet_trainer")

TEXT = "the film was good and the story bad but we liked how it went on and on"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A child and a BERT that share a tokenizer, a teacher of another width, and the same without a head."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("distillation")
    save_models(home, TEXT)
    tokenizer = AutoTokenizer.from_pretrained(home / "child")
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = NasBertConfig.from_pretrained(home / "child", **still)
    randomise_(NasBertForMaskedLM(config)).save_pretrained(home / "child")
    config = BertConfig(
        vocab_size=len(tokenizer) + 3,  # as if filled up
        hidden_size=48, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=40,
    )  # fmt: skip
    teacher = randomise_(BertForMaskedLM(config))
    teacher.save_pretrained(home / "teacher")
    headless = BertModel(config, add_pooling_layer=False)
    headless.load_state_dict(teacher.bert.state_dict())
    headless.save_pretrained(home / "headless")
    for name in ("teacher", "headless"):
        tokenizer.save_pretrained(home / name)
    words = TEXT.split()
    lines = [
        " ".join(words[(row * 5 + place * (row % 3 + 1)) % len(words)] for place in range(30)) for row in range(60)
    ]
    (home / "text.txt").write_text("\n".join(lines))
    return home


@pytest.fixture
def make(home, tmp_path):
    def make(output: str = "out", **changes) -> tuple[PretrainChildArguments, DataArguments]:
        length = changes.pop("max_seq_length", 16)
        data = DataArguments(
            train_files=[str(home / "text.txt")], max_seq_length=length, validation_fraction=0.2,
            cache_dir=str(home / "cache"),
        )  # fmt: skip
        return distillation_arguments(home, tmp_path / output, **changes), data

    return make


def models(home, teacher: str = "teacher"):
    return [AutoModelForMaskedLM.from_pretrained(home / name).eval() for name in ("child", teacher)]


class TestTheLoss:
    """The first step's, from whole forward passes of both models."""

    def test_logits(self, home, make):
        asked, data = make(distillation_weight=0.25, temperature=3.0)
        record = pretrain_child(asked, data)
        batch, (student, teacher) = first_batch(home, data), models(home)
        labels = batch.pop("labels")
        chosen = labels != -100
        with torch.no_grad():
            own, soft = student(**batch).logits[chosen], teacher(**batch).logits[chosen]
        masked_lm = functional.cross_entropy(own, labels[chosen]).item()
        term = distillation_loss(own, soft[:, : own.shape[1]], temperature=3.0).item()
        assert record["teacher"]["distillation"] == "logits"
        assert record["teacher"]["compared"] == "tokens"
        assert record["masked_lm_losses"][0][1] == pytest.approx(masked_lm, rel=1e-4)
        assert record["distillation_losses"][0][1] == pytest.approx(term, rel=1e-4)
        assert record["losses"][0][1] == pytest.approx(0.75 * masked_lm + 0.25 * term, rel=1e-4)

    def test_relations(self, home, make):
        asked, data = make(distillation="relations", num_relation_heads=4)
        record = pretrain_child(asked, data)
        batch, (student, teacher) = first_batch(home, data), models(home)
        del batch["labels"]
        found = []
        last = {student: find_attention(student, "it"), teacher: teacher.bert.encoder.layer[1].attention.self}
        for model, layer in last.items():
            states: list[torch.Tensor] = []
            hook = layer.query.register_forward_pre_hook(lambda _, inputs, states=states: states.append(inputs[0]))
            with torch.no_grad():
                model(**batch)
                found.append([getattr(layer, name)(states[0]) for name in ("query", "key", "value")])
            hook.remove()
        terms = []
        for own, other in zip(*found, strict=True):
            relations = []
            for vectors in (own, other):
                heads = torch.stack(vectors.chunk(4, dim=-1))  # (H, B, T, d)
                products = torch.einsum("hbtd,hbud->hbtu", heads, heads) / heads.shape[-1] ** 0.5
                relations.append(products.softmax(-1))
            terms.append((relations[1] * (relations[1] / relations[0]).log()).sum(-1).mean().item())
        assert record["distillation_losses"][0][1] == pytest.approx(sum(terms) / 3, rel=1e-3)

    def test_hidden(self, home, make, monkeypatch):
        projections = watch_projections(monkeypatch)
        asked, data = make(teacher=str(home / "headless"))
        record = pretrain_child(asked, data)
        assert record["teacher"]["distillation"] == "hidden", "without a head there are no logits to learn from"
        batch, (student, teacher) = first_batch(home, data), models(home)
        del batch["labels"]
        with torch.no_grad():
            own, other = (m(**batch, output_hidden_states=True).hidden_states[-1] for m in (student, teacher))
        projected = functional.linear(own, projections[0]["weight"], projections[0]["bias"])
        assert projected.shape == other.shape
        own, other = (functional.layer_norm(states, (48,)) for states in (projected, other))
        term = ((own - other) ** 2).mean().item()
        assert record["distillation_losses"][0][1] == pytest.approx(term, rel=1e-4)
        assert alignment_loss([own], [other]).item() == pytest.approx(term, rel=1e-4)
        saved = load_file(Path(asked.output_dir) / "model.safetensors")
        assert not any("projection" in name for name in saved)
        assert record["num_parameters"] == student.num_parameters()


class TestTheTeacher:
    @pytest.mark.parametrize(
        "kind", ["logits", *(pytest.param(k, marks=pytest.mark.slow) for k in ("hidden", "relations"))]
    )
    def test_is_followed_and_never_moves(self, kind, home, make, monkeypatch):
        teachers = WatchedTeachers(monkeypatch)
        options = {"distillation": kind, "distillation_weight": 1.0, "max_steps": 12, "num_relation_heads": 4}
        record = pretrain_child(*make(**options))
        losses = [loss for _, loss in record["distillation_losses"]]
        assert losses[-1] < 0.8 * losses[0]
        teachers.assert_unmoved()

    @pytest.mark.slow
    def test_a_killed_run_continues_as_if_it_had_not_been_killed(self, home, make):
        class Kill(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                if state.global_step == 3:
                    raise KeyboardInterrupt

        options = {"distillation": "hidden"}  # its linear map is a part of what is resumed
        straight = pretrain_child(*make("straight", **options))
        with pytest.raises(KeyboardInterrupt):
            pretrain_child(*make("killed", **options), callbacks=[Kill()])
        resumed = pretrain_child(*make("killed", **options))
        assert resumed["resumed_from"] == "checkpoint-2"
        for name in ("dev_loss_after", "losses", "distillation_losses"):
            assert resumed[name] == straight[name], name
        with pytest.raises(ValueError, match="holds a run with another teacher"):
            pretrain_child(*make("killed", distillation="hidden", teacher=str(home / "headless")))

    def test_without_one_nothing_of_it_is_recorded(self, make):
        asked, data = make(teacher=None)
        record = pretrain_child(asked, data)
        assert not {"teacher", "distillation_losses"} & set(record)
        assert not {"teacher", "temperature", "distillation"} & set(record["settings"])

    @pytest.mark.parametrize("name", ["child", "teacher"])
    def test_logits_at_positions_are_those_of_the_whole(self, name, home, make):
        model = AutoModelForMaskedLM.from_pretrained(home / name).eval()
        batch = first_batch(home, make()[1])
        del batch["labels"]
        positions = torch.tensor([0, 7, 40])
        with torch.no_grad():
            whole = model(**batch).logits
            with predicting_at(model, positions):
                part = model(**batch).logits
            assert model(**batch).logits.shape == whole.shape, "the hook is gone"
        torch.testing.assert_close(part, whole.flatten(0, 1)[positions], rtol=1e-5, atol=1e-5)


class TestRefusals:
    def test_what_a_teacher_cannot_give(self, home, make):
        with pytest.raises(ValueError, match="headless has no masked-LM head"):
            pretrain_child(*make(teacher=str(home / "headless"), distillation="logits"))
        with pytest.raises(ValueError, match=r"more than the 40 positions of .*teacher"):
            pretrain_child(*make(max_seq_length=48))
        with pytest.raises(ValueError, match="num_relation_heads=5 does not divide the 32 of the student's attention"):
            pretrain_child(*make(distillation="relations", num_relation_heads=5))

    def test_more_tokens_than_a_roberta_counts(self, home, make, tmp_path):
        tokenizer = AutoTokenizer.from_pretrained(home / "child")
        config = RobertaConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=1,
            intermediate_size=64, max_position_embeddings=18, pad_token_id=1,
        )  # fmt: skip
        RobertaForMaskedLM(config).save_pretrained(tmp_path / "roberta")
        tokenizer.save_pretrained(tmp_path / "roberta")
        roberta = str(tmp_path / "roberta")
        for changes in ({"teacher": roberta}, {"model": roberta, "teacher": None}):
            with pytest.raises(ValueError, match=r"max_seq_length=17 is more than the 16 positions of .*roberta"):
                pretrain_child(*make(max_seq_length=17, **changes))
            assert pretrain_child(*make(str(len(changes)), **changes))["num_steps"] == 4

    def test_a_student_without_attention(self, home, make, tmp_path):
        config = NasBertConfig.from_pretrained(home / "child", operators=["conv3", "ffn"])
        NasBertForMaskedLM(config).save_pretrained(tmp_path / "convolutions")
        AutoTokenizer.from_pretrained(home / "child").save_pretrained(tmp_path / "convolutions")
        with pytest.raises(ValueError, match=r"the student .* has no attention .*distil logits or hidden"):
            pretrain_child(*make(model=str(tmp_path / "convolutions"), distillation="relations"))

    def test_no_model_half_a_model_and_a_super_net(self, home, make, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            pretrain_child(*make(teacher=str(tmp_path / "nowhere")))
        shutil.copytree(home / "teacher", tmp_path / "half")
        BertConfig.from_pretrained(home / "teacher", num_hidden_layers=3).save_pretrained(tmp_path / "half")
        with pytest.raises(ValueError, match=r"half lacks 16 weights, such as bert\.encoder\.layer\.2"):
            pretrain_child(*make(teacher=str(tmp_path / "half")))
        SupernetConfig(hidden_size=64).save_pretrained(tmp_path / "supernet")
        with pytest.raises(ValueError, match="is a super-net; extract one of its children"):
            pretrain_child(*make(teacher=str(tmp_path / "supernet")))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"teacher": None, "distillation": "hidden"}, "needs a teacher"),
            ({"distillation_weight": 0.0}, "distillation_weight=0"),
            ({"temperature": 0.0}, "temperature=0"),
            ({"num_relation_heads": 0}, "num_relation_heads=0"),
        ],
    )
    def test_settings_that_make_no_sense(self, make, changes, message):
        with pytest.raises(ValueError, match=message):
            make(**changes)
