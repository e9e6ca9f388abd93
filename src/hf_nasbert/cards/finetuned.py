"""The card of a fine-tuned model: how to load its head, what it was fitted to, what it and its like are worth."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_nasbert.cards.evaluations import Evaluation, evaluation_note, evaluation_table
from hf_nasbert.cards.fields import CardRecord
from hf_nasbert.cards.markdown import Markdown, python_string, render
from hf_nasbert.cards.metadata import TAGS, model_metadata
from hf_nasbert.cards.quotes import example_lines
from hf_nasbert.cards.references import references
from hf_nasbert.native import CODE_FILES, CODE_NEEDS

_TASKS = ("text-classification", "question-answering", "token-classification")


@dataclass(frozen=True, kw_only=True)
class FinetunedRecord(CardRecord):
    """What there is to say about a model that was fine-tuned on a task under one of several seeds.

    `evaluations` hold the values of all seeds, and `seed` says which of them are this model's: these are the card's
    `model-index`. `start` names the model it began as; `num_texts` make one input (2: a pair); the labels
    `has_entities` where they are begun and continued (B-PER, I-PER). `example` are texts that make one input,
    `is_example_private` where they are the user's own; questions have a fixed one. `training` maps a name to a value.

    Raises:
        ValueError: If the card has no snippet for such a task, or an evaluation does not name the seed of each value.
    """

    task: str
    hub_task: str
    seed: int
    start: str
    from_scratch: bool = False
    model_type: str = "nasbert"
    num_texts: int = 1
    has_entities: bool = False
    example: tuple[str, ...] = ()
    is_example_private: bool = False
    selected_on: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hub_task not in _TASKS:
            raise ValueError(f"hub_task is {self.hub_task[:80]!r}, expected one of {', '.join(_TASKS)}")
        for evaluation in self.evaluations:
            if len(evaluation.seeds) != len(evaluation.values):
                raise ValueError(f"evaluation of {evaluation.metric!r}: no seed is named for each of its values")


def render_finetuned_card(record: FinetunedRecord | Mapping[str, Any]) -> str:
    """The README.md of a fine-tuned model: Hub metadata, how to load it, how it was trained, what it is worth.

    Raises:
        ValueError: If the record has a key that is not a field of `FinetunedRecord`, a number that is not finite, or a
            name that is not one (of a repository, a license, a file).
    """
    if not isinstance(record, FinetunedRecord):
        record = FinetunedRecord.from_dict(record)
    is_ours = record.model_type == "nasbert"
    own = _of_seed(record.evaluations, record.seed)
    return render(
        "finetuned.md",
        record=record,
        metadata=model_metadata(
            record, "transformers", list(TAGS) if is_ours else [record.model_type], own, task=record.hub_task
        ),
        location=Markdown(python_string(record.hub_id or "path/to/this/folder")),
        is_ours=is_ours,
        trust=Markdown(", trust_remote_code=True" if is_ours else ""),
        example=example_lines(record.example, record.num_texts, is_private=record.is_example_private),
        code_files=Markdown(", ".join(f"`{name}`" for name in CODE_FILES)),
        code_needs=Markdown(CODE_NEEDS),
        own_table=evaluation_table(own),
        all_table=evaluation_table(record.evaluations, "All seeds"),
        all_note=evaluation_note(record.evaluations),
        num_seeds=len({seed for one in record.evaluations for seed in one.seeds}),
        references=[Markdown(reference) for reference in references(None)] if is_ours else [],
    )


def _of_seed(evaluations: Sequence[Evaluation], seed: int) -> list[Evaluation]:
    """The values of one seed; a metric that was undefined for it has none."""
    return [
        dataclasses.replace(one, values=(one.values[one.seeds.index(seed)],), seeds=(seed,))
        for one in evaluations
        if seed in one.seeds
    ]
