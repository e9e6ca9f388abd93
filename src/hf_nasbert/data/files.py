"""Data files found, checked and opened: the one way to all that are read, whatever their format.

The datasets library does not look for files: a path with brackets is a pattern to it.
"""

import codecs
import fnmatch
import gzip
import hashlib
import io
import logging
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_WILD = re.compile(r"[*?]")  # brackets stand for themselves: they are common in names of folders


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
    found = _find(name, tuple(known), what)
    if found != [Path(name)]:
        logger.warning("%s stands for %s", Path(name), _listed(found))
    return found


def digest_files(names: Iterable[str | Path], known: Iterable[str], what: str = "text") -> str:
    """A digest of the bytes of all files that names stand for, in their order; their places are no part of it.

    Raises:
        FileNotFoundError: As `find_files`.
        ValueError: As `find_files` and `check_file`.
    """
    known = tuple(known)
    files = [file for name in names for file in _find(name, known, what)]
    return hashlib.sha256("\n".join(check_file(file, known, what) for file in files).encode()).hexdigest()


def _find(name: str | Path, known: Sequence[str], what: str) -> list[Path]:
    if not str(name):
        raise ValueError(f"the name of a {what} file is empty")
    path = Path(name)
    if path.is_dir():
        return _files_in(path, known, what)
    if not os.path.lexists(path) and _WILD.search(str(path)):
        found = [match for match in _matches(path) if not match.is_dir()]
        if not found:
            raise FileNotFoundError(f"there is no {what} file {path}, and none that matches it as a pattern")
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
