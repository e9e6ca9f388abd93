"""What a latency table promised, measured: a search's winner and front are run here before they are returned."""

import sys
from collections.abc import Callable, Mapping, Sequence

from tqdm import tqdm

from hf_nasbert import records
from hf_nasbert.costs import LatencyTable
from hf_nasbert.foreign import printable
from hf_nasbert.measuring import Device, measure_children
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.records import Record
from hf_nasbert.search import pareto_front
from hf_nasbert.space import Architecture

MOST_MEASURED = 60
"""Children slower than the table says before it is no longer believed."""

Measure = Callable[[Sequence[Architecture]], list[float]]


def measure_here(table: LatencyTable, config: SupernetConfig) -> Measure | None:
    """What measures children as the table was measured, or None where this is not the table's device."""
    device = Device.of(table.setting)
    return None if device is None else lambda children: measure_children(config, device, children)


def confirm_latency(
    scored: Sequence[Record], *, cap: float, objectives: Sequence[str], measure: Measure, history: str
) -> list[Record]:
    """Measure the best child and the front; those above the cap are passed over, and the next ones measured.

    Args:
        scored: Scored children, best first, each within the budget by the table.
        cap: Cap on the latency, in milliseconds.
        objectives: The costs that the front is of, beside the loss.
        measure: Milliseconds of children, measured.
        history: File of the search, to which every measurement is added.

    Returns:
        The children but those passed over, in the same order; those that were measured have `measured_latency_ms`.

    Raises:
        ValueError: If so many are above the cap that the table does not hold here.
    """
    measured: dict[str, float] = {}
    if not scored:
        return []
    while True:
        kept = [record for record in scored if not measured.get(record["architecture"], 0.0) > cap]
        missing = [name for name in _winner_and_front(kept, objectives) if name not in measured]
        if kept and not missing:
            return [_with_measured(record, measured) for record in kept]
        num_slow = sum(milliseconds > cap for milliseconds in measured.values())
        if num_slow >= MOST_MEASURED or not kept:
            raise ValueError(
                f"{num_slow} of {len(measured)} children that the latency table puts below {cap:,} ms are slower "
                f"here: measure a new table (hf-nasbert latency) on a quiet machine, or trust it (no_measure_winner)"
            )
        times = measure([Architecture.parse(name) for name in missing])
        new = dict(zip(missing, times, strict=True))
        measured |= new
        expected = {record["architecture"]: record["latency_ms"] for record in kept}
        records.extend(
            history,
            [
                {
                    "record": "measured",
                    "architecture": name,
                    "expected_latency_ms": expected[name],
                    "latency_ms": milliseconds,
                }
                for name, milliseconds in new.items()
            ],
        )
        for name, milliseconds in new.items():
            if milliseconds > cap:
                say(f"passed over {name}: {expected[name]:.2f} ms by the table, {milliseconds:.2f} ms measured")


def say(text: str) -> None:
    """Tell the user, beside any bar."""
    tqdm.write(printable(text), file=sys.stderr)


def _winner_and_front(scored: Sequence[Record], objectives: Sequence[str]) -> list[str]:
    finite = [record for record in scored if record["proxy_loss"] is not None]
    front = pareto_front([[record["proxy_loss"], *(record[name] for name in objectives)] for record in finite])
    return list(dict.fromkeys(finite[place]["architecture"] for place in [*range(min(1, len(finite))), *front]))


def _with_measured(record: Record, measured: Mapping[str, float]) -> Record:
    name = record["architecture"]
    return {**record, "measured_latency_ms": measured[name]} if name in measured else record
