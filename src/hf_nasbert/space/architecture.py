"""Architectures: a child's description, one operator name per choice block."""

from collections.abc import Iterable, Sequence
from typing import Self

from hf_nasbert.modeling.geometry_nasbert import parse_operator, shown


class Architecture(tuple[str, ...]):
    """A child's description: one operator name per choice block.

    An ordinary tuple, so it compares equal to the tuple of its names, is a fine dictionary key and a JSON list. Its
    text form parses back. Being well-formed says nothing about membership: ask `SearchSpace.validate` for that.

    Args:
        operators: The operator names, one per choice block.

    Raises:
        ValueError: If there is no name, or one is not an operator name.

    Example:
        >>> architecture = Architecture(["attention", "ffn", "skip"])
        >>> str(architecture)
        'attention-ffn-skip'
        >>> Architecture.parse("attention-ffn-skip") == architecture
        True
    """

    __slots__ = ()

    def __new__(cls, operators: Iterable[str]) -> Self:
        """Check the names; an `Architecture` is returned as it is."""
        if type(operators) is cls:
            return operators
        if isinstance(operators, str | bytes) or not isinstance(operators, Iterable):
            raise ValueError(
                f"an architecture is a sequence of operator names, got {shown(operators)}; "
                f"Architecture.parse reads the text form"
            )
        names = tuple(operators)
        if not names:
            raise ValueError("an architecture names at least one operator, got none")
        for name in names:
            parse_operator(name)
        return super().__new__(cls, names)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form, operator names joined by hyphens.

        Raises:
            ValueError: If `text` is not of that form.
        """
        if not isinstance(text, str) or not text:
            raise ValueError(f"expected an architecture such as 'attention-ffn-skip', got {shown(text)}")
        return cls(text.split("-"))

    def __str__(self) -> str:
        return "-".join(self)


def parsed(architecture: Iterable[str] | str) -> Architecture:
    """An architecture that is given as names or as text."""
    return Architecture.parse(architecture) if isinstance(architecture, str) else Architecture(architecture)


def trusted(names: Iterable[str]) -> Architecture:
    """An architecture of names that come from a space, hence are well-formed."""
    return tuple.__new__(Architecture, names)


def hamming(a: Sequence[str], b: Sequence[str]) -> int:
    """In how many choice blocks two architectures differ; another width of the same kind is a difference.

    Raises:
        ValueError: If they are of different lengths.
    """
    if len(a) != len(b):
        raise ValueError(f"cannot compare an architecture of {len(a)} choice blocks with one of {len(b)}")
    return sum(x != y for x, y in zip(a, b, strict=True))


def num_shared_operators(a: Sequence[str], b: Sequence[str]) -> int:
    """How many operators two architectures have in common from the start."""
    return next((block for block, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
