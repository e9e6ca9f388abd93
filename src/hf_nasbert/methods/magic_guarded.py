"""MAGIC-AT that cannot win by making all tokens equal: relative errors, an averaged anchor, a floor under variance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_nasbert.methods.averaged import Averaged, AveragedSettings
from hf_nasbert.methods.base import ChildRun, StepContext
from hf_nasbert.methods.magic import MagicAT, MagicATSettings
from hf_nasbert.settings import setting

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class MagicATGuardedSettings(AveragedSettings, MagicATSettings):
    """MAGIC-AT's settings, and the guards; each can be taken out, the averaged anchor by `average_decay` 0."""

    relative_alignment: bool = setting(
        True, "Divide the distance from the anchor by the variance of the anchor's states over tokens."
    )
    variance_weight: float = setting(
        1.0, "Weight of the hinge on the spread of every block's states over tokens.", at_least=0
    )
    variance_floor: float = setting(
        0.5, "Standard deviation of a state's numbers over tokens that the hinge asks for.", at_least=0
    )


class MagicATGuarded(Averaged, MagicAT):
    """MAGIC-AT with guards against the collapse that alignment to a network in training allows.

    A squared distance from an anchor that is trained itself falls when the states of all tokens become equal, in child
    and anchor alike. Three guards make that cost: the distance is relative to the variance of the anchor's states over
    a sequence's tokens; the anchor runs with moving averages of the weights, which a step cannot drag along; a hinge
    asks every block's states for a spread over tokens (VICReg's). Which child is the anchor is decided as in MAGIC-A,
    by the weights of the moment. The base model as the anchor is a constant already.
    """

    name = "magic_at_guarded"
    summary = "magic_at where equal states of all tokens cost: relative error, averaged anchor, variance hinge"
    source = "as magic_at; VICReg's variance term from descriptions"
    unverified = "the guards and their weights are ours"
    look = ("#D55E00", "X")
    Settings = MagicATGuardedSettings
    settings: MagicATGuardedSettings
    terms = ("alignment", "hinge")

    @property
    def is_averaging(self) -> bool:
        """Not of a constant anchor."""
        return not self.needs_base_model

    def loss(
        self, run: ChildRun, peers: Sequence[ChildRun], context: StepContext
    ) -> "tuple[torch.Tensor, tuple[torch.Tensor, ...]]":
        """The masked-LM loss, the distance from the anchor and the hinge: both means over blocks, weighted."""
        from hf_nasbert.objectives import alignment_loss, at_all_tokens, relative_error, variance_hinge

        alignment = hinge = run.loss.new_zeros(())
        if run.hidden_states is None or context.num_chosen == 0:
            return run.loss, (alignment, hinge)
        settings, counts, rows = self.settings, context.counts, slice(context.num_chosen)
        taught, labelled = self._taught(context), context.labels[rows] != -100
        real = taught[0].new_ones(labelled.shape).bool()
        if context.attention_mask is not None:
            real = context.attention_mask[rows].bool()
        num_compared = 0
        for states, target in zip(run.hidden_states[1:], taught, strict=True):
            if states.dim() == 2:  # of the last blocks, at the tokens to predict
                own, mask, number = at_all_tokens(states, labelled), labelled, counts.chosen_labelled
            else:
                own, mask, number = states[rows], real, counts.chosen_tokens
            hinge = hinge + variance_hinge(own, mask, floor=settings.variance_floor, num_tokens=number)
            if own.shape != target.shape:  # two widths of one stage
                continue
            num_compared += 1
            if settings.relative_alignment:
                alignment = alignment + relative_error(own, target, mask, number)
            else:
                alignment = alignment + alignment_loss([own], [target], mask, num_tokens=number)
        alignment, hinge = alignment / max(num_compared, 1), hinge / len(taught)
        loss = run.loss + settings.alignment_weight * alignment + settings.variance_weight * hinge
        return loss, (alignment, hinge)

    def _taught(self, context: StepContext) -> "Sequence[torch.Tensor]":
        """What comes out of the anchor's blocks, at all tokens of the chosen rows."""
        import torch

        from hf_nasbert.teachers import read_child

        if context.base_model is not None and self.needs_base_model:
            return context.base_model.states(context.num_chosen)[1:]
        batch = {name: tensor[: context.num_chosen] for name, tensor in context.batch.items()}
        with torch.no_grad():
            states = read_child(self.teacher.average, batch, self.anchor, logits=False).hidden_states
        assert states is not None
        return states[1:]
