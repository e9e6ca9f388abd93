"""Samplers decide which children the next optimizer step trains."""

import abc
import itertools
import random
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from hf_nasbert.space import SKIP, Architecture, FreeStage, SearchSpace, Stage

_Card = TypeVar("_Card")


class Sampler(abc.ABC):
    """Decides which child trains next, as a pure function of the space, the seed and the number of draws so far.

    Nothing of the process, the rank or the global generators enters, so all ranks draw the same children without
    talking to each other. A sampler lives as long as its training run: it is saved with `state_dict` and goes on
    after `load_state_dict` as if it had never stopped.

    A training loop calls `next_step` once per optimizer step (not per micro-batch), runs every child in it on the
    same batch, accumulates their gradients and makes one step.

    Args:
        space: The space to draw from.
        seed: Seed of this sampler's own generator.

    Raises:
        ValueError: If the seed is not a non-negative integer, or the class gives no `name`.
    """

    name: str
    """The sampler's name in configs and records."""

    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        # random.Random takes the absolute value: seeds 1 and -1 would be one.
        if type(seed) is not int or seed < 0:
            raise ValueError(f"the seed of a sampler is a non-negative integer, got {seed!r}")
        if not isinstance(getattr(self, "name", None), str):
            raise ValueError(f"{type(self).__name__} has no name: give the class one (name = ...)")
        self.space = space
        self.seed = seed
        # A stream of its own: children drawn elsewhere with the same small seed (to evaluate, to search) are others
        # than the first ones trained. Seeding with text hashes it with SHA-512, the same in every process.
        self._rng = random.Random(f"{self.name} sampler, seed {seed}")

    @abc.abstractmethod
    def next_architecture(self) -> Architecture:
        """The next child to train."""

    def next_step(self) -> tuple[Architecture, ...]:
        """The children that the next optimizer step trains together."""
        return (self.next_architecture(),)

    def observe(self, children: Sequence[Architecture], losses: Sequence[float]) -> None:
        """Hear of the losses of a step's children. What a sampler makes of them is part of its state."""
        return

    def options(self) -> dict[str, Any]:
        """What beside space and seed decides the draws; a state is loaded under equal options only."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on as if never stopped, in plain JSON types, independent of this sampler."""
        version, internal, gauss_next = self._rng.getstate()
        return {
            "sampler": self.name,
            "space": self.space.to_dict(),
            "options": self.options(),
            "seed": self.seed,
            "rng": [version, list(internal), gauss_next],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken; the seed becomes that sampler's.

        Raises:
            ValueError: If the state is of another sampler, another space or other options, or damaged. The sampler
                is then unchanged.
        """
        self._check(state)
        rng = random.Random()
        try:
            version, internal, gauss_next = state["rng"]
            rng.setstate((version, tuple(internal), gauss_next))
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"the state of the {self.name} sampler's generator is damaged: {error}") from error
        self._rng, self.seed = rng, state["seed"]

    def _check(self, state: Mapping[str, Any]) -> None:
        expected = set(self.state_dict())
        if not isinstance(state, Mapping) or "sampler" not in state:
            raise ValueError(f"expected the state_dict of a {self.name} sampler, got {reprlib.repr(state)}")
        if state["sampler"] != self.name:
            raise ValueError(
                f"cannot load the state of a {reprlib.repr(state['sampler'])} sampler into a {self.name!r} sampler"
            )
        if set(state) != expected:
            raise ValueError(
                f"the state of a {self.name} sampler has the keys {', '.join(sorted(expected))}: "
                f"missing {sorted(expected - set(state))}, unknown {reprlib.repr(list(set(state) - expected))}"
            )
        _check_space(state["space"], self.space, f"the state of the {self.name} sampler")
        if state["options"] != self.options():
            raise ValueError(
                f"the state of the {self.name} sampler was saved under {reprlib.repr(state['options'])}, this one has "
                f"{self.options()}: make it with the saved options"
            )
        if type(state["seed"]) is not int or state["seed"] < 0:
            raise ValueError(
                f"the state of the {self.name} sampler has the seed {reprlib.repr(state['seed'])}, no integer"
            )


def _check_space(saved: Any, space: SearchSpace, what: str) -> None:
    """Refuse what was saved over another space, naming the first difference."""
    try:
        other = SearchSpace.from_dict(saved)
    except ValueError as error:
        raise ValueError(f"{what} is damaged: {error}") from error
    if other == space:
        return
    for block, (there, here) in enumerate(itertools.zip_longest(other.blocks, space.blocks)):
        if there != here:
            raise ValueError(
                f"{what} belongs to another search space: the candidates of choice block {block} are {there} there "
                f"and {here} here"
            )
    lengths = [[stage.num_blocks for stage in stages] for stages in (other.stages, space.stages)]
    raise ValueError(
        f"{what} belongs to another search space: the stages' numbers of choice blocks are {lengths[0]} there and "
        f"{lengths[1]} here"
    )


class UniformSampler(Sampler):
    """Draw every child afresh: uniform single-path sampling (SPOS: Guo et al., 2020, https://arxiv.org/abs/1904.00420).

    Args:
        space: The space to draw from.
        seed: Seed of this sampler's own generator.
        uniform_over: `"operators"`: every block uniformly. `"children"`: every canonical child equally likely, which
            with `skip` means mostly deep ones. See `SearchSpace.sample`.

    Example:
        >>> sampler = UniformSampler(SearchSpace.chain(3, ("attention", "ffn")), seed=0)
        >>> sampler.next_architecture() in sampler.space
        True
    """

    name = "uniform"

    def __init__(
        self, space: SearchSpace, *, seed: int, uniform_over: Literal["operators", "children"] = "operators"
    ) -> None:
        super().__init__(space, seed=seed)
        if uniform_over not in ("operators", "children"):
            raise ValueError(f"uniform_over is 'operators' or 'children', got {uniform_over!r}")
        self.uniform_over = uniform_over

    def options(self) -> dict[str, Any]:
        """Over what the draws are uniform."""
        return {"uniform_over": self.uniform_over}

    def next_architecture(self) -> Architecture:
        """A child independent of all before."""
        return self.space.sample(self._rng, self.uniform_over)


class FairSampler(Sampler):
    """Draw steps of children that together use every operator of a block exactly once (FairNAS, strict fairness).

    A step has as many children as a block has real operators: `len(widths) * len(real kinds)`, the largest number
    over all blocks. Their gradients are accumulated and one optimizer step is made, so that all operators of a block
    are updated equally often, always, not only on average (Chu et al., 2021, https://arxiv.org/abs/1907.01845).
    Permutations are fresh in every step: an operator's companions keep changing.

    `skip` holds no weights, so fairness is about the operators that do. Where it is offered it stands at a stage's
    end only, hence it cannot be permuted with the others block by block. Instead all children of a step share one
    depth per stage, drawn with the probability that uniform sampling over children gives it. So in every step and
    every block, either each real operator of each width is used exactly once, or none is and all children skip.
    Deep blocks are skipped in some steps, by all of their operators alike.

    Where a block has fewer real operators than the step has children, its widths and kinds come from shuffled
    decks, dealt again when empty: within one step their counts differ by at most one.

    Args:
        space: The space to draw from.
        seed: Seed of this sampler's own generator.

    Example:
        >>> sampler = FairSampler(SearchSpace.chain(2, ("attention", "ffn", "conv3")), seed=0)
        >>> step = sampler.next_step()
        >>> [sorted(operators) for operators in zip(*step)]
        [['attention', 'conv3', 'ffn'], ['attention', 'conv3', 'ffn']]
    """

    name = "fair"

    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        super().__init__(space, seed=seed)
        self.children_per_step = max(
            len(stage.operators) * len(kinds) for stage in space.stages for kinds in stage.choices
        )
        self._pending: list[Architecture] = []

    def next_architecture(self) -> Architecture:
        """The steps' children one by one, for a loop that wants them so: fair over `children_per_step` calls."""
        if not self._pending:
            self._pending = list(self.next_step())
        return self._pending.pop(0)

    def next_step(self) -> tuple[Architecture, ...]:
        """A new step: `children_per_step` children.

        Raises:
            ValueError: If `next_architecture` has handed out only a part of a step: dropping the rest is not fair.
        """
        if self._pending:
            raise ValueError(
                f"next_architecture has begun a step of {self.children_per_step} children and "
                f"{len(self._pending)} of them are still to come: draw those first, or use next_step alone"
            )
        parts = [self._deal_stage(stage) for stage in self.space.stages]
        return tuple(Architecture(itertools.chain(*child)) for child in zip(*parts, strict=True))

    def _deal_stage(self, stage: Stage) -> list[list[str]]:
        """One stage's part of every child of a step."""
        if isinstance(stage, FreeStage):
            blocks = [self._deal(names, self.children_per_step) for names in stage.blocks]
            return [list(child) for child in zip(*blocks, strict=True)]
        depth = stage.num_blocks - stage.child_at(self._rng.randrange(stage.num_children)).count(SKIP)
        children: list[list[str]] = [[] for _ in range(self.children_per_step)]
        widths = self._deal(range(len(stage.operators)), self.children_per_step)
        for block in range(depth):
            for width, operators in enumerate(stage.operators):
                # Only children of one width can use its operators: each width has decks of its own.
                sharers = [child for child, its_width in zip(children, widths, strict=True) if its_width == width]
                for child, name in zip(sharers, self._deal(operators[block], len(sharers)), strict=True):
                    child.append(name)
        return [child + [SKIP] * (stage.num_blocks - depth) for child in children]

    def _deal(self, cards: Sequence[_Card], count: int) -> list[_Card]:
        """The first `count` cards of shuffled decks laid one on another: counts differ by at most one."""
        dealt: list[_Card] = []
        while len(dealt) < count:
            dealt += self._rng.sample(cards, len(cards))
        return dealt[:count]

    def state_dict(self) -> dict[str, Any]:
        """The generator and the children of a begun step."""
        return super().state_dict() | {"pending": [str(architecture) for architecture in self._pending]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken, within a step too."""
        self._check(state)
        if not isinstance(state["pending"], list):
            raise ValueError(
                f"the children still to come of a fair sampler are a list, got {reprlib.repr(state['pending'])}"
            )
        pending = [self.space.validate(Architecture.parse(text)) for text in state["pending"]]
        super().load_state_dict(state)
        self._pending = pending


class GradualSampler(Sampler):
    """Walk through the space: each child differs from the one before in exactly `num_changes` choice blocks (MAGIC-T).

    Two children interfere on the operators they share, and the more so the more operators they do *not* share: the
    shared operator then sees different inputs and is pulled by different gradients. Changing one operator per step
    keeps that number at its minimum (Xu et al., 2022, https://arxiv.org/abs/2108.12821).

    The walk starts at a random child, each equally likely, and never starts again: not at an epoch's end, not after
    a restart. A step draws the block uniformly among those that can change, then the new operator uniformly among
    the others that are valid there: see `SearchSpace.mutate`.

    With `num_changes=1` every child is reachable, and in the long run visited in proportion to the number of its
    blocks that can change (for two neighbours the chances of going there and of coming back have that ratio). In a
    space without `skip` that is equally often. Over a short run the neighbours of the first child are favoured.

    A stage's width can change only while the stage has a single real block, which in deep stages of many operators
    is rare: in NAS-BERT's space about one step in 28,000. There, uniform sampling covers the widths and this walk
    does not.

    Args:
        space: The space to walk in. Blocks with a single candidate never change.
        seed: Seed of this sampler's own generator.
        num_changes: Choice blocks to change per step.

    Raises:
        ValueError: If some child has fewer than `num_changes` blocks that can change, or a stage's width never can.

    Example:
        >>> from hf_nasbert.space import hamming
        >>> sampler = GradualSampler(SearchSpace.chain(3, ("attention", "ffn")), seed=0)
        >>> hamming(sampler.next_architecture(), sampler.next_architecture())
        1
    """

    name = "gradual"

    def __init__(self, space: SearchSpace, *, seed: int, num_changes: int = 1) -> None:
        super().__init__(space, seed=seed)
        if type(num_changes) is not int or num_changes < 1:
            raise ValueError(f"num_changes is a positive integer, got {num_changes!r}")
        for number, stage in enumerate(space.stages):
            if len(stage.widths) > 1 and 1 not in stage.depths:
                raise ValueError(
                    f"gradual sampling would never change the width of stage {number}: its operators share one width, "
                    f"so a single change of block can change it only where all other blocks of the stage skip. Offer "
                    f"'skip' in every block but the first, or one width, or sample uniformly or fairly"
                )
        changeable = sum(min(stage.max_changes(depth) for depth in stage.depths) for stage in space.stages)
        if changeable < num_changes:
            raise ValueError(
                f"cannot change {num_changes} choice blocks per step: from some child of this space of "
                f"{space.num_choice_blocks} blocks only {changeable} can change"
            )
        self.num_changes = num_changes
        self._architecture: Architecture | None = None

    def options(self) -> dict[str, Any]:
        """How many blocks a step changes."""
        return {"num_changes": self.num_changes}

    def next_architecture(self) -> Architecture:
        """Take one step of the walk; the first call draws where it starts."""
        if self._architecture is None:
            self._architecture = self.space.sample(self._rng, "children")
        else:
            self._architecture = self.space.mutate(self._architecture, self._rng, self.num_changes)
        return self._architecture

    def state_dict(self) -> dict[str, Any]:
        """The generator and where the walk stands."""
        return super().state_dict() | {"architecture": None if self._architecture is None else str(self._architecture)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the walk that `state_dict` described."""
        self._check(state)
        text = state["architecture"]
        architecture = None if text is None else self.space.validate(Architecture.parse(text))
        super().load_state_dict(state)
        self._architecture = architecture


class UpdateCounter:
    """Counts how often every operator of every choice block was trained.

    The evidence for a sampler's fairness, and for a ranking: an operator that was seldom trained ranks its children
    too low. `skip` is counted, and left out of the statistics: it has nothing to train.

    Args:
        space: The space the architectures come from.

    Example:
        >>> space = SearchSpace.chain(2, ("attention", "ffn"))
        >>> counter = UpdateCounter(space)
        >>> counter.update([["attention", "ffn"], ["ffn", "ffn"]])
        >>> counter.counts[1], counter.never_trained()
        ({'attention': 0, 'ffn': 2}, [(1, 'attention')])
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.num_children = 0
        """How many children were counted, repetitions included."""
        self._counts = [dict.fromkeys(candidates, 0) for candidates in space.blocks]

    @property
    def counts(self) -> tuple[dict[str, int], ...]:
        """For every choice block, how often each candidate was trained."""
        return tuple(dict(counts) for counts in self._counts)

    def update(self, architectures: Iterable[Sequence[str]]) -> None:
        """Count the children of a step, once each.

        Raises:
            ValueError: If one is not of the space. None of them is counted then.
        """
        valid = [self.space.validate(architecture) for architecture in architectures]
        self.num_children += len(valid)
        for architecture in valid:
            for counts, name in zip(self._counts, architecture, strict=True):
                counts[name] += 1

    def never_trained(self) -> list[tuple[int, str]]:
        """The operators that were not trained yet, as (block, name)."""
        return [(block, name) for block, name, count in self._real() if count == 0]

    def statistics(self) -> dict[str, int | float]:
        """Coverage in a few numbers, for logs and records.

        `coverage` is the share of operators trained at least once. `balance` is the smallest ratio of least to most
        trained operator within one block: 1 is perfectly fair. Between blocks it makes no comparison, as the last
        blocks of a stage may skip. A block that was never trained counts as balanced.
        """
        real = [count for _, _, count in self._real()]
        by_block = [[count for name, count in counts.items() if name != SKIP] for counts in self._counts]
        return {
            "num_children": self.num_children,
            "min_updates": min(real),
            "max_updates": max(real),
            "coverage": sum(count > 0 for count in real) / len(real),
            "balance": min((min(counts) / max(counts) for counts in by_block if any(counts)), default=1.0),
        }

    def _real(self) -> list[tuple[int, str, int]]:
        return [
            (block, name, count)
            for block, counts in enumerate(self._counts)
            for name, count in counts.items()
            if name != SKIP
        ]

    def state_dict(self) -> dict[str, Any]:
        """The counts, in plain JSON types."""
        return {
            "space": self.space.to_dict(),
            "num_children": self.num_children,
            "counts": [list(counts.values()) for counts in self._counts],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the counts by saved ones.

        Raises:
            ValueError: If they are of another space, or damaged. The counter is then unchanged.
        """
        if not isinstance(state, Mapping) or set(state) != {"space", "num_children", "counts"}:
            raise ValueError("expected the state_dict of an UpdateCounter: space, num_children, counts")
        _check_space(state["space"], self.space, "the state of the update counter")
        num_children, counts = state["num_children"], state["counts"]
        whole = isinstance(counts, list) and all(
            isinstance(row, list) and all(type(count) is int and count >= 0 for count in row) for row in counts
        )
        shape = [len(row) for row in self._counts]
        # Every child uses one operator of every block.
        if not whole or [len(row) for row in counts] != shape or any(sum(row) != num_children for row in counts):
            raise ValueError(f"the update counts are damaged: they do not add up to {num_children} in every block")
        self.num_children = num_children
        self._counts = [
            dict(zip(candidates, row, strict=True)) for candidates, row in zip(self.space.blocks, counts, strict=True)
        ]
