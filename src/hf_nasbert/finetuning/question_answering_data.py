"""The data of question answering: questions about passages in SQuAD's format, checked before training."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

from hf_nasbert.data import load_splits
from hf_nasbert.data.files import a_type, check_file, find_files, text_in
from hf_nasbert.data.formats import stream_rows
from hf_nasbert.finetuning.splits import LIST_KINDS, digest_splits, name_of, split_files, take_splits, with_validation

FEATURES = Features(
    {
        "id": Value("string"),
        "question": Value("string"),
        "context": Value("string"),
        "answers": {"text": List(Value("string")), "answer_start": List(Value("int64"))},
    }
)


@dataclass(frozen=True)
class Questions:
    """Questions whose answers are spans of a passage: `id`, `question`, `context` and `answers`, as the Hub has them.

    Attributes:
        name: Names the results.
        splits: `train` first, then `validation` and, where there is one, `test`.
    """

    name: str
    splits: dict[str, Dataset]

    @property
    def has_unanswerable(self) -> bool:
        """Whether some questions have no answer, as in SQuAD v2."""
        return any(not answers["text"] for rows in self.splits.values() for answers in rows["answers"][:])

    def digest(self) -> str:
        """A hash of all questions, passages and answers."""
        return digest_splits(self.splits)


def load_squad_files(
    train: str,
    validation: str | None,
    test: str | None = None,
    *,
    drop_misaligned: bool = False,
    validation_fraction: float = 0.1,
    data_seed: int = 0,
) -> Questions:
    """Local json, jsonl or parquet files (folders, patterns) of questions as SQuAD has them, v1.1 or v2.

    A row is an article (`paragraphs`), a paragraph (`context` and `qas`) or one question (`context`, `question` and
    `answers`), as the Hub and transformers' examples have it. Without a file for validation, the questions about
    `validation_fraction` of the passages are held out of `train`.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is not in that format, or `make_questions` refuses what it holds.
    """
    splits = {split: _read_squad(file) for split, file in split_files(train, validation, test).items()}
    name = name_of(train)
    splits = with_validation(name, splits, ("context",), validation_fraction, data_seed)
    return make_questions(name, splits, drop_misaligned=drop_misaligned)


def load_squad_dataset(
    name: str, config: str | None = None, *, drop_misaligned: bool = False, cache_dir: str | None = None
) -> Questions:
    """A data set of the Hub that has SQuAD's columns, such as rajpurkar/squad, or a folder of `save_to_disk`.

    Raises:
        FileNotFoundError, ConnectionError: If it is not there, or the Hub cannot be reached.
        ValueError: If it is broken, lacks a column, or `make_questions` refuses what it holds.
    """
    splits = load_splits(name, config, cache_dir=cache_dir)
    for split, rows in splits.items():
        missing = sorted(set(FEATURES) - set(rows.column_names))
        if missing:
            raise ValueError(f"{name}: the {split} split has no column {', '.join(missing)}; is it SQuAD-like?")
    wanted = {split: _as_questions(name, split, rows.select_columns(list(FEATURES))) for split, rows in splits.items()}
    return make_questions(config or Path(name).name, wanted, drop_misaligned=drop_misaligned)


def make_questions(name: str, splits: Mapping[str, Dataset], *, drop_misaligned: bool = False) -> Questions:
    """Check that every answer stands in its passage where it says.

    Args:
        name: Names the results and the data in errors.
        splits: `train`, `validation` and maybe `test`.
        drop_misaligned: Leave out training questions of which some answer does not, instead of refusing them.
            Questions that judge are kept: only the texts of their answers count.

    Raises:
        ValueError: Naming the split and the question that does not fit.
    """
    ready = take_splits(name, splits)
    for split, rows in ready.items():
        _check_questions(name, split, rows)
    misaligned = [row for row, question in enumerate(ready["train"]) if not _is_aligned(question)]
    if misaligned and not drop_misaligned:
        raise ValueError(
            f"{name}: {len(misaligned)} training questions have an answer that does not stand in the passage where it "
            f"says, the first is {ready['train'][misaligned[0]]['id']!r}; mend them, or leave them out by "
            "drop_misaligned"
        )
    kept = sorted(set(range(len(ready["train"]))) - set(misaligned))
    if not kept:
        raise ValueError(f"{name}: no training question has an answer that stands in its passage")
    ready["train"] = ready["train"].select(kept)
    without = {split: [row["id"] for row in rows if not row["answers"]["text"]] for split, rows in ready.items()}
    for split, ids in without.items():
        if ids and not without["train"]:
            raise ValueError(
                f"{name}: question {ids[0]!r} of the {split} split has no answer, but every training question has "
                "one: a model cannot learn from these to leave a question unanswered"
            )
    return Questions(name, ready)


def _as_questions(name: str, split: str, rows: Dataset) -> Dataset:
    """Rows of a data set as `FEATURES` has them: as they are, if they are of these types."""
    if rows.features == FEATURES or len(rows) == 0:
        return rows
    places = (f"{name}: row {number} of the {split} split" for number in range(len(rows)))
    found = [question for place, row in zip(places, rows, strict=True) for question in _questions_of(row, place)]
    return Dataset.from_list(found, features=FEATURES)


def _read_squad(name: str) -> Dataset:
    found: list[dict[str, Any]] = []
    for path in find_files(name, LIST_KINDS, "SQuAD"):
        check_file(path, LIST_KINDS, "SQuAD")
        for place, row in stream_rows(path):
            found += _questions_of(row, place)
    if not found:
        raise ValueError(f"{name} holds no questions")
    return Dataset.from_list(found, features=FEATURES)


def _questions_of(row: Mapping[str, Any], place: str) -> Iterator[dict[str, Any]]:
    """The questions of an article, of a paragraph, or the one that a row is."""
    if row.get("paragraphs") is not None:
        for number, paragraph in enumerate(_objects(row["paragraphs"], "paragraphs", place), 1):
            yield from _questions_about(paragraph, f"{place}, paragraph {number}")
    elif row.get("qas") is not None:
        yield from _questions_about(row, place)
    else:
        yield _question(row, text_in(_entry(row, "context", place), "context", place), place)


def _questions_about(paragraph: Mapping[str, Any], place: str) -> Iterator[dict[str, Any]]:
    context = text_in(_entry(paragraph, "context", place), "context", place)
    for number, question in enumerate(_objects(_entry(paragraph, "qas", place), "qas", place), 1):
        yield _question(question, context, f"{place}, question {number}")


def _question(row: Mapping[str, Any], context: str, place: str) -> dict[str, Any]:
    name = _entry(row, "id", place)
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    is_impossible = row.get("is_impossible") or False
    if not isinstance(is_impossible, bool):
        raise ValueError(f"{place}: is_impossible is {str(is_impossible)[:40]!r}, expected true or false")
    answers = [] if is_impossible else _entry(row, "answers", place)
    if isinstance(answers, dict):  # of columns
        columns = {key: _entry(answers, key, f"{place}, answers") for key in ("text", "answer_start")}
        for key, column in columns.items():
            if not isinstance(column, list):
                raise ValueError(f"{place}: {key} of the answers is {a_type(column)}, expected a list")
    else:
        rows = _objects(answers, "answers", place)
        columns = {
            key: [_entry(answer, key, f"{place}, answers") for answer in rows] for key in ("text", "answer_start")
        }
    for start in columns["answer_start"]:
        if not isinstance(start, int) or isinstance(start, bool) or abs(start) >= 2**63:
            raise ValueError(f"{place}: an answer starts at {str(start)[:40]!r}, expected the number of a letter")
    return {
        "id": text_in(name, "id", place),
        "question": text_in(_entry(row, "question", place), "question", place),
        "context": context,
        "answers": {
            "text": [text_in(text, "answers", place) for text in columns["text"]],
            "answer_start": columns["answer_start"],
        },
    }


def _objects(value: Any, key: str, place: str) -> Sequence[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f"{place} is not in SQuAD's format: {key} must be a list of objects")
    return value


def _entry(row: Mapping[str, Any], key: str, place: str) -> Any:
    """What stands under a key; a JSON object may lack it, a Parquet row may have nothing there."""
    if row.get(key) is None:
        raise ValueError(
            f"{place} is not in SQuAD's format: {key!r} is missing; expected id, question, context and answers "
            "(text and answer_start) in a row, or articles of paragraphs of context and qas"
        )
    return row[key]


def _check_questions(name: str, split: str, rows: Dataset) -> None:
    ids = Counter(rows["id"][:])
    repeated, times = ids.most_common(1)[0]
    if times > 1:
        raise ValueError(f"{name}: {times} questions of the {split} split have the id {repeated!r}")
    for question in rows:
        where = f"{name}: question {question['id']!r} of the {split} split"
        for column in ("question", "context"):
            if not (question[column] or "").strip():
                raise ValueError(f"{where} has no {column}")
        answers = question["answers"]
        if len(answers["text"]) != len(answers["answer_start"]):
            raise ValueError(f"{where} has {len(answers['text'])} answers and {len(answers['answer_start'])} starts")
        if any(not (text or "").strip() for text in answers["text"]):
            raise ValueError(f"{where} has an answer without text; a question without answer has an empty list")


def _is_aligned(question: Mapping[str, Any]) -> bool:
    texts, starts = question["answers"]["text"], question["answers"]["answer_start"]
    return all(
        start >= 0 and question["context"][start : start + len(text)] == text
        for text, start in zip(texts, starts, strict=True)
    )
