"""Which children are a stock BERT: the rule, those of a space for a search, and the code that others bring."""

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Self

from hf_nasbert.modeling.geometry_nasbert import parse_operator
from hf_nasbert.space import SKIP, Architecture, FreeStage, SearchSpace, hamming

CODE_FILES = ("geometry_nasbert.py", "operators_nasbert.py", "configuration_nasbert.py", "modeling_nasbert.py")
"""What a child that is no stock BERT brings to where this package is not installed: files of `modeling/`."""
CODE_DIGESTS = Path(__file__).parent / "modeling" / "published.sha256"
"""The SHA-256 sums of every version of them that there ever was, as `sha256sum` writes them."""

CODE_NEEDS = "transformers 5.20 and huggingface_hub 1.31 or later"
"""What those files need; they look for it themselves, and tests hold both against pyproject.toml."""

_MAX_CHILDREN = 10_000  # a walk looks at all of them


def is_our_code(name: str, content: bytes) -> bool:
    """Whether these are the bytes of a version of one of `CODE_FILES`, the present one or any before it."""
    digest = hashlib.sha256(content).hexdigest()
    return f"{digest}  {name}" in CODE_DIGESTS.read_text(encoding="ascii").splitlines()


def native_children(space: SearchSpace, *, hidden_size: int, embedding_size: int) -> "ListedChildren":
    """Those children of a space that `modeling.families.to_bert` turns into a stock BERT.

    They are few, for their operators follow from their depths: a chain of 24 blocks with `skip` has 12.

    Args:
        space: The super-net's space.
        hidden_size: Width of the states between stages.
        embedding_size: Width of the embedding tables.

    Raises:
        ValueError: If no child of the space is a stock BERT, and why; or if more are than can be listed.
    """
    if embedding_size != hidden_size:
        raise ValueError(
            f"no child of this super-net is a plain BERT: its embeddings are {embedding_size} wide and its states "
            f"{hidden_size}, and BERT's are as wide as each other"
        )
    # One inner width in all layers.
    candidates = {name for stage in space.stages for names in stage.kinds for name in names}
    widenings = sorted(name for name in candidates if parse_operator(name).kind == "ffn")
    found = (child for name in widenings for child in _found_from(space, hidden_size, ("attention", name)))
    children = tuple(islice(found, _MAX_CHILDREN + 1))
    if len(children) > _MAX_CHILDREN:
        raise ValueError(f"more than {_MAX_CHILDREN:,} children of this space are plain BERTs: too many to list")
    if not children:
        widths = [stage.widths for stage in space.stages if stage.widths and hidden_size not in stage.widths]
        reason = (
            f"a stage has the widths {', '.join(map(str, widths[0]))} and not the hidden size {hidden_size}"
            if widths
            else "its choice blocks do not offer attention, ffn, attention, ffn, ... in turn, up to an ffn"
        )
        raise ValueError(f"no child of this space is a plain BERT: {reason}")
    return ListedChildren(space, children)


def _found_from(
    space: SearchSpace,
    hidden_size: int,
    in_turn: tuple[str, str],
    before: tuple[str, ...] = (),
    num_real: int = 0,
) -> Iterator[Architecture]:
    """All children that go on from the operators of the first stages, `num_real` of which are no skips."""
    number = next((number for number, where in enumerate(space.stage_slices) if where.start == len(before)), None)
    if number is None:
        if num_real and num_real % 2 == 0:
            yield Architecture(before)
        return
    stage = space.stages[number]
    if isinstance(stage, FreeStage):
        for part in _in_turn_or_skipped(stage.blocks, in_turn, num_real):
            num_more = len(part) - part.count(SKIP)
            yield from _found_from(space, hidden_size, in_turn, before + part, num_real + num_more)
        return
    for width, operators in zip(stage.widths or (hidden_size,), stage.operators, strict=True):
        if width != hidden_size:
            continue
        names: list[str] = []
        for depth in range(1, stage.num_blocks + 1):
            kind = in_turn[(num_real + depth - 1) % 2]
            if kind not in stage.kinds[depth - 1]:
                break
            names.append(operators[depth - 1][stage.kinds[depth - 1].index(kind)])
            if depth in stage.depths:
                part = (*names, *[SKIP] * (stage.num_blocks - depth))
                yield from _found_from(space, hidden_size, in_turn, before + part, num_real + depth)


def _in_turn_or_skipped(
    blocks: Sequence[Sequence[str]], in_turn: tuple[str, str], num_real: int
) -> Iterator[tuple[str, ...]]:
    """All choices in blocks that take the next operator in turn or skip."""
    if not blocks:
        yield ()
        return
    for name, is_real in ((in_turn[num_real % 2], 1), (SKIP, 0)):
        if name in blocks[0]:
            for rest in _in_turn_or_skipped(blocks[1:], in_turn, num_real + is_real):
                yield (name, *rest)


@dataclass(frozen=True)
class ListedChildren:
    """Some children of a space, named one by one: what a rule leaves that no choice of candidates can express.

    A search moves among them as in any space (`space.Candidates`) and meets no other child. They may lie far from each
    other, so a move leads to one of the nearest where none is as near as it should be.

    Args:
        space: The space that they are children of.
        children: The children, in any order; kept in that of the space.

    Raises:
        ValueError: If there is none, one twice, or one that is not in the space.
    """

    space: SearchSpace
    children: tuple[Architecture, ...]

    def __post_init__(self) -> None:
        children = [self.space.validate(child) for child in self.children]
        if not children:
            raise ValueError("listed children are at least one, got none")
        if len(set(children)) < len(children):
            raise ValueError("listed children are each listed once, got one twice")
        object.__setattr__(self, "children", tuple(sorted(children, key=self.space.index_of)))

    @property
    def num_children(self) -> int:
        """How many children are listed."""
        return len(self.children)

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        """The operators of every choice block of the space."""
        return self.space.blocks

    @property
    def stage_slices(self) -> tuple[slice, ...]:
        """Where each stage's blocks stand in an architecture."""
        return self.space.stage_slices

    def enumerate(self) -> Iterator[Architecture]:
        """All listed children, in the order of the space."""
        return iter(self.children)

    def child_at(self, index: int) -> Architecture:
        """The child at `index` of `enumerate()`.

        Raises:
            ValueError: If there is no such index.
        """
        if not 0 <= index < self.num_children:
            raise ValueError(f"there is no child {index}: {self.num_children} are listed, counted from 0")
        return self.children[index]

    def index_of(self, architecture: Iterable[str]) -> int:
        """The index of a listed child in `enumerate()`: the inverse of `child_at`."""
        return self._place_of[self.validate(architecture)]

    @cached_property
    def _place_of(self) -> dict[Architecture, int]:
        return {child: place for place, child in enumerate(self.children)}

    def why_not(self, architecture: Iterable[str] | str) -> str | None:
        """Why this is no listed child, or None if it is one."""
        try:
            self.validate(architecture)
        except ValueError as error:
            return str(error)
        return None

    def validate(self, architecture: Iterable[str] | str) -> Architecture:
        """Return the architecture, given as operator names or as text, if it is a listed child.

        Raises:
            ValueError: If it is not; the message says why.
        """
        found = self.space.validate(architecture)
        if found not in self._place_of:
            raise ValueError(f"{found} is none of the {self.num_children:,} children that the search is restricted to")
        return found

    def neighbours(self, architecture: Iterable[str]) -> list[Architecture]:
        """The nearest other children: those that differ in the fewest choice blocks."""
        return list(self._within(self.validate(architecture), 0))

    def _within(self, found: Architecture, num_changes: int) -> list[Architecture]:
        """All others that differ in at most `num_changes` blocks, or the nearest where there is none."""
        if (found, num_changes) not in self._near:
            distances = {child: hamming(child, found) for child in self.children if child != found}
            reach = max(num_changes, min(distances.values(), default=0))
            near = [child for child, distance in distances.items() if distance <= reach]
            self._near[found, num_changes] = near
        return self._near[found, num_changes]

    @cached_property
    def _near(self) -> dict[tuple[Architecture, int], list[Architecture]]:
        """What `_within` has found: evolution asks for the same parents again and again."""
        return {}

    def max_changes(self, architecture: Iterable[str]) -> int:
        """How many choice blocks `mutate` can change where it is not bound to the nearest: all, or none."""
        self.validate(architecture)
        return self.space.num_choice_blocks if self.num_children > 1 else 0

    def mutate(self, architecture: Iterable[str], rng: random.Random, num_changes: int = 1) -> Architecture:
        """Draw another child that differs in at most `num_changes` choice blocks, or one of the nearest.

        Raises:
            ValueError: If there is no other child.
        """
        found = self._within(self.validate(architecture), num_changes)
        if not found:
            raise ValueError("cannot change the only child that is listed")
        return rng.choice(found)

    def crossover(self, a: Iterable[str], b: Iterable[str], rng: random.Random) -> Architecture:
        """Draw among the children nearest to a mix of two parents, each block of which comes from either."""
        mix = [rng.choice(names) for names in zip(self.validate(a), self.validate(b), strict=True)]
        least = min(hamming(child, mix) for child in self.children)
        return rng.choice([child for child in self.children if hamming(child, mix) == least])

    def to_dict(self) -> dict[str, Any]:
        """The space and the children as plain JSON types, for records."""
        return self.space.to_dict() | {"children": [str(child) for child in self.children]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: If a key is missing or unknown, or a value describes no space.
        """
        if "children" not in data:
            raise ValueError("listed children have the keys stages, children: missing ['children']")
        space = SearchSpace.from_dict({key: data[key] for key in data if key != "children"})
        if not isinstance(data["children"], list | tuple):
            raise ValueError(f"listed children are a list, got {str(data['children'])[:80]!r}")
        return cls(space, tuple(Architecture.parse(child) for child in data["children"]))
