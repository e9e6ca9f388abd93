"""Vocabularies trimmed to a text: every kind of tokenizer, models with every head, what is refused."""

import json
import random

import numpy as np
import pytest
from datasets import Dataset
from tiny.texts import TEXT
from tiny.tokenizers import KINDS
from transformers import AutoTokenizer

from hf_nasbert.compression.sentences import cut_sentences
from hf_nasbert.compression.vocabulary import (
    check_trimmable,
    choose_pieces,
    count_pieces,
    cut_otherwise,
    trim_model,
    trim_tokenizer,
)

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
        assert len(KEPT) + len(drawn(KEPT)) / 4 < len(same) < len(rows)
        assert all(expected == after for expected, after in same)
        assert all(number in range(len(smaller)) for _, after in rows for number in after)

    def test_other_words_are_cut_smaller_and_are_not_unknown(self, trimmed):
        tokenizer, kept, smaller = trimmed
        assert cut_otherwise(drawn(KEPT, 0)[: len(KEPT)], tokenizer, smaller, kept) == 0
        assert 0 < cut_otherwise(OTHER, tokenizer, smaller, kept) <= 1
        texts = drawn(OTHER)
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
