"""Scores of children of a super-net that predicts no words: how far each is from the largest child, the base model."""

import time
from collections.abc import Mapping, Sequence

import torch
from accelerate import PartialState

from hf_nasbert.elastic.distance import Distance, Target
from hf_nasbert.elastic.encoders import encoder_of, running
from hf_nasbert.elastic.scores import score_children, walking_order
from hf_nasbert.modeling.modeling_supernet import SupernetForMaskedLM, SupernetPreTrainedModel
from hf_nasbert.scoring import ScoringReport
from hf_nasbert.space import SKIP, Architecture
from hf_nasbert.teachers import mask_of, read_child

IGNORED = -100

Batch = Mapping[str, torch.Tensor]


class LargestChild:
    """The largest child of a super-net, with its weights there, as what the others are compared with.

    Args:
        supernet: With a classifier, or with no head; on its device.
        batches: Masked batches; what was masked is put back.
    """

    def __init__(self, supernet: SupernetPreTrainedModel, batches: Sequence[Batch]) -> None:
        self.supernet = supernet
        self.batches = [whole(batch) for batch in batches]
        self.targets = [self.target(batch) for batch in self.batches]
        states = [target.states for target in self.targets]
        self.distance = Distance.of(supernet, torch.cat(states).mean(0))

    def score(
        self,
        children: Sequence[Architecture],
        num_batches: int | None = None,
        *,
        progress: bool = False,
        processes: PartialState | None = None,
    ) -> ScoringReport:
        """The distances of children on the first `num_batches`, or on all, and what they took."""
        start, batches = time.perf_counter(), self.batches[:num_batches]
        scores = score_children(
            self.supernet, children, batches, self.targets[:num_batches], self.distance, progress=progress,
            processes=processes,
        )  # fmt: skip
        distinct = walking_order(set(children), self.supernet.largest_architecture)
        before, num_shared = [None, *distinct[:-1]], encoder_of(self.supernet).encoder.num_shared
        run = [
            name
            for last, child in zip(before, distinct, strict=True)
            for name in child[0 if last is None else num_shared(last, child) :]
        ]
        return ScoringReport(
            losses=[score.loss for score in scores],
            num_distinct=len(distinct),
            num_batches=len(batches),
            num_labels=0,
            seconds=time.perf_counter() - start,
            num_operator_calls=len(batches) * sum(name != SKIP for name in run),
            num_naive_operator_calls=len(batches) * sum(name != SKIP for child in distinct for name in child),
        )

    def target(self, batch: Batch) -> Target:
        """What it makes of a batch as it is (`whole`)."""
        device = self.supernet.device
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        has_classes = not isinstance(self.supernet, SupernetForMaskedLM)
        with running(self.supernet):
            made = read_child(self.supernet, batch, self.supernet.largest_architecture, logits=has_classes)
        assert made.hidden_states is not None
        states = made.hidden_states[-1]
        return Target(states[mask_of(batch, states)], made.logits if made.logits.numel() else None)


def whole(batch: Batch) -> dict[str, torch.Tensor]:
    """A masked batch with its words put back."""
    input_ids = torch.where(batch["labels"] == IGNORED, batch["input_ids"], batch["labels"])
    return {"input_ids": input_ids, "attention_mask": batch["attention_mask"]}
