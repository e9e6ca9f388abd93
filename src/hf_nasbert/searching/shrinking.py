"""Progressive shrinking: a pool of parts for every stage, whose worse half is dropped round after round."""

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hf_nasbert.searching.base import Search
from hf_nasbert.settings import setting
from hf_nasbert.space import SKIP, Architecture, Candidates, SearchSpace, operator_width

_MAX_JOINED = 5000  # children looked at when the best of what is left are joined
_NUM_DRAWS = 2000  # for one child

Part = tuple[str, ...]


@dataclass(eq=False, repr=False, kw_only=True)
class ProgressiveShrinking(Search):
    """Drop the worse half of each stage's parts within bins of similar size, then try the best joined ones.

    A part is what a child does in one stage. A round scores random children made of the parts that are left; then of
    the parts seen in it the worse half of each size bin is dropped, by the mean score of the children they were in.
    Bins keep small parts from losing to large ones. When no bin holds more than `num_kept`, children made of the rest
    are scored in the order of the sum of their parts' means.

    So far NAS-BERT (Xu et al., 2021, https://arxiv.org/abs/2105.14444), which shrinks while it trains, stage by stage
    against a teacher's. Ours is that it searches a trained super-net, judges a part by the children it is in (there is
    no loss of a stage alone), has rounds of tens where NAS-BERT's have thousands per bin, and cuts a space of one
    stage into runs of `run_length` choice blocks.

    Args:
        task: As every search. A part's size is the cost that is capped first, or the first there is; without costs
            it is the number of its operators.
    """

    name = "shrinking"

    round_size: int = setting(25, "Children scored between two drops.", at_least=1)
    pool_size: int = setting(
        32, "Parts of each stage to begin with; drawn, where there are more. A round should show most.", at_least=1
    )
    num_bins: int = setting(2, "Size bins of each stage.", at_least=1)
    num_kept: int = setting(2, "Parts of a bin that are never dropped.", at_least=1)
    run_length: int = setting(2, "Choice blocks of a part, where the space has a single stage.", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._where = _cut(self.space, self.run_length)
        self._pools = [self._bins_of(where) for where in self._where]
        self._means: list[dict[Part, float]] = [{} for _ in self._where]  # of the last round that each part was in
        self._num_judged = 0  # children told before the present round

    @property
    def num_parts(self) -> list[int]:
        """How many parts are left of each stage."""
        return [sum(map(len, bins)) for bins in self._pools]

    def _next_batch(self) -> None:
        if len(self._scores) - self._num_judged >= self.round_size:
            self._shrink()
        super()._next_batch()

    def _propose(self) -> Iterator[Architecture]:
        if any(len(parts) > self.num_kept for bins in self._pools for parts in bins):
            while (child := self._random_new()) is not None:
                yield child
        else:
            yield from self._joined()

    def _random_new(self) -> Architecture | None:
        for _ in range(_NUM_DRAWS):
            child = self._join([self._rng.choice(self._rng.choice(bins)) for bins in self._pools])
            if child is not None and self._is_new(child):
                return child
        return None

    def _shrink(self) -> None:
        """Drop the worse half of what the round has shown, bin by bin."""
        told = [scored for scored in self.history[self._num_judged :] if scored.score < math.inf]
        self._num_judged = len(self._scores)
        for where, bins, means in zip(self._where, self._pools, self._means, strict=True):
            scores: dict[Part, list[float]] = {}
            for scored in told:
                scores.setdefault(tuple(scored.architecture[where]), []).append(scored.score)
            means |= {part: statistics.fmean(values) for part, values in scores.items()}
            for parts in bins:
                seen = sorted((part for part in parts if part in scores), key=means.__getitem__)
                num_dropped = min(len(seen) // 2, len(parts) - self.num_kept)
                for part in seen[len(seen) - max(0, num_dropped) :]:
                    parts.remove(part)

    def _joined(self) -> Iterator[Architecture]:
        """Children made of the parts that are left, those of the best parts first."""
        pools = [[part for parts in bins for part in parts] for bins in self._pools]
        if math.prod(map(len, pools)) <= _MAX_JOINED:
            choices = list(itertools.product(*pools))
        else:
            choices = [tuple(self._rng.choice(parts) for parts in pools) for _ in range(_MAX_JOINED)]
        # A part that no child has had is as good as the worst.
        worst = [max(means.values(), default=0.0) for means in self._means]

        def mean_of(choice: tuple[Part, ...]) -> float:
            return sum(means.get(part, bad) for part, means, bad in zip(choice, self._means, worst, strict=True))

        for choice in sorted(choices, key=mean_of):
            child = self._join(choice)
            if child is not None and self._is_new(child):
                yield child

    def _join(self, parts: Sequence[Part]) -> Architecture | None:
        child = Architecture(itertools.chain.from_iterable(parts))
        return child if self.space.why_not(child) is None else None

    def _bins_of(self, where: slice) -> list[list[Part]]:
        """The parts of a stage, or of a run of its blocks, in bins of equal span of size; no bin is empty."""
        sizes = {part: size for part in self._parts_of(where) if (size := self._size(where, part)) is not None}
        least, most = min(sizes.values()), max(sizes.values())
        bins: list[list[Part]] = [[] for _ in range(self.num_bins)]
        for part, size in sizes.items():
            share = (size - least) / (most - least) if most > least else 0.0
            bins[min(int(share * self.num_bins), self.num_bins - 1)].append(part)
        return [parts for parts in bins if parts]

    def _parts_of(self, where: slice) -> list[Part]:
        if not isinstance(self.space, SearchSpace):
            return list(dict.fromkeys(child[where] for child in self.space.enumerate()))
        number = self.space.stage_of(where.start)
        stage, whole = self.space.stages[number], self.space.stage_slices[number]
        blocks = stage.blocks[where.start - whole.start : where.stop - whole.start]
        run = type(stage)(blocks, stage.widths)
        if run.num_children <= self.pool_size:
            parts = list(run.children())
        else:
            drawn = self._rng.sample(range(run.num_children), self.pool_size)
            parts = [tuple(run.child_at(index)) for index in sorted(drawn)]
        skipped = (SKIP,) * len(blocks)
        if where.start > whole.start and all(SKIP in names for names in blocks) and skipped not in parts:
            parts.append(skipped)
        return parts

    def _size(self, where: slice, part: Part) -> float | None:
        """The cost of a child with that part (`_bearer`); None if no child has it."""
        child = self._bearer(where, part)
        if child is None:
            return None
        if self.task.cost is None:
            return sum(name != SKIP for name in part)
        costs = self.task.cost(child)
        return costs[next(iter([*self.task.budget.caps, *costs]))]

    def _bearer(self, where: slice, part: Part) -> Architecture | None:
        """A child that differs from those of other parts in this one only, as far as the space has such."""
        if not isinstance(self.space, SearchSpace):
            return next(child for child in self.space.enumerate() if child[where] == part)
        number = self.space.stage_of(where.start)
        stage, whole = self.space.stages[number], self.space.stage_slices[number]
        width = operator_width(part[0]) if part[0] != SKIP else None
        real = [names[0] for names in stage.operators[0 if width is None else stage.widths.index(width)]]
        names = list(self.space.child_at(0))
        names[whole] = real
        if all(SKIP in candidates for candidates in stage.blocks[where.stop - whole.start :]):
            names[where.stop : whole.stop] = [SKIP] * (whole.stop - where.stop)
        names[where] = part
        return Architecture(names) if self.space.why_not(names) is None else None


def _cut(space: Candidates, run_length: int) -> list[slice]:
    """Where the parts of a child stand: its stages, or, if it has one only, runs of choice blocks."""
    if len(space.stage_slices) > 1:
        return list(space.stage_slices)
    length = len(space.blocks)
    return [slice(start, min(start + run_length, length)) for start in range(0, length, run_length)]
