"""One run at a time in a folder: a lock that ends with its process, and names its holder to the next one."""

import errno
import fcntl  # POSIX only
import logging
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

_LOCK = ".lock"
_SIGN = "process "  # how the content begins
_held: set[int] = set()  # descriptors of this process' locks


def _let_go() -> None:
    while _held:
        os.close(_held.pop())


# Forked workers that outlive a killed run for some seconds must not keep its lock.
os.register_at_fork(after_in_child=_let_go)


@contextmanager
def locked(output_dir: str | Path, *, wait: bool = False) -> Iterator[None]:
    """Keep a second run out of a folder, which is made if missing. The lock ends with the process, however it ends.

    What is locked is a file: on NFS a folder cannot be.

    Args:
        output_dir: The folder.
        wait: For another run that holds it, however long, instead of refusing.

    Raises:
        ValueError: If another run holds it, which is named, unless this one waits.
        OSError: If nothing can be written there.
    """
    file = Path(output_dir) / _LOCK
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _take(file, wait)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write in {output_dir} ({error.strerror}): choose another output_dir, or mend that one",
        ) from error
    _held.add(descriptor)
    try:
        yield
    finally:
        _held.discard(descriptor)
        if _is_at(descriptor, file):  # not that of another run, which came after the folder had been deleted
            file.unlink()
        os.close(descriptor)


def _take(file: Path, wait: bool) -> int:
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.read(descriptor, 1000).decode(errors="replace")
            os.close(descriptor)
            raise ValueError(
                f"another run is at work in {file.parent} ({holder or 'just starting'}): choose another output_dir, "
                "or wait for it"
            ) from None
        except OSError as error:  # some file systems have no locks
            logger.warning("%s cannot be locked (%s): let no second run use that folder", file, error.strerror)
        if not _is_at(descriptor, file):
            os.close(descriptor)  # its holder has just ended and deleted it
            continue
        if not _is_ours(descriptor):
            os.close(descriptor)
            raise OSError(errno.EEXIST, f"{file.name} is there, and no lock")
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{_SIGN}{os.getpid()} on {socket.gethostname()}".encode())
        except OSError:  # a full disk, say: what cannot name its holder would keep the next run out for no reason
            file.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        return descriptor


def _is_ours(descriptor: int) -> bool:
    """Whether a file is new, or what a dead process left: its content is deleted, and so will the file be."""
    return stat.S_ISREG(os.fstat(descriptor).st_mode) and _SIGN.encode().startswith(os.pread(descriptor, 8, 0))


def _is_at(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False
