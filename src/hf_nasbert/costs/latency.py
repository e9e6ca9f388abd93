"""Latencies of children from a table, which `hf_nasbert.measuring` makes on the device itself."""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hf_nasbert import records
from hf_nasbert.costs.counts import embedding_size
from hf_nasbert.modeling.geometry_nasbert import SKIP, Block, geometry_of, parse_operator
from hf_nasbert.records import Record

_SETTING = ("device", "batch_size", "sequence_length", "dtype", "num_threads")  # what a latency was measured with
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


@dataclass(frozen=True)
class LatencyTable:
    """Measured latencies of operators on one device, of which a child's is the sum.

    A chain's latency is nearly additive, so a table serves; how nearly, the record beside it says. It holds for the
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
        parts = (self.block_ms(block) for block in geometry_of(config, architecture))
        return sum(itertools.chain.from_iterable(parts), start=self.outside_ms)

    def block_ms(self, block: Block) -> list[float]:
        """The milliseconds of a block's operator, and of its projections where it stands at a stage's border.

        Raises:
            ValueError: If one was not measured.
        """
        widths = ((block.input_width, block.width), (block.width, block.output_width))
        return [
            self._measured(self.operators_ms, operator_key(block.name, block.width)),
            *(self._measured(self.adapters_ms, f"{a}->{b}") for a, b in widths if a != b),
        ]

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
    return {name: getattr(config, name) for name in LATENCY_SIZES} | {"embedding_size": embedding_size(config)}


def operator_key(name: str, width: int) -> str:
    """An operator under its full name, whether or not its space has widths: `"conv5@128"`."""
    candidate = parse_operator(name).candidate
    return SKIP if candidate == SKIP else f"{candidate}@{width}"
