"""Tokenizers of any script and of anybody: what is trained, what is a word, what is unknown, what is refused."""

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset
from helpers import mostly_slow
from tiny.texts import TEXT, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from hf_nasbert.data import DataArguments, MaskedBatches, fixed_masked_batches, load_corpus, load_held_out
from hf_nasbert.data import foreign_tokenizers as door
from hf_nasbert.data.batches import NothingToPredictError
from hf_nasbert.data.foreign_tokenizers import open_tokenizer
from hf_nasbert.data.tokenization import load_tokenizer, tokenizer_digest, train_tokenizer
from hf_nasbert.data.vocabulary import continues_word, padding_id, save_tokenizer, tell_unknown, vocabulary_size
from hf_nasbert.foreign import ForeignFileError

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROLES = {f"{name[1:-1].lower()}_token": name for name in SPECIAL}


def run_of(letters: str, length: int = 150) -> list[str]:
    """Sentences without a space."""
    return ["".join(random.Random(seed).choices(letters, k=length)) for seed in range(20)]


TEXTS = {
    "Thai": [*run_of("กขคงจชญดตถทนบปผพภมยรลวศสหอะาเแโไ"), "กำลังเรียนภาษาไทยอยู่ที่นี่" * 6],
    "Lao": ["ພາສາລາວເປັນພາສາ" * 10] * 5,
    "Khmer": ["ភាសាខ្មែរជាភាសាផ្លូវការ" * 10] * 5,
    "Burmese": ["မြန်မာဘာသာစကားသည်" * 10] * 5,
    "Tibetan": ["བོད་ཡིག་གི་སྐད་ཡིག" * 10] * 5,
    "Tibetan without its points": ["བོདཡིགགིསྐད" * 20] * 5,
    "Javanese": ["ꦗꦮꦏꦤ꧀ꦕꦫꦏ" * 20] * 5,
    "Balinese": ["ᬩᬲᬩᬮᬶ" * 40] * 5,
    "kana": ["ありがとうございますがぎぐげご" * 12, "アイスクリームパーティー" * 12] * 5,
    "kana and Han": ["東京で漢字かな交じり文を書きます" * 12] * 5,
    "Han": run_of("".join(map(chr, range(0x4E00, 0x4F00)))),
    "Yi": ["ꆈꌠꁱꂷ" * 40] * 5,
    "cuneiform": ["𒀀𒀁𒀂" * 60] * 5,
    "hieroglyphs": ["𓀀𓀁𓀂" * 60] * 5,
    "Adlam, without spaces": ["𞤀𞤣𞤤𞤢𞤥" * 60] * 5,
    "Hangul, without spaces": ["안녕하세요세계한국어문장입니다" * 10] * 5,
    "base64": ["dGhlIHF1aWNrIGJyb3duIGZveA" * 20 + " and words"] * 5,
    "Hindi": ["अपने पोस्ट ऑफिस में पदों पर भर्ती"] * 20,
    "Bengali": ["আমার সোনার বাংলা"] * 20,
    "Tamil": ["தமிழ் மொழி"] * 20,
    "Hebrew": ["שָׁלוֹם עוֹלָם"] * 20,
    "Arabic": ["مُحَمَّد أحمد"] * 20,
    "Russian": ["мой дом, её вой"] * 20,
    "Mongolian": ["ᠮᠣᠩᠭᠣᠯ ᠬᠡᠯᠡ"] * 20,
    "Ethiopic": ["ሰላም ለዓለም"] * 20,
    "Georgian": ["გამარჯობა მსოფლიო"] * 20,
    "Vietnamese": ["Tiếng Việt"] * 20,
    "emoji": ["👩‍💻❤️🙂" * 50] * 5,
}
SETTINGS = {"default": {}, "cased": {"do_lower_case": False}, "accents": {"strip_accents": False}}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def english():
    return [line for line in TEXT.read_text().splitlines() if line.strip()]


def arguments_of(path: Path, texts: list[str], **options) -> DataArguments:
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return DataArguments(train_files=[str(path)], max_seq_length=16, validation_fraction=0.3, **options)


class TestAnyScript:
    @pytest.mark.parametrize("settings", mostly_slow(SETTINGS.values(), every=3), ids=SETTINGS.keys())
    @pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS.keys())
    def test_nothing_is_unknown_and_it_loads_anywhere(self, texts, settings, tmp_path):
        tokenizer = train_tokenizer(texts, 2000, **settings)
        cut = [tokenizer(text)["input_ids"] for text in texts]
        assert not any(tokenizer.unk_token_id in ids for ids in cut)
        tokenizer.save_pretrained(tmp_path)
        loaded = AutoTokenizer.from_pretrained(tmp_path)
        assert [loaded(text)["input_ids"] for text in texts] == cut
        assert loaded(texts[0], texts[1]) == tokenizer(texts[0], texts[1])
        assert tokenizer_digest(open_tokenizer(tmp_path)) == tokenizer_digest(tokenizer)
        config = json.loads((tmp_path / "tokenizer_config.json").read_text())
        asked = {"do_lower_case": True, "strip_accents": None} | settings
        assert {name: config[name] for name in asked} == asked

    @pytest.mark.parametrize(
        ("text", "kept"),
        [
            ("में अपने पदों", "में अपने पदों"), ("আমি", "আমি"), ("தமிழ்", "தமிழ்"), ("שָׁלוֹם", "שָׁלוֹם"),
            ("مُحَمَّد", "مُحَمَّد"), ("กำลัง", "กำลัง"), ("мой её Москва́", "мой её москва"), ("がぎ", "がぎ"),
            ("한국", "한국"), ("Café Ångström", "cafe angstrom"), ("Ελλάδα", "ελλαδα"), ("Tiếng", "tieng"),
            ("ѓавол ќе ѝ", "ѓавол ќе ѝ"), ("ܡܲܠܟܹ̈ܐ ܡ̈ܠܐ", "ܡܲܠܟܹ̈ܐ ܡ̈ܠܐ"), ("ⲛ̄ⲧⲉ ⲙ̀", "ⲛ̄ⲧⲉ ⲙ̀"),
            ("می\u200cروم", "می\u200cروم"), ("ශ්\u200dරී", "ශ්\u200dරී"), ("মর্\u200dযাদা", "মর্\u200dযাদা"),
            ("\u06dd٣", "\u06dd٣"),
            ("ᠮᠣᠩᠭᠣᠯ\u180eᠠ", "ᠮᠣᠩᠭᠣᠯ\u180eᠠ"),
            ("x≠é", "x≠e"), ("ធ្វើ\u200cការ", "ធ្វើ\u200cការ"), ("so\u00adft \u202ebidi", "soft bidi"),
        ],
    )  # fmt: skip
    def test_a_mark_that_its_script_needs_is_kept_and_an_accent_is_not(self, text, kept):
        import unicodedata

        tokenizer = train_tokenizer([text] * 5, 300)
        joined = "".join(token.removeprefix("##") for token in tokenizer.tokenize(text))
        assert joined == unicodedata.normalize("NFD", kept.replace(" ", ""))

    def test_accents_and_case_are_settings(self):
        texts = ["Crème BRÛLÉE, où ça ?"] * 5

        def cut(**settings):
            tokenizer = train_tokenizer(texts, 300, **settings)
            return " ".join(tokenizer.tokenize(texts[0]))

        assert cut() == "creme brulee , ou ca ?"
        assert cut(strip_accents=False) == "crème brûlée , où ça ?"
        assert cut(do_lower_case=False) == "Crème BRÛLÉE , où ça ?"
        assert cut(do_lower_case=False, strip_accents=True) == "Creme BRULEE , ou ca ?"

    @pytest.mark.parametrize("texts", [TEXTS["Hindi"], TEXTS["Vietnamese"]], ids=["own rules", "BERT's rules"])
    def test_settings_are_found_again_with_the_vocabulary(self, texts, tmp_path, monkeypatch):
        digests = []
        for settings in SETTINGS.values():
            arguments = arguments_of(tmp_path / "a.txt", texts, **settings)
            made = load_tokenizer(arguments, texts)
            with monkeypatch.context() as patched:
                patched.setattr("hf_nasbert.data.tokenization._train", None)  # nothing is trained twice
                again = load_tokenizer(arguments, texts)
            assert tokenizer_digest(again) == tokenizer_digest(made)
            assert again.init_kwargs["do_lower_case"] == arguments.do_lower_case
            assert again.init_kwargs["strip_accents"] == arguments.strip_accents
            digests.append(tokenizer_digest(made))
        assert len(set(digests)) == 3

    def test_english_is_cut_as_ever(self, english):
        """The vocabulary of studies that were run before any script was served, to the bit."""
        for texts in (english, [*english * 10, "か"]):  # a foreign letter changes nothing
            tokenizer = train_tokenizer(texts, 300)
            assert isinstance(tokenizer, BertTokenizer)
        vocabulary = sorted(train_tokenizer(english, 300).get_vocab().items())
        assert hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()[:16] == "df8171a874c9d79d"

    def test_training_is_blind_to_order(self):
        texts = TEXTS["Thai"] + TEXTS["Hindi"]
        vocabularies = [train_tokenizer(order, 500).get_vocab() for order in (texts, texts[::-1])]
        assert vocabularies[0] == vocabularies[1]

    def test_chinese_has_more_letters_than_a_thousand(self):
        texts = run_of("".join(map(chr, range(0x4E00, 0x4E00 + 3000))), length=2000)
        tokenizer = train_tokenizer(texts, 8192)
        assert tokenizer.unk_token_id not in tokenizer(texts[0])["input_ids"]
        assert len([token for token in tokenizer.get_vocab() if len(token) == 1]) >= 3000

    def test_a_letter_with_its_marks_is_a_word(self):
        tokenizer = train_tokenizer(TEXTS["Thai"], 500)
        ids = tokenizer("กำลังที่", add_special_tokens=False)["input_ids"]
        starts = ~continues_word(tokenizer)[ids]
        assert starts.sum() == 5  # ก กำ: the vowel after it is a letter of its own
        assert tokenizer.decode(ids).replace(" ", "") == "กำลังที่"


class TestUnknown:
    def packed(self, num_unknown: int) -> list[Dataset]:
        return [Dataset.from_dict({"input_ids": [[2, *[1] * num_unknown, *[6] * (20 - num_unknown), 3]] * 5})]

    def test_the_share_is_printed(self, capsys, caplog):
        tokenizer = BertTokenizer(vocab={name: i for i, name in enumerate([*SPECIAL, "a", "b"])})
        assert tell_unknown(self.packed(0), tokenizer, "tok") == 0
        assert "0.00% of the tokens are unknown ([UNK]) to the tokenizer tok" in capsys.readouterr().err
        assert not caplog.records
        assert tell_unknown(self.packed(1), tokenizer, None) == 0.05
        assert "vocab_size" in caplog.text
        assert "5.00%" in capsys.readouterr().err
        assert tell_unknown(self.packed(9), tokenizer, "tok") == 0.45
        with pytest.raises(ValueError, match=r"50\.00%.*tokenizer tok.*tokenizer_name"):
            tell_unknown(self.packed(10), tokenizer, "tok")
        with pytest.raises(ValueError, match=r"100\.00%.*vocab_size.*tokenizer_name"):
            tell_unknown(self.packed(20), tokenizer, None)
        caplog.clear()
        assert tell_unknown(self.packed(20), tokenizer, "model", is_labelled=True) == 1  # as its owner wants
        assert "a model of another tokenizer" in caplog.text

    def test_a_name_that_somebody_else_gave_is_escaped(self, capsys, caplog):
        vocabulary = {name: i for i, name in enumerate(["[PAD]", "\x1b[2J", *SPECIAL[2:], "a", "b"])}
        tokenizer = BertTokenizer(vocab=vocabulary, unk_token="\x1b[2J")
        tell_unknown(self.packed(2), tokenizer, "tok\x07")
        said = capsys.readouterr().err
        assert r"unknown (\x1b[2J) to the tokenizer tok\x07" in said
        with pytest.raises(ValueError, match="100"):
            tell_unknown(self.packed(20), tokenizer, "tok\x07")
        assert "\x1b" not in said + caplog.text

    def test_a_token_of_another_use_is_not_counted(self):
        tokenizer = BertTokenizer(vocab={name: i for i, name in enumerate([*SPECIAL, "a", "b"])}, unk_token="[SEP]")
        assert tell_unknown(self.packed(0), tokenizer, None) == 0

    def test_every_way_to_packed_text_tells_it(self, tmp_path, capsys, english):
        folder = tmp_path / "tok"
        train_tokenizer(english, 300).save_pretrained(folder)
        good = arguments_of(tmp_path / "en.txt", english, tokenizer_name=str(folder))
        for load in (load_corpus, load_held_out):
            load(good)
            assert "0.00% of the tokens are unknown" in capsys.readouterr().err
        thai = arguments_of(
            tmp_path / "th.txt", [f"ไทย {number}" for number in range(200)], tokenizer_name=str(folder)
        )
        for load in (load_corpus, load_held_out):
            with pytest.raises(ValueError, match=r"% of the tokens are unknown.*tok.*tokenizer_name"):
                load(thai)
        han = run_of("".join(map(chr, range(0x4E00, 0x4E00 + 2000))))
        with pytest.raises(ValueError, match=r"% of the tokens are unknown.*vocab_size"):
            load_corpus(arguments_of(tmp_path / "zh.txt", han, vocab_size=100))


class TestNothingToPredict:
    def test_dev_batches_say_so(self):
        tokenizer = BertTokenizer(vocab={name: i for i, name in enumerate([*SPECIAL, "a", "b"])})
        packed = Dataset.from_dict({"input_ids": [[2, 1, 1, 3]] * 4})
        with pytest.raises(NothingToPredictError, match=r"no token to predict.*tokenizer_name.*vocab_size"):
            fixed_masked_batches(packed, tokenizer, 2, 2, 0)

    def test_a_step_says_so_in_place_of_a_divergence(self, tmp_path):
        from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
        from hf_nasbert.training import SupernetTrainingArguments, train_supernet

        tokenizer = BertTokenizer(vocab={name: i for i, name in enumerate([*SPECIAL, "a", "b"])})
        packed = Dataset.from_dict({"input_ids": [[2, 1, 1, 3]] * 4})
        supernet = SupernetForMaskedLM(SupernetConfig(hidden_size=8, attention_head_size=8, vocab_size=7))
        arguments = SupernetTrainingArguments(
            output_dir=str(tmp_path), max_steps=1, use_cpu=True, method="uniform", num_eval_children=0,
            per_device_train_batch_size=2,
        )  # fmt: skip
        batches = MaskedBatches(packed, tokenizer, batch_size=arguments.train_batch_size(1), seed=0)
        with pytest.raises(NothingToPredictError, match="no token to predict"):
            train_supernet(supernet, arguments, batches)

    def test_a_tokenizer_of_special_tokens_alone_is_refused(self):
        tokenizer = BertTokenizer(vocab={name: i for i, name in enumerate(SPECIAL)})
        with pytest.raises(ValueError, match="no tokens but special ones"):
            MaskedBatches(Dataset.from_dict({"input_ids": [[2, 1, 1, 3]]}), tokenizer, batch_size=1, seed=0)


def fast(model, pre_tokenizer=None, *, normalizer=None, decoder=None) -> PreTrainedTokenizerFast:
    backend = Tokenizer(model)
    for part, value in (("pre_tokenizer", pre_tokenizer), ("normalizer", normalizer), ("decoder", decoder)):
        if value is not None:
            setattr(backend, part, value)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **ROLES)


def table(*tokens: str) -> dict[str, int]:
    return {token: number for number, token in enumerate([*SPECIAL, *tokens])}


def bpe(*tokens: str, **options) -> models.BPE:
    return models.BPE(vocab=table(*tokens), merges=[], unk_token="[UNK]", **options)


def unigram(*tokens: str) -> models.Unigram:
    return models.Unigram([(token, -1.0) for token in table(*tokens)], unk_id=1)


LEVEL, SPACE = pre_tokenizers.ByteLevel(), pre_tokenizers.Metaspace()
MARKED = {  # tokens after the five special ones, and which of them continue a word
    "byte-level BPE with #": (lambda: fast(bpe("Ġa", "b", "##", "##b", "#"), LEVEL), [0, 1, 1, 1, 1]),
    "byte-level BPE with Metaspace's mark": (lambda: fast(bpe("Ġa", "▁", "▁b"), LEVEL), [0, 1, 1]),
    "byte level within a sequence": (
        lambda: fast(bpe("Ġa", "b"), pre_tokenizers.Sequence([pre_tokenizers.Digits(), LEVEL])), [0, 1],
    ),
    "byte level as normalizer": (lambda: fast(bpe("Ġa", "##b"), normalizer=normalizers.ByteLevel()), [0, 1]),
    "byte level as decoder": (lambda: fast(bpe("Ġa", "##b"), decoder=decoders.ByteLevel()), [0, 1]),
    "BPE with Metaspace": (lambda: fast(bpe("▁a", "b", "##b", "Ġ"), SPACE), [0, 1, 1, 1]),
    "BPE with a mark of its own": (
        lambda: fast(bpe("~a", "b", "▁b"), pre_tokenizers.Metaspace(replacement="~")), [0, 1, 1],
    ),
    "BPE with a replaced space": (
        lambda: fast(bpe("▁a", "b", "Ġb"), normalizer=normalizers.Replace(" ", "▁")), [0, 1, 1],
    ),
    "BPE with a decoder that replaces": (
        lambda: fast(bpe("▁a", "b"), decoder=decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])), [0, 1],
    ),
    "BPE with WordPiece's prefix": (lambda: fast(bpe("a", "##b", "Ġ", continuing_subword_prefix="##")), [0, 1, 0]),
    "Unigram": (lambda: fast(unigram("▁a", "b", "##", "##b", "Ġ"), SPACE), [0, 1, 1, 1, 1]),
    "WordPiece with Ġ": (
        lambda: fast(models.WordPiece(table("Ġa", "▁b", "##b", "a"), unk_token="[UNK]"), LEVEL), [0, 0, 1, 0],
    ),
    "WordPiece with another prefix": (
        lambda: fast(models.WordPiece(table("a", "_b", "##b"), unk_token="[UNK]", continuing_subword_prefix="_")),
        [0, 1, 0],
    ),
    "WordLevel that marks": (lambda: fast(models.WordLevel(table("▁a", "b", "c"), unk_token="[UNK]")), [0, 1, 1]),
}  # fmt: skip
UNMARKED = {
    "BPE with the ends of words": lambda: fast(bpe("a</w>", "b", "Ġ", "##b", end_of_word_suffix="</w>")),
    "BPE of letters": lambda: fast(bpe("a", "b", "##", "Ġ")),
    "letters": lambda: fast(models.WordLevel(table("a", "b", "c"), unk_token="[UNK]")),
    "words": lambda: fast(models.WordLevel(table("one", "two"), unk_token="[UNK]"), pre_tokenizers.Whitespace()),
    "a WordPiece of whole words": lambda: BertTokenizer(vocab=table("one", "two")),
    "bytes without a space": lambda: fast(bpe("a", "b"), LEVEL),
}


class TestWords:
    @pytest.mark.parametrize(("make", "expected"), MARKED.values(), ids=MARKED.keys())
    def test_are_told_by_the_tokenizers_own_model(self, make, expected):
        found = continues_word(make())
        assert found[:5].sum() == 0
        assert found[5:].tolist() == [bool(one) for one in expected]

    @pytest.mark.parametrize("make", UNMARKED.values(), ids=UNMARKED.keys())
    def test_without_marks_are_refused(self, make):
        with pytest.raises(ValueError, match=r"none of the \d+ tokens of .* carries such a mark"):
            continues_word(make())

    def test_a_tokenizer_in_python_is_told_by_many_marks(self):
        class InPython:
            is_fast = False
            name_or_path = ""
            all_special_ids = (0,)

            def __init__(self, *tokens):
                self.vocabulary = {token: number for number, token in enumerate(["[PAD]", *tokens])}

            def get_vocab(self):
                return self.vocabulary

            def get_added_vocab(self):
                return {"[PAD]": 0}

        words = [f"Ġ{number}" for number in range(50)]
        found = continues_word(InPython("##", "##b", "a", *words))
        assert found.tolist() == [False, True, True, True, *[False] * 50]
        pieces = [f"##{number}" for number in range(10)]
        assert continues_word(InPython("Ġ", "a", *pieces)).sum() == 10
        with pytest.raises(ValueError, match="none of the 3 tokens"):
            continues_word(InPython("##", "Ġ"))

    def test_added_tokens_begin_words(self):
        tokenizer = fast(bpe("Ġa", "b"), LEVEL)
        tokenizer.add_tokens(["<name>"])
        assert continues_word(tokenizer).tolist() == [False] * 6 + [True, False]


class TestVocabulary:
    @pytest.fixture
    def gaps(self) -> PreTrainedTokenizerFast:
        vocabulary = {name: number for number, name in enumerate(SPECIAL)}
        vocabulary |= {f"w{number}": 200 + number for number in range(18)} | {"##s": 230}
        return fast(models.WordPiece(vocabulary, unk_token="[UNK]"), pre_tokenizers.Whitespace())

    def test_is_the_largest_id_and_one(self, gaps):
        assert vocabulary_size(gaps) == 231
        gaps.add_tokens(["new"])
        assert vocabulary_size(gaps) == max(gaps.get_vocab().values()) + 1

    @pytest.mark.parametrize("whole_word_mask", [False, True])
    def test_gaps_are_neither_refused_nor_drawn(self, gaps, whole_word_mask):
        packed = Dataset.from_dict({"input_ids": [[2, 205, 230, 217, 3]] * 50})
        batch = MaskedBatches(
            packed, gaps, batch_size=500, seed=0, mlm_probability=0.9, whole_word_mask=whole_word_mask
        ).batch(0)
        assert set(batch["input_ids"].unique().tolist()) <= set(gaps.get_vocab().values())
        assert len(fixed_masked_batches(packed, gaps, 2, 4, 0)) == 2
        beyond = Dataset.from_dict({"input_ids": [[2, 231, 3, 3]]})
        with pytest.raises(ValueError, match="packed with another tokenizer"):
            MaskedBatches(beyond, gaps, batch_size=1, seed=0).batch(0)

    def test_a_model_must_have_them_all(self, gaps, tmp_path):
        from hf_nasbert.child_folders import save_child
        from hf_nasbert.finetuning.runs import check_vocabulary
        from hf_nasbert.modeling import NasBertConfig, NasBertForMaskedLM

        sizes = {"operators": ["ffn"], "hidden_size": 8, "attention_head_size": 8, "max_position_embeddings": 16}
        for size, is_enough in ((230, False), (231, True)):
            config = NasBertConfig(vocab_size=size, **sizes)
            child = NasBertForMaskedLM(config)
            if is_enough:
                check_vocabulary(gaps, config, "child")
                save_child(child, gaps, tmp_path / "child")
                continue
            with pytest.raises(ValueError, match="231 tokens"):
                check_vocabulary(gaps, config, "child")
            with pytest.raises(ValueError, match="231 tokens"):
                save_child(child, gaps, tmp_path / "child")
        # A tokenizer without a limit takes the child's.
        assert gaps.model_max_length > 10**20
        assert AutoTokenizer.from_pretrained(tmp_path / "child").model_max_length == 16

    def test_a_padding_that_is_another_token_is_attended_to(self):
        vocabulary = table("a", "b")
        tokenizer = fast(models.WordPiece(vocabulary, unk_token="[UNK]"))
        assert padding_id(tokenizer) == 0
        packed = Dataset.from_dict({"input_ids": [[2, 5, 6, 3, 0]]})
        assert MaskedBatches(packed, tokenizer, batch_size=1, seed=0).batch(0)["attention_mask"].sum() == 4
        tokenizer.pad_token = "[SEP]"
        assert padding_id(tokenizer) is None
        assert MaskedBatches(packed, tokenizer, batch_size=1, seed=0).batch(0)["attention_mask"].sum() == 5

    @pytest.mark.parametrize(
        ("own", "positions", "saved"), [(10**30, 32, 32), (16, 32, 16), (64, 32, 32), (64, None, 64)]
    )
    def test_saved_beside_a_model_it_knows_the_longest_input(self, tmp_path, own, positions, saved):
        tokenizer = tiny_tokenizer()
        tokenizer.model_max_length = own
        save_tokenizer(tokenizer, tmp_path, positions)
        assert tokenizer.model_max_length == own
        assert AutoTokenizer.from_pretrained(tmp_path).model_max_length == saved


def changed(folder: Path, file: str, **changes) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **changes}))


class TestDoor:
    @pytest.fixture
    def folder(self, tmp_path, english) -> Path:
        train_tokenizer(english[:20], 100).save_pretrained(tmp_path / "tok")
        return tmp_path / "tok"

    def refused(self, folder: Path, match: str, **options) -> None:
        with pytest.raises(ForeignFileError, match=match) as error:
            open_tokenizer(folder, **options)
        message = str(error.value)
        assert str(folder) in message, "the folder is not named"
        assert "\n" not in message
        assert len(message) < 1500

    @pytest.mark.parametrize(
        ("kept", "message"),
        [
            (["vocab.txt"], "has vocab.txt, and neither config.json nor tokenizer_config.json"),
            (["tokenizer.json"], "has tokenizer.json, and neither config.json nor tokenizer_config.json"),
            (["tokenizer_config.json"], "has tokenizer_config.json, and no vocabulary"),
            ([], "has no file of a tokenizer, and neither"),
        ],
    )
    def test_a_missing_piece_is_named(self, folder, kept, message):
        (folder / "vocab.txt").write_text("\n".join([*SPECIAL, "a"]))
        for file in folder.iterdir():
            if file.name not in kept:
                file.unlink()
        self.refused(folder, message)

    def test_a_vocabulary_and_a_config_are_enough(self, folder):
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.txt").write_text("\n".join([*SPECIAL, "a", "word"]))
        assert open_tokenizer(folder).tokenize("a word") == ["a", "word"]

    def test_a_file_is_no_folder(self, folder):
        with pytest.raises(ForeignFileError, match=r"tokenizer\.json is a file: name the folder"):
            open_tokenizer(folder / "tokenizer.json")

    @pytest.mark.parametrize(
        ("file", "changes", "message"),
        [
            ("tokenizer_config.json", {"tokenizer_class": "EvilTokenizer"}, "EvilTokenizer, which transformers"),
            ("tokenizer_config.json", {"tokenizer_class": ["BertTokenizer"]}, "tokenizer_class that is no name"),
            ("tokenizer_config.json", {"tokenizer_class": "\u001b[31mX"}, r"class \\x1b\[31mX"),
            ("tokenizer_config.json", {"tokenizer_class": "Trainer"}, "cannot be loaded"),
            ("tokenizer_config.json", {"mask_token": 7}, "mask_token"),
            ("tokenizer_config.json", {"pad_token": ["[PAD]"]}, "pad_token"),
            ("tokenizer_config.json", {"model_max_length": -1}, "model_max_length"),
            ("tokenizer_config.json", {"model_max_length": "long"}, "model_max_length|cannot be loaded"),
            ("tokenizer.json", {"model": None}, "tokenizer.json"),
            ("tokenizer.json", {"model": {"type": "WordPiece", "vocab": {}}}, "tokenizer"),
            (
                "tokenizer.json",
                {"normalizer": {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}},
                "tokenizer",
            ),
        ],
    )  # fmt: skip
    def test_odd_values_are_one_line(self, folder, file, changes, message):
        changed(folder, file, **changes)
        self.refused(folder, message)

    @pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
    @pytest.mark.parametrize(
        "content", [b"[]", b"", b"\xff", b"[" * 300_000, b'{"a":' * 200 + b"1" + b"}" * 200, b"9" * 9000, b"null"]
    )
    def test_what_is_no_json_object_is_named(self, folder, file, content):
        (folder / file).write_bytes(content)
        self.refused(folder, file.replace(".", r"\."))

    def test_a_gigantic_config_is_not_read(self, folder):
        with (folder / "tokenizer_config.json").open("r+b") as file:
            file.truncate(1 << 30)
        self.refused(folder, "1,073,741,824 bytes")

    def test_ids_beyond_reason_are_refused(self, folder):
        content = json.loads((folder / "tokenizer.json").read_text())
        content["model"]["vocab"]["far"] = 2**31
        (folder / "tokenizer.json").write_text(json.dumps(content))
        self.refused(folder, "ids up to 2147483648")

    def test_ids_that_only_a_template_gives_are_refused(self, tmp_path):
        from tokenizers.processors import TemplateProcessing

        tokenizer = fast(models.WordLevel(table("a"), unk_token="[UNK]"))
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 999), ("[SEP]", 3)]
        )
        tokenizer.save_pretrained(tmp_path)
        self.refused(tmp_path, "into the token 999")

    def test_an_unknown_token_that_is_missing_is_told_before_the_text_is(self, tmp_path):
        vocabulary = {name: number for number, name in enumerate(["[PAD]", "[CLS]", "[SEP]", "[MASK]", "a"])}
        fast(models.WordLevel(vocabulary, unk_token="[UNK]")).save_pretrained(tmp_path)
        self.refused(tmp_path, "tokenizer.json is no tokenizer that works .*UNK")

    def test_a_regular_expression_without_end_is_ended(self, folder, monkeypatch):
        monkeypatch.setattr(door, "_SECONDS", 1)
        split = {"type": "Split", "pattern": {"Regex": "[a-z]*[a-z]*[0-9]"}, "behavior": "Isolated", "invert": False}
        changed(folder, "tokenizer.json", pre_tokenizer=split)
        self.refused(folder, r"tokenizer\.json takes more than 1 s of processor time")

    def test_a_panic_is_an_error(self, folder):
        split = {"type": "Split", "pattern": {"Regex": "(a+)+[0-9]"}, "behavior": "Isolated", "invert": False}
        changed(folder, "tokenizer.json", pre_tokenizer=split)
        self.refused(folder, r"tokenizer\.json is no tokenizer that works .*retry-limit")

    def test_a_panic_over_a_text_names_the_tokenizer(self, folder, tmp_path, english):
        split = {"type": "Split", "pattern": {"Regex": "(q+)+[0-9]"}, "behavior": "Isolated", "invert": False}
        changed(folder, "tokenizer.json", pre_tokenizer=split)
        changed(folder, "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")  # BERT's has own rules
        arguments = arguments_of(tmp_path / "a.txt", [*english, "q" * 40], tokenizer_name=str(folder))
        with pytest.raises(ForeignFileError, match=r"tok cannot cut this text .*tokenizer_name"):
            load_corpus(arguments)

    def test_the_trial_has_nothing_of_the_users(self, folder, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "secret")
        monkeypatch.setattr(door, "_well", set())
        seen = {}

        def run(command, **options):
            seen.update(options, command=command)
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(door.subprocess, "run", run)
        open_tokenizer(folder)
        assert set(seen["env"]) == {"TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS"}
        assert seen["command"][:2] == [sys.executable, "-I"]

    def test_the_same_content_is_tried_once_where_it_did_well(self, folder, monkeypatch):
        monkeypatch.setattr(door, "_well", set())
        tried, run = [], subprocess.run
        monkeypatch.setattr(door.subprocess, "run", lambda *given, **kw: (tried.append(given), run(*given, **kw))[1])
        for _ in range(2):
            open_tokenizer(folder)
        assert len(tried) == 1
        split = {"type": "Split", "pattern": {"Regex": "(a+)+[0-9]"}, "behavior": "Isolated", "invert": False}
        changed(folder, "tokenizer.json", pre_tokenizer=split)
        for _ in range(2):
            self.refused(folder, "is no tokenizer that works")
        assert len(tried) == 3

    @pytest.mark.parametrize("kind", [None, "EvilTokenizer"])
    def test_code_that_comes_along_is_not_run(self, folder, kind):
        (folder / "evil.py").write_text(f"open({str(folder / 'OWNED')!r}, 'w')\nclass EvilTokenizer: pass\n")
        changed(
            folder, "tokenizer_config.json",
            tokenizer_class=kind, auto_map={"AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]},
        )  # fmt: skip
        self.refused(folder, "code of its own .*trust_remote_code")
        assert not (folder / "OWNED").exists()

    def test_code_is_passed_over_where_the_class_is_known(self, folder):
        (folder / "evil.py").write_text(f"open({str(folder / 'OWNED')!r}, 'w')\nclass EvilTokenizer: pass\n")
        changed(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.EvilTokenizer", None]})
        assert isinstance(open_tokenizer(folder), BertTokenizer)
        assert not (folder / "OWNED").exists()

    def test_a_name_that_the_hub_does_not_have_is_one_line(self):
        with pytest.raises(OSError, match="nobody/nothing") as error:
            open_tokenizer("nobody/nothing")
        assert "\n" not in str(error.value)
        with pytest.raises(FileNotFoundError, match="nowhere"):
            open_tokenizer("./nowhere")

    def test_every_command_goes_through_it(self):
        """Nobody but the door calls AutoTokenizer; `hub/proof.py` does in a process that sees what would be pushed."""
        package = Path(door.__file__).parents[1]
        callers = {
            str(file.relative_to(package))
            for file in package.rglob("*.py")
            if "AutoTokenizer.from_pretrained(" in file.read_text(encoding="utf-8")
        }
        assert callers - {"hub/proof.py"} == {"data/foreign_tokenizers.py"}
