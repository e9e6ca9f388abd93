"""Documents → a train and a dev set of packed sequences of one length, cached by content."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from hf_nasbert.data.arguments import DataArguments
from hf_nasbert.data.cache import cache_folder, content_digest
from hf_nasbert.data.sources import load_text
from hf_nasbert.data.tokenization import load_tokenizer, split_gigantic, tokenizer_digest

_PACKING = "1"  # part of the cache's key: to be raised whenever packing changes what comes out
_GROUP_CHARACTERS = 1 << 22


class Corpus(NamedTuple):
    """Packed text with the tokenizer it was packed with."""

    train: Dataset
    dev: Dataset
    tokenizer: PreTrainedTokenizerBase


def load_corpus(arguments: DataArguments) -> Corpus:
    """Load the text, hold out the dev documents, make the tokenizer (from the train documents) and pack both parts."""
    train, dev = split_dev(load_text(arguments), arguments.validation_fraction, arguments.data_seed)
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
    return Corpus(train, dev, tokenizer)


def load_held_out(arguments: DataArguments) -> tuple[Dataset, PreTrainedTokenizerBase]:
    """Load the dev part of `load_corpus` alone, and its tokenizer, which must have a name: all that scoring reads.

    The train part, which is most of the text, is not packed.
    """
    _, dev = split_dev(load_text(arguments), arguments.validation_fraction, arguments.data_seed)
    tokenizer = load_tokenizer(arguments)
    packed = pack_texts(
        dev,
        tokenizer,
        arguments.max_seq_length,
        cache_dir=arguments.cache_dir,
        num_proc=arguments.preprocessing_num_workers,
    )
    return packed, tokenizer


def split_dev(dataset: Dataset, fraction: float = 0.05, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Split documents into train and dev.

    A document's side follows from a hash of its text (case and spaces aside) and the seed. So copies of one text stay
    on one side, the dev set never overlaps the train set, and the order of the documents does not matter.

    Args:
        dataset: Documents in a column "text".
        fraction: Share of the distinct documents to hold out; at least one is.
        seed: Another seed holds out others.

    Raises:
        ValueError: If there are not two different documents.
    """
    place = np.fromiter((_place(text, seed) for text in _Texts(dataset)), dtype=np.uint64, count=len(dataset))
    distinct = np.unique(place)
    if len(distinct) < 2:
        raise ValueError(
            f"{len(dataset)} documents with {len(distinct)} different text(s) cannot be split into train and dev: "
            "give more text, or cut it finer (sample_by)"
        )
    num_dev = min(max(1, round(len(distinct) * fraction)), len(distinct) - 1)
    is_dev = place <= distinct[num_dev - 1]
    return dataset.select(np.flatnonzero(~is_dev)), dataset.select(np.flatnonzero(is_dev))


class _Texts:
    """The documents of a dataset, to be read any number of times and never held all at once."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[str]:
        for batch in self.dataset.iter(batch_size=1000):  # ten times as fast as row by row
            yield from batch["text"]


def _place(text: str, seed: int) -> int:
    folded = " ".join(text.lower().split())
    return int.from_bytes(hashlib.blake2b(folded.encode(), digest_size=8, key=str(seed).encode()).digest())


def pack_texts(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int,
    *,
    cache_dir: str | Path | None = None,
    num_proc: int | None = None,
) -> Dataset:
    """Tokenise documents, put them one after the other with [SEP] behind each, and cut them into full sequences.

    Every sequence begins with [CLS]; none is padded. The end of every thousand documents that does not fill a sequence
    is dropped. The result lies in an Arrow file, memory-mapped and found again by the content of the text and of the
    tokenizer.

    Args:
        dataset: Documents in a column "text".
        tokenizer: With [CLS] and [SEP].
        max_seq_length: Tokens of every sequence, [CLS] included.
        cache_dir: Folder of the Arrow file; by default within the cache of the datasets library.
        num_proc: Processes to share the work.

    Returns:
        A dataset with the column "input_ids", int32, (T,).

    Raises:
        ValueError: If the text holds no token or does not fill one sequence, or the tokenizer lacks a special token.
    """
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise ValueError(f"the tokenizer {tokenizer.name_or_path!r} lacks [CLS] or [SEP], needed to pack texts")
    if max_seq_length < 4:
        raise ValueError(f"max_seq_length={max_seq_length} leaves no room for text: 4 is the least")
    fingerprint = content_digest(_Texts(dataset), tokenizer_digest(tokenizer), max_seq_length, _PACKING)

    packed = dataset.map(
        _pack,
        batched=True,
        # With a [SEP] each, this many documents fill a sequence however short they are.
        batch_size=max(1000, max_seq_length),
        fn_kwargs={"tokenizer": tokenizer, "max_seq_length": max_seq_length},
        remove_columns=dataset.column_names,
        features=Features({"input_ids": List(Value("int32"), length=max_seq_length)}),
        cache_file_name=str(cache_folder(cache_dir, "packed") / f"{fingerprint}.arrow"),
        new_fingerprint=fingerprint,
        num_proc=num_proc,
        desc="Packing texts",
    )
    if len(packed) == 0:
        num_tokens = sum(len(ids) for ids in _encode(dataset["text"], tokenizer))
        raise ValueError(
            f"{len(dataset)} documents hold {num_tokens} tokens, which do not fill one sequence of {max_seq_length}: "
            "give more text or a smaller max_seq_length"
        )
    return packed


def _pack(
    batch: dict[str, list[str]], tokenizer: PreTrainedTokenizerBase, max_seq_length: int
) -> dict[str, npt.NDArray[np.int32]]:
    separator = np.array([tokenizer.sep_token_id], dtype=np.int32)
    parts = [part for ids in _encode(batch["text"], tokenizer) if len(ids) for part in (ids, separator)]
    stream = np.concatenate(parts) if parts else separator[:0]
    num_sequences = len(stream) // (max_seq_length - 1)
    body = stream[: num_sequences * (max_seq_length - 1)].reshape(num_sequences, max_seq_length - 1)
    first = np.full((num_sequences, 1), tokenizer.cls_token_id, dtype=np.int32)
    return {"input_ids": np.concatenate([first, body], axis=1)}


def _encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[npt.NDArray[np.int32]]:
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
