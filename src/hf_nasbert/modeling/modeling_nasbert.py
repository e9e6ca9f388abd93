# SPDX-License-Identifier: Apache-2.0
"""NasBert children: BERT-like encoders whose every block is one chosen operator, with the usual heads.

A child that alternates attention and ffn *is* a BERT; other children differ in the operators only. Axes in comments:
B batch, T tokens, D hidden size, V vocabulary, L blocks, N labelled positions.

Longer than other files, for it travels: a child's folder on the Hub holds as few files of code as it can.
"""

from .configuration_nasbert import NasBertConfig, NasBertShapeConfig

# isort: split
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import Cache, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .geometry_nasbert import Block, last_mixing_block
from .operators_nasbert import NasBertNorm, NasBertSelfAttention, build_operator, take_rows


class Masks(NamedTuple):
    """Where padding is: `attention` as the attention interface wants it, `padding` (B, T, 1) for convolutions."""

    attention: Any
    padding: torch.Tensor | None


def projection(input_width: int, output_width: int) -> nn.Linear | None:
    """A linear map between two widths; none where they are equal."""
    return None if input_width == output_width else nn.Linear(input_width, output_width)


class NasBertEmbeddings(nn.Module):
    """Word, position and segment embeddings, normalised as in BERT, then projected to the hidden size if narrower."""

    def __init__(self, config: NasBertShapeConfig):
        super().__init__()
        size = config.word_embedding_size
        self.word_embeddings = nn.Embedding(config.vocab_size, size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size)
        self.LayerNorm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.embeddings_project = projection(size, config.hidden_size)
        self.position_ids = nn.Buffer(torch.arange(config.max_position_embeddings)[None], persistent=False)

    def forward(
        self, input_ids=None, token_type_ids=None, position_ids=None, inputs_embeds=None, first_position: int = 0
    ):
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
        if position_ids is None:
            num_tokens = first_position + inputs_embeds.shape[1]
            if num_tokens > self.position_ids.shape[1]:
                raise ValueError(
                    f"a sequence of {num_tokens} tokens exceeds max_position_embeddings={self.position_ids.shape[1]}: "
                    "truncate it (tokenizer(..., truncation=True, max_length=...))"
                )
            position_ids = self.position_ids[:, first_position:num_tokens]
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)
        # Summed in BERT's order, so that a child converted to BERT computes the same bits.
        embeddings = inputs_embeds + self.token_type_embeddings(token_type_ids)
        embeddings = self.dropout(self.LayerNorm(embeddings + self.position_embeddings(position_ids)))
        return embeddings if self.embeddings_project is None else self.embeddings_project(embeddings)


class NasBertBlock(GradientCheckpointingLayer):
    """One operator, between the projections of a stage's border where the stage has a width of its own."""

    def __init__(self, config: NasBertConfig, block: Block):
        super().__init__()
        self.input_projection = projection(block.input_width, block.width)
        self.operator = build_operator(config, block.name)
        self.output_projection = projection(block.width, block.output_width)

    def forward(self, hidden_states, attention_mask=None, padding_mask=None, positions=None, **kwargs):
        if self.input_projection is not None:
            hidden_states = self.input_projection(hidden_states)
        hidden_states = self.operator(hidden_states, attention_mask, padding_mask, positions, **kwargs)
        return hidden_states if self.output_projection is None else self.output_projection(hidden_states)


class NasBertEncoder(nn.Module):
    """The chain of blocks."""

    def __init__(self, config: NasBertConfig):
        super().__init__()
        self.blocks = nn.ModuleList(NasBertBlock(config, block) for block in config.geometry())
        self.last_mixing_block = last_mixing_block(config.operators)

    def forward(self, hidden_states, masks: Masks, positions=None, prefixes=None, **kwargs):
        # Blocks behind the last mixing one neither mix rows nor bring them back: they work on those they are given.
        for index, block in enumerate(self.blocks):
            rows = positions if index == self.last_mixing_block else None
            prefix = {} if prefixes is None else {"prefix": prefixes[index]}
            hidden_states = block(hidden_states, masks.attention, masks.padding, rows, **prefix, **kwargs)
        return hidden_states


class NasBertPooler(nn.Module):
    """BERT's pooler: a layer over the first token's state, as a rule with a tanh."""

    def __init__(self, config: NasBertShapeConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.pooler_act]

    def forward(self, hidden_states):
        return self.activation(self.dense(hidden_states[:, 0]))


class NasBertMaskedLMHead(nn.Module):
    """BERT's masked-LM head: dense, activation, normalisation, vocabulary projection tied to the word embeddings."""

    def __init__(self, config: NasBertShapeConfig):
        super().__init__()
        size = config.word_embedding_size
        self.dense = nn.Linear(config.hidden_size, size)
        self.activation = ACT2FN[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(size, config.vocab_size)
        # The decoder's own bias under BERT's name. Where nothing is tied it would be a parameter without use.
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.tie_word_embeddings else None

    def forward(self, hidden_states):
        return self.decoder(self.LayerNorm(self.activation(self.dense(hidden_states))))


class NasBertPreTrainedModel(PreTrainedModel):
    """Weight initialisation, loading and saving, shared by every NasBert class."""

    config: NasBertConfig
    base_model_prefix = "nasbert"
    supports_gradient_checkpointing = True
    _no_split_modules = ["NasBertEmbeddings", "NasBertBlock"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": NasBertBlock, "attentions": NasBertSelfAttention}

    def __init__(self, config: NasBertShapeConfig, *inputs, **kwargs):
        super().__init__(config, *inputs, **kwargs)
        config.check()  # fields may have been set since it was made: better now than after the training

    @torch.no_grad()
    def _init_weights(self, module):
        # `transformers.initialization` leaves loaded weights alone, and loading happens on the meta device: every bare
        # parameter and every non-persistent buffer must be written here, or it stays uninitialised memory.
        super()._init_weights(module)
        if hasattr(module, "initial_std"):
            init.normal_(module.weight, std=module.initial_std)
        elif isinstance(module, NasBertNorm | NasBertMaskedLMHead) and module.bias is not None:
            init.zeros_(module.bias)
        elif isinstance(module, NasBertEmbeddings):
            init.copy_(module.position_ids, torch.arange(module.position_ids.shape[-1])[None])


class NasBertModel(NasBertPreTrainedModel):
    """The encoder without a head on top, and, if asked for, BERT's pooler.

    Args:
        config: Sizes and the architecture.
        add_pooling_layer: Whether to add the tanh layer over the first token.
    """

    encoder_class: type = NasBertEncoder

    def __init__(self, config: NasBertShapeConfig, add_pooling_layer: bool = True):
        super().__init__(config)
        self.embeddings = NasBertEmbeddings(config)
        self.encoder = self.encoder_class(config)
        self.pooler = NasBertPooler(config) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value):
        self.embeddings.word_embeddings = value

    def embed(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
        past_key_values=None,
    ) -> tuple[torch.Tensor, Masks]:
        """What the first block sees: hidden states (B, T, D) and the masks of the batch."""
        num_before = 0 if past_key_values is None else past_key_values.get_seq_length()
        hidden_states = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds, num_before)
        padding = None
        if attention_mask is not None and attention_mask.dim() == 2:
            padding = attention_mask[:, num_before:].bool().unsqueeze(-1)
        # By place: transformers 5.24 calls the last one `cache`, and warns of `past_key_values`.
        mask = create_bidirectional_mask(self.config, hidden_states, attention_mask, None, past_key_values)
        return hidden_states, Masks(mask, padding)

    def prefixes(self, past_key_values: Cache) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The keys and values that prefix tuning puts before those of every block; only attention reads them.

        Raises:
            ValueError: If they are not of as many blocks, or not of the heads of an attention.
        """
        layers: list[Any] = past_key_values.layers
        if len(layers) != self.config.num_hidden_layers:
            raise ValueError(
                f"past_key_values are of {len(layers)} blocks; expected {self.config.num_hidden_layers}, as prefix "
                "tuning gives them"
            )
        for index, layer in enumerate(layers):
            for module in self.encoder.blocks[index].modules():
                if isinstance(module, NasBertSelfAttention):
                    shape = (module.query.out_features // module.head_size, module.head_size)
                    if (layer.keys.shape[1], layer.keys.shape[3]) != shape:
                        raise ValueError(
                            f"past_key_values of block {index} are of {layer.keys.shape[1]} heads of "
                            f"{layer.keys.shape[3]}, its attention has {shape[0]} of {shape[1]}: prefix tuning is for "
                            "models whose attention operators are all as wide as hidden_size"
                        )
        return [(layer.keys, layer.values) for layer in layers]

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        prediction_positions: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs,
    ) -> tuple | BaseModelOutputWithPooling:
        r"""Encode a batch.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Token ids; this or `inputs_embeds`.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                1 at tokens, 0 at padding, on either side. Padding never changes what is computed at tokens. A ready
                4-D mask is passed on to attention; convolutions then see no padding.
            token_type_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Segment ids; zeros by default.
            position_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Positions; 0, 1, 2, ... by default, as in BERT.
            inputs_embeds (`torch.Tensor` of shape `(batch_size, sequence_length, embedding_size)`, *optional*):
                Embedded tokens in place of `input_ids`.
            prediction_positions (`torch.LongTensor` of shape `(num_positions,)`, *optional*):
                Ascending indices into the flattened batch. The last block is then computed only there, and
                `last_hidden_state` has shape `(num_positions, hidden_size)`.
            past_key_values (`Cache`, *optional*):
                Keys and values, of one layer a block, that stand before those of the tokens: what prefix tuning
                learns. `attention_mask` then covers them too. They are read only; an encoder has nothing to add.
            **kwargs:
                `output_hidden_states`, `output_attentions`, `return_dict`; a super-net's `architecture`.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("expected exactly one of input_ids and inputs_embeds")
        prefixes = None if past_key_values is None else self.prefixes(past_key_values)
        hidden_states, masks = self.embed(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, past_key_values
        )
        rows = prediction_positions if self._can_run_last_block_on_rows(attention_mask, **kwargs) else None
        hidden_states = self.encoder(hidden_states, masks, rows, prefixes, **kwargs)
        if rows is None:
            hidden_states = take_rows(hidden_states, prediction_positions)
        pooled = self.pooler(hidden_states) if self.pooler is not None and prediction_positions is None else None
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=pooled)

    def _can_run_last_block_on_rows(self, attention_mask, **kwargs) -> bool:
        """Whether the last block's attention can leave out queries: not with masks per query or fused kernels."""
        plain_mask = attention_mask is None or attention_mask.dim() == 2
        output_attentions = kwargs.get("output_attentions", self.config.output_attentions)
        return plain_mask and self.config._attn_implementation in ("eager", "sdpa") and not output_attentions


class NasBertForMaskedLM(NasBertPreTrainedModel):
    """The encoder with a masked-language-modelling head."""

    _tied_weights_keys = {
        "lm_head.decoder.weight": "nasbert.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }
    encoder_model_class = NasBertModel

    def __init__(self, config: NasBertShapeConfig):
        super().__init__(config)
        self.nasbert = self.encoder_model_class(config, add_pooling_layer=False)
        self.lm_head = NasBertMaskedLMHead(config)
        self.post_init()

    def get_output_embeddings(self):
        return self.lm_head.decoder

    def set_output_embeddings(self, new_embeddings):
        self.lm_head.decoder = new_embeddings
        if self.lm_head.bias is not None:
            self.lm_head.bias = new_embeddings.bias

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple | MaskedLMOutput:
        """Predict tokens, by a base model's arguments, and the loss, by `labels`.

        `labels` (B, T) are token ids, -100 where there is nothing to predict. With `config.sparse_prediction` the
        logits come back at the labelled positions only, in order: (num_labelled, vocab_size).
        """
        positions = None
        if labels is not None and self.config.sparse_prediction:
            labels = labels.flatten()
            positions = (labels != -100).nonzero().squeeze(-1)  # (N,)
            labels = labels[positions]
        outputs = self.nasbert(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            prediction_positions=positions,
            return_dict=True,
            **kwargs,
        )
        logits = self.lm_head(outputs.last_hidden_state)  # (B, T, V) or (N, V)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class NasBertClassifierModel(NasBertPreTrainedModel):
    """What the classification heads share: encoder, dropout, one linear layer."""

    encoder_model_class = NasBertModel
    uses_pooler = True

    def __init__(self, config: NasBertShapeConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.nasbert = self.encoder_model_class(config, add_pooling_layer=self.uses_pooler)
        dropout = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(config.hidden_size, self.num_outputs(config))
        self.post_init()

    @staticmethod
    def num_outputs(config: NasBertShapeConfig) -> int:
        return config.num_labels or 0


class NasBertForSequenceClassification(NasBertClassifierModel):
    """The encoder with a classifier (or regressor, for one label) over the pooled first token."""

    # Regression and several labels at once are averaged here; Trainer must not take them for sums over its step.
    accepts_loss_kwargs = False

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple | SequenceClassifierOutput:
        """Classify sequences, by a base model's arguments, and the loss, by `labels`.

        `labels` (B,) are class ids, or numbers where `config.num_labels == 1`; rows of zeros and ones, (B, num_labels)
        floats, for any number of labels at once.
        """
        outputs = self.nasbert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.classifier(self.dropout(outputs.pooler_output))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config, **kwargs)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class NasBertForTokenClassification(NasBertClassifierModel):
    """The encoder with a classifier over every token."""

    uses_pooler = False

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple | TokenClassifierOutput:
        """Classify tokens, by a base model's arguments, and the loss, by `labels` (B, T), -100 where there is none."""
        outputs = self.nasbert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.classifier(self.dropout(outputs.last_hidden_state))
        loss = None if labels is None else self.loss_function(logits, labels, self.config, **kwargs)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class NasBertForMultipleChoice(NasBertClassifierModel):
    """The encoder with one score per choice, over the pooled first token."""

    accepts_loss_kwargs = False  # as in sequence classification: the loss is a mean

    @staticmethod
    def num_outputs(config: NasBertShapeConfig) -> int:
        return 1

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple | MultipleChoiceModelOutput:
        """Score choices, by a base model's arguments as (B, num_choices, T), and the loss, by `labels`.

        `labels` (B,) are the indices of the right choices.
        """
        texts: Any = inputs_embeds if input_ids is None else input_ids
        num_choices = texts.shape[1]
        flat = [
            None if tensor is None else tensor.flatten(0, 1)
            for tensor in (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        ]
        outputs = self.nasbert(*flat, return_dict=True, **kwargs)
        logits = self.classifier(self.dropout(outputs.pooler_output)).view(-1, num_choices)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return MultipleChoiceModelOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class NasBertForQuestionAnswering(NasBertPreTrainedModel):
    """The encoder with scores for the start and the end of an answer at every token."""

    encoder_model_class = NasBertModel

    def __init__(self, config: NasBertShapeConfig):
        super().__init__(config)
        self.nasbert = self.encoder_model_class(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple | QuestionAnsweringModelOutput:
        """Score tokens, by a base model's arguments, and the loss, by `start_positions` and `end_positions`.

        Both are (B,): an answer's first and last token. The loss ignores positions outside of the sequence.
        """
        outputs = self.nasbert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        start_logits, end_logits = self.qa_outputs(outputs.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = self.loss_function(start_logits, end_logits, start_positions, end_positions, **kwargs)
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = [
    "NasBertForMaskedLM",
    "NasBertForMultipleChoice",
    "NasBertForQuestionAnswering",
    "NasBertForSequenceClassification",
    "NasBertForTokenClassification",
    "NasBertModel",
    "NasBertPreTrainedModel",
]
