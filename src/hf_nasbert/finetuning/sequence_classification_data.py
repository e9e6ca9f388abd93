"""The data of sequence classification: labelled texts (Hub, package, files), checked before training."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import datasets
from datasets import Dataset

from hf_nasbert.data import load_labelled, load_splits, read_rows
from hf_nasbert.data.files import a_type
from hf_nasbert.finetuning.glue import GLUE_TASKS, check_metric
from hf_nasbert.finetuning.labels import as_indices, label_key, label_name, names_of_labels
from hf_nasbert.finetuning.splits import digest_splits, name_of, split_files, take_splits

logger = logging.getLogger(__name__)

ProblemType = Literal["classification", "regression"]

# Looked for in this order where nobody names the text columns; other files are asked for theirs.
_KNOWN_TEXT_COLUMNS = (
    *dict.fromkeys(task.text_columns for task in GLUE_TASKS.values() if len(task.text_columns) == 2),
    ("question", "passage"),
    ("sentence",),
    ("text",),
)
_MOST_CLASSES = 20  # of whole numbers; more of them are as likely scores


class Columns(TypedDict, total=False):
    """Where texts and labels stand, and what the labels are; see `make_task`."""

    label_column: str
    text_columns: Sequence[str] | None
    problem_type: ProblemType | None


@dataclass(frozen=True)
class LabelledTask:
    """Texts and labels of one task: every split holds the text columns and `label`, an index or a float.

    Attributes:
        name: Names the results.
        text_columns: One text, or the two texts of a pair.
        label_names: What each label index means; empty for regression.
        metric: The GLUE task whose metrics judge this one.
        train: What is learned from.
        validation: By split name; the first one selects the best epoch and the settings.
        test: Read once, after everything is chosen; None where its labels are not published.
    """

    name: str
    text_columns: tuple[str, ...]
    label_names: tuple[str, ...]
    metric: str
    train: Dataset
    validation: Mapping[str, Dataset]
    test: Dataset | None

    @property
    def splits(self) -> dict[str, Dataset]:
        """Every split by its name."""
        test = {} if self.test is None else {"test": self.test}
        return {"train": self.train, **self.validation, **test}

    def digest(self) -> str:
        """A hash of all texts and labels, to tell whether a finished run saw this very data."""
        splits = {name: rows.select_columns([*self.text_columns, "label"]) for name, rows in self.splits.items()}
        return digest_splits(splits, [self.text_columns, self.label_names, self.metric])


def load_glue(task: str, *, source: str = "nyu-mll/glue", cache_dir: str | None = None) -> LabelledTask:
    """One of the nine GLUE tasks, from the Hub or from a local copy of that data set's repository.

    Raises:
        FileNotFoundError, ConnectionError: If the data set is not there, or the Hub cannot be reached.
        ImportError: If the task's metric needs scikit-learn, and that is not installed.
        ValueError: If GLUE has no such task, or the data set is broken or lacks a split or column of it.
    """
    if task not in GLUE_TASKS:
        raise ValueError(f"GLUE has no task {task!r}; choose one of {', '.join(GLUE_TASKS)}")
    check_metric(task)  # before the data set is downloaded
    splits = load_splits(source, task, cache_dir=cache_dir)
    glue = GLUE_TASKS[task]
    # GLUE publishes no test labels (they are all -1), so its test splits are of no use here.
    wanted = {name: splits[name] for name in ("train", *glue.validation_splits) if name in splits}
    return make_task(
        task,
        wanted,
        text_columns=glue.text_columns,
        problem_type="regression" if task == "stsb" else "classification",
        metric=task,
        validation_splits=glue.validation_splits,
    )


def load_packaged(name: str) -> LabelledTask:
    """A labelled set that `hf_nasbert.data.load_labelled` knows, such as `stsb` or `rotten_tomatoes`."""
    return make_task(name, load_labelled(name), problem_type="regression" if name == "stsb" else "classification")


def load_named(
    name: str,
    config: str | None = None,
    *,
    cache_dir: str | None = None,
    **columns: Unpack[Columns],
) -> LabelledTask:
    """A data set of the Hub, or a folder that `save_to_disk` wrote, with splits train, validation and maybe test.

    Raises:
        FileNotFoundError, ConnectionError: If it is not there, or the Hub cannot be reached.
        ValueError: If it is broken, or its splits, columns or labels do not fit.
    """
    return make_task(config or Path(name).name, load_splits(name, config, cache_dir=cache_dir), **columns)


def load_files(
    train: str,
    validation: str | None,
    test: str | None = None,
    *,
    cache_dir: str | None = None,
    **columns: Unpack[Columns],
) -> LabelledTask:
    """Local csv, tsv, json, jsonl or parquet files (folders, patterns); labels are names, whole numbers or floats.

    Without a file for validation there is no such split.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is empty, of another format, or its columns or labels do not fit the training file's.
    """
    needed = (columns.get("label_column", "label"), *(columns.get("text_columns") or ()))
    files = split_files(train, validation, test)
    splits = {split: read_rows(file, cache_dir, needed=needed) for split, file in files.items()}
    validation_splits = () if validation is None else ("validation",)
    return make_task(name_of(train), splits, validation_splits=validation_splits, **columns)


def make_task(
    name: str,
    splits: Mapping[str, Dataset],
    *,
    label_column: str = "label",
    text_columns: Sequence[str] | None = None,
    problem_type: ProblemType | None = None,
    metric: str | None = None,
    validation_splits: Sequence[str] = ("validation",),
) -> LabelledTask:
    """Find the texts and labels of any splits and check that they fit each other.

    Args:
        name: Names the results and the task in errors.
        splits: `train`, the validation splits and, where it has labels, `test`.
        label_column: Where the labels are.
        text_columns: One or two columns; None looks for the names that GLUE's tasks use, or takes the only ones.
        problem_type: None takes numbers that are not all whole for regression, and everything else for classification:
            0.0 and 1.0 are the classes 0 and 1.
        metric: The GLUE task whose metrics apply; None means Pearson and Spearman, or accuracy.
        validation_splits: Their names; the first one selects.

    Raises:
        ValueError: Naming the split, the column and the row that does not fit.
    """
    # A set without labels cannot be scored: GLUE's convention for those is a label of -1 throughout.
    splits = {split: rows for split, rows in splits.items() if split != "test" or _is_labelled(rows, label_column)}
    used = take_splits(name, splits, validation_splits)
    for split, rows in used.items():
        if label_column not in rows.column_names:
            raise ValueError(
                f"{name}: the {split} split has no label column {label_column!r}, only "
                f"{', '.join(rows.column_names)}: say which one holds the labels by --label_column"
            )
    columns = _find_text_columns(name, used["train"], label_column) if text_columns is None else tuple(text_columns)
    for split, rows in used.items():
        _check_texts(name, split, rows, columns, label_column)
    values = {split: _label_values(name, split, rows, label_column) for split, rows in used.items()}
    if problem_type is None:
        problem_type = _guess_problem(name, values)
    label_names: tuple[str, ...] = ()
    labels: dict[str, Sequence[int | float]] = {}
    if problem_type == "regression":
        labels = {split: _as_floats(name, split, found) for split, found in values.items()}
    else:
        label_names = _label_names(name, used["train"], values["train"], label_column)
        labels = {split: as_indices(name, split, found, label_names, "labels") for split, found in values.items()}
    ready = {split: _with_labels(rows, columns, labels[split]) for split, rows in used.items()}
    return LabelledTask(
        name=name,
        text_columns=columns,
        label_names=label_names,
        metric=metric or ("stsb" if problem_type == "regression" else "sst2"),
        train=ready["train"],
        validation={split: ready[split] for split in validation_splits},
        test=ready.get("test"),
    )


def _is_labelled(rows: Dataset, label_column: str) -> bool:
    return label_column in rows.column_names and any(label not in (None, -1) for label in rows[label_column][:])


def _find_text_columns(name: str, rows: Dataset, label_column: str) -> tuple[str, ...]:
    for columns in _KNOWN_TEXT_COLUMNS:
        if all(column != label_column and isinstance(rows.features.get(column), datasets.Value) for column in columns):
            return columns
    texts = tuple(c for c, kind in rows.features.items() if c != label_column and _is_text(kind))
    if len(texts) not in (1, 2):
        raise ValueError(
            f"{name}: which of {', '.join(rows.column_names)} are the texts? Name one or two columns (text_columns)"
        )
    return texts


def _is_text(feature: Any) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")


def _check_texts(name: str, split: str, rows: Dataset, columns: Sequence[str], label_column: str) -> None:
    if len(columns) not in (1, 2):
        raise ValueError(f"{name}: {len(columns)} text columns ({', '.join(columns)}); expected one or two")
    for column in columns:
        if column in (label_column, "label"):
            raise ValueError(f"{name}: column {column!r} cannot be both text and label")
        if column not in rows.column_names:
            raise ValueError(
                f"{name}: the {split} split has no text column {column!r}; it has {', '.join(rows.column_names)}"
            )
        if not isinstance(rows.features[column], datasets.Value):
            raise ValueError(f"{name}: column {column!r} of the {split} split holds {rows.features[column]}, no text")
        for row, text in enumerate(rows[column][:]):
            if text is None:
                raise ValueError(f"{name}: row {row} of the {split} split has no text in column {column!r}")


def _guess_problem(name: str, values: Mapping[str, Sequence[Any]]) -> ProblemType:
    """What the labels ask for, said in a line where it is not plain."""
    train = values["train"]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in train):
        return "classification"
    are_floats = any(isinstance(value, float) for value in train)
    if are_floats and any(isinstance(x, float) and not x.is_integer() for found in values.values() for x in found):
        return "regression"
    num_labels = len(set(train))
    if num_labels > _MOST_CLASSES or are_floats:
        logger.warning(
            "%s: the labels are %d different whole numbers, taken for classes; if they are scores, give "
            "problem_type=regression",
            name,
            num_labels,
        )
    return "classification"


def _label_values(name: str, split: str, rows: Dataset, label_column: str) -> list[Any]:
    """The labels as they stand in the data; class names where the column has them."""
    feature = rows.features[label_column]
    values = rows[label_column][:]
    for row, value in enumerate(values):
        if value is None or (isinstance(value, float) and math.isnan(value)):
            raise ValueError(f"{name}: row {row} of the {split} split has no label in column {label_column!r}")
        if not isinstance(value, str | int | float):
            raise ValueError(
                f"{name}: in the {split} split the label of row {row} is {a_type(value)}: one label a text is expected"
            )
        if isinstance(value, float) and math.isinf(value):
            raise ValueError(f"{name}: row {row} of the {split} split has an infinite label")
        if isinstance(feature, datasets.ClassLabel) and not 0 <= int(value) < feature.num_classes:
            raise ValueError(
                f"{name}: row {row} of the {split} split has label {value}, not one of 0 to {feature.num_classes - 1}"
            )
    return [feature.names[value] for value in values] if isinstance(feature, datasets.ClassLabel) else values


def _label_names(name: str, rows: Dataset, values: Sequence[Any], label_column: str) -> tuple[str, ...]:
    feature = rows.features[label_column]
    # A declared order is kept (entailment, neutral, contradiction); a discovered one is the sorted one.
    found = feature.names if isinstance(feature, datasets.ClassLabel) else names_of_labels(values)
    if len({label_key(value) for value in values}) < 2:
        raise ValueError(f"{name}: every training label is {label_name(values[0])[:40]!r}: there is nothing to learn")
    return tuple(found)


def _as_floats(name: str, split: str, values: Sequence[Any]) -> list[float]:
    for row, value in enumerate(values):
        if not isinstance(value, int | float):
            raise ValueError(
                f"{name}: row {row} of the {split} split has label {str(value)[:40]!r}; regression needs numbers"
            )
    return [float(value) for value in values]


def _with_labels(rows: Dataset, columns: Sequence[str], labels: Sequence[Any]) -> Dataset:
    texts = rows.select_columns(list(columns))
    for column in columns:
        if not _is_text(texts.features[column]):
            texts = texts.cast_column(column, datasets.Value("string"))
    return texts.add_column("label", list(labels))
