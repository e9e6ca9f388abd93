"""Labels and tags: what two ways of writing one have in common, their order, and their numbers."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,18})(?:\.0+)?")  # "007" is a name
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]+)?(?:e[-+][0-9]{1,3})?")


def label_name(value: Any) -> str:
    """A label in words; a whole number is written as one, however its file writes it: 1.0 is 1."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def label_key(value: Any) -> str:
    """What two ways of writing one label have in common: 1, 1.0 and "1"; True and "true"."""
    name = label_name(value)
    if _WHOLE.fullmatch(name):
        return str(int(name.partition(".")[0]))
    return name.lower() if name.lower() in ("true", "false") else name


def names_of_labels(values: Iterable[Any]) -> list[str]:
    """The names of all labels that occur, in order: that of numbers if all are numbers, else that of letters."""
    names = {label_key(name): name for name in sorted({label_name(value) for value in values}, reverse=True)}
    are_numbers = all(map(_NUMBER.fullmatch, names.values()))
    return sorted(names.values(), key=float if are_numbers else None)


def as_indices(name: str, split: str, values: Sequence[Any], label_names: Sequence[str], what: str) -> list[int]:
    """The place of every label among the names.

    Args:
        name: Names the data in errors.
        split: The split that holds the labels.
        values: The labels, as they stand in the data.
        label_names: What training knows.
        what: What they are called: labels or tags.

    Raises:
        ValueError: If training does not know one.
    """
    # As it is written first: a data set may declare names such as "1" and "1.0".
    index = {label_key(label): place for place, label in enumerate(label_names)}
    exact = {label: place for place, label in enumerate(label_names)}
    places = [exact.get(label_name(value), index.get(label_key(value))) for value in values]
    unknown = sorted({label_name(value) for value, place in zip(values, places, strict=True) if place is None})
    if unknown:
        raise ValueError(
            f"{name}: the {split} split has {what} that training never sees: {_some_of(unknown, 5)}; "
            f"the training {what} are {_some_of(label_names, 10)}"
        )
    return [place for place in places if place is not None]


def _some_of(labels: Sequence[str], most: int) -> str:
    """The first labels, each as far as a message has room for it."""
    return ", ".join(label[:40] for label in labels[:most])
