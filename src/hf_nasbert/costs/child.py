"""All costs of a child together, and those of the BERT to hold it against."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any, NamedTuple

from hf_nasbert.costs.counts import (
    block_flops,
    block_parameters,
    block_peak,
    num_parameters,
    outside_flops,
    outside_parameters,
    outside_peak,
)
from hf_nasbert.costs.latency import LATENCY_SIZES, LatencyTable, operator_key
from hf_nasbert.modeling.geometry_nasbert import geometry_of, operator_width
from hf_nasbert.space import Architecture

PEAK = "peak_activation_bytes"  # the one cost that is no sum over blocks
Cost = dict[str, float]
"""A child's costs by name: `num_parameters`, `flops`, `latency_ms`, `peak_activation_bytes`."""


def cost_function(
    config: Any,
    batch_size: int = 1,
    sequence_length: int = 128,
    latency: LatencyTable | None = None,
    head_parameters: int | None = None,
) -> "CostFunction":
    """The costs of a child as one callable, which is what a search asks for.

    Args:
        config: Sizes of the model.
        batch_size: Sequences in the batch of which FLOPs and peak memory are counted.
        sequence_length: Tokens of each.
        latency: A table, whose own batch is the one that counts. Without it there is no `latency_ms`.
        head_parameters: The parameters of what stands on the encoder, which costs no FLOPs worth counting: a pooler, a
            classifier. By default it is the masked-LM head, at all positions.

    Raises:
        ValueError: If the table was measured for other sizes.
    """
    if latency is not None:
        latency.check_sizes(config)
    return CostFunction(config, batch_size, sequence_length, latency, head_parameters)


@dataclass(frozen=True)
class CostFunction:
    """What `cost_function` returns: called with a child it gives its costs."""

    config: Any
    batch_size: int
    sequence_length: int
    latency: LatencyTable | None
    head_parameters: int | None = None

    def __call__(self, architecture: Sequence[str]) -> Cost:
        """The child's costs.

        Raises:
            ValueError: If the architecture does not fit the config's stages, or an operator was not measured.
        """
        num_parameters, num_flops, peak, times = self._outside
        for block in self._blocks(architecture):
            num_parameters += block.num_parameters
            num_flops += block.flops
            peak = max(peak, block.peak)
            for milliseconds in block.times:
                times += milliseconds
        costs: Cost = {"num_parameters": num_parameters, "flops": num_flops, PEAK: peak}
        if self.latency is not None:
            costs["latency_ms"] = times
        return costs

    def peaks(self, architecture: Sequence[str]) -> tuple[int, ...]:
        """What orders children by their peak of memory (`block_peaks`)."""
        peaks = [self._outside[2], *(block.peak for block in self._blocks(architecture))]
        return tuple(sorted(peaks, reverse=True))

    @cached_property
    def _outside(self) -> tuple[int, int, int, float]:
        """What all but the blocks costs: parameters, FLOPs, peak in bytes, milliseconds."""
        num_predictions = None if self.head_parameters is None else 0
        return (
            outside_parameters(self.config, self.head_parameters),
            outside_flops(self.config, self.batch_size, self.sequence_length, num_predictions),
            outside_peak(self.config) * self._bytes_per_number,
            0.0 if self.latency is None else self.latency.outside_ms,
        )

    @cached_property
    def _bytes_per_number(self) -> int:
        """Bytes of one number per token, over the batch, in float32."""
        return 4 * self.batch_size * self.sequence_length

    @cached_property
    def _table(self) -> dict[tuple[str, int, int, bool], "_BlockCosts"]:
        """The costs of blocks, by what they follow from (`_keys`): a search asks for the same ones again and again."""
        return {}

    @cached_property
    def _lengths(self) -> dict[int, list[int]]:
        """Blocks of each stage, by the number of all: where nobody says, any number makes one stage."""
        return {}

    def _blocks(self, architecture: Sequence[str]) -> list["_BlockCosts"]:
        """The costs of each block of a child."""
        table, num_blocks = self._table, len(architecture)
        if num_blocks in self._lengths:
            try:
                return [table[key] for key in self._keys(architecture)]
            except KeyError:  # one of them is new
                pass
        blocks = geometry_of(self.config, architecture)
        self._lengths[num_blocks] = list(Counter(block.stage for block in blocks).values())
        for key, block in zip(self._keys(architecture), blocks, strict=True):
            if key not in table:
                table[key] = _BlockCosts(
                    block_parameters(self.config, block),
                    block_flops(self.config, block, self.batch_size, self.sequence_length),
                    block_peak(self.config, block) * self._bytes_per_number,
                    () if self.latency is None else tuple(self.latency.block_ms(block)),
                )
        return [table[key] for key in self._keys(architecture)]

    def _keys(self, architecture: Sequence[str]) -> list[tuple[str, int, int, bool]]:
        """Of every block its name, its stage's width, whether it is the first of all or of its stage, or the last."""
        keys, start = [], 0
        for length in self._lengths[len(architecture)]:
            names = architecture[start : start + length]
            width = next(filter(None, map(operator_width, names)), self.config.hidden_size)
            keys += [(name, width, 2, False) for name in names]
            keys[start] = (names[0], width, min(start, 1), length == 1)
            if length > 1:
                keys[-1] = (names[-1], width, 2, True)
            start += length
        return keys


class _BlockCosts(NamedTuple):
    """What a block adds to a child's costs; its peak is in bytes, its times are in milliseconds."""

    num_parameters: int
    flops: int
    peak: int
    times: tuple[float, ...]


def order_of(cost: Callable[[Architecture], Cost], name: str) -> Callable[[Architecture], Any]:
    """The key that orders children by one of their costs, as `cheapest` needs it.

    The peak of memory is no sum; a cost of one's own that has one tells its order by a method `peaks`, as a
    `CostFunction` does.
    """
    peaks: Callable[[Architecture], Any] | None = getattr(cost, "peaks", None) if name == PEAK else None
    return peaks or (lambda child: cost(child)[name])


def bert_beside(
    config: Any,
    num_parameters_wanted: int,
    batch_size: int = 1,
    sequence_length: int = 128,
    latency: LatencyTable | None = None,
) -> tuple[Architecture, Cost]:
    """The BERT to hold a child against, and its costs: of the config's width, with the nearest number of parameters.

    Its layers alternate attention and feed-forward operators of `hidden_size`; embeddings and head are the config's.
    Whole layers only, so its parameters differ from the child's by half a layer at most, unless one layer is too many.

    Args:
        config: The child's or its super-net's.
        num_parameters_wanted: The child's parameters.
        batch_size: As in `cost_function`.
        sequence_length: As in `cost_function`.
        latency: A table; without attention and ffn of that width in it there is no `latency_ms`.

    Raises:
        ValueError: If the table was measured for other sizes.
    """
    fields = (*LATENCY_SIZES, "type_vocab_size", "tie_word_embeddings")
    plain = SimpleNamespace(**{name: getattr(config, name) for name in fields}, stage_lengths=None)
    layer = ("attention", "ffn")
    of_one = num_parameters(plain, layer)
    num_more = round((num_parameters_wanted - of_one) / (num_parameters(plain, 2 * layer) - of_one))
    if latency is not None and not all(
        operator_key(name, plain.hidden_size) in latency.operators_ms for name in layer
    ):
        latency = None
    bert = Architecture(layer * (1 + max(num_more, 0)))
    return bert, cost_function(plain, batch_size, sequence_length, latency)(bert)
