"""A super-net's folder in, a table of its operators' latencies on this device out, checked against real children."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from hf_nasbert import records
from hf_nasbert.extraction import load_supernet_config
from hf_nasbert.measuring import Device, check_memory, measure_latencies
from hf_nasbert.paths import expand_paths
from hf_nasbert.processes import be_alone
from hf_nasbert.records import Record
from hf_nasbert.writing import check_writable

_MOST_CHILDREN = 100_000  # each is run many times


@dataclass(kw_only=True)
class LatencyArguments:
    """Whose operators to measure, where and on which batch: what a table holds for, and nothing else.

    Raises:
        ValueError: If a number lies outside its range, or the clock does not fit the device.
    """

    supernet: str = field(metadata={"help": "Folder of the super-net; only its config.json is read."})
    output: str = field(metadata={"help": "File of records that the table and its check are added to."})
    batch_size: int = field(default=8, metadata={"help": "Sequences in the batch."})
    sequence_length: int = field(default=128, metadata={"help": "Tokens of each, all of them real."})
    device: Literal["cpu", "cuda"] = field(default="cpu", metadata={"help": "Where children will run."})
    dtype: Literal["float32", "bfloat16", "float16"] = field(default="float32", metadata={"help": "Their precision."})
    num_threads: int = field(default=1, metadata={"help": "Torch's threads on a CPU."})
    clock: Literal["auto", "cpu", "wall"] = field(
        default="auto",
        metadata={
            "help": "cpu: the time of the thread itself, which neighbours on the machine hardly change; wall: all "
            "that passes. By default cpu for one thread on a CPU, else wall."
        },
    )
    num_visits: int = field(default=100, metadata={"help": "Forwards in which each operator is timed at least."})
    num_children: int = field(default=30, metadata={"help": "Random children to check the table against."})
    num_rounds: int = field(default=10, metadata={"help": "How often each of them is visited."})
    seed: int = field(default=0, metadata={"help": "Seed of the draws."})

    def __post_init__(self) -> None:
        expand_paths(self)
        for name in ("num_visits", "num_rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.num_children < 2:
            raise ValueError(f"num_children={self.num_children} must be at least 2: they are to be compared")
        if self.num_children > _MOST_CHILDREN:
            raise ValueError(f"num_children={self.num_children}: at most {_MOST_CHILDREN:,} are run")


def measure_latency(arguments: LatencyArguments) -> list[Record]:
    """Measure the table, check it and the memory estimate against real children, and add all three to the file.

    Returns:
        The records: the table, its check, and that of the memory estimate.

    Raises:
        FileNotFoundError: If there is no such super-net.
        ValueError: If the folder holds none, or a setting does not fit it or the device.
        WriteError: If the file cannot be written.
    """
    be_alone("measuring latencies")
    check_writable(arguments.output, is_appended=True)
    config = load_supernet_config(arguments.supernet)
    device = Device(
        batch_size=arguments.batch_size,
        sequence_length=arguments.sequence_length,
        device=arguments.device,
        dtype=arguments.dtype,
        num_threads=arguments.num_threads,
        clock=None if arguments.clock == "auto" else arguments.clock,
    )
    table, check = measure_latencies(
        config,
        device,
        num_visits=arguments.num_visits,
        num_children=arguments.num_children,
        num_rounds=arguments.num_rounds,
        seed=arguments.seed,
        progress=True,
    )
    measured = [table, check, check_memory(config, device, num_children=arguments.num_children, seed=arguments.seed)]
    records.extend(arguments.output, measured)
    return measured


def as_text(measured: Sequence[Record]) -> str:
    """The table and how far it is from real children, as text."""
    table, latency, memory = measured
    setting = table["setting"]
    lines = [
        f"{setting['batch_size']} x {setting['sequence_length']} tokens, {setting['dtype']}, "
        f"{setting['num_threads']} thread(s), {setting['clock']} clock, {setting['device']}:"
    ]
    parts = {**table["operators_ms"], **table["adapters_ms"], "all else": table["outside_ms"]}
    lines += [f"  {name:<16} {milliseconds:>9.3f} ms" for name, milliseconds in parts.items()]
    lines.append(
        f"latency of {len(latency['children'])} random children: {_errors(latency)}; two halves of their own "
        f"measurements: {_errors(latency, 'repeat_')}"
    )
    lines.append(f"peak memory of their activations: {_errors(memory)}")
    return "\n".join(lines)


def _errors(check: Record, prefix: str = "") -> str:
    mape, spearman = check[f"{prefix}mape_percent"], check[f"{prefix}spearman"]
    return f"MAPE {mape:.1f} %, {'all children alike' if spearman is None else f'Spearman {spearman:.3f}'}"
