"""Text from the Hub, from local files or from an installed package, as one column of documents."""

import codecs
import csv
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet
from datasets import Dataset, Value, load_dataset

from hf_nasbert.data.arguments import DataArguments
from hf_nasbert.data.cache import cache_folder, content_digest
from hf_nasbert.data.packaged import packaged_text
from hf_nasbert.foreign import unique_keys
from hf_nasbert.writing import whole_file

_CHUNK_BYTES = 1 << 20
_FLUSH_CHARACTERS = 1 << 22
_FORMAT = "2"  # part of the cache's key: to be raised whenever reading changes what comes out


def load_text(arguments: DataArguments) -> Dataset:
    """Return the documents of the source that `arguments` names, in a column "text"; empty ones are left out.

    Raises:
        ValueError: If a file is a folder, empty, binary, not UTF-8 or broken, if there is no such text column, or if
            the source holds no text at all.
        FileNotFoundError: If a file, a Hub dataset or the distribution of a packaged source is missing.
    """
    if arguments.packaged:
        return packaged_text(arguments.packaged)
    if arguments.train_files:
        return _load_files(
            [Path(file) for file in arguments.train_files],
            arguments.text_column,
            arguments.sample_by,
            cache_folder(arguments.cache_dir, "text"),
        )
    return _load_from_hub(arguments)


def _load_from_hub(arguments: DataArguments) -> Dataset:
    name, column = arguments.dataset_name, arguments.text_column
    dataset = load_dataset(
        name,
        arguments.dataset_config,
        split=arguments.dataset_split,
        revision=arguments.dataset_revision,
        cache_dir=arguments.cache_dir,
    )
    if column not in dataset.column_names:
        raise ValueError(_no_column(name, column, dataset.column_names))
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


def _no_column(name: object, column: str, columns: Iterable[object]) -> str:
    found = [repr(column) if len(str(column)) < 100 else f"{str(column)[:40]!r}..." for column in columns]
    more = f" and {len(found) - 10} more" if len(found) > 10 else ""
    return f"{name} has no column {column!r}, only {', '.join(found[:10]) or 'none'}{more}: choose one by text_column"


def _load_files(files: Sequence[Path], column: str, sample_by: str, cache: Path) -> Dataset:
    """Read local files into one memory-mapped Arrow file, found again by their content."""
    # Read here and not by the builders of the datasets library: one bad line is named, a word NA is a word, and some
    # malformed JSON (a file holding `null`) crashes pyarrow's reader, and Python with it.
    read_file = _readers(column, sample_by)
    digests = [file.suffix.lower() + check_file(file, read_file) for file in files]
    path = cache / f"{content_digest(digests, column, sample_by, _FORMAT)}.arrow"
    if not path.exists():
        texts = chain.from_iterable(read_file[file.suffix.lower()](file) for file in files)
        with whole_file(path) as sink:
            if not write_arrow(texts, sink):
                raise ValueError(f"{', '.join(map(str, files))} holds no text: every document is empty")
    return Dataset.from_file(str(path))


def check_file(path: Path, known: Iterable[str], what: str = "text") -> str:
    """Return a digest of a file's bytes, or say what keeps it from being text."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder, where a {what} file was meant: name the files in it")
    if not path.exists():
        raise FileNotFoundError(f"there is no {what} file {path}")
    if not path.is_file():
        raise ValueError(f"{path} is not a regular file")
    if path.suffix.lower() not in known:
        raise ValueError(f"{path} is of no known kind: its name must end in one of {', '.join(known)}")
    if path.stat().st_size == 0:
        raise ValueError(f"the {what} file {path} is empty")
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            if path.suffix.lower() != ".parquet":
                _check_utf8(path, decoder, chunk, offset)
            offset += len(chunk)
    _check_utf8(path, decoder, b"", offset)
    return digest.hexdigest()


def _check_utf8(path: Path, decoder: codecs.IncrementalDecoder, chunk: bytes, offset: int) -> None:
    """Refuse bytes that are not text, rather than to train on rubbish. An empty chunk is the end."""
    if b"\0" in chunk:
        at = offset + chunk.index(0)
        raise ValueError(f"{path} is binary or UTF-16 (a zero byte at offset {at}): convert it to UTF-8 text")
    num_pending = len(decoder.getstate()[0])
    try:
        decoder.decode(chunk, final=not chunk)
    except UnicodeDecodeError as error:
        at = offset - num_pending + error.start
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte offset {at}): convert it") from None


def write_arrow(texts: Iterable[str], sink: BinaryIO) -> int:
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


def _readers(column: str, sample_by: str) -> dict[str, Callable[[Path], Iterator[str]]]:
    """Return the reader of every kind of file, by the end of its name."""
    read_json = partial(_read_json, column=column)
    return {
        ".txt": partial(_read_txt, sample_by=sample_by),
        ".json": read_json,
        ".jsonl": read_json,
        ".csv": partial(_read_csv, column=column),
        ".parquet": partial(_read_parquet, column=column),
    }


def _read_txt(path: Path, sample_by: str) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as file:  # any of the three kinds of line ends reads as "\n"
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


def _read_json(path: Path, column: str) -> Iterator[str]:
    for place, row in json_rows(path):
        yield from _text_of(row, column, place)


def json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Read one value a line, or one array of values (which is held in memory), each with its place in words."""
    with path.open(encoding="utf-8-sig") as file:
        first = next((line for line in file if not line.isspace()), "")
        file.seek(0)
        if first.lstrip().startswith("["):
            for number, row in enumerate(_parse(file.read(), path), 1):
                yield f"{path}, object {number}", row
            return
        for number, line in enumerate(file, 1):
            if not line.isspace():
                place = f"{path}, line {number}"
                yield place, _parse(line, place)


def _parse(content: str, place: object) -> Any:
    try:
        return json.loads(content, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:  # also a number of more digits than Python reads
        raise ValueError(f"{place}: broken JSON ({error})") from None


def _text_of(row: Any, column: str, place: str) -> Iterator[str]:
    if not isinstance(row, dict):
        raise ValueError(f"{place}: an object with the key {column!r} is needed, this is a {type(row).__name__}")
    if column not in row:
        raise ValueError(_no_column(place, column, row))
    text = row[column]
    if text is None:
        return
    if not isinstance(text, str):
        raise ValueError(f"{place}: the column {column!r} holds a {type(text).__name__}, not a string")
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, escaped as \ud800
        raise ValueError(f"{place}: the column {column!r} holds half a character, which is no text") from None
    yield text


def _read_csv(path: Path, column: str) -> Iterator[str]:
    limit = csv.field_size_limit(sys.maxsize)  # a document may be longer than the default of 128 KiB
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if column not in (rows.fieldnames or ()):
                raise ValueError(_no_column(path, column, rows.fieldnames or ()))
            names = list(rows.fieldnames or ())
            if names.count(column) > 1:
                raise ValueError(f"{path}: the header names {column!r} {names.count(column)} times: which one is it?")
            for row in rows:
                if None in row or None in row.values():
                    wrong = f"{'more' if None in row else 'fewer'} fields than the {len(names)} of the header"
                    raise ValueError(f"{path}, line {rows.line_num}: {wrong}")
                yield row[column]
    except csv.Error as error:
        raise ValueError(f"{path}: broken CSV in the row after line {rows.line_num} ({error})") from error
    finally:
        csv.field_size_limit(limit)


def _read_parquet(path: Path, column: str) -> Iterator[str]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                raise ValueError(_no_column(path, column, file.schema_arrow.names))
            for batch in file.iter_batches(batch_size=1000, columns=[column]):
                for text in batch.column(0).to_pylist():
                    yield from _text_of({column: text}, column, str(path))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: broken Parquet ({' '.join(str(error).split())[:400]})") from error
