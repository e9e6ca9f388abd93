"""A super-net's folder in, a table of its operators' latencies on this device out, checked against real children."""

from collections.abc import Sequence

from hf_nasbert import records
from hf_nasbert.costs import LatencyTable, carry_table
from hf_nasbert.extraction import load_supernet_config
from hf_nasbert.measuring import Device, check_memory, compared, draw_children, measure_children, measure_latencies
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.pipeline.arguments import LatencyArguments
from hf_nasbert.processes import be_alone
from hf_nasbert.records import Record
from hf_nasbert.writing import check_apart, check_writable


def measure_latency(arguments: LatencyArguments) -> list[Record]:
    """Measure the table, check it and the memory estimate against real children, and add all three to the file.

    With `from_table`, a table of another device is carried here by the latencies of a few children instead
    (`costs.carry_table`); its check holds each of them against what the others say.

    Returns:
        The records: the table, its check, and, of a table that was measured, that of the memory estimate.

    Raises:
        FileNotFoundError: If there is no such super-net.
        ValueError: If the folder holds none, a setting does not fit it or the device, or a carried table was to lie in
            the file of the other one.
        WriteError: If the file cannot be written.
    """
    be_alone("measuring latencies")
    check_writable(arguments.output, is_appended=True)
    check_apart(output=arguments.output, from_table=arguments.from_table)  # a search could not tell the two tables
    config = load_supernet_config(arguments.supernet)
    device = Device(
        batch_size=arguments.batch_size,
        sequence_length=arguments.max_seq_length,
        device=arguments.device,
        dtype=arguments.dtype,
        num_threads=arguments.num_threads,
        clock=None if arguments.clock == "auto" else arguments.clock,
    )
    if arguments.from_table is not None:
        carried = _carry(arguments, config, device)
        records.extend(arguments.output, carried)
        return carried
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


def _carry(arguments: LatencyArguments, config: SupernetConfig, device: Device) -> list[Record]:
    """The table of another device for this one, and its check."""
    wanted = {"batch_size": arguments.batch_size, "sequence_length": arguments.max_seq_length}
    table = LatencyTable.read(str(arguments.from_table), **wanted)
    table.check_sizes(config)
    children = draw_children(config, arguments.num_children, arguments.seed)
    found = measure_children(config, device, children, num_rounds=arguments.num_rounds)
    carried = carry_table(table, config, list(children), found, **device.setting)
    entries = {name: getattr(carried.table, name) for name in ("operators_ms", "adapters_ms", "outside_ms", "sizes")}
    about = {"setting": device.setting, "versions": records.versions()}
    check = compared("latency_ms", children, carried.left_out_ms, found)
    return [
        {"record": "latency_table", **entries, "carried_from": table.described, "factors": carried.factors, **about},
        {"record": "latency_check", **check, **about},
    ]


def as_text(measured: Sequence[Record]) -> str:
    """The table and how far it is from real children, as text."""
    table, latency, *memory = measured
    setting = table["setting"]
    lines = [
        f"{setting['batch_size']} x {setting['sequence_length']} tokens, {setting['dtype']}, "
        f"{setting['num_threads']} thread(s), {setting['clock']} clock, {setting['device']}:"
    ]
    parts = {**table["operators_ms"], **table["adapters_ms"], "all else": table["outside_ms"]}
    lines += [f"  {name:<16} {milliseconds:>9.3f} ms" for name, milliseconds in parts.items()]
    if not memory:
        factors = ", ".join(f"{kind} {factor:.2f}" for kind, factor in table["factors"].items())
        lines.append(f"carried from {table['carried_from']}, by factors: {factors}")
        lines.append(f"each of {len(latency['children'])} random children as the others say: {_errors(latency)}")
        return "\n".join(lines)
    lines.append(
        f"latency of {len(latency['children'])} random children: {_errors(latency)}; two halves of their own "
        f"measurements: {_errors(latency, 'repeat_')}"
    )
    lines.append(f"peak memory of their activations: {_errors(memory[0])}")
    return "\n".join(lines)


def _errors(check: Record, prefix: str = "") -> str:
    mape, spearman = check[f"{prefix}mape_percent"], check[f"{prefix}spearman"]
    return f"MAPE {mape:.1f} %, {'all children alike' if spearman is None else f'Spearman {spearman:.3f}'}"
