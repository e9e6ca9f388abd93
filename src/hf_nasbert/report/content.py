"""What a page shows, whatever it is of: points with their measures and costs, series of them, and what is said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from hf_nasbert.report.doubt import half_width
from hf_nasbert.searching import pareto_front


class Format(NamedTuple):
    """How a number is read: divided, rounded, and with its unit after it; the page's script does the same."""

    name: str
    divisor: float
    digits: int
    suffix: str

    def text(self, value: float) -> str:
        """The number as it is read."""
        return f"{value / self.divisor:,.{self.digits}f}{self.suffix}"


FORMATS = {
    "num_parameters": Format("parameters", 1, 0, ""),
    "num_encoder_parameters": Format("parameters of the blocks", 1, 0, ""),
    "flops": Format("FLOPs", 1e6, 1, " M"),
    "latency_ms": Format("latency", 1, 2, " ms"),
    "peak_activation_bytes": Format("peak activations", 1e6, 2, " MB"),
    "file_bytes": Format("file size", 1e6, 1, " MB"),
}


def format_of(cost: str) -> Format:
    """How a cost is read; of one that is not known, its own name and six digits."""
    return FORMATS.get(cost, Format(cost.replace("_", " "), 1, 6, ""))


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What points are judged by.

    Args:
        name: Such as "proxy loss".
        is_low_better: Whether the smaller is the better.
        values: One number per point; None where it was not measured.
        samples: The numbers behind each value, of dev batches or of seeds; empty where they are not known.
        are_paired: Whether samples of two points belong together one by one.
        reference: The point that `known` is of.
        known: Half the 95 % interval of the difference from the reference, where it is known otherwise.
    """

    name: str
    is_low_better: bool
    values: tuple[float | None, ...]
    samples: tuple[tuple[float, ...], ...] = ()
    are_paired: bool = False
    reference: int | None = None
    known: Mapping[int, float] = field(default_factory=dict)

    def doubt(self, place: int, other: int) -> float | None:
        """Half the 95 % interval of the difference of two points; None where it is not known."""
        for one, two in ((place, other), (other, place)):
            if two == self.reference and one in self.known:
                return self.known[one]
        return (
            half_width(self.samples[place], self.samples[other], are_paired=self.are_paired) if self.samples else None
        )

    def ahead(self, place: int, other: int) -> float | None:
        """How much better one point is than another; None where it was not measured."""
        one, two = self.values[place], self.values[other]
        return None if one is None or two is None else (two - one if self.is_low_better else one - two)

    def is_tied(self, place: int, other: int) -> bool:
        """Whether two points cannot be told apart: the interval of their difference holds 0."""
        doubt, ahead = self.doubt(place, other), self.ahead(place, other)
        return doubt is not None and ahead is not None and abs(ahead) <= doubt


class Cost(NamedTuple):
    """What points cost: a number for each, None where it is not known."""

    key: str
    format: Format
    values: tuple[float | None, ...]


class Mark(NamedTuple):
    """A point with a sign of its own in the figures."""

    place: int
    kind: str  # "base", "bert", "hand", "found" or "given"
    name: str
    series: int = 0


@dataclass(frozen=True, kw_only=True)
class Series:
    """The points of one search, or of one compression.

    Args:
        name: What tells it from the other; empty where there is one.
        ranking: Its candidates, best first, by what chooses: others are there to compare them with.
        winner: The best within its budget.
        caps: The budget, by cost.
    """

    name: str
    ranking: tuple[int, ...]
    winner: int
    caps: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def ranks(self) -> dict[int, int]:
        """The rank of every candidate, counted from 1."""
        return {place: rank for rank, place in enumerate(self.ranking, start=1)}


@dataclass(frozen=True, kw_only=True)
class Section:
    """A further part of a page: words, and tables of text."""

    title: str
    lines: tuple[str, ...] = ()
    tables: tuple[tuple[tuple[str, ...], ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Content:
    """All that a page shows.

    Args:
        title: Its title.
        noun: What a point is, such as "child".
        lead: What was won, in a sentence.
        doubts: How sure that is, in sentences.
        facts: Names and values, at its head.
        architectures: One per point, as text.
        measures: What points are judged by; the first one is what is ranked by, or the nearest to it.
        costs: What they cost.
        series: One, or two to compare.
        marks: Points with a sign of their own.
        notes: What is said beside a point's numbers.
        commands: The command of a point, where it has one.
        stages: The first block of every stage of widths, with its name.
        trajectory: Whether the points came one after another, each by what was learnt of those before.
        sections: What else is said.
        details: Names and values at its end.
        note: A sentence about the commands.
    """

    title: str
    noun: tuple[str, str] = ("child", "children")
    lead: str
    doubts: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    architectures: tuple[str, ...]
    measures: tuple[Measure, ...]
    costs: tuple[Cost, ...]
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    notes: Mapping[int, str] = field(default_factory=dict)
    commands: "Commands"
    stages: Mapping[int, str] = field(default_factory=dict)
    trajectory: str | None = None
    sections: tuple[Section, ...] = ()
    details: tuple[tuple[str, str], ...] = ()
    note: str | None = None

    def front(self, measure: int, cost: int, series: int) -> list[int]:
        """The places of a series that no other of it beats in a measure and a cost, by rising cost."""
        by, price = self.measures[measure], self.costs[cost]
        sign = 1 if by.is_low_better else -1
        known = {}
        for place in self.series[series].ranking:
            value, spent = by.values[place], price.values[place]
            if value is not None and spent is not None:
                known[place] = (spent, sign * value)
        places = sorted(known)
        front = [places[at] for at in pareto_front([known[place] for place in places])]
        distinct = {known[place]: place for place in reversed(front)}
        return [distinct[key] for key in sorted(distinct)]

    @cached_property
    def series_of(self) -> dict[int, int]:
        """The series of every candidate."""
        return {place: number for number, one in enumerate(self.series) for place in one.ranking}


class Commands(NamedTuple):
    """What to type for a point: a text for some, or for each its architecture between two parts and its rank after.

    Args:
        label: What the command does.
        around: For each series, what stands before the architecture, and between it and the rank.
        of: The whole text of single points.
    """

    label: str
    around: Sequence[tuple[str, str]] = ()
    of: Mapping[int, str] = {}

    def text(self, content: Content, place: int) -> str | None:
        """The command of a point, if it has one."""
        if place in self.of:
            return self.of[place]
        if not self.around or place not in content.series_of:
            return None
        series = content.series_of[place]
        before, between = self.around[series]
        return f"{before}{content.architectures[place]}{between}{content.series[series].ranks[place]}"


def spaced(name: str) -> str:
    """A setting's name as words."""
    return name.replace("_", " ")


def value_text(value: Any) -> str:
    """A setting as text: lists and groups item by item."""
    if isinstance(value, Mapping):
        return ", ".join(f"{spaced(str(key))} {value_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(value_text, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return str(value)
