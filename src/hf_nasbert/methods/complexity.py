"""Complexity-aware learning rate: how fast the rate falls follows from the size of the child that trains."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hf_nasbert.costs import cheapest
from hf_nasbert.methods.base import Paper
from hf_nasbert.methods.uniform import Uniform, UniformSettings
from hf_nasbert.settings import setting
from hf_nasbert.space import Architecture


@dataclass(kw_only=True)
class ComplexityRateSettings(UniformSettings):
    """How fast the learning rate of small and of large children falls; no number may be negative."""

    smallest_exponent: float = setting(
        4.0, "Power of the smallest child's decay; above 1, its rate falls fast at first.", at_least=0
    )
    largest_exponent: float = setting(
        0.25, "That of the largest; the larger of the two, and the sign is reversed.", at_least=0
    )


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

    def _prepare(self) -> None:
        cost, space = self.cost, self.space
        ends = cheapest(space, cost), cheapest(space, lambda child: -cost(child))
        self._smallest, self._largest = (math.log(cost(child)) for child in ends)
        if self._smallest == self._largest:
            raise ValueError(f"method={self.name} goes by size, and all children of this space have one: take uniform")

    def decay_exponent(self, children: Sequence[Architecture]) -> float:
        """Gamma of the step's child."""
        first, last = self.settings.smallest_exponent, self.settings.largest_exponent
        share = (math.log(self.cost(children[0])) - self._smallest) / (self._largest - self._smallest)
        return first + share * (last - first)
