"""Files made from text: found again by the content they were made from, and checked whenever they are opened.

A cached file ends in a seal: its size, the number of its rows, and a SHA-256 of these, its content and its name. The
seal is no second file, so that no process ever sees the one without the other; Arrow's readers stop before it. A file
that does not fit its seal is named in a warning, set aside under another name, and made again.
"""

import hashlib
import io
import logging
import os
import secrets
import stat
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import datasets
import pyarrow as pa
from datasets import Dataset

from hf_nasbert.writing import WriteError, lock, whole_file

logger = logging.getLogger(__name__)

_MARK = b"NASBERT\x01"
_SEAL = struct.Struct("<8sQQ32s")  # mark, bytes before the seal, rows in them, SHA-256 of name, bytes and all of these
_CHUNK_BYTES = 1 << 20
_TRIES = 3


def cache_folder(cache_dir: str | Path | None, name: str) -> Path:
    """Return (and make) a folder of ours, by default within the cache of the datasets library."""
    folder = Path(cache_dir or datasets.config.HF_DATASETS_CACHE) / "hf_nasbert" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class ContentDigest:
    """A fingerprint of settings and texts, one after the other; no two lists of them share the bytes that are hashed.

    Every piece is preceded by its length, in eight bytes, little-endian: a separator could be part of a text.
    """

    def __init__(self, *settings: object) -> None:
        self._digest = hashlib.sha256(_MARK)  # files of versions without a seal, or with another one, have other names
        for setting in settings:
            self.add(str(setting))

    def add(self, text: str) -> None:
        """One more text."""
        content = text.encode()
        self._digest.update(len(content).to_bytes(8, "little"))
        self._digest.update(content)

    def key(self) -> str:
        """What names the file that is made from all this."""
        return self._digest.hexdigest()[:32]


def content_digest(texts: Iterable[str], *settings: object) -> str:
    """Return a fingerprint of texts and of whatever else, always as many things, decides what is made from them."""
    digest = ContentDigest(*settings)
    for text in texts:
        digest.add(text)
    return digest.key()


def write_sealed(path: Path, write: Callable[[io.RawIOBase], int]) -> None:
    """Write a cached file and its seal.

    Args:
        path: Its place.
        write: Writes the content to the file it is given, and returns the number of rows.

    Raises:
        WriteError: If it cannot be written.
    """
    with whole_file(path) as file:
        sealing = _Sealing(file, path.name)
        num_rows = write(sealing)
        file.write(sealing.seal(num_rows))


def write_sealed_bytes(path: Path, content: bytes) -> None:
    """Write a cached file of one row; see `write_sealed`."""
    write_sealed(path, lambda file: int(bool(file.write(content))))


def find_sealed(path: Path) -> int | None:
    """Read a whole cached file once, and compare it with its seal.

    Returns:
        The number of its rows; None if the file is to be made: it is missing, or was damaged and is set aside now.

    Raises:
        OSError: If it cannot be read, as without the permission.
        WriteError: If it is damaged and cannot be renamed.
    """
    try:
        # Without waiting: to open a pipe that lies there would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        try:
            num_rows, damage = _compare(descriptor, path.name)
        except OSError as error:
            raise _unreadable(path, error) from error
        if damage is None:
            return num_rows
        _set_aside(path, descriptor, damage)
        return None
    finally:
        os.close(descriptor)


def find_arrow(path: Path) -> Dataset | None:
    """The rows of a whole cached Arrow file, memory-mapped; None if it is to be made. Raises as `find_sealed` does."""
    num_rows = find_sealed(path)
    if num_rows is None:
        return None
    try:
        dataset = Dataset.from_file(str(path))
    except FileNotFoundError:  # another process has just taken it for damaged
        return None
    except pa.ArrowException as error:
        raise OSError(f"the cached file {path} is whole, but cannot be read ({error}): delete it") from error
    if len(dataset) != num_rows:
        raise OSError(f"the cached file {path} gives {len(dataset)} rows, and {num_rows} were written: delete it")
    return dataset


def open_arrow(path: Path, write: Callable[[io.RawIOBase], int]) -> Dataset:
    """The rows of a cached Arrow file, memory-mapped; it is written first where it is missing or damaged.

    Args:
        path: Its place.
        write: Writes the Arrow stream to the file it is given, and returns the number of rows.

    Raises:
        OSError: If it can be neither read nor written, or comes back damaged every time.
    """
    for _ in range(_TRIES):
        if (found := find_arrow(path)) is not None:
            return found
        write_sealed(path, write)
    if (found := find_arrow(path)) is not None:
        return found
    raise OSError(f"the cached file {path} was written {_TRIES} times and came back damaged: is the disk sound?")


def read_sealed(path: Path) -> bytes | None:
    """The content of a whole cached file; None if it is to be made. Raises as `find_sealed` does."""
    return None if find_sealed(path) is None else path.read_bytes()[: -_SEAL.size]


class _Sealing(io.RawIOBase):
    """A file to write to, whose bytes are counted and hashed on their way."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._size, self._digest = file, 0, _digest_of(name)

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:  # type: ignore[override]
        self._file.write(content)
        self._digest.update(content)
        size = memoryview(content).nbytes
        self._size += size
        return size

    def seal(self, num_rows: int) -> bytes:
        """What belongs at the end of the file."""
        numbers = _SEAL.pack(_MARK, self._size, num_rows, b"")[: -self._digest.digest_size]
        self._digest.update(numbers)
        return numbers + self._digest.digest()


def _digest_of(name: str) -> "hashlib._Hash":
    """The beginning of a seal's checksum. With the name in it, one cached file does not pass for another."""
    return hashlib.sha256(name.encode() + b"\0")


def _compare(descriptor: int, name: str) -> tuple[int, str | None]:
    """The number of rows that a file's seal gives, and in words what is wrong with the file."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return 0, "it is no regular file"
    if status.st_size < _SEAL.size:
        return 0, f"it has {status.st_size} bytes"
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(-_SEAL.size, os.SEEK_END)
        seal = file.read(_SEAL.size)
        mark, size, num_rows, checksum = _SEAL.unpack(seal)
        if mark != _MARK:
            return 0, "it does not end as it was written"
        if size != status.st_size - _SEAL.size:
            return 0, f"it has {status.st_size} bytes, {size + _SEAL.size} were written"
        file.seek(0)
        digest = _digest_of(name)
        while size and (chunk := file.read(min(_CHUNK_BYTES, size))):
            digest.update(chunk)
            size -= len(chunk)
        digest.update(seal[: -len(checksum)])
    return num_rows, None if digest.digest() == checksum else "its content has changed"


def _set_aside(path: Path, descriptor: int, damage: str) -> None:
    """Rename a damaged file, which a process that has it mapped goes on reading; nothing of it is lost."""
    aside = path.with_name(f"{path.name}.damaged-{secrets.token_hex(4)}")
    try:
        # Of two processes that find the same damage one renames. The other looks again under the lock, else it could
        # rename what the first has written in the meantime.
        lock(descriptor)
        if not os.path.samestat(path.stat(), os.fstat(descriptor)):
            return
        path.rename(aside)
    except FileNotFoundError:
        return
    except OSError as error:
        raise WriteError(
            path, error, f": it is damaged ({damage}), and could not be set aside; rename or delete it"
        ) from error
    logger.warning(
        "the cached file %s is damaged (%s): it is made again, and the damaged one kept as %s",
        path,
        damage,
        aside.name,
    )


def _unreadable(path: Path, error: OSError) -> OSError:
    # Without a number, or whoever writes another file from this one would take it for an error of writing.
    return type(error)(f"the cached file {path} cannot be read ({error.strerror}): mend its permissions, or delete it")
