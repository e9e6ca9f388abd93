"""Children of a super-net as teachers: of the same one as the student, or of a moving average of its weights."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from hf_nasbert.modeling import last_mixing_block
from hf_nasbert.modeling.modeling_nasbert import Masks
from hf_nasbert.modeling.modeling_supernet import SupernetForMaskedLM
from hf_nasbert.space import Architecture
from hf_nasbert.teachers.base import Taught
from hf_nasbert.teachers.encoders import read


class ChildTeacher:
    """A child of a super-net, with its weights of the moment: for methods of one's own, and for `AverageTeacher`.

    Beside a student of the same super-net whose states are there, `aligned_states` costs less.

    Args:
        supernet: The super-net, not wrapped.
        architecture: The child.
    """

    def __init__(self, supernet: SupernetForMaskedLM, architecture: Architecture) -> None:
        self.supernet, self.architecture = supernet, architecture

    def teach(
        self, batch: Mapping[str, torch.Tensor], *, hidden_states: bool = False, vectors: bool = False
    ) -> Taught:
        """Read a batch; see `Teacher.teach`.

        Raises:
            ValueError: If queries, keys and values are asked for: a child need not have any.
        """
        if vectors:
            raise ValueError(
                "a child of a super-net gives no queries, keys and values: ask for logits or hidden states"
            )
        with torch.no_grad(), _dropout_off(list(self.supernet.modules())):
            return read(self.supernet, batch, hidden_states=hidden_states, architecture=self.architecture)


class AverageTeacher:
    """Exponential moving averages of a super-net's weights, of which a child teaches (Tarvainen and Valpola, 2017).

    (Mean teachers, https://arxiv.org/abs/1703.01780.) For methods of one's own: `MeanTeacher` in docs/extending.md
    learns from it, and has it saved and resumed with the run. An operator that no child trained has not moved, and
    neither has its average: only what a step trained is averaged, at that step.

    Args:
        supernet: The super-net, on one device; its weights of now are the first averages.
        decay: What of the average a step keeps.

    Raises:
        ValueError: If the decay is no share.
    """

    def __init__(self, supernet: SupernetForMaskedLM, *, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: expected at least 0 and below 1")
        self.decay = decay
        self.average = copy.deepcopy(supernet).eval().requires_grad_(False)
        self._averaged: set[str] = set()

    @torch.no_grad()
    def update(
        self, supernet: SupernetForMaskedLM, children: Sequence[Architecture], *, step: int | None = None
    ) -> None:
        """Move the averages of what the children of a step trained towards its weights.

        Early averages, as told by the steps made so far, follow faster: at a decay near 1 they would stay near the
        random weights that a run begins with.
        """
        decay = self.decay if step is None else min(self.decay, (1 + step) / (10 + step))
        trained = {id(parameter) for child in children for parameter in supernet.parameters_of(child)}
        for (name, mean), parameter in zip(self.average.named_parameters(), supernet.parameters(), strict=True):
            if id(parameter) in trained:
                mean.lerp_(parameter, 1 - decay)
                self._averaged.add(name)

    def child(self, architecture: Architecture) -> ChildTeacher:
        """A child with the averages as its weights: the teacher."""
        return ChildTeacher(self.average, architecture)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The averages that a step has moved, by parameter: all others are the super-net's own weights.

        The tensors are those of this teacher, as with `nn.Module.state_dict`, and fit a safetensors file.
        """
        return {name: mean for name, mean in self.average.named_parameters() if name in self._averaged}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from where `state_dict` was taken; this teacher was made of the super-net as it was then.

        Raises:
            ValueError: If the state is of another super-net. Nothing is changed then.
        """
        averages = dict(self.average.named_parameters())
        for name, tensor in state.items():
            if name not in averages:
                raise ValueError(f"the state of averages has {name[:80]!r}, which this super-net has not")
            expected = tuple(averages[name].shape), averages[name].dtype
            if (tuple(tensor.shape), tensor.dtype) != expected:
                raise ValueError(
                    f"the state of averages has {name} as {tensor.dtype} of shape {tuple(tensor.shape)}, expected "
                    f"{expected[1]} of shape {expected[0]}"
                )
        for name, tensor in state.items():
            averages[name].copy_(tensor)
        self._averaged = set(state)


class AlignedStates(NamedTuple):
    """What `alignment_loss` compares."""

    child: list[torch.Tensor]
    teacher: list[torch.Tensor]
    padding_mask: torch.Tensor | None
    positions: torch.Tensor


def aligned_states(
    supernet: SupernetForMaskedLM,
    child: Architecture,
    teacher: Architecture,
    hidden_states: Sequence[torch.Tensor],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    labels: torch.Tensor,
    *,
    num_rows: int | None = None,
) -> AlignedStates:
    """Block outputs of a child and of its teacher on the same sequences, with no work that leaves the loss unchanged.

    The teacher needs no head, no gradient and none of the blocks in front of the first one where it differs from the
    child: up to there both are the same network, and the child's own states serve. From its last block that mixes
    tokens on it runs at the labelled tokens only, as the child does. Its dropout is off: noise in the target would
    only add variance.

    Args:
        supernet: The super-net, not wrapped.
        child: The child that was trained on the batch.
        teacher: Another child of the super-net.
        hidden_states: What the child's forward returned: the first block's input and every block's output.
        input_ids: The tokens of that forward.
        attention_mask: Its attention mask; `None` where there is no padding.
        labels: Its labels.
        num_rows: Compare the first sequences only, so many; `None` means all.
    """
    if num_rows is not None:
        input_ids, labels = input_ids[:num_rows], labels[:num_rows]
        attention_mask = None if attention_mask is None else attention_mask[:num_rows]
    positions = (labels.flatten() != -100).nonzero().squeeze(-1)  # (N,)

    def take(states: torch.Tensor) -> torch.Tensor:
        """What to compare of states at all tokens, or at the labelled ones."""
        return states if num_rows is None else states[: num_rows if states.dim() == 3 else len(positions)]

    child_last, teacher_last = last_mixing_block(child), last_mixing_block(teacher)
    encoder: Any = supernet.base_model
    num_shared = encoder.encoder.num_shared(child, teacher)
    # From its last mixing block on the child's states may exist at the labelled tokens only. Where the teacher needs
    # all tokens after that, what the two have in common there is run again, but not compared: it is the same.
    start = min(num_shared, child_last)
    restricted = hidden_states[child_last + 1].dim() == 2 and supernet.config._attn_implementation in ("eager", "sdpa")
    teacher_states = []
    with torch.no_grad(), _dropout_off(list(encoder.encoder.modules_of(teacher))):
        states = take(hidden_states[start])
        masks = Masks(None, None)
        if attention_mask is not None:
            _, masks = encoder.embed(input_ids, attention_mask)
        for block in range(start, len(child)):
            at = positions if restricted and block == max(teacher_last, start) else None
            states = encoder.run_block(block, teacher[block], states, masks, at, teacher)
            teacher_states.append(states)
    shared = list(hidden_states[1 : num_shared + 1])
    child_states = [take(states) for states in hidden_states[num_shared + 1 :]]
    return AlignedStates(
        shared + child_states, shared + teacher_states[num_shared - start :], attention_mask, positions
    )


@contextmanager
def _dropout_off(modules: Sequence[nn.Module]) -> Iterator[None]:
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for part, mode in modes:  # one by one: parts of a module may differ
            part.training = mode
