"""Parameters, FLOPs and peak memory of a child, counted without building it.

`config` is anything with the fields of `SupernetConfig` or `NasBertConfig`; sizes and operators are those of
`modeling/`, and the tests hold every number against the built child. Operators of one's own have no formula here:
`built` counts them by their modules.
"""

import re
from collections.abc import Sequence
from typing import Any

from hf_nasbert.costs.built import built_flops, built_parameters, built_peak
from hf_nasbert.modeling.geometry_nasbert import Block, geometry_of, inner_width, parse_operator


def num_parameters(config: Any, architecture: Sequence[str], head_parameters: int | None = None) -> int:
    """The parameters of a child as a stand-alone `NasBertForMaskedLM`; tied weights count once.

    Args:
        config: Sizes of the model.
        architecture: The child.
        head_parameters: Those of what stands on the encoder instead of the masked-LM head: a pooler, a classifier; 0
            of the encoder alone.

    Raises:
        ValueError: If the architecture does not fit the config's stages.
    """
    return outside_parameters(config, head_parameters) + sum(
        block_parameters(config, block) for block in geometry_of(config, architecture)
    )


def outside_parameters(config: Any, head_parameters: int | None = None) -> int:
    """The parameters of all but the blocks: embeddings and head; see `num_parameters`."""
    hidden, embedding, vocabulary = int(config.hidden_size), embedding_size(config), int(config.vocab_size)
    tables = vocabulary + int(config.max_position_embeddings) + int(config.type_vocab_size)
    total = tables * embedding + 2 * embedding + _projection_parameters(embedding, hidden)
    if head_parameters is not None:
        return total + head_parameters
    total += _linear_parameters(hidden, embedding) + 2 * embedding + vocabulary  # dense, LayerNorm, bias
    if not config.tie_word_embeddings:
        total += embedding * vocabulary
    return total


def block_parameters(config: Any, block: Block) -> int:
    """The parameters of one block: its operator, and the projections at a stage's borders."""
    total = operator_parameters(config, block.name)
    total += _projection_parameters(block.input_width, block.width)
    return total + _projection_parameters(block.width, block.output_width)


def flops(
    config: Any,
    architecture: Sequence[str],
    batch_size: int = 1,
    sequence_length: int = 128,
    num_predictions: int | None = None,
) -> int:
    """The floating-point operations of one forward of a child, as `torch.utils.flop_counter` counts them.

    Products of matrices and convolutions count, a multiplication and an addition each as one; element-wise work does
    not.

    Args:
        config: Sizes of the model.
        architecture: The child.
        batch_size: Sequences in the batch.
        sequence_length: Tokens of each, padding included.
        num_predictions: Positions at which the vocabulary is predicted. All by default; 0 leaves the head out, which
            is what a fine-tuned child costs but for its small classifier.

    Raises:
        ValueError: If the architecture does not fit the config's stages, or a number is out of range.
    """
    return outside_flops(config, batch_size, sequence_length, num_predictions) + sum(
        block_flops(config, block, batch_size, sequence_length) for block in geometry_of(config, architecture)
    )


def outside_flops(config: Any, batch_size: int, sequence_length: int, num_predictions: int | None = None) -> int:
    """The floating-point operations of all but the blocks; see `flops`."""
    num_tokens = _num_tokens(batch_size, sequence_length)
    if num_predictions is None:
        num_predictions = num_tokens
    if not 0 <= num_predictions <= num_tokens:
        raise ValueError(f"num_predictions must lie between 0 and the {num_tokens} tokens, not {num_predictions}")
    hidden, embedding, vocabulary = int(config.hidden_size), embedding_size(config), int(config.vocab_size)
    total = _projection_flops(num_tokens, embedding, hidden)
    return total + 2 * num_predictions * embedding * (hidden + vocabulary)


def block_flops(config: Any, block: Block, batch_size: int, sequence_length: int) -> int:
    """The floating-point operations of one block on all positions of a batch."""
    num_tokens = _num_tokens(batch_size, sequence_length)
    total = operator_flops(config, block.name, batch_size, sequence_length)
    total += _projection_flops(num_tokens, block.input_width, block.width)
    return total + _projection_flops(num_tokens, block.width, block.output_width)


def operator_parameters(config: Any, name: str) -> int:
    """The parameters of one operator, such as `"ffn"` or `"conv5@192"`.

    Raises:
        ValueError: If there is no such operator.
    """
    operator, inner = parse_operator(name), inner_width(config, name)
    width = operator.width or int(config.hidden_size)
    match operator.kind:
        case "skip":
            return 0
        case "attention":
            return 3 * _linear_parameters(width, inner) + _linear_parameters(inner, width) + 2 * width
        case "ffn":
            return _linear_parameters(width, inner) + _linear_parameters(inner, width) + 2 * width
        case "norm":
            return 3 * width  # what is added, and LayerNorm
        case _ if kernel_size := _kernel_size(operator.kind):
            depthwise = kernel_size * width + width
            return int(config.num_conv_layers) * (depthwise + _linear_parameters(width, width) + 2 * width)
        case _:
            return built_parameters(config, name)


def operator_flops(config: Any, name: str, batch_size: int = 1, sequence_length: int = 128) -> int:
    """The floating-point operations of one operator on all positions of a batch.

    Raises:
        ValueError: If there is no such operator, or the batch is empty.
    """
    operator, inner = parse_operator(name), inner_width(config, name)
    width, num_tokens = operator.width or int(config.hidden_size), _num_tokens(batch_size, sequence_length)
    match operator.kind:
        case "skip" | "norm":
            return 0
        case "attention":
            # Heads share out the inner width, so scores and their application cost the same for any size of them.
            return 4 * 2 * num_tokens * width * inner + 4 * num_tokens * sequence_length * inner
        case "ffn":
            return 2 * 2 * num_tokens * width * inner
        case _ if kernel_size := _kernel_size(operator.kind):
            return int(config.num_conv_layers) * 2 * num_tokens * width * (kernel_size + width)
        case _:
            return built_flops(config, name, batch_size, sequence_length)


def peak_activation_bytes(
    config: Any,
    architecture: Sequence[str],
    batch_size: int = 1,
    sequence_length: int = 128,
    bytes_per_number: int = 4,
) -> int:
    """The most memory that activations of one forward take at a time, in bytes; weights and inputs not counted.

    An estimate: the forward of `NasBertModel` without head in evaluation mode, without gradients, on a batch with its
    `attention_mask` but without padding, by fused attention (`sdpa`), which holds no (T, T) matrix. The tensors alive
    at once are counted from the code of `modeling/`; a kernel's own workspace (some tens of kilobytes per thread) is
    not. `hf_nasbert.measuring.check_memory` holds it against the real peak.

    Args:
        config: Sizes of the model.
        architecture: The child.
        batch_size: Sequences in the batch; the peak is proportional to it.
        sequence_length: Tokens of each.
        bytes_per_number: 4 in float32, 2 in bfloat16 and float16.

    Raises:
        ValueError: If the architecture does not fit the config's stages, or the batch is empty.
    """
    return block_peaks(config, architecture, batch_size, sequence_length, bytes_per_number)[0]


def block_peaks(
    config: Any,
    architecture: Sequence[str],
    batch_size: int = 1,
    sequence_length: int = 128,
    bytes_per_number: int = 4,
) -> tuple[int, ...]:
    """The peaks of the embeddings and of every block by itself, the largest first: the key to order children by.

    The child's peak is the largest of them, and no sum. The order of all of them is that of a sum all the same: what
    is added to both of two children does not change which is the smaller. So `cheapest`, which improves a child block
    by block and stage by stage, sees what a block adds although another block has the same peak or a larger one.

    Args and errors are those of `peak_activation_bytes`.
    """
    peaks = [outside_peak(config), *(block_peak(config, block) for block in geometry_of(config, architecture))]
    scale = _num_tokens(batch_size, sequence_length) * bytes_per_number
    return tuple(sorted((peak * scale for peak in peaks), reverse=True))


def outside_peak(config: Any) -> int:
    """The numbers per token that are alive at most in the embeddings: words, their sums, what is made of them."""
    hidden, embedding = int(config.hidden_size), embedding_size(config)
    return max(4 * embedding, 2 * embedding + hidden if embedding != hidden else 0)


def block_peak(config: Any, block: Block) -> int:
    """The numbers per token that are alive at most in a block."""
    # All the while: the embeddings' output, and what the block was given, unless that is the same.
    held = int(config.hidden_size) + (block.input_width if block.index else 0)
    inside = held + (block.width if block.input_width != block.width else 0) + _operator_peak(config, block)
    return max(inside, held + block.width + block.output_width if block.output_width != block.width else 0)


def _operator_peak(config: Any, block: Block) -> int:
    """The numbers per token that an operator holds at once, beside its input."""
    width, inner = block.width, inner_width(config, block.name)
    match block.kind:
        case "skip":
            return 0
        case "attention":
            return max(4 * inner, inner + 2 * width)  # query, key, value and what they make; or that and both sums
        case "ffn":
            return max(2 * inner, inner + 2 * width)  # before and after the activation; or sum and normalised sum
        case "norm":
            return 2 * width  # sum and normalised sum
        case _ if _kernel_size(block.kind):
            # Depth-wise, point-wise and activated states; after the first sub-layer its output too.
            return (3 if int(config.num_conv_layers) == 1 else 4) * width
        case _:
            return built_peak(config, block.name)


def _kernel_size(kind: str) -> int:
    """Tokens that a convolution sees; 0 of any other operator."""
    match = re.fullmatch(r"conv([0-9]+)", kind)
    return int(match[1]) if match else 0


def embedding_size(config: Any) -> int:
    """Width of the embedding tables."""
    return int(config.hidden_size if config.embedding_size is None else config.embedding_size)


def _linear_parameters(num_inputs: int, num_outputs: int) -> int:
    return num_inputs * num_outputs + num_outputs


def _projection_parameters(num_inputs: int, num_outputs: int) -> int:
    return 0 if num_inputs == num_outputs else _linear_parameters(num_inputs, num_outputs)


def _projection_flops(num_tokens: int, num_inputs: int, num_outputs: int) -> int:
    return 0 if num_inputs == num_outputs else 2 * num_tokens * num_inputs * num_outputs


def _num_tokens(batch_size: int, sequence_length: int) -> int:
    if batch_size < 1 or sequence_length < 1:
        raise ValueError(f"batch_size {batch_size} and sequence_length {sequence_length} must both be at least 1")
    return batch_size * sequence_length
