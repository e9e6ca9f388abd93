"""The encoder that is given: loaded as the child it is, with its tokenizer and what makes sentence vectors of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_nasbert.compression.arguments import CompressArguments
from hf_nasbert.compression.sentences import Batch
from hf_nasbert.configs import load_config, loading_errors
from hf_nasbert.data.foreign_tokenizers import open_tokenizer
from hf_nasbert.data.packaged import PACKAGED_MODELS, PREFIX, model_folder
from hf_nasbert.data.vocabulary import vocabulary_size
from hf_nasbert.elastic.encoders import encoder_of, inputs_of, logits_of, mask_of, running
from hf_nasbert.foreign import printable
from hf_nasbert.modeling import (
    NasBertForMaskedLM,
    NasBertForQuestionAnswering,
    NasBertForSequenceClassification,
    NasBertForTokenClassification,
    NasBertModel,
)
from hf_nasbert.modeling.elastic import AUTO_CLASSES, load_full_child
from hf_nasbert.modeling.modeling_nasbert import NasBertPreTrainedModel
from hf_nasbert.modeling.sentence_transformer import SentenceModules, read_sentence_modules

TOLERANCE = 1e-5
"""Largest difference of the full child's outputs from the base model's, in multiples of the largest output above 1."""

_HEADS = {
    "ForMaskedLM": NasBertForMaskedLM,
    "ForPreTraining": NasBertForMaskedLM,
    "ForSequenceClassification": NasBertForSequenceClassification,
    "ForTokenClassification": NasBertForTokenClassification,
    "ForQuestionAnswering": NasBertForQuestionAnswering,
}
_TASKS = {
    NasBertModel: "feature-extraction",
    NasBertForMaskedLM: "fill-mask",
    NasBertForSequenceClassification: "text-classification",
    NasBertForTokenClassification: "token-classification",
    NasBertForQuestionAnswering: "question-answering",
}


@dataclass(frozen=True)
class BaseModel:
    """An encoder that is to be made smaller.

    Args:
        name: Folder, or name on the Hub.
        full_child: The child that it is, with its head.
        tokenizer: Its tokenizer.
        modules: What makes a SentenceTransformer of it; `None` where it is none.
    """

    name: str
    full_child: NasBertPreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    modules: SentenceModules | None

    @property
    def hub_task(self) -> str:
        """What the Hub calls that which it does."""
        return "sentence-similarity" if self.modules else _TASKS[type(self.full_child)]

    @property
    def auto_class(self) -> Any:
        """The Auto class that its children load by."""
        return AUTO_CLASSES[type(self.full_child)]


def load_base_model(
    arguments: CompressArguments, tokenizer_name: str | None, tokenizer_revision: str | None
) -> BaseModel:
    """Load an encoder, its tokenizer and what stands around it; the model stays as it is.

    Args:
        arguments: Which one, and whether code of its own may run.
        tokenizer_name: A tokenizer in place of the model's own.
        tokenizer_revision: Its commit or tag.

    Raises:
        ValueError: If it is no encoder of a known family, its files are damaged, its code may not be run, it has no
            tokenizer, or one with more tokens than embeddings; or if it has fewer positions than a sentence may have
            tokens.
        OSError: If there is no such model.
    """
    name = model_folder(arguments.base_model)
    options: dict[str, Any] = {"revision": arguments.revision, "trust_remote_code": arguments.trust_remote_code}
    config = load_config(name, **options)
    modules = read_sentence_modules(name, revision=arguments.revision)
    head = next(iter(getattr(config, "architectures", None) or ()), "")
    child_class = next((made for end, made in _HEADS.items() if head.endswith(end)), NasBertModel)
    full_child = load_full_child(name, NasBertModel if modules else child_class, **options)
    if tokenizer_name is None:
        try:
            tokenizer = open_tokenizer(name, **options)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"the base model {printable(name, 200)} has no tokenizer to cut text with ({error}): put its own "
                "beside it, or name one by tokenizer_name"
            ) from error
    else:
        tokenizer = open_tokenizer(
            tokenizer_name, revision=tokenizer_revision, trust_remote_code=arguments.trust_remote_code
        )
    size, positions = vocabulary_size(tokenizer), full_child.config.max_position_embeddings
    if size > full_child.config.vocab_size:
        raise ValueError(
            f"the tokenizer has {size} tokens and the base model {full_child.config.vocab_size} embeddings: it is "
            "another model's; name the right one by tokenizer_name"
        )
    for setting, length in (("max_seq_length", arguments.max_seq_length), ("latency_shape", arguments.shape[1])):
        if length > positions:
            raise ValueError(f"{setting} asks for {length} tokens, and the base model has {positions} positions")
    return BaseModel(name, full_child, tokenizer, modules)


def difference_from(base: BaseModel, batches: Sequence[Batch], arguments: CompressArguments) -> float:
    """The largest difference of the full child's states and logits from the base model's own, at real tokens.

    In multiples of the largest output, where that is above 1.

    Raises:
        ValueError: If it is more than rounding: what would be compressed is not the base model.
    """
    with loading_errors(base.name):
        stock: PreTrainedModel = base.auto_class.from_pretrained(
            base.name,
            dtype=torch.float32,
            revision=arguments.revision,
            trust_remote_code=arguments.trust_remote_code,
        )
    child, largest, scale = base.full_child, 0.0, 1.0
    device = next(child.parameters()).device
    nn.Module.to(stock, device)
    with running(child), running(stock):
        for batch in batches:
            inputs, mask = inputs_of(batch, device), mask_of(batch, device)
            theirs = stock(**inputs, output_hidden_states=True)
            hidden_states, masks = encoder_of(child).embed(**inputs)
            hidden_states = encoder_of(child).encoder(hidden_states, masks)
            pairs = [(theirs.hidden_states[-1][mask], hidden_states[mask])]
            logits = logits_of(child, hidden_states, mask)
            if logits is not None:
                pairs.append((theirs.logits[mask] if theirs.logits.dim() == 3 else theirs.logits, logits))
            for expected, found in pairs:
                largest = max(largest, float((expected - found).abs().max()))
                scale = max(scale, float(expected.abs().max()))
    if not largest <= TOLERANCE * scale:  # not "greater": NaN must fail
        raise ValueError(
            f"the base model {printable(base.name, 200)} as a child of ours gives other outputs than itself (up to "
            f"{largest:.3g} apart, allowed are {TOLERANCE * scale:.3g}): it is not compressed"
        )
    return largest / scale


def hub_name(arguments: CompressArguments) -> str | None:
    """The name on the Hub that a card gives the base model; none of a folder, whose path is nobody's business."""
    if arguments.base_model_id is not None:
        return arguments.base_model_id
    name = arguments.base_model
    if name.startswith(PREFIX):
        return PACKAGED_MODELS[name.removeprefix(PREFIX)].hub_id
    return None if Path(name).exists() else name
