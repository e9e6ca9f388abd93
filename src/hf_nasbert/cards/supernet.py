"""The card of a super-net: how to cut a child out of it, its space, its training, what was found in it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hf_nasbert.cards.child import operators_in_words
from hf_nasbert.cards.evaluations import evaluation_note, evaluation_table
from hf_nasbert.cards.fields import CardRecord
from hf_nasbert.cards.markdown import Markdown, code, number, python_string, render, table
from hf_nasbert.cards.metadata import TAGS, model_metadata
from hf_nasbert.cards.references import references
from hf_nasbert.space import Architecture, SearchSpace

_SUPERNET_CLASS = re.compile(r"Supernet(Model|For[A-Za-z]{1,50})")


@dataclass(frozen=True, kw_only=True)
class SupernetRecord(CardRecord):
    """What there is to say about a super-net. Only a name and its search space are required.

    `search_space` is `SearchSpace.to_dict()`, as config.json holds it. `cost`, `training`, `search` and `ranking` map
    a name to a value and are printed in their order: what it weighs, how it was trained, what the scores of its
    children say, and how far they agree with children trained alone. The snippet loads a `supernet_class` and cuts out
    the child `example`, by default the first of the space.
    """

    search_space: Mapping[str, Any]
    supernet_class: str = "SupernetForMaskedLM"
    example: str | None = None
    cost: Mapping[str, Any] = field(default_factory=dict)
    cost_conditions: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    ranking: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        space = SearchSpace.from_dict(self.search_space)
        if not _SUPERNET_CLASS.fullmatch(self.supernet_class):
            raise ValueError(f"{self.supernet_class[:80]!r} is no class of super-nets")
        if self.example is not None:
            space.validate(self.example)


def render_supernet_card(record: SupernetRecord | Mapping[str, Any]) -> str:
    """The README.md of a super-net: Hub metadata, how to extract a child, the space, the training, the scores.

    Raises:
        ValueError: If the record has a key that is not a field of `SupernetRecord`, a number that is not finite, a
            space that is none, or a name that is not one (of a repository, a license, a file).
    """
    if not isinstance(record, SupernetRecord):
        record = SupernetRecord.from_dict(record)
    space = SearchSpace.from_dict(record.search_space)
    return render(
        "supernet.md",
        record=record,
        space=space,
        metadata=model_metadata(record, "hf_nasbert", [*TAGS, "supernet"], record.evaluations),
        location=Markdown(python_string(record.hub_id or "path/to/this/folder")),
        example=record.example or str(space.child_at(0)),
        blocks=_blocks(space),
        operators=operators_in_words(_every_operator(space)),
        evaluation_table=evaluation_table(record.evaluations),
        evaluation_note=evaluation_note(record.evaluations),
        references=[Markdown(reference) for reference in references(record.training.get("method"))],
    )


def _every_operator(space: SearchSpace) -> Architecture:
    return Architecture(dict.fromkeys(name for names in space.blocks for name in names))


def _blocks(space: SearchSpace) -> Markdown:
    """One row per stage, or per run of blocks with the same candidates where there is one stage."""
    rows = []
    for number_of_stage, (stage, where) in enumerate(zip(space.stages, space.stage_slices, strict=True)):
        widths = ", ".join(map(str, stage.widths)) if stage.widths else ""
        first = where.start
        for block in range(where.start, where.stop):
            kinds = stage.blocks[block - where.start]
            if block + 1 < where.stop and stage.blocks[block + 1 - where.start] == kinds:
                continue
            blocks = f"{first}" if first == block else f"{first} to {block}"
            rows.append([number(number_of_stage), blocks, ", ".join(code(kind) for kind in kinds), widths])
            first = block + 1
    header = ["Stage", "Choice blocks", "Candidates", "Widths"]
    keep = [column for column in range(4) if any(row[column] for row in rows)]
    return table([header[column] for column in keep], [[row[column] for column in keep] for row in rows])
