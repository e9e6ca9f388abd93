"""Text from the Hub, from local files or from an installed package, as one column of documents."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, Value

from hf_nasbert.data.arguments import DataArguments
from hf_nasbert.data.cache import cache_folder, content_digest, open_arrow
from hf_nasbert.data.files import check_file, find_files, kind_of, no_column, open_text, text_in
from hf_nasbert.data.formats import ROW_KINDS, stream_rows
from hf_nasbert.data.given import GivenTexts
from hf_nasbert.data.named import load_split
from hf_nasbert.data.packaged import packaged_text

TEXT_KINDS = (".txt", *ROW_KINDS)

_FLUSH_CHARACTERS = 1 << 22
_FORMAT = "3"  # part of the cache's key: to be raised whenever reading changes what comes out


def load_text(arguments: DataArguments) -> Dataset:
    """Return the documents of the source that `arguments` names, in a column "text"; empty ones are left out.

    Raises:
        ValueError: If a file is empty, binary, not UTF-8 or broken, a folder holds several kinds of files or none,
            there is no such text column, the source holds no text at all, or the data set does not load.
        FileNotFoundError: If a file, a Hub dataset or the distribution of a packaged source is missing.
        ConnectionError: If the Hub cannot be reached.
    """
    if isinstance(arguments, GivenTexts) and arguments.is_given:
        if arguments.documents is None:
            raise ValueError("held-out text alone was given: give text to train on as well")
        return arguments.documents
    if arguments.packaged:
        return packaged_text(arguments.packaged)
    if arguments.train_files:
        return _load_files(
            [file for name in arguments.train_files for file in find_files(name, TEXT_KINDS)],
            arguments.text_column,
            arguments.sample_by,
            cache_folder(arguments.cache_dir, "text"),
        )
    return _load_from_hub(arguments)


def _load_from_hub(arguments: DataArguments) -> Dataset:
    name, column = arguments.dataset_name, arguments.text_column
    dataset = load_split(
        str(name),
        arguments.dataset_config,
        arguments.dataset_split,
        revision=arguments.dataset_revision,
        cache_dir=arguments.cache_dir,
    )
    return documents_in(dataset, str(name), column)


def documents_in(dataset: Dataset, name: str, column: str = "text") -> Dataset:
    """The documents of a data set's column that are not blank, in a column "text".

    Args:
        dataset: The data set.
        name: What messages call it.
        column: The column.

    Raises:
        ValueError: If there is no such column, it holds something else, or no text at all.
    """
    if column not in dataset.column_names:
        raise no_column(name, column, dataset.column_names)
    dataset = dataset.select_columns([column])
    if dataset.features[column] not in (Value("string"), Value("large_string")):
        raise ValueError(f"the column {column!r} of {name} holds {dataset.features[column]}, not strings")
    if column != "text":
        dataset = dataset.rename_column(column, "text")
    dataset = dataset.filter(_are_not_blank, batched=True, input_columns="text", desc="Dropping empty documents")
    if len(dataset) == 0:
        raise ValueError(f"{name} holds no text: every document is empty")
    return dataset


def given_texts(texts: Any, held_out: Any = None, **settings: Any) -> DataArguments:
    """The settings of text that is given in Python.

    Args:
        texts: A data set with a column of text, texts, the name of a file or folder, or the settings of a text; None
            where only text is held out.
        held_out: The same; all of it is held out, in place of a share of `texts`.
        **settings: Fields of `DataArguments`.

    Raises:
        ValueError: If there is no text, or what is given is none.
    """
    if isinstance(texts, str | Path):
        texts, settings = DataArguments(train_files=[str(texts)], **settings), {}
    if isinstance(texts, DataArguments):
        source: DataArguments = replace(texts, **settings)
        if held_out is None:
            return source
        texts = source
    column = settings.get("text_column", "text")
    documents, dev = (None if given is None else _given_documents(given, column) for given in (texts, held_out))
    named = dev if documents is None else documents
    if named is None:
        raise ValueError("no text was given: expected a data set with a column of text, or texts")
    rows = (text for batch in named.iter(batch_size=1000) for text in batch["text"])
    name = f"{'held-out ' if documents is None else ''}texts given in Python ({content_digest(rows)[:12]})"
    return GivenTexts(train_files=[name], given_as=name, documents=documents, held_out=dev, **settings)


def _given_documents(given: Any, column: str) -> Dataset:
    if isinstance(given, str | Path):
        given = DataArguments(train_files=[str(given)], text_column=column)
    if isinstance(given, DataArguments):
        return load_text(given)
    if isinstance(given, Mapping):
        raise ValueError(f"expected one data set or texts, got {', '.join(map(str, given))}: give one of them")
    if not isinstance(given, Dataset):
        texts = [text_in(text, "text", "the text given in Python") for text in given]
        given = Dataset.from_dict({"text": texts}, features=Features({"text": Value("string")}))
        column = "text"
    return documents_in(given, "the text given in Python", column)


def _are_not_blank(texts: Sequence[str | None]) -> list[bool]:
    return [bool(text) and not text.isspace() for text in texts]  # type: ignore[union-attr]


def _load_files(files: Sequence[Path], column: str, sample_by: str, cache: Path) -> Dataset:
    """Read local files into one memory-mapped Arrow file, found again by their content."""
    digests = [kind_of(file) + check_file(file, TEXT_KINDS) for file in files]
    path = cache / f"{content_digest(digests, column, sample_by, _FORMAT)}.arrow"

    def write(sink: io.RawIOBase) -> int:
        num_texts = write_arrow(chain.from_iterable(_texts_of(file, column, sample_by) for file in files), sink)
        if not num_texts:
            raise ValueError(f"{', '.join(map(str, files))} holds no text: every document is empty")
        return num_texts

    return open_arrow(path, write)


def write_arrow(texts: Iterable[str], sink: io.RawIOBase) -> int:
    """Write the texts that are not blank, and return their number."""
    schema = pa.schema({"text": pa.string()})
    batch: list[str] = []
    size = num_texts = 0
    with pa.ipc.new_stream(sink, schema) as writer:
        for text in texts:
            if not text or text.isspace():
                continue
            batch.append(text)
            size += len(text)
            num_texts += 1
            if size > _FLUSH_CHARACTERS:
                writer.write_table(pa.table({"text": batch}, schema=schema))
                batch, size = [], 0
        writer.write_table(pa.table({"text": batch}, schema=schema))
    return num_texts


def _texts_of(path: Path, column: str, sample_by: str) -> Iterator[str]:
    """The documents of one file, in its order."""
    if kind_of(path) == ".txt":
        yield from _read_txt(path, sample_by)
        return
    for place, row in stream_rows(path, column):
        if column not in row:
            raise no_column(place, column, row)
        if row[column] is not None:
            yield text_in(row[column], column, place)


def _read_txt(path: Path, sample_by: str) -> Iterator[str]:
    with open_text(path) as file:  # any of the three kinds of line ends reads as "\n"; no other sign ends a line
        if sample_by == "document":
            yield file.read()
        elif sample_by == "line":
            for line in file:
                yield line.rstrip("\n")
        else:
            paragraph: list[str] = []
            for line in file:
                if line.isspace():
                    yield "".join(paragraph).rstrip("\n")
                    paragraph = []
                else:
                    paragraph.append(line)
            yield "".join(paragraph).rstrip("\n")
