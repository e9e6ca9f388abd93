"""Paths in settings: `~` and `$NAME` mean what they mean to a shell, whether a flag, a file or Python gave them."""

import dataclasses
import os
import re
import sys
from pathlib import Path
from typing import Any

PATHS = frozenset({
    "attachments", "base_model", "cache_dir", "card", "dataset_name", "figures", "from_table", "glue_source",
    "latency_table", "measured", "model", "other", "other_supernet", "output", "output_dir", "page", "pairs_file",
    "records", "report", "resume_from_checkpoint", "scores", "search", "source", "storage", "supernet",
    "supernets", "table", "teacher", "test_file", "tokenizer_name", "train_file", "train_files", "validation_file",
})  # fmt: skip
"""The settings that are the path of a file or folder, or may be one, by the names that they have in all commands.

A new setting is entered here, or in `tests/test_paths.py` among those that are none.
"""

LOCALE_ADVICE = "rename it, or set a locale of UTF-8 (LC_ALL=C.UTF-8) or PYTHONUTF8=1 where it is not one"

_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")
_SAYS_NOTHING = re.compile(r"child|model|best|seed-\d+|[\d.]+x?")
_URL = re.compile(r"[A-Za-z][\w+]+:")


def expand_paths(settings: Any) -> None:
    """Expand the paths among the fields of a new dataclass; its `__post_init__` begins with it.

    Raises:
        ValueError: If one cannot be: see `expanded`. The message names the setting.
    """
    for field in dataclasses.fields(settings):
        if field.name not in PATHS:
            continue
        value = getattr(settings, field.name)
        try:
            new = [expanded(item) for item in value] if isinstance(value, list) else expanded(value)
        except ValueError as error:
            raise ValueError(f"{field.name}={error}") from None
        if new != value:
            object.__setattr__(settings, field.name, new)  # frozen ones too


def expanded(path: Any) -> Any:
    """A path, text or `Path`, with the home folder for `~` and the value of a variable for `$NAME` and `${NAME}`.

    What is there as it is written stays so, for a file may have a `$` in its name. What begins as a URL stays, for a
    password may. What is neither text nor `Path` stays, and so does `./~`.

    Raises:
        ValueError: If there is no such user or variable, or the system's locale cannot write the path.
    """
    if not isinstance(path, str | Path):
        return path
    text = str(path)
    if not _URL.match(text):
        if text.startswith("~"):
            text = _with_home(text)
        if "$" in text and not os.path.lexists(text):
            text = _VARIABLE.sub(_value_of, text)
    _check_locale(text)
    return text if isinstance(path, str) else Path(text)


def _with_home(text: str) -> str:
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        if os.path.lexists(text):
            return text
        raise ValueError(f"{text}: there is no home folder of {text.split('/')[0]}; write the path out") from None


def _value_of(found: re.Match[str]) -> str:
    name = found[1] or found[2]
    if not os.environ.get(name):
        raise ValueError(f"{found.string}: there is no variable {name} in the environment; write the path out")
    return os.environ[name]


def _check_locale(path: str) -> None:
    """Refuse now a path that cannot be opened, or cannot be written down, when the work is done."""
    try:
        os.fsencode(path)
        path.encode()
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        raise ValueError(f"{path!a}: its letters cannot be used as {encoding}: {LOCALE_ADVICE}") from None


def telling_name(folder: str | Path) -> str:
    """A model's name by its folder; where that says nothing (`child`, `seed-0`), with the folder above before it."""
    folder = Path(folder)
    folder = folder if folder.name else folder.resolve()
    above = folder.parent.name
    return f"{above}-{folder.name}" if above and _SAYS_NOTHING.fullmatch(folder.name) else folder.name


def repository_name(name: str) -> str:
    """A name as the Hub takes it for a repository: other signs than letters, digits and `_.-` are left out."""
    name = re.sub(r"[^A-Za-z0-9_.-]*([.-]?)[^A-Za-z0-9_]*", r"\1", re.sub(r"\s+", "-", name))
    return name[:60].strip(".-") or "model"
