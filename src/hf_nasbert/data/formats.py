"""Rows of JSON, separated tables and Parquet, one at a time: each with its place, and what is wrong with it named.

The builders of the datasets library are not used on files: a line `null` crashes pyarrow's JSON reader, and Python
with it; pandas takes words such as NA and null for missing values.
"""

import csv
import io
import json
import logging
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from hf_nasbert.data.files import (
    is_compressed,
    kind_of,
    no_column,
    open_bytes,
    open_text,
)
from hf_nasbert.foreign import printable, unique_keys

logger = logging.getLogger(__name__)

_QUOTED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')  # as a writer that quotes writes a field that holds a quotation
_LINE_END = re.compile(r"[\r\n]")
_DECIMAL = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)")
_MOST_VALUES = 1000  # of a column, that are kept to be compared with

Row = tuple[str, dict[str, Any]]
"""Where a row stands, and its values by column."""


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
