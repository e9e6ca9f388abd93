"""Successive halving: many children on few dev batches, or trained for few steps, the best of them on more."""

import math
from dataclasses import dataclass
from typing import Any

from hf_nasbert.searching.base import Search
from hf_nasbert.settings import check_range, setting
from hf_nasbert.space import Architecture


def largest_bracket(
    num_evaluations: float, *, total_batches: int, min_batches: int = 1, reduction: int = 4, at_most: int = 64
) -> int:
    """With how many children a bracket may begin that so many evaluations pay to its end.

    Raises:
        ValueError: If they do not pay for a bracket of one child.
    """
    rungs = _rungs(min_batches, total_batches, reduction)

    def cost(size: int) -> float:
        total = 0.0
        for num_batches in rungs:
            total += size * (num_batches or total_batches) / total_batches
            size = math.ceil(size / reduction)
        return total

    for size in range(at_most, 0, -1):
        if cost(size) <= num_evaluations + 1e-9:
            return size
    raise ValueError(
        f"successive halving scores no child on all {total_batches} dev batches within {num_evaluations} evaluations: "
        f"the smallest bracket costs {cost(1):g}: raise num_evaluations"
    )


def _rungs(min_batches: int, total_batches: int, reduction: int) -> list[int | None]:
    """The dev batches of each rung; None: all."""
    rungs: list[int | None] = []
    while min_batches < total_batches:
        rungs.append(min_batches)
        min_batches *= reduction
    return [*rungs, None]


@dataclass(eq=False, repr=False, kw_only=True)
class _Halving(Search):
    """Score random children on few batches, the best of them on more, and so on to the best few on all."""

    reduction: int = setting(4, "By which factor children become fewer and batches, or steps, more.", at_least=2)
    bracket_size: int = 64

    @property
    def rungs(self) -> tuple[int, int]:
        """On how many batches a bracket begins, and how many there are."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("bracket_size", self.bracket_size, at_least=1)
        self._rungs = _rungs(*self.rungs, self.reduction)
        self._rung = len(self._rungs) - 1
        self._waiting: list[Architecture] = []  # of the present rung, not yet asked
        self._here: dict[Architecture, float] = {}  # scores on the present rung
        self._partly: set[Architecture] = set()  # ever scored on a part of the batches
        self._num_batches_told = 0

    @property
    def num_batches(self) -> int | None:
        """On how many batches the children of `ask` are to be scored; None: on all."""
        return self._rungs[self._rung]

    @property
    def num_evaluations(self) -> float:
        """How many children were scored; scorings on a part of the batches count as that part."""
        return len(self._scores) + self._num_batches_told / self.rungs[1]

    @property
    def cost_of_one(self) -> float:
        """What scoring one of the children of `ask` adds to `num_evaluations`."""
        return 1.0 if self.num_batches is None else self.num_batches / self.rungs[1]

    def _next_batch(self) -> None:
        if not self._waiting and self.num_batches is not None:
            self._promote()
        if not self._waiting:
            self._rung, self._here = 0, {}
            self._draw(self.bracket_size)
            self._waiting, self._pending = self._pending, []
        self._pending, self._waiting = self._waiting[: self.task.batch_size], self._waiting[self.task.batch_size :]

    def _promote(self) -> None:
        """Let the best of the present rung wait for the next one."""
        ranking = sorted((score, place) for place, score in enumerate(self._here.values()) if score < math.inf)
        children = list(self._here)
        survivors = [children[place] for _, place in ranking[: math.ceil(len(children) / self.reduction)]]
        self._rung, self._here = self._rung + 1, {}
        self._waiting = [child for child in survivors if child not in self._scores]

    def _is_new(self, child: Architecture) -> bool:
        return child not in self._partly and super()._is_new(child)

    def _take(self, children: list[Architecture], scores: list[float], num_batches: int | None) -> None:
        if num_batches is None:
            super()._take(children, scores, num_batches)
            self._waiting = [child for child in self._waiting if child not in self._scores]
            return
        for child, score in zip(children, scores, strict=True):
            if child not in self._here:
                self._here[child] = score
                self._num_batches_told += num_batches
        self._partly |= set(children)
        self._pending = [child for child in self._pending if child not in self._here]


@dataclass(eq=False, repr=False, kw_only=True)
class SuccessiveHalving(_Halving):
    """Score random children on few dev batches, the best of them on more, and so on to the best few on all.

    Bracket after bracket begins with `bracket_size` new random children on the first `min_batches` dev batches. The
    best `1 / reduction` go on to `reduction` times as many batches, until all `total_batches` are reached (Jamieson
    and Talwalkar, 2016, https://arxiv.org/abs/1502.07943; every rung of a bracket then costs about the same).
    Children that fall out are not drawn again. Only children scored on all batches can be the best, for losses on
    different batches do not compare.

    Raises:
        ValueError: If no rung lies below the last, or a number is out of range.
    """

    name = "halving"

    min_batches: int = setting(1, "Dev batches on which children are scored first.", at_least=1)
    total_batches: int = 16

    @property
    def rungs(self) -> tuple[int, int]:
        """Dev batches."""
        return self.min_batches, self.total_batches

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.total_batches <= self.min_batches:
            raise ValueError(
                f"there is nothing to save between {self.min_batches} and {self.total_batches} dev batches: give more "
                f"total_batches than min_batches"
            )


@dataclass(eq=False, repr=False, kw_only=True)
class TrainedHalving(_Halving):
    """Train random children for few steps, the best of them for more, and so on to the best few for all steps.

    As successive halving, but what a rung spends is training: `num_batches` counts batches that a child is trained on,
    from the weights that it inherits, or as a table's learning curves tell. Late starters fall out.

    Raises:
        ValueError: If no rung lies below the last, or a number is out of range.
    """

    name = "trained_halving"

    min_steps: int = setting(6, "Steps for which children are trained first, from inherited weights.", at_least=1)
    max_steps: int = setting(96, "Steps for which the last ones are.", at_least=2)

    @property
    def rungs(self) -> tuple[int, int]:
        """Steps."""
        return self.min_steps, self.max_steps

    @staticmethod
    def check(settings: Any) -> None:
        """Refuse a first rung that is no shorter than the last."""
        if settings.max_steps <= settings.min_steps:
            raise ValueError(
                f"max_steps={settings.max_steps} must be above min_steps={settings.min_steps}: there is nothing to "
                "save between them"
            )
