"""A scored child: its architecture, its proxy loss and what it costs, and the one record of it that files hold.

A child that only a filter has seen has a record of another kind, with a `filter_loss` and no `proxy_loss`: nobody who
reads scored children finds it among them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from hf_nasbert.records import Record, is_finite_number
from hf_nasbert.space import Architecture

COSTS = ("num_parameters", "flops", "latency_ms", "peak_activation_bytes")
"""The costs that version 0.1.0 wrote beside other entries, without a name for them all."""
CONTROL = "control"
"""The record of a child that was not searched for, but that those found are compared with; it has a name."""
LARGEST, BERT = "largest child", "BERT of the budget"  # what children of a search are compared with
_FILE = "scores"  # the record that a file of scored children begins with
_FILTERED = "filtered"  # the record of a child whose loss is an estimate


@dataclass(frozen=True, kw_only=True)
class ScoredChild:
    """A child of a super-net with the weights it has there.

    Args:
        architecture: The child.
        proxy_loss: Its masked-LM loss per labelled token of the dev batches; None where that is not finite.
        cost: What it costs, by name (`costs.Cost`).
        num_batches: On how many of the dev batches it was scored, where that was not all of them.
        dev_losses: Its loss on further dev sets, by their names; those that are not finite are left out.
        batch_losses: Its loss on each of the dev batches, to seven digits; empty where that is not known.
        measured_latency_ms: Its latency where it was run as well, in milliseconds; not part of the record.
    """

    architecture: Architecture
    proxy_loss: float | None
    cost: Mapping[str, float]
    num_batches: int | None = None
    dev_losses: Mapping[str, float] = field(default_factory=dict)
    batch_losses: tuple[float, ...] = ()
    measured_latency_ms: float | None = None

    @property
    def loss(self) -> float:
        """The proxy loss as it is compared: infinite where it is not finite."""
        return math.inf if self.proxy_loss is None else self.proxy_loss

    def to_record(self) -> Record:
        """Plain JSON types, the same from whatever scored the child."""
        part = {} if self.num_batches is None else {"num_batches": self.num_batches}
        return {
            "record": "child",
            "architecture": str(self.architecture),
            "proxy_loss": self.proxy_loss,
            **part,
            "cost": dict(self.cost),
            **({"dev_losses": dict(self.dev_losses)} if self.dev_losses else {}),
            **({"batch_losses": list(self.batch_losses)} if self.batch_losses else {}),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any], where: str) -> Self:
        """Read what `to_record` wrote, or what version 0.1.0 did in place of it.

        That wrote a search's children with a `score`, and others with their costs side by side.

        Raises:
            ValueError: If it is no scored child; begins with `where`.
        """
        key = "proxy_loss" if "proxy_loss" in record else "score"
        if "architecture" not in record or key not in record:
            raise ValueError(f"{where} is no scored child: it has no architecture or no proxy_loss")
        try:
            architecture = Architecture.parse(record["architecture"])
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        loss, num_batches = record[key], record.get("num_batches")
        if loss is not None:
            _check_number(loss, f"{where}: {key}")
            loss = float(loss) if is_finite_number(loss) else None
        if not (num_batches is None or type(num_batches) is int):
            raise ValueError(f"{where} is no scored child: its num_batches is no whole number")
        flat = {name: record[name] for name in COSTS if name in record}
        cost = finite_numbers(record.get("cost") or flat, f"{where}: cost")
        others = finite_numbers(record.get("dev_losses", {}), f"{where}: dev_losses")
        by_batch = record.get("batch_losses", [])
        if not (isinstance(by_batch, list) and all(map(is_finite_number, by_batch))):
            raise ValueError(f"{where}: batch_losses is {str(by_batch)[:80]!r}, which is no list of finite numbers")
        return cls(
            architecture=architecture,
            proxy_loss=loss,
            cost=cost,
            num_batches=num_batches,
            dev_losses=others,
            batch_losses=tuple(map(float, by_batch)),
        )


def begin_scores(about: Mapping[str, Any]) -> Record:
    """The first record of a file of scored children: what their losses depend on."""
    return {"record": _FILE, "settings": {"about": dict(about)}}


def is_begin(record: Mapping[str, Any]) -> bool:
    """Whether a file of scored children begins so: of children that were searched for, or of others."""
    return record.get("record") in ("search", _FILE)


def is_filtered(record: Mapping[str, Any]) -> bool:
    """Whether a record is that of a child which only a filter has seen: its loss is an estimate."""
    return record.get("record") == _FILTERED


def filtered_record(architecture: Architecture, loss: float, about: str) -> Record:
    """The record of a child that a filter has seen.

    Args:
        architecture: The child.
        loss: What the filter makes of it: orders children that the same filter has seen, and no others.
        about: The filter, in words: other words are another filter.
    """
    filter_loss = loss if math.isfinite(loss) else None
    return {"record": _FILTERED, "architecture": str(architecture), "filter_loss": filter_loss, "filter": about}


def read_filtered(found: Sequence[Record], about: str, source: str) -> dict[Architecture, float]:
    """What a filter made of the children of a file, by architecture; infinite where that is not finite.

    Args:
        found: Its records.
        about: The filter, in words.
        source: What messages call the file.

    Raises:
        ValueError: If a record is no filtered child, or another filter's.
    """
    losses = {}
    for number, record in enumerate(found, start=1):
        if not is_filtered(record):
            continue
        where = f"{source}, record {number}"
        try:
            child = Architecture.parse(record["architecture"])
            loss = record["filter_loss"]
        except (KeyError, ValueError) as error:
            raise ValueError(f"{where} is no filtered child: {error}") from None
        if record.get("filter") != about:
            raise ValueError(f"{where} is another filter's: losses of two kinds do not compare: name another output")
        if loss is not None:
            _check_number(loss, f"{where}: filter_loss")
        losses[child] = float(loss) if is_finite_number(loss) else math.inf
    return losses


def is_beside(record: Mapping[str, Any]) -> bool:
    """Whether a record says something beside the children: a measured latency, or what they are compared with."""
    return record.get("record") in ("measured", CONTROL)


def settings_of(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the loss of a child of version 0.1.0 depends on: it stood in every record. None in a record of today's."""
    others = ("architecture", "proxy_loss", *COSTS)
    return None if "record" in record else {name: value for name, value in record.items() if name not in others}


def read_scores(found: Sequence[Record], about: Mapping[str, Any], source: str) -> dict[Architecture, ScoredChild]:
    """The children of a file that is no search's, by architecture.

    Args:
        found: Its records.
        about: What losses depend on now.
        source: What messages call the file.

    Raises:
        ValueError: If a record is no scored child, or one was scored with other settings.
    """
    children = {}
    for number, record in enumerate(found, start=1):
        settings, names = settings_of(record), [*about]
        if record.get("record") == _FILE:
            head = record.get("settings")
            settings = head.get("about") if isinstance(head, Mapping) else None
            settings = dict(settings) if isinstance(settings, Mapping) else {}
            names += [name for name in settings if name not in about]
        elif not is_filtered(record):
            try:
                child = ScoredChild.from_record(record, f"record {number}")
            except ValueError as error:
                reason = f"{error} (a search's history is another kind of file)"
                raise ValueError(f"{source} is not a file of scored children: {reason}: name another output") from None
            children[child.architecture] = child
        given = settings or {}
        different = [] if settings is None else [name for name in names if given.get(name) != about.get(name)]
        if different:
            raise ValueError(f"{source} holds scores of another {different[0]}: losses of two kinds do not compare")
    return children


def scored_children(found: Iterable[Record], source: str) -> list[ScoredChild]:
    """All children of a file, searched for or not, that were scored on all dev batches.

    Raises:
        ValueError: If a record is none of such a file.
    """
    children = [
        ScoredChild.from_record(record, f"{source}, record {number}")
        for number, record in enumerate(found, start=1)
        if not is_begin(record) and not is_filtered(record) and not is_beside(record)
    ]
    return [child for child in children if child.num_batches is None]


def finite_numbers(values: Any, where: str) -> dict[str, float]:
    """Named numbers of a file, each checked.

    Raises:
        ValueError: If they are none.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected names and values, found {str(values)[:80]!r}")
    for name, value in values.items():
        _check_number(value, f"{where} {name}")
        if not is_finite_number(value):
            raise ValueError(f"{where} {name} is {str(value)[:40]}, which is no finite number")
    return dict(values)


def _check_number(value: Any, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where} is {str(value)[:80]!r}, which is no number")
