"""The data of token classification: tagged words of the Hub or of files, checked before training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset

from hf_nasbert.data import load_splits, read_rows
from hf_nasbert.finetuning.labels import as_indices, names_of_labels
from hf_nasbert.finetuning.splits import LIST_KINDS, digest_splits, name_of, split_files, take_splits, with_validation
from hf_nasbert.finetuning.tagging_metric import mark_spans


@dataclass(frozen=True)
class TaggedWords:
    """Sentences as words with one tag each: every split holds `tokens` and `tags`, indices into `label_names`.

    Attributes:
        name: Names the results.
        label_names: What each index means.
        splits: `train` first, then `validation` and, where there is one, `test`.
    """

    name: str
    label_names: tuple[str, ...]
    splits: dict[str, Dataset]

    @property
    def has_entities(self) -> bool:
        """Whether the tags mark spans (BIO, BIOES or BILOU) rather than single words."""
        return mark_spans(self.label_names)

    def digest(self) -> str:
        """A hash of all words and tags."""
        return digest_splits(self.splits, self.label_names)


def load_tagged_files(
    train: str,
    validation: str | None,
    test: str | None = None,
    *,
    tokens: str,
    tags: str,
    cache_dir: str | None = None,
    validation_fraction: float = 0.1,
    data_seed: int = 0,
) -> TaggedWords:
    """Local json, jsonl or parquet files (folders, patterns), every row a list of words and a list of tags.

    Without a file for validation, `validation_fraction` of the different sentences are held out of `train`.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is of another format, or its words or tags do not fit.
    """
    splits = {
        split: read_rows(file, cache_dir, needed=(tokens, tags), kinds=LIST_KINDS, what="tagged")
        for split, file in split_files(train, validation, test).items()
    }
    name = name_of(train)
    splits = with_validation(name, splits, (tokens,), validation_fraction, data_seed)
    return make_tagged(name, splits, tokens=tokens, tags=tags)


def load_tagged_dataset(
    name: str, config: str | None = None, *, tokens: str, tags: str, cache_dir: str | None = None
) -> TaggedWords:
    """A data set of the Hub, or a folder that `save_to_disk` wrote, with splits train, validation and maybe test.

    Raises:
        FileNotFoundError, ConnectionError: If it is not there, or the Hub cannot be reached.
        ValueError: If it is broken, or its words or tags do not fit.
    """
    splits = load_splits(name, config, cache_dir=cache_dir)
    return make_tagged(config or Path(name).name, splits, tokens=tokens, tags=tags)


def make_tagged(
    name: str, splits: Mapping[str, Dataset], *, tokens: str = "tokens", tags: str = "tags"
) -> TaggedWords:
    """Check that words and tags fit each other, and number the tags.

    Args:
        name: Names the results and the data in errors.
        splits: `train`, `validation` and maybe `test`.
        tokens: Column of the lists of words.
        tags: Column of the lists of tags: names, or numbers, whose names the column declares where it can.

    Raises:
        ValueError: Naming the split, the column and the row that does not fit.
    """
    used = take_splits(name, splits)
    rows = {split: _check_rows(name, split, found, tokens, tags) for split, found in used.items()}
    declared = getattr(used["train"].features[tags], "feature", None)
    if isinstance(declared, datasets.ClassLabel):
        label_names = tuple(declared.names)
    else:
        label_names = tuple(names_of_labels(tag for _, row in rows["train"] for tag in row))
    if len(label_names) < 2:
        raise ValueError(f"{name}: every training tag is {label_names[0][:40]!r}, so there is nothing to learn")
    ready = {}
    for split, found in rows.items():
        places = iter(as_indices(name, split, [tag for _, row in found for tag in row], label_names, "tags"))
        numbered = [list(islice(places, len(row))) for _, row in found]
        ready[split] = Dataset.from_dict({"tokens": [words for words, _ in found], "tags": numbered})
    return TaggedWords(name, label_names, ready)


def _check_rows(name: str, split: str, rows: Dataset, tokens: str, tags: str) -> list[tuple[list[str], list[Any]]]:
    """The words and the tags of every row, by name where the column declares names."""
    for column in (tokens, tags):
        if column not in rows.column_names:
            raise ValueError(
                f"{name}: the {split} split has no column {column!r}, only {', '.join(rows.column_names)}"
            )
    feature = getattr(rows.features[tags], "feature", None)
    names = feature.names if isinstance(feature, datasets.ClassLabel) else None
    found = []
    for row, (words, row_tags) in enumerate(zip(rows[tokens][:], rows[tags][:], strict=True)):
        where = f"{name}: row {row} of the {split} split"
        if not isinstance(words, list) or not isinstance(row_tags, list):
            raise ValueError(f"{where}: {tokens} and {tags} must be lists, found {words!r} and {row_tags!r}")
        if len(words) != len(row_tags):
            raise ValueError(f"{where} has {len(words)} words and {len(row_tags)} tags")
        if not words:
            raise ValueError(f"{where} has no words")
        for word, tag in zip(words, row_tags, strict=True):
            if not isinstance(word, str) or not word.strip():
                raise ValueError(f"{where} has {word!r} among its words: expected text")
            is_number = isinstance(tag, int | float) and math.isfinite(tag)
            if not (is_number or isinstance(tag, str)) or (names is not None and not 0 <= tag < len(names)):
                raise ValueError(f"{where} has the tag {tag!r} at {word!r}, which is none")
        found.append((words, [names[tag] for tag in row_tags] if names is not None else row_tags))
    return found
