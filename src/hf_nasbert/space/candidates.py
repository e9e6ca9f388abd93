"""What a search asks of the children it may find: those of a whole space, or some of them listed one by one."""

import random
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from hf_nasbert.space.architecture import Architecture


class Candidates(Protocol):
    """Children that a search moves among: a `SearchSpace`, or `native.ListedChildren`.

    Their order is that of `enumerate`; every move ends at one of them.
    """

    @property
    def num_children(self) -> int:
        """How many there are."""

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        """The operators of every choice block."""

    @property
    def stage_slices(self) -> tuple[slice, ...]:
        """Where each stage's blocks stand in an architecture."""

    def enumerate(self) -> Iterator[Architecture]:
        """All of them, in their order."""

    def child_at(self, index: int) -> Architecture:
        """The child at a place of `enumerate`."""

    def index_of(self, architecture: Iterable[str]) -> int:
        """The place of a child in `enumerate`."""

    def validate(self, architecture: Iterable[str] | str) -> Architecture:
        """The architecture, if it is one of them; else a ValueError that says why not."""

    def why_not(self, architecture: Iterable[str] | str) -> str | None:
        """Why it is none of them, or None if it is one."""

    def neighbours(self, architecture: Iterable[str]) -> list[Architecture]:
        """The others that are one move away."""

    def max_changes(self, architecture: Iterable[str]) -> int:
        """The largest `num_changes` for `mutate`; 0 where there is no other child."""

    def mutate(self, architecture: Iterable[str], rng: random.Random, num_changes: int = 1) -> Architecture:
        """Draw another child so many choice blocks away, or as near to that as there is one."""

    def crossover(self, a: Iterable[str], b: Iterable[str], rng: random.Random) -> Architecture:
        """Draw a child that takes after two parents."""

    def to_dict(self) -> dict[str, Any]:
        """Them as plain JSON types, for records."""
