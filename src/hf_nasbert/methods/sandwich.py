"""Sandwich rule with in-place distillation: the largest child learns from labels, the others from its predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hf_nasbert.costs import cheapest
from hf_nasbert.methods.base import ChildRun, Paper, RunKind, StepContext, Wants
from hf_nasbert.methods.uniform import Uniform, UniformSettings
from hf_nasbert.settings import setting
from hf_nasbert.space import Architecture

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class SandwichSettings(UniformSettings):
    """How many children a step trains, how the random ones are drawn, and by what they learn from the largest one."""

    num_random_children: int = setting(
        2, "Random children of a step, beside the largest and the smallest one.", at_least=1
    )
    distillation_divergence: Literal["kl", "alpha"] = setting(
        "kl",
        "How far predictions are from the largest child's: kl, Kullback-Leibler; alpha, for each one the larger of "
        "the alpha-divergences of -1 and 1 (AlphaNet).",
    )
    divergence_clip: float = setting(
        5.0, "The largest weight, a ratio of probabilities, in the alpha-divergence of -1.", at_least=1
    )


class Sandwich(Uniform):
    """The largest, the smallest and some random children on one batch (BigNAS: Yu et al., 2020, sections 3.1 and 3.2).

    The largest child learns from the labels. The others learn from its predictions of the same batch at the masked
    positions, which are constants to them, and from nothing else: by the Kullback-Leibler divergence, or by that of
    AlphaNet (Wang et al., 2021, https://arxiv.org/abs/2102.07954). Which child is the largest and which the smallest
    is given by their numbers of parameters. Dropout is on in all of them. BigNAS' floor under the learning rate is
    `min_lr_ratio` of any training, 0.05 there; its residual branches that begin at zero are left out.
    """

    name = "sandwich"
    summary = "largest, smallest and random children; the largest one teaches the others (BigNAS)"
    paper = Paper(
        "Yu et al. (2020), BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models, ECCV 2020",
        "https://arxiv.org/abs/2003.11142",
    )
    source = (
        "paper's abstract; its mechanism in the code of AttentiveNAS, and `--distillation_divergence alpha` in that "
        "of [AlphaNet](https://arxiv.org/abs/2102.07954) (both CC-BY-NC, nothing taken)"
    )
    unverified = "residual branches that begin at zero: left out"
    look = ("#56B4E9", "p")
    Settings = SandwichSettings
    settings: SandwichSettings
    terms = ("distillation",)

    def _prepare(self) -> None:
        self.smallest = cheapest(self.space, self.cost)
        self.largest = cheapest(self.space, lambda child: -self.cost(child))

    @property
    def passes_per_step(self) -> float:
        """Three for each child."""
        return 3.0 * (2 + self.settings.num_random_children)

    def children(self) -> tuple[Architecture, ...]:
        """The largest child, the smallest one, and the random ones."""
        number = self.settings.num_random_children
        drawn = tuple(self.space.validate(self.sampler.next_architecture()) for _ in range(number))
        return (self.largest, self.smallest, *drawn)

    def check_run(self, run: RunKind) -> None:
        """Where a teacher teaches, nothing is learned from the largest child's predictions."""
        super().check_run(run)
        if run.is_taught and self.settings.distillation_divergence != "kl":
            raise ValueError(
                f"method={self.name} with distillation_divergence={self.settings.distillation_divergence} learns from "
                "the largest child's predictions, and here a teacher teaches: give teacher=none, or leave it out"
            )

    def wants(self, step: int) -> Wants:
        """The largest child's logits, for the others."""
        return Wants(peers=True)

    def loss(
        self, run: ChildRun, peers: Sequence[ChildRun], context: StepContext
    ) -> "tuple[torch.Tensor, tuple[torch.Tensor, ...]]":
        """The largest child's masked-LM loss; the divergence of any other's predictions from the largest one's.

        Where a teacher teaches (`teacher` of the training), all learn from that one, and from nothing else.
        """
        from hf_nasbert.objectives import alpha_divergence_loss, distillation_loss

        if context.is_taught:
            return run.loss, (run.loss,)
        if not peers:
            return run.loss, (run.loss.new_zeros(()),)
        own, taught = (context.at_labels(logits) for logits in (run.logits, peers[0].logits))
        if self.settings.distillation_divergence == "alpha":
            divergence = alpha_divergence_loss(own, taught, clip=self.settings.divergence_clip)
        else:
            divergence = distillation_loss(own, taught)
        divergence = context.share(divergence, len(own))
        return divergence, (divergence,)
