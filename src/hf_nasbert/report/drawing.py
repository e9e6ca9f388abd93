"""Numbers to places on a page: the axes, points and bars of the report's figures, drawn as SVG by its template."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from hf_nasbert.report.findings import Findings
from hf_nasbert.scored import ScoredChild
from hf_nasbert.space import Architecture, operator_kind

WIDTH, HEIGHT = 760, 400  # of a figure, in units of its own
LEFT, RIGHT, TOP, BOTTOM = 76, 742, 18, 344  # of the field that the points lie in
_FAR = 0.25  # a budget further away, in widths of the children's range, would squeeze them together


class Unit(NamedTuple):
    """What one unit of an axis is."""

    size: float
    name: str


class Tick(NamedTuple):
    """A line across the figure, and the number beside it."""

    place: float
    text: str


class Axis(NamedTuple):
    """Values to places: `low` of the values lies at `start`, `high` at `stop`."""

    low: float
    high: float
    start: float
    stop: float
    ticks: tuple[Tick, ...]

    def place(self, value: float) -> float:
        """Where a value lies, to a tenth of a unit of the page."""
        return _place(value, self.low, self.high, self.start, self.stop)


class Scatter(NamedTuple):
    """Loss over one cost: every child, the front, the winner and the budget."""

    cost: str
    unit: Unit
    x: Axis
    y: Axis
    dots: str
    line: str
    front: tuple[int, ...]
    points: tuple[tuple[float, float], ...]
    winner: tuple[float, float]
    cap: float | None


class Trajectory(NamedTuple):
    """Loss over the number of scored children, and the best so far."""

    x: Axis
    y: Axis
    dots: str
    line: str
    last: tuple[float, float]


class Bar(NamedTuple):
    """A part of a stacked bar."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    is_best: bool
    text: str


class Shares(NamedTuple):
    """How often every kind of operator stands in every block, among the best and among all."""

    num_best: int
    num_all: int
    width: float
    kinds: tuple[str, ...]
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    blocks: tuple[Tick, ...]
    best: tuple[tuple[float, ...], ...]
    everyone: tuple[tuple[float, ...], ...]


def unit_of(cost: str, largest: float) -> Unit:
    """The unit in which a cost is read: milliseconds, megabytes, or a power of ten."""
    if cost == "latency_ms":
        return Unit(1, "ms")
    powers = [(1e9, "billions", "GB"), (1e6, "millions", "MB"), (1e3, "thousands", "kB")]
    for size, name, of_bytes in powers:
        if largest >= size:
            return Unit(size, of_bytes if cost == "peak_activation_bytes" else name)
    return Unit(1, "bytes" if cost == "peak_activation_bytes" else "")


def draw_scatter(findings: Findings, cost: str, winner: int) -> Scatter:
    """Loss over a cost, of every child."""
    costs = [child.cost[cost] for child in findings.children]
    unit = unit_of(cost, max(costs))
    cap = findings.caps.get(cost)
    reach = _FAR * (max(costs) - min(costs) or abs(max(costs)))
    shown = [cap] if cap is not None and min(costs) - reach <= cap <= max(costs) + reach else []
    x = _axis([value / unit.size for value in [*costs, *shown]], LEFT, RIGHT)
    y = _axis([child.loss for child in findings.children], BOTTOM, TOP)
    places = [(x.place(child.cost[cost] / unit.size), y.place(child.loss)) for child in findings.children]
    front = findings.front(cost)
    points = tuple(places[place] for place in front)
    return Scatter(
        cost=cost,
        unit=unit,
        x=x,
        y=y,
        dots=_dots(places),
        line=_steps(points),
        front=tuple(front),
        points=points,
        winner=places[winner],
        cap=x.place(shown[0] / unit.size) if shown else None,
    )


def draw_trajectory(children: Sequence[ScoredChild]) -> Trajectory:
    """Every child's loss in the order of scoring, and the best so far."""
    losses = [child.loss for child in children]
    x, y = _axis([1, len(losses)], LEFT, RIGHT, whole=True), _axis(losses, BOTTOM, TOP)
    best = list(itertools.accumulate(losses, min))
    turns = [place for place in range(len(best)) if place in (0, len(best) - 1) or best[place] < best[place - 1]]
    line = [(x.place(place + 1), y.place(best[place])) for place in turns]
    dots = _dots([(x.place(place + 1), y.place(loss)) for place, loss in enumerate(losses)])
    return Trajectory(x, y, dots, _steps(line), line[-1])


def draw_shares(ranked: Sequence[Architecture], kinds: Sequence[str], share: float) -> Shares:
    """Stacked bars per choice block: wide for the best share of the ranked children, narrow for all of them."""
    best = ranked[: max(1, round(share * len(ranked)))]
    step = max(54.0, min(104.0, (RIGHT - LEFT) / len(ranked[0])))
    groups = {True: _shares(best, kinds), False: _shares(ranked, kinds)}
    bars = []
    for is_best, offset, width in ((False, 0.08, 0.14), (True, 0.26, 0.62)):
        for block, parts in enumerate(groups[is_best]):
            bottom = 0.0
            for kind, part in zip(kinds, parts, strict=True):
                if part:
                    top = bottom + part
                    y = _place(top, 0, 1, BOTTOM, TOP)
                    height = round(_place(bottom, 0, 1, BOTTOM, TOP) - y, 1)
                    x = round(LEFT + step * (block + offset), 1)
                    whose = f"the best {len(best):,}" if is_best else f"all {len(ranked):,}"
                    text = f"block {block}: {kind} in {100 * part:.0f} % of {whose}"
                    bars.append(Bar(kind, x, y, round(step * width, 1), height, is_best, text))
                    bottom = top
    return Shares(
        num_best=len(best),
        num_all=len(ranked),
        width=round(LEFT + step * len(ranked[0]) + WIDTH - RIGHT, 1),
        kinds=tuple(kinds),
        bars=tuple(bars),
        ticks=tuple(Tick(_place(part, 0, 100, BOTTOM, TOP), f"{part}") for part in (0, 25, 50, 75, 100)),
        blocks=tuple(Tick(round(LEFT + step * (block + 0.57), 1), str(block)) for block in range(len(ranked[0]))),
        best=tuple(groups[True]),
        everyone=tuple(groups[False]),
    )


def _shares(architectures: Sequence[Architecture], kinds: Sequence[str]) -> list[tuple[float, ...]]:
    """Per block, the share of the children that have each kind of operator there."""
    counts = [Counter(map(operator_kind, names)) for names in zip(*architectures, strict=True)]
    return [tuple(count[kind] / len(architectures) for kind in kinds) for count in counts]


def _axis(values: Sequence[float], start: float, stop: float, *, whole: bool = False) -> Axis:
    """An axis that holds all values with a little room, and round numbers along it."""
    low, high = min(values), max(values)
    room = 0.04 * (high - low) or abs(high) * 0.05 or 1.0
    low, high = low - room, high + room
    rough = (high - low) / 7
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    if whole:
        step = max(1.0, round(step))
    decimals = next((digits for digits in range(12) if abs(round(step, digits) - step) < step * 1e-6), 12)
    numbers = [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
    ticks = tuple(
        Tick(_place(number, low, high, start, stop), f"{number + 0.0:,.{decimals}f}")
        for number in numbers
        if not whole or number >= 1
    )
    return Axis(low, high, start, stop, ticks)


def _place(value: float, low: float, high: float, start: float, stop: float) -> float:
    return round(start + (value - low) / (high - low) * (stop - start), 1)


def _dots(places: Sequence[tuple[float, float]]) -> str:
    """One path for all points: lines of no length, which the round ends of the pen make dots."""
    return "".join(f"M{x:g} {y:g}h0" for x, y in places)


def _steps(points: Sequence[tuple[float, float]]) -> str:
    """Across, then down: up to the next point the last one is the best there is."""
    (x, y), rest = points[0], points[1:]
    return f"M{x:g} {y:g}" + "".join(f"H{x:g}V{y:g}" for x, y in rest)
