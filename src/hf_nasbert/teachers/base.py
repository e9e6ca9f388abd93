"""What a teacher is: something that reads a batch and says what a student may learn from it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch


class Taught(NamedTuple):
    """What a network made of a batch.

    Attributes:
        logits: (N, V) at the N tokens to predict.
        hidden_states: What goes into the first block and what comes out of every block, (B, T, D), if it was asked
            for.
        vectors: Query, key and value of the last attention layer, each (B, T, D), if they were asked for.
    """

    logits: torch.Tensor
    hidden_states: Sequence[torch.Tensor] | None = None
    vectors: Sequence[torch.Tensor] | None = None


class Teacher(Protocol):
    """What any student learns from: a child of a super-net, a moving average of one, an encoder from elsewhere.

    A teacher runs a pass of its own. Where a step has run the teacher already, a method takes what is there: the
    logits of a child that came before (`Wants.peers`), or the states of a common prefix (`aligned_states`).
    """

    def teach(
        self, batch: Mapping[str, torch.Tensor], *, hidden_states: bool = False, vectors: bool = False
    ) -> Taught:
        """Read a batch, without dropout; what it gives are constants.

        Args:
            batch: Tokens (`input_ids`) and `attention_mask`, (B, T); `labels` say which tokens are to be predicted:
                without them none is.
            hidden_states: Whether to give the states.
            vectors: Whether to give queries, keys and values.

        Raises:
            ValueError: If this teacher has none of what is asked for.
        """
        ...


def labelled_positions(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Flat indices into (B * T) of the tokens to predict, (N,); none without labels."""
    labels = batch.get("labels")
    if labels is None:
        return torch.zeros(0, dtype=torch.long, device=batch["input_ids"].device)
    return (labels.flatten() != -100).nonzero().squeeze(-1)
