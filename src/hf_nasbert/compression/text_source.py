"""Where the text, or the labelled examples, of a compression come from, and how some are held out."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_nasbert.compression.arguments import CompressDataArguments
from hf_nasbert.compression.examples import documents_of
from hf_nasbert.data import DataArguments, load_text
from hf_nasbert.data.cache import content_digest
from hf_nasbert.data.files import digest_files, no_column, text_in
from hf_nasbert.data.formats import ROW_KINDS
from hf_nasbert.data.packaged import LABELLED_SETS
from hf_nasbert.data.sources import TEXT_KINDS
from hf_nasbert.finetuning import LabelledTask, load_files, load_glue, load_packaged
from hf_nasbert.finetuning.sequence_classification_data import ProblemType


@dataclasses.dataclass(frozen=True)
class TextSource:
    """Where text comes from, and how it is held out.

    Args:
        load: Documents in a column "text".
        told: What a folder's settings say of it.
        held_out: Share of the documents to choose by, and to judge by.
        seed: Of that share.
        tokenizer_name: A tokenizer in place of the base model's own.
        tokenizer_revision: Its commit or tag.
        load_task: Labelled examples, for a base model that predicts classes or numbers; None of text without labels.
        files: Files and folders it comes out of, their kinds of name, and what they are called in a message.
    """

    load: Callable[[], Dataset]
    told: Mapping[str, Any]
    held_out: float = 0.05
    seed: int = 0
    tokenizer_name: str | None = None
    tokenizer_revision: str | None = None
    load_task: Callable[[ProblemType], LabelledTask] | None = None
    files: tuple[Sequence[str], Collection[str], str] | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """`told`, and what is in the files that are named: that may change while their names stay."""
        return dict(self.told) | ({"digest": digest_files(*self.files)} if self.files else {})

    @classmethod
    def of(cls, texts: Dataset | Iterable[str] | DataArguments | LabelledTask | str | Path) -> "TextSource":
        """The source of what a user gives as text.

        Raises:
            ValueError: If a data set has no column "text", or one that holds something else, or there is no text.
        """
        if isinstance(texts, str | Path):
            texts = DataArguments(train_files=[str(texts)])
        if isinstance(texts, LabelledTask):
            task, names = texts, {"source": texts.name, "digest": texts.digest()}
            return cls(lambda: documents_of(task.train, task.text_columns), names, load_task=lambda problem_type: task)
        if isinstance(texts, CompressDataArguments) and _are_labelled(texts):
            load_task = partial(_load_task, texts)

            def load() -> Dataset:
                task = load_task("classification")
                return documents_of(task.train, task.text_columns)

            return cls(
                load,
                texts.describe_labelled() | {"tokenizer_name": texts.tokenizer_name},
                texts.validation_fraction,
                texts.data_seed,
                texts.tokenizer_name,
                texts.tokenizer_revision,
                load_task,
                _files_of(texts),
            )
        if isinstance(texts, DataArguments):
            return cls(
                partial(load_text, texts),
                texts.describe() | {"tokenizer_name": texts.tokenizer_name},
                texts.validation_fraction,
                texts.data_seed,
                texts.tokenizer_name,
                texts.tokenizer_revision,
                files=_files_of(texts),
            )
        if not isinstance(texts, Dataset):
            texts = Dataset.from_dict(
                {"text": [text for text in map(_as_text, filter(None, texts)) if not text.isspace()]}
            )
        if "text" not in texts.column_names:
            raise no_column("the data set", "text", texts.column_names)
        if len(texts) == 0:
            raise ValueError("there is no text: give documents like those that the smaller model will read")
        rows = (row for batch in texts.select_columns("text").iter(batch_size=1000) for row in batch["text"])
        told = {
            "source": "given in Python",
            "num_documents": len(texts),
            "digest": content_digest(map(_as_text, rows)),
        }
        return cls(lambda: texts, told)


def _as_text(value: Any) -> str:
    return text_in(value, "text", "the text given in Python")


def _are_labelled(data: CompressDataArguments) -> bool:
    return bool(data.train_file or data.task or data.packaged in LABELLED_SETS)


def _files_of(data: DataArguments) -> tuple[Sequence[str], Collection[str], str] | None:
    if data.train_files:
        return data.train_files, TEXT_KINDS, "text"
    labelled = [getattr(data, name, None) for name in ("train_file", "validation_file", "test_file")]
    files = [file for file in labelled if file]
    return (files, ROW_KINDS, "labelled") if files else None


def _load_task(data: CompressDataArguments, problem_type: ProblemType) -> LabelledTask:
    """Labelled examples, by the readers of fine-tuning; what their labels are, the base model says."""
    if data.task:
        return load_glue(data.task, cache_dir=data.cache_dir)
    if data.packaged:
        return load_packaged(data.packaged)
    return load_files(
        str(data.train_file), data.validation_file, data.test_file, cache_dir=data.cache_dir,
        label_column=data.label_column, text_columns=data.text_columns, problem_type=problem_type,
    )  # fmt: skip
