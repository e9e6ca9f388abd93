"""Labelled examples: to train on, to choose by and to judge by; their labels as the base model numbers them."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from hf_nasbert.compression.sentences import PARTS, Batch, Sentences, as_batches
from hf_nasbert.compression.task_metric import TaskMetric
from hf_nasbert.finetuning import LabelledTask
from hf_nasbert.finetuning.labels import label_key
from hf_nasbert.finetuning.splits import hold_out, keys_of
from hf_nasbert.foreign import printable
from hf_nasbert.terminal import say

_HALF = 0.5
_NUMBERED = re.compile(r"LABEL_[0-9]+")  # what transformers calls labels that nobody has named
_MOST_NAMED = 10
_LABEL = "label"


@dataclass(frozen=True)
class Examples:
    """Labelled examples of a task: of each part the text columns and `label`, as the base model numbers it.

    Args:
        name: Of the data, for messages.
        columns: One text, or the two texts of a pair.
        metric: What predictions are worth.
        train: To fit and to train on.
        choosing: To choose children by.
        judging: To report what the chosen child is worth. None of its texts is in another part.
        are_seen: Whether what judges was held out of the rows to train on: the base model may have seen it.
    """

    name: str
    columns: tuple[str, ...]
    metric: TaskMetric
    train: Dataset
    choosing: Dataset
    judging: Dataset
    are_seen: bool

    def batches(
        self, tokenizer: PreTrainedTokenizerBase, *, sizes: Sequence[int], batch_size: int, max_length: int, seed: int
    ) -> Sentences:
        """Whole examples in batches of like length, each with its `labels`; a line says how many had to be cut.

        Args:
            tokenizer: The base model's.
            sizes: Most examples of every part; which ones, the seed draws.
            batch_size: Examples of a batch.
            max_length: Tokens of an example at most.
            seed: Of the draw and of the batches' order.
        """
        options: dict[str, Any] = {"batch_size": batch_size, "max_length": max_length, "seed": seed}
        made = [self.part(part, tokenizer, size=size, **options) for part, size in zip(PARTS, sizes, strict=True)]
        lengths = [int(row.sum()) for own in made for batch in own for row in batch["attention_mask"]]
        num_cut = sum(length >= max_length for length in lengths)
        if num_cut:
            say(
                f"{num_cut / len(lengths):.1%} of the examples fill max_seq_length={max_length} tokens, or were cut "
                "to it"
            )
        return Sentences(*made)

    def part(
        self, part: str, tokenizer: PreTrainedTokenizerBase, *, size: int, batch_size: int, max_length: int, seed: int
    ) -> list[Batch]:
        """One of the parts, as of `batches`."""
        rows: Dataset = getattr(self, part)
        if len(rows) > size:
            rows = rows.shuffle(seed=seed).select(range(size))
        texts = [rows[column][:] for column in self.columns]
        return as_batches(
            texts[0], tokenizer, batch_size=batch_size, max_length=max_length, seed=seed,
            seconds=texts[1] if len(texts) > 1 else None, labels=rows[_LABEL][:],
        )  # fmt: skip

    @property
    def documents(self) -> tuple[Dataset, ...]:
        """The texts of every part."""
        return tuple(documents_of(getattr(self, part), self.columns) for part in PARTS)


def documents_of(rows: Dataset, columns: Sequence[str]) -> Dataset:
    """The texts of examples, as documents: each once."""
    texts = (text for column in columns for text in rows[column][:])
    return Dataset.from_dict({"text": list(dict.fromkeys(texts))})


def make_examples(task: LabelledTask, config: PreTrainedConfig, *, held_out: float, seed: int) -> Examples:
    """Examples of a task for a base model, in parts of different texts.

    The validation split chooses and the test split judges. Without a test split one half of the validation split
    chooses and the other one judges; what is missing of both is held out of the rows to train on. An example's part
    follows from a hash of its texts. What is to judge is in no other part, and what is to choose not in training.

    Where both are held out, they are the first rows of the order by which `finetune` holds out its own: of one file,
    one seed and a share of at most half of `finetune`'s, neither is among the rows that the base model was trained
    on. It matters for what chooses: on rows that a base model has learnt by heart, a child with its weights looks
    better than it is, and nothing that recovery teaches can improve it.

    Args:
        task: As the readers of fine-tuning give it.
        config: The base model's.
        held_out: Share of the training rows to hold out, where something must be.
        seed: Of what is held out.

    Raises:
        ValueError: If the labels are none of the model's, there are too few different examples, or the share leaves
            none to train on.
    """
    places = places_of_labels(task, config)
    train, held, test = task.train, next(iter(task.validation.values()), None), task.test
    are_seen = held is None and test is None
    if are_seen:
        if held_out >= _HALF:
            raise ValueError(
                f"{task.name}: validation_fraction={held_out:g} is held out twice, to choose by and to judge by, and "
                f"leaves nothing to train on: give less than {_HALF:g}"
            )
        train, held = _held_out(task, train, 2 * held_out, seed, fewest=2)
    if test is None:
        assert held is not None
        held, test = _held_out(task, held, _HALF, seed)
    if held is None:
        train, held = _held_out(task, train, held_out, seed)
    judged = _texts(test, task.text_columns)
    held = _without(held, task.text_columns, judged)
    train = _without(train, task.text_columns, judged | _texts(held, task.text_columns))
    for part, rows in zip(PARTS, (train, held, test), strict=True):
        if len(rows) == 0:
            raise ValueError(
                f"{task.name}: no example is left for {part} that is in no other part: give more examples, or others"
            )
    metric = TaskMetric(task.metric, task.label_names, places, len(config.id2label or {}))
    train, held, test = (_numbered(rows, places) for rows in (train, held, test))
    return Examples(task.name, task.text_columns, metric, train, held, test, are_seen)


def places_of_labels(task: LabelledTask, config: PreTrainedConfig) -> tuple[int, ...]:
    """The model's number of every label of the data, in the data's order; none where numbers are to be predicted.

    Labels are matched by their names, or where they are numbers and the model's are none of these, taken as the
    model's own numbers.

    Raises:
        ValueError: If a label is none of the model's, or one of the two predicts classes and the other numbers.
    """
    names = [str(name) for _, name in sorted((config.id2label or {}).items())]
    if (len(names) == 1) != (not task.label_names):
        theirs, ours = (
            ("a number", "classes")
            if len(names) == 1
            else (f"the classes {_some_of(names)}", "numbers that are scores")
        )
        raise ValueError(f"{task.name}: the base model predicts {theirs}, and the labels are {ours}: they do not fit")
    if config.problem_type == "multi_label_classification":
        raise ValueError(
            f"{task.name}: the base model gives every text several labels at once ({_some_of(names)}), and each row "
            "has one: give text without labels (train_files)"
        )
    if not task.label_names:
        return ()
    place_of = {label_key(name): place for place, name in enumerate(names)}
    folded = {key.casefold(): place for key, place in place_of.items()}
    keys = [label_key(name) for name in task.label_names]
    found = [place_of.get(key, folded.get(key.casefold()) if len(folded) == len(names) else None) for key in keys]
    if all(place is None for place in found) and all(key.isdecimal() and int(key) < len(names) for key in keys):
        found = [int(key) for key in keys]
    unknown = [name for name, place in zip(task.label_names, found, strict=True) if place is None]
    if unknown:
        unnamed = all(map(_NUMBERED.fullmatch, names))
        advice = (
            f"nobody has named the model's: write their numbers (0 to {len(names) - 1}), or name them in its "
            "config.json (id2label)"
            if unnamed
            else "give them the same names, or fine-tune the model on these labels first (hf-nasbert finetune)"
        )
        raise ValueError(
            f"{task.name}: the labels {_some_of(unknown)} are none of the base model's, which are {_some_of(names)}: "
            f"{advice}"
        )
    places = tuple(place for place in found if place is not None)
    if len(set(places)) < len(places):
        raise ValueError(
            f"{task.name}: two of the labels {_some_of(task.label_names)} are one of the base model's: "
            f"{_some_of(names)}"
        )
    return places


def _some_of(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name, 40) for name in names[:_MOST_NAMED])
    return f"{shown} and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else shown


def _numbered(rows: Dataset, places: Sequence[int]) -> Dataset:
    """Rows with their labels as the model numbers them; of a regression they stay."""
    if not places:
        return rows
    return rows.remove_columns(_LABEL).add_column(_LABEL, [places[label] for label in rows[_LABEL][:]])


def _texts(rows: Dataset, columns: Sequence[str]) -> set[bytes]:
    return set(keys_of(rows, columns))


def _without(rows: Dataset, columns: Sequence[str], others: Collection[bytes]) -> Dataset:
    return rows.select([row for row, key in enumerate(keys_of(rows, columns)) if key not in others])


def _held_out(task: LabelledTask, rows: Dataset, share: float, seed: int, fewest: int = 1) -> tuple[Dataset, Dataset]:
    return hold_out(task.name, rows, keys_of(rows, task.text_columns), share, seed, fewest)
