"""Importance sampling of operators, by their gradients' norms, and of sequences, by how wrong they are predicted."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from hf_nasbert.methods.base import ChildRun, Paper, StepContext
from hf_nasbert.methods.uniform import Remembering, UniformSettings
from hf_nasbert.settings import setting
from hf_nasbert.space import SKIP, Architecture, operator_width

if TYPE_CHECKING:
    import torch

    from hf_nasbert.modeling.modeling_supernet import SupernetEncoder, SupernetPreTrainedModel


@dataclass(kw_only=True)
class ImportanceSettings(UniformSettings):
    """How far draws follow the norms, and whether losses make up for it, within ranges."""

    importance_floor: float = setting(
        0.5, "Share of the draws, of operators and of sequences, that stays uniform.", at_least=0.01, at_most=1
    )
    norm_decay: float = setting(0.9, "Decay of the running gradient norm of an operator.", at_least=0, at_most=0.9999)
    importance_unbiased: bool = setting(
        True, "Weigh losses by 1 / (N p), so that gradients are unbiased; without, as published, biased."
    )
    sequence_importance: bool = setting(
        True, "Draw a step's sequences by importance too; not where a teacher teaches."
    )


class Importance(Remembering):
    """Operators and sequences that have large gradients are drawn more, and count less (PA&DA, corrected).

    Paths: an operator's probability follows the running norm of its gradient, per block and operator where the paper
    has one number for each kind of operator, over a uniform floor. Which blocks skip, and the widths, stay uniform: a
    skip has no gradient. Data: a sequence's score is the mean distance of prediction and label, ||softmax - onehot||,
    over its masked tokens. By it a sequence counts so many times in its step, N p in expectation, down to never.

    With `importance_unbiased` each draw is weighed by 1 / (N p), which the paper derives and its code does not apply;
    a child by the product over its blocks, at most (1 / floor)^blocks. AdamW and clipping take back a part of such
    weights. The mean gradient is that of a uniform operator in every block that is not skipped.

    The paper's own baseline by FairNAS is no evidence against that method: its public code draws the paths once an
    epoch and then reads the first ones only, so that all steps of an epoch train the same five children.
    """

    name = "importance"
    summary = "operators and sequences drawn by their gradients' norms, and weighed for it (PA&DA)"
    paper = Paper(
        "Lu et al. (2023), PA&DA: Jointly Sampling PAth and DAta for Consistent NAS, CVPR 2023",
        "https://arxiv.org/abs/2302.14772",
    )
    source = "paper's abstract, the authors' code (MIT, nothing taken), whose FairNAS baseline is broken"
    unverified = (
        "norms per block, a fixed floor instead of a schedule, and sequences drawn within a step by its own "
        "predictions (all of them are read, so that saves no time): ours"
    )
    look = ("#009E73", "h")
    Settings = ImportanceSettings
    terms = ("row_score",)

    def _prepare(self) -> None:
        # The score is at first what a guess among many words has.
        self.memory = {"norms": [{} for _ in self.space.blocks], "mean_score": 1.0}

    def probabilities(self, block: int, like: str) -> dict[str, float]:
        """Of the operators of a block, given that it does not skip and has the width of one of them.

        An operator that was not trained yet has the mean norm of those that were.
        """
        candidates = [name for name in self.space.blocks[block] if name != SKIP]
        names = [name for name in candidates if operator_width(name) == operator_width(like)]
        norms: dict[str, float] = self.memory["norms"][block]
        known = [norms[name] for name in names if name in norms]
        mean = sum(known) / len(known) if known else 0.0
        shares = {name: norms.get(name, mean) / mean if mean else 1.0 for name in names}
        floor, total = self.settings.importance_floor, sum(shares.values())
        return {name: floor / len(names) + (1 - floor) * share / total for name, share in shares.items()}

    def children(self) -> tuple[Architecture, ...]:
        """A uniform child with its operators drawn anew."""
        (child,), rng, names = super().children(), self.next_rng(), []
        for block, name in enumerate(child):
            of = {SKIP: 1.0} if name == SKIP else self.probabilities(block, name)
            names += rng.choices([*of], [*of.values()])
        return (Architecture(names),)

    def weight(self, number: int, children: Sequence[Architecture]) -> float:
        """What makes up for how often a child is drawn: 1 / (N p), of all its blocks."""
        weight = 1.0
        for block, name in enumerate(children[number]):
            if name != SKIP and self.settings.importance_unbiased:
                probabilities = self.probabilities(block, name)
                weight /= len(probabilities) * probabilities[name]
        return weight

    def loss(
        self, run: ChildRun, peers: Sequence[ChildRun], context: StepContext
    ) -> "tuple[torch.Tensor, tuple[torch.Tensor, ...]]":
        """The masked-LM loss of the sequences as they are drawn; where a teacher teaches, its loss of all of them."""
        import torch
        from torch import nn

        if context.is_taught or not self.settings.sequence_importance:
            return run.loss, (run.loss.new_zeros(()),)
        labelled = context.labels != -100
        logits, labels, rows = context.at_labels(run.logits), context.labels[labelled], labelled.nonzero()[:, 0]
        guesses = logits.detach().to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
        right = guesses.gather(1, labels[:, None])[:, 0]
        distances = (guesses.square().sum(-1) - 2 * right + 1).clamp(min=0).sqrt()  # of every masked token
        scores = distances.new_zeros(len(labelled)).index_add(0, rows, distances) / labelled.sum(1).clamp(min=1)
        floor = self.settings.importance_floor
        expected = floor + (1 - floor) * scores / self.memory["mean_score"]  # N p of every sequence
        # A number from 0 to 1 for every row, the same however the step's batch is shared out.
        rng = random.Random(f"{self.name} rows, seed {self.sampler.seed}, step {context.step}")
        numbers = [rng.random() for _ in range(context.first_row + len(labelled))][context.first_row :]
        counts = (expected + expected.new_tensor(numbers)).floor()
        weights = counts / expected if self.settings.importance_unbiased else counts
        losses = nn.functional.cross_entropy(logits.to(guesses.dtype), labels, reduction="none") * weights[rows]
        return losses.sum() / context.counts.labelled, (distances.sum() / context.counts.labelled,)

    def read_gradients(
        self, children: Sequence[Architecture], terms: Mapping[str, float], supernet: "SupernetPreTrainedModel"
    ) -> None:
        """Let the running norms follow what the gradients of the step's child would be by themselves."""
        import torch

        decay, weight = self.settings.norm_decay, self.weight(0, children)
        if terms["row_score"] > 0:
            self.memory["mean_score"] += (1 - decay) * (terms["row_score"] - self.memory["mean_score"])
        found = []
        for module, block in cast("SupernetEncoder", supernet.base_model.encoder).parts_of(children[0]):
            own = [p.grad for p in module.operators.parameters_of(block.name) if p.grad is not None]
            if own:
                norm = torch.stack(torch._foreach_norm(own)).double().norm() / weight
                found.append((self.memory["norms"][block.index], block.name, norm))
        values = torch.stack([norm for _, _, norm in found]).tolist() if found else []  # asks the device once
        for (norms, name, _), value in zip(found, values, strict=True):
            if math.isfinite(value):
                norms[name] = decay * norms.get(name, value) + (1 - decay) * value
