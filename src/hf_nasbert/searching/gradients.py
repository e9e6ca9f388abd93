"""Search by gradients: architecture parameters, learned in a mixture of all operators, and read off best first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_nasbert.searching.base import Search
from hf_nasbert.settings import setting
from hf_nasbert.space import Architecture, Distribution

_UNIFORM = 0.1  # of all draws


@dataclass(eq=False, repr=False, kw_only=True)
class GradientMixtureSearch(Search):
    """Weigh all operators of every block, learn the weights by gradient, score the children likeliest by them.

    DARTS (Liu et al., 2019, https://arxiv.org/abs/1806.09055), and TangleNAS's form of it for operators that share
    weights (Sukthanker et al., https://arxiv.org/abs/2312.10440): `pipeline.mixture` says what is mixed. Weights stay
    as they are, where both papers train them in turns with the architecture's [ours]. The child of the largest weights
    comes first, as the papers discretise; after it children are drawn by the weights, a tenth of them uniformly
    [ours].

    Args:
        task: As every search.
        logits: What they have become, by block and operator; by default all are equal, and this is random search.

    Raises:
        ValueError: If the logits are not those of the space.
    """

    name = "gradient_mixture"

    mixture_steps: int = setting(50, "Steps of the architecture parameters, each on one dev batch.", at_least=0)
    mixture_rate: float = setting(0.1, "Learning rate of the architecture parameters.", at_least=0)
    logits: Sequence[Mapping[str, float]] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.logits = self.logits or [dict.fromkeys(names, 0.0) for names in self.space.blocks]
        if [set(of) for of in self.logits] != [set(names) for names in self.space.blocks]:
            raise ValueError("the architecture parameters are not those of the operators of this space")
        self.distribution = Distribution(self.space, [dict(of) for of in self.logits])

    @property
    def settings(self) -> dict[str, Any]:
        """What this search is, as plain JSON: the learned weights are part of it."""
        return super().settings | {"logits": [dict(of) for of in self.logits or ()]}

    def _propose(self) -> Iterator[Architecture]:
        yield self.distribution.draw()
        while True:
            yield self._sample() if self._rng.random() < _UNIFORM else self.distribution.draw(self._rng)
