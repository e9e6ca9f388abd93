"""Settings: how dataclasses declare them, with a help and a range, and what is refused of them by name."""

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin

from hf_nasbert.paths import expand_paths

_SHAPE = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})")


class _BoundedHelp(str):
    """A help that knows its field's bounds: parsers such as `HfArgumentParser` take nothing else of the metadata."""

    bounds: dict[str, float]


def setting(default: Any, help: Any, **bounds: float) -> Any:
    """A field of a dataclass with a default, with what `--help` says of it, and with what `Settings` takes for it.

    Args:
        default: The default; a type or a function is called for each object, as `list` is.
        help: A text, or a function that gives one when it is asked for.
        **bounds: Of a number, those of `check_range`.
    """
    if bounds:
        help = _BoundedHelp(help)
        help.bounds = bounds
    metadata = {"help": help}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class Settings:
    """Settings that are checked by what their fields declare; those that check more call `__post_init__` first.

    Raises:
        ValueError: If one is none of its choices, outside its range, or a path that cannot be expanded.
    """

    def __post_init__(self) -> None:
        """Expand paths, and refuse what a field does not take."""
        expand_paths(self)
        check_fields(self)


def check_names(caller: str, kind: type, given: Iterable[str]) -> None:
    """Refuse keyword arguments that are no settings, as Python does, and name the closest setting.

    Raises:
        TypeError: If a dataclass has no field of such a name; begins with `caller`.
    """
    known = [one.name for one in fields(kind)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f": see the fields of {kind.__name__}"
            raise TypeError(f"{caller}() got an unexpected keyword argument {name!r}{hint}")


def parse_shape(name: str, text: str) -> tuple[int, int]:
    """The sequences and tokens of a batch that a setting names, such as `32x128`.

    Raises:
        ValueError: If it names none.
    """
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise ValueError(f"{name}={text!r}: expected sequences x tokens, such as 32x128")
    return int(found[1]), int(found[2])


def check_fields(settings: Any) -> None:
    """Refuse what the fields of a dataclass do not take.

    Raises:
        ValueError: If a value is none of its field's choices, or outside its range.
    """
    for one in fields(settings):
        value, choices = getattr(settings, one.name), get_args(one.type)
        bounds = getattr(one.metadata.get("help"), "bounds", {})
        if get_origin(one.type) is Literal and value not in choices:
            raise ValueError(f"{one.name}={value!r}: expected {' or '.join(map(str, choices))}")
        if bounds and value is not None:
            check_range(one.name, value, **bounds)


def check_range(
    name: str,
    value: float,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    *,
    above: float = -math.inf,
    below: float = math.inf,
) -> None:
    """Refuse a number outside a range.

    Raises:
        ValueError: If it is smaller or larger, or is no finite number.
    """
    if not math.isfinite(value):
        raise ValueError(f"{name}={value}: expected a finite number")
    for is_within, bound in (
        (value <= at_most, f"at most {at_most}"),
        (value >= at_least, f"at least {at_least}"),
        (value > above, f"above {above}"),
        (value < below, f"below {below}"),
    ):
        if not is_within:
            raise ValueError(f"{name}={value}: expected {bound}")
