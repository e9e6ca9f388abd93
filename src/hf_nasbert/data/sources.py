"""Text from the Hub, from local files or from an installed package, as one column of documents."""

import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, Value

from hf_nasbert.data.arguments import DataArguments
from hf_nasbert.data.cache import cache_folder, content_digest, open_arrow
from hf_nasbert.data.files import check_file, find_files, kind_of, no_column, open_text, text_in
from hf_nasbert.data.formats import ROW_KINDS, stream_rows
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
