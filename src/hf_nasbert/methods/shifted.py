"""Size-shifted sampling: size groups whose children improve more are drawn more often."""

import bisect
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_nasbert.methods.base import Paper, Score, Whole
from hf_nasbert.methods.rows import size_bounds
from hf_nasbert.methods.uniform import Remembering, UniformSettings
from hf_nasbert.settings import setting
from hf_nasbert.space import Architecture

_NUM_SIZED = 256  # children drawn to find the groups' bounds
_NUM_DRAWS = 100  # for one child of a group, for every group


@dataclass(kw_only=True)
class SizeShiftedSettings(UniformSettings):
    """How many groups there are, and how their probabilities follow from their losses, within ranges."""

    num_size_groups: int = setting(4, "Groups by parameters, of equally many uniform draws.", at_least=2)
    shift_interval: int = setting(100, "Steps between two changes of their probabilities.", at_least=1)
    shift_temperature: float = setting(
        1.0, "Divides the standardised loss drops: high, and all groups stay alike.", at_least=1e-3
    )
    group_floor: float = setting(0.3, "Share of steps of a uniform group, 0.3 at least.", at_least=0.3, at_most=1)


class SizeShifted(Remembering):
    """One child a step, its size group drawn by how much that group improves (after ShiftNAS).

    Every `shift_interval` steps P_k is made anew: proportional to exp(z(loss drop of k over the last window) /
    temperature), mixed with a uniform floor. Before two windows are complete it is uniform. The log has an event with
    each group's exact count of trained children, its mean loss and its new probability.
    """

    name = "size_shifted"
    summary = "one child a step, size groups that improve more drawn more (after ShiftNAS)"
    paper = Paper(
        "Zhang et al. (2023), ShiftNAS: Improving One-shot NAS via Probability Shift, ICCV 2023",
        "https://arxiv.org/abs/2307.08300",
    )
    source = "paper's abstract, secondary sources; the public repository is a stub"
    unverified = "the update rule: ours; a child of a group by rejection instead of the paper's generator"
    look = ("#56B4E9", "H")
    Settings = SizeShiftedSettings

    def _prepare(self) -> None:
        rng, settings = random.Random(f"size groups, seed {self.sampler.seed}"), self.settings
        drawn = (self.space.sample(rng, settings.uniform_over) for _ in range(_NUM_SIZED))
        self.bounds = size_bounds([*map(self.cost, drawn)], settings.num_size_groups)
        """The smallest size of every group but the first; fewer where many children are of one size."""
        if not self.bounds:
            raise ValueError(f"method={self.name} goes by size, and the children of this space have one: take uniform")
        number = len(self.bounds) + 1
        self.memory = {"probabilities": [1 / number] * number, "means": [None] * number}
        self.memory |= {"sums": [0.0] * number, "counts": [0] * number}

    def group_of(self, child: Architecture) -> int:
        """The number of a child's group, from the smallest."""
        return bisect.bisect_right(self.bounds, self.cost(child))

    def children(self) -> tuple[Architecture, ...]:
        """A uniform child of a group drawn by its probability; of a group that hardly exists, any."""
        probabilities = self.memory["probabilities"]
        (group,) = self.next_rng().choices(range(len(probabilities)), probabilities)
        children = super().children()
        for _ in range(_NUM_DRAWS * len(probabilities)):
            if self.group_of(children[0]) == group:
                break
            children = super().children()
        return children

    def after_step(
        self, step: int, children: Sequence[Architecture], losses: Sequence[float], score: Score, supernet: Whole
    ) -> dict[str, Any] | None:
        """Count the child and its loss, by group, and make the probabilities anew when that is due."""
        super().after_step(step, children, losses, score, supernet)
        memory, group = self.memory, self.group_of(children[0])
        memory["counts"][group] += 1
        memory["sums"][group] += losses[0]
        if step % self.settings.shift_interval:
            return None
        seen = list(zip(memory["sums"], memory["counts"], memory["means"], strict=True))
        means = [total / count if count else before for total, count, before in seen]
        drops = [before - total / count if count and before is not None else None for total, count, before in seen]
        probabilities = shifted(drops, self.settings.shift_temperature, self.settings.group_floor)
        event = {"event": "shift", "bounds": self.bounds, "counts": memory["counts"], "losses": means}
        memory |= {"probabilities": probabilities, "means": means}
        memory |= {"sums": [0.0] * len(means), "counts": [0] * len(means)}
        return {**event, "probabilities": probabilities}


def shifted(drops: Sequence[float | None], temperature: float, floor: float) -> list[float]:
    """Probabilities of groups: softmax(z(drop) / temperature), mixed with a share `floor` of uniform ones.

    A group whose drop is not known, for it was not seen in this window or in none before, is taken for one like the
    mean.
    """
    known = [drop for drop in drops if drop is not None] or [0.0]
    mean, deviation = statistics.fmean(known), statistics.pstdev(known) or 1.0
    powers = [math.exp(((mean if drop is None else drop) - mean) / deviation / temperature) for drop in drops]
    return [floor / len(drops) + (1 - floor) * power / sum(powers) for power in powers]
