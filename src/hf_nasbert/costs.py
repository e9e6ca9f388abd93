"""What a child costs, without building it: parameters, FLOPs, peak memory, tabled latency; and budgets that cap them.

`config` is anything with the fields of `SupernetConfig` or `NasBertConfig`; sizes and operators are those of
`modeling/`, and the tests hold every number against the built child. Latencies are read from a table that
`hf_nasbert.measuring` makes on the device itself.
"""

import bisect
import functools
import hashlib
import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, Self

from hf_nasbert import records
from hf_nasbert.records import Record
from hf_nasbert.space import SKIP, Architecture, SearchSpace, operator_kind, operator_width

PEAK = "peak_activation_bytes"  # the one cost that is no sum over blocks
Cost = dict[str, float]
"""A child's costs by name: `num_parameters`, `flops`, `latency_ms`, `peak_activation_bytes`."""

_SETTING = ("device", "batch_size", "sequence_length", "dtype", "num_threads")  # what a latency was measured with
_LONGEST_QUANTITY = 300  # characters; more digits than that are no wish
LATENCY_SIZES = (
    "hidden_size",
    "embedding_size",
    "ffn_ratio",
    "num_conv_layers",
    "attention_head_size",
    "hidden_act",
    "vocab_size",
    "max_position_embeddings",
)
"""The fields of a config that a latency table was measured for, and is refused for others."""


def num_parameters(config: Any, architecture: Sequence[str]) -> int:
    """The parameters of a child as a stand-alone `NasBertForMaskedLM`; tied weights count once.

    Raises:
        ValueError: If the architecture does not fit the config's stages.
    """
    hidden, embedding, vocabulary = int(config.hidden_size), _embedding_size(config), int(config.vocab_size)
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
    hidden, embedding, vocabulary = int(config.hidden_size), _embedding_size(config), int(config.vocab_size)
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
    hidden, embedding = int(config.hidden_size), _embedding_size(config)
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
    return tuple(sorted((peak * scale for peak in peaks), reverse=True))


def cost_function(
    config: Any, batch_size: int = 1, sequence_length: int = 128, latency: "LatencyTable | None" = None
) -> "CostFunction":
    """The costs of a child as one callable, which is what a search asks for.

    Args:
        config: Sizes of the model.
        batch_size: Sequences in the batch of which FLOPs and peak memory are counted.
        sequence_length: Tokens of each.
        latency: A table, whose own batch is the one that counts. Without it there is no `latency_ms`.

    Raises:
        ValueError: If the table was measured for other sizes.
    """
    if latency is not None:
        latency.check_sizes(config)
    return CostFunction(config, batch_size, sequence_length, latency)


@dataclass(frozen=True)
class CostFunction:
    """What `cost_function` returns: called with a child it gives its costs."""

    config: Any
    batch_size: int
    sequence_length: int
    latency: "LatencyTable | None"

    def __call__(self, architecture: Sequence[str]) -> Cost:
        """The child's costs."""
        batch = self.batch_size, self.sequence_length
        costs: Cost = {
            "num_parameters": num_parameters(self.config, architecture),
            "flops": flops(self.config, architecture, *batch),
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
    latency: "LatencyTable | None" = None,
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


@dataclass(frozen=True)
class LatencyTable:
    """Measured latencies of operators on one device, of which a child's is the sum.

    A chain's latency is nearly additive, so a table serves; how nearly, the record beside it tells. It holds for the
    sizes, batch, precision and threads it was measured with, and is refused for others: between them nothing is
    interpolated. (A look-up table as in ProxylessNAS, Cai et al., 2019, https://arxiv.org/abs/1812.00332, unverified.)

    Args:
        operators_ms: Milliseconds of an operator in its block, by full name: `"conv5@128"`, and `"skip"`.
        adapters_ms: Milliseconds of the projections at a stage's borders, by widths: `"128->64"`.
        outside_ms: Milliseconds of all else: embeddings, mask, pooler, the calls around the blocks.
        setting: What it was measured with: device, batch_size, sequence_length, dtype, num_threads, clock.
        sizes: The fields `LATENCY_SIZES` of the config.
    """

    operators_ms: Mapping[str, float]
    adapters_ms: Mapping[str, float]
    outside_ms: float
    setting: Mapping[str, Any]
    sizes: Mapping[str, Any]

    @classmethod
    def from_record(cls, record: Record) -> Self:
        """The table that a record of `hf_nasbert.measuring.measure_latencies` holds.

        Raises:
            ValueError: If the record lacks an entry, or one of them is not what it should be.
        """
        names = ("operators_ms", "adapters_ms", "outside_ms", "setting", "sizes")
        entries: dict[str, Any] = {name: record.get(name) for name in names}
        times: list[Any] = [entries["outside_ms"]]
        for name in ("operators_ms", "adapters_ms", "setting", "sizes"):
            entry = entries[name]
            if not isinstance(entry, Mapping):
                raise ValueError(f"the latency table has no {name}: measure again")
            times += entry.values() if name.endswith("_ms") else []
        for time in times:
            if not records.is_finite_number(time) or time < 0:
                raise ValueError(f"the latency table holds {str(time)[:40]!r}, where milliseconds were meant")
        missing = [name for name in _SETTING if name not in entries["setting"]]
        if missing:
            raise ValueError(f"the latency table does not say its {', '.join(missing)}: measure again")
        return cls(**entries)

    @classmethod
    def read(cls, path: str | Path, **wanted: Any) -> Self:
        """The table of a file of records; of several with one setting, the last.

        Args:
            path: The file.
            **wanted: What its setting must be, such as `batch_size=8`; None asks for nothing.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If no table there was measured so, or tables of several settings were.
        """
        wanted = {name: value for name, value in wanted.items() if value is not None}
        found_records = [record for record in records.read(path) if record.get("record") == "latency_table"]
        try:
            tables = [cls.from_record(record) for record in found_records]
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if not tables:
            raise ValueError(f"{path} holds no latency table: make one with `hf-nasbert latency`")
        fitting = [table for table in tables if all(table.setting.get(key) == wanted[key] for key in wanted)]
        if len({str(table.setting) for table in fitting}) == 1:
            return fitting[-1]
        found = "; ".join(dict.fromkeys(table.described for table in fitting or tables))
        problem = (
            "several settings: say which, by its batch size and sequence length"
            if fitting
            else f"no table for {wanted}, and none is interpolated"
        )
        raise ValueError(f"{path} holds {problem}. It has: {found}")

    @property
    def described(self) -> str:
        """The setting in words."""
        batch = f"{self.setting['batch_size']}x{self.setting['sequence_length']} tokens"
        return f"{batch}, {self.setting['dtype']}, {self.setting['num_threads']} thread(s), {self.setting['device']}"

    @property
    def digest(self) -> str:
        """What tells its numbers from those of another measurement."""
        numbers = [sorted(self.operators_ms.items()), sorted(self.adapters_ms.items()), self.outside_ms]
        return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()[:16]

    def latency_ms(self, config: Any, architecture: Sequence[str]) -> float:
        """The milliseconds of one forward of a child, as `NasBertModel` at all positions.

        Raises:
            ValueError: If the architecture does not fit the config's stages, or an operator was not measured.
        """
        total, hidden = self.outside_ms, int(config.hidden_size)
        for names, width in stages_of(config, architecture):
            total += sum(self._measured(self.operators_ms, operator_key(name, width)) for name in names)
            if width != hidden:
                total += self._measured(self.adapters_ms, f"{hidden}->{width}")
                total += self._measured(self.adapters_ms, f"{width}->{hidden}")
        return total

    def check_sizes(self, config: Any) -> None:
        """Refuse a model of other sizes.

        Raises:
            ValueError: If one of the sizes is another; names it.
        """
        for name, measured in self.sizes.items():
            asked = latency_sizes(config).get(name)
            if asked != measured:
                raise ValueError(f"the latency table was measured with {name}={measured}, not {asked}: measure again")

    def _measured(self, table: Mapping[str, float], key: str) -> float:
        if key not in table:
            raise ValueError(f"the latency table ({self.described}) lacks {key}: it has {', '.join(sorted(table))}")
        return table[key]


def latency_sizes(config: Any) -> dict[str, Any]:
    """The sizes that a latency depends on."""
    return {name: getattr(config, name) for name in LATENCY_SIZES} | {"embedding_size": _embedding_size(config)}


def operator_key(name: str, width: int) -> str:
    """An operator under its full name, whether or not its space has widths: `"conv5@128"`."""
    kind = operator_kind(name)
    return SKIP if kind == SKIP else f"{kind}@{width}"


def cheapest(space: SearchSpace, cost: Callable[[Architecture], Any]) -> Architecture:
    """The child of least cost, exactly and without enumeration; of equals the one whose operators come first.

    `cost` must be a sum over stages, each a sum over its blocks given the stage's width: so are parameters, FLOPs and
    latencies from a table; or be ordered as if it were, as `block_peaks` are. Then stages, and blocks within a stage
    of given width and depth, can be chosen one by one.
    """
    best: list[str] = list(next(space.enumerate()))

    def cost_with(where: slice, names: list[str]) -> Any:
        return cost(Architecture(_replaced(best, where, names)))

    for where in space.stage_slices:
        cost_of = functools.partial(cost_with, where)
        offers = [_cheapest_part(chain, cost_of) for chain in _chains(space.blocks[where])]
        best = _replaced(best, where, min(offers, key=cost_of))
    # A space that lists its children may lack that one: there are few enough of them to look through.
    return Architecture(best) if best in space else min(space.enumerate(), key=cost)


@dataclass(frozen=True)
class Budget:
    """Caps on what a child may cost; None caps nothing. All caps hold at once.

    Args:
        max_parameters: Cap on `num_parameters`, embeddings and head included.
        max_flops: Cap on `flops`.
        max_latency_ms: Cap on `latency_ms`.
        max_memory: Cap on `peak_activation_bytes`, in bytes.

    Raises:
        ValueError: If a cap is not a positive number.
    """

    max_parameters: float | None = None
    max_flops: float | None = None
    max_latency_ms: float | None = None
    max_memory: float | None = None

    def __post_init__(self) -> None:
        for name, cap in vars(self).items():
            if cap is None:
                continue
            if not records.is_finite_number(cap) or cap <= 0:
                raise ValueError(f"{name} must be a positive number, not {cap!r}")

    @classmethod
    def parse(cls, **caps: str | float | None) -> Self:
        """A budget of caps as people write them: `Budget.parse(max_parameters="15M", max_flops="2.5G")`.

        Raises:
            ValueError: If a text is not a number, or a cap is not positive.
            TypeError: If there is no cap of that name.
        """
        numbers: dict[str, float | None] = {}
        for name, cap in caps.items():
            try:
                numbers[name] = parse_quantity(cap) if isinstance(cap, str) else cap
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return cls(**numbers)

    @property
    def caps(self) -> dict[str, float]:
        """The caps that are set, by the name of the cost that each one caps."""
        caps = {
            "num_parameters": self.max_parameters,
            "flops": self.max_flops,
            "latency_ms": self.max_latency_ms,
            "peak_activation_bytes": self.max_memory,
        }
        return {name: cap for name, cap in caps.items() if cap is not None}

    def admits(self, cost: Mapping[str, float]) -> bool:
        """Whether a child of this cost is within every cap."""
        return self.why_not(cost) is None

    def why_not(self, cost: Mapping[str, float]) -> str | None:
        """Which cap a child of this cost exceeds, in words, or None.

        Raises:
            ValueError: If a capped cost was not measured.
        """
        for name, cap in self.caps.items():
            if name not in cost:
                raise ValueError(f"the budget caps {name}, but the child's cost holds {sorted(cost)}: measure it too")
            if not cost[name] <= cap:  # so written, NaN exceeds every cap
                return f"{name} is {cost[name]:,} and may be at most {cap:,}"
        return None


def affordable(space: SearchSpace, cost: Callable[[Architecture], Cost], budget: Budget) -> Architecture | None:
    """A child within all caps at once, or None if there is none: exactly and without enumeration.

    Stage by stage, those beginnings of children are kept that can still end within the caps, but for those that cost
    as much as another one or more by every sum. Peak memory is no sum: it rules out the operators that exceed its cap,
    each by itself.

    Args:
        space: Where to look. A space that lists its children may lack the one found: then None too.
        cost: The costs of a child: sums as for `cheapest`, but for the peak of memory, whose order is `order_of`'s.
            Where sums of fractions meet a cap to the last digit, their rounding decides.
        budget: The caps.
    """
    start, caps = next(space.enumerate()), budget.caps
    peak, order = PEAK if PEAK in caps else None, order_of(cost, PEAK)
    sums = [name for name in caps if name != peak]
    if peak is not None:  # so that only what is tried in this child can exceed the cap
        start = cheapest(space, order)
    start_costs = cost(start)

    def with_part(where: slice, names: list[str]) -> Architecture:
        return Architecture(_replaced(list(start), where, names))

    def parts_of(where: slice, chain: list[list[str]]) -> list[_Part]:
        names = _cheapest_part(chain, lambda names: 0 if peak is None else order(with_part(where, names)))
        parts, before = [_Part((0,) * len(sums), ())], start_costs
        for block, candidates in enumerate(chain):
            offers = []
            for name in candidates:
                costs = cost(with_part(where, [*names[:block], name, *names[block + 1 :]]))
                if peak is None or costs[peak] <= caps[peak]:
                    offers.append(_Part(tuple(costs[name] - before[name] for name in sums), (name,)))
            parts = _undominated(_joined(parts, offers))
            before = cost(with_part(where, names))  # the first block bears what sets the chain apart from the start
        return parts

    stages = [
        _undominated(part for chain in _chains(space.blocks[where]) for part in parts_of(where, chain))
        for where in space.stage_slices
    ]
    found = [_Part(tuple(start_costs[name] for name in sums), ())]
    for number, stage in enumerate(stages):
        # What the stages that follow leave of each cap, at best; a hair more, for sums of fractions are rounded.
        room = [
            caps[name] * (1 + 1e-9)
            - sum(min((part.costs[i] for part in later), default=0) for later in stages[number + 1 :])
            for i, name in enumerate(sums)
        ]
        fitting = (part for part in _joined(found, stage) if all(map(operator.le, part.costs, room)))
        found = _undominated(fitting)
    children = (Architecture(part.names) for part in found)
    return next((child for child in children if child in space and budget.admits(cost(child))), None)


def parse_quantity(text: str) -> int | float:
    """The number that a text such as `"15M"`, `"2.5G"` or `"800_000"` means; suffixes K, M, G or B, and T.

    Raises:
        ValueError: If it means none.
    """
    if len(text) > _LONGEST_QUANTITY:
        raise ValueError(f"{text[:20]!r}... is not a quantity: its number is too long")
    match = re.fullmatch(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?|\.[0-9]+)\s*([KMGBT]?)\s*", text, flags=re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity: write a number such as 15M, 2.5G or 800000")
    factor = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}[match[2].upper()]
    value = Decimal(match[1]) * factor  # decimal, so that 2.3G is a whole number
    return int(value) if value == value.to_integral_value() else float(value)


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


def _embedding_size(config: Any) -> int:
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


def _chains(blocks: Sequence[Sequence[str]]) -> Iterator[list[list[str]]]:
    """The free choices in one stage: for each width and depth, the candidates of every block."""
    for width in dict.fromkeys(operator_width(name) for name in blocks[0] if name != SKIP):
        real = [[name for name in names if name != SKIP and operator_width(name) == width] for names in blocks]
        for depth in range(1, len(blocks) + 1):
            if all(SKIP in names for names in blocks[depth:]):
                yield real[:depth] + [[SKIP]] * (len(blocks) - depth)


def _cheapest_part(chain: list[list[str]], cost: Callable[[list[str]], Any]) -> list[str]:
    """The operators of a chain whose cost is least, chosen block by block."""
    names = [candidates[0] for candidates in chain]
    for block, candidates in enumerate(chain):
        names = min(([*names[:block], name, *names[block + 1 :]] for name in candidates), key=cost)
    return names


class _Part(NamedTuple):
    """Neighbouring operators of a child, and what they add to each of its costs."""

    costs: tuple[float, ...]
    names: tuple[str, ...]


def _joined(firsts: Iterable[_Part], seconds: Sequence[_Part]) -> Iterator[_Part]:
    """Every part followed by every other one."""
    for first in firsts:
        for second in seconds:
            yield _Part(tuple(map(operator.add, first.costs, second.costs)), first.names + second.names)


def _undominated(parts: Iterable[_Part]) -> list[_Part]:
    """The parts that no other one undercuts or equals in every cost; of equal ones one. Of at most three costs."""
    found = []
    # The costs but for the first, by which they come, of the parts that others are yet to be held against.
    seconds: list[float] = []  # ascending
    thirds: list[float] = []  # descending
    for part in sorted(parts, key=lambda part: part.costs):
        _, second, third = (*part.costs, 0, 0, 0)[:3]
        place = bisect.bisect_right(seconds, second)
        if place and thirds[place - 1] <= third:
            continue
        found.append(part)
        start = stop = bisect.bisect_left(seconds, second)
        while stop < len(thirds) and thirds[stop] >= third:
            stop += 1
        seconds[start:stop], thirds[start:stop] = [second], [third]
    return found


def _replaced(names: list[str], where: slice, part: list[str]) -> list[str]:
    return [*names[: where.start], *part, *names[where.stop :]]
