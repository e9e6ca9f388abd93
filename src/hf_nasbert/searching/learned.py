"""Search by a learned distribution: a categorical per block that moves towards the better children."""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from hf_nasbert.searching.base import Search
from hf_nasbert.settings import setting
from hf_nasbert.space import Architecture, Distribution

_UNIFORM = 0.1  # of all draws


@dataclass(eq=False, repr=False, kw_only=True)
class LearnedDistributionSearch(Search):
    """Draw children of a distribution, score them, and let it move towards the better ones; and again.

    PARSEC (Casale et al., 2019, https://arxiv.org/abs/1902.05116) on weights that stay as they are, in batches that
    shrink with the distribution's entropy, as in FP-NAS (Yan et al., 2021, https://arxiv.org/abs/2011.10949). Ours is
    that losses are compared in standard deviations of their batch, for no temperature fits all units; that a tenth of
    the draws is uniform; and that what is seen, or over the budget, is drawn again: each batch is of new children.

    Args:
        task: As every search. Its `batch_size` is the most children scored between two steps of the distribution.
    """

    name = "learned"

    num_drawn: int = setting(
        16, "Children scored for the distribution's first step; fewer as its entropy falls.", at_least=4
    )
    softness: float = setting(0.5, "Divides standardised losses: lower, and the best takes all.", at_least=0.01)
    step_size: float = setting(2.0, "How far the distribution moves in a step.", at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.distribution = Distribution(self.space)
        self._num_learned = 0  # of the children told

    def _next_batch(self) -> None:
        """Learn from all that was told since the last batch, however it was parted, and draw."""
        told = list(self._scores.items())[self._num_learned :]
        self._num_learned += len(told)
        finite = {child: loss for child, loss in told if loss < math.inf}
        spread = statistics.pstdev(finite.values()) if finite else 0.0
        if spread:
            losses = [loss / spread for loss in finite.values()]
            self.distribution.learn(list(finite), losses, self.softness, self.step_size)
        number = max(4, round(self.num_drawn * self.distribution.entropy_share()))
        self._draw(min(number, self.task.batch_size))

    def _propose(self) -> Iterator[Architecture]:
        while True:
            yield self._sample() if self._rng.random() < _UNIFORM else self.distribution.draw(self._rng)
