"""Stages of a super-net by themselves: each runs on a teacher's state before it, and is compared with the next."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_nasbert.elastic.encoders import encoder_of, inputs_of, running
from hf_nasbert.objectives import relative_error
from hf_nasbert.space import Architecture
from hf_nasbert.teachers.base import Teacher
from hf_nasbert.teachers.base_models import mask_of, read_child

Batch = Mapping[str, torch.Tensor]


def masks_of(model: PreTrainedModel, batch: Batch) -> Any:
    """A batch's masks, as blocks take them."""
    with torch.no_grad():
        return encoder_of(model).embed(**inputs_of(batch, next(model.parameters()).device))[1]


def run_stage(
    model: PreTrainedModel,
    blocks: slice,
    path: Sequence[str],
    states: torch.Tensor,
    masks: Any,
    child: Sequence[str] | None = None,
) -> torch.Tensor:
    """Run what a path has in a stage's choice blocks on states (B, T, D) of any origin; gives (B, T, D).

    Where an operator's weights depend on the whole child, it must be said (`run_block`).
    """
    for block, name in zip(range(blocks.start, blocks.stop), path, strict=True):
        states = encoder_of(model).run_block(block, name, states, masks, child=child)
    return states


class StageErrors:
    """The relative error of a stage's path against a teacher, on some batches; those of a child's stages add up.

    As in DNA a path is judged by its stage alone. Called with children it gives the sums, so it is a score for any
    search: `hf-nasbert search --stage_errors 4`. What was measured is remembered: the super-net must not change.

    Args:
        supernet: The super-net, with one set of weights for all children.
        batches: Dev batches.
        stages: The stages' choice blocks.
        teacher: Whose states the stages read and are compared with; None: the largest child, which in a base model's
            super-net is the base model.
    """

    def __init__(
        self,
        supernet: PreTrainedModel,
        batches: Sequence[Batch],
        stages: Sequence[slice],
        teacher: Teacher | None = None,
    ) -> None:
        self.supernet, self.stages = supernet, tuple(stages)
        self._found: dict[tuple[int, tuple[str, ...]], float] = {}
        self._batches = []
        for batch in batches:
            if teacher is None:
                largest: Any = supernet.largest_architecture
                with running(supernet):
                    states = read_child(supernet, batch, largest, logits=False).hidden_states
            else:
                states = teacher.teach(batch, hidden_states=True).hidden_states
            assert states is not None
            borders = [states[0], *(states[stage.stop] for stage in self.stages)]
            self._batches.append((borders, mask_of(batch, states[0]), masks_of(supernet, batch)))
        self._num_tokens = sum(int(mask.sum()) for _, mask, _ in self._batches)

    def error(self, stage: int, path: Sequence[str]) -> float:
        """That of a stage, by its number: a mean over tokens (`objectives.relative_error`)."""
        key = stage, tuple(path)
        if key not in self._found:
            total = 0.0
            with running(self.supernet):
                for borders, mask, masks in self._batches:
                    made = run_stage(self.supernet, self.stages[stage], path, borders[stage], masks)
                    total += float(relative_error(made, borders[stage + 1], mask, self._num_tokens))
            self._found[key] = total
        return self._found[key]

    def __call__(self, children: Sequence[Architecture]) -> list[float]:
        """The sums over stages."""
        return [sum(self.error(number, one[stage]) for number, stage in enumerate(self.stages)) for one in children]
