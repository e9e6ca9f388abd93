"""The content of a page about scored children: one search, or two that are compared with each other."""

import dataclasses
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from hf_nasbert.report.content import (
    Commands,
    Content,
    Cost,
    Mark,
    Measure,
    Series,
    format_of,
    spaced,
    value_text,
)
from hf_nasbert.report.findings import Findings
from hf_nasbert.report.verdict import search_verdict
from hf_nasbert.scored import BERT, LARGEST, ScoredChild

_SETTING_NAMES = {
    "search": "search",
    "seed": "seed",
    "supernet": "super-net (its digest)",
    "text": "text",
    "max_seq_length": "tokens in a sequence",
    "num_dev_batches": "batches of held-out text",
    "dev_batch_size": "sequences in a batch",
    "dev_data": "digest of these batches",
    "data_seed": "seed of the text",
    "latency_table": "latency measured on",
}
_SAME = ("dev_data", "loss", "max_seq_length", "text", "num_dev_batches", "dev_batch_size", "adapted", "dev_files")
_KINDS = {BERT: "bert", LARGEST: "base"}
_LETTERS = ("A", "B")


class Searched(NamedTuple):
    """One file of scored children.

    Args:
        findings: What it holds.
        supernet: Folder of the super-net, for the commands.
        name: What the file is called.
    """

    findings: Findings
    supernet: str
    name: str


def content_of_search(searched: Sequence[Searched], note: str | None = None) -> Content:
    """What a page shows of one search, or of two.

    Args:
        searched: One, or two whose losses are of the same dev batches.
        note: A sentence about the commands.

    Raises:
        ValueError: If the losses of two do not compare, or their children are of different numbers of choice blocks.
    """
    first = searched[0].findings
    _check_alike(searched)
    children: list[ScoredChild] = []
    marks: list[Mark] = []
    series: list[Series] = []
    notes: dict[int, str] = {}
    for number, one in enumerate(searched):
        start, found = len(children), one.findings
        children += found.children
        ranking = tuple(start + place for place in found.ranking())
        name = f"{_LETTERS[number]}: {one.name}" if len(searched) > 1 else ""
        series.append(Series(name=name, ranking=ranking, winner=ranking[0], caps=found.caps))
        for place, child in enumerate(found.children, start=start):
            if child.architecture in found.measured_ms:
                notes[place] = f"{found.measured_ms[child.architecture]:,.2f} ms measured"
    for number, one in enumerate(searched):
        scored = {children[place].architecture: place for place in series[number].ranking}
        others = [] if number == 0 else searched[0].findings.controls.items()
        for name, child in one.findings.controls.items():
            if (name, child) in others:
                continue  # of the same super-net
            if child.architecture not in scored:
                children.append(child)
            place = scored.get(child.architecture, len(children) - 1)
            told = name if number == 0 else f"{name} ({_LETTERS[number]})"
            marks.append(Mark(place, _KINDS.get(name, "base"), told, number))
    costs = [name for name in first.costs if all(name in one.findings.costs for one in searched)]
    space = first.space
    slices = [] if space is None or len(space.stage_slices) < 2 else space.stage_slices
    measures = _measures(children, first)
    content = Content(
        title=_title(searched),
        lead="",
        doubts=(),
        facts=tuple(fact for number, one in enumerate(searched) for fact in _facts(one.findings, number, searched)),
        architectures=tuple(str(child.architecture) for child in children),
        measures=measures,
        costs=tuple(Cost(name, format_of(name), tuple(child.cost[name] for child in children)) for name in costs),
        series=tuple(series),
        marks=tuple(marks),
        notes=notes,
        commands=Commands("extract it", [_command(one.supernet, number) for number, one in enumerate(searched)]),
        stages={part.start: f"stage {number}" for number, part in enumerate(slices)},
        trajectory="How the search went" if first.search else "The children in the order of their records",
        details=tuple(detail for number, one in enumerate(searched) for detail in _details(one, number, searched)),
        note=note,
    )
    lead, doubts = search_verdict(content)
    return dataclasses.replace(content, lead=lead, doubts=doubts)


def _command(supernet: str, number: int) -> tuple[str, str]:
    # A folder by the rank: the text of a deep child is longer than a folder's name may be.
    folder = "rank-" if number == 0 else f"{_LETTERS[number].lower()}-rank-"
    return (
        f"hf-nasbert extract --supernet {shlex.quote(supernet)} --architecture ",
        f" --output_dir children/{folder}",
    )


def _check_alike(searched: Sequence[Searched]) -> None:
    if len(searched) < 2:
        return
    one, other = (item.findings for item in searched)
    for name in _SAME:
        if one.settings.get(name) != other.settings.get(name):
            raise ValueError(
                f"{searched[1].name} was scored with another {spaced(name)} than {searched[0].name}: losses of two "
                "kinds do not compare; search both super-nets on the same held-out text"
            )
    if len(one.children[0].architecture) != len(other.children[0].architecture):
        raise ValueError(f"{searched[1].name} has children of other choice blocks than {searched[0].name}")
    if not set(one.costs) & set(other.costs):
        raise ValueError(f"{searched[1].name} and {searched[0].name} have no cost in common")


def _measures(children: Sequence[ScoredChild], first: Findings) -> tuple[Measure, ...]:
    known = {len(child.batch_losses) for child in children}
    is_sampled = len(known) == 1 and known != {0}
    further = dict.fromkeys(name for child in children for name in child.dev_losses)
    return (
        Measure(
            name=spaced(str(first.settings.get("loss", "proxy loss"))),
            is_low_better=True,
            values=tuple(child.proxy_loss for child in children),
            samples=tuple(child.batch_losses for child in children) if is_sampled else (),
            are_paired=True,
        ),
        *(
            Measure(
                name=f"loss on {name}",
                is_low_better=True,
                values=tuple(child.dev_losses.get(name) for child in children),
            )
            for name in further
        ),
    )


def _title(searched: Sequence[Searched]) -> str:
    numbers = [f"{one.findings.num_scored:,}" for one in searched]
    if len(searched) > 1:
        return f"Two searches: the best of {numbers[0]}, and of {numbers[1]}"
    return f"{'A search for children' if searched[0].findings.search else 'Scored children'}: the best of {numbers[0]}"


def _facts(findings: Findings, number: int, searched: Sequence[Searched]) -> list[tuple[str, str]]:
    """What was searched, in a few lines."""
    facts = []
    if "search" in findings.search:
        seed = f", seed {value_text(findings.search['seed'])}" if "seed" in findings.search else ""
        facts.append(("search", value_text(findings.search["search"]) + seed))
    for key in ("supernet", "text"):
        if key in findings.settings:
            facts.append((_SETTING_NAMES[key], value_text(findings.settings[key])))
    if findings.search:
        facts.append(("budget", budget_text(findings.caps) or "none"))
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
    return [(f"{_LETTERS[number]}: {name}" if len(searched) > 1 else name, value) for name, value in facts]


def budget_text(caps: dict[str, float]) -> str:
    """A budget in words."""
    formats = {name: format_of(name) for name in caps}
    return ", ".join(f"at most {formats[name].text(cap)} {formats[name].name}" for name, cap in caps.items())


def _details(one: Searched, number: int, searched: Sequence[Searched]) -> list[tuple[str, str]]:
    settings: dict[str, Any] = {**one.findings.search, **one.findings.settings}
    found = [(_SETTING_NAMES.get(key, spaced(key)), value_text(value)) for key, value in settings.items()]
    found += [(spaced(key), value_text(value)) for key, value in one.findings.versions.items()]
    return [(f"{_LETTERS[number]}: {name}" if len(searched) > 1 else name, value) for name, value in found]
