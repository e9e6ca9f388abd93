"""The encoder that is to be compressed: loaded, compared with itself as a child, named, and known again."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_nasbert.compression.arguments import CompressArguments
from hf_nasbert.compression.sentences import Batch
from hf_nasbert.configs import loading_errors
from hf_nasbert.data.packaged import PACKAGED_MODELS, PREFIX
from hf_nasbert.elastic.base_models import BaseModel, open_base_model
from hf_nasbert.elastic.encoders import encoder_of, inputs_of, logits_of, mask_of, running
from hf_nasbert.elastic.importance import operators_of
from hf_nasbert.foreign import printable
from hf_nasbert.modeling import NasBertForSequenceClassification
from hf_nasbert.modeling.sentence_transformer import encoder_place

TOLERANCE = 1e-5
"""Largest difference of the full child's outputs from the base model's, in multiples of the largest output above 1."""

_OF_WEIGHTS = (".safetensors", ".bin")
_OF_MODEL = ("config.json", "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt")


def load_base_model(
    arguments: CompressArguments, tokenizer_name: str | None, tokenizer_revision: str | None
) -> BaseModel:
    """Load the encoder that is to be compressed; see `elastic.base_models.open_base_model`.

    Raises:
        ValueError: As there, and if it has blocks whose heads or neurons cannot be weighed, such as convolutions.
    """
    found = open_base_model(
        arguments.base_model,
        revision=arguments.revision,
        trust_remote_code=arguments.trust_remote_code,
        tokenizer_name=tokenizer_name,
        tokenizer_revision=tokenizer_revision,
        lengths={"max_seq_length": arguments.max_seq_length, "latency_shape": arguments.shape[1]},
    )
    operators_of(found.full_child)  # refused before anything is computed by it
    return found


def name_of(base_model: str | Path) -> str:
    """What a caller names a base model by.

    Raises:
        TypeError: If it is a model itself, or something else that is no name.
    """
    if not isinstance(base_model, str | Path):
        raise TypeError(
            f"base_model is a {type(base_model).__name__}: expected the folder that it is saved in, or a name on "
            "the Hub"
        )
    return str(base_model)


def digest_of_base_model(name: str) -> str | None:
    """A digest of a base model in a folder: weights, config, tokenizer; of packaged ones and the Hub's None.

    Raises:
        ForeignFileError: If its modules.json is damaged.
        OSError: If a file cannot be read.
    """
    if name.startswith(PREFIX) or not Path(name).is_dir():
        return None
    place = Path(encoder_place(name)[0])
    content = hashlib.sha256()
    for file in sorted(place.iterdir()) if place.is_dir() else ():
        if file.suffix in _OF_WEIGHTS or file.name in _OF_MODEL:
            with file.open("rb") as raw:
                content.update(f"{file.name} {hashlib.file_digest(raw, 'sha256').hexdigest()}\n".encode())
    return content.hexdigest()


def check_classifier(base: BaseModel) -> NasBertForSequenceClassification:
    """The base model, if it predicts one class or number for a text: what labelled examples are examples of.

    Raises:
        ValueError: If it has no such head, saying how it gets one.
    """
    if not isinstance(base.full_child, NasBertForSequenceClassification):
        name = printable(base.name, 200)
        raise ValueError(
            f"the base model {name} predicts no label of a text ({base.hub_task}), and the examples have one: "
            f"fine-tune it first (hf-nasbert finetune --model {name} with these files), and compress the folder that "
            "this writes, or give text without labels (train_files)"
        )
    return base.full_child


def difference_from(base: BaseModel, batches: Sequence[Batch], arguments: CompressArguments) -> float:
    """The largest difference of the full child's states and logits from the base model's own, at real tokens.

    In multiples of the largest output, where that is above 1.

    Raises:
        ValueError: If it is more than rounding: what would be compressed is not the base model.
    """
    with loading_errors(base.name):
        stock: PreTrainedModel = base.auto_class.from_pretrained(
            base.place,
            dtype=torch.float32,
            revision=base.revision,
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
