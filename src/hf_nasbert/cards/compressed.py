"""The card of an encoder that was made smaller: its base model, how to load it, and the table of the proof."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_nasbert.cards.child import operators_in_words
from hf_nasbert.cards.fields import CardRecord
from hf_nasbert.cards.markdown import Markdown, python_string, render, table, text_cell
from hf_nasbert.cards.metadata import TAGS, model_metadata
from hf_nasbert.cards.quotes import example_lines
from hf_nasbert.cards.references import PUZZLE, references
from hf_nasbert.native import CODE_FILES, CODE_NEEDS
from hf_nasbert.space import Architecture

_AUTO_CLASS = re.compile(r"AutoModel(For[A-Za-z]+)?")


@dataclass(frozen=True, kw_only=True)
class CompressedRecord(CardRecord):
    """What there is to say about a smaller version of an encoder.

    `base_model` is its name on the Hub, if it has one. `evaluations` go to the Hub's `model-index` only: the table of
    the proof says them. `proof` is the table's head and its lines, as texts; `verdicts` are sentences that say what
    stands there; `runtimes` is the table of its ONNX files, likewise, or empty. `example` is a sentence like those
    that it was distilled on, `is_example_private` where it is the user's own. `training` maps a name to a value.

    Raises:
        ValueError: If the Auto class is none, or the table's lines are not as long as its head.
    """

    architecture: str
    how: str
    is_searched: bool
    budget: str
    hub_task: str
    auto_class: str
    proof: tuple[tuple[str, ...], ...]
    verdicts: tuple[str, ...] = ()
    native: bool = False
    is_sentence_transformer: bool = False
    runtimes: tuple[tuple[str, ...], ...] = ()
    example: str | None = None
    is_example_private: bool = False
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        Architecture.parse(self.architecture)
        if not _AUTO_CLASS.fullmatch(self.auto_class):
            raise ValueError(f"{self.auto_class[:80]!r} is no Auto class")
        for name, lines in (("proof", self.proof), ("runtimes", self.runtimes or self.proof)):
            if len({len(line) for line in lines}) != 1:
                raise ValueError(f"the lines of {name} are not all as long as its head")


def render_compressed_card(record: CompressedRecord) -> str:
    """The README.md of a smaller version of an encoder.

    Raises:
        ValueError: If a name is not one (of a repository, a license).
    """
    library = "sentence-transformers" if record.is_sentence_transformer else "transformers"
    # As that library tags its own. The Hub has no relation for a part of a model that was trained on.
    own = ["sentence-transformers", "sentence-similarity", "feature-extraction"]
    kind = own if record.is_sentence_transformer else []
    kind += ["bert"] if record.native else [TAGS[0]]
    return render(
        "compressed.md",
        record=record,
        metadata=model_metadata(
            record, library, [*kind, *TAGS[1:]], record.evaluations, task=record.hub_task, relation="finetune"
        ),
        location=Markdown(python_string(record.hub_id or "path/to/this/folder")),
        trust=Markdown("" if record.native else ", trust_remote_code=True"),
        code_files=Markdown(", ".join(f"`{name}`" for name in CODE_FILES)),
        code_needs=Markdown(CODE_NEEDS),
        example=example_lines([record.example] if record.example else [], is_private=record.is_example_private),
        operators=operators_in_words(Architecture.parse(record.architecture)),
        proof=_table(record.proof),
        runtimes=_table(record.runtimes) if record.runtimes else Markdown(""),
        references=[Markdown(reference) for reference in (*references(None), PUZZLE)],
    )


def _table(cells: Sequence[Sequence[str]]) -> Markdown:
    head, *lines = cells
    return table([text_cell(one) for one in head], [[text_cell(one) for one in line] for line in lines])
