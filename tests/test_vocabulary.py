"""Vocabularies trimmed to a text: every kind of tokenizer, models with every head, what is refused."""

import copy
import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from tiny import bases
from tiny.compressing import quiet_clock
from tiny.families import CONFIGS, at_tokens, batch_for, stock
from tiny.texts import TEXT, WORDS
from tiny.tokenizers import KINDS
from tokenizers import processors
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertModel, XLMRobertaTokenizer
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

import hf_nasbert
from hf_nasbert.child_folders import save_child
from hf_nasbert.compression import CompressArguments, onnx_files, run
from hf_nasbert.compression.proof import choose_given
from hf_nasbert.compression.sentences import choose_sentences, cut_sentences, split_parts, tokenised
from hf_nasbert.compression.vocabulary import (
    choose_pieces,
    count_pieces,
    cut_otherwise,
    ids_of_config,
    trim_model,
    trim_tokenizer,
)
from hf_nasbert.data import packaged_model
from hf_nasbert.data.packaged import packaged_text
from hf_nasbert.data.vocabulary import save_tokenizer
from hf_nasbert.modeling.families import FAMILIES, from_stock
from hf_nasbert.modeling.sentence_transformer import SentenceModules

PARAGRAPHS = TEXT.read_text().split("\n\n")
KEPT, OTHER = PARAGRAPHS[::2], PARAGRAPHS[1::2]
ROLES = ("pad", "unk", "bos", "eos", "cls", "sep", "mask")


def documents(texts):
    return Dataset.from_dict({"text": texts})


def drawn(texts, number=300, seed=0):
    """Sentences of the text, and new ones of its words, joined and torn as well."""
    rng = random.Random(seed)
    words = " ".join(texts).split()
    made = [sentence for text in texts for sentence in cut_sentences(text)]
    made += [" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(number)]
    made += ["".join(rng.choices(words, k=2)) for _ in range(number)]
    return made + [word[rng.randrange(len(word)) :] + word[: rng.randint(1, 3)] for word in words]


@pytest.fixture(scope="module", params=KINDS)
def trimmed(request):
    """A tokenizer, the pieces that half of its text needs, and the tokenizer of these."""
    tokenizer = KINDS[request.param](PARAGRAPHS)
    kept = choose_pieces(tokenizer, count_pieces(documents(KEPT), tokenizer))
    return tokenizer, kept, trim_tokenizer(tokenizer, kept)


def ids(tokenizer, texts):
    return tokenizer(texts, verbose=False, padding=False)["input_ids"]


class TestTokenizers:
    def test_a_text_whose_pieces_are_kept_is_cut_as_before(self, trimmed):
        tokenizer, kept, smaller = trimmed
        assert len(kept) < 0.9 * len(tokenizer)
        new = {old: number for number, old in enumerate(kept)}
        texts = [*KEPT, *drawn(KEPT), *drawn(OTHER)]
        rows = [
            (before, after)
            for before, after in zip(ids(tokenizer, texts), ids(smaller, texts), strict=True)
            if tokenizer.unk_token_id not in before
        ]
        same = [([new[number] for number in before], after) for before, after in rows if new.keys() >= set(before)]
        assert len(KEPT) < len(same) < len(rows)  # no training of a vocabulary is like another
        assert all(expected == after for expected, after in same)
        assert all(number in range(len(smaller)) for _, after in rows for number in after)

    def test_other_words_are_cut_smaller_and_are_not_unknown(self, trimmed):
        tokenizer, kept, smaller = trimmed
        assert cut_otherwise(drawn(KEPT, 0)[: len(KEPT)], tokenizer, smaller, kept) == 0
        assert 0 < cut_otherwise(OTHER, tokenizer, smaller, kept) <= 1
        texts = [*drawn(OTHER), "a жук 漢"]
        before, after = ids(tokenizer, texts), ids(smaller, texts)
        assert sum(map(len, after)) > sum(map(len, before))
        assert sum(row.count(smaller.unk_token_id) for row in after) == sum(
            row.count(tokenizer.unk_token_id) for row in before
        )

    def test_special_tokens_keep_their_meaning(self, trimmed):
        tokenizer, kept, smaller = trimmed
        for role in ROLES:
            token = getattr(tokenizer, f"{role}_token")
            assert getattr(smaller, f"{role}_token") == token
            if token is not None:
                number = getattr(smaller, f"{role}_token_id")
                assert kept[number] == getattr(tokenizer, f"{role}_token_id")
                assert smaller.convert_ids_to_tokens(number) == token
        added = [token for token in tokenizer.get_added_vocab() if token not in tokenizer.all_special_tokens]
        texts = [(KEPT[0], KEPT[1]), (KEPT[1], " ".join(["the", *added, tokenizer.mask_token, "town"]))]
        before, after = (one(*zip(*texts, strict=True), padding=True) for one in (tokenizer, smaller))
        assert [[kept[number] for number in row] for row in after["input_ids"]] == before["input_ids"]
        assert {name: after[name] for name in after if name != "input_ids"} == {
            name: before[name] for name in before if name != "input_ids"
        }
        for skip in (True, False):
            assert smaller.batch_decode(after["input_ids"], skip_special_tokens=skip) == tokenizer.batch_decode(
                before["input_ids"], skip_special_tokens=skip
            )

    def test_how_the_last_call_cut_and_padded_is_in_no_file(self, trimmed, tmp_path):
        for number, one in enumerate((trimmed[0], trimmed[2])):
            one(["the harbour woke", "the"], padding="max_length", truncation=True, max_length=3)
            before = one.backend_tokenizer.to_str()
            save_tokenizer(one, tmp_path / str(number), None)
            content = json.loads((tmp_path / str(number) / "tokenizer.json").read_text())
            assert (content["truncation"], content["padding"]) == (None, None)
            assert one.backend_tokenizer.to_str() == before
        again = json.loads(trim_tokenizer(trimmed[0], trimmed[1]).backend_tokenizer.to_str())
        assert (again["truncation"], again["padding"]) == (None, None)

    def test_it_is_the_same_from_its_folder(self, trimmed, tmp_path):
        tokenizer, _, smaller = trimmed
        smaller.save_pretrained(tmp_path)
        again = AutoTokenizer.from_pretrained(tmp_path)
        assert type(again) is type(tokenizer)
        assert again.get_vocab() == smaller.get_vocab()
        assert sorted(again.get_vocab().values()) == list(range(len(again)))
        texts = [*drawn(KEPT), *drawn(OTHER)]
        assert ids(again, texts) == ids(smaller, texts)
        assert again.name_or_path != smaller.name_or_path == tokenizer.name_or_path
        assert again.model_max_length == tokenizer.model_max_length

    def test_the_tokenizer_itself_is_left_as_it_is(self, trimmed):
        tokenizer, kept, _ = trimmed
        before = tokenizer.backend_tokenizer.to_str()
        trim_tokenizer(tokenizer, kept)
        assert tokenizer.backend_tokenizer.to_str() == before

    def test_of_no_text_letters_and_special_tokens_are_left(self, trimmed):
        tokenizer, _, _ = trimmed
        kept = choose_pieces(tokenizer, np.zeros(len(tokenizer), dtype=np.int64))
        smaller = trim_tokenizer(tokenizer, kept)
        assert len(kept) < 400
        assert set(tokenizer.all_special_tokens) <= smaller.get_vocab().keys()
        before, after = ids(tokenizer, ["the harbour woke"]), ids(smaller, ["the harbour woke"])
        assert len(after[0]) > len(before[0])
        assert smaller.unk_token_id not in after[0]

    def test_what_else_is_asked_for_is_cut_as_before(self, trimmed):
        """Prompts, which stand in no text."""
        tokenizer, _, _ = trimmed
        prompt = "the harbour woke before the town"
        kept = choose_pieces(
            tokenizer, np.zeros(len(tokenizer), dtype=np.int64), also=[*ids(tokenizer, [prompt])[0], 9999]
        )
        assert cut_otherwise([prompt], tokenizer, trim_tokenizer(tokenizer, kept), kept) == 0


def test_what_is_unknown_to_unigram_is_reckoned_as_before():
    """Its likelihood follows from that of the rarest piece: an unknown letter would pass for two likely pieces."""
    pieces = {"▁": -1.0, "a": -25.0, "ab": -0.1, "bж": -30.0, "ё": -100.0}
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    tokenizer = XLMRobertaTokenizer(vocab=[*special, *pieces.items(), ("<mask>", 0.0)])
    kept = choose_pieces(tokenizer, count_pieces(documents(["abж ab"]), tokenizer))
    smaller = trim_tokenizer(tokenizer, kept)
    assert smaller.tokenize("abж ab") == tokenizer.tokenize("abж ab") == ["▁", "a", "bж", "▁", "ab"]


class TestRefusals:
    """Each in one line that names the tokenizer."""

    @pytest.fixture
    def bpe(self):
        return KINDS["byte-level BPE"](PARAGRAPHS)

    def refused(self, match, call, *arguments):
        with pytest.raises(ValueError, match=match) as caught:
            call(*arguments)
        assert "\n" not in str(caught.value)

    def test_a_sentence_of_kept_pieces_that_is_cut_otherwise(self, bpe):
        """The gate: without the pieces that longer ones are made from they are not made."""
        kept = choose_pieces(bpe, count_pieces(documents(KEPT), bpe))
        row = ids(bpe, KEPT[:1])[0]
        letters = {number for token, number in bpe.get_vocab().items() if len(token) == 1}
        wrong = [number for number in kept if number in {*row, *letters, *bpe.all_special_ids}]
        smaller = trim_tokenizer(bpe, wrong)
        self.refused("cuts The harbour .* into other pieces", cut_otherwise, KEPT[:1], bpe, smaller, wrong)

    def test_an_id_around_texts_that_is_no_token(self):
        tokenizer = KINDS["BPE with ends"](PARAGRAPHS)
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            "[CLS] $A", None, special_tokens=[("[CLS]", 9999)]
        )
        kept = choose_pieces(tokenizer, np.ones(len(tokenizer), dtype=np.int64))
        self.refused("has the id 9999 in its files, which is no token's", trim_tokenizer, tokenizer, kept)

    def test_a_tokenizer_that_its_files_do_not_make(self, bpe, monkeypatch):
        monkeypatch.setattr("hf_nasbert.compression.vocabulary.open_tokenizer", lambda *_, **__: copy.deepcopy(bpe))
        kept = choose_pieces(bpe, np.zeros(len(bpe), dtype=np.int64))
        self.refused("is another one when its trimmed files are read", trim_tokenizer, bpe, kept)


HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")


class TestModels:
    KEPT = sorted({0, 1, 2, 5, 7, *range(9, 30, 2)})

    def child(self, name, tied=True):
        base = stock(name)
        if not tied:
            base.config.tie_word_embeddings = False
            with torch.no_grad():  # weights of its own, as after a training
                decoder = base.get_output_embeddings()
                decoder.weight = torch.nn.Parameter(torch.randn_like(decoder.weight))
        return from_stock(base).eval()

    def both(self, child, trimmed, model=None):
        """What two models say of one batch, each by its own ids, at real tokens."""
        batch = batch_for(child)
        pad = child.config.pad_token_id
        ids = torch.tensor(self.KEPT)[batch["input_ids"] % len(self.KEPT)]
        ids = torch.where(batch["attention_mask"].bool(), torch.where(ids == pad, 7, ids), pad)
        new = {old: number for number, old in enumerate(self.KEPT)}
        own = batch | {"input_ids": torch.tensor([[new[n] for n in row] for row in ids.tolist()])}
        with torch.no_grad():
            return at_tokens(child(**batch | {"input_ids": ids}), batch), at_tokens((model or trimmed)(**own), batch)

    @pytest.mark.parametrize("head", HEADS)
    @pytest.mark.parametrize("family", CONFIGS)
    def test_say_the_same_of_kept_pieces(self, family, head, tmp_path):
        child = self.child(f"{family}{head}")
        before = {name: value.clone() for name, value in child.state_dict().items()}
        trimmed = trim_model(child, self.KEPT)
        trimmed.save_pretrained(tmp_path)
        loaded = type(child).from_pretrained(tmp_path).eval()
        assert loaded.config.vocab_size == len(self.KEPT)
        assert self.KEPT[loaded.config.pad_token_id] == child.config.pad_token_id
        assert loaded.get_input_embeddings().padding_idx == trimmed.get_input_embeddings().padding_idx
        assert trimmed.get_input_embeddings().padding_idx == trimmed.config.pad_token_id
        for model in (trimmed, loaded):
            expected, found = self.both(child, model)
            if head == "ForMaskedLM":
                expected["logits"] = expected["logits"][..., self.KEPT]
            for name, value in expected.items():
                assert torch.equal(value, found[name]), name
        assert all(torch.equal(value, before[name]) for name, value in child.state_dict().items())
        lost = 30 - len(self.KEPT)
        per_piece = child.config.word_embedding_size + (head == "ForMaskedLM")
        assert child.num_parameters() - trimmed.num_parameters() == lost * per_piece

    def test_an_untied_head_keeps_rows_of_its_own(self):
        child = self.child("BertForMaskedLM", tied=False)
        trimmed = trim_model(child, self.KEPT)
        expected, found = self.both(child, trimmed)
        assert torch.equal(expected["logits"][..., self.KEPT], found["logits"])
        assert not torch.equal(trimmed.lm_head.decoder.weight, trimmed.get_input_embeddings().weight)

    @pytest.mark.parametrize("family", CONFIGS)
    def test_are_still_what_they_were_in_their_family(self, family):
        """RoBERTa counts positions from its padding, which has another id than before."""
        child = self.child(f"{family}ForMaskedLM")
        kept, child.config.pad_token_id = self.KEPT, 5
        child.get_input_embeddings().padding_idx = 5
        trimmed = trim_model(child, kept)
        assert trimmed.config.pad_token_id == 3
        model = FAMILIES[family.lower()].to_stock(trimmed).eval()
        expected, found = self.both(child, trimmed, model)
        assert torch.allclose(expected["logits"][..., kept], found["logits"], atol=1e-5)

    def test_the_ids_of_a_config_stay_with_their_tokens(self):
        child = self.child("BertModel")
        child.config.bos_token_id, child.config.eos_token_id, child.config.cls_token_id = 7, [9, 11], 3
        assert set(ids_of_config(child.config)) == {0, 7, 9, 11, 3}
        config = trim_model(child, self.KEPT).config
        assert (config.bos_token_id, config.eos_token_id, config.cls_token_id) == (4, [5, 6], None)


RARE = [f"{first}{second}" for first in ("har", "light", "ov", "gu", "sto") for second in ("bour", "en", "ll", "ve")]
SETTINGS = {
    "recovery_steps": 12, "learning_rate": 1e-4, "batch_size": 16, "num_sentences": 320, "max_seq_length": 16,
    "latency_shape": "2x16", "num_rescored": 4, "max_parameters": "0.5x", "scorer": "additive",
    "heads": [2], "ffn": [64],
}  # fmt: skip


def texts():
    """Sentences of which some have a word that no other has, and some of these are held out."""
    made = bases.documents()
    return [f"{text[:-1]} {RARE[number // 30]}." if number % 30 == 0 else text for number, text in enumerate(made)]


def compress(base, folder, **settings):
    return hf_nasbert.compress(base, texts(), output_dir=folder, **SETTINGS | settings)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return bases.save_base(tmp_path_factory.mktemp("base"), more=[*RARE, "##ouse", "never", "##ever", "ж"])


assert quiet_clock  # a fixture


@pytest.mark.slow
class TestCompress:
    def test_the_written_model_has_the_pieces_of_the_text(self, base, tmp_path, capsys):
        pairs = tmp_path / "pairs.csv"
        pairs.write_text("sentence1,sentence2,score\nthe film was good,a film,1\nlong plot,the oven was bad,2\n")
        settings = {"pairs_file": str(pairs), "handmade": False}
        whole = compress(base, tmp_path / "whole", **settings)
        result = compress(base, tmp_path / "small", trim_vocabulary=True, **settings)
        model, tokenizer = result.best.model(), AutoTokenizer.from_pretrained(tmp_path / "small")
        before = AutoTokenizer.from_pretrained(tmp_path / "whole")
        assert model.config.vocab_size == len(tokenizer) < len(before) == whole.best.model().config.vocab_size
        assert not {"never", "##ever", "ж"} & tokenizer.get_vocab().keys()
        assert tokenizer.get_vocab().keys() < before.get_vocab().keys()

        sentences = ["the film was good.", "a very long plot, and not bad.", "zzz film"]
        vectors = [
            SentenceTransformer(str(one.folder), trust_remote_code=True, device="cpu").encode(sentences)
            for one in (whole, result)
        ]
        assert np.abs(vectors[0] - vectors[1]).max() < 1e-6

        first, untrimmed, row = result.rows
        assert (first, untrimmed) == (whole.rows[0], dataclasses.replace(whole.rows[1], is_given=False))
        assert result.best.row is row
        assert row.trimmed.num_pieces == len(tokenizer)
        assert row.trimmed.num_before == len(before)
        assert model.num_parameters() == row.num_parameters
        assert untrimmed.num_parameters - row.num_parameters == 32 * (len(before) - len(tokenizer))
        assert row.judged[0].loss is None
        assert row.judged[0].cosine == pytest.approx(untrimmed.judged[0].cosine, abs=0.01)
        assert row.judged[0].spearman is not None
        assert (tmp_path / "small/model.safetensors").stat().st_size < (
            tmp_path / "whole/model.safetensors"
        ).stat().st_size
        said = f"trimmed to {len(tokenizer)} of {len(before)} pieces; {row.trimmed.cut_otherwise:.1%} of held-out"
        card = (tmp_path / "small/README.md").read_text()
        for text in (str(result), (tmp_path / "small/report.md").read_text(), card):
            assert said in text
            assert "searched, trimmed vocabulary" in text
        assert f"{len(tokenizer)} of {len(before)} tokens are kept" in capsys.readouterr().out
        stage = next(stage["content"] for stage in result.stages if stage["stage"] == "vocabulary")
        assert stage == dataclasses.asdict(row.trimmed)
        assert json.loads((tmp_path / "small/summary.json").read_text())["rows"][2]["trimmed"] == stage
        assert compress(base, tmp_path / "small", trim_vocabulary=True, **settings).rows == result.rows

    def test_a_trained_super_net_a_trimmed_vocabulary_and_int8_go_together(self, base, tmp_path, monkeypatch):
        """The files read by the trimmed tokenizer, of a child of the super-net; all of it once more adds nothing."""
        monkeypatch.setattr(onnx_files, "_SECONDS_OF_A_TIMING_RUN", 0.1)
        monkeypatch.setattr(onnx_files, "LEAST_COSINE", 0.9)
        pairs = tmp_path / "pairs.csv"
        pairs.write_text("sentence1,sentence2,score\nthe film was good,a film,1\nlong plot,the oven was bad,2\n")
        settings = {
            "scorer": "supernet", "supernet_steps": 4, "max_replace_one_loss": 1e3, "trim_vocabulary": True,
            "int8": True, "pairs_file": str(pairs), "handmade": False,
        }  # fmt: skip
        result = compress(base, tmp_path / "small", **settings)
        torch_row, onnx_row, int8_row = result.runtimes
        assert torch_row.spearman == result.best.row.judged[0].spearman
        assert onnx_row.kept.cosine > 1 - 1e-5
        assert (tmp_path / "small" / int8_row.file).is_file()
        names = [stage["stage"].split()[0] for stage in result.stages]
        assert [name for name in names if name in ("vocabulary", "super-net", "onnx", "int8")] == [
            "vocabulary", "super-net", "onnx", "int8",
        ]  # fmt: skip
        assert compress(base, tmp_path / "small", **settings).runtimes == result.runtimes

    def test_a_killed_run_goes_on_to_the_same_bits_and_counts_no_pieces_again(self, base, tmp_path, monkeypatch):
        settings = {"trim_vocabulary": True, "min_piece_count": 3, "handmade": False}
        result = compress(base, tmp_path / "whole", **settings)
        with monkeypatch.context() as patch:
            patch.setattr(run, "write_folders", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                compress(base, tmp_path / "small", **settings)
        monkeypatch.setattr("hf_nasbert.compression.materials.count_pieces", None)
        again = compress(base, tmp_path / "small", **settings)
        assert again.rows == result.rows
        for name in ("model.safetensors", "config.json", "tokenizer.json"):
            assert (tmp_path / "small" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    def test_a_stock_bert_is_trimmed_too(self, base, tmp_path, monkeypatch):
        def layers_are_better(rows):
            return choose_given(
                [dataclasses.replace(row, chosen_by=0.0) if row.how.startswith("layers") else row for row in rows]
            )

        monkeypatch.setattr(run, "choose_given", layers_are_better)
        result = compress(base, tmp_path / "small", trim_vocabulary=True)
        loaded = AutoModel.from_pretrained(tmp_path / "small")
        assert type(loaded) is BertModel
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "small")
        assert loaded.config.vocab_size == len(tokenizer) == result.best.row.trimmed.num_pieces
        assert loaded.config.pad_token_id == tokenizer.pad_token_id
        said = "\n".join(result.verdicts)
        assert f"the child chosen by hand ({result.best.row.how}) was saved" in said
        assert "a hand-made choice is better here" in said
        assert f"{result.best.row.how} is nearer" not in said  # than itself

    def test_a_classifier_of_several_budgets_and_seeds(self, tmp_path):
        base = bases.classifier_base(tmp_path / "base", more=RARE)
        result = compress(
            base, tmp_path / "small", max_parameters=None, budgets=["0.5x", "0.3x"], seeds=[0, 1],
            trim_vocabulary=True, min_piece_count=50, handmade=False,
        )  # fmt: skip
        assert [(row.budget, row.trimmed is not None, row.is_given) for row in result.rows[1:]] == [
            ("0.5x", False, False), ("0.5x", True, True), ("0.3x", False, False), ("0.3x", True, True),
        ]  # fmt: skip
        for one in result.front:
            assert all(judged.agreement > 0 for judged in one.row.judged)
            assert len(one.row.judged) == 2
            loaded = AutoModelForSequenceClassification.from_pretrained(one.folder, trust_remote_code=True)
            assert loaded.config.id2label == {0: "bad", 1: "good", 2: "long"}
            assert loaded.config.vocab_size == one.row.trimmed.num_pieces

    def test_a_tokenizer_written_in_python_is_refused_before_any_work(self, base, tmp_path, monkeypatch):
        (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
        slow = BertTokenizerLegacy(str(tmp_path / "vocab.txt"))
        monkeypatch.setattr("hf_nasbert.elastic.base_models.open_tokenizer", lambda *_, **__: slow)
        monkeypatch.setattr("hf_nasbert.compression.text_source.TextSource.load", None, raising=False)
        with pytest.raises(ValueError, match=r"needs a tokenizer of the tokenizers library .* BertTokenizerLegacy"):
            compress(base, tmp_path / "small", trim_vocabulary=True)
        assert not (tmp_path / "small" / "stages.jsonl").exists()

    def test_a_count_that_means_nothing_is_refused(self):
        with pytest.raises(ValueError, match="min_piece_count=2 changes nothing without trim_vocabulary"):
            CompressArguments(base_model="x", output_dir="y", max_parameters="0.5x", min_piece_count=2)
        with pytest.raises(ValueError, match="min_piece_count=0: expected at least 1"):
            CompressArguments(base_model="x", output_dir="y", max_parameters="0.5x", min_piece_count=0)


@pytest.mark.slow
def test_minilm_keeps_half_of_its_pieces_on_a_million_words(tmp_path):
    """Equal vectors, and a file smaller by the embeddings of what is left out."""
    base = SentenceTransformer(str(packaged_model("all-MiniLM-L6-v2")), device="cpu")
    tokenizer, child = base.tokenizer, from_stock(base[0].auto_model)
    text = packaged_text("boolq-wikipedia")
    train, _, judging = split_parts(text, cache_dir=tmp_path / "text")
    kept = choose_pieces(tokenizer, count_pieces(train, tokenizer), also=ids_of_config(child.config))
    smaller, trimmed = trim_tokenizer(tokenizer, kept), trim_model(child, kept)
    sentences = choose_sentences(judging, 512, 0)
    assert 15_000 < len(kept) < 29_000
    assert cut_otherwise(sentences, tokenizer, smaller, kept) < 0.1
    same = [
        sentence
        for sentence, before, after in zip(sentences, ids(tokenizer, sentences), ids(smaller, sentences), strict=True)
        if [kept[number] for number in after] == before
    ][:16]
    modules = SentenceModules(normalize=True)
    expected, found = (
        modules.pool(model(**batch).last_hidden_state, batch["attention_mask"]).detach()
        for model, batch in (
            (child, tokenised(same, tokenizer, 128)), (trimmed, tokenised(same, smaller, 128)),
        )
    )  # fmt: skip
    assert (expected - found).abs().max() < 1e-6
    save_child(trimmed, smaller, tmp_path / "small")
    save_child(child, tokenizer, tmp_path / "whole")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "small")]
    assert sizes[0] - sizes[1] == pytest.approx(4 * 384 * (len(tokenizer) - len(kept)), rel=1e-3)
