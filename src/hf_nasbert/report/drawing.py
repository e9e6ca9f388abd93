"""Numbers to places on a page: the axes, points and bars of the report's figures, drawn as SVG by its template."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from hf_nasbert.report.content import Content
from hf_nasbert.space import Architecture, operator_kind

WIDTH, HEIGHT = 760, 400  # of a figure, in units of its own
LEFT, RIGHT, TOP, BOTTOM = 92, 742, 18, 344  # of the field that the points lie in
_LETTER, _LINE, _WIDE = 10, 16, 260  # of names: half a height, from line to line, and what two may take across
_LETTER_WIDTH = 6.8
_ARROW = 5  # the height of the end of an interval that goes on; the page's script draws the same
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


class Label(NamedTuple):
    """The name of a marked point, beside it."""

    x: float
    y: float
    anchor: str
    text: str


class Marker(NamedTuple):
    """A point with a sign of its own."""

    x: float
    y: float
    kind: str
    name: str


class Drawn(NamedTuple):
    """What a figure shows of one series."""

    dots: str
    line: str
    front: tuple[int, ...]
    points: tuple[tuple[float, float], ...]
    winner: tuple[float, float] | None
    cap: float | None


class Scatter(NamedTuple):
    """A measure over a cost: every point, and of each series the front, the winner and the budget.

    `tied` are the points that cannot be told apart from the winner of the first series, `errors` the 95 % intervals of
    the differences from it, of its front and of the marked points: `has_arrows` where some go on beyond the field.
    `caps` are the budgets, and whether each is near enough to be drawn.
    """

    measure: int
    cost: int
    unit: Unit
    x: Axis
    y: Axis
    series: tuple[Drawn, ...]
    tied: str
    errors: str
    has_arrows: bool
    markers: tuple[Marker, ...]
    labels: tuple[Label, ...]
    caps: tuple[tuple[float, bool], ...]


class Trajectory(NamedTuple):
    """A measure over the number of scored children, and the best so far, of each series."""

    x: Axis
    y: Axis
    dots: tuple[str, ...]
    lines: tuple[str, ...]
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
    if cost.startswith("latency_"):
        return Unit(1, "ms")
    is_bytes = cost.endswith("_bytes")
    powers = [(1e9, "billions", "GB"), (1e6, "millions", "MB"), (1e3, "thousands", "kB")]
    for size, name, of_bytes in powers:
        if largest >= size:
            return Unit(size, of_bytes if is_bytes else name)
    return Unit(1, "bytes" if is_bytes else "")


def draw_scatter(content: Content, measure: int, cost: int) -> Scatter:
    """A measure over a cost, of every point."""
    by, price = content.measures[measure], content.costs[cost]
    known = {
        place: (spent, value)
        for place, (spent, value) in enumerate(zip(price.values, by.values, strict=True))
        if spent is not None and value is not None
    }
    costs = [spent for spent, _ in known.values()]
    unit = unit_of(price.key, max(costs))
    asked_for = [one.caps.get(price.key) for one in content.series]
    reach = _FAR * (max(costs) - min(costs) or abs(max(costs)))
    near = (min(costs) - reach, max(costs) + reach)
    caps = [cap if cap is not None and near[0] <= cap <= near[1] else None for cap in asked_for]
    shown = [cap for cap in caps if cap is not None]
    x = _axis([value / unit.size for value in [*costs, *shown]], LEFT, RIGHT)
    y = _axis([value for _, value in known.values()], BOTTOM, TOP)
    places = {place: (x.place(spent / unit.size), y.place(value)) for place, (spent, value) in known.items()}
    series = []
    for number, one in enumerate(content.series):
        front = content.front(measure, cost, number)
        points = tuple(places[place] for place in front)
        cap = caps[number]
        series.append(
            Drawn(
                dots=_dots([places[place] for place in sorted(one.ranking) if place in places]),
                line=_steps(points),
                front=tuple(front),
                points=points,
                winner=places.get(one.winner),
                cap=None if cap is None else x.place(cap / unit.size),
            )
        )
    winner = content.series[0].winner
    tied = [place for place in content.series[0].ranking if place != winner and by.is_tied(place, winner)]
    barred = dict.fromkeys([*series[0].front, *(mark.place for mark in content.marks)])
    markers = tuple(
        Marker(*places[mark.place], mark.kind, mark.name) for mark in content.marks if mark.place in places
    )
    errors = "".join(
        _error(places[place], doubt, y)
        for place in barred
        if place in places and place != winner and (doubt := by.doubt(place, winner)) is not None
    )
    return Scatter(
        measure=measure,
        cost=cost,
        unit=unit,
        x=x,
        y=y,
        series=tuple(series),
        tied=_dots([places[place] for place in sorted(tied) if place in places]),
        errors=errors,
        has_arrows="l3" in errors,
        markers=markers,
        labels=_labels(markers),
        caps=tuple(dict.fromkeys((asked, asked in shown) for asked in asked_for if asked is not None)),
    )


def _error(place: tuple[float, float], doubt: float, y: Axis) -> str:
    """A line up and down from a point, with its ends across; an arrow where it goes on beyond the field."""
    half = doubt / (y.high - y.low) * abs(y.stop - y.start)
    above, below = place[1] - half, place[1] + half
    top, bottom = max(above, TOP), min(below, BOTTOM)
    begin = f"{top:.1f}h6m-3 0" if above >= TOP else f"{top + _ARROW:.1f}l3-{_ARROW} 3 {_ARROW}m-3-{_ARROW}"
    end = "m-3 0h6" if below <= BOTTOM else f"m-3-{_ARROW}l3 {_ARROW} 3-{_ARROW}"
    return f"M{place[0] - 3:.1f} {begin}V{bottom:.1f}{end}"


def _labels(markers: Sequence[Marker]) -> tuple[Label, ...]:
    """Names beside their points, each below the one above it where they would lie on each other."""
    labels: list[Label] = []
    for marker in sorted(markers, key=lambda one: one.y):
        is_left = marker.x + 13 + _LETTER_WIDTH * len(marker.name) > WIDTH
        x = round(marker.x + (-13 if is_left else 13), 1)
        y = min(max(marker.y, TOP + _LETTER), BOTTOM - _LETTER)
        for other in labels:
            if (other.anchor == "end") == is_left and abs(other.x - x) < _WIDE and y - other.y < _LINE:
                y = other.y + _LINE
        labels.append(Label(x, round(y, 1), "end" if is_left else "start", marker.name))
    return tuple(_above_the_axis(labels))


def _above_the_axis(labels: Sequence[Label]) -> list[Label]:
    """The names, in the same order, with those moved up that would lie on the axis or below it."""
    moved: list[Label] = []
    for label in reversed(labels):
        y = min(label.y, BOTTOM - _LETTER)
        for other in moved:
            if other.anchor == label.anchor and abs(other.x - label.x) < _WIDE and other.y - y < _LINE:
                y = other.y - _LINE
        moved.append(label._replace(y=round(y, 1)))
    return moved[::-1]


def draw_trajectory(content: Content) -> Trajectory:
    """The first measure of every candidate in the order of scoring, and the best so far."""
    values = [
        [value for place in sorted(one.ranking) if (value := content.measures[0].values[place]) is not None]
        for one in content.series
    ]
    x = _axis([1, max(map(len, values))], LEFT, RIGHT, whole=True)
    y = _axis([value for own in values for value in own], BOTTOM, TOP)
    dots, lines, last = [], [], (0.0, 0.0)
    for own in values:
        best = list(itertools.accumulate(own, min))
        turns = [place for place in range(len(best)) if place in (0, len(best) - 1) or best[place] < best[place - 1]]
        line = [(x.place(place + 1), y.place(best[place])) for place in turns]
        dots.append(_dots([(x.place(place + 1), y.place(value)) for place, value in enumerate(own)]))
        lines.append(_steps(line))
        last = line[-1]
    return Trajectory(x, y, tuple(dots), tuple(lines), last)


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
