"""Cross-path consistency: two children without a common operator, each learns from the other one's averaged twin."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_nasbert.methods.averaged import Averaged, AveragedSettings
from hf_nasbert.methods.base import ChildRun, Paper, StepContext, Wants
from hf_nasbert.samplers import FairSampler
from hf_nasbert.settings import setting
from hf_nasbert.space import Architecture

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class CrossPathSettings(AveragedSettings):
    """How much the children learn from each other."""

    consistency_weight: float = setting(
        1.0, "Weight of the divergence from the other child's twin. 1 is ours.", at_least=0
    )


class CrossPath(Averaged):
    """Two children that differ in every block learn from labels and from each other's mean teachers (Pi-NAS).

    Pi-NAS compares vectors of images with a queue of others, which keeps the network from giving all the same one.
    Here, as its masked-LM form, the labels do that: masked-LM losses of both children, and at the masked positions the
    divergence of each one's predictions from those of the other one's twin. A twin is the same child with moving
    averages of the weights, of which a step moves only what it trained. The log has the variance of the children's
    last states over a sequence's tokens: where that falls towards 0 they collapse.

    The pair are the first two children of a step of fair sampling: they share an operator only where a block has a
    single one. Where another teacher teaches (`teacher` of the training) it is refused.
    """

    name = "cross_path"
    summary = "two children without a common operator, each taught by the other's averaged twin (Pi-NAS)"
    paper = Paper(
        "Peng et al. (2021), Pi-NAS: Improving Neural Architecture Search by Reducing Supernet Training Consistency "
        "Shift, ICCV 2021",
        "https://arxiv.org/abs/2108.09671",
    )
    source = "the authors' code (no licence, nothing taken), its README"
    unverified = "the masked-LM form, its weight, and that early averages follow faster: ours"
    look = ("#0072B2", "X")
    can_be_taught = False
    sampler_class = FairSampler
    sampler: FairSampler
    Settings = CrossPathSettings
    settings: CrossPathSettings
    terms = ("consistency", "token_variance")

    def _prepare(self) -> None:
        if self.sampler.children_per_step < 2:
            raise ValueError(
                "method=cross_path trains pairs that differ, and no block of this space has two operators"
            )
        self._pair: tuple[Architecture, ...] = ()

    @property
    def passes_per_step(self) -> float:
        """Three for each child, one for each twin."""
        return 2 * (3.0 + 1.0)

    def children(self) -> tuple[Architecture, ...]:
        """A pair."""
        self._pair = super().children()[:2]
        return self._pair

    def wants(self, step: int) -> Wants:
        """The states, for their variance."""
        return Wants(hidden_states=True)

    def loss(
        self, run: ChildRun, peers: Sequence[ChildRun], context: StepContext
    ) -> "tuple[torch.Tensor, tuple[torch.Tensor, ...]]":
        """The child's own loss, and the divergence of its predictions from those of the other child's twin."""
        import torch

        from hf_nasbert.objectives import at_all_tokens, distillation_loss, token_variances

        assert run.hidden_states is not None
        labelled, last = context.labels != -100, run.hidden_states[-1].detach()
        variances = token_variances(last if last.dim() == 3 else at_all_tokens(last, labelled), labelled).mean(-1)
        counts = torch.where(labelled.sum(1) > 1, labelled.sum(1), 0)
        variance = (variances * counts).sum() / max(context.counts.labelled, 1)
        first, second = self._pair
        taught = self.teacher.child(second if run.architecture == first else first).teach(context.batch).logits
        divergence = context.share(distillation_loss(context.at_labels(run.logits), taught), len(taught))
        return run.loss + self.settings.consistency_weight * divergence, (divergence, variance)
