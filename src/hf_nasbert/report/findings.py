"""What a file of scored children holds: the children, what they were scored with, and within which budget."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_nasbert.native import ListedChildren
from hf_nasbert.records import Record
from hf_nasbert.scored import CONTROL, COSTS, ScoredChild, finite_numbers, is_begin, is_filtered, settings_of
from hf_nasbert.space import Architecture, Candidates, SearchSpace


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was found, from the records only."""

    children: tuple[ScoredChild, ...]
    """Those with a finite loss, in the order in which they were scored."""
    num_without_loss: int
    num_partial: int
    """Scorings on a part of the dev batches: they do not compare with the others, and are in no figure."""
    num_filtered: int
    """Children that were passed over on a filter's word: they have no exact loss, and are in no figure."""
    costs: tuple[str, ...]
    """The costs that are known of every child."""
    caps: dict[str, float]
    settings: dict[str, Any]
    """What the losses depend on, as the records say it: super-net, text, dev batches."""
    search: dict[str, Any]
    """The settings of the search; empty where children were given, not searched."""
    versions: dict[str, Any]
    space: Candidates | None
    measured_ms: dict[Architecture, float]
    """Milliseconds of those children that were run after the search, to see what the latency table is worth."""
    controls: dict[str, ScoredChild]
    """Children that were not searched for, but that those found are compared with, by name."""
    passed_over: tuple[Architecture, ...]
    """Those that were then above the cap, although the table puts them below it: they are not among `children`."""

    @property
    def num_scored(self) -> int:
        """How many children were scored, those without a finite loss included."""
        return len(self.children) + self.num_without_loss + len(self.passed_over)

    def ranking(self) -> list[int]:
        """The places of all children, best first; of equals the cheaper."""
        return sorted(
            range(len(self.children)),
            key=lambda place: (self.children[place].loss, self.children[place].cost[self.costs[0]]),
        )


def read_findings(found: Sequence[Record], source: str = "the records") -> Findings:
    """Understand the history of a search, or the records of scored children.

    A child that stands there twice counts once, with its later loss.

    Args:
        found: The records, in the order in which they were written.
        source: What messages call them, such as the file's name.

    Raises:
        ValueError: If there is no child with a finite loss, no cost that is known of all, a record that is no scored
            child, or children of two kinds, which do not compare.
    """
    if not found:
        raise ValueError(f"{source} holds no records: nothing to report")
    head = found[0] if is_begin(found[0]) else None
    search = _mapping(head["settings"] if head and "settings" in head else {}, f"{source}: the search's settings")
    settings = _mapping(search.pop("about", None) or {}, f"{source}: what the losses depend on")
    caps = finite_numbers(search.pop("budget", None) or {}, f"{source}: the budget")
    space_record = search.pop("space", None)
    scored: dict[Architecture, ScoredChild] = {}
    measured_ms: dict[Architecture, float] = {}
    filtered: set[Architecture] = set()
    controls: dict[str, ScoredChild] = {}
    num_partial = 0
    for number, record in enumerate(found[1:] if head else found, start=2 if head else 1):
        where = f"{source}, record {number}"
        if head and record.get("record") == head["record"] and record.get("settings") == head.get("settings"):
            continue  # of another process that began the file at the same moment
        if head and record.get("record") == "measured":
            measured_ms[_architecture(record, where)] = finite_numbers({"ms": record.get("latency_ms")}, where)["ms"]
            continue
        if is_filtered(record):
            filtered.add(_architecture(record, where))
            continue
        child = ScoredChild.from_record(record, where)
        if head and record.get("record") == CONTROL:
            name = record.get("name")
            if not isinstance(name, str):
                raise ValueError(f"{where}: a control has a name, found {str(name)[:80]!r}")
            if child.proxy_loss is not None:
                controls[name] = child
            continue
        if child.num_batches is not None:
            num_partial += 1
            continue
        others = settings_of(record)
        if head is None and others is not None:
            settings = settings or others
            different = sorted(key for key in settings.keys() | others if settings.get(key) != others.get(key))
            if different:
                raise ValueError(f"{where} was scored with another {different[0]}: losses of two kinds do not compare")
        scored[child.architecture] = child
    cap = caps.get("latency_ms", math.inf)
    slow = tuple(child for child, milliseconds in measured_ms.items() if child in scored and milliseconds > cap)
    kept = [child for child in scored.values() if child.architecture not in slow]
    children = tuple(child for child in kept if child.proxy_loss is not None)
    if not children:
        raise ValueError(f"{source}: none of {len(scored):,} scored children has a finite loss: nothing to report")
    lengths = sorted({len(child.architecture) for child in children})
    if len(lengths) > 1:
        raise ValueError(f"{source} holds children of {lengths} choice blocks: they are not of one space")
    compared = [*children, *controls.values()]
    if len({len(child.architecture) for child in compared}) > 1:
        raise ValueError(f"{source}: a control has other choice blocks than the children: it is not of their space")
    common = [name for name in children[0].cost if all(name in child.cost for child in compared)]
    if not common:
        raise ValueError(f"{source} says of no cost what every child needs: expected one of {', '.join(COSTS)}")
    for name in caps:
        if name not in common:
            raise ValueError(f"{source}: the budget caps {name}, which is not known of every child")
    space = None if space_record is None else _space(space_record, f"{source}: the space")
    if space is not None and len(space.blocks) != lengths[0]:
        raise ValueError(f"{source}: the space has {len(space.blocks)} choice blocks, its children {lengths[0]}")
    return Findings(
        children=children,
        num_without_loss=len(kept) - len(children),
        num_partial=num_partial,
        num_filtered=len(filtered - scored.keys()),
        costs=tuple(sorted(common, key=lambda name: COSTS.index(name) if name in COSTS else len(COSTS))),
        caps=caps,
        settings=settings,
        search=search,
        versions=_mapping(head.get("versions", {}), f"{source}: versions") if head else {},
        space=space,
        measured_ms=measured_ms,
        controls=controls,
        passed_over=slow,
    )


def _space(record: Any, where: str) -> Candidates:
    data = _mapping(record, where)
    try:
        return ListedChildren.from_dict(data) if "children" in data else SearchSpace.from_dict(data)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _architecture(record: Record, where: str) -> Architecture:
    try:
        return Architecture.parse(record["architecture"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


def _mapping(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected names and values, found {str(values)[:80]!r}")
    return dict(values)
