"""Data files of any known kind → rows, each with its place: the one way to find, check and stream them.

The builders of the datasets library are not used on files: a line `null` crashes pyarrow's JSON reader, and Python
with it; a path with brackets is a pattern to them; pandas takes words such as NA and null for missing values.
"""

import codecs
import csv
import fnmatch
import gzip
import hashlib
import io
import json
import logging
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
import pyarrow.parquet

from hf_nasbert.foreign import printable, unique_keys

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_WILD = re.compile(r"[*?]")  # brackets stand for themselves: they are common in names of folders
_QUOTED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')  # as a writer that quotes writes a field that holds a quotation
_LINE_END = re.compile(r"[\r\n]")
_DECIMAL = re.compile(r"[-+]?[0-9]+\.[0-9]+")
_MOST_VALUES = 1000  # of a column, that are kept to be compared with

Row = tuple[str, dict[str, Any]]
"""Where a row stands, and its values by column."""


def kind_of(path: Path) -> str:
    """The kind of a file by the end of its name, in small letters and without `.gz`."""
    return Path(path.stem if is_compressed(path) else path.name).suffix.lower()


def is_compressed(path: Path) -> bool:
    """Whether a file is compressed by gzip, by its name."""
    return path.suffix.lower() == ".gz"


def find_files(name: str | Path, known: Iterable[str], what: str = "text") -> list[Path]:
    """The files that a user means by one name: a file, the files of a folder, or all that match a pattern, sorted.

    A path that exists is that file or folder, whatever its letters. In any other, `*` and `?` stand for letters and
    `**` for folders of any depth, in the parts that do not exist as they are written; brackets are letters always.
    Of a folder those files are taken that lie in it directly and are of a known kind, hidden ones left out.

    Args:
        name: What the user wrote.
        known: Kinds that can be read, such as ".csv"; each may be compressed (".csv.gz").
        what: What the files hold, for messages.

    Raises:
        FileNotFoundError: If there is no such file, and none that matches.
        ValueError: If a folder holds no such file, or files of several kinds.
    """
    if not str(name):
        raise ValueError(f"the name of a {what} file is empty")
    path = Path(name)
    if path.is_dir():
        found = _files_in(path, tuple(known), what)
        logger.warning("%s stands for %s", path, _listed(found))
        return found
    if not os.path.lexists(path) and _WILD.search(str(path)):
        found = [match for match in _matches(path) if not match.is_dir()]
        if not found:
            raise FileNotFoundError(f"there is no {what} file {path}, and none that matches it as a pattern")
        logger.warning("%s stands for %s", path, _listed(found))
        return found
    return [path]


def _listed(files: Sequence[Path]) -> str:
    more = f" and {len(files) - 5} more" if len(files) > 5 else ""
    return ", ".join(str(file) for file in files[:5]) + more


def _files_in(folder: Path, known: Sequence[str], what: str) -> list[Path]:
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        raise ValueError(f"{folder} is a folder that `save_to_disk` wrote: give it by dataset_name")
    files = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())
    kinds: dict[str, Path] = {}
    for file in files:
        if kind_of(file) in known:
            kinds.setdefault(kind_of(file), file)
    if not kinds:
        raise ValueError(
            f"{folder} is a folder without a {what} file: names must end in one of {', '.join(known)} (or .gz behind)"
        )
    if len(kinds) > 1:
        examples = " and ".join(str(file.name) for file in kinds.values())
        raise ValueError(f"{folder} is a folder of several kinds of files ({examples}): name those that are meant")
    found = [file for file in files if kind_of(file) in known]
    for file in found:
        if is_compressed(file) and file.with_suffix("") in found:
            raise ValueError(f"{folder} holds {file.name} beside {file.stem}: name the files that are meant")
    return found


def _matches(path: Path) -> list[Path]:
    """What matches a path, part by part, so that a part that exists as it is written is no pattern."""
    found = [Path(path.anchor)]
    for part in path.relative_to(path.anchor).parts:
        following: list[Path] = []
        for folder in found:
            if os.path.lexists(folder / part):
                following.append(folder / part)
            elif part == "**":
                following += [place for place in folder.glob("**") if place.is_dir()]
            elif _WILD.search(part) and folder.is_dir():
                pattern = part.replace("[", "[[]")
                following += [
                    child
                    for child in folder.iterdir()
                    if fnmatch.fnmatchcase(child.name, pattern)
                    and (part.startswith(".") or not child.name.startswith("."))
                ]
        found = sorted(set(following))
    return found


def check_file(path: Path, known: Iterable[str], what: str = "text") -> str:
    """Return a digest of a file's bytes as they lie on the disk, or say what keeps it from being read.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a folder or device, of no known kind, empty, binary, no UTF-8, or damaged gzip.
    """
    known = tuple(known)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, where a {what} file was meant: name the files in it")
    if not path.exists():
        raise FileNotFoundError(f"there is no {what} file {path}")
    if not path.is_file():
        raise ValueError(f"{path} is not a regular file")
    if kind_of(path) not in known:
        raise ValueError(
            f"{path} is of no known kind: its name must end in one of {', '.join(known)}, or in one of these and .gz"
        )
    with path.open("rb") as raw:
        digest = hashlib.file_digest(raw, "sha256").hexdigest()
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with open_bytes(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            if kind_of(path) != ".parquet":
                _check_utf8(path, decoder, chunk, offset)
            elif not is_compressed(path):
                return digest
            offset += len(chunk)
    if offset == 0:
        raise ValueError(f"the {what} file {path} is empty")
    _check_utf8(path, decoder, b"", offset)
    return digest


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


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """What a file holds, decompressed as it is read if its name says so.

    Raises:
        ValueError: Also from within the block, if the compressed bytes are damaged.
    """
    if not is_compressed(path):
        with path.open("rb") as file:
            yield file
        return
    try:
        with gzip.open(path, "rb") as unpacked:
            yield unpacked  # type: ignore[misc]  # a GzipFile is a BinaryIO in all but name
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged, or no gzip file ({error}): compress it again") from None


@contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """The text of a file, without a byte-order mark; `newline` as `open` takes it: by default any end of a line."""
    with open_bytes(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline=newline) as text:
        yield text


def stream_rows(path: Path, column: str | None = None) -> Iterator[Row]:
    """The rows of a csv, tsv, json, jsonl or parquet file, each with its place in words.

    JSON is one object a line, one array of objects, or one object that holds such an array under "data"; the last two
    are held in memory. Fields of csv and tsv files are strings, empty ones None; the first row names the columns. A
    tsv file is not quoted: quotation marks are letters in it. In a csv file a quoted field may span lines, but not
    such lines as are rows of their own.

    Args:
        path: A file of one of `ROW_KINDS`.
        column: The only one that is needed: where a file's columns are known at its start, this is the only one that
            is read, and only its name must not stand twice.

    Raises:
        ValueError: If the file is broken, naming the line or row; or if it has no such column.
    """
    kind = kind_of(path)
    if kind == ".parquet":
        return _parquet_rows(path, column)
    return _separated_rows(path, ROW_KINDS[kind], column) if ROW_KINDS[kind] else _json_rows(path)


ROW_KINDS = {".csv": ",", ".tsv": "\t", ".json": "", ".jsonl": "", ".parquet": ""}
"""Kinds of files that hold rows, and what separates fields in them."""


def no_column(place: object, column: str, columns: Iterable[object]) -> ValueError:
    """The error for a column of texts that is not there; names those that are."""
    found = [repr(name) if len(str(name)) < 100 else f"{str(name)[:40]!r}..." for name in columns]
    more = f" and {len(found) - 10} more" if len(found) > 10 else ""
    said = f"{place} has no column {column!r}, only {', '.join(found[:10]) or 'none'}{more}"
    return ValueError(f"{said}: choose one by text_column")


def text_in(value: Any, column: str, place: str) -> str:
    """A value that must be text.

    Raises:
        ValueError: If it is of another type, or holds half of a character.
    """
    if not isinstance(value, str):
        raise ValueError(f"{place}: the column {column!r} holds {a_type(value)}, not a string")
    no_surrogates(value, column, place)
    return value


def no_surrogates(text: str, column: str, place: str) -> None:
    r"""Refuse half of a surrogate pair, which JSON may hold escaped, as \ud800."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{place}: the column {column!r} holds half a character, which is no text") from None


def a_type(value: object) -> str:
    """The type of a value of a row, in words."""
    return (
        "a list"
        if isinstance(value, list)
        else "an object"
        if isinstance(value, dict)
        else f"a {type(value).__name__}"
    )


def _json_rows(path: Path) -> Iterator[Row]:
    for place, value in _json_values(path):
        if not isinstance(value, dict):
            raise ValueError(f"{place}: an object of columns is needed, this is a {type(value).__name__}")
        yield place, value


def _json_values(path: Path) -> Iterator[tuple[str, Any]]:
    with open_text(path) as file:
        lines = ((number, line) for number, line in enumerate(file, 1) if not line.isspace())
        number, line = next(lines, (0, ""))
        if not line:
            return
        is_one = line.lstrip().startswith("[")
        if not is_one:
            try:
                value = _parse(line, path, number)
            except ValueError:
                is_one = _goes_on(line)
                if not is_one:
                    raise
        if is_one:
            file.seek(0)
            yield from _values_in(path, _parse(file.read(), path))
            return
        following = next(lines, None)
        if following is None:
            yield from _values_in(path, value, number)
            return
        yield f"{path}, line {number}", value
        while following is not None:
            number, line = following
            yield f"{path}, line {number}", _parse(line, path, number)
            following = next(lines, None)


def _values_in(path: Path, value: Any, line: int = 1) -> Iterator[tuple[str, Any]]:
    """The rows of a file that is one value."""
    rows = value.get("data") if isinstance(value, dict) else value
    if isinstance(rows, list) and (isinstance(value, list) or not rows or any(isinstance(row, dict) for row in rows)):
        for number, row in enumerate(rows, 1):
            yield f"{path}, object {number}", row
    elif isinstance(value, dict) and value and all(isinstance(column, dict) for column in value.values()):
        raise ValueError(
            f"{path} is one JSON object of columns ({', '.join(map(repr, list(value)[:5]))[:200]}), where rows are "
            'needed: write one object a line, or their list under "data"'
        )
    else:
        yield f"{path}, line {line}", value


def _goes_on(line: str) -> bool:
    """Whether a line that is no JSON is the beginning of an object that ends in another line."""
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return line.lstrip().startswith("{") and error.pos >= len(line.rstrip())
    except (ValueError, RecursionError):
        pass
    return False


def _parse(content: str, path: Path, number: int | None = None) -> Any:
    """The value in a line of a file, or in the whole of it."""
    try:
        return json.loads(content, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        line = number or error.lineno
        raise ValueError(f"{path}, line {line}: broken JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # also a number of more digits than Python reads
        place = f"{path}, line {number}" if number else path
        raise ValueError(f"{place}: broken JSON ({error})") from None


def _separated_rows(path: Path, delimiter: str, column: str | None) -> Iterator[Row]:
    limit = csv.field_size_limit(sys.maxsize)  # a text may be longer than the default of 128 KiB
    is_quoted = delimiter == ","
    line = 0  # the last one of the last whole row
    try:
        with open_text(path, newline="") as file:
            lines = _Watched(file)
            reader = csv.reader(
                lines,
                strict=True,
                delimiter=delimiter,
                quoting=csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE,
            )
            header = next((fields for fields in reader if fields), [])
            for name in header:
                if header.count(name) > 1 and column in (None, name):
                    raise ValueError(f"{path}: two columns are called {name!r}")
            if column is not None and column not in header:
                raise no_column(path, column, header)
            line = reader.line_num
            swallowed = _Swallowed(path, delimiter, len(header))
            has_warned = is_quoted
            lines.taken.clear()
            for fields in reader:
                place = f"{path}, line {reader.line_num}"
                if len(fields) not in (0, len(header)):
                    hint = "" if is_quoted or '"' not in "".join(fields) else " (a tsv file is not quoted)"
                    raise ValueError(f"{place}: {len(fields)} fields, the header has {len(header)}{hint}")
                if fields:
                    if is_quoted:
                        swallowed.see(line + 1, lines.taken, fields)
                    if not has_warned and any(map(_QUOTED.fullmatch, fields)):
                        logger.warning(
                            "%s: a field looks quoted, but quotation marks are letters in a tsv file: write csv where "
                            "they are not meant",
                            place,
                        )
                        has_warned = True
                    yield place, {name: field or None for name, field in zip(header, fields, strict=True)}
                line = reader.line_num
                lines.taken.clear()
            swallowed.check()
    except csv.Error as error:
        raise ValueError(f"{path}: broken CSV in the row after line {line} ({error})") from None
    finally:
        csv.field_size_limit(limit)


class _Watched:
    """Lines, of which those since the last row are kept."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.taken: list[str] = []

    def __iter__(self) -> "_Watched":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.taken.append(line)
        return line


class _Swallowed:
    """Rows that a stray quotation mark has made into one field, told by the values of their other columns.

    A field that spans lines is right in csv: reviews have paragraphs. A stray mark is told from that by what it
    swallowed: every one of the lines, its marks taken for letters, has as many fields as the header, and in one and
    the same column each line holds a value that the column has elsewhere too, such as a label, or a number with a
    decimal point where the column holds nothing else. Which values there are is known at the end of the file.
    """

    def __init__(self, path: Path, delimiter: str, num_fields: int) -> None:
        self._path, self._delimiter, self._num_fields = path, delimiter, num_fields
        self._values: list[set[str]] = [set() for _ in range(num_fields)]
        self._found: list[tuple[int, list[list[str]]]] = []

    def see(self, line: int, lines: Sequence[str], fields: Sequence[str]) -> None:
        """One row: its first line, the lines that it stands in, and its fields."""
        if len(lines) > 1:
            raw = [text.rstrip("\r\n").split(self._delimiter) for text in lines]
            if self._num_fields > 1 and all(len(parts) == self._num_fields for parts in raw):
                self._found.append((line, raw))
        for known, field in zip(self._values, fields, strict=True):
            if len(known) < _MOST_VALUES and len(field) <= 40 and not _LINE_END.search(field):
                known.add(field)

    def check(self) -> None:
        """At the end of the file: refuse it, naming the first such row."""
        for line, raw in self._found:
            for column, known in enumerate(self._values):
                are_scores = all(map(_DECIMAL.fullmatch, known))
                if all(parts[column] in known or (are_scores and _DECIMAL.fullmatch(parts[column])) for parts in raw):
                    raise ValueError(
                        f'{self._path}, line {line}: a quotation mark (") opens a field that ends in line '
                        f"{line + len(raw) - 1}, and each of these lines is a row of its own: double the mark and "
                        "quote its field, or write JSON lines or tsv"
                    )


def _parquet_rows(path: Path, column: str | None) -> Iterator[Row]:
    with _open_parquet(path) as file:
        if column is not None and column not in file.schema_arrow.names:
            raise no_column(path, column, file.schema_arrow.names)
        batches = file.iter_batches(batch_size=1000, columns=None if column is None else [column])
        number = 0
        while True:
            rows = _guarded(path, lambda: next(batches, None))
            if rows is None:
                return
            for row in _guarded(path, rows.to_pylist):
                number += 1
                yield f"{path}, row {number}", row


@contextmanager
def _open_parquet(path: Path) -> Iterator[pa.parquet.ParquetFile]:
    with open_bytes(path) as content:
        # Parquet is read from its end: what is compressed once more is unpacked into memory.
        source = io.BytesIO(content.read()) if is_compressed(path) else content
        file = _guarded(path, lambda: pyarrow.parquet.ParquetFile(source))
        names = file.schema_arrow.names
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{path}: two columns are called {name!r}")
        yield file


def parquet_table(path: Path) -> pa.Table:
    """The whole of a Parquet file, every value checked; categories as what they stand for.

    Raises:
        ValueError: If it is broken.
    """
    with _open_parquet(path) as file:
        table = _guarded(path, file.read)
        _guarded(path, lambda: table.validate(full=True))
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            values = table.column(place).cast(field.type.value_type)
            table = table.set_column(place, field.name, values)
    return table


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    """What pyarrow reads of a file; whatever it raises names the file."""
    try:
        return read()
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: broken Parquet ({printable(' '.join(str(error).split()), 400)})") from None
