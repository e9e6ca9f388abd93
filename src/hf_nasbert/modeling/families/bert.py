"""Children that are a stock BERT, and back: names and sizes that both share, for every head."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from hf_nasbert.modeling import (
    NasBertConfig,
    NasBertForMaskedLM,
    NasBertForMultipleChoice,
    NasBertForQuestionAnswering,
    NasBertForSequenceClassification,
    NasBertForTokenClassification,
    NasBertModel,
)
from hf_nasbert.space import SKIP, operator_kind, operator_width

_STOCK_OF: dict[type[PreTrainedModel], type[PreTrainedModel]] = {
    NasBertModel: BertModel,
    NasBertForMaskedLM: BertForMaskedLM,
    NasBertForSequenceClassification: BertForSequenceClassification,
    NasBertForTokenClassification: BertForTokenClassification,
    NasBertForQuestionAnswering: BertForQuestionAnswering,
    NasBertForMultipleChoice: BertForMultipleChoice,
}
"""Every class of a child, and the stock class of the same head."""

# Beginnings of a stock BERT's weight names, and of the same weights' names in a child, where they differ.
_NAMES_OUTSIDE_LAYERS = {
    "bert.": "nasbert.",
    "cls.predictions.transform.": "lm_head.",
    "cls.predictions.": "lm_head.",
}
_SHARED_WITH_BERT = (
    "vocab_size",
    "hidden_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
    "tie_word_embeddings",
)
_IN_TURN = ("attention", "ffn")  # the two sub-layers of a BERT layer

_Model = TypeVar("_Model", bound=PreTrainedModel)


def bert_blocks(operators: Sequence[str], hidden_size: int) -> list[int]:
    """The blocks of a child that become BERT's layers, attention and ffn in turn; skips are left out.

    Raises:
        ValueError: If the child is no BERT, naming the first block in the way, and why.
    """
    blocks: list[int] = []
    for block, name in enumerate(operators):
        kind, width = operator_kind(name), operator_width(name) or hidden_size
        if kind == SKIP:
            continue
        expected = _IN_TURN[len(blocks) % 2]
        if kind not in _IN_TURN:
            reason = f"BERT has no {kind}"
        elif width != hidden_size:
            reason = f"it is {width} wide between states of {hidden_size}, and BERT has one width"
        elif kind != expected:
            reason = f"BERT alternates attention and ffn, so {expected} would have to stand here"
        else:
            blocks.append(block)
            continue
        raise ValueError(f"this child is no BERT: block {block} ({name}): {reason}")
    if not blocks:
        raise ValueError("this child is no BERT: all its blocks are skips")
    if len(blocks) % 2:
        raise ValueError(f"this child is no BERT: block {blocks[-1]} (attention): BERT's last operator is an ffn")
    return blocks


def to_bert(child: PreTrainedModel) -> PreTrainedModel:
    """Turn a child that alternates attention and ffn into the stock BERT that it is, with equal outputs.

    Skips are left out. Every head becomes BERT's own: `NasBertForMaskedLM` a `BertForMaskedLM`, and so on. The result
    needs no code of ours.

    Raises:
        ValueError: If the child is no BERT, naming the first block in the way, or its embeddings, and why.
    """
    config = child.config
    stock = next((theirs for ours, theirs in _STOCK_OF.items() if isinstance(child, ours)), None)
    if stock is None or not isinstance(config, NasBertConfig):
        raise ValueError(f"expected a child of one of the classes NasBert..., got a {type(child).__name__}")
    blocks = bert_blocks(config.operators, config.hidden_size)
    if config.word_embedding_size != config.hidden_size:
        raise ValueError(
            f"this child is no BERT: its embeddings are {config.word_embedding_size} wide and its blocks "
            f"{config.hidden_size}, and BERT's embeddings are as wide as its layers"
        )
    # BERT asks for two labels where answers have a start and an end.
    labels = () if stock is BertForQuestionAnswering else ("id2label", "label2id", "problem_type")
    bert_config = BertConfig(
        **{name: getattr(config, name) for name in (*_SHARED_WITH_BERT, *labels)},
        num_hidden_layers=len(blocks) // 2,
        num_attention_heads=config.hidden_size // config.head_size(config.hidden_size),
        intermediate_size=config.ffn_ratio * config.hidden_size,
    )
    make = partial(BertModel, add_pooling_layer=child.pooler is not None) if stock is BertModel else stock
    bert = build_like(make, bert_config, like=child)
    state = child.state_dict()
    if stock is BertForMaskedLM:
        # Untied, BERT still has this second bias, which nothing reads.
        state.setdefault("lm_head.bias", state["lm_head.decoder.bias"])
    bert.load_state_dict({name: state[_child_name(name, blocks)] for name in bert.state_dict()}, strict=True)
    return bert


def native_form(child: PreTrainedModel) -> tuple[PreTrainedModel, str | None]:
    """The stock BERT that a child is, if it is one; otherwise the child itself, and the reason why it is none.

    Returns:
        `(a Bert... model, None)`, which anybody loads without `trust_remote_code`, or `(child, reason)`. A model that
        is a stock BERT already comes back as it is.
    """
    if type(child) in _STOCK_OF.values():
        return child, None
    try:
        return to_bert(child), None
    except ValueError as error:
        return child, str(error)


def from_bert(bert: BertForMaskedLM) -> NasBertForMaskedLM:
    """Turn a stock BERT into the child that it is: attention and ffn in turn, with equal logits.

    The way back, `to_bert`, gives the same weights bit for bit.

    Raises:
        ValueError: If the model is not a plain BERT encoder, or its sizes are none a child can have.
    """
    config = bert.config
    if not isinstance(bert, BertForMaskedLM):
        raise ValueError(f"expected a BertForMaskedLM, got a {type(bert).__name__}")
    if config.is_decoder or config.add_cross_attention:
        raise ValueError("this BERT is a decoder: a child's attention sees every token")
    if config.intermediate_size % config.hidden_size:
        raise ValueError(
            f"intermediate_size {config.intermediate_size} is no whole multiple of hidden_size {config.hidden_size}: "
            "a child's ffn widens by a whole ffn_ratio"
        )
    child_config = NasBertConfig(
        **{name: getattr(config, name) for name in _SHARED_WITH_BERT},
        operators=("attention", "ffn") * config.num_hidden_layers,
        ffn_ratio=config.intermediate_size // config.hidden_size,
        attention_head_size=config.hidden_size // config.num_attention_heads,
    )
    child = build_like(NasBertForMaskedLM, child_config, like=bert)
    blocks = bert_blocks(child_config.operators, child_config.hidden_size)
    state = {_child_name(name, blocks): tensor for name, tensor in bert.state_dict().items()}
    if not config.tie_word_embeddings:
        del state["lm_head.bias"]  # nothing reads it there
    child.load_state_dict(state, strict=True)
    return child


def build_like(
    model_class: Callable[[PreTrainedConfig], _Model], config: PreTrainedConfig, like: PreTrainedModel
) -> _Model:
    """A model on the device, in the precision and with the attention kernels of another, to be filled with weights."""
    config._attn_implementation = like.config._attn_implementation
    with torch.random.fork_rng(devices=[]):  # its random weights are thrown away: nobody's draws may depend on them
        model = model_class(config)
    nn.Module.to(model, device=like.device, dtype=like.dtype)
    model.train(False)
    return model


def _child_name(name: str, blocks: Sequence[int]) -> str:
    """Where a child keeps the weight that BERT calls `name`."""
    match = re.fullmatch(r"(bert\.)?encoder\.layer\.(\d+)\.(.+)", name)
    if match:
        prefix, layer, part = "nasbert." if match[1] else "", int(match[2]), match[3]
        attention = part.startswith("attention.")
        block = blocks[2 * layer + (0 if attention else 1)]
        return f"{prefix}encoder.blocks.{block}.operator.{part.removeprefix('attention.')}"
    for theirs, ours in _NAMES_OUTSIDE_LAYERS.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name  # heads are named alike
