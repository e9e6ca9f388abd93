"""How far a child is from its base model: relative error of the last states, of pooled vectors, of logits."""

import hashlib
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_nasbert.objectives import distillation_loss

Pooling = Literal["mean", "cls"]


class Target(NamedTuple):
    """What the base model makes of one batch.

    Args:
        states: Its last states at the real tokens, (N, D).
        logits: Its logits, as `encoders.logits_of` gives them; None where it has no classifier.
        inner: Its states after some inner blocks, (N, D) each.
    """

    states: torch.Tensor
    logits: torch.Tensor | None = None
    inner: tuple[torch.Tensor, ...] = ()


class Parts(NamedTuple):
    """The parts of a distance, each a scalar, and 0 where the base model equals the child.

    Args:
        states: Squared error of the last states over their variance (over tokens), at the real tokens.
        vectors: 1 - cosine of the pooled vectors, mean over sequences.
        logits: Divergence of the child's predictions from the base model's; 0 where there is no classifier.
    """

    states: torch.Tensor
    vectors: torch.Tensor
    logits: torch.Tensor


@dataclass(frozen=True)
class Distance:
    """The weighted sum that variants, children and trained children are compared by, and that training minimises.

    Args:
        mean: The mean of the base model's last states over many tokens, (D,).
        pooling: How a sequence's vector is made: the mean of its tokens, or its first token.
        state_weight: Weight of the states' relative error.
        vector_weight: Weight of 1 - cosine.
        logit_weight: Weight of the divergence of predictions.
        is_multi_label: Whether every label of the classifier is a yes or no of its own.
        variance: What a squared error of a token's state is divided by: the mean squared distance of the base model's
            last states from their mean. By default that of the batch that is looked at.
    """

    mean: torch.Tensor
    pooling: Pooling = "mean"
    state_weight: float = 1.0
    vector_weight: float = 5.0
    logit_weight: float = 0.0
    is_multi_label: bool = False
    variance: float | None = None

    @classmethod
    def of_classifier(cls, mean: torch.Tensor, *, is_multi_label: bool = False) -> "Distance":
        """The distance by which children with a classifier are compared: predictions first, then states."""
        return cls(mean, state_weight=0.2, vector_weight=0.0, logit_weight=1.0, is_multi_label=is_multi_label)

    @classmethod
    def of(cls, model: PreTrainedModel, mean: torch.Tensor, *, pooling: Pooling = "mean") -> "Distance":
        """The distance for children of a base model: by vectors, or where it has a classifier, by its predictions."""
        if not hasattr(model, "classifier"):
            return cls(mean, pooling)
        is_multi_label = model.config.problem_type == "multi_label_classification"
        return cls.of_classifier(mean, is_multi_label=is_multi_label)

    def describe(self) -> dict[str, object]:
        """All that it depends on but for the mean, as plain JSON."""
        names = ("pooling", "state_weight", "vector_weight", "logit_weight", "is_multi_label")
        return {name: getattr(self, name) for name in names}

    def mean_digest(self) -> str:
        """A fingerprint of the mean, and so of the base model and its text."""
        return hashlib.sha256(self.mean.cpu().numpy().tobytes()).hexdigest()[:16]

    def parts(
        self, hidden_states: torch.Tensor, mask: torch.Tensor, target: Target, logits: torch.Tensor | None = None
    ) -> Parts:
        """Compare a child's last states (B, T, D), and its logits, with the base model's of the same batch.

        Args:
            hidden_states: The child's.
            mask: True at the real tokens, (B, T): nothing else counts.
            target: The base model's.
            logits: The child's.

        Raises:
            ValueError: If only one of the two has logits.
        """
        states = hidden_states.float()[mask]  # (N, D)
        wanted = target.states.to(states.device).float()
        error = (states - wanted).square().sum()
        if self.variance is None:
            error = error / (wanted - self.mean.to(states.device)).square().sum()
        else:
            error = error / (len(wanted) * self.variance)
        vectors, wanted_vectors = self.pool(states, mask), self.pool(wanted, mask)
        cosine = nn.functional.cosine_similarity(vectors, wanted_vectors).mean()
        if (logits is None) != (target.logits is None):
            raise ValueError("the child and the base model must both have a classifier, or neither")
        divergence = error.new_zeros(())
        if logits is not None and target.logits is not None:
            divergence = divergence_of(logits, target.logits.to(logits.device), is_multi_label=self.is_multi_label)
        return Parts(error, 1 - cosine, divergence)

    def pool(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The vectors (B, D) of sequences from their real tokens' states (N, D), which `mask` (B, T) says where."""
        counts = mask.sum(1)
        if self.pooling == "cls":
            return states[counts.cumsum(0) - counts]
        rows = torch.arange(len(mask), device=mask.device).repeat_interleave(counts)
        return states.new_zeros(len(mask), states.shape[1]).index_add(0, rows, states) / counts[:, None]

    def total(self, parts: Parts) -> torch.Tensor:
        """The weighted sum of the parts."""
        return self.state_weight * parts.states + self.vector_weight * parts.vectors + self.logit_weight * parts.logits


def divergence_of(logits: torch.Tensor, wanted: torch.Tensor, *, is_multi_label: bool = False) -> torch.Tensor:
    """How far predictions are from the wanted ones: a scalar in nats, the mean over rows (N, C).

    The Kullback-Leibler divergence from the wanted distribution; of every label by itself where each is a yes or no;
    of one number, as a regressor gives, the squared difference.
    """
    logits, wanted = logits.float(), wanted.float()
    if logits.shape[-1] == 1:
        return (logits - wanted).square().mean()
    if is_multi_label:
        logits, wanted = (torch.stack([one, torch.zeros_like(one)], -1).flatten(0, 1) for one in (logits, wanted))
    return distillation_loss(logits, wanted)
