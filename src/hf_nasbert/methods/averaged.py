"""What methods have in common that learn from moving averages of the weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_nasbert.methods.base import MethodSettings, Score, TrainingMethod, Whole
from hf_nasbert.settings import setting
from hf_nasbert.space import Architecture

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class AveragedSettings(MethodSettings):
    """How slowly the averages follow."""

    average_decay: float = setting(
        0.999,
        "What a step keeps of averaged weights; early steps less, (1 + s) / (10 + s). 0: nothing.",
        at_least=0,
        below=1,
    )


class Averaged(TrainingMethod):
    """A method with a `teacher`, the averages of what its steps train; of a checkpoint they are a part."""

    @property
    def is_averaging(self) -> bool:
        """Whether averages are wanted."""
        return True

    def begin(self, supernet: Whole, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Make the averages, or take those of the checkpoint."""
        from hf_nasbert.teachers import AverageTeacher

        self.teacher = AverageTeacher(supernet(), decay=self.settings.average_decay)
        self.teacher.load_state_dict(tensors)

    def tensors(self) -> "Mapping[str, torch.Tensor]":
        """The averages."""
        return self.teacher.state_dict()

    def after_step(
        self, step: int, children: Sequence[Architecture], losses: Sequence[float], score: Score, supernet: Whole
    ) -> dict[str, Any] | None:
        """Let the averages follow in what the step trained."""
        if self.is_averaging:
            self.teacher.update(supernet(), children, step=step)
        return super().after_step(step, children, losses, score, supernet)
