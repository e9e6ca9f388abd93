"""A teacher with another tokenizer: which words both read, the loss by a slow loop, runs that go on, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny.finetuning import WatchedTeachers, distillation_arguments, first_batch, watch_projections
from tiny.models import randomise_
from tiny.texts import TEXT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    ByT5Tokenizer,
    PreTrainedTokenizerBase,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaTokenizer,
    TrainerCallback,
)

from hf_nasbert.data import DataArguments, load_corpus, train_tokenizer
from hf_nasbert.data.batches import IGNORED
from hf_nasbert.finetuning import PretrainChildArguments, pretrain_child
from hf_nasbert.finetuning.word_alignment import Reading, WordReader, average_words
from hf_nasbert.modeling import NasBertConfig, NasBertForMaskedLM
from hf_nasbert.teachers import find_attention

pytestmark = pytest.mark.usefixtures("quiet_trainer")


def byte_level_bpe() -> RobertaTokenizer:
    """RoBERTa's kind of tokenizer, trained on the tiny text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train([str(TEXT)], trainer)
    model = json.loads(bpe.to_str())["model"]
    return RobertaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A child with an uncased WordPiece, and a RoBERTa of other width and depth that reads at most 20 tokens."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("words")
    wordpiece = train_tokenizer([TEXT.read_text()], 300)
    config = NasBertConfig(
        operators=["conv3", "attention", "ffn"], vocab_size=len(wordpiece), hidden_size=32, max_position_embeddings=64,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    randomise_(NasBertForMaskedLM(config)).save_pretrained(home / "child")
    wordpiece.save_pretrained(home / "child")
    bpe = byte_level_bpe()
    config = RobertaConfig(
        vocab_size=len(bpe), hidden_size=48, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=22,  # two of them are never used
    )  # fmt: skip
    randomise_(RobertaForMaskedLM(config)).save_pretrained(home / "teacher")
    bpe.save_pretrained(home / "teacher")
    return home


@pytest.fixture(scope="module")
def student(home) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(home / "child")


@pytest.fixture(scope="module")
def teacher(home) -> RobertaForMaskedLM:
    return AutoModelForMaskedLM.from_pretrained(home / "teacher").eval()


@pytest.fixture(scope="module")
def bpe(home) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(home / "teacher", add_prefix_space=True)


@pytest.fixture
def make(home, tmp_path):
    def make(output: str = "out", **changes) -> tuple[PretrainChildArguments, DataArguments]:
        data = DataArguments(
            train_files=[str(TEXT)], max_seq_length=16, validation_fraction=0.2, cache_dir=str(home / "cache")
        )
        return distillation_arguments(home, tmp_path / output, **changes), data

    return make


def batch_of(tokenizer, rows: list[list[str]], hidden: dict[tuple[int, int], str] | None = None):
    """A batch of tokens, with some of them given another in the student's eyes."""
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(row) for row in rows])
    seen, labels = ids.clone(), torch.full_like(ids, IGNORED)
    for place, token in (hidden or {}).items():
        labels[place], seen[place] = ids[place], tokenizer.convert_tokens_to_ids(token)
    return {"input_ids": seen, "attention_mask": torch.ones_like(ids), "labels": labels}


def spans(reading: Reading, tokenizer, batch, other) -> list[list[tuple[str, str]]]:
    """What either side reads of every word that is compared."""
    own = [tokenizer.convert_ids_to_tokens(row) for row in batch["input_ids"]]
    theirs = [other.convert_ids_to_tokens(row) for row in reading.batch["input_ids"]]
    return [
        [
            tuple(
                " ".join(tokens[row][place] for place in pieces[row, word].nonzero().flatten())
                for tokens, pieces in ((own, reading.own), (theirs, reading.other))
            )
            for word in reading.common[row].nonzero().flatten()
        ]
        for row in range(len(own))
    ]


class TestWhatIsRead:
    def test_words_of_wordpiece_in_bytes(self, student, teacher, bpe):
        rows = [
            ["[CLS]", "the", "b", "##a", "##k", "##er", ",", "and", "[SEP]", "the", "[UNK]", "b", "##a"],
            ["[CLS]", "##a", "##k", "the", "s", "##t", "##o", "##n", "##e", "##s", "and", "the", "[SEP]"],
        ]
        hidden = {(0, 3): "[MASK]", (0, 6): "and", (0, 7): "and", (1, 10): "[MASK]"}
        batch = batch_of(student, rows, hidden)
        reading = WordReader(student, teacher, bpe).read(batch)
        text = bpe.batch_decode(reading.batch["input_ids"], clean_up_tokenization_spaces=False)
        assert [row.replace("<pad>", "") for row in text] == [
            "<s> the<mask><mask> and</s> the<mask> ba</s>",  # any token hidden, one exchanged, one kept
            "<s> ak the stones<mask> the</s></s>",
        ]
        compared = spans(reading, student, batch, bpe)
        assert [own for own, _ in compared[0]] == ["the", "b [MASK] ##k ##er", "and", "and", "the", "[UNK]", "b ##a"]
        assert [own for own, _ in compared[1]] == ["##a ##k", "the", "s ##t ##o ##n ##e ##s", "[MASK]", "the"]
        for row, masked in enumerate(([1, 2, 5], [3])):
            for number, (_, other) in enumerate(compared[row]):
                assert (other == "<mask>") == (number in masked)
        assert [bpe.convert_tokens_to_string(other.split()) for _, other in compared[1] if other != "<mask>"] == [
            " ak", " the", " stones", " the",
        ]  # fmt: skip

    def test_letters_cut_off_at_an_edge(self, teacher, bpe):
        """A byte-level student: a half of a letter is no text, and a first word has no space before it."""
        whole = bpe.tokenize("naïve é", add_special_tokens=False)
        row = ["<s>", *whole[whole.index("¯") :], "</s>", "t", "he", "Ġ", "Ġ", "n", "a", "Ã"]
        batch = batch_of(bpe, [row])
        wordpiece = train_tokenizer([TEXT.read_text() + " é"], 300, do_lower_case=False)
        model = BertForMaskedLM(BertConfig(vocab_size=len(wordpiece), hidden_size=8, num_attention_heads=1))
        reading = WordReader(bpe, model, wordpiece).read(batch)
        read = wordpiece.convert_ids_to_tokens(reading.batch["input_ids"][0])
        assert wordpiece.convert_tokens_to_string(read) == "[CLS] ve é [SEP] the na [SEP]"
        compared = spans(reading, bpe, batch, wordpiece)[0]
        assert [own for own, _ in compared] == ["¯ ve", "Ġ Ã ©", "t he", "Ġ n a Ã"]
        assert set(reading.batch) == {"input_ids", "attention_mask"}, "which is what every encoder takes"
        # A teacher that could read single bytes and spaces is not shown them either.
        reading = WordReader(bpe, teacher, bpe).read(batch_of(bpe, [["<s>", "Ã", "</s>", "Ġ", "Ġthe"]]))
        assert bpe.convert_ids_to_tokens(reading.batch["input_ids"][0]) == ["<s>", "</s>", "Ġthe", "</s>"]
        assert spans(reading, bpe, batch_of(bpe, [["<s>", "Ã", "</s>", "Ġ", "Ġthe"]]), bpe) == [[("Ġthe", "Ġthe")]]

    def test_the_same_tokenizer_finds_the_words_it_cut(self, home, student, make):
        """Whole words hidden or none: both sides then read the very same, token by token."""
        model = AutoModelForMaskedLM.from_pretrained(home / "child")
        corpus = load_corpus(DataArguments(**vars(make()[1]) | {"tokenizer_name": str(home / "child")}))
        rows = torch.tensor(np.array(corpus.train["input_ids"]))[:8]
        reading = WordReader(student, model, student).read(
            {"input_ids": rows, "labels": torch.full_like(rows, IGNORED)}
        )
        num_words = 0
        for row, ids in enumerate(rows.tolist()):
            tokens = student.convert_ids_to_tokens(ids)
            groups: list[list[int]] = []
            for place, token in enumerate(tokens):
                if token in ("[CLS]", "[SEP]"):
                    groups.append([])
                elif token.startswith("##") and groups[-1]:
                    groups[-1].append(place)
                else:
                    groups.append([place])
            groups = [group for group in groups if group]
            found = [reading.own[row, word].nonzero().flatten().tolist() for word in range(reading.own.shape[1])]
            assert [places for places in found if places] == groups
            if not tokens[1].startswith("##"):  # a fragment is cut anew
                words = reading.common[row].nonzero().flatten()
                theirs = [reading.batch["input_ids"][row][reading.other[row, word]].tolist() for word in words]
                assert theirs == [[ids[place] for place in group] for group in groups if tokens[group[0]] != "[UNK]"]
                num_words += len(words)
        assert num_words > 30

    def test_no_more_than_the_teacher_has_positions_for(self, home, student, teacher, bpe):
        letters = ["[CLS]", *(["s", "##t", "##o", "##n"] * 12)]
        reading = WordReader(student, teacher, bpe).read(batch_of(student, [letters, ["[CLS]", *["the"] * 48]]))
        assert reading.batch["input_ids"].shape == (2, 20)
        last = int(reading.common[1].nonzero().max())
        assert 5 < last < 48
        assert not reading.common[1, last + 1 :].any()
        with torch.no_grad():
            assert teacher(**reading.batch).logits.isfinite().all()
        shorter = AutoTokenizer.from_pretrained(home / "teacher", add_prefix_space=True, model_max_length=9)
        reading = WordReader(student, teacher, shorter).read(batch_of(student, [["[CLS]", *["the"] * 48]]))
        assert reading.batch["input_ids"].shape == (1, 9)


class TestTheLoss:
    """The first step's, from whole passes of both models and a loop over words and tokens."""

    @staticmethod
    def words_of(row: int, reading: Reading, own: torch.Tensor, other: torch.Tensor):
        pairs = []
        for word in range(reading.own.shape[1]):
            sides = [
                [states[row, place] for place in range(states.shape[1]) if pieces[row, word, place]]
                for states, pieces in ((own, reading.own), (other, reading.other))
            ]
            if all(sides):
                pairs.append([sum(side) / len(side) for side in sides])
        return [torch.stack(side) for side in zip(*pairs, strict=True)]

    @pytest.fixture
    def passes(self, home, student, teacher, bpe, make):
        batch = first_batch(home, make()[1])
        reading = WordReader(student, teacher, bpe).read(batch)
        assert (reading.own.any(-1) & ~reading.common).any(), "some words are too far behind for the teacher"
        assert reading.own.sum(-1).max() > 1
        assert reading.other.sum(-1).max() > 1
        child = AutoModelForMaskedLM.from_pretrained(home / "child").eval()
        return reading, {name: batch[name] for name in ("input_ids", "attention_mask")}, child

    def test_hidden(self, passes, teacher, make, monkeypatch):
        projections = watch_projections(monkeypatch)
        record = pretrain_child(*make())
        assert record["teacher"]["distillation"] == "hidden", "auto, with another vocabulary"
        assert record["teacher"]["compared"] == "words"
        reading, batch, child = passes
        with torch.no_grad():
            own = child(**batch, output_hidden_states=True).hidden_states[-1]
            other = teacher(**reading.batch, output_hidden_states=True).hidden_states[-1]
        terms = []
        for row in range(len(own)):
            mine, taught = self.words_of(row, reading, own, other)
            mine = functional.linear(mine, projections[0]["weight"], projections[0]["bias"])
            mine, taught = (functional.layer_norm(states, (48,)) for states in (mine, taught))
            terms += ((mine - taught) ** 2).mean(-1).tolist()
        assert record["distillation_losses"][0][1] == pytest.approx(sum(terms) / len(terms), rel=1e-4)

    @pytest.mark.slow
    def test_relations(self, passes, teacher, make):
        record = pretrain_child(*make(distillation="relations", num_relation_heads=4))
        reading, batch, child = passes
        vectors: dict[int, dict[str, torch.Tensor]] = {}
        for side, (model, inputs) in enumerate(((child, batch), (teacher, reading.batch))):
            layer, states = find_attention(model, "it"), []
            hook = layer.query.register_forward_pre_hook(lambda _, inputs, states=states: states.append(inputs[0]))
            with torch.no_grad():
                model(**inputs)
                vectors[side] = {name: getattr(layer, name)(states[0]) for name in ("query", "key", "value")}
            hook.remove()
        terms = []
        for name in ("query", "key", "value"):
            for row in range(len(batch["input_ids"])):
                relations = []
                for words in self.words_of(row, reading, vectors[0][name], vectors[1][name]):
                    heads = torch.stack(words.chunk(4, dim=-1))  # (H, W, d)
                    products = torch.einsum("hwd,hud->hwu", heads, heads) / heads.shape[-1] ** 0.5
                    relations.append(products.softmax(-1))
                divergence = (relations[1] * (relations[1] / relations[0]).log()).sum(-1)
                terms += divergence.flatten().tolist()
        assert record["distillation_losses"][0][1] == pytest.approx(sum(terms) / len(terms), rel=1e-3)

    def test_average(self):
        vectors = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [7.0, 9.0]]])
        pieces = torch.tensor([[[True, True, False], [False, False, False], [False, False, True]]])
        assert torch.equal(average_words(vectors, pieces), torch.tensor([[[2.0, 3.0], [0.0, 0.0], [7.0, 9.0]]]))


class TestRuns:
    def test_teach_and_leave_the_teacher_as_it_was(self, make, monkeypatch):
        teachers = WatchedTeachers(monkeypatch)
        record = pretrain_child(*make(distillation_weight=1.0, max_steps=12))
        losses = [loss for _, loss in record["distillation_losses"]]
        assert losses[-1] < 0.8 * losses[0]
        teachers.assert_unmoved()

    @pytest.mark.slow
    def test_killed_continue_as_if_they_had_not_been_killed(self, make):
        class Kill(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                if state.global_step == 3:
                    raise KeyboardInterrupt

        straight = pretrain_child(*make("straight"))
        with pytest.raises(KeyboardInterrupt):
            pretrain_child(*make("killed"), callbacks=[Kill()])
        resumed = pretrain_child(*make("killed"))
        assert resumed["resumed_from"] == "checkpoint-2"
        for name in ("dev_loss_after", "losses", "distillation_losses"):
            assert resumed[name] == straight[name], name


class TestRefusals:
    def test_logits(self, make, tmp_path):
        with pytest.raises(ValueError, match=r"other token ids than the student .*distil hidden or relations"):
            pretrain_child(*make(distillation="logits"))
        assert not (tmp_path / "out").exists(), "nothing is begun"

    def test_a_slow_tokenizer_or_one_without_a_mask(self, student, teacher, home):
        bpe = AutoTokenizer.from_pretrained(home / "teacher")
        bpe.mask_token = None
        for tokenizer in (bpe, ByT5Tokenizer(mask_token="<mask>")):
            with pytest.raises(ValueError, match=r"another vocabulary .*needs a fast tokenizer with a mask token"):
                WordReader(student, teacher, tokenizer)
