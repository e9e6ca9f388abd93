"""Text and labelled data in, batches out: every source named and pinned, every draw a function of (seed, step)."""

from typing import TYPE_CHECKING

from hf_nasbert.lazy import load_on_first_use

if TYPE_CHECKING:
    from hf_nasbert.data.arguments import DataArguments
    from hf_nasbert.data.batches import MaskedBatches, digest_of, fixed_masked_batches
    from hf_nasbert.data.corpus import Corpus, load_corpus, load_held_out, pack_texts, split_dev
    from hf_nasbert.data.named import load_splits
    from hf_nasbert.data.packaged import PACKAGED_MODELS, PACKAGED_SOURCES, load_labelled, model_folder, packaged_model
    from hf_nasbert.data.rows import read_rows
    from hf_nasbert.data.sources import load_text
    from hf_nasbert.data.tokenization import load_tokenizer, train_tokenizer

__getattr__, __dir__, __all__ = load_on_first_use(__name__)
