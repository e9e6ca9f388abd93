"""JSON that somebody else may have written: limits of size and depth, one error, text that is safe to print."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_LARGEST = 1 << 28  # bytes; the tokenizer.json of a vocabulary of 250,000 pieces has some 17 million
_DEEPEST = 100
_UNPRINTABLE = re.compile(
    # C0 and C1 controls but for line ends and tabs, line separators, marks that reorder or hide text, half characters
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


class ForeignFileError(ValueError):
    """A file that is not what its name says: names the file and what is wrong with it."""


def printable(text: object, longest: int = 2000) -> str:
    r"""Text for a terminal: control signs, marks that reorder text and half characters as `\x1b`, and cut short."""
    shown = _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))
    return shown if len(shown) <= longest else f"{shown[:longest]}... ({len(shown)} characters)"


def read_json(content: Path | bytes, name: str | None = None, *, largest: int = _LARGEST) -> Any:
    """The value in a JSON file of somebody else.

    Args:
        content: The file, or its bytes.
        name: What messages call it; by default its path.
        largest: Most bytes it may have.

    Raises:
        FileNotFoundError: If there is no such file.
        ForeignFileError: If it is no regular file, larger, nested deeper than 100 levels, no UTF-8, or no JSON; if a
            number has more digits than Python reads, or a key stands twice in one object.
    """
    name = _name(content, name)
    if isinstance(content, Path):
        if not content.exists():
            raise FileNotFoundError(f"there is no file {name}")
        if not content.is_file():
            raise ForeignFileError(f"{name} is no regular file")
        if content.stat().st_size > largest:
            raise ForeignFileError(f"{name} has {content.stat().st_size:,} bytes; {largest:,} are read at the most")
        content = content.read_bytes()
    elif len(content) > largest:
        raise ForeignFileError(f"{name} has {len(content):,} bytes; {largest:,} are read at the most")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ForeignFileError(f"{name} is not UTF-8 ({error.reason} at byte offset {error.start})") from None
    try:
        found = json.loads(text, object_pairs_hook=unique_keys)
        is_deep = _is_deep(found)
    except ValueError as error:
        raise ForeignFileError(f"{name} is not JSON ({printable(error, 200)})") from None
    except RecursionError:
        is_deep = True
    if is_deep:
        raise ForeignFileError(f"{name} is nested deeper than {_DEEPEST} levels")
    return found


def read_object(content: Path | bytes, name: str | None = None, *, largest: int = _LARGEST) -> dict[str, Any]:
    """The object in a JSON file of somebody else; see `read_json`.

    Raises:
        FileNotFoundError: If there is no such file.
        ForeignFileError: If it holds anything else.
    """
    found = read_json(content, name, largest=largest)
    if not isinstance(found, dict):
        raise ForeignFileError(f"{_name(content, name)} holds a {type(found).__name__}, expected a JSON object")
    return found


def _name(content: Path | bytes, name: str | None) -> str:
    return printable(name or (content if isinstance(content, Path) else "the file"), 300)


def _is_deep(value: Any) -> bool:
    """Whether a value is nested deeper than any file that is of use."""
    level = [value]
    for _ in range(_DEEPEST):
        inner = (
            child.values() if isinstance(child, dict) else child for child in level if isinstance(child, dict | list)
        )
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object for `json.loads`, of which no key stands twice: of two the last one would win in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found
