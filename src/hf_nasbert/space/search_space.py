"""Search spaces: the rules of a valid child, exact sizes, order, draws, neighbours."""

import functools
import math
import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from hf_nasbert.modeling.geometry_nasbert import SKIP, shown
from hf_nasbert.space.architecture import Architecture, parsed, trusted
from hf_nasbert.space.stages import FreeStage, Stage, checked_block, checked_widths

_NUM_STARTS = 1000  # architectures that are remembered with what they may change into


@dataclass(frozen=True)
class SearchSpace:
    """The candidates of every choice block, and the rules of a valid child.

    Three rules beyond choosing one candidate per block: `skip` stands at the end of its stage only, every stage holds
    at least one real operator, and the operators of a stage share one width. So no two architectures of a stage are
    the same network. In a `FreeStage` none of them holds: there a block's weights come from one place of a base model,
    and the same operators in other blocks are another network.

    Where neighbouring stages are given the same width, the same operators can be told apart by where the stage ends
    alone. They are counted, drawn and enumerated as architectures, as NAS-BERT counts them (Xu et al., 2021,
    https://arxiv.org/abs/2105.14444).

    Args:
        stages: The stages, in the order of the forward pass.

    Raises:
        ValueError: If there is none, or one is not a `Stage`.

    Example:
        >>> nasbert = SearchSpace.staged(4, 6, ("attention", "ffn", "conv3", "conv5", "conv7", "skip"),
        ...                              widths=(128, 192, 256, 384, 512))
        >>> nasbert.stages[0].num_children, nasbert.num_children == 97_650**4
        (97650, True)
        >>> space = SearchSpace.chain(3, ("attention", "ffn", "skip"))
        >>> print(space.child_at(6), space.canonicalize(["skip", "ffn", "attention"]))
        attention-skip-skip ffn-attention-skip
        >>> print(space.why_not(["ffn", "skip", "ffn"]))
        choice block 1 holds 'skip' before 'ffn' in block 2 (candidates: attention, ffn, skip): skip stands at the \
end of its stage only
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.stages, list | tuple) or not self.stages:
            raise ValueError(f"a search space is a non-empty list of stages, got {shown(self.stages)}")
        for number, stage in enumerate(self.stages):
            if not isinstance(stage, Stage):
                raise ValueError(f"stage {number} is not a Stage but {shown(stage)}")
        object.__setattr__(self, "stages", tuple(self.stages))

    @classmethod
    def chain(cls, num_choice_blocks: int, operators: Sequence[str], skip: str = "end") -> Self:
        """A space of one stage, of the model's hidden size, with the same candidates in every choice block.

        `skip` says where the operator of that name may stand: at the `"end"`, or `"anywhere"` (`FreeStage`).
        """
        return cls((_uniform_stage(num_choice_blocks, operators, (), _stage_class(skip)),))

    @classmethod
    def of_blocks(cls, blocks: Sequence[str], skip: str = "end") -> Self:
        """A space of one stage from the candidates of every choice block, each as in `attention,ffn,conv3`.

        A block with a single candidate, such as a convolution at the stem, is the same in all children. `skip` is as
        for `chain`.
        """
        return cls((_stage_class(skip)(tuple(tuple(block.replace(" ", "").split(",")) for block in blocks)),))

    @classmethod
    def staged(cls, num_stages: int, blocks_per_stage: int, operators: Sequence[str], widths: Sequence[int]) -> Self:
        """A space of equal stages, each with one of several widths: NAS-BERT's form."""
        _check_count("num_stages", num_stages)
        return cls((_uniform_stage(blocks_per_stage, operators, widths),) * num_stages)

    @functools.cached_property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        """The full candidate names of every choice block: width by width, `skip` last."""
        return tuple(
            tuple(name for operators in stage.operators for name in operators[block]) + (SKIP,) * (SKIP in kinds)
            for stage in self.stages
            for block, kinds in enumerate(stage.blocks)
        )

    @property
    def num_choice_blocks(self) -> int:
        """How many choice blocks there are, over all stages."""
        return len(self.blocks)

    @property
    def num_stages(self) -> int:
        """How many stages there are."""
        return len(self.stages)

    @functools.cached_property
    def stage_slices(self) -> tuple[slice, ...]:
        """Where each stage's blocks stand in an architecture."""
        slices, start = [], 0
        for stage in self.stages:
            slices.append(slice(start, start + stage.num_blocks))
            start += stage.num_blocks
        return tuple(slices)

    def stage_of(self, block: int) -> int:
        """The number of the stage that choice block `block` belongs to.

        Raises:
            ValueError: If there is no such block.
        """
        for number, where in enumerate(self.stage_slices):
            if where.start <= block < where.stop:
                return number
        raise ValueError(f"there is no choice block {block}: the space has blocks 0 to {self.num_choice_blocks - 1}")

    @functools.cached_property
    def num_children(self) -> int:
        """How many valid architectures there are, exactly."""
        return math.prod(stage.num_children for stage in self.stages)

    @functools.cached_property
    def _known(self) -> tuple[frozenset[str], ...]:
        return tuple(map(frozenset, self.blocks))

    def validate(self, architecture: Iterable[str] | str) -> Architecture:
        """Return the architecture, given as operator names or as text, if it is one of this space's.

        Raises:
            ValueError: If it is not, naming the choice block, the operator and the candidates, or the rule.
        """
        found = parsed(architecture)
        reason = self._why_not(found)
        if reason is not None:
            raise ValueError(f"architecture {shown(str(found))} is not in the search space: {reason}")
        return found

    def why_not(self, architecture: Iterable[str] | str) -> str | None:
        """Why this is no architecture of the space, or None if it is one."""
        try:
            found = parsed(architecture)
        except ValueError as error:
            return str(error)
        return self._why_not(found)

    def __contains__(self, architecture: object) -> bool:
        return isinstance(architecture, list | tuple) and self.why_not(architecture) is None

    def _why_not(self, architecture: Architecture) -> str | None:
        reason = self._unknown(architecture)
        if reason is not None:
            return reason
        for number, (stage, where) in enumerate(zip(self.stages, self.stage_slices, strict=True)):
            reason = stage.why_not(architecture[where], where.start, number)
            if reason is not None:
                return reason
        return None

    def _unknown(self, architecture: Architecture) -> str | None:
        if len(architecture) != self.num_choice_blocks:
            return f"it names {len(architecture)} operators, the space has {self.num_choice_blocks} choice blocks"
        for block, (known, name) in enumerate(zip(self._known, architecture, strict=True)):
            if name not in known:
                return f"choice block {block} has no operator {name!r} (candidates: {self._candidates(block)})"
        return None

    def _candidates(self, block: int) -> str:
        return ", ".join(self.blocks[block])

    def canonicalize(self, architecture: Iterable[str]) -> Architecture:
        """Move every `skip` to the end of its stage, which leaves the network as it is.

        Raises:
            ValueError: If the architecture breaks another rule, or an operator would move to a block that lacks it.
        """
        found = Architecture(architecture)
        reason = self._unknown(found)
        if reason is not None:
            raise ValueError(f"architecture {shown(str(found))} has no canonical form: {reason}")
        parts = zip(self.stages, self._parts(found), strict=True)
        return self.validate(trusted(name for stage, part in parts for name in stage.canonical(part)))

    def _parts(self, architecture: Architecture) -> list[tuple[str, ...]]:
        return [architecture[where] for where in self.stage_slices]

    def sample(self, rng: random.Random, uniform_over: Literal["operators", "children"] = "operators") -> Architecture:
        """Draw an architecture.

        Args:
            rng: The generator to draw from; no other is touched.
            uniform_over: `"operators"`: every block uniformly and independently (the width once per stage), then
                under its canonical name: uniform single-path sampling (Guo et al., 2020,
                https://arxiv.org/abs/1904.00420). `"children"`: every valid architecture equally likely, which with
                `skip` means mostly deep ones.

        Raises:
            ValueError: If `uniform_over` is neither.
        """
        if uniform_over == "operators":
            return trusted(name for stage in self.stages for name in stage.draw(rng))
        if uniform_over == "children":
            return self.child_at(rng.randrange(self.num_children))
        raise ValueError(f"uniform_over is 'operators' or 'children', got {shown(uniform_over)}")

    def alternatives(self, architecture: Iterable[str], block: int) -> tuple[str, ...]:
        """What choice block `block` may hold instead, all other blocks staying as they are."""
        found, number = self.validate(architecture), self.stage_of(block)
        where = self.stage_slices[number]
        return tuple(self.stages[number].alternatives(found[where])[block - where.start])

    def _alternatives(self, architecture: Architecture) -> list[list[str]]:
        """The alternatives of every choice block of a valid architecture."""
        parts = zip(self.stages, self._parts(architecture), strict=True)
        return [names for stage, part in parts for names in stage.alternatives(part)]

    def neighbours(self, architecture: Iterable[str]) -> list[Architecture]:
        """All valid architectures that differ from this one in exactly one choice block.

        So a stage's last real block may become `skip` if another real one remains, its first `skip` any real
        operator, and a width may change where a stage has a single real block.
        """
        found = self.validate(architecture)
        return [
            _replaced(found, block, name) for block, names in enumerate(self._alternatives(found)) for name in names
        ]

    def max_changes(self, architecture: Iterable[str]) -> int:
        """The largest `num_changes` that `mutate` can make on this architecture."""
        return self._start_of(architecture)[1]

    def _start_of(self, architecture: Iterable[str]) -> tuple[Architecture, int, list[list[str]]]:
        """An architecture that is to be changed, `max_changes` of it and its alternatives.

        Searches change the same few parents again and again, so some are remembered.
        """
        known = self._starts.get(architecture) if isinstance(architecture, tuple) else None
        if known is None:
            found = self.validate(architecture)
            known = (found, self._max_changes(found, range(self.num_choice_blocks)), self._alternatives(found))
            if len(self._starts) >= _NUM_STARTS:
                self._starts.clear()
            self._starts[found] = known
        return known

    @functools.cached_property
    def _starts(self) -> dict[tuple[str, ...], tuple[Architecture, int, list[list[str]]]]:
        return {}

    def _max_changes(self, architecture: Architecture, free: Collection[int]) -> int:
        return sum(
            stage.max_changes(
                stage.num_blocks - architecture[where].count(SKIP),
                {block - where.start for block in free if where.start <= block < where.stop},
            )
            for stage, where in zip(self.stages, self.stage_slices, strict=True)
        )

    def mutate(self, architecture: Iterable[str], rng: random.Random, num_changes: int = 1) -> Architecture:
        """Change exactly `num_changes` choice blocks, by as many one-block moves through valid architectures.

        Each move draws its block uniformly among those that have not changed yet and can, then the new operator
        uniformly among what that block may hold instead. No block changes twice, so the Hamming distance is exactly
        `num_changes`. Moves after which the remaining ones could not be made (a stage that shrinks, where only
        growing leaves room for enough changes) are not drawn.

        Raises:
            ValueError: If no such chain of moves exists: see `max_changes`.
        """
        found, most, alternatives = self._start_of(architecture)
        _check_count("num_changes", num_changes)
        free = set(range(self.num_choice_blocks))
        if most < num_changes:
            raise ValueError(
                f"cannot change {num_changes} choice blocks of {shown(str(found))} one by one: "
                f"at most {most} can change"
            )
        for remaining in reversed(range(num_changes)):
            blocks = [block for block in sorted(free) if alternatives[block]]
            names: list[str] = []
            while not names:  # drop the blocks that cannot change now: the draw is uniform among those that can
                block = blocks.pop(rng.randrange(len(blocks)))
                names = self._with_room(found, block, alternatives[block], free - {block}, remaining)
            found = _replaced(found, block, rng.choice(names))
            free.remove(block)
            if remaining:
                alternatives = self._alternatives(found)
        return found

    def _with_room(
        self, found: Architecture, block: int, names: list[str], free: set[int], remaining: int
    ) -> list[str]:
        """Those of a block's alternatives after which the remaining changes can be made; depths alone decide that."""
        if not remaining:
            return names
        has_room: dict[bool, bool] = {}
        for name in names:
            if (name == SKIP) not in has_room:
                most = self._max_changes(_replaced(found, block, name), free)
                has_room[name == SKIP] = most >= remaining
        return [name for name in names if has_room[name == SKIP]]

    def crossover(self, a: Iterable[str], b: Iterable[str], rng: random.Random) -> Architecture:
        """Mix two parents into a valid offspring.

        Stage by stage, each trait comes from one of the parents, drawn independently: the width, the depth, and the
        kind of every real block (from the one parent that is real there, if only one is). So parents of different
        widths mix their kinds too, and where both parents agree the offspring agrees with them.
        """
        first, second = self.validate(a), self.validate(b)
        parts = zip(self.stages, self._parts(first), self._parts(second), strict=True)
        return trusted(name for stage, *parents in parts for name in stage.cross(parents, rng))

    def enumerate(self) -> Iterator[Architecture]:
        """All architectures, lexicographically by candidate order: those with a common prefix follow each other."""
        return (trusted(names) for names in self._enumerate_from(0))

    def _enumerate_from(self, number: int) -> Iterator[tuple[str, ...]]:
        if number == self.num_stages:
            yield ()
            return
        for part in self.stages[number].children():
            for rest in self._enumerate_from(number + 1):
                yield part + rest

    def child_at(self, index: int) -> Architecture:
        """The architecture at `index` of `enumerate()`, without walking there.

        Raises:
            ValueError: If there is no such index.
        """
        if not isinstance(index, int) or not 0 <= index < self.num_children:
            raise ValueError(f"there is no child {shown(index)}: the space has {self.num_children}, counted from 0")
        parts: list[list[str]] = []
        for stage in reversed(self.stages):
            index, within = divmod(index, stage.num_children)
            parts.append(stage.child_at(within))
        return trusted(name for part in reversed(parts) for name in part)

    def index_of(self, architecture: Iterable[str]) -> int:
        """The index of a valid architecture in `enumerate()`: the inverse of `child_at`."""
        index = 0
        for stage, part in zip(self.stages, self._parts(self.validate(architecture)), strict=True):
            index = index * stage.num_children + stage.index_of(part)
        return index

    def to_dict(self) -> dict[str, Any]:
        """The space as plain JSON types, for configs and records."""
        return {
            "stages": [
                {"blocks": [list(kinds) for kinds in stage.blocks], "widths": list(stage.widths)}
                | ({"skip": "anywhere"} if isinstance(stage, FreeStage) else {})
                for stage in self.stages
            ]
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: If a key is missing or unknown, or a value describes no space, naming the stage.
        """
        stages = _fields(data, "a search space", required=("stages",))["stages"]
        if not isinstance(stages, list | tuple):
            raise ValueError(f"the stages of a search space are a list, got {shown(stages)}")
        found = []
        for number, stage in enumerate(stages):
            try:
                fields = _fields(stage, "a stage", required=("blocks",), optional=("widths", "skip"))
                found.append(_stage_class(fields.pop("skip", "end"))(**fields))
            except ValueError as error:
                raise ValueError(f"stage {number} of the search space: {error}") from error
        return cls(tuple(found))


def _replaced(architecture: Architecture, block: int, name: str) -> Architecture:
    return trusted((*architecture[:block], name, *architecture[block + 1 :]))


def _check_count(name: str, value: object) -> None:
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} is a positive integer, got {shown(value)}")


def _stage_class(skip: object) -> type[Stage]:
    if skip not in ("end", "anywhere"):
        raise ValueError(f"skip stands at the 'end' of a stage or 'anywhere', got {shown(skip)}")
    return Stage if skip == "end" else FreeStage


def _uniform_stage(
    num_blocks: int, operators: Sequence[str], widths: Sequence[int], stage_class: type[Stage] = Stage
) -> Stage:
    _check_count("the number of choice blocks", num_blocks)
    block = checked_block(operators)
    return stage_class(blocks=(block,) * num_blocks, widths=checked_widths(widths))


def _fields(data: object, what: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ValueError(f"{what} is a mapping with {', '.join(required + optional)}, got {shown(data)}")
    missing = [key for key in required if key not in data]
    unknown = [key for key in data if key not in required + optional]
    if missing or unknown:
        raise ValueError(
            f"{what} has the keys {', '.join(required + optional)}: missing {missing}, unknown {shown(unknown)}"
        )
    return dict(data)


def settings_of_blocks(space: SearchSpace, number: int, seed: int) -> list[tuple[Architecture, list[set[str]]]]:
    """Random children as uniform training draws them, with all that each block may hold while the others stay."""
    rng = random.Random(f"settings of blocks {seed}")
    children = [space.sample(rng) for _ in range(number)]
    return [
        (child, [{child[block], *space.alternatives(child, block)} for block in range(len(child))])
        for child in children
    ]
