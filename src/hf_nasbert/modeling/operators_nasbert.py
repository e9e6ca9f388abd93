# SPDX-License-Identifier: Apache-2.0
"""The candidate operators: the very modules that a super-net chooses among and that a child is made of.

Every operator is a post-norm residual sub-layer, `x = LayerNorm(x + dropout(f(x)))`, as in BERT, and takes

- `hidden_states` (B, T, W): batch, tokens, width of the operator;
- `attention_mask`: what the attention interface wants (`None`, boolean or additive, (B, 1, T, T));
- `padding_mask` (B, T, 1): true at real tokens, or `None` where there is no padding;
- `positions` (N,): flat indices into (B * T), ascending, or `None`. With them only those rows come back, as (N, W),
  and only they are computed where the mathematics allows it: the exact same rows for less work;
- `prefix`, a keyword of attention alone: keys and values, (B, H, P, head) each, that stand before those of the tokens.
"""

from .configuration_nasbert import NasBertShapeConfig
from .geometry_nasbert import SKIP, inner_width, parse_operator

# isort: split
import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def take_rows(hidden_states: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
    """The rows of `hidden_states` (B, T, W) at flat `positions`: (N, W), or everything where there are none."""
    return hidden_states if positions is None else hidden_states.flatten(0, 1).index_select(0, positions)


def eager_attention_forward(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """Attention as written in the textbook, the one that returns its weights. Arguments (B, H, T, D)."""
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class NasBertSelfAttention(nn.Module):
    """Multi-head self-attention without its output projection; returns (context, weights or None)."""

    def __init__(self, config: NasBertShapeConfig, width: int, inner_width: int):
        super().__init__()
        self.config = config
        self.head_size = config.head_size(width)
        self.scaling = self.head_size**-0.5
        self.is_causal = False
        self.query = nn.Linear(width, inner_width)
        self.key = nn.Linear(width, inner_width)
        self.value = nn.Linear(width, inner_width)
        self.dropout_prob = config.attention_probs_dropout_prob

    def forward(self, hidden_states, attention_mask=None, positions=None, prefix=None, **kwargs):
        batch_size, num_tokens = hidden_states.shape[:2]
        heads = (-1, self.head_size)
        query = self.query(take_rows(hidden_states, positions))
        key = self.key(hidden_states).unflatten(-1, heads).transpose(1, 2)  # (B, H, T, head)
        value = self.value(hidden_states).unflatten(-1, heads).transpose(1, 2)
        if prefix is not None:
            key, value = (torch.cat(pair, dim=2) for pair in zip(prefix, (key, value), strict=True))
        if positions is not None:
            # Only the asked rows attend. They are unevenly spread over the sequences: pad to the fullest sequence (to
            # one where none are asked: attention kernels refuse to have no query).
            sequence = positions // num_tokens
            counts = torch.bincount(sequence, minlength=batch_size)
            first = counts.cumsum(0) - counts
            widest = max(1, int(counts.max()))
            # Flat indices: copying rows is several times faster, forward and backward, than indexing by pairs.
            slots = torch.arange(len(positions), device=positions.device) + sequence * widest - first[sequence]
            padded = query.new_zeros(batch_size * widest, query.shape[-1])
            query = padded.index_copy(0, slots, query).unflatten(0, (batch_size, widest))
            # A padding mask is the same for every query, so any of its rows serves.
            attention_mask = None if attention_mask is None else attention_mask[:, :, :1]
        query = query.unflatten(-1, heads).transpose(1, 2)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        context, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.dropout_prob if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        context = context.flatten(2)  # (B, T, H * head)
        return (context if positions is None else context.flatten(0, 1).index_select(0, slots)), weights


class NasBertOutput(nn.Module):
    """The end of attention and feed-forward: projection, dropout, residual, normalisation."""

    def __init__(self, config: NasBertShapeConfig, inner_width: int, width: int):
        super().__init__()
        self.dense = nn.Linear(inner_width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states, residual):
        return self.LayerNorm(self.dropout(self.dense(hidden_states)) + residual)


class NasBertAttention(nn.Module):
    """Self-attention sub-layer; module names are those of BERT's `attention`."""

    def __init__(self, config: NasBertShapeConfig, width: int, inner_width: int):
        super().__init__()
        self.self = NasBertSelfAttention(config, width, inner_width)
        self.output = NasBertOutput(config, inner_width, width)

    def forward(self, hidden_states, attention_mask=None, padding_mask=None, positions=None, **kwargs):
        context, _ = self.self(hidden_states, attention_mask, positions, **kwargs)
        return self.output(context, take_rows(hidden_states, positions))


class NasBertIntermediate(nn.Module):
    """The widening half of a feed-forward sub-layer."""

    def __init__(self, config: NasBertShapeConfig, width: int, inner_width: int):
        super().__init__()
        self.dense = nn.Linear(width, inner_width)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden_states):
        return self.activation(self.dense(hidden_states))


class NasBertFeedForward(nn.Module):
    """Feed-forward sub-layer; module names are those of BERT's `intermediate` and `output`."""

    def __init__(self, config: NasBertShapeConfig, width: int, inner_width: int):
        super().__init__()
        self.intermediate = NasBertIntermediate(config, width, inner_width)
        self.output = NasBertOutput(config, inner_width, width)
        self.chunk_size = config.chunk_size_feed_forward

    def forward(self, hidden_states, attention_mask=None, padding_mask=None, positions=None, **kwargs):
        hidden_states = take_rows(hidden_states, positions)
        if not self.chunk_size:
            return self.output(self.intermediate(hidden_states), hidden_states)
        # Not transformers' `apply_chunking_to_forward`, which refuses a length that is no multiple of the chunk's.
        chunks = hidden_states.split(self.chunk_size, dim=-2)
        return torch.cat([self.output(self.intermediate(chunk), chunk) for chunk in chunks], dim=-2)


class NasBertConvLayer(nn.Module):
    """Separable convolution: depth-wise over the tokens, then point-wise over the width.

    Padding is zeroed first, so that it looks like the end of the sequence, whatever stands there.
    """

    def __init__(self, config: NasBertShapeConfig, width: int, kernel_size: int):
        super().__init__()
        # On the channels-last view that (B, T, W) is anyway, a 2-D convolution is three times faster than Conv1d.
        self.depthwise = nn.Conv2d(width, width, (1, kernel_size), padding=(0, kernel_size // 2), groups=width)
        self.dense = nn.Linear(width, width)
        self.activation = ACT2FN[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        # Initialised as the public NAS-BERT port: N(0, sqrt(4 (1 - dropout) / (kernel size * width))). The usual 0.02
        # would make the product of two such maps vanish beside the residual. Told to the leaves and not done here:
        # transformers asks `_init_weights` about no module without parameters of its own in code that travels.
        keep = 4 * (1 - config.hidden_dropout_prob)
        self.depthwise.initial_std = (keep / (kernel_size * width)) ** 0.5
        self.dense.initial_std = (keep / width) ** 0.5

    def forward(self, hidden_states, padding_mask=None, positions=None):
        tokens = hidden_states if padding_mask is None else hidden_states.masked_fill(~padding_mask, 0.0)
        tokens = self.depthwise(tokens.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)
        tokens = self.activation(self.dense(take_rows(tokens, positions)))
        return self.LayerNorm(self.dropout(tokens) + take_rows(hidden_states, positions))


class NasBertConvolution(nn.Module):
    """Stacked separable convolutions: `config.num_conv_layers` residual sub-layers."""

    def __init__(self, config: NasBertShapeConfig, width: int, kernel_size: int):
        super().__init__()
        self.layers = nn.ModuleList(
            NasBertConvLayer(config, width, kernel_size) for _ in range(config.num_conv_layers)
        )

    def forward(self, hidden_states, attention_mask=None, padding_mask=None, positions=None, **kwargs):
        for layer in self.layers[:-1]:
            hidden_states = layer(hidden_states, padding_mask)
        return self.layers[-1](hidden_states, padding_mask, positions)


class NasBertNorm(nn.Module):
    """A learned constant in place of a sub-layer's output: what is left of one whose output is its mean."""

    def __init__(self, config: NasBertShapeConfig, width: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, hidden_states, attention_mask=None, padding_mask=None, positions=None, **kwargs):
        return self.LayerNorm(take_rows(hidden_states, positions) + self.bias)


class NasBertSkip(nn.Module):
    """No operator: the next block sees what this one saw."""

    def forward(self, hidden_states, attention_mask=None, padding_mask=None, positions=None, **kwargs):
        return take_rows(hidden_states, positions)


def build_operator(config: NasBertShapeConfig, name: str) -> nn.Module:
    """Build the operator of a name such as `"attention"`, `"ffn768"` or `"conv5@192"`.

    Raises:
        ValueError: If the name is none of an operator.
    """
    config.check_operator(name)
    operator = parse_operator(name)
    kind, width = operator.kind, operator.width or config.hidden_size
    if kind == SKIP:
        return NasBertSkip()
    if kind == "attention":
        return NasBertAttention(config, width, inner_width(config, name))
    if kind == "ffn":
        return NasBertFeedForward(config, width, inner_width(config, name))
    if kind == "norm":
        return NasBertNorm(config, width)
    return NasBertConvolution(config, width, kernel_size=int(kind.removeprefix("conv")))
