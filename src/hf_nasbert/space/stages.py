"""A stage: choice blocks of one width, with the exact number, the order and the neighbours of its children."""

import functools
import itertools
import math
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from hf_nasbert.modeling.geometry_nasbert import SKIP, is_candidate, operator_width, parse_operator, shown

_MAX_WIDTH = 999_999  # six digits, as in a name


def checked_block(kinds: object) -> tuple[str, ...]:
    """The candidate kinds of a block, `skip` last; ValueError if they are none."""
    if not isinstance(kinds, list | tuple) or not kinds:
        raise ValueError(f"a choice block is a non-empty list of operator kinds, got {shown(kinds)}")
    for kind in kinds:
        if not is_candidate(kind):
            raise ValueError(
                f"{shown(kind)} is not an operator kind: expected a letter, then letters, digits and underscores "
                f"(ASCII, at most 64); widths are given to the stage, not in the name"
            )
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"duplicate candidates in one choice block: {shown(list(kinds))}")
    real = tuple(kind for kind in kinds if kind != SKIP)
    if not real:
        raise ValueError("a choice block needs a candidate other than 'skip': one that always skips is no block")
    return (*real, SKIP) if len(real) < len(kinds) else real


def checked_widths(widths: object) -> tuple[int, ...]:
    """The widths of a stage; ValueError if they are none."""
    if not isinstance(widths, list | tuple):
        raise ValueError(f"widths are a list of positive integers, got {shown(widths)}")
    for width in widths:
        if type(width) is not int or not 1 <= width <= _MAX_WIDTH:
            raise ValueError(f"a width is an integer from 1 to {_MAX_WIDTH}, got {shown(width)}")
    if len(set(widths)) < len(widths):
        raise ValueError(f"duplicate widths in one stage: {shown(list(widths))}")
    return tuple(widths)


@dataclass(frozen=True)
class Stage:
    """A run of choice blocks of one hidden size: the candidate kinds of each, and the widths to choose from.

    A child's part in a stage is its width, its depth (how many blocks are real; the rest, at the end, skip) and one
    kind per real block. So `skip` stands at the end only, where it cannot give one network two names.

    Args:
        blocks: The candidate kinds of each choice block. `skip` is kept as the last one.
        widths: The hidden sizes a child may have in this stage. Empty: the model's, and names carry no width.

    Raises:
        ValueError: If a block is empty, repeats a candidate, offers only `skip` or an odd name; if a width is no
            positive integer or repeated.
    """

    blocks: tuple[tuple[str, ...], ...]
    widths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.blocks, list | tuple) or not self.blocks:
            raise ValueError(f"a stage is a non-empty list of choice blocks, got {shown(self.blocks)}")
        object.__setattr__(self, "blocks", tuple(checked_block(kinds) for kinds in self.blocks))
        object.__setattr__(self, "widths", checked_widths(self.widths))

    @property
    def num_blocks(self) -> int:
        """How many choice blocks the stage has."""
        return len(self.blocks)

    @functools.cached_property
    def kinds(self) -> tuple[tuple[str, ...], ...]:
        """The real candidates of every block: all but `skip`."""
        return tuple(tuple(kind for kind in kinds if kind != SKIP) for kinds in self.blocks)

    @functools.cached_property
    def operators(self) -> tuple[tuple[tuple[str, ...], ...], ...]:
        """Full names of the real candidates, as `operators[width index][block]`."""
        suffixes = [f"@{width}" for width in self.widths] or [""]
        return tuple(tuple(tuple(kind + suffix for kind in kinds) for kinds in self.kinds) for suffix in suffixes)

    @functools.cached_property
    def depths(self) -> range:
        """How many real blocks a child may have here: at least one, and all those that do not offer `skip`."""
        without_skip = [block for block, kinds in enumerate(self.blocks) if SKIP not in kinds]
        return range(max([0, *without_skip]) + 1, self.num_blocks + 1)

    @functools.cached_property
    def _completions(self) -> tuple[int, ...]:
        """How many ways lead on from `block`, the width being fixed and all blocks before it real."""
        ways = [1]
        for block in reversed(range(self.num_blocks)):
            ways.append(len(self.kinds[block]) * ways[-1] + (block in self.depths))
        return tuple(reversed(ways))

    @property
    def num_children(self) -> int:
        """How many children the stage has, exactly."""
        return len(self.operators) * self._completions[0]

    def num_children_of_depth(self, depth: int) -> int:
        """How many of the stage's children have `depth` real blocks, exactly."""
        if depth not in self.depths:
            return 0
        return len(self.operators) * math.prod(len(kinds) for kinds in self.kinds[:depth])

    def children(self) -> Iterator[tuple[str, ...]]:
        """All children of the stage, lexicographically by candidate order."""
        return (child for operators in self.operators for child in self._continue((), operators))

    def _continue(self, prefix: tuple[str, ...], operators: Sequence[Sequence[str]]) -> Iterator[tuple[str, ...]]:
        block = len(prefix)
        if block == self.num_blocks:
            yield prefix
            return
        for name in operators[block]:
            yield from self._continue((*prefix, name), operators)
        if block in self.depths:
            yield prefix + (SKIP,) * (self.num_blocks - block)

    def child_at(self, index: int) -> list[str]:
        """The child at `index` of `children()`, without walking there."""
        width, index = divmod(index, self._completions[0])
        names: list[str] = []
        for operators, ways in zip(self.operators[width], self._completions[1:], strict=True):
            choice, index = divmod(index, ways)
            if choice == len(operators):  # past the last real one: skip, here and in all blocks that follow
                break
            names.append(operators[choice])
        return names + [SKIP] * (self.num_blocks - len(names))

    def index_of(self, names: Sequence[str]) -> int:
        """The index of a valid child in `children()`."""
        width, depth = self.shape(names)
        operators, ways = self.operators[width], self._completions
        index = width * ways[0] + sum(operators[i].index(names[i]) * ways[i + 1] for i in range(depth))
        return index if depth == self.num_blocks else index + len(operators[depth]) * ways[depth + 1]

    def shape(self, names: Sequence[str]) -> tuple[int, int]:
        """The index of the width and the depth of a valid child."""
        width = operator_width(names[0])
        return 0 if width is None else self.widths.index(width), self.num_blocks - list(names).count(SKIP)

    @functools.cached_property
    def _moved(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Which candidates of block `i` are at home in block `r` too, as indices there: `_moved[i][r]`, r <= i."""
        return tuple(
            tuple(tuple(self.kinds[r].index(kind) for kind in kinds if kind in self.kinds[r]) for r in range(i + 1))
            for i, kinds in enumerate(self.kinds)
        )

    @functools.cached_property
    def _draws(self) -> tuple[tuple[int, ...], ...]:
        """How many free draws for blocks `i` and later, after `r` real ones, have a canonical name: `_draws[i][r]`."""
        last = tuple(int(real in self.depths) for real in range(self.num_blocks + 1))
        table = [last]
        for i in reversed(range(self.num_blocks)):
            after, skips = table[-1], SKIP in self.blocks[i]
            table.append(tuple(skips * after[r] + len(self._moved[i][r]) * after[r + 1] for r in range(i + 1)))
        return tuple(reversed(table))

    def draw(self, rng: random.Random) -> list[str]:
        """Draw the width, and every block uniformly and independently; then move the skips to the end.

        Draws that name no child (all skip, or an operator moved to a block that lacks it) are left out by counting
        the others, which is the same distribution as drawing again, and cannot go on for ever.
        """
        operators = self.operators[rng.randrange(len(self.operators))]
        index = rng.randrange(self._draws[0][0])
        names: list[str] = []
        for i, kinds in enumerate(self.blocks):
            real = len(names)
            skipping = self._draws[i + 1][real] if SKIP in kinds else 0
            if index >= skipping:
                choice, index = divmod(index - skipping, self._draws[i + 1][real + 1])
                names.append(operators[real][self._moved[i][real][choice]])
        return names + [SKIP] * (self.num_blocks - len(names))

    def alternatives(self, names: Sequence[str]) -> list[list[str]]:
        """What each block of a valid child may hold instead, all other blocks staying as they are."""
        width, depth = self.shape(names)
        found = [list(operators) for operators in self.operators[width][: depth + 1]]
        if depth == 1:  # nothing else in the stage has a width that must be kept
            found[0] = [name for operators in self.operators for name in operators[0]]
        if depth - 1 in self.depths:
            found[depth - 1].append(SKIP)
        for block in range(depth):
            found[block].remove(names[block])
        return found + [[] for _ in range(self.num_blocks - len(found))]

    def continuations(self, before: Sequence[str]) -> tuple[str, ...]:
        """What the next block of a child may hold after the stage's blocks before it."""
        block = len(before)
        if SKIP in before:
            return (SKIP,)
        if not before:
            return tuple(name for operators in self.operators for name in operators[0])
        operators = self.operators[self.shape(before)[0]][block]
        return (*operators, SKIP) if block in self.depths else operators

    def max_changes(self, depth: int, free: Collection[int] | None = None) -> int:
        """How many blocks a chain of valid one-block moves can change at most, none twice.

        Args:
            depth: The number of real blocks now.
            free: The blocks that may change; by default, all.
        """
        free = range(self.num_blocks) if free is None else free
        rich = [block in free and len(self.kinds[block]) > 1 for block in range(depth)]
        # Alone in its stage, block 0 may change its width even where it has a single kind.
        alone = 0 in free and not rich[0] and len(self.operators) > 1
        grown = depth
        while grown < self.num_blocks and grown in free:
            grown += 1
        best = sum(rich) + (alone and depth == 1) + grown - depth
        shrunk = depth
        while shrunk - 1 in self.depths and shrunk - 1 in free:
            shrunk -= 1
            best = max(best, sum(rich[:shrunk]) + (alone and shrunk == 1) + depth - shrunk)
        return best

    @property
    def choices(self) -> tuple[tuple[str, ...], ...]:
        """The kinds among which every block of given depth chooses freely."""
        return self.kinds

    def chains(self) -> Iterator[list[list[str]]]:
        """All children as free choices: for each width and depth, the candidates of every block."""
        for operators in self.operators:
            for depth in self.depths:
                yield [*map(list, operators[:depth]), *([SKIP] for _ in range(self.num_blocks - depth))]

    @functools.cached_property
    def _width_of(self) -> tuple[dict[str, int], ...]:
        """For every block, the index of each candidate's width; -1 for `skip`."""
        return tuple(
            {name: width for width, operators in enumerate(self.operators) for name in operators[block]} | {SKIP: -1}
            for block in range(self.num_blocks)
        )

    def _candidates(self, block: int) -> str:
        names = [name for operators in self.operators for name in operators[block]]
        return ", ".join([*names, SKIP] if SKIP in self.blocks[block] else names)

    def why_not(self, names: Sequence[str], start: int, number: int) -> str | None:
        """Which rule a choice of candidates breaks, or None.

        Args:
            names: One candidate per block.
            start: The number of the stage's first choice block in its space.
            number: The stage's own number there.
        """
        widths = [known[name] for known, name in zip(self._width_of, names, strict=True)]
        for block in range(1, self.num_blocks):
            name, before = names[block], names[block - 1]
            if widths[block] == widths[0] and before != SKIP:
                continue
            if name != SKIP and before == SKIP:
                return (
                    f"choice block {start + block - 1} holds 'skip' before {name!r} in block {start + block} "
                    f"(candidates: {self._candidates(block)}): skip stands at the end of its stage only"
                )
            if name != SKIP:
                return (
                    f"choice block {start + block} holds {name!r} though block {start} of stage {number} holds "
                    f"{names[0]!r} (candidates: {self._candidates(block)}): the operators of a stage share one width"
                )
        if widths[0] == -1:
            return (
                f"choice blocks {start} to {start + self.num_blocks - 1} hold 'skip' only (candidates of block "
                f"{start}: {self._candidates(0)}): stage {number} needs a real operator"
            )
        return None

    def canonical(self, names: Sequence[str]) -> list[str]:
        """The same network with every `skip` at the end."""
        return sorted(names, key=lambda name: name == SKIP)  # stable: the real operators keep their order

    def cross(self, parents: Sequence[Sequence[str]], rng: random.Random) -> list[str]:
        """Mix the parts of two parents: width, depth and the kind of every real block each from either of them."""
        width, depth = self.shape(rng.choice(parents))[0], self.shape(rng.choice(parents))[1]
        names = []
        for block in range(depth):
            name = rng.choice([parent[block] for parent in parents if parent[block] != SKIP])
            names.append(self.operators[width][block][self.kinds[block].index(parse_operator(name).candidate)])
        return names + [SKIP] * (self.num_blocks - depth)


@dataclass(frozen=True)
class FreeStage(Stage):
    """A stage of one width whose blocks choose among all their candidates freely: `skip` may stand anywhere.

    For super-nets that are made of a base model: each block's operators have weights of their own from one place of
    that model, so the same operators in other blocks are another network, and no two names are one. All blocks may
    skip: what remains are the embeddings.

    Raises:
        ValueError: As `Stage`, and if widths are given: a block that skips has none to choose.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.widths:
            raise ValueError(f"a stage where skip may stand anywhere has no widths, got {list(self.widths)}")

    @property
    def choices(self) -> tuple[tuple[str, ...], ...]:
        """The candidates of every block, `skip` among them."""
        return self.blocks

    @property
    def num_children(self) -> int:
        """How many children the stage has, exactly."""
        return math.prod(map(len, self.blocks))

    def num_children_of_depth(self, depth: int) -> int:
        """How many of the stage's children have `depth` real blocks, exactly."""
        ways = [1]  # by depth, of the blocks so far
        for kinds in self.blocks:
            real = len(kinds) - (SKIP in kinds)
            skipped = [count * (SKIP in kinds) for count in ways] + [0]
            ways = [skipped[i] + (ways[i - 1] * real if i else 0) for i in range(len(ways) + 1)]
        return ways[depth] if 0 <= depth < len(ways) else 0

    def children(self) -> Iterator[tuple[str, ...]]:
        """All children of the stage, lexicographically by candidate order."""
        return itertools.product(*self.blocks)

    def child_at(self, index: int) -> list[str]:
        """The child at `index` of `children()`, without walking there."""
        names = []
        for kinds in reversed(self.blocks):
            index, choice = divmod(index, len(kinds))
            names.append(kinds[choice])
        return names[::-1]

    def index_of(self, names: Sequence[str]) -> int:
        """The index of a child in `children()`."""
        index = 0
        for kinds, name in zip(self.blocks, names, strict=True):
            index = index * len(kinds) + kinds.index(name)
        return index

    def draw(self, rng: random.Random) -> list[str]:
        """Draw every block uniformly and independently."""
        return [rng.choice(kinds) for kinds in self.blocks]

    def alternatives(self, names: Sequence[str]) -> list[list[str]]:
        """What each block of a child may hold instead, all other blocks staying as they are."""
        return [[kind for kind in kinds if kind != name] for kinds, name in zip(self.blocks, names, strict=True)]

    def continuations(self, before: Sequence[str]) -> tuple[str, ...]:
        """What the next block of a child may hold: all its candidates."""
        return self.blocks[len(before)]

    def max_changes(self, depth: int, free: Collection[int] | None = None) -> int:
        """How many blocks a chain of one-block moves can change at most, none twice: those with a choice."""
        return sum(len(kinds) > 1 for block, kinds in enumerate(self.blocks) if free is None or block in free)

    def chains(self) -> Iterator[list[list[str]]]:
        """All children as free choices: the candidates of every block."""
        yield [list(kinds) for kinds in self.blocks]

    def why_not(self, names: Sequence[str], start: int, number: int) -> str | None:
        """None: every choice of candidates is a child."""
        return None

    def canonical(self, names: Sequence[str]) -> list[str]:
        """The names as they are: a `skip` elsewhere is another network."""
        return list(names)

    def cross(self, parents: Sequence[Sequence[str]], rng: random.Random) -> list[str]:
        """Mix the parts of two parents, block by block."""
        return [rng.choice(names) for names in zip(*parents, strict=True)]
