"""Files of labelled rows → a table of one type a column; whatever does not fit is named by its place."""

import csv
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from hf_nasbert.data.cache import cache_folder, content_digest, open_arrow
from hf_nasbert.data.sources import check_file, json_rows

_FORMAT = "2"  # part of the cache's key: to be raised whenever reading changes what comes out
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")  # "007" is a name: as a number it would not come back
_NUMBER = re.compile(
    r"[-+]?(?:(?:0|[1-9][0-9]{0,300})(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,5})?|(?i:nan|[-+]?inf)"
)
_LONGEST_NAME = 200

Row = tuple[str, dict[str, Any]]
"""Where a row stands, and its values by column."""


def read_rows(path: str | Path, cache_dir: str | Path | None = None) -> Dataset:
    """The rows of a csv, tsv, json or jsonl file, memory-mapped and found again by content.

    A column of whole numbers is one of int64, one of other numbers of float64, all others are strings (booleans in
    JSON). An empty field of a csv file, and a key that a JSON object lacks, are missing values; the word NA is a word.
    JSON columns of lists or objects are left out.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is a folder, empty, binary, not UTF-8 or broken; a row has more or fewer fields than
            the header, or a key twice; a column holds values of two kinds; or there is no row.
    """
    # Read here and not by the builders of the datasets library: a file that holds `null` alone crashes pyarrow's JSON
    # reader, and Python with it; and pandas takes words such as NA and null for missing values.
    path = Path(path)
    key = content_digest([path.suffix.lower() + check_file(path, _READERS, "labelled")], _FORMAT)
    cached = cache_folder(cache_dir, "rows") / f"{key}.arrow"

    def write(sink: io.RawIOBase) -> int:
        table = _as_table(path, list(_READERS[path.suffix.lower()](path)))
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return int(table.num_rows)

    return open_arrow(cached, write)


def _as_table(path: Path, rows: Sequence[Row]) -> pa.Table:
    if not rows:
        raise ValueError(f"{path} holds no rows")
    columns = dict.fromkeys(name for _, row in rows for name in row)
    for name in columns:
        if len(name) > _LONGEST_NAME:
            raise ValueError(
                f"{path}: a column is called {name[:40]!r}..., in {len(name)} characters: is it a header?"
            )
    found = {name: _as_array(name, [(place, row.get(name)) for place, row in rows]) for name in columns}
    return pa.table({name: array for name, array in found.items() if array is not None})


def _as_array(name: str, values: Sequence[tuple[str, Any]]) -> pa.Array | None:
    """The values of a JSON column, or None if they are lists or objects."""
    kinds = dict.fromkeys(type(value) for _, value in values if value is not None)
    if kinds.keys() & {list, dict}:
        return None
    if kinds.keys() == {int, float}:
        kinds = {float: None}
    if len(kinds) > 1:
        first = next(iter(kinds))
        place, odd = next((place, value) for place, value in values if value is not None and type(value) is not first)
        raise ValueError(
            f"{place}: the column {name!r} holds a {type(odd).__name__}, above a {first.__name__}: give it one type"
        )
    kind = next(iter(kinds), str)
    for place, value in values:
        if kind is int and value is not None and not -(2**63) <= value < 2**63:
            raise ValueError(f"{place}: the column {name!r} holds a number of more than 64 bits")
    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    return pa.array([value for _, value in values], type=types[kind])


def _read_separated(path: Path, delimiter: str) -> Iterator[Row]:
    limit = csv.field_size_limit(sys.maxsize)  # a text may be longer than the default of 128 KiB
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, delimiter=delimiter)
            header = next((fields for fields in reader if fields), [])
            for name in header:
                if header.count(name) > 1:
                    raise ValueError(f"{path}: two columns are called {name!r}")
            rows = []
            for fields in reader:
                if len(fields) not in (0, len(header)):
                    number = f"{path}, line {reader.line_num}"
                    raise ValueError(f"{number}: {len(fields)} fields, the header has {len(header)}")
                if fields:
                    rows.append((reader.line_num, [field or None for field in fields]))
    except csv.Error as error:
        raise ValueError(f"{path}: broken CSV in the row after line {reader.line_num} ({error})") from error
    finally:
        csv.field_size_limit(limit)
    kinds = [_kind_of([fields[column] for _, fields in rows]) for column in range(len(header))]
    for line, values in rows:
        cells = zip(header, kinds, values, strict=True)
        yield f"{path}, line {line}", {name: None if text is None else kind(text) for name, kind, text in cells}


def _kind_of(texts: Sequence[str | None]) -> Callable[[str], str | int | float]:
    """What a column of fields holds: whole numbers, numbers or strings."""
    given = [text for text in texts if text is not None]
    if given and all(_WHOLE.fullmatch(text) for text in given):
        return int
    return float if given and all(_NUMBER.fullmatch(text) for text in given) else str


def _read_objects(path: Path) -> Iterator[Row]:
    for place, row in json_rows(path):
        if not isinstance(row, dict):
            raise ValueError(f"{place}: an object of columns is needed, this is a {type(row).__name__}")
        for name, value in row.items():
            try:
                f"{name}{value}".encode()
            except UnicodeEncodeError:  # half of a surrogate pair, escaped as \ud800
                raise ValueError(f"{place}: the column {name!r} holds half a character, which is no text") from None
        yield place, row


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": partial(_read_separated, delimiter=","),
    ".tsv": partial(_read_separated, delimiter="\t"),
    ".json": _read_objects,
    ".jsonl": _read_objects,
}
