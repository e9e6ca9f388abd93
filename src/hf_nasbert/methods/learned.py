"""A learned distribution of operators, by which children are drawn and which moves towards the better of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_nasbert.methods.base import Paper, Score, Whole
from hf_nasbert.methods.uniform import Remembering, UniformSettings
from hf_nasbert.settings import setting
from hf_nasbert.space import Architecture, Distribution

_NUM_DEV_BATCHES = 2


@dataclass(kw_only=True)
class LearnedDistributionSettings(UniformSettings):
    """When the distribution learns, from how many children, and what a child should cost, within ranges."""

    distribution_interval: int = setting(25, "Steps between two steps of the distribution.", at_least=1)
    distribution_draws: int = setting(
        8, "Children scored for its first step; the fewer, the less entropy it has.", at_least=2
    )
    distribution_rate: float = setting(1.0, "How far the distribution moves in a step.", at_least=0)
    distribution_temperature: float = setting(
        0.1, "In the loss's unit: lower, and the best child of a step takes all.", at_least=1e-6
    )
    distribution_floor: float = setting(0.3, "Share of training draws that stay uniform.", at_least=0, at_most=1)
    target_parameters: int = setting(
        0, "Parameters above which a child pays, a nat for as many again; 0: it does not.", at_least=0
    )


class LearnedDistribution(Remembering):
    """One child a step, of a categorical per block that moves towards the better children (PARSEC, FP-NAS).

    Every `distribution_interval` steps K children are drawn from it and scored on the same dev batches with the
    weights of that moment; K falls with its entropy, as in FP-NAS. Its logits climb by the children's weights omega =
    softmax(-loss / temperature) (`space.Distribution.learn`). A child above `target_parameters` pays in proportion.
    Kin: FBNet learns such probabilities by a Gumbel softmax and ProxylessNAS by binarised gates, both through
    gradients of paths that run side by side; here one child runs at a time, and only losses are needed.

    What is drawn less is trained less, and does worse for it. So this finds one child, and is no fair ranking of all;
    `--search learned` does the same on weights that stay as they are.
    """

    name = "learned_distribution"
    summary = "one child a step, of probabilities that move to operators whose children do better (PARSEC, FP-NAS)"
    paper = Paper("Casale et al. (2019), Probabilistic Neural Architecture Search", "https://arxiv.org/abs/1902.05116")
    source = "abstracts of PARSEC and FP-NAS, secondary sources; no official code is known"
    unverified = "the temperature, the mean weight taken off, the uniform floor: ours; children train unweighed"
    look = ("#D55E00", "*")
    Settings = LearnedDistributionSettings

    def _prepare(self) -> None:
        self.memory = {"logits": Distribution(self.space).logits}

    @property
    def distribution(self) -> Distribution:
        """As it stands."""
        return Distribution(self.space, self.memory["logits"])

    @property
    def passes_per_step(self) -> float:
        """Three, and the children scored on dev batches: as many as at the beginning."""
        draws, interval = self.settings.distribution_draws, self.settings.distribution_interval
        return float(3 + draws * self.num_dev_batches / interval)

    @property
    def num_dev_batches(self) -> int:
        """Dev batches that the drawn children are scored on."""
        return _NUM_DEV_BATCHES

    def children(self) -> tuple[Architecture, ...]:
        """A child of the distribution, or a uniform one."""
        uniform, rng = super().children(), self.next_rng()
        return uniform if rng.random() < self.settings.distribution_floor else (self.distribution.draw(rng),)

    def after_step(
        self, step: int, children: Sequence[Architecture], losses: Sequence[float], score: Score, supernet: Whole
    ) -> dict[str, Any] | None:
        """Let the distribution make a step when one is due."""
        super().after_step(step, children, losses, score, supernet)
        own, distribution = self.settings, self.distribution
        if step % own.distribution_interval:
            return None
        rng, number = self.next_rng(), max(2, round(own.distribution_draws * distribution.entropy_share()))
        drawn = [distribution.draw(rng) for _ in range(number)]
        unlike = list(dict.fromkeys(drawn))
        worth = dict(zip(unlike, score(unlike, self.num_dev_batches), strict=True))
        if own.target_parameters:
            worth = {
                child: loss + max(0.0, self.cost(child) / own.target_parameters - 1) for child, loss in worth.items()
            }
        distribution.learn(
            drawn, [worth[child] for child in drawn], own.distribution_temperature, own.distribution_rate
        )
        told = {"num_drawn": number, "loss": sum(worth.values()) / len(worth), "entropy": distribution.entropy_share()}
        return {"event": "distribution", **told, "likeliest": str(distribution.draw())}

    def shown(self) -> dict[str, str]:
        """The likeliest child."""
        return {"likeliest": str(self.distribution.draw())}
