"""Who hears what a training run does, while it does it, and may ask for something in between."""

from collections.abc import Mapping
from typing import Literal


class Listener:
    """Is told what a run does, on every process, by `SupernetLoop`. This one does nothing; others override it.

    Steps are counted from 1: `step` is the number of steps that the super-net has taken.
    """

    def begins(self, step: int) -> None:
        """Training begins, or goes on, after so many steps."""

    def step_begins(self, step: int) -> None:
        """The next step begins, after so many."""

    def step_ends(self, step: int) -> None:
        """A step has been made; what is wanted is asked for after this."""

    def logs(self, step: int, values: Mapping[str, float]) -> None:
        """Means since the last line of the log: loss, the method's terms, grad_norm and others, as logged."""

    def evaluates(self, step: int, losses: list[float]) -> None:
        """The fixed children were scored: their losses on the dev batches."""

    def saves(self, step: int) -> None:
        """A checkpoint is on the disk."""

    def ends(self, step: int) -> None:
        """Training has ended, early or not, without an error."""

    def wants(self, what: Literal["log", "evaluate", "save", "stop"]) -> bool:
        """Whether this is wanted now, out of turn; the same on all processes."""
        return False
