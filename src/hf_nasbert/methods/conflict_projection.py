"""Conflict projection: where the gradients of the largest child and of the others point apart, one gives way."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hf_nasbert.methods.base import Merge, Paper
from hf_nasbert.methods.sandwich import Sandwich, SandwichSettings
from hf_nasbert.settings import setting

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class ConflictProjectionSettings(SandwichSettings):
    """When the projection begins, and whose gradient gives way.

    Raises:
        ValueError: If it never begins, or nobody gives way.
    """

    conflict_start: float = setting(
        0.25,
        "Share of max_steps before the projection begins; until then gradients are added up. The authors' code "
        "begins at epoch 101; this share is ours.",
        at_least=0,
        at_most=1,
    )
    conflict_yields: Literal["largest", "others"] = setting(
        "largest",
        "Whose gradient loses its component against the other one: the largest child's, as in the authors' code, or "
        "that of all other children.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.conflict_start == 1:
            raise ValueError("conflict_start=1 projects nothing; choose method=sandwich")


class ConflictProjection(Sandwich):
    """A sandwich in whose step the largest child's gradient loses what goes against the others' (NASViT).

    Tensor by tensor, with g_max the gradient of the largest child and g_sub that of all others together: g = (1 + a)
    g_sub + g_max, where a = - <g_sub, g_max> / <g_sub, g_sub>, between 0 and 2. Where the two agree, a is 0 and g
    their sum. Where they do not, a g_sub + g_max is g_max without its component against g_sub: a step along g does
    the others no harm for the largest child's sake. A component more than twice as long as g_sub is left in part. With
    `conflict_yields` of others the two change places.

    Gradients are those of the whole batch, over all micro-batches and processes.
    """

    name = "conflict_projection"
    summary = "a sandwich; the largest child's gradient loses what goes against the others', per tensor (NASViT)"
    paper = Paper(
        "Gong et al. (2022), NASViT: Neural Architecture Search for Efficient Vision Transformers with Gradient "
        "Conflict-aware Supernet Training, ICLR 2022",
        "https://openreview.net/forum?id=Qaw16njk6L",
    )
    source = "the authors' code (CC-BY-NC, nothing taken)"
    unverified = "the share of training before it begins; `conflict_yields` of others is ours"
    look = ("#56B4E9", "D")
    Settings = ConflictProjectionSettings
    settings: ConflictProjectionSettings
    can_be_sharded = False  # FSDP adds up gradients within every backward pass, before they could be told apart

    def merge(self, step: int) -> Merge | None:
        """The projection, as soon as it has begun."""
        if step < self.settings.conflict_start * self.max_steps:
            return None
        return (
            projected if self.settings.conflict_yields == "largest" else lambda first, others: projected(others, first)
        )


def projected(yielding: "torch.Tensor", kept: "torch.Tensor") -> "torch.Tensor":
    """The sum of two gradients of a tensor, of which one loses its component against the other.

    Args:
        yielding: The gradient that gives way.
        kept: The other one, of the same shape.
    """
    conflict = -(yielding * kept).sum() / (kept * kept).sum().clamp(min=1e-38)  # of nothing there is no component
    return yielding + (1 + conflict.clamp(0, 2)) * kept
