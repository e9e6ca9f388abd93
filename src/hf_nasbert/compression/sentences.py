"""The user's text as sentences: held out by document, tokenised, in batches of like length."""

import heapq
import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hf_nasbert.data import split_dev
from hf_nasbert.data.foreign_tokenizers import naming_panics
from hf_nasbert.data.vocabulary import tell_unknown
from hf_nasbert.elastic.batches import INPUTS, LABELS, Batch, digest_of, num_tokens

__all__ = [
    "INPUTS",
    "LABELS",
    "PARTS",
    "Batch",
    "Sentences",
    "as_batches",
    "choose_sentences",
    "choose_varied",
    "cut_sentences",
    "digest_of",
    "load_sentences",
    "num_tokens",
    "split_parts",
    "tokenised",
    "unknown_share",
]

PARTS = ("train", "choosing", "judging")

# Behind the sign that ends a sentence: a space in most scripts, nothing in those that write none.
_ENDS = re.compile(r"(?<=[.!?\u2026\u061f\u06d4\u0964])\s+|(?<=[\u3002\uff01\uff1f])\s*|\n+")
_SHORTEST = 20  # characters; what is shorter, such as the end of an abbreviation, is joined with what follows
_CHARACTERS_OF_A_TOKEN = 4  # about, in most scripts; where a token has fewer, long sentences are cut
_MOST_DOCUMENTS = 16  # that are looked at, for each sentence that is wanted
_FEWEST_OF_A_DOCUMENT = 64  # sentences of a document that are looked at, however many documents there are
_DRAWN = 6  # sentences that are drawn for each one that trains
_FEWEST_PIECES = 4  # a sentence of fewer counts as one of these: else words alone would come first


@dataclass(frozen=True)
class Sentences:
    """Batches of sentences, of other documents in each part.

    Args:
        train: To fit and to train on.
        choosing: To choose children by.
        judging: To report what the chosen child is worth. Nothing is ever chosen by it.
    """

    train: list[Batch]
    choosing: list[Batch]
    judging: list[Batch]


def cut_sentences(document: str) -> Iterator[str]:
    """The sentences of a document, none but the last shorter than 20 characters; spaces are made one.

    >>> list(cut_sentences("Mr. Smith is here. He came today, by the early train."))
    ['Mr. Smith is here. He came today, by the early train.']
    >>> list(cut_sentences("He came today, by train. He will leave again tomorrow!"))
    ['He came today, by train.', 'He will leave again tomorrow!']
    """
    begun = ""
    for piece in _ENDS.split(document):
        begun = " ".join(f"{begun} {piece}".split())
        if len(begun) >= _SHORTEST:
            yield begun
            begun = ""
    if begun:
        yield begun


def choose_sentences(
    documents: Dataset, num_sentences: int, seed: int, *, most_characters: int | None = None
) -> list[str]:
    """Different sentences of as many documents as there are, drawn by a seed: one of each, then a second one, ...

    Args:
        documents: In a column "text".
        num_sentences: Most sentences to give.
        seed: Of which documents, and which of their sentences.
        most_characters: Longer sentences, which would be cut, are taken only where all documents do not have enough
            others.

    Returns:
        Up to `num_sentences` sentences, fewer where the documents hold no more.
    """
    rng = random.Random(seed)
    order = list(range(len(documents)))
    rng.shuffle(order)
    most = max(_FEWEST_OF_A_DOCUMENT, 4 * num_sentences // max(len(order), 1))
    of_documents: list[list[str]] = []
    firsts: set[str] = set()
    for index in order[: _MOST_DOCUMENTS * num_sentences]:
        if len(firsts) == num_sentences:
            break
        found = list(cut_sentences(documents[index]["text"]))
        rng.shuffle(found)
        if found:  # documents may be empty, or copies of each other
            of_documents.append(found[:most])
            if most_characters is None or len(found[0]) <= most_characters:
                firsts.add(found[0])
    chosen: dict[str, None] = {}
    others: dict[str, None] = {}
    for one in _by_turns(of_documents):
        fits = most_characters is None or len(one) <= most_characters
        (chosen if fits else others).setdefault(one)
        if len(chosen) == num_sentences:
            break
    return list(itertools.islice({**chosen, **others}, num_sentences))


def most_characters_of(max_length: int, prompt: str) -> int:
    """Characters of a sentence that fits, with a prompt before it, into so many tokens."""
    return _CHARACTERS_OF_A_TOKEN * max_length - len(prompt)


def _by_turns(of_documents: Sequence[Sequence[str]]) -> Iterator[str]:
    """The first sentence of every document, then every second one, ..."""
    for number in range(max(map(len, of_documents), default=0)):
        yield from (found[number] for found in of_documents if number < len(found))


def choose_varied(
    sentences: Sequence[str], tokenizer: PreTrainedTokenizerBase, num_sentences: int, *, max_length: int = 48
) -> list[str]:
    """Those sentences that together have the most different pieces of the vocabulary, in the order they were chosen.

    One after the other, each time the sentence that brings most: the sum of 1 / (1 + how many chosen sentences have
    it) over its different pieces, by the root of their number. So rare words come in, and frequent ones come again.

    Args:
        sentences: To choose from.
        tokenizer: The base model's.
        num_sentences: Most sentences to give.
        max_length: Tokens of a sentence that count, special ones included.
    """
    with naming_panics(tokenizer):
        rows = tokenizer(list(sentences), truncation=True, max_length=max_length)["input_ids"] if sentences else []
    pieces = [list(dict.fromkeys(row)) for row in rows]
    counts: Counter[int] = Counter()

    def gain(number: int) -> float:
        own = pieces[number]
        return sum(1 / (1 + counts[piece]) for piece in own) / math.sqrt(max(_FEWEST_PIECES, len(own)))

    # What a sentence brings only falls as others are chosen: it is looked at again when it would be the next one.
    waiting = [(-gain(number), number) for number in range(len(pieces))]
    heapq.heapify(waiting)
    chosen: list[str] = []
    while waiting and len(chosen) < num_sentences:
        _, number = waiting[0]
        now = -gain(number)
        heapq.heapreplace(waiting, (now, number))
        if waiting[0] == (now, number):
            heapq.heappop(waiting)
            chosen.append(sentences[number])
            counts.update(pieces[number])
    return chosen


def as_batches(
    sentences: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int = 32,
    max_length: int = 48,
    seed: int = 0,
    seconds: Sequence[str] | None = None,
    labels: Sequence[float] | None = None,
) -> list[Batch]:
    """Tokenised sentences in batches of like length, which saves padding; the batches' order is drawn by a seed.

    Args:
        sentences: The sentences.
        tokenizer: The base model's.
        batch_size: Sentences of a batch; the last one may have fewer.
        max_length: Tokens of a sentence at most, special ones included; what is longer is cut.
        seed: Of the order.
        seconds: The second text of every pair, whose first ones are the sentences.
        labels: The label of every sentence or pair: whole numbers of classes, or floats.

    Raises:
        ValueError: If the tokenizer cuts every sentence into unknown tokens only.
    """
    texts = [list(sentences)] if seconds is None else [list(sentences), list(seconds)]
    with naming_panics(tokenizer):
        made = tokenizer(*texts, truncation=True, max_length=max_length) if sentences else {"input_ids": []}
    rows: list[list[int]] = made["input_ids"]
    types: list[list[int]] | None = None if seconds is None else made.get("token_type_ids")
    special = set(tokenizer.all_special_ids)
    if rows and all(special.issuperset(row) for row in rows):
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} knows no word of the text: give text in the "
            "base model's language"
        )
    # A tokenizer without special tokens makes nothing of some sentences; stable: equal rows keep their order.
    order = sorted((number for number, row in enumerate(rows) if row), key=lambda number: len(rows[number]))
    batches = []
    for start in range(0, len(order), batch_size):
        own = order[start : start + batch_size]
        batch = _padded([rows[number] for number in own], tokenizer)
        if types is not None:
            batch["token_type_ids"] = _padded([types[number] for number in own], tokenizer, padding=0)["input_ids"]
        if labels is not None:
            batch[LABELS] = torch.tensor([labels[number] for number in own])
        batches.append(batch)
    random.Random(seed).shuffle(batches)
    return list(batches)


def tokenised(sentences: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Batch:
    """One batch of sentences, in the order given.

    Args:
        sentences: The sentences.
        tokenizer: The base model's.
        max_length: Tokens of a sentence at most, special ones included; what is longer is cut.
    """
    with naming_panics(tokenizer):
        rows = tokenizer(list(sentences), truncation=True, max_length=max_length)["input_ids"]
    return _padded(rows, tokenizer)


def _padded(
    rows: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase, padding: int | None = None
) -> dict[str, torch.Tensor]:
    padding = tokenizer.pad_token_id or 0 if padding is None else padding
    input_ids = torch.full((len(rows), max(map(len, rows))), padding, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for number, row in enumerate(rows):
        input_ids[number, : len(row)] = torch.tensor(row)
        attention_mask[number, : len(row)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def split_parts(
    documents: Dataset, held_out: float = 0.05, seed: int = 0, *, cache_dir: str | Path | None = None
) -> tuple[Dataset, Dataset, Dataset]:
    """Documents to train on, to choose by and to judge by; arguments and errors are `load_sentences`'s."""
    try:
        rest, judging = split_dev(documents, held_out, seed, cache_dir=cache_dir)
        train, choosing = split_dev(rest, held_out, seed, cache_dir=cache_dir)
    except ValueError as error:
        raise ValueError(
            f"the text has {len(documents)} document(s), and three different ones are needed, to train on, to choose "
            "by and to judge by: give more text, or cut it finer (sample_by)"
        ) from error
    return train, choosing, judging


def load_sentences(
    documents: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    num_train: int = 8000,
    num_choosing: int = 192,
    num_judging: int = 512,
    held_out: float = 0.05,
    batch_size: int = 32,
    max_length: int = 20,
    seed: int = 0,
    prompt: str = "",
    varied: bool = True,
    cache_dir: str | Path | None = None,
) -> Sentences:
    """Sentences to train on, to choose by and to judge by, of different documents.

    A document's part follows from a hash of its text (`split_dev`), so that copies of one text are in one part.
    Sentences that fit into `max_length` tokens, by their characters, come first: longer ones are cut. To train on,
    six times as many are drawn, and the most varied of them are taken (`choose_varied`): those that choose and judge
    are as the text is.

    Args:
        documents: In a column "text", as `hf_nasbert.data.load_text` gives them.
        tokenizer: The base model's.
        num_train: Most sentences to train on.
        num_choosing: Most sentences to choose by.
        num_judging: Most sentences to judge by.
        held_out: Share of the documents to choose by, and of the rest to judge by.
        batch_size: Sentences of a batch.
        max_length: Tokens of a sentence and the prompt at most.
        seed: Of the parts, of the sentences and of the batches' order.
        prompt: What the base model's SentenceTransformer puts before every sentence.
        varied: Whether to train on the most varied sentences, and not on those drawn.
        cache_dir: Folder of the parts' Arrow files; by default within the cache of the datasets library.

    Raises:
        ValueError: If there are not three different documents, or the tokenizer knows no word of them.
    """
    parts = split_parts(documents, held_out, seed, cache_dir=cache_dir)
    most = most_characters_of(max_length, prompt)
    counts = (_DRAWN * num_train if varied else num_train, num_choosing, num_judging)
    drawn = [
        choose_sentences(part, count, seed, most_characters=most) for part, count in zip(parts, counts, strict=True)
    ]
    fitting = [sentence for sentence in drawn[0] if len(sentence) <= most]
    drawn[0] = drawn[0][:num_train]
    if varied and len(fitting) > num_train:
        drawn[0] = choose_varied(fitting, tokenizer, num_train, max_length=max_length)
    made = []
    for chosen in drawn:
        sentences = [prompt + sentence for sentence in chosen]
        made.append(as_batches(sentences, tokenizer, batch_size=batch_size, max_length=max_length, seed=seed))
    return Sentences(*made)


def unknown_share(batches: Sequence[Batch], tokenizer: PreTrainedTokenizerBase, name: str) -> float:
    """The share of unknown tokens in batches; it is printed, and refused where it is half of them or more.

    Raises:
        ValueError: If the tokenizer does not know the text's language.
    """
    rows = [
        row[real.bool()].tolist()
        for batch in batches
        for row, real in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    return tell_unknown([Dataset.from_dict({"input_ids": rows})], tokenizer, name, belongs_to_model=True)
