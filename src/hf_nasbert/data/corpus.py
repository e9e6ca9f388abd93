"""Documents → a train and a dev set of packed sequences of one length, in shards cached by content.

No step holds the corpus: texts, parts and sequences lie in memory-mapped Arrow files and are read as streams.
"""

import hashlib
import io
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasets import Dataset, concatenate_datasets
from datasets.utils import tqdm  # heeds datasets.disable_progress_bars
from transformers import PreTrainedTokenizerBase

from hf_nasbert.data.arguments import DataArguments
from hf_nasbert.data.cache import ContentDigest, cache_folder, find_arrow, open_arrow, write_sealed
from hf_nasbert.data.foreign_tokenizers import naming_panics
from hf_nasbert.data.given import GivenTexts
from hf_nasbert.data.sources import load_text, write_arrow
from hf_nasbert.data.tokenization import load_tokenizer, split_gigantic, tokenizer_digest
from hf_nasbert.data.vocabulary import tell_unknown
from hf_nasbert.writing import scratch_file

Places = npt.NDArray[np.uint64]

_SPLITTING = "2"  # parts of the caches' keys: to be raised whenever splitting or packing changes what comes out
_PACKING = "3"
_GROUP_CHARACTERS = 1 << 22
_SHARD_CHARACTERS = 1 << 25  # the most, in whole groups, that an interruption makes one tokenise again: half a minute
_FLUSH_TOKENS = 1 << 20
_STRIDE = 1 << 20  # documents whose places are looked at in one go
_NO_PLACES = np.empty(0, dtype=np.uint64)


class Corpus(NamedTuple):
    """Packed text with the tokenizer it was packed with."""

    train: Dataset
    dev: Dataset
    tokenizer: PreTrainedTokenizerBase


def load_corpus(arguments: DataArguments) -> Corpus:
    """Load the text, hold out the dev documents, make the tokenizer (from the train documents) and pack both parts."""
    train, dev = _parts(arguments)
    tokenizer = load_tokenizer(arguments, _Texts(train))
    train, dev = (
        pack_texts(
            part,
            tokenizer,
            arguments.max_seq_length,
            cache_dir=arguments.cache_dir,
            num_proc=arguments.preprocessing_num_workers,
        )
        for part in (train, dev)
    )
    tell_unknown((train, dev), tokenizer, arguments.tokenizer_name)
    return Corpus(train, dev, tokenizer)


def load_held_out(arguments: DataArguments) -> tuple[Dataset, PreTrainedTokenizerBase]:
    """Load the dev part of `load_corpus` alone, and its tokenizer, which must have a name: all that scoring reads.

    The train part, which is most of the text, is not packed.
    """
    given = _given_held_out(arguments)
    dev = _parts(arguments)[1] if given is None else given
    tokenizer = load_tokenizer(arguments)
    packed = pack_texts(
        dev,
        tokenizer,
        arguments.max_seq_length,
        cache_dir=arguments.cache_dir,
        num_proc=arguments.preprocessing_num_workers,
    )
    tell_unknown([packed], tokenizer, arguments.tokenizer_name)
    return packed, tokenizer


def _parts(arguments: DataArguments) -> tuple[Dataset, Dataset]:
    """The documents to train on, and those to hold out."""
    given = _given_held_out(arguments)
    if given is not None:
        return load_text(arguments), given
    return split_dev(
        load_text(arguments), arguments.validation_fraction, arguments.data_seed, cache_dir=arguments.cache_dir
    )


def _given_held_out(arguments: DataArguments) -> Dataset | None:
    """The documents that were given to be held out, if any were."""
    return arguments.held_out if isinstance(arguments, GivenTexts) and arguments.is_given else None


def split_dev(
    dataset: Dataset, fraction: float = 0.05, seed: int = 0, *, cache_dir: str | Path | None = None
) -> tuple[Dataset, Dataset]:
    """Split documents into train and dev, each in an Arrow file of its own, found again by content.

    A document's side follows from a hash of its text (case and spaces aside) and the seed. So copies of one text stay
    on one side, the dev set never overlaps the train set, and the order of the documents does not matter.

    Args:
        dataset: Documents in a column "text".
        fraction: Share of the distinct documents to hold out; at least one is.
        seed: Another seed holds out others.
        cache_dir: Folder of the Arrow files; by default within the cache of the datasets library.

    Raises:
        ValueError: If there are not two different documents.
    """
    folder = cache_folder(cache_dir, "split")
    digest = ContentDigest(_SPLITTING, fraction, seed)
    # Eight bytes a document are little, but of documents of a line each not little enough to be held.
    with scratch_file(folder) as file:
        for text in _Texts(dataset):
            digest.add(text)
            file.write(_place(text, seed))
        file.flush()
        places = np.memmap(file, dtype="<u8", mode="r", shape=(len(dataset),)) if len(dataset) else _NO_PLACES
        last = cache(lambda: _last_dev_place(places, fraction, folder))  # needed only where a part is to be made

        def write(sink: io.RawIOBase, is_dev: bool) -> int:
            texts = zip(_Texts(dataset), places, strict=True)
            return write_arrow((text for text, place in texts if (place <= last()) == is_dev), sink)

        train, dev = (
            open_arrow(folder / f"{digest.key()}-{part}.arrow", partial(write, is_dev=part == "dev"))
            for part in ("train", "dev")
        )
    return train, dev


def _last_dev_place(places: Places, fraction: float, folder: Path) -> int:
    """The place up to which documents are held out."""
    with scratch_file(folder) as file:
        # Written and not assigned to a map of an empty file: on a full disk that would end Python by a signal.
        for start in range(0, len(places), _STRIDE):
            file.write(places[start : start + _STRIDE].tobytes())
        file.flush()
        ordered = np.memmap(file, dtype="<u8", mode="r+", shape=places.shape) if len(places) else places
        ordered.sort()
        num_distinct = sum(map(len, _distinct(ordered)))
        if num_distinct < 2:
            raise ValueError(
                f"{len(places)} documents with {num_distinct} different text(s) cannot be split into train and dev: "
                "give more text, or cut it finer (sample_by)"
            )
        rest = min(max(1, round(num_distinct * fraction)), num_distinct - 1)
        for part in _distinct(ordered):
            if rest <= len(part):
                return int(part[rest - 1])
            rest -= len(part)
    raise AssertionError("more documents are held out than there are")


def _distinct(ordered: Places) -> Iterator[Places]:
    """The different numbers among ordered ones, part by part."""
    last = None
    for start in range(0, len(ordered), _STRIDE):
        part = np.unique(ordered[start : start + _STRIDE])
        yield part[1:] if part[0] == last else part
        last = part[-1]


class _Texts:
    """The documents of a dataset, to be read any number of times and never held all at once."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset.select_columns(["text"]).with_format("arrow")

    def __iter__(self) -> Iterator[str]:
        for table in self.dataset.iter(batch_size=1000):  # ten times as fast as row by row
            for chunk in table["text"].chunks:
                # Documents may be books: as Python's strings they come one by one.
                yield from (text.as_py() for text in chunk)


def _place(text: str, seed: int) -> bytes:
    """A number of 64 bits, little-endian, that equal documents share."""
    folded = " ".join(text.lower().split())
    return hashlib.blake2b(folded.encode(), digest_size=8, key=str(seed).encode()).digest()[::-1]


def pack_texts(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int,
    *,
    cache_dir: str | Path | None = None,
    num_proc: int | None = None,
) -> Dataset:
    """Tokenise documents, put them one after the other with [SEP] after each, and cut them into full sequences.

    Every sequence begins with [CLS]; none is padded. The end of every thousand documents that does not fill a sequence
    is dropped. The result lies in Arrow files, memory-mapped: shards of some ten megabytes of text, each found again
    by the content of its text and of the tokenizer. So a run that is killed here goes on after the last whole shard.

    Args:
        dataset: Documents in a column "text".
        tokenizer: With [CLS] and [SEP].
        max_seq_length: Tokens of every sequence, [CLS] included.
        cache_dir: Folder of the Arrow files; by default within the cache of the datasets library.
        num_proc: Processes to share the shards; the result does not depend on their number.

    Returns:
        A dataset with the column "input_ids", int32, (T,).

    Raises:
        ValueError: If the text holds no token or does not fill one sequence, or the tokenizer lacks a special token.
    """
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise ValueError(f"the tokenizer {tokenizer.name_or_path!r} lacks [CLS] or [SEP], needed to pack texts")
    if max_seq_length < 4:
        raise ValueError(f"max_seq_length={max_seq_length} leaves no room for text: 4 is the least")
    folder = cache_folder(cache_dir, "packed")
    # With a [SEP] each, this many documents fill a sequence however short they are.
    group = max(1000, max_seq_length)
    shards = [
        _Shard(folder / f"{key}.arrow", start, stop)
        for key, start, stop in _cut(dataset, group, tokenizer_digest(tokenizer), max_seq_length, _PACKING)
    ]
    found = {shard: find_arrow(shard.path) for shard in shards}
    write = partial(_write_sequences, tokenizer=tokenizer, max_seq_length=max_seq_length, group=group)
    tasks = {
        shard: (shard.path, dataset.select(range(shard.start, shard.stop)))
        for shard, rows in found.items()
        if rows is None
    }
    missing = list(tasks.values())
    with _mapper(min(num_proc or 1, len(missing))) as each:
        packed = each(partial(_pack_shard, write=write), missing)
        for _ in tqdm(packed, total=len(missing), desc="Packing texts", unit="shard", disable=not missing):
            pass
    for shard, (path, documents) in tasks.items():
        found[shard] = open_arrow(path, partial(write, documents))
    parts = [rows for rows in found.values() if rows]
    if not parts:
        num_tokens = sum(len(ids) for ids in _encode(_Texts(dataset), tokenizer))
        raise ValueError(
            f"{len(dataset)} documents hold {num_tokens} tokens, which do not fill one sequence of {max_seq_length}: "
            "give more text or a smaller max_seq_length"
        )
    return concatenate_datasets(parts)


class _Shard(NamedTuple):
    """Documents that are packed into one file."""

    path: Path
    start: int
    stop: int


@contextmanager
def _mapper(num_workers: int) -> Iterator[Callable[..., Iterable[None]]]:
    """`map` in this process, or in several; a worker that dies is an error, not a hang."""
    if num_workers < 2:
        yield map
        return
    # Forking this process, which may have used torch or tokenizers' threads, could hang.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(num_workers, mp_context=context) as workers:
        yield workers.map


def _cut(dataset: Dataset, group: int, *settings: object) -> Iterator[tuple[str, int, int]]:
    """Cut documents into shards of whole groups: a key made of their texts and of the settings, first, last + 1."""
    start = size = number = 0
    digest = ContentDigest(*settings)
    for number, text in enumerate(_Texts(dataset), start=1):
        digest.add(text)
        size += len(text)
        if size >= _SHARD_CHARACTERS and number % group == 0:
            yield digest.key(), start, number
            start, size, digest = number, 0, ContentDigest(*settings)
    if number > start:
        yield digest.key(), start, number


def _pack_shard(task: tuple[Path, Dataset], *, write: Callable[[Dataset, io.RawIOBase], int]) -> None:
    """Write the sequences of a shard's documents to its file."""
    path, dataset = task
    write_sealed(path, partial(write, dataset))


def _write_sequences(
    dataset: Dataset, sink: io.RawIOBase, *, tokenizer: PreTrainedTokenizerBase, max_seq_length: int, group: int
) -> int:
    """Write the sequences of documents, and return their number."""
    schema = pa.schema({"input_ids": pa.list_(pa.int32(), max_seq_length)})
    num_sequences = 0
    with pa.ipc.new_stream(sink, schema) as writer:
        for start in range(0, len(dataset), group):
            texts = _Texts(dataset.select(range(start, min(start + group, len(dataset)))))
            for rows in _pack(texts, tokenizer, max_seq_length):
                column = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), max_seq_length)
                writer.write_table(pa.table([column], schema=schema))
                num_sequences += len(rows)
    return num_sequences


def _pack(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, max_seq_length: int
) -> Iterator[npt.NDArray[np.int32]]:
    """The full sequences of one group of documents, (N, T), some megabytes of text at a time."""
    separator = np.array([tokenizer.sep_token_id], dtype=np.int32)
    parts, size = [separator[:0]], 0

    def flush() -> Iterator[npt.NDArray[np.int32]]:
        nonlocal parts, size
        stream = np.concatenate(parts)
        num_sequences = len(stream) // (max_seq_length - 1)
        used = num_sequences * (max_seq_length - 1)
        first = np.full((num_sequences, 1), tokenizer.cls_token_id, dtype=np.int32)
        if num_sequences:
            yield np.concatenate([first, stream[:used].reshape(num_sequences, -1)], axis=1)
        parts, size = [stream[used:]], len(stream) - used

    for ids in _encode(texts, tokenizer):
        if len(ids):
            parts += [ids, separator]
            size += len(ids) + 1
        if size >= _FLUSH_TOKENS:
            yield from flush()
    yield from flush()


def _encode(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[npt.NDArray[np.int32]]:
    """Tokenise documents in groups of some megabytes, so that memory does not grow with their length."""
    options: dict[str, Any] = {
        "add_special_tokens": False,
        "return_attention_mask": False,
        "return_token_type_ids": False,
        "truncation": False,
        "verbose": False,  # documents are longer than the model's inputs on purpose
        "split_special_tokens": True,  # a document that says "[MASK]" speaks of it
    }
    group: list[list[str]] = []
    size = 0

    def flush() -> Iterator[npt.NDArray[np.int32]]:
        with naming_panics(tokenizer):
            ids = tokenizer([piece for pieces in group for piece in pieces], **options)["input_ids"] if group else []
        start = 0
        for pieces in group:
            yield np.array([i for own in ids[start : start + len(pieces)] for i in own], dtype=np.int32)
            start += len(pieces)

    for text in texts:
        group.append(list(split_gigantic(text)))
        size += len(text)
        if size > _GROUP_CHARACTERS:
            yield from flush()
            group, size = [], 0
    yield from flush()
