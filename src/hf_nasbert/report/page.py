"""Findings to the text of the page: which words, numbers and commands stand where."""

import base64
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from hf_nasbert.modeling.geometry_nasbert import operator_kind, operator_width, parse_operator
from hf_nasbert.records import Record
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
from hf_nasbert.report.findings import Findings, read_findings

_BEST_SHARE = 0.05
_COST_NAMES = {
    "num_parameters": "parameters",
    "flops": "FLOPs",
    "latency_ms": "latency",
    "peak_activation_bytes": "peak activations",
}
_SETTING_NAMES = {
    "search": "search",
    "seed": "seed",
    "supernet": "super-net (digest of its weights)",
    "text": "text",
    "max_seq_length": "tokens in a sequence",
    "num_dev_batches": "batches of held-out text",
    "dev_batch_size": "sequences in a batch",
    "dev_data": "digest of these batches",
    "data_seed": "seed of the text",
    "latency_table": "latency measured on",
}


class Block(NamedTuple):
    """An operator in a drawn architecture; `stage` where a stage begins."""

    operator: str
    width: int | None
    colour: str
    ink: str
    stage: str | None


class Row(NamedTuple):
    """A child in a table."""

    place: int
    rank: int
    loss: float
    costs: tuple[tuple[float, str], ...]
    blocks: tuple[Block, ...]
    architecture: str
    command: str


def render_search_report(
    found: Sequence[Record], *, supernet: str, source: str = "the records", note: str | None = None
) -> str:
    """The report as one HTML page.

    It grows with the scored children, by less than two hundred bytes for one of twelve blocks.

    Args:
        found: The history of a search, or records of `score_children`.
        supernet: Folder of the super-net that they are of, for the commands; records hold but a digest of its weights.
        source: What messages call the records, such as the file's name.
        note: A sentence about the commands, such as that the super-net could not be looked at.

    Raises:
        ValueError: If the records cannot be understood (see `read_findings`).
    """
    # Its package imports torch, which whoever only imports this one should not wait for.
    from hf_nasbert.plots.style import operator_colours

    findings = read_findings(found, source)
    ranking = findings.ranking()
    winner = ranking[0]
    names = sorted({name for child in findings.children for name in child.architecture})
    colours = operator_colours(names)
    present = {operator_kind(name) for name in names}
    kinds = [kind for kind in colours if kind in present]
    ranks = {place: rank for rank, place in enumerate(ranking, start=1)}
    command = (
        f"hf-nasbert extract --supernet {shlex.quote(supernet)} --architecture ",
        " --output_dir children/rank-",  # short: the text of a deep child is longer than a folder's name may be
    )
    stages = {} if findings.space is None else {part.start: part for part in findings.space.stage_slices}

    def blocks(place: int) -> tuple[Block, ...]:
        return tuple(
            Block(
                parse_operator(name).candidate,
                operator_width(name),
                colours[operator_kind(name)],
                _ink(colours[operator_kind(name)]),
                f"stage {list(stages).index(number)}" if number in stages and len(stages) > 1 else None,
            )
            for number, name in enumerate(findings.children[place].architecture)
        )

    def cost(place: int, name: str) -> str:
        child = findings.children[place]
        text = _cost(name, child.cost[name])
        is_measured = name == "latency_ms" and child.architecture in findings.measured_ms
        return f"{text}, {findings.measured_ms[child.architecture]:,.2f} measured" if is_measured else text

    def row(place: int) -> Row:
        child = findings.children[place]
        return Row(
            place=place,
            rank=ranks[place],
            loss=child.loss,
            costs=tuple((child.cost[name], cost(place, name)) for name in findings.costs),
            blocks=blocks(place),
            architecture=str(child.architecture),
            command=f"{command[0]}{child.architecture}{command[1]}{ranks[place]}",
        )

    scatters = [draw_scatter(findings, name, winner) for name in findings.costs]
    script = _file("page.js")
    return _template().render(
        findings=findings,
        title="A search for children" if findings.search else "Scored children",
        facts=_facts(findings),
        settings=[
            (_SETTING_NAMES.get(key, _spaced(key)), _value(value)) for key, value in _settings(findings).items()
        ],
        versions=[(_spaced(key), _value(value)) for key, value in findings.versions.items()],
        winner=row(winner),
        cost_names={name: _COST_NAMES.get(name, _spaced(name)) for name in findings.costs},
        scatters=[(scatter, [row(place) for place in scatter.front]) for scatter in scatters],
        trajectory=draw_trajectory(findings.children),
        shares=draw_shares([findings.children[place].architecture for place in ranking], kinds, _BEST_SHARE),
        colours={kind: colours[kind] for kind in kinds},
        share=f"{100 * _BEST_SHARE:.0f} %",
        frame={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        dot=5 if len(findings.children) < 300 else 3.6 if len(findings.children) < 3000 else 2.6,
        caps={name: _cost(name, cap) for name, cap in findings.caps.items()},
        note=note,
        data={
            "architectures": [str(child.architecture) for child in findings.children],
            "losses": [_digits(child.loss) for child in findings.children],
            "costs": [
                [_COST_NAMES.get(name, _spaced(name)), [cost(place, name) for place in range(len(findings.children))]]
                for name in findings.costs
            ],
            "ranking": ranking,
            "colours": {kind: [colours[kind], _ink(colours[kind])] for kind in kinds},
            "command": command,
        },
        style=Markup(_file("page.css")),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _facts(findings: Findings) -> list[tuple[str, str]]:
    """What was searched, in a few lines."""
    facts = []
    if "search" in findings.search:
        seed = f", seed {_value(findings.search['seed'])}" if "seed" in findings.search else ""
        facts.append(("search", _value(findings.search["search"]) + seed))
    for key in ("supernet", "text"):
        if key in findings.settings:
            facts.append((_SETTING_NAMES[key], _value(findings.settings[key])))
    if findings.search:
        caps = [
            f"at most {_cost(name, cap)} {_COST_NAMES.get(name, _spaced(name))}" for name, cap in findings.caps.items()
        ]
        facts.append(("budget", ", ".join(caps) or "none"))
    if findings.space is not None:
        facts.append(("children in the space", f"{findings.space.num_children:,}"))
    facts.append(("children scored", f"{findings.num_scored:,}"))
    if findings.num_without_loss:
        facts.append(("of these without a finite loss", f"{findings.num_without_loss:,}, not shown"))
    for child in findings.passed_over:
        facts.append(("passed over, slower than its table says", f"{child}: {findings.measured_ms[child]:,.2f} ms"))
    if findings.num_partial:
        facts.append(("scorings on a part of the dev batches", f"{findings.num_partial:,}, not shown"))
    if findings.num_filtered:
        facts.append(("passed over by a filter, without an exact loss", f"{findings.num_filtered:,}, not shown"))
    return facts


def _settings(findings: Findings) -> dict[str, Any]:
    return {**findings.search, **findings.settings}


def _cost(name: str, value: float) -> str:
    """A cost as it is read: parameters in full, others in their unit."""
    if name == "num_parameters":
        return f"{value:,.0f}"
    if name == "flops":
        return f"{value / 1e6:,.1f} M"
    if name == "latency_ms":
        return f"{value:,.2f} ms"
    if name == "peak_activation_bytes":
        return f"{value / 1e6:,.2f} MB"
    return f"{value:,.6g}"


def _digits(loss: float) -> str:
    return f"{loss:.4f}"


def _value(value: Any) -> str:
    """A setting as text: lists and groups item by item."""
    if isinstance(value, Mapping):
        return ", ".join(f"{_spaced(str(key))} {_value(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return str(value)


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _ink(background: str) -> str:
    """Black or white, whichever stands out more: the contrast of WCAG 2, relative luminance."""
    parts = [int(background[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return "#000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#fff"


def _file(name: str) -> str:
    return (resources.files("hf_nasbert.report") / name).read_text(encoding="utf-8")


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
