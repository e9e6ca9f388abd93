"""All costs of a child together, and those of the BERT to hold it against."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from hf_nasbert.costs.counts import block_peaks, flops, num_parameters, peak_activation_bytes
from hf_nasbert.costs.latency import LATENCY_SIZES, LatencyTable, operator_key
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
        """The child's costs."""
        batch = self.batch_size, self.sequence_length
        costs: Cost = {
            "num_parameters": num_parameters(self.config, architecture, self.head_parameters),
            "flops": flops(self.config, architecture, *batch, None if self.head_parameters is None else 0),
            PEAK: peak_activation_bytes(self.config, architecture, *batch),
        }
        if self.latency is not None:
            costs["latency_ms"] = self.latency.latency_ms(self.config, architecture)
        return costs

    def peaks(self, architecture: Sequence[str]) -> tuple[int, ...]:
        """What orders children by their peak of memory (`block_peaks`)."""
        return block_peaks(self.config, architecture, self.batch_size, self.sequence_length)


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
