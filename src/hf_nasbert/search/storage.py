"""Where a study of Optuna's is kept: a database or a journal, whose troubles are told in one line each."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_nasbert.writing import WriteError, check_writable

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

_SECONDS_LOCKED = 60.0  # how long one worker waits for another one's write; SQLite's own 5 are few on a slow disk
_MEND = "name another, or move it away: a search with a history file goes on from that"
_EXPECTED = "expected a database's URL such as sqlite:///search.db, or the path of a journal such as search.journal"
# What a database says -> what that means and what to do.
_TROUBLES = {
    "unable to open|readonly|read-only|permission denied": "cannot be written: does its folder exist, is it yours?",
    "i/o error": "cannot be read or written: is its disk full or broken?",
    "not a database|malformed": f"is damaged, or is none: {_MEND}",
    "locked": "is locked by another program, which did not let go in time: run the same command again",
    "is full|no space|quota": "is whole, but the disk is full: make room and run the same command again",
    "no such (table|column)|has no column|already exists": "holds tables that are not Optuna's: name another",
    "refused|could not connect|can't connect|timed out|could not translate|unknown host": "cannot be reached",
}


def open_storage(storage: "str | BaseStorage | None") -> "str | BaseStorage | None":
    """What Optuna opens: a URL is a database's, any other text the path of a journal.

    Raises:
        ValueError: If a text is neither.
        WriteError: If no journal can be written there.
    """
    if not isinstance(storage, str):
        return storage
    if "://" in storage:
        from optuna.storages import RDBStorage

        options: dict[str, Any] = {"connect_args": {"timeout": _SECONDS_LOCKED}} if _is_sqlite(storage) else {}
        return RDBStorage(storage, engine_kwargs=options)
    if not storage or re.match(r"[A-Za-z][\w+]+:", storage):
        raise ValueError(f"storage {storage!r} is neither a URL nor a path: {_EXPECTED}")
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    check_writable(storage, is_appended=True)
    Path(storage).parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(storage))


@contextmanager
def storage_errors(storage: "str | BaseStorage | None") -> Iterator[None]:
    """Tell in one line, without passwords, what a storage has run into.

    Raises:
        OSError: If it cannot be opened, read or written.
        ImportError: If its driver is not installed.
        ValueError: If there is no such kind of database, or what is there is no study of this Optuna.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy import exc

    name = f"storage {_without_password(storage) if isinstance(storage, str) else type(storage).__name__}"
    try:
        yield
    except exc.ArgumentError as error:
        raise ValueError(f"{name} names no known kind of database ({_first_line(error)}): {_EXPECTED}") from error
    except ImportError as error:
        driver = getattr(error.__cause__, "name", None) or "its driver"
        raise ImportError(f"{name} needs {driver}, which is not installed: pip install it, or use SQLite") from error
    except (exc.SQLAlchemyError, StorageInternalError) as error:
        said = _said(error)
        meaning = next((words for signs, words in _TROUBLES.items() if re.search(signs, said.lower())), "failed")
        raise OSError(f"{name} {meaning} ({said})") from error
    except OSError as error:
        cause = error.cause if isinstance(error, WriteError) else error.strerror or error
        raise OSError(f"{name} cannot be read or written: {cause}") from error
    except (AssertionError, UnicodeDecodeError, ValueError, KeyError) as error:
        # What Optuna and `json` make of a journal with a line that is none.
        if not isinstance(storage, str) or _is_ours(error):
            raise
        if "://" in storage:
            raise ValueError(f"{name} is no URL ({_first_line(error)}): {_EXPECTED}") from error
        raise ValueError(f"{name} is damaged, or is no journal of Optuna's: {_MEND}") from error


def _is_ours(error: BaseException) -> bool:
    """Whether an error was raised by this package, not by what it called."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and str(frame.tb_frame.f_globals.get("__name__", "")).startswith("hf_nasbert")


def _said(error: BaseException) -> str:
    """The innermost error's own words."""
    while (inner := getattr(error, "orig", None) or error.__cause__) is not None:
        error = inner
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _is_sqlite(url: str) -> bool:
    return url.partition("://")[0].partition("+")[0] == "sqlite"


def _without_password(storage: str) -> str:
    return re.sub(r"(?<=://)([^:@/]*):[^@]*@", r"\1:***@", storage)
