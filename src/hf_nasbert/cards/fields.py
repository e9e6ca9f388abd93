"""The fields that every record of a card has, checked; records as they come out of JSON."""

import builtins
import collections.abc
import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from hf_nasbert.cards.evaluations import Evaluation

FIGURES = ("architecture", "front", "training", "operators")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*", re.ASCII)
_FILE = re.compile(r"[A-Za-z0-9_][\w-]*(\.[\w-]+)*(/[A-Za-z0-9_][\w-]*(\.[\w-]+)*)*\.(png|svg|jpg)", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class CardRecord:
    """What the cards of children and of super-nets have in common; only the name is required.

    `model` and `versions` map a name to a value and are printed in their order. `figures` maps one of `FIGURES` to a
    file beside the card. The card's snippet loads from `hub_id`.

    Raises:
        ValueError: If the name of a repository, a license, a language or a figure's file is none, or a figure is
            unknown.
    """

    name: str
    hub_id: str | None = None
    summary: str | None = None
    license: str | None = None
    language: str | None = None
    datasets: tuple[str, ...] = ()
    base_model: str | None = None
    tags: tuple[str, ...] = ()
    model: Mapping[str, Any] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = ()
    figures: Mapping[str, str] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    versions: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind, pattern, values in (
            ("a name on the Hub", _HUB_ID, [self.hub_id, self.base_model, *self.datasets]),
            ("a figure's relative path", _FILE, list(self.figures.values())),
        ):
            for value in values:
                if value is not None and not pattern.fullmatch(value):
                    raise ValueError(f"{value[:80]!r} is not {kind}")
        check_codes(self.license, self.language)
        unknown = sorted(self.figures.keys() - set(FIGURES))
        if unknown:
            raise ValueError(f"unknown figures {unknown}: expected some of {list(FIGURES)}")

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Read a record as it comes out of JSON; a key that is not a field is refused.

        Raises:
            ValueError: If a key is unknown or missing; names it.
        """
        record = known_fields(cls, record)
        evaluations = [known_fields(Evaluation, evaluation) for evaluation in record.pop("evaluations", ())]
        for evaluation in evaluations:
            for key in ("values", "seeds", "baseline_values"):
                if key in evaluation:
                    evaluation[key] = tuple(evaluation[key])
        record = {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}
        return cls(**record, evaluations=tuple(Evaluation(**evaluation) for evaluation in evaluations))


def is_hub_id(name: str) -> bool:
    """Whether a text is the name of a repository on the Hub."""
    return _HUB_ID.fullmatch(name) is not None


def check_codes(*codes: str | None) -> None:
    """Refuse what is no name of a license and no language code; None passes.

    Raises:
        ValueError: If one is not.
    """
    for one in codes:
        if one is not None and not _SLUG.fullmatch(one):
            raise ValueError(f"{one[:80]!r} is not a license or language code")


def known_fields(cls: type, record: Any) -> dict[str, Any]:
    """The record as keyword arguments of a dataclass, or a `ValueError` naming what does not belong or is missing."""
    if not isinstance(record, Mapping):
        raise ValueError(f"not a {cls.__name__}: {str(record)[:80]!r}; expected names and values")
    fields = {one.name: one for one in dataclasses.fields(cls)}
    unknown = sorted(record.keys() - fields.keys())
    required = {name for name, one in fields.items() if one.default is one.default_factory is dataclasses.MISSING}
    missing = sorted(required - record.keys())
    if unknown or missing:
        raise ValueError(
            f"not a {cls.__name__}: unknown keys {unknown}, missing keys {missing}; it has {sorted(fields)}"
        )
    kinds = typing.get_type_hints(cls)
    for name, value in record.items():
        if not _is_of(value, kinds[name]):
            raise ValueError(f"{cls.__name__}: {name} is {str(value)[:80]!r}, expected {fields[name].type}")
    return dict(record)


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value out of JSON is what a field declares; a list stands for a tuple."""
    parts = typing.get_args(kind)
    match typing.get_origin(kind) or kind:
        case types.UnionType:
            return any(_is_of(value, part) for part in parts)
        case builtins.tuple:
            item = dict if parts[0] is Evaluation else parts[0]
            return isinstance(value, list | tuple) and all(_is_of(one, item) for one in value)
        case collections.abc.Mapping:
            return isinstance(value, Mapping) and all(
                parts[1] is Any or _is_of(one, parts[1]) for one in value.values()
            )
        case builtins.float:  # whether it is finite is its own class' question
            return isinstance(value, int | float) and not isinstance(value, bool)
        case builtins.int:
            return type(value) is int
        case expected:
            return isinstance(value, expected)
