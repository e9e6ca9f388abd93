"""The one way to write: a file or a folder appears whole or not at all, and a failed write names it.

What is written lies under a name that nobody can foresee until it is flushed, and is then renamed. So a killed
process, a full disk or a power cut leaves what was there before; a link at the place is replaced, never followed; a
device is refused. The text cache is written so; other rooms still have ways of their own.
"""

import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError

_UNFINISHED = ".hf_nasbert-*.unfinished"
_PATIENCE_SECONDS = 86_400  # a file that is still being written is younger
# What a file system says when it cannot take a write; other errors inside a block are of what the block reads.
_REFUSALS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG,
    errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EMFILE, errno.ELOOP, errno.ESTALE, errno.ENXIO, errno.ENODEV,
}  # fmt: skip


class WriteError(OSError):
    """A file or folder that could not be written: names it and the cause. `errno` is the cause's."""

    def __init__(self, place: str | Path, cause: BaseException | str, advice: str = "") -> None:
        said = (cause.strerror or str(cause)) if isinstance(cause, OSError) else str(cause)
        super().__init__(f"cannot write {place} ({said}){advice or ': make room there, or choose another place'}")
        self.errno = getattr(cause, "errno", None)


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Write a file that appears at `path` when it is whole and flushed, or not at all if the block raises.

    Its folder is made if missing. The mode is that of the file it replaces, or what the umask leaves.

    Raises:
        WriteError: If it cannot be written, or `path` is a folder, a device, a pipe or a socket.
    """
    path = Path(path)
    try:
        mode = _replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _delete_leftovers(path.parent)
        unfinished = path.with_name(_new_name())
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise _named(error, path) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())  # else a power cut may leave the name without the content
        unfinished.replace(path)
        flush(path.parent)
    except (OSError, SafetensorError) as error:
        raise _named(error, path) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a whole file; see `whole_file`."""
    with whole_file(path) as file:
        file.write(content)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole file in UTF-8; see `whole_file`."""
    write_bytes(path, text.encode())


@contextmanager
def whole_folder(folder: str | Path, place: Callable[[Path, Path], object] = Path.replace) -> Iterator[Path]:
    """Fill a folder that appears at `folder` when all its files are whole and flushed, or not at all.

    Args:
        folder: Its place; the folder around it is made if missing.
        place: Moves the finished folder (first argument) to its place (second); by default it must be free or empty.

    Yields:
        The folder to fill, beside its place.

    Raises:
        WriteError: If it cannot be written.
    """
    folder = Path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _delete_leftovers(folder.parent)
        unfinished = folder.with_name(_new_name())
        unfinished.mkdir()
    except OSError as error:
        raise _named(error, folder) from error
    try:
        yield unfinished
        flush_all(unfinished)
        place(unfinished, folder)
        flush(folder.parent)
    except (OSError, SafetensorError) as error:
        raise _named(error, folder) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, lie on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_all(folder: Path) -> None:
    """Wait until a folder and everything in it lie on the disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if not path.is_symlink():
            flush(path)
    flush(folder)


def _replaceable(path: Path) -> int | None:
    """The mode of the file at a path, None where there is none; anything but a file, or a link, is refused."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        return None
    if stat.S_ISDIR(found.st_mode):
        raise WriteError(path, "it is a folder", ": name a file")
    if not stat.S_ISREG(found.st_mode):
        raise WriteError(path, "it is a device, a pipe or a socket", ": name a file")
    return stat.S_IMODE(found.st_mode)


def _new_name() -> str:
    return _UNFINISHED.replace("*", secrets.token_hex(8))


def _delete_leftovers(folder: Path) -> None:
    """Delete what killed processes left half written in a folder, after a day."""
    for left in folder.glob(_UNFINISHED):
        with suppress(OSError):  # another process was quicker
            if time.time() - left.lstat().st_mtime > _PATIENCE_SECONDS:
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def _named(error: BaseException, place: Path) -> BaseException:
    """The error with the name of what could not be written, where it is one of writing."""
    if isinstance(error, WriteError) or (isinstance(error, OSError) and error.errno not in _REFUSALS):
        return error
    return WriteError(place, error)
