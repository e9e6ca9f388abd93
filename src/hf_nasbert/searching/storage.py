"""Where a study of Optuna's is kept: a database or a journal, whose problems are reported in one line each."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_nasbert.foreign import printable
from hf_nasbert.paths import expanded
from hf_nasbert.writing import WriteError, check_writable

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy.engine import URL

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


def open_storage(storage: "str | Path | BaseStorage | None") -> "BaseStorage | None":
    """What Optuna opens: a path object is a SQLite file's, a text a database's URL or the path of a journal.

    Raises:
        ValueError: If a text is neither.
        WriteError: If no journal can be written there.
    """
    if isinstance(storage, str) and "://" not in storage:
        if not storage or re.match(r"[A-Za-z][\w+]+:", storage):
            raise ValueError(f"{name_of(storage)} is neither a URL nor a path: {_EXPECTED}")
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        path = expanded(storage)
        check_writable(path, is_appended=True)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(path))
    if not isinstance(storage, str | Path):
        return storage
    from optuna.storages import RDBStorage

    url = _url_of(storage)
    options: dict[str, Any] = {}
    if url.get_backend_name() == "sqlite":
        options = {"connect_args": {"timeout": _SECONDS_LOCKED}}
        if url.database and not url.database.startswith((":", "file:")):
            url = url.set(database=expanded(url.database))
    address = url.render_as_string(hide_password=False)
    # Optuna fills `{SCHEMA_VERSION}` in: no other brace of a path or a password is to be filled.
    return RDBStorage(re.sub(r"[{}]", lambda brace: brace[0] * 2, address), engine_kwargs=options)


def _url_of(storage: "str | Path") -> "URL":
    """The address of a database.

    Raises:
        ValueError: If it cannot be read; the message gives nothing of it away but its beginning.
    """
    from sqlalchemy import exc
    from sqlalchemy.engine import URL, make_url

    if isinstance(storage, Path):
        return URL.create("sqlite", database=str(storage))
    scheme = storage.partition("://")[0]
    try:
        url = make_url(storage)
    except (exc.ArgumentError, ValueError):  # whose words quote parts of it
        url = None
    # A name or password with a sign of its own is cut at the wrong place: the rest of it is taken for a host.
    if url is None or "@" in (url.host or ""):
        raise ValueError(
            f"storage {printable(scheme, 80)}://... is no URL that can be read: {_EXPECTED}; in a user's name and "
            "password write @ as %40, : as %3A, / as %2F and % as %25"
        )
    return url


def name_of(storage: "str | Path | BaseStorage | None") -> str:
    """What messages call a storage: of a database's URL without password and query, which may hold another one.

    Raises:
        ValueError: See `_url_of`.
    """
    if isinstance(storage, Path):
        return f"storage {printable(storage)}"
    if not isinstance(storage, str):
        return f"storage {type(storage).__name__}"
    if "://" in storage:
        return f"storage {printable(_url_of(storage).set(query={}).render_as_string(hide_password=True))}"
    scheme = re.match(r"[A-Za-z][\w+]+:", storage)  # half a URL may have a password too
    return f"storage {scheme[0]}..." if scheme else f"storage {printable(storage)!r}"


@contextmanager
def storage_errors(storage: "str | Path | BaseStorage | None") -> Iterator[None]:
    """Tell in one line, without passwords, what a storage has run into.

    Raises:
        OSError: If it cannot be opened, read or written.
        ImportError: If its driver is not installed.
        ValueError: If there is no such kind of database, or what is there is no study of this Optuna.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy import exc

    name = name_of(storage)
    try:
        yield
    except exc.ArgumentError as error:
        raise ValueError(f"{name} names no known kind of database: {_EXPECTED}") from error
    except ImportError as error:
        driver = getattr(error.__cause__, "name", None) or "its driver"
        raise ImportError(f"{name} needs {driver}, which is not installed: pip install it, or use SQLite") from error
    except (exc.SQLAlchemyError, StorageInternalError) as error:
        said = _said(error, storage)
        meaning = next((words for signs, words in _TROUBLES.items() if re.search(signs, said.lower())), "failed")
        raise OSError(f"{name} {meaning} ({said})") from error
    except OSError as error:
        cause = error.cause if isinstance(error, WriteError) else error.strerror or error
        raise OSError(f"{name} cannot be read or written: {cause}") from error
    except RuntimeError as error:
        if "schema" not in str(error):
            raise
        raise ValueError(f"{name} is of another version of Optuna ({_said(error, storage)}): {_MEND}") from error
    except (AssertionError, UnicodeDecodeError, ValueError, LookupError, TypeError) as error:
        # What Optuna and `json` make of a journal with a line that is none, and this search of another's study.
        if _is_ours(error) or not isinstance(storage, str | Path):
            raise
        kind = "database" if isinstance(storage, Path) or "://" in storage else "journal"
        raise ValueError(f"{name} is damaged, or is no {kind} of Optuna's: {_MEND}") from error


def _is_ours(error: BaseException) -> bool:
    """Whether an error was raised by this package, not by what it called."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and str(frame.tb_frame.f_globals.get("__name__", "")).startswith("hf_nasbert")


def _said(error: BaseException, storage: "str | Path | BaseStorage | None") -> str:
    """The first line of the innermost error's own words, with nothing in it that a URL keeps secret."""
    while (inner := getattr(error, "orig", None) or error.__cause__) is not None:
        error = inner
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(storage, str) and "://" in storage:
        url = _url_of(storage)
        secrets = [url.password, *(value for values in url.query.values() for value in _as_list(values))]
        for secret in filter(None, secrets):
            said = said.replace(str(secret), "***")
    return printable(said, 500)


def _as_list(values: str | Sequence[str]) -> Sequence[str]:
    return [values] if isinstance(values, str) else values
