"""The content of a page to its HTML: which words, numbers, figures and commands stand where."""

import base64
import functools
import hashlib
from importlib import resources
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from hf_nasbert.modeling.geometry_nasbert import operator_kind, operator_width, parse_operator
from hf_nasbert.report.content import Content
from hf_nasbert.report.doubt import T95
from hf_nasbert.report.drawing import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    draw_scatter,
    draw_shares,
    draw_trajectory,
)
from hf_nasbert.space import Architecture

_BEST_SHARE = 0.05
_KIND_NAMES = {"given": "saved", "found": "searched", "hand": "chosen by hand"}


class Block(NamedTuple):
    """An operator in a drawn architecture; `stage` where a stage begins."""

    operator: str
    width: int | None
    colour: str
    ink: str
    stage: str | None


class Row(NamedTuple):
    """A point in a table."""

    place: int
    series: int
    rank: int
    name: str
    measures: tuple[tuple[float | None, str], ...]
    costs: tuple[tuple[float | None, str], ...]
    blocks: tuple[Block, ...]
    architecture: str
    command: str | None
    note: str


def render_page(content: Content) -> str:
    """The report as one HTML page.

    It grows with the points, by less than two hundred bytes for a child of twelve blocks, and by ten for each dev
    batch.
    """
    # Its package imports torch, which whoever only imports this one should not wait for.
    from hf_nasbert.plots.style import operator_colours

    children = [Architecture.parse(text) for text in content.architectures]
    names = sorted({name for child in children for name in child})
    colours = operator_colours(names)
    present = {operator_kind(name) for name in names}
    kinds = [kind for kind in colours if kind in present]
    marked = {mark.place: mark.name for mark in content.marks}

    def blocks(place: int) -> tuple[Block, ...]:
        return tuple(
            Block(
                parse_operator(name).candidate,
                operator_width(name),
                colours[operator_kind(name)],
                _ink(colours[operator_kind(name)]),
                content.stages.get(number),
            )
            for number, name in enumerate(children[place])
        )

    def row(place: int) -> Row:
        series = content.series_of.get(place, 0)
        return Row(
            place=place,
            series=series,
            rank=content.series[series].ranks.get(place, 0),
            name=marked.get(place, ""),
            measures=tuple((one.values[place], _digits(one.values[place])) for one in content.measures),
            costs=tuple(
                (one.values[place], _cost_text(content, number, place)) for number, one in enumerate(content.costs)
            ),
            blocks=blocks(place),
            architecture=content.architectures[place],
            command=content.commands.text(content, place),
            note=content.notes.get(place, ""),
        )

    figures = [
        [draw_scatter(content, measure, cost) for cost in range(len(content.costs))]
        for measure in range(len(content.measures))
    ]
    script = _file("page.js")
    few = not content.trajectory
    series = () if few else content.series
    shares = [
        (one.name, draw_shares([children[place] for place in one.ranking], kinds, _BEST_SHARE)) for one in series
    ]
    return _template().render(
        content=content,
        winners=[row(one.winner) for one in content.series],
        figures=figures,
        rows=row,
        table=[row(place) for place in range(len(children))] if few else [],
        trajectory=None if few else draw_trajectory(content),
        shares=shares,
        colours={kind: colours[kind] for kind in kinds},
        share=f"{100 * _BEST_SHARE:.0f} %",
        frame={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        dot=5 if len(children) < 300 else 3.6 if len(children) < 3000 else 2.6,
        kinds={mark.kind: _KIND_NAMES.get(mark.kind, mark.name) for mark in reversed(content.marks)},
        data={
            **_data(content, marked),
            "colours": {
                parse_operator(name).candidate: [colours[operator_kind(name)], _ink(colours[operator_kind(name)])]
                for name in names
            },
        },
        style=Markup(_file("page.css")),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _data(content: Content, marked: dict[int, str]) -> dict[str, object]:
    """What the page's script reads."""
    return {
        "noun": content.noun,
        "architectures": content.architectures,
        "measures": [
            {
                "name": one.name,
                "low": one.is_low_better,
                "values": [None if value is None else round(value, 7) for value in one.values],
                "samples": one.samples,
                "paired": one.are_paired,
                "reference": one.reference,
                "known": one.known,
            }
            for one in content.measures
        ],
        "costs": [
            {"key": one.key, "format": one.format[1:], "name": one.format.name, "values": one.values}
            for one in content.costs
        ],
        "series": [
            {"name": one.name, "ranking": one.ranking, "winner": one.winner, "caps": one.caps}
            for one in content.series
        ],
        "marks": marked,
        "notes": content.notes,
        "around": content.commands.around,
        "commands": content.commands.of,
        "t95": T95,
        "frame": [LEFT, RIGHT, TOP, BOTTOM],
    }


def _cost_text(content: Content, number: int, place: int) -> str:
    """A cost as it is read."""
    cost = content.costs[number]
    value = cost.values[place]
    return "" if value is None else cost.format.text(value)


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _ink(background: str) -> str:
    """Black or white, whichever stands out more: the contrast of WCAG 2, relative luminance."""
    parts = [int(background[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return "#000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#fff"


def _file(name: str) -> str:
    return (resources.files("hf_nasbert.report") / name).read_text(encoding="utf-8")


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["digits"] = _digits
    return environment.from_string(_file("page.html"))
