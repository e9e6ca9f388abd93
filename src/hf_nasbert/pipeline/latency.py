"""A super-net's folder in, a table of its operators' latencies on this device out, checked against real children."""

from collections.abc import Sequence

from hf_nasbert import records
from hf_nasbert.extraction import load_supernet_config
from hf_nasbert.measuring import Device, check_memory, measure_latencies
from hf_nasbert.pipeline.arguments import LatencyArguments
from hf_nasbert.processes import be_alone
from hf_nasbert.records import Record
from hf_nasbert.writing import check_writable


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
