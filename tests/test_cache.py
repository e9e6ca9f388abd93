"""Cached files are what was written, or are made again; a resumed run knows every sequence of its text."""

import logging
import os
import random
import resource
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets
from helpers import mostly_slow
from tiny.processes import forked
from tiny.texts import TEXT

from hf_nasbert.data import DataArguments, MaskedBatches, load_corpus, read_rows, train_tokenizer
from hf_nasbert.data import cache as cache_room
from hf_nasbert.data import corpus as corpus_room
from hf_nasbert.data.cache import find_sealed, open_arrow, read_sealed, write_sealed_bytes
from hf_nasbert.writing import WriteError

KINDS = ("text", "split", "packed", "vocabularies")


def load(folder):
    """A small corpus, with everything that is cached on the way."""
    corpus = load_corpus(
        DataArguments(
            train_files=[str(TEXT)], sample_by="paragraph", vocab_size=300, max_seq_length=16, cache_dir=str(folder)
        )
    )
    return corpus.train["input_ids"][:], corpus.dev["input_ids"][:], corpus.tokenizer.get_vocab()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cache, and what was loaded with it."""
    folder = tmp_path_factory.mktemp("cache")
    return folder, load(folder)


@pytest.fixture
def copy(made, tmp_path):
    """A copy of the cache, by the names of its folders."""
    shutil.copytree(made[0], tmp_path / "cache")
    return lambda kind: sorted((tmp_path / "cache" / "hf_nasbert" / kind).glob("*"))


def cut(content):
    return content[: len(content) // 2]


def flipped(content, place=0.5):
    at = int(len(content) * place)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGES = {
    "empty": lambda content: b"",
    "half": cut,
    "one byte short": lambda content: content[:-1],
    "without its seal": lambda content: content[: -cache_room._SEAL.size],
    "a byte more": lambda content: content + b"\0",
    "a bit flipped": flipped,
    "a bit of the first bytes": lambda content: flipped(content, 0.0),
    "the second half zeros": lambda content: cut(content) + bytes(len(content) - len(content) // 2),
    "the tail zeros": lambda content: content[:-512] + bytes(512),
    "512 bytes zeros": lambda content: content[:100] + bytes(512) + content[612:],
    "all zeros": lambda content: bytes(len(content)),
    "a seal of other rows": lambda content: content[:-40] + bytes([content[-40] ^ 1]) + content[-39:],
    "a seal of another size": lambda content: content[:-48] + bytes([content[-48] ^ 1]) + content[-47:],
    "a seal of another checksum": lambda content: flipped(content, 1 - 1 / len(content)),
    "another file": lambda content: b"not a cached file at all, but long enough to have had a seal, once upon a time",
}


class TestDamage:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("damage", mostly_slow(DAMAGES, 4))
    def test_is_named_set_aside_and_made_again(self, copy, made, tmp_path, caplog, kind, damage):
        path = copy(kind)[-1]
        whole = path.read_bytes()
        path.write_bytes(DAMAGES[damage](whole))
        damaged = path.read_bytes()
        assert load(tmp_path / "cache") == made[1]
        said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert len(said) == 1
        assert f"the cached file {path} is damaged (" in said[0]
        assert path.read_bytes() == whole
        aside = [other for other in copy(kind) if ".damaged-" in other.name]
        assert [other.read_bytes() for other in aside] == [damaged]
        assert aside[0].name in said[0]
        caplog.clear()
        assert load(tmp_path / "cache") == made[1]
        assert not caplog.records

    @pytest.mark.parametrize("kind", ["split", "packed"])
    def test_two_files_that_changed_places(self, copy, made, tmp_path, caplog, kind):
        one, other = copy(kind)
        contents = other.read_bytes(), one.read_bytes()
        for path, content in zip((one, other), contents, strict=True):
            path.write_bytes(content)
        assert load(tmp_path / "cache") == made[1]
        assert len(caplog.records) == 2

    @pytest.mark.parametrize("odd", ["folder", "pipe", "link to nothing", "link to another"])
    def test_something_else_in_its_place(self, copy, made, tmp_path, odd):
        path = copy("packed")[0]
        other = copy("packed")[1]
        path.unlink()
        match odd:
            case "folder":
                path.mkdir()
                (path / "mine").touch()
            case "pipe":
                os.mkfifo(path)
            case "link to nothing":
                path.symlink_to(tmp_path / "nowhere")
            case _:
                path.symlink_to(other)
        assert load(tmp_path / "cache") == made[1]
        assert path.is_file()

    def test_rows_of_labels_too(self, tmp_path, caplog):
        table = tmp_path / "a.csv"
        table.write_text("text,label\n" + "".join(f"text {number},{number % 2}\n" for number in range(100)))
        rows = read_rows(table, tmp_path / "cache")[:]
        (path,) = (tmp_path / "cache").rglob("*.arrow")
        path.write_bytes(DAMAGES["the second half zeros"](path.read_bytes()))
        assert read_rows(table, tmp_path / "cache")[:] == rows
        assert str(path) in caplog.text

    def test_a_process_that_has_it_mapped_goes_on(self, copy, tmp_path):
        path = copy("packed")[0]
        mapped = Dataset.from_file(str(path))
        before = mapped["input_ids"][:]
        with path.open("r+b") as file:  # behind what is mapped, so that the check alone sees it
            file.seek(-1, os.SEEK_END)
            file.write(b"\xff" if path.read_bytes()[-1] != 0xFF else b"\0")
        load(tmp_path / "cache")
        assert mapped["input_ids"][:] == before

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    @pytest.mark.parametrize("kind", KINDS)
    def test_an_unreadable_file_is_one_error(self, copy, tmp_path, kind):
        path = copy(kind)[0]
        path.chmod(0)
        with pytest.raises(PermissionError, match=r"cannot be read \(Permission denied\)") as caught:
            load(tmp_path / "cache")
        assert str(path) in str(caught.value)
        assert path.exists()

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_failing_disk_is_one_error(self, copy, tmp_path, monkeypatch, kind):
        path = copy(kind)[0]
        compare = cache_room._compare

        def failing(descriptor, name):
            if name == path.name:
                raise OSError(5, os.strerror(5))
            return compare(descriptor, name)

        monkeypatch.setattr(cache_room, "_compare", failing)
        with pytest.raises(OSError, match=r"cannot be read \(Input/output error\)") as caught:
            load(tmp_path / "cache")
        assert str(caught.value).startswith(f"the cached file {path} cannot be read")

    def test_what_cannot_be_set_aside_is_one_error(self, tmp_path, monkeypatch):
        path = tmp_path / "a.arrow"
        path.write_bytes(b"damaged")

        def refuse(*_):
            raise OSError(30, os.strerror(30))

        monkeypatch.setattr(Path, "rename", refuse)
        with pytest.raises(WriteError, match=r"a\.arrow \(Read-only file system\): it is damaged \(it has 7 bytes\)"):
            find_sealed(path)

    def test_a_disk_that_gives_back_other_bytes_is_one_error(self, tmp_path, monkeypatch):
        monkeypatch.setattr(cache_room._Sealing, "seal", lambda *_: bytes(cache_room._SEAL.size))
        with pytest.raises(OSError, match=r"a\.arrow was written 3 times and came back damaged"):
            open_arrow(tmp_path / "a.arrow", lambda sink: corpus_room.write_arrow(["text"], sink))

    def test_what_arrow_cannot_read_is_one_error(self, tmp_path):
        with pytest.raises(
            OSError, match=r"the cached file .*a\.arrow is whole, but cannot be read \(.*\): delete it"
        ):
            open_arrow(tmp_path / "a.arrow", lambda sink: sink.write(b"no Arrow"))

    def test_a_wrong_number_of_rows_is_one_error(self, tmp_path):
        def write(sink):
            return corpus_room.write_arrow(["one", "two"], sink) + 1

        with pytest.raises(OSError, match=r"a\.arrow gives 2 rows, and 3 were written"):
            open_arrow(tmp_path / "a.arrow", write)


class TestSeal:
    def test_content_comes_back(self, tmp_path):
        for content in (b"", b"x", random.Random(0).randbytes(3 << 20)):
            write_sealed_bytes(tmp_path / "a", content)
            assert read_sealed(tmp_path / "a") == content

    def test_a_cache_may_be_moved(self, made, tmp_path, caplog, monkeypatch):
        shutil.copytree(made[0], tmp_path / "elsewhere")
        monkeypatch.setattr(corpus_room, "_pack", None)  # nothing is made again
        assert load(tmp_path / "elsewhere") == made[1]
        assert not caplog.records

    def test_what_was_cached_without_a_seal_is_made_again(self, tmp_path):
        path = tmp_path / "a.arrow"
        with path.open("wb") as file:
            corpus_room.write_arrow(["old"], file)
        found = open_arrow(path, lambda sink: corpus_room.write_arrow(["new", "text"], sink))
        assert found["text"][:] == ["new", "text"]

    def test_every_file_is_read_once(self, made, monkeypatch):
        seen = []
        compare = cache_room._compare
        monkeypatch.setattr(cache_room, "_compare", lambda file, name: (seen.append(name), compare(file, name))[1])
        load(made[0])
        files = sorted(path.name for path in made[0].rglob("*") if path.is_file() and ".damaged-" not in path.name)
        assert sorted(seen) == files

    def test_a_write_that_fails_leaves_nothing_and_names_the_file(self, tmp_path, monkeypatch):
        def full(_):
            raise OSError(28, os.strerror(28))

        monkeypatch.setattr("hf_nasbert.writing.os.fsync", full)
        with pytest.raises(WriteError, match=r"cannot write .*/text/.*arrow \(No space left on device\)"):
            load(tmp_path)
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    def test_no_file_may_grow_beyond_any_size(self, made, tmp_path):
        """Real failures of real writes: files, scratch files, maps of them. Then there is room, and all is right."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        largest = max(path.stat().st_size for path in made[0].rglob("*.arrow"))
        for limit in (1, 100, 1_000, largest // 4, largest // 2, largest - 1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                with pytest.raises(WriteError, match=r"cannot write .*/hf_nasbert/.* \(File too large\)"):
                    load(tmp_path / str(limit))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert not list(tmp_path.rglob("*.unfinished"))
            assert load(tmp_path / str(limit)) == made[1]

    def test_a_full_disk_under_a_scratch_file_is_named(self, tmp_path, monkeypatch):
        class Full:
            def write(self, _):
                raise OSError(28, os.strerror(28))

            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

        monkeypatch.setattr("hf_nasbert.writing.TemporaryFile", lambda dir: Full())
        with pytest.raises(WriteError, match=r"cannot write .*/split \(No space left on device\): make room there"):
            load(tmp_path)


class TestAtOnce:
    @pytest.mark.parametrize("damaged", [False, True])
    def test_all_end_well(self, tmp_path, damaged):
        """Four find the same file missing or damaged at the same moment, fifteen times."""
        start, texts = threading.Barrier(4), [f"text {number}" for number in range(50)]

        def work(path):
            start.wait()
            return open_arrow(path, lambda sink: corpus_room.write_arrow(texts, sink))["text"][:]

        with ThreadPoolExecutor(4) as threads:
            for number in range(15):
                path = tmp_path / f"{number}.arrow"
                if damaged:
                    path.write_bytes(b"damaged" * 30)
                assert list(threads.map(work, [path] * 4)) == [texts] * 4
        assert len(list(tmp_path.glob("*.damaged-*"))) == 15 * damaged

    def test_the_second_does_not_rename_what_the_first_has_made(self, tmp_path, monkeypatch):
        path = tmp_path / "a"
        path.write_bytes(b"damaged" * 20)
        compare = cache_room._compare

        def slow(descriptor, name):
            found = compare(descriptor, name)
            path.rename(tmp_path / "aside of the first")
            write_sealed_bytes(path, b"whole")
            return found

        monkeypatch.setattr(cache_room, "_compare", slow)
        assert find_sealed(path) is None
        monkeypatch.undo()
        assert read_sealed(path) == b"whole"
        assert not list(tmp_path.glob("*.damaged-*"))

    @pytest.mark.slow
    def test_two_processes_that_find_the_same_damage(self, copy, made, tmp_path):
        for kind in KINDS:
            path = copy(kind)[-1]
            path.write_bytes(cut(path.read_bytes()))

        def load_both():
            assert load(tmp_path / "cache") == made[1]

        processes = [forked(load_both) for _ in range(2)]
        for process in processes:
            process.join(120)
            assert process.exitcode == 0


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([TEXT.read_text(encoding="utf-8")], 300)


@pytest.fixture(scope="module")
def ids():
    ids = np.random.default_rng(0).integers(5, 200, (5_000, 16))
    ids[:, 0] = 2
    return ids


class TestDigest:
    @staticmethod
    def content(dataset, tokenizer):
        return MaskedBatches(dataset, tokenizer, batch_size=4, seed=0).describe()["content"]

    def test_it_is_of_every_sequence(self, ids, tokenizer):
        whole = self.content(Dataset.from_dict({"input_ids": ids}), tokenizer)
        for row in (1, 4_095, 4_096, 4_998):
            other = ids.copy()
            other[row, 7] ^= 1
            assert self.content(Dataset.from_dict({"input_ids": other}), tokenizer) != whole
        others = [ids[::-1], ids[:-1], ids.reshape(2_500, 32), np.concatenate([ids[1:], ids[:1]])]
        found = {self.content(Dataset.from_dict({"input_ids": other}), tokenizer) for other in others}
        assert len(found | {whole}) == 5

    def test_it_is_of_the_content_alone(self, ids, tokenizer, tmp_path):
        in_memory = Dataset.from_dict({"input_ids": ids.astype(np.int32)})
        in_memory.save_to_disk(tmp_path / "disk", num_shards=3)
        same = [
            Dataset.from_dict({"input_ids": ids}),
            Dataset.load_from_disk(str(tmp_path / "disk")),
            concatenate_datasets([in_memory.select(range(7)), in_memory.select(range(7, len(ids)))]),
            in_memory.select(list(range(len(ids)))[::-1]).select(list(range(len(ids)))[::-1]),
            Dataset.from_dict({"input_ids": ids.astype(np.int32), "more": ["x"] * len(ids)}),
        ]
        assert {self.content(dataset, tokenizer) for dataset in same} == {self.content(in_memory, tokenizer)}

    def test_it_is_read_once(self, ids, tokenizer, monkeypatch):
        batches = MaskedBatches(Dataset.from_dict({"input_ids": ids}), tokenizer, batch_size=4, seed=0)
        batches.describe()
        monkeypatch.setattr("datasets.Dataset.iter", None)
        batches.describe()

    def test_an_edit_of_one_document_shows(self, tmp_path, tokenizer):
        tokenizer.save_pretrained(tmp_path / "tokenizer")
        found = []
        for word in ("seven", "eight"):
            text = tmp_path / f"{word}.txt"
            rows = [f"A document about the number {number}." for number in range(3_000)]
            rows[1_234] = f"A document about the number {word}."
            text.write_text("\n".join(rows))
            corpus = load_corpus(
                DataArguments(
                    train_files=[str(text)], sample_by="line", tokenizer_name=str(tmp_path / "tokenizer"),
                    max_seq_length=16, cache_dir=str(tmp_path), validation_fraction=0.01,
                )
            )  # fmt: skip
            found.append(MaskedBatches(corpus.train, corpus.tokenizer, batch_size=4, seed=0).describe())
        assert found[0]["content"] != found[1]["content"]
