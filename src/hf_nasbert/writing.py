"""The one way to write: a file or a folder appears whole or not at all, and a failed write names it.

What is written lies under a name that nobody can foresee until it is flushed, and is then renamed. So a killed
process, a full disk or a power cut leaves what was there before; a link at the place is replaced, never followed; a
device is refused. `tests/test_one_writer.py` walks the source for any other way to open a file for writing.
"""

import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import BinaryIO

_UNFINISHED = ".hf_nasbert-*.unfinished"
_PATIENCE_SECONDS = 86_400  # what is still being written is younger
_UNLOCKED_PATIENCE_SECONDS = 600  # a file that is being written is locked, but another machine may not see the lock
# What a file system says when it cannot take a write; other errors inside a block are of what the block reads.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}  # no reader meets these
_REFUSALS = _FULL | {
    errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EMFILE,
    errno.ELOOP, errno.ESTALE, errno.ENXIO, errno.ENODEV,
}  # fmt: skip
# The same in the words of libraries with errors of their own: tokenizers raises `Exception`, torch RuntimeError.
_SAID = re.compile("|".join([*map(os.strerror, _FULL), "Error while serializing", "PytorchStreamWriter"]))


class WriteError(OSError):
    """A file or folder that could not be written: names it and the cause. `errno` is the cause's."""

    def __init__(self, place: str | Path, cause: BaseException | str, advice: str = "") -> None:
        said = (cause.strerror or str(cause)) if isinstance(cause, OSError) else str(cause)
        said = " ".join(said.split())[:300]
        super().__init__(f"cannot write {place} ({said}){advice or ': make room there, or choose another place'}")
        self.errno = getattr(cause, "errno", None)
        self.place, self.cause = Path(place), cause


def check_writable(path: str | Path, *, is_appended: bool = False) -> None:
    """Refuse a place where no file can be written, before there is anything to write; nothing is left there.

    Args:
        path: Of the file. Folders around it may be missing.
        is_appended: Whether lines are added to the file that is there, through a link if it is one.

    Raises:
        WriteError: If it is a folder, a device, a pipe or a socket, read-only, or in a place that is.
    """
    path = Path(path)
    with write_errors(path):
        _replaceable(path, path.stat if is_appended else path.lstat)
        if is_appended and path.suffix in (".gz", ".xz"):
            raise WriteError(path, "it is compressed, and is for reading only", ": name a plain .jsonl")
        around = (path.resolve() if is_appended else path).parent
        if is_appended and path.exists():
            return  # nothing new has to appear beside it
    _check_around(path, around)


def check_apart(**places: str | Path | None) -> None:
    """Refuse settings of which two name one file: what is written for the one would replace the other, or mix with it.

    Args:
        places: The paths, by the names of their settings; None where nothing was asked for.

    Raises:
        ValueError: If two are one file, also by a link.
    """
    found: dict[str, str] = {}
    for name, place in places.items():
        if place is not None:
            first = found.setdefault(os.path.realpath(place), name)
            if first != name:
                raise ValueError(f"{first} and {name} are one file, {place}: name another")


def check_unless_there(path: str | Path) -> None:
    """As `check_writable` of a file that is added to; one that is there may be complete, and need not be writable."""
    with write_errors(path):
        is_there = Path(path).is_file()
    if not is_there:
        check_writable(path, is_appended=True)


def check_folder(folder: str | Path) -> None:
    """Refuse a folder, there or not, in which nothing can be written; nothing is left there.

    Raises:
        WriteError: If it is no folder, read-only, or in a place that is.
    """
    _check_around(folder, Path(folder))


def check_whole_folder(folder: str | Path) -> None:
    """Refuse a place where `whole_folder` could not put a folder; what is there already is not looked at.

    Raises:
        WriteError: If the folder around it is none or read-only, or it is the root of a disk, which cannot be renamed.
    """
    folder = Path(folder)
    with write_errors(folder):
        if _is_there(folder) and folder.is_mount():
            raise WriteError(folder, "a disk is mounted there", ": name a folder in it")
    _check_around(folder, folder.parent)


def _check_around(place: str | Path, folder: Path) -> None:
    """Make a file in a folder, or in the nearest one above that is there, and delete it."""
    with write_errors(place):
        while not _is_there(folder):
            folder = folder.parent
        if not folder.is_dir():
            raise WriteError(place, f"{folder} is no folder", ": choose another place")
        probe = folder / _new_name()
        os.close(_create(probe))
        probe.unlink()


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _create(path: Path) -> int:
    """A descriptor of a new file, never of one that was there nor through a link."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Write a file that appears at `path` when it is whole and flushed, or not at all if the block raises.

    Its folder is made if missing. The mode is that of the file it replaces, or what the umask leaves.

    Raises:
        WriteError: If it cannot be written, or `path` is a folder, a device, a pipe or a socket.
    """
    path = Path(path)
    with write_errors(path):
        mode = _replaceable(path, path.lstat)
        path.parent.mkdir(parents=True, exist_ok=True)
        _delete_leftovers(path.parent)
        unfinished = path.with_name(_new_name())
        descriptor = _create(unfinished)
    try:
        with write_errors(path, unfinished):
            with os.fdopen(descriptor, "wb") as file:
                lock(descriptor)
                yield file
                file.flush()
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())  # else a power cut may leave the name without the content
            unfinished.replace(path)
            flush(path.parent)
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
def scratch_file(folder: str | Path) -> Iterator[BinaryIO]:
    """A file without a name in a folder, to write and to read back; it is gone at the end, also after a kill.

    Raises:
        WriteError: If it cannot be made or written; the folder is named.
    """
    with write_errors(folder, Path(folder)), TemporaryFile(dir=folder) as file:
        yield file


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
    _check_around(folder, folder.parent)
    with write_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _delete_leftovers(folder.parent)
        unfinished = folder.with_name(_new_name())
        unfinished.mkdir()
    try:
        with write_errors(folder, unfinished):
            yield unfinished
            flush_all(unfinished)
            place(unfinished, folder)
            flush(folder.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for the time of a block, among the system's temporary files.

    Raises:
        WriteError: If what the block writes there cannot be written.
    """
    with TemporaryDirectory(ignore_cleanup_errors=True) as name, write_errors(name, Path(name)):
        yield Path(name)


def lock(descriptor: int) -> None:
    """Lock an open file until it is closed or the process ends; where there are no locks nothing happens."""
    with suppress(ImportError, OSError):  # not every system and not every file system has them
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)


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


def _replaceable(path: Path, look: Callable[[], os.stat_result]) -> int | None:
    """The mode of the file at a path, None where there is none; anything but a file, or a link, is refused."""
    try:
        found = look()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        return None
    if stat.S_ISDIR(found.st_mode):
        raise WriteError(path, "it is a folder", ": name a file")
    if not stat.S_ISREG(found.st_mode):
        raise WriteError(path, "it is a device, a pipe or a socket", ": name a file")
    if not os.access(path, os.W_OK):  # a rename would replace what somebody made read-only
        raise WriteError(path, "it is read-only", ": name another file, or make it writable")
    return stat.S_IMODE(found.st_mode)


def _new_name() -> str:
    return _UNFINISHED.replace("*", secrets.token_hex(8))


def _delete_leftovers(folder: Path) -> None:
    """Delete what killed processes left half written in a folder: files soon, by their lock, anything after a day."""
    for left in folder.glob(_UNFINISHED):
        with suppress(OSError):  # another process was quicker
            age = time.time() - left.lstat().st_mtime
            if age > _PATIENCE_SECONDS or (age > _UNLOCKED_PATIENCE_SECONDS and _is_unlocked(left)):
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def _is_unlocked(path: Path) -> bool:
    """Whether a file is one that no process holds the lock of; not known (so false) where there are no locks."""
    with suppress(ImportError, OSError):
        import fcntl

        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return stat.S_ISREG(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)
    return False


@contextmanager
def write_errors(place: str | Path, unfinished: Path | None = None) -> Iterator[None]:
    """Name a place in errors of writing it; with `unfinished`, other errors of the block keep their own words."""
    try:
        yield
    except Exception as error:
        if unfinished is None:
            is_of_writing = isinstance(error, OSError) and not isinstance(error, WriteError)
        else:
            is_of_writing = _is_of_writing(error, unfinished)
        if not is_of_writing:
            raise
        cause = error.cause if isinstance(error, WriteError) else error
        raise WriteError(place, cause) from error


def _is_of_writing(error: Exception, unfinished: Path) -> bool:
    if isinstance(error, WriteError):
        return error.place == unfinished or unfinished in error.place.parents
    if not isinstance(error, OSError):
        return bool(_SAID.search(str(error)))
    if error.errno in _FULL:
        return True
    if error.filename is None:
        return error.errno in _REFUSALS
    return str(error.filename).startswith(str(unfinished))
