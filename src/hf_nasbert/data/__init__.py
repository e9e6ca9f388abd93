"""Text and labelled data in, batches out: every source named and pinned, every draw a function of (seed, step)."""

from hf_nasbert.data.arguments import DataArguments
from hf_nasbert.data.batches import MaskedBatches, digest_of, fixed_masked_batches
from hf_nasbert.data.corpus import Corpus, load_corpus, load_held_out, pack_texts, split_dev
from hf_nasbert.data.named import load_splits
from hf_nasbert.data.packaged import PACKAGED_SOURCES, load_labelled
from hf_nasbert.data.rows import read_rows
from hf_nasbert.data.sources import load_text
from hf_nasbert.data.tokenization import load_tokenizer, train_tokenizer

__all__ = [
    "PACKAGED_SOURCES",
    "Corpus",
    "DataArguments",
    "MaskedBatches",
    "digest_of",
    "fixed_masked_batches",
    "load_corpus",
    "load_held_out",
    "load_labelled",
    "load_splits",
    "load_text",
    "load_tokenizer",
    "pack_texts",
    "read_rows",
    "split_dev",
    "train_tokenizer",
]
