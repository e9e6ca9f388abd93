"""Append-only JSON lines: what a run was asked, what it ran on and what came out, one record a line."""

import dataclasses
import errno
import gzip
import json
import logging
import lzma
import math
import os
import platform
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hf_nasbert.foreign import unique_keys
from hf_nasbert.writing import WriteError, check_writable, flush, write_errors

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

logger = logging.getLogger(__name__)

Record = dict[str, Any]
Content = TypeVar("Content", bound="DataclassInstance")

_PACKAGES = ("hf_nasbert", "torch", "transformers", "accelerate", "datasets", "tokenizers", "safetensors", "numpy")
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what file systems without locks say
_ALLOCATIONS = "allocation.all.allocated"  # torch's name for how many there ever were
_CHUNK = 1 << 16  # bytes read at a time while looking for the last line


class NoRecordsError(ValueError):
    """A file does not begin with a record: it is another kind of file."""


def append(path: str | Path, record: Record) -> None:
    """Add one record to the end of a file and wait until it lies on the disk; see `extend`."""
    extend(path, [record])


def extend(path: str | Path, new_records: Iterable[Record]) -> None:
    """Add records to the end of a file, all in one write, and wait until they lie on the disk.

    Several processes may add to one file: each call is one write under an exclusive lock, so lines never mix. A last
    line left half-written by a killed process is cut off first; every complete record stays. On a file system without
    locks a warning takes their place: let no two processes add to one file there.

    A link is followed, so that records may lie on another disk: what is there is kept, and only a file of records is
    added to.

    Args:
        path: The file; it and its folder are made if missing. Compressed files are for reading only.
        new_records: Plain JSON types. NaN and infinity are refused, since JSON has no word for them: write None.

    Raises:
        ValueError: If a record is not plain JSON, or the file holds something other than records.
        WriteError: If the lines could not be written whole; the file is then as it was.
    """
    lines = b"".join(_line(record) for record in new_records)
    if lines:
        with _locked(path) as descriptor:
            _write(descriptor, Path(path), lines)


def update(path: str | Path, choose: Callable[[list[Record]], Iterable[Record]]) -> list[Record]:
    """Add the records that what stands in a file asks for: looked at and written under one lock.

    Of several processes that begin a file together one does, and the others find what it began with.

    Args:
        path: The file; it and its folder are made if missing.
        choose: Given the records of the file, those to add; what it raises leaves the file as it was.

    Returns:
        All records of the file, the new ones included.

    Raises:
        ValueError, OSError: See `extend` and `read`.
    """
    path = Path(path)
    if path.is_file() and not os.access(path, os.W_OK):  # it may hold all already
        found = read(path)
        if not list(choose(list(found))):
            return found
    with _locked(path) as descriptor:
        found = read(path)
        new = list(choose(list(found)))
        lines = b"".join(map(_line, new))
        if lines:
            _write(descriptor, path, lines)
    return [*found, *new]


@contextmanager
def _locked(path: str | Path) -> Iterator[int]:
    """A descriptor of a file, made if missing, that nobody else writes to; it ends in a complete line."""
    import fcntl  # POSIX only: reading works without it

    path = Path(path)
    check_writable(path, is_appended=True)
    with write_errors(path):
        is_new = not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # released when the descriptor closes, also by a kill
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise WriteError(path, error) from error
            _warn_once(path.parent, error.strerror)
        with write_errors(path):
            _repair(descriptor, path)
        yield descriptor
    finally:
        os.close(descriptor)
    if is_new:
        flush(path.resolve().parent)  # a new file's name is to be as lasting as its content


def _write(descriptor: int, path: Path, lines: bytes) -> None:
    """Add lines, all or none."""
    size = os.fstat(descriptor).st_size
    try:
        written = os.write(descriptor, lines)
        if written != len(lines):
            raise OSError(f"{written} of {len(lines)} bytes were taken: is the disk full?")
        os.fsync(descriptor)
    except OSError as error:
        os.ftruncate(descriptor, size)
        raise WriteError(path, error) from error


def read(path: str | Path) -> list[Record]:
    """All complete records of a file, `.jsonl`, `.jsonl.gz` or `.jsonl.xz`, in the order in which they were written.

    A half-written last line, the trace of a killed process, is left out and named in a warning of this module's
    logger; the next `append` removes it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line before the last, or a complete last line, is not a record; a `NoRecordsError` if that is
            the first.
    """
    path = Path(path)
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "it is no file" if path.exists() else "there is no such file"
        raise FileNotFoundError(f"no records at {path}: {what}")
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is not a whole gzip file ({error}): fetch it again") from error
    elif path.suffix == ".xz":
        try:
            content = lzma.decompress(content)
        except lzma.LZMAError as error:
            raise ValueError(f"{path} is not a whole xz file ({error}): fetch it again") from error
    found: list[Record] = []
    *lines, tail = content.split(b"\n")  # a file that ends as it should leaves an empty tail
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is None:
            kind = ValueError if found else NoRecordsError
            raise kind(f"{path}, line {number} is not a record: {line[:80]!r}; repair or remove that line")
        found.append(record)
    if tail:
        record = _parse(tail)
        if record is not None:
            found.append(record)
        elif tail.startswith(b"{"):
            logger.warning("%s ends in a half-written record (line %d): left out", path, len(lines) + 1)
        else:
            kind = ValueError if found else NoRecordsError
            raise kind(f"{path}, line {len(lines) + 1} is not a record: {tail[:80]!r}")
    return found


def refuse_duplicate_runs(found: Iterable[Record], told: Callable[[Record], tuple[str, str]]) -> None:
    """Refuse super-nets of two runs that would pass for one: they are told apart by method, seed and stage.

    Args:
        found: Records with `method`, `seed`, and, as far as they are known, `supernet`, `max_steps` and `settings`.
        told: The method and the stage, in words, that a record is told of under.

    Raises:
        ValueError: If two have them in common and other weights; or the same method and seed, but were trained for
            other numbers of steps or, where both say so, by other settings.
    """
    known: dict[tuple[Any, ...], Any] = {}
    for record in found:
        (method, stage), seed = told(record), record["seed"]
        if seed is None:
            continue
        identity: dict[tuple[Any, ...], Any] = {("weights", method, stage, seed): record.get("supernet")}
        if record["method"] is not None:
            identity["steps", record["method"], seed] = record.get("max_steps")
            if record.get("settings") is not None:
                identity["settings", record["method"], seed] = record["settings"]
        for key, value in identity.items():
            if known.setdefault(key, value) != value:
                raise ValueError(
                    f"super-nets of two runs are both {method}, seed {seed}, {stage} and would pass for one (they "
                    f"differ in {key[0]}): give one of them a label of its own, or put it into another file"
                )


def is_finite_number(value: Any) -> bool:
    """Whether a value of a record is a number to compute with: JSON readers let NaN and infinity through."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max  # nor are integers that no float can hold


def versions() -> Record:
    """What a run ran on: Python, the packages that decide numbers, processors, threads; no host names, no paths.

    The GPU is named where this process has put something on it: that one could be used says nothing.
    """
    found: Record = {"python": platform.python_version(), **_packages()}
    found["platform"] = f"{platform.system()} {platform.machine()}"
    found["cpu"] = _processor()
    found["num_cpus"] = os.cpu_count() or 1
    torch = sys.modules.get("torch")  # ask torch where it is in use, but never load it for this
    found["num_threads"] = int(torch.get_num_threads()) if torch is not None else found["num_cpus"]
    if torch is not None and torch.cuda.is_initialized() and torch.cuda.memory_stats().get(_ALLOCATIONS, 0):
        found["gpu"] = torch.cuda.get_device_name()
    return found


@cache
def _packages() -> dict[str, str]:
    """The installed versions by package, read once: each is looked for in a file of thousands of lines."""
    found = {}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


@cache
def _warn_once(folder: Path, reason: str) -> None:
    """Say, once per folder and process, that nothing keeps two writers apart."""
    logger.warning("files in %s cannot be locked (%s): let no second process write there", folder, reason)


def _line(record: Record) -> bytes:
    if not isinstance(record, dict):
        raise ValueError(f"a record is a dict, not {type(record).__name__}")
    _check(record, "record")
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _check(value: Any, where: str) -> None:
    """Refuse, by its place in the record, what JSON would not give back as it went in."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{where} has the key {key!r}: JSON keys are strings")
            _check(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, f"{where}[{index}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}, which JSON cannot hold: write None and say why beside it")
    elif not (value is None or isinstance(value, str | bool | int)):
        raise ValueError(f"{where} is of type {type(value).__name__}: use plain JSON types")


def _parse(line: bytes) -> Record | None:
    """The record of a line, or None. The last character of an object closes it, so no torn record parses."""
    try:
        record = json.loads(line, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError):  # the latter of ten thousand brackets
        return None
    return record if isinstance(record, dict) else None


def _repair(descriptor: int, path: Path) -> None:
    """Make the file end in a complete line, under the caller's lock."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        return
    # Up to two line ends are looked for: the file's last one and the one before the last line.
    pieces, start, ends_before = (
        list[bytes](),
        size,
        False,
    )  # joined once: a last line may be as long as a disk was full
    has_content = False
    while start > 0 and not ends_before:
        length = min(_CHUNK, start)
        start -= length
        pieces.append(os.pread(descriptor, length, start))
        rest = pieces[-1] if has_content else pieces[-1].rstrip(b"\n")
        has_content, ends_before = has_content or bool(rest), b"\n" in rest
    tail = b"".join(reversed(pieces))
    last = tail.rstrip(b"\n").rsplit(b"\n", 1)[-1]
    if not last.startswith(b"{"):
        raise ValueError(f"{path} ends in {last[:80]!r}, which is no record: left as it was; name another file")
    if tail.endswith(b"\n"):
        return
    if _parse(last) is not None:  # only the line end is missing
        os.write(descriptor, b"\n")
        return
    logger.warning("%s ended in a half-written record of %d bytes: cut off", path, len(last))
    os.ftruncate(descriptor, size - len(last))


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def read_content(kind: type[Content], record: Record, file: Path) -> Content:
    """What a stage's record says of what was made; entries that no stage reads any more are passed over.

    Args:
        kind: The dataclass of the stage's content.
        record: The record, with a `stage` and a `content`.
        file: Where it stands, for the message.

    Raises:
        ValueError: If it lacks an entry.
    """
    content: Any = record.get("content")
    names = [field.name for field in dataclasses.fields(kind)]
    missing = [name for name in names if not isinstance(content, dict) or name not in content]
    if missing:
        raise ValueError(f"{file}: the stage {record.get('stage')!r} does not say its {missing[0]}: delete the folder")
    return kind(**{name: content[name] for name in names})
