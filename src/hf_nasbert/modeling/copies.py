"""Copies of a super-net's choice blocks: how many there are, and which of them serves which child."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .geometry_nasbert import SKIP


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Which of several copies of all choice blocks serves a child: its owner. A super-net's config says it.

    Embeddings and head are no part of a copy: all children share them. Children lie in rows, by their operator in one
    choice block or by their size, and every row has an owner.

    Args:
        number: How many copies there are.
        owners: The copy that serves each row, from 0.
        block: The choice block whose operator tells the row.
        operators: Its operators that children have there, one a row.
        reference: Instead of these, a child in text form whose size counts as zero.
        bounds: A child is in row n if it has more weights than the reference by more than n of these numbers.

    Raises:
        ValueError: If the rows do not fit each other.
    """

    number: int
    owners: tuple[int, ...]
    block: int | None = None
    operators: tuple[str, ...] = ()
    reference: str | None = None
    bounds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("owners", "operators", "bounds"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        is_by_size = self.reference is not None
        if is_by_size == (self.block is not None):
            raise ValueError("copies serve children by the operator of one block, or by their size: give one of both")
        num_rows = len(self.bounds) + 1 if is_by_size else len(self.operators)
        if len(self.owners) != num_rows or any(a >= b for a, b in zip(self.bounds, self.bounds[1:], strict=False)):
            raise ValueError(f"copies have {len(self.owners)} owners and {num_rows} rows, whose bounds must rise")
        if not self.number > max(self.owners) or min(self.owners) < 0:
            raise ValueError(f"copies are {self.number}, and the owners of rows {self.owners}")

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Copies":
        """What `to_dict` gave.

        Raises:
            ValueError: If it is none of that.
        """
        try:
            return cls(**fields)
        except TypeError as error:
            raise ValueError(f"copies cannot be read ({error})") from error

    def to_dict(self) -> dict[str, Any]:
        """All of it, in plain JSON types."""
        fields = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    def check(self, space: Any) -> None:
        """Refuse rows that are not those of a space.

        Raises:
            ValueError: If an operator of the block has no row, or the reference is no child.
        """
        if self.reference is not None:
            space.validate(self.reference.split("-"))
            return
        assert self.block is not None
        names = set(space.blocks[self.block]) if 0 <= self.block < space.num_choice_blocks else set()
        if not names or not names - {SKIP} <= set(self.operators) <= names:
            raise ValueError(f"copies serve children by {', '.join(self.operators)} of choice block {self.block}")

    def row_of(self, child: Sequence[str], size: int = 0) -> int:
        """The row of a child that has so many weights more than the reference."""
        return bisect_left(self.bounds, size) if self.block is None else self.operators.index(child[self.block])
