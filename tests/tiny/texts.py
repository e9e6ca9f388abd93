"""A text of some paragraphs, how it is read, and tokenizers."""

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import BertTokenizer

from hf_nasbert.data import DataArguments

TESTS = Path(__file__).parents[1]
TEXT = TESTS / "data" / "tiny.txt"
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the film was good bad long short and not very . , a plot".split()


def text_arguments(cache_dir: Path | None = None, **changes: Any) -> DataArguments:
    """The paragraphs of `TEXT` in sequences of 16 tokens of a vocabulary of 300, three in ten for validation."""
    settings = {
        "train_files": [str(TEXT)], "sample_by": "paragraph", "vocab_size": 300, "max_seq_length": 16,
        "validation_fraction": 0.3, "cache_dir": cache_dir and str(cache_dir),
    }  # fmt: skip
    return DataArguments(**settings | changes)


def tiny_tokenizer(words: Sequence[str] = WORDS) -> BertTokenizer:
    """A BERT tokenizer of these words."""
    return BertTokenizer(vocab={word: index for index, word in enumerate(words)}, model_max_length=32)


def save_tokenizer_with_padding_at_one(folder: Path) -> str:
    """Write a tokenizer whose first token begins sentences and whose second one is padding, as RoBERTa's.

    It knows every Latin letter, so that it can cut any English text.
    """
    first = ["[CLS]", "[PAD]"]
    letters = [letter for letter in string.ascii_lowercase if letter not in WORDS]
    pieces = [*letters, *(f"##{letter}" for letter in string.ascii_lowercase)]
    tiny_tokenizer([*first, *(word for word in WORDS if word not in first), *pieces]).save_pretrained(folder)
    return str(folder)
