"""Attentive sampling: of a few children of one size, the best or the worst one on the step's batch is trained."""

import functools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from hf_nasbert.methods.base import BatchLosses, Cost, Paper
from hf_nasbert.methods.sandwich import Sandwich, SandwichSettings
from hf_nasbert.samplers import UniformSampler
from hf_nasbert.settings import setting
from hf_nasbert.space import Architecture, SearchSpace

_NUM_PRESAMPLED = 1000  # children, from which is learned how often each size comes, and of what
_MOST_TRIES = 100  # draws for one child of a size, of which the last one is taken whatever its size


class _Size(NamedTuple):
    """What was counted in the children of one size drawn beforehand."""

    num_children: int
    chains: list[Counter[int]]  # of every stage: widths and depths, by their numbers in `Stage.chains`
    operators: list[Counter[str]]  # of every choice block


class SizedSampler(UniformSampler):
    """Draw children in groups of one size, as often as that size comes in uniform draws.

    Children drawn uniformly beforehand, the same ones for every seed, fill a histogram of sizes. A group's size is
    drawn from it. Then each of its children has, for every stage, its width and depth, and for every block its
    operator by their shares in the histogram's children of that size, and is drawn anew until it has that size
    itself, at most 100 times (AttentiveNAS: Wang et al., 2021, https://arxiv.org/abs/2011.09011).

    Args:
        space: The space to draw from.
        seed: Seed of this sampler's own generator.
        cost: The size of a child.
        num_bins: Sizes that are told apart, equally spaced between the smallest and the largest child drawn.
        uniform_over: Over what the children drawn beforehand are uniform, as in `UniformSampler`.
    """

    name = "sized"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        cost: Cost,
        num_bins: int = 20,
        uniform_over: Literal["operators", "children"] = "operators",
    ) -> None:
        super().__init__(space, seed=seed, uniform_over=uniform_over)
        self.num_bins = num_bins
        self._cost = functools.lru_cache(10_000)(cost)
        self._chains = [list(stage.chains()) for stage in space.stages]

    def options(self) -> dict[str, Any]:
        """What was drawn beforehand, and how sizes are told apart."""
        return super().options() | {"num_bins": self.num_bins}

    def next_architecture(self) -> Architecture:
        """A child of a size of its own."""
        return self.next_group(1)[0]

    def next_group(self, number: int) -> tuple[Architecture, ...]:
        """So many children of one size, of which some may be the same."""
        sizes = list(self._sizes)
        (size,) = self._rng.choices(sizes, [self._sizes[one].num_children for one in sizes])
        return tuple(self._of_size(size) for _ in range(number))

    def size_of(self, child: Architecture) -> int:
        """The number of a child's size, from 0; a child beyond all that were drawn has the nearest one."""
        low, high = self._range
        place = (self._cost(child) - low) / (high - low) if high > low else 0.0
        return max(0, min(int(place * self.num_bins), self.num_bins - 1))

    def _of_size(self, size: int) -> Architecture:
        for _ in range(_MOST_TRIES):
            child = self._draw(self._sizes[size])
            if self.size_of(child) == size:
                break
        return child

    def _draw(self, size: _Size) -> Architecture:
        names: list[str] = []
        for chains, counts in zip(self._chains, size.chains, strict=True):
            (number,) = self._rng.choices(list(counts), list(counts.values()))
            for candidates in chains[number]:
                shares = size.operators[len(names)]
                names += self._rng.choices(candidates, [shares[name] for name in candidates])
        return Architecture(names)

    @functools.cached_property
    def _presampled(self) -> list[Architecture]:
        rng = random.Random("children drawn beforehand")
        return [self.space.sample(rng, self.uniform_over) for _ in range(_NUM_PRESAMPLED)]

    @functools.cached_property
    def _range(self) -> tuple[float, float]:
        costs = list(map(self._cost, self._presampled))
        return min(costs), max(costs)

    @functools.cached_property
    def _sizes(self) -> dict[int, _Size]:
        found: dict[int, _Size] = {}
        for child, number in Counter(self._presampled).items():
            size, parts = self.size_of(child), [child[where] for where in self.space.stage_slices]
            before = found.get(size) or _Size(0, [Counter() for _ in parts], [Counter() for _ in child])
            for part, chains, counts in zip(parts, self._chains, before.chains, strict=True):
                fitting = (i for i, chain in enumerate(chains) if all(map(list.__contains__, chain, part)))
                counts[next(fitting)] += number
            for name, shares in zip(child, before.operators, strict=True):
                shares[name] += number
            found[size] = before._replace(num_children=before.num_children + number)
        return found


@dataclass(kw_only=True)
class AttentiveSettings(SandwichSettings):
    """Which of how many candidates is trained, and how sizes are told apart."""

    attentive_to: Literal["best", "worst"] = setting(
        "best",
        "Which candidate is trained: best (BestUp) serves the children that will be taken, worst (WorstUp) those "
        "that lag behind.",
    )
    num_candidates: int = setting(3, "Candidates for each random child, each a forward pass more.", at_least=2)
    num_size_bins: int = setting(20, "Sizes of children that are told apart.", at_least=1)


class Attentive(Sandwich):
    """A sandwich whose random children are each the best or the worst of some of one size (AttentiveNAS).

    The candidates are run on the batch of the step, without gradient and without dropout; what is compared is their
    masked-LM loss, or where a teacher teaches, their loss by that teacher. All processes add up these losses, and so
    choose the same ones. Sizes are numbers of parameters, for FLOPs.
    """

    name = "attentive"
    summary = "a sandwich; each random child is the best (worst) of three of one size on this batch (AttentiveNAS)"
    paper = Paper(
        "Wang et al. (2021), AttentiveNAS: Improving Neural Architecture Search via Attentive Sampling, CVPR 2021",
        "https://arxiv.org/abs/2011.09011",
    )
    source = "the authors' code (CC-BY-NC, nothing taken)"
    unverified = (
        "candidates compared by masked-LM loss, without dropout; sizes in parameters; how many are told apart, and "
        "learned of how many children"
    )
    look = ("#56B4E9", "^")
    sampler: SizedSampler
    Settings = AttentiveSettings
    settings: AttentiveSettings

    def _prepare(self) -> None:
        super()._prepare()
        self._groups: Sequence[tuple[Architecture, ...]] = ()

    def make_sampler(self, seed: int) -> SizedSampler:
        """Groups of one size."""
        if not callable(self.cost):
            raise ValueError(f"method={self.name} draws children by their size: it needs a cost, a child's parameters")
        return SizedSampler(
            self.space,
            seed=seed,
            cost=self.cost,
            num_bins=self.settings.num_size_bins,
            uniform_over=self.settings.uniform_over,
        )

    @property
    def passes_per_step(self) -> float:
        """Three for each child, and one for each candidate."""
        return super().passes_per_step + self.settings.num_random_children * self.settings.num_candidates

    def children(self) -> tuple[Architecture, ...]:
        """The largest child, the smallest one, and the first candidate for each random one."""
        number = self.settings.num_random_children
        self._groups = [self.sampler.next_group(self.settings.num_candidates) for _ in range(number)]
        return (self.largest, self.smallest, *(group[0] for group in self._groups))

    def chosen_on(self, children: tuple[Architecture, ...], losses_of: BatchLosses) -> tuple[Architecture, ...]:
        """The best candidate of each group, or the worst; of equals the first one drawn."""
        losses = iter(losses_of([child for group in self._groups for child in group]))
        chosen = min if self.settings.attentive_to == "best" else max
        best = [chosen(((next(losses), child) for child in group), key=lambda pair: pair[0]) for group in self._groups]
        return (self.largest, self.smallest, *(child for _, child in best))
