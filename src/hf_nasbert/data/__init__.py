"""Text and labelled data in, batches out: every source named and pinned, every draw a function of (seed, step)."""

from typing import TYPE_CHECKING

from hf_nasbert.lazy import load_on_first_use

if TYPE_CHECKING:
    from hf_nasbert.data.arguments import DataArguments as DataArguments
    from hf_nasbert.data.batches import MaskedBatches as MaskedBatches
    from hf_nasbert.data.batches import digest_of as digest_of
    from hf_nasbert.data.batches import fixed_masked_batches as fixed_masked_batches
    from hf_nasbert.data.corpus import Corpus as Corpus
    from hf_nasbert.data.corpus import load_corpus as load_corpus
    from hf_nasbert.data.corpus import load_held_out as load_held_out
    from hf_nasbert.data.corpus import pack_texts as pack_texts
    from hf_nasbert.data.corpus import split_dev as split_dev
    from hf_nasbert.data.named import load_splits as load_splits
    from hf_nasbert.data.packaged import PACKAGED_MODELS as PACKAGED_MODELS
    from hf_nasbert.data.packaged import PACKAGED_SOURCES as PACKAGED_SOURCES
    from hf_nasbert.data.packaged import load_labelled as load_labelled
    from hf_nasbert.data.packaged import model_folder as model_folder
    from hf_nasbert.data.packaged import packaged_model as packaged_model
    from hf_nasbert.data.rows import read_rows as read_rows
    from hf_nasbert.data.sources import given_texts as given_texts
    from hf_nasbert.data.sources import load_text as load_text
    from hf_nasbert.data.tokenization import load_tokenizer as load_tokenizer
    from hf_nasbert.data.tokenization import train_tokenizer as train_tokenizer

__getattr__, __dir__, __all__ = load_on_first_use(__name__)
