"""A board of good children: in every class of size the best one so far teaches those that are drawn."""

import bisect
import random
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_nasbert.methods.base import ChildRun, Paper, Score, StepContext, Whole
from hf_nasbert.methods.rows import size_bounds
from hf_nasbert.methods.uniform import Uniform, UniformSettings
from hf_nasbert.settings import setting
from hf_nasbert.space import Architecture

if TYPE_CHECKING:
    import torch

_NUM_SIZES = 500  # children whose sizes say where classes end
_DECAY = 0.5  # what a loss on the board keeps of itself when it is measured again
_AS_GOOD = 0.01  # nats: the noise of a comparison on few dev batches


@dataclass(kw_only=True)
class BoardSettings(UniformSettings):
    """How the board is kept, and how much is learned from it.

    Raises:
        ValueError: If a number lies outside its range.
    """

    board_weight: float = setting(
        0.5, "Share of the teacher's predictions in the loss; the labels have the rest.", above=0, at_most=1
    )
    board_size: int = setting(3, "Children on the board in every class of size.", at_least=1)
    board_classes: int = setting(4, "Classes of size, of about equally many children.", at_least=1)
    board_interval: int = setting(
        10, "Steps between two measurements, of the child last trained and of its class.", at_least=1
    )
    board_dev_batches: int = setting(2, "Dev batches of a measurement, the first ones.", at_least=1)


class Entry(NamedTuple):
    """A child on the board, the moving average of its dev loss, and its number of parameters."""

    child: str
    loss: float
    cost: float


class Board(Uniform):
    """Uniformly drawn children learn from labels, and from the best child of their class of size (Cream).

    Every `board_interval` steps the child last trained and those on the board of its class are scored on dev batches.
    Losses on the board are moving averages. They lag behind a super-net that improves, so a newcomer's begins with the
    mean lag of the others. It is taken in while there is room, if it is better than the worst one, or if it is as good
    and smaller; the worst one leaves.

    Cream's public code has two faults that are not repeated here. It means to draw a teacher by probabilities, but
    passes them in the place of `replace` of numpy's choice, so that they are ignored; and rho, which mixes label loss
    and soft cross-entropy, is that of the board's last child and not that of the chosen one. Here the best child of
    the class teaches, with one weight for all, and no meta-network picks and weighs teachers. The soft cross-entropy,
    at the masked positions, is written as a divergence: they differ by the teacher's entropy, a constant.

    Where another teacher teaches (`teacher` of the training) it is refused.
    """

    name = "board"
    summary = "one child a step, taught by labels and by the best child of its size so far (Cream)"
    paper = Paper(
        "Peng et al. (2020), Cream of the Crop: Distilling Prioritized Paths For One-Shot Neural Architecture Search, "
        "NeurIPS 2020",
        "https://arxiv.org/abs/2010.15821",
    )
    source = "the authors' code (MIT, nothing taken)"
    unverified = "classes of size, the best of a class in place of the meta-network, averages of dev loss: ours"
    look = ("#CC79A7", "h")
    can_be_taught = False
    Settings = BoardSettings
    settings: BoardSettings
    terms = ("distillation",)

    def _prepare(self) -> None:
        rng = random.Random("sizes of the board")  # the same classes for every seed
        self.cuts = size_bounds(
            [self.cost(self.space.sample(rng)) for _ in range(_NUM_SIZES)], self.settings.board_classes
        )
        self.classes: list[list[Entry]] = [[] for _ in range(len(self.cuts) + 1)]
        """The entries of every class of size, best first."""

    @property
    def passes_per_step(self) -> float:
        """The child's three, the teacher's one, and the measurements."""
        scored = (1 + self.settings.board_size) * self.settings.board_dev_batches
        return 3.0 + 1.0 + scored / self.settings.board_interval

    @property
    def num_dev_batches(self) -> int:
        """Dev batches of a measurement."""
        return self.settings.board_dev_batches

    def class_of(self, child: Sequence[str]) -> int:
        """The number of a child's class of size, from the smallest."""
        return bisect.bisect_right(self.cuts, self.cost(child))

    def loss(
        self, run: ChildRun, peers: Sequence[ChildRun], context: StepContext
    ) -> "tuple[torch.Tensor, tuple[torch.Tensor, ...]]":
        """The label loss, mixed with the divergence from the predictions of the best child of the class."""
        from hf_nasbert.objectives import distillation_loss
        from hf_nasbert.teachers import ChildTeacher

        entries, share = self.classes[self.class_of(run.architecture)], self.settings.board_weight
        if not entries or entries[0].child == str(run.architecture):
            return run.loss, (run.loss.new_zeros(()),)
        teacher = ChildTeacher(context.supernet, Architecture.parse(entries[0].child))
        taught = teacher.teach(context.batch).logits
        divergence = context.share(distillation_loss(context.at_labels(run.logits), taught), len(taught))
        return (1 - share) * run.loss + share * divergence, (divergence,)

    def after_step(
        self, step: int, children: Sequence[Architecture], losses: Sequence[float], score: Score, supernet: Whole
    ) -> dict[str, Any] | None:
        """Measure the child and its class, when that is due."""
        super().after_step(step, children, losses, score, supernet)
        if step % self.settings.board_interval:
            return None
        child, number = children[-1], self.class_of(children[-1])
        before = [entry.child for entry in self.classes[number]]
        asked = [*dict.fromkeys([*before, str(child)])]
        found = dict(zip(asked, score([*map(Architecture.parse, asked)], self.num_dev_batches), strict=True))
        entries = [
            one._replace(loss=_DECAY * one.loss + (1 - _DECAY) * found[one.child]) for one in self.classes[number]
        ]
        if str(child) not in before:
            lag = sum(one.loss - found[one.child] for one in entries) / max(len(entries), 1)
            entries = self.with_newcomer(entries, Entry(str(child), found[str(child)] + lag, self.cost(child)))
        self.classes[number] = sorted(entries, key=lambda one: (one.loss, one.cost))
        if {one.child for one in entries} == set(before):
            return None
        return {"event": "board", "class": number, "entries": [one._asdict() for one in self.classes[number]]}

    def with_newcomer(self, entries: Sequence[Entry], newcomer: Entry) -> list[Entry]:
        """The entries of a class after one more child was measured."""
        if len(entries) < self.settings.board_size:
            return [*entries, newcomer]
        worst = max(entries, key=lambda one: (one.loss, one.cost))
        is_smaller = newcomer.loss <= worst.loss + _AS_GOOD and newcomer.cost < worst.cost
        is_in = newcomer.loss < worst.loss or is_smaller
        return [newcomer if one is worst and is_in else one for one in entries]

    def state_dict(self) -> dict[str, Any]:
        """The sampler's state and the board."""
        return super().state_dict() | {"board": [[list(entry) for entry in entries] for entries in self.classes]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` described."""
        saved = state["board"]
        if not isinstance(saved, list) or len(saved) != len(self.classes):
            raise ValueError(f"the board is {reprlib.repr(saved)}, expected {len(self.classes)} lists")
        classes = [
            [
                Entry(str(self.space.validate(Architecture.parse(child))), float(loss), cost)
                for child, loss, cost in one
            ]
            for one in saved
        ]
        super().load_state_dict(state)
        self.classes = classes
