"""Parameters, FLOPs and peak memory of a child, counted without building it.

`config` is anything with the fields of `SupernetConfig` or `NasBertConfig`; sizes and operators are those of
`modeling/`, and the tests hold every number against the built child.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from hf_nasbert.space import SKIP, operator_kind, operator_width


def num_parameters(config: Any, architecture: Sequence[str]) -> int:
    """The parameters of a child as a stand-alone `NasBertForMaskedLM`; tied weights count once.

    Raises:
        ValueError: If the architecture does not fit the config's stages.
    """
    hidden, embedding, vocabulary = int(config.hidden_size), embedding_size(config), int(config.vocab_size)
    tables = vocabulary + int(config.max_position_embeddings) + int(config.type_vocab_size)
    total = tables * embedding + 2 * embedding + _projection_parameters(embedding, hidden)
    total += _linear_parameters(hidden, embedding) + 2 * embedding + vocabulary  # the head: dense, LayerNorm, bias
    if not config.tie_word_embeddings:
        total += embedding * vocabulary
    for names, width in stages_of(config, architecture):
        total += _projection_parameters(hidden, width) + _projection_parameters(width, hidden)
        total += sum(operator_parameters(config, name) for name in names)
    return total


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
    num_tokens = _num_tokens(batch_size, sequence_length)
    if num_predictions is None:
        num_predictions = num_tokens
    if not 0 <= num_predictions <= num_tokens:
        raise ValueError(f"num_predictions must lie between 0 and the {num_tokens} tokens, not {num_predictions}")
    hidden, embedding, vocabulary = int(config.hidden_size), embedding_size(config), int(config.vocab_size)
    total = _projection_flops(num_tokens, embedding, hidden)
    total += 2 * num_predictions * embedding * (hidden + vocabulary)
    for names, width in stages_of(config, architecture):
        total += _projection_flops(num_tokens, hidden, width) + _projection_flops(num_tokens, width, hidden)
        total += sum(operator_flops(config, name, batch_size, sequence_length) for name in names)
    return total


def operator_parameters(config: Any, name: str) -> int:
    """The parameters of one operator, such as `"ffn"` or `"conv5@192"`.

    Raises:
        ValueError: If there is no such operator.
    """
    kind, kernel_size, width = _parsed(name)
    width = width or int(config.hidden_size)
    match kind:
        case "skip":
            return 0
        case "attention":
            return 4 * _linear_parameters(width, width) + 2 * width
        case "ffn":
            inner = int(config.ffn_ratio) * width
            return _linear_parameters(width, inner) + _linear_parameters(inner, width) + 2 * width
        case _:
            depthwise = kernel_size * width + width
            return int(config.num_conv_layers) * (depthwise + _linear_parameters(width, width) + 2 * width)


def operator_flops(config: Any, name: str, batch_size: int = 1, sequence_length: int = 128) -> int:
    """The floating-point operations of one operator on all positions of a batch.

    Raises:
        ValueError: If there is no such operator, or the batch is empty.
    """
    kind, kernel_size, width = _parsed(name)
    width, num_tokens = width or int(config.hidden_size), _num_tokens(batch_size, sequence_length)
    square = 2 * num_tokens * width * width  # one linear map of the width onto itself
    match kind:
        case "skip":
            return 0
        case "attention":
            # Heads share out the width, so scores and their application cost the same for any number of heads.
            return 4 * square + 4 * num_tokens * sequence_length * width
        case "ffn":
            return 2 * int(config.ffn_ratio) * square
        case _:
            return int(config.num_conv_layers) * (2 * num_tokens * width * kernel_size + square)


class PeakBytes(int):
    """A peak of memory in bytes; of two equal ones that orders first whose next largest block takes less, and so on.

    A peak is a largest term and no sum. The order is that of a sum all the same: what is added to both of two children
    does not change which is the smaller. So `cheapest`, which improves a child block by block and stage by stage, sees
    what a block adds although another block has the same peak or a larger one.

    Args:
        peaks: The blocks' own peaks, in any order; at least one.
    """

    peaks: tuple[int, ...]
    """The largest first."""

    def __new__(cls, peaks: Iterable[int]) -> Self:
        """Make one."""
        found = tuple(sorted(peaks, reverse=True))
        self = super().__new__(cls, found[0])
        self.peaks = found
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[tuple[int, ...]]]:
        return type(self), (self.peaks,)

    def __lt__(self, other: float) -> bool:
        return self.peaks < other.peaks if isinstance(other, PeakBytes) else int(self) < other


def peak_activation_bytes(
    config: Any,
    architecture: Sequence[str],
    batch_size: int = 1,
    sequence_length: int = 128,
    bytes_per_number: int = 4,
) -> PeakBytes:
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
    hidden, embedding = int(config.hidden_size), embedding_size(config)
    # In numbers per token. Embeddings: the looked-up words, their sums, and what is made of them.
    peaks = [max(4 * embedding, 2 * embedding + hidden if embedding != hidden else 0)]
    for names, width in stages_of(config, architecture):
        is_projected = width != hidden
        for block, name in enumerate(names):
            # Alive all the while: the embeddings' output, and what the block was given, unless that is the same.
            held = hidden + (0 if len(peaks) == 1 else hidden if block == 0 else width)
            enters, leaves = is_projected and block == 0, is_projected and block == len(names) - 1
            inside = held + (width if enters else 0) + _operator_peak(config, name, width)
            peaks.append(max(inside, held + width + hidden if leaves else 0))
    scale = _num_tokens(batch_size, sequence_length) * bytes_per_number
    return PeakBytes(peak * scale for peak in peaks)


def _operator_peak(config: Any, name: str, width: int) -> int:
    """The numbers per token that an operator holds at once, beside its input."""
    kind, ratio = _parsed(name)[0], int(config.ffn_ratio)
    match kind:
        case "skip":
            return 0
        case "attention":
            return 4 * width  # query, key, value and what they make
        case "ffn":
            return max(2 * ratio, ratio + 2) * width  # before and behind the activation; or sum and normalised sum
        case _:
            # Depth-wise, point-wise and activated states; behind the first sub-layer its output too.
            return (3 if int(config.num_conv_layers) == 1 else 4) * width


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


@functools.lru_cache(maxsize=1024)
def _parsed(name: str) -> tuple[str, int, int]:
    """The kind of an operator, the size of its kernel and its width; 0 where it has none."""
    kind, width = operator_kind(name), operator_width(name) or 0
    if kind in (SKIP, "attention", "ffn"):
        return kind, 0, width
    match = re.fullmatch(r"conv([0-9]+)", kind)
    if match is None:
        raise ValueError(f"cannot tell what operator {name!r} costs: known are attention, ffn, conv<size> and skip")
    return "conv", int(match[1]), width


def stages_of(config: Any, architecture: Sequence[str]) -> Iterator[tuple[Sequence[str], int]]:
    """The operators of every stage and the width they share.

    Raises:
        ValueError: If the architecture does not fit the config's stages.
    """
    if hasattr(config, "search_space"):
        lengths = [len(stage["blocks"]) for stage in config.search_space["stages"]]
    else:
        lengths = [len(architecture)] if config.stage_lengths is None else config.stage_lengths
    if sum(lengths) != len(architecture):
        raise ValueError(f"the architecture names {len(architecture)} operators for stages of {lengths} blocks")
    start = 0
    for length in lengths:
        names = architecture[start : start + length]
        widths = {_parsed(name)[2] or config.hidden_size for name in names if name != SKIP}
        if len(widths) > 1:
            raise ValueError(f"operators {'-'.join(names)} of one stage have widths {sorted(widths)}: expected one")
        yield names, widths.pop() if widths else config.hidden_size
        start += length
