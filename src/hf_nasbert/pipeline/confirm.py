"""What a latency table promised, measured: a search's winner and front are run here before they are returned."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from hf_nasbert import records
from hf_nasbert.costs import LatencyTable
from hf_nasbert.measuring import Device, measure_children
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.pipeline.text_settings import say
from hf_nasbert.scored import ScoredChild
from hf_nasbert.searching import pareto_front
from hf_nasbert.space import Architecture

MOST_MEASURED = 60
"""Children slower than the table says before it is no longer believed."""

Measure = Callable[[Sequence[Architecture]], list[float]]


def measure_here(table: LatencyTable, config: SupernetConfig) -> Measure | None:
    """What measures children as the table was measured, or None where this is not the table's device."""
    device = Device.of(table.setting)
    return None if device is None else lambda children: measure_children(config, device, children)


def confirm_latency(
    scored: Sequence[ScoredChild], *, cap: float, objectives: Sequence[str], measure: Measure, history: str
) -> list[ScoredChild]:
    """Measure the best child and the front; those above the cap are passed over, and the next ones measured.

    Args:
        scored: Scored children, best first, each within the budget by the table.
        cap: Cap on the latency, in milliseconds.
        objectives: The costs that the front is of, beside the loss.
        measure: Milliseconds of children, measured.
        history: File of the search, to which every measurement is added.

    Returns:
        The children but those passed over, in the same order, and `measured_latency_ms` of those that were measured.

    Raises:
        ValueError: If so many are above the cap that the table does not hold here.
    """
    measured: dict[Architecture, float] = {}
    if not scored:
        return []
    while True:
        kept = [child for child in scored if not measured.get(child.architecture, 0.0) > cap]
        best = [child for child in kept if child.proxy_loss is not None][:1]
        wanted = [child.architecture for child in [*best, *front_of(kept, objectives)]]
        missing = [child for child in dict.fromkeys(wanted) if child not in measured]
        if kept and not missing:
            return [replace(child, measured_latency_ms=measured.get(child.architecture)) for child in kept]
        num_slow = sum(milliseconds > cap for milliseconds in measured.values())
        if num_slow >= MOST_MEASURED or not kept:
            raise ValueError(
                f"{num_slow} of {len(measured)} children that the latency table puts below {cap:,} ms are slower "
                f"here: measure a new table (hf-nasbert latency) on a quiet machine, or trust it (no_measure_winner)"
            )
        new = dict(zip(missing, measure(missing), strict=True))
        measured |= new
        expected = {child.architecture: child.cost["latency_ms"] for child in kept}
        records.extend(
            history,
            [
                {
                    "record": "measured",
                    "architecture": str(child),
                    "expected_latency_ms": expected[child],
                    "latency_ms": milliseconds,
                }
                for child, milliseconds in new.items()
            ],
        )
        for child, milliseconds in new.items():
            if milliseconds > cap:
                say(f"passed over {child}: {expected[child]:.2f} ms by the table, {milliseconds:.2f} ms measured")


def front_of(
    scored: Sequence[ScoredChild], objectives: Sequence[str], dev_set: str | None = None
) -> list[ScoredChild]:
    """The children than which none is better in loss, on this dev set, and these costs at once."""
    losses = [child.loss if dev_set is None else child.dev_losses.get(dev_set, math.inf) for child in scored]
    points = [[loss, *(c.cost[name] for name in objectives)] for loss, c in zip(losses, scored, strict=True)]
    return [scored[place] for place in pareto_front(points)]
