"""Tagged words from the Hub or from files, checked before training, and how taggings of them are judged."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import evaluate
from datasets import Dataset

from hf_nasbert.data import load_splits, read_rows
from hf_nasbert.finetuning.labelled import as_indices, name_of, names_of_labels

_KINDS = (".json", ".jsonl", ".parquet")  # those that hold lists
_BEGINS, _CONTINUES, _ENDS = "BSU", "IEL", "ESLU"  # BIO, and what BIOES and BILOU add to it


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
        marks = [name.partition("-") for name in self.label_names if name != "O"]
        return all(len(prefix) == 1 and prefix in _BEGINS + _CONTINUES and kind for prefix, _, kind in marks)

    def digest(self) -> str:
        """A hash of all words and tags."""
        hashed = hashlib.sha256(json.dumps(self.label_names).encode())
        for name, split in self.splits.items():
            hashed.update(name.encode())
            for batch in split.iter(batch_size=1000):
                hashed.update(json.dumps(batch).encode())
        return hashed.hexdigest()


def load_tagged_files(
    train: str, validation: str, test: str | None = None, *, tokens: str, tags: str, cache_dir: str | None = None
) -> TaggedWords:
    """Local json, jsonl or parquet files (folders, patterns), every row a list of words and a list of tags.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is of another format, or its words or tags do not fit.
    """
    files = {"train": train, "validation": validation} | ({} if test is None else {"test": test})
    splits = {
        split: read_rows(file, cache_dir, needed=(tokens, tags), kinds=_KINDS, what="tagged")
        for split, file in files.items()
    }
    return make_tagged(name_of(train), splits, tokens=tokens, tags=tags)


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
    for split in ("train", "validation"):
        if split not in splits:
            raise ValueError(f"{name}: there is no {split!r} split, only {', '.join(splits)}")
    used = {split: splits[split] for split in ("train", "validation", "test") if split in splits}
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
    if len(rows) == 0:
        raise ValueError(f"{name}: the {split} split is empty")
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


class TaggingMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """What taggings of sentences are worth, by entity or by word.

    "entities": precision, recall and F1 of whole entities, which count only with both ends and the type right, over
    all sentences together, as CoNLL's script counts them (Tjong Kim Sang and De Meulder, 2003,
    https://aclanthology.org/W03-0419); and the accuracy of the words. "tags": the accuracy of the words, and the mean
    of the F1 of every tag that occurs (macro F1).

    Args:
        kind: "entities" or "tags".
        options: Passed to `evaluate.Metric`, for instance `keep_in_memory=True`.

    Raises:
        ValueError: If there is no such kind.

    Example:
        >>> right, found = [["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "O", "O"]]
        >>> TaggingMetric("entities").compute(predictions=found, references=right)["recall"]
        0.5
    """

    def __init__(self, kind: str, **options: Any) -> None:
        if kind not in ("entities", "tags"):
            raise ValueError(f"no metric of taggings is called {kind!r}; choose entities or tags")
        super().__init__(config_name=kind, **options)

    def _info(self) -> Any:
        return evaluate.MetricInfo(
            description="Quality of taggings of sentences.",
            citation="https://aclanthology.org/W03-0419",
            inputs_description="predictions and references: the tags of every sentence.",
            features=datasets.Features(
                {name: datasets.List(datasets.Value("string")) for name in ("predictions", "references")}
            ),
        )

    def _compute(self, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, float]:
        pairs = [
            pair
            for found, right in zip(predictions, references, strict=True)
            for pair in zip(found, right, strict=True)
        ]
        accuracy = sum(found == right for found, right in pairs) / max(len(pairs), 1)
        if self.config_name == "tags":
            return {"accuracy": accuracy, "macro_f1": _macro_f1(pairs)}
        found, right = (
            {(row, *entity) for row, tags in enumerate(sentences) for entity in entities(tags)}
            for sentences in (predictions, references)
        )
        num_right = len(found & right)
        precision, recall = num_right / max(len(found), 1), num_right / max(len(right), 1)
        f1 = 2 * num_right / max(len(found) + len(right), 1)
        return {"precision": precision, "recall": recall, "f1": f1, "accuracy": accuracy}


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """The entities that a sentence's tags mark, as (type, first word, word after the last).

    Read as leniently as CoNLL's script reads them: an `I-` that continues nothing of its type begins an entity.
    """
    found = set()
    kind, start, is_ended = None, 0, False
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        if kind is not None and (is_ended or prefix not in _CONTINUES or name != kind):
            found.add((kind, start, place))
            kind = None
        if kind is None and tag != "O":
            kind, start = name, place
        is_ended = prefix in _ENDS
    return found


def _macro_f1(pairs: Sequence[tuple[str, str]]) -> float:
    found, right = (Counter(pair[side] for pair in pairs) for side in (0, 1))
    both = Counter(one for one, other in pairs if one == other)
    scores = [2 * both[tag] / (found[tag] + right[tag]) for tag in {*found, *right}]
    return sum(scores) / max(len(scores), 1)
