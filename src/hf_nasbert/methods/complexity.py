"""Complexity-aware learning rate: how fast the rate falls follows from the size of the child that trains."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_nasbert.costs import cheapest
from hf_nasbert.methods.base import Cost, Paper
from hf_nasbert.methods.uniform import Uniform, UniformSettings
from hf_nasbert.space import Architecture, SearchSpace


@dataclass(kw_only=True)
class ComplexityRateSettings(UniformSettings):
    """How fast the learning rate of small and of large children falls; no number may be negative."""

    smallest_exponent: float = field(
        default=4.0, metadata={"help": "Power of the smallest child's decay; above 1, its rate falls fast at first."}
    )
    largest_exponent: float = field(
        default=0.25, metadata={"help": "That of the largest; the larger of the two, and the sign is reversed."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("smallest_exponent", "largest_exponent", at_least=0)


class ComplexityRate(Uniform):
    """One uniform child a step, at the rate lr0 ((T - t) / T)^gamma, gamma by its size (DYNAS: CaLR).

    Gamma is linear in the logarithm of the child's parameters, from `smallest_exponent` to `largest_exponent`; t
    counts from the end of the warm-up. Only what the child uses is moved by the rate: the optimizer passes over all
    else. The paper's second part, a momentum for each group of children, is left out.
    """

    name = "complexity_rate"
    summary = "one child a step, whose learning rate falls by the child's size (DYNAS)"
    paper = Paper(
        "Jeon et al. (2025), Subnet-Aware Dynamic Supernet Training for Neural Architecture Search, CVPR 2025",
        "https://arxiv.org/abs/2503.10740",
    )
    source = "paper's abstract, a description of the authors' code (GPL-3, nothing taken)"
    unverified = "momentum separation is left out; a warm-up before the decay"
    look = ("#E69F00", "X")
    Settings = ComplexityRateSettings
    settings: ComplexityRateSettings

    def __init__(self, space: SearchSpace, settings: Any, *, cost: Cost, seed: int, max_steps: int) -> None:
        super().__init__(space, settings, cost=cost, seed=seed, max_steps=max_steps)
        self._cost, ends = cost, (cheapest(space, cost), cheapest(space, lambda child: -cost(child)))
        self._smallest, self._largest = (math.log(cost(child)) for child in ends)
        if self._smallest == self._largest:
            raise ValueError(f"method={self.name} goes by size, and all children of this space have one: take uniform")

    def decay_exponent(self, children: Sequence[Architecture]) -> float:
        """Gamma of the step's child."""
        first, last = self.settings.smallest_exponent, self.settings.largest_exponent
        share = (math.log(self._cost(children[0])) - self._smallest) / (self._largest - self._smallest)
        return first + share * (last - first)
