"""The base model of an elastic super-net as a teacher: a frozen copy, block by block beside the super-net's blocks."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_nasbert.elastic.encoders import encoder_of, inputs_of, logits_of, running
from hf_nasbert.kept import weights_digest
from hf_nasbert.modeling.geometry_nasbert import SKIP, operator_kind
from hf_nasbert.modeling.modeling_nasbert import NasBertPreTrainedModel
from hf_nasbert.modeling.operators_nasbert import NasBertSelfAttention
from hf_nasbert.teachers.base import Taught, labelled_positions
from hf_nasbert.teachers.encoders import vectors_of

_VECTORS = ("query", "key", "value")


class Spread(NamedTuple):
    """How a base model's states lie, in front of the first block and after every block.

    Attributes:
        means: Their means over tokens, (L + 1, D).
        variances: The mean squared distance of a token's state from that mean, of each.
    """

    means: torch.Tensor
    variances: list[float]


class BaseModelTeacher:
    """A base model that is never trained.

    Attributes:
        model: The base model as the child that it is.
        operators: Its blocks, those of the super-net's space.
        spread: How its states lie on some text.
        digest: A fingerprint of its weights.

    Args:
        full_child: The base model; it is this teacher's own from now on.
        batches: Some thousand tokens of the text that it is to teach on.

    Raises:
        ValueError: If there is no batch.
    """

    def __init__(self, full_child: NasBertPreTrainedModel, batches: Sequence[Mapping[str, torch.Tensor]]) -> None:
        self.model = full_child.eval().requires_grad_(False)
        self.operators = tuple(name for name in full_child.config.operators if name != SKIP)
        self.digest = weights_digest(full_child)
        self.spread = self._measure(batches)

    def teach(
        self, batch: Mapping[str, torch.Tensor], *, hidden_states: bool = False, vectors: bool = False
    ) -> Taught:
        """Read a batch; see `Teacher.teach`. Without a head of tokens or classes the logits are (0, 0)."""
        with torch.no_grad():
            taught = read_child(self.model, batch, vectors=vectors)
        return taught if hidden_states else taught._replace(hidden_states=None)

    def _measure(self, batches: Sequence[Mapping[str, torch.Tensor]]) -> Spread:
        if not batches:
            raise ValueError("there is no text to measure the base model's states on")
        sums: Any = 0
        squares: Any = 0
        count = 0
        with running(self.model):
            for batch in batches:
                states = read_child(self.model, batch, logits=False).hidden_states
                real = torch.stack([one[mask_of(batch, one)] for one in states or ()]).double()  # (L + 1, N, D)
                sums, squares, count = sums + real.sum(1), squares + real.square().sum((1, 2)), count + real.shape[1]
        means = sums / count
        return Spread(means.float().cpu(), (squares / count - means.square().sum(1)).clamp(min=0).tolist())


def mask_of(batch: Mapping[str, torch.Tensor], states: torch.Tensor) -> torch.Tensor:
    """True at the real tokens of a batch, (B, T), on the device of states."""
    mask = batch.get("attention_mask")
    if mask is None:
        return torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
    return mask.to(states.device).bool()


def read_child(
    model: PreTrainedModel,
    batch: Mapping[str, torch.Tensor],
    architecture: Sequence[str] | None = None,
    *,
    logits: bool = True,
    vectors: bool = False,
) -> Taught:
    """Run a child over a batch, at all tokens: one of a super-net, or one that stands alone.

    Args:
        model: The super-net or the child, with any head or none; its mode is the caller's.
        batch: As `Teacher.teach` takes it.
        architecture: The child of a super-net; `None` where the model is the child.
        logits: Whether to run the head.
        vectors: Whether to give queries, keys and values of the last attention; none of a child without one.

    Returns:
        Its states, with skips of a child that stands alone left out, so that those of a base model lie beside those of
        its super-net's children. Logits are those at the tokens to predict (N, V) of a masked LM, of the sequences or
        of the real tokens (N, C) of a classifier, and (0, 0) where there is no such head.
    """
    encoder, device = encoder_of(model), next(model.parameters()).device
    operators = model.config.operators if architecture is None else architecture
    last = max((index for index, name in enumerate(operators) if operator_kind(name) == "attention"), default=None)
    hidden_states, masks = encoder.embed(**inputs_of(batch, device))
    found, asked = [hidden_states], None
    with ExitStack() as stack:
        if vectors and last is not None:
            asked = stack.enter_context(vectors_of(_attention_of(encoder, last, operators[last], architecture)))
        for index, name in enumerate(operators):
            if architecture is not None:
                hidden_states = encoder.run_block(index, name, hidden_states, masks, child=architecture)
            elif name != SKIP:
                hidden_states = encoder.encoder.blocks[index](hidden_states, masks.attention, masks.padding)
            if architecture is not None or name != SKIP:
                found.append(hidden_states)
    given = None if asked is None else [asked[name] for name in _VECTORS]
    return Taught(_head_of(model, batch, hidden_states) if logits else _nothing(hidden_states), found, given)


def _attention_of(encoder: Any, index: int, name: str, architecture: Sequence[str] | None) -> nn.Module:
    if architecture is None:
        operator = encoder.encoder.blocks[index].operator
    else:
        operator = encoder.encoder.blocks_of(architecture)[index].operators.modules_of(name)[-1]
    return next(module for module in operator.modules() if isinstance(module, NasBertSelfAttention))


def _head_of(model: PreTrainedModel, batch: Mapping[str, torch.Tensor], hidden_states: torch.Tensor) -> torch.Tensor:
    head = getattr(model, "lm_head", None)
    if head is not None:
        positions = labelled_positions(batch).to(hidden_states.device)
        logits: torch.Tensor = head(hidden_states.flatten(0, 1).index_select(0, positions))
        return logits
    found = logits_of(model, hidden_states, mask_of(batch, hidden_states))
    return _nothing(hidden_states) if found is None else found


def _nothing(hidden_states: torch.Tensor) -> torch.Tensor:
    return hidden_states.new_zeros(0, 0)


class Lesson:
    """What a base model makes of one micro-batch: each pass is made when it is first asked for, and once.

    Attributes:
        spread: How the base model's states lie in general.

    Args:
        teacher: The base model.
        batch: The micro-batch.
        vectors: Whether the whole of it is to be taught, with queries, keys and values.
    """

    def __init__(self, teacher: BaseModelTeacher, batch: Mapping[str, torch.Tensor], *, vectors: bool = False) -> None:
        self.teacher, self.batch, self.spread = teacher, batch, teacher.spread
        self._vectors = vectors

    @cached_property
    def taught(self) -> Taught:
        """All of it."""
        return self.teacher.teach(self.batch, hidden_states=True, vectors=self._vectors)

    def states(self, num_rows: int | None = None) -> Sequence[torch.Tensor]:
        """The states in front of the first block and after every block, of the first rows, (B, T, D)."""
        if num_rows is None or "taught" in self.__dict__:
            states = self.taught.hidden_states
        else:
            first = {name: tensor[:num_rows] for name, tensor in self.batch.items()}
            with torch.no_grad():
                states = read_child(self.teacher.model, first, logits=False).hidden_states
        assert states is not None
        return [one[:num_rows] for one in states]
