"""MAGIC-A's anchor: the child to which all others are aligned, its states on a batch, and when it is replaced."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from hf_nasbert.modeling.geometry_nasbert import last_mixing_block
from hf_nasbert.modeling.modeling_nasbert import Masks
from hf_nasbert.modeling.modeling_supernet import SupernetForMaskedLM
from hf_nasbert.space import Architecture, SearchSpace

_HISTORY = 1000  # replacements kept in memory and checkpoints; the log has them all


class Anchor:
    """The best child judged so far.

    As in MAGIC-A (Xu et al., 2022, https://arxiv.org/abs/2108.12821), after a child was trained it takes the anchor's
    place if it is better on the dev set; both are judged with the weights of that moment, as the anchor's move too.
    The paper judges by dev accuracy after every step; here by masked-LM loss (finer on few batches), and every
    `interval` steps, since a judging costs about a step. The first anchor, which the paper leaves open, is the first
    child drawn.

    Args:
        space: The space of the children.
        interval: Steps between two judgings.
        first: The first anchor, if not the first child drawn.

    Raises:
        ValueError: If `first` is not in the space.
    """

    def __init__(self, space: SearchSpace, *, interval: int, first: Sequence[str] | None = None) -> None:
        self.space = space
        self.interval = interval
        self.architecture = None if first is None else space.validate(first)
        self.history: list[dict[str, Any]] = []

    def adopt_first(self, child: Architecture) -> Architecture:
        """The anchor; `child`, if there is none yet."""
        if self.architecture is None:
            self.architecture = child
        return self.architecture

    def is_due(self, step: int) -> bool:
        """Whether the anchor is to be judged against a child when so many steps are done."""
        return step % self.interval == 0

    def judge(
        self, step: int, child: Architecture, score: Callable[[Sequence[Architecture]], Sequence[float]]
    ) -> dict[str, Any] | None:
        """Score anchor and child, lower being better, and replace the anchor if the child is better.

        Returns:
            What happened if the anchor was replaced, as plain JSON, else `None`.
        """
        assert self.architecture is not None
        if child == self.architecture:
            return None
        child_loss, anchor_loss = score([child, self.architecture])
        if not child_loss < anchor_loss:
            return None
        event = {
            "step": step,
            "architecture": str(child),
            "loss": child_loss,
            "previous": str(self.architecture),
            "previous_loss": anchor_loss,
        }
        self.architecture = child
        self.history = [*self.history, event][-_HISTORY:]
        return event

    def state_dict(self) -> dict[str, Any]:
        """The anchor and how it came about, in plain JSON types."""
        return {
            "architecture": None if self.architecture is None else str(self.architecture),
            "history": list(self.history),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` described."""
        text = state["architecture"]
        self.architecture = None if text is None else self.space.validate(Architecture.parse(text))
        self.history = list(state["history"])


class AlignedStates(NamedTuple):
    """What `alignment_loss` compares."""

    child: list[torch.Tensor]
    anchor: list[torch.Tensor]
    padding_mask: torch.Tensor | None
    positions: torch.Tensor


def aligned_states(
    supernet: SupernetForMaskedLM,
    child: Architecture,
    anchor: Architecture,
    hidden_states: Sequence[torch.Tensor],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    labels: torch.Tensor,
    *,
    num_rows: int | None = None,
    layers: Iterable[int] | None = None,
    detach: bool = True,
) -> AlignedStates:
    """Block outputs of a child and of the anchor on the same sequences, with no work that leaves the loss unchanged.

    The anchor needs no head, no gradient and none of the blocks in front of the first one where it differs from the
    child: up to there both are the same network, and the child's own states serve. From its last block that mixes
    tokens on it runs at the labelled tokens only, as the child does. Its dropout is off: noise in the target would
    only add variance.

    Args:
        supernet: The super-net, not wrapped.
        child: The child that was trained on the batch.
        anchor: The anchor.
        hidden_states: What the child's forward returned: the first block's input and every block's output.
        input_ids: The tokens of that forward.
        attention_mask: Its attention mask; `None` where there is no padding.
        labels: Its labels.
        num_rows: Align the first sequences only, so many; `None` means all.
        layers: Blocks to align; later ones are not computed. `None` means all.
        detach: Whether the anchor's states are constants. If not, gradients reach its operators too.
    """
    if num_rows is not None:
        input_ids, labels = input_ids[:num_rows], labels[:num_rows]
        attention_mask = None if attention_mask is None else attention_mask[:num_rows]
    positions = (labels.flatten() != -100).nonzero().squeeze(-1)  # (N,)

    def take(states: torch.Tensor) -> torch.Tensor:
        """What to align of states at all tokens, or at the labelled ones."""
        return states if num_rows is None else states[: num_rows if states.dim() == 3 else len(positions)]

    child_last, anchor_last = last_mixing_block(child), last_mixing_block(anchor)
    end = len(child) if layers is None else max(layers) + 1
    num_shared = min(_num_shared(child, anchor), end)
    # From its last mixing block on the child's states may exist at the labelled tokens only. Where the anchor needs
    # all tokens behind that, what the two have in common there is run again, but not compared: it is the same.
    start = min(num_shared, child_last)
    restricted = hidden_states[child_last + 1].dim() == 2 and supernet.config._attn_implementation in ("eager", "sdpa")
    anchor_states = []
    modules = list(supernet.nasbert.encoder.modules_of(anchor))
    with torch.set_grad_enabled(not detach), _dropout_off(modules):
        states = take(hidden_states[start])
        masks = Masks(None, None)
        if attention_mask is not None:
            _, masks = supernet.nasbert.embed(input_ids, attention_mask)
        for block in range(start, end):
            at = positions if restricted and block == max(anchor_last, start) else None
            states = supernet.nasbert.run_block(block, anchor[block], states, masks, at)
            anchor_states.append(states)
    shared = list(hidden_states[1 : num_shared + 1])
    child_states = [take(states) for states in hidden_states[num_shared + 1 : end + 1]]
    return AlignedStates(
        shared + child_states, shared + anchor_states[num_shared - start :], attention_mask, positions
    )


def _num_shared(a: Sequence[str], b: Sequence[str]) -> int:
    """How many operators two architectures have in common from the start."""
    return next((block for block, (one, other) in enumerate(zip(a, b, strict=True)) if one != other), len(a))


@contextmanager
def _dropout_off(modules: Sequence[nn.Module]) -> Iterator[None]:
    were_training = [module.training for module in modules]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for module, was_training in zip(modules, were_training, strict=True):
            module.train(was_training)
