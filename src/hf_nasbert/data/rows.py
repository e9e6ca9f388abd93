"""Files of labelled rows → a table of one type a column; whatever does not fit is named by its place."""

import io
import re
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features

from hf_nasbert.data.cache import cache_folder, content_digest, open_arrow
from hf_nasbert.data.files import a_type, check_file, find_files, kind_of, no_surrogates
from hf_nasbert.data.formats import ROW_KINDS, Row, parquet_table, stream_rows
from hf_nasbert.foreign import printable

_FORMAT = "3"  # part of the cache's key: to be raised whenever reading changes what comes out
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")  # "007" is a name: as a number it would not come back
_NUMBER = re.compile(
    r"[-+]?(?:(?:0|[1-9][0-9]{0,300})(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,5})?|(?i:nan|[-+]?inf)"
)
_LONGEST_NAME = 200


def read_rows(
    path: str | Path,
    cache_dir: str | Path | None = None,
    *,
    needed: Sequence[str] = (),
    kinds: Sequence[str] = tuple(ROW_KINDS),
    what: str = "labelled",
) -> Dataset:
    """The rows of a csv, tsv, json, jsonl or parquet file, memory-mapped and found again by content.

    A column of whole numbers is one of int64, one of other numbers of float64, all others are strings (booleans in
    JSON; what the file declares in Parquet). An empty field of a csv file, and a key that a JSON object lacks, are
    missing values; the word NA is a word. JSON columns of lists are kept if their members are of one type; those of
    objects, and of values of which only some are lists, are left out.

    Args:
        path: A file, a folder of files or a pattern (`hf_nasbert.data.files.find_files`); its files may be compressed.
        cache_dir: Where the Arrow file lies; by default in the cache of the datasets library.
        needed: Columns that are refused where they would be left out.
        kinds: Kinds of files to read.
        what: What the files hold, for messages.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is empty, binary, not UTF-8 or broken; a row has more or fewer fields than the header, or
            a key twice; a column holds values of two kinds; or there is no row.
    """
    files = find_files(path, kinds, what)
    digests = [kind_of(file) + check_file(file, kinds, what) for file in files]
    key = content_digest(digests, *([sorted(needed)] if needed else []), _FORMAT)
    cached = cache_folder(cache_dir, "rows") / f"{key}.arrow"

    def write(sink: io.RawIOBase) -> int:
        table = _table_of(files, needed)
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return int(table.num_rows)

    return open_arrow(cached, write)


def _table_of(files: Sequence[Path], needed: Sequence[str]) -> pa.Table:
    found = {kind_of(file) for file in files}
    named = ", ".join(map(str, files[:3])) + (" and others" if len(files) > 3 else "")
    if len(found) > 1:
        raise ValueError(f"{named} are of several kinds ({', '.join(sorted(found))}): name files of one")
    if found == {".parquet"}:
        table = _parquet_table(files)
        num_rows = table.num_rows
    else:
        rows = list(chain.from_iterable(map(stream_rows, files)))
        num_rows = len(rows)
        table = _as_table(named, _converted(rows) if found <= {".csv", ".tsv"} else rows, needed)
        if num_rows and not table.column_names:
            columns = ", ".join(repr(name)[:60] for name in dict.fromkeys(name for _, row in rows for name in row))
            raise ValueError(
                f"{rows[0][0]} holds nothing but lists and objects ({columns[:300]}), where texts and labels are "
                'needed: write one row a line, or their list under "data"'
            )
    if num_rows == 0:
        raise ValueError(f"{named} holds no rows")
    return table


def _parquet_table(files: Sequence[Path]) -> pa.Table:
    """Parquet files as one table, with the features (names of classes) that the datasets library keeps in them."""
    tables: list[pa.Table] = []
    for file in files:
        table = parquet_table(file)
        try:
            features = Features.from_arrow_schema(table.schema)
            table = table.replace_schema_metadata(None).cast(features.arrow_schema)
            Features.from_arrow_schema(table.schema)
        except Exception as error:  # of what types and words in its schema raise in the datasets library
            said = printable(" ".join(str(error).split()), 300)
            raise ValueError(f"{file}: its columns cannot be read ({type(error).__name__}: {said})") from None
        if tables and table.schema != tables[0].schema:
            raise ValueError(f"{file} has other columns than {files[0]}, or columns of other types")
        tables.append(table)
    return pa.concat_tables(tables)


def _as_table(path: str, rows: Sequence[Row], needed: Sequence[str]) -> pa.Table:
    for place, row in rows:
        for name, value in row.items():
            no_surrogates(f"{name}{value}", name, place)
    columns = dict.fromkeys(name for _, row in rows for name in row)
    for name in columns:
        if len(name) > _LONGEST_NAME:
            raise ValueError(
                f"{path}: a column is called {name[:40]!r}..., in {len(name)} characters: is it a header?"
            )
    found = {name: _as_array(name, [(place, row.get(name)) for place, row in rows], needed) for name in columns}
    return pa.table({name: array for name, array in found.items() if array is not None})


def _as_array(name: str, values: Sequence[tuple[str, Any]], needed: Sequence[str]) -> pa.Array | None:
    """The values of a column, or None for one of lists or objects that nobody needs."""
    kinds = dict.fromkeys(type(value) for _, value in values if value is not None)
    if kinds.keys() & {list, dict}:
        if kinds.keys() == {list} and (name in needed or all(map(_is_flat, (value for _, value in values)))):
            return _as_lists(name, values, is_needed=name in needed)
        if name not in needed:
            return None
    if kinds.keys() == {int, float}:
        kinds = {float: None}
    if len(kinds) > 1:
        first = next(iter(kinds))
        place, odd = next((place, value) for place, value in values if value is not None and type(value) is not first)
        raise ValueError(
            f"{place}: the column {name!r} holds {a_type(odd)}, above {a_type(first())}: give it one type"
        )
    kind = next(iter(kinds), str)
    if kind is dict:
        place = next(place for place, value in values if value is not None)
        raise ValueError(f"{place}: the column {name!r} holds an object")
    for place, value in values:
        if kind is int and value is not None and not -(2**63) <= value < 2**63:
            raise ValueError(f"{place}: the column {name!r} holds a number of more than 64 bits")
    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    return pa.array([value for _, value in values], type=types[kind])


def _is_flat(value: list[Any] | None) -> bool:
    return value is None or not any(isinstance(item, list | dict) for item in value)


def _as_lists(name: str, values: Sequence[tuple[str, Any]], *, is_needed: bool) -> pa.Array | None:
    """The values of a column of lists whose members are of one type; None for others that nobody needs."""
    refusals = (pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError)
    try:
        return pa.array([value for _, value in values])
    except refusals:
        if not is_needed:
            return None
    first = None
    for place, value in values:
        try:
            found = pa.array([value]).type if value else None
        except refusals as error:
            said = printable(" ".join(str(error).split()), 200)
            raise ValueError(f"{place}: the list in the column {name!r} cannot be read ({said})") from None
        if first is not None and found not in (None, first):
            raise ValueError(f"{place}: the column {name!r} holds a {found}, above a {first}: give it one type")
        first = first or found
    raise ValueError(f"{values[0][0]}: the column {name!r} holds lists of several types, in this row or below")


def _converted(rows: Sequence[Row]) -> list[Row]:
    """Rows of fields as rows of what their columns hold."""
    columns = dict.fromkeys(name for _, row in rows for name in row)
    kinds = {name: _kind_of([row.get(name) for _, row in rows]) for name in columns}
    return [
        (place, {name: None if text is None else kinds[name](text) for name, text in row.items()})
        for place, row in rows
    ]


def _kind_of(texts: Sequence[str | None]) -> Callable[[str], str | int | float]:
    """What a column of fields holds: whole numbers, numbers or strings."""
    given = [text for text in texts if text is not None]
    if given and all(_WHOLE.fullmatch(text) for text in given):
        return int
    return float if given and all(_NUMBER.fullmatch(text) for text in given) else str
