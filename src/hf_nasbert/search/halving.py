"""Successive halving: many children on few dev batches, or trained for few steps, the best of them on more."""

import math
from collections.abc import Iterator
from typing import Any

from hf_nasbert.search.base import Hyperparameter, Search
from hf_nasbert.search.task import SearchTask
from hf_nasbert.settings import check_range
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


class SuccessiveHalving(Search):
    """Score random children on few dev batches, the best of them on more, and so on to the best few on all.

    Bracket after bracket begins with `bracket_size` new random children on the first `min_batches` dev batches. The
    best `1 / reduction` go on to `reduction` times as many batches, until all `total_batches` are reached (Jamieson
    and Talwalkar, 2016, https://arxiv.org/abs/1502.07943; every rung of a bracket then costs about the same).
    Children that fall out are not drawn again. Only children scored on all batches can be the best, for losses on
    different batches do not compare.

    Args:
        task: As every search.
        total_batches: How many dev batches there are.
        min_batches: On how many of them a bracket begins.
        reduction: By which factor children become fewer and batches more.
        bracket_size: Children at the beginning of a bracket.

    Raises:
        ValueError: If no rung lies below the last, or a number is out of range.
    """

    name = "halving"
    hyperparameters = {
        "min_batches": Hyperparameter("Dev batches on which children are scored first."),
        "reduction": Hyperparameter("By which factor children become fewer and dev batches more.", at_least=2),
    }

    def __init__(
        self,
        task: SearchTask,
        *,
        total_batches: int = 16,
        min_batches: int = 1,
        reduction: int = 4,
        bracket_size: int = 64,
    ) -> None:
        check_range("min_batches", min_batches, at_least=1)
        check_range("reduction", reduction, at_least=2)
        check_range("bracket_size", bracket_size, at_least=1)
        if total_batches <= min_batches:
            raise ValueError(
                f"there is nothing to save between {min_batches} and {total_batches} dev batches: give more "
                f"total_batches than min_batches"
            )
        super().__init__(task)
        self.total_batches = total_batches
        self.min_batches = min_batches
        self.reduction = reduction
        self.bracket_size = bracket_size
        self._rungs = _rungs(min_batches, total_batches, reduction)
        self._rung = len(self._rungs) - 1
        self._waiting: list[Architecture] = []  # of the present rung, not yet asked
        self._here: dict[Architecture, float] = {}  # scores on the present rung
        self._partly: set[Architecture] = set()  # ever scored on a part of the batches
        self._num_batches_told = 0

    @property
    def settings(self) -> dict[str, Any]:
        """What this search is, as plain JSON."""
        return super().settings | {"total_batches": self.total_batches, "bracket_size": self.bracket_size}

    @property
    def num_batches(self) -> int | None:
        """On how many dev batches the children of `ask` are to be scored; None: on all."""
        return self._rungs[self._rung]

    @property
    def num_evaluations(self) -> float:
        """How many children were scored; scorings on a part of the dev batches count as that part."""
        return len(self._scores) + self._num_batches_told / self.total_batches

    @property
    def cost_of_one(self) -> float:
        """What scoring one of the children of `ask` adds to `num_evaluations`."""
        return 1.0 if self.num_batches is None else self.num_batches / self.total_batches

    def _propose(self) -> Iterator[Architecture]:
        while True:
            yield self._sample()

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


class TrainedHalving(SuccessiveHalving):
    """Train random children for few steps, the best of them for more, and so on to the best few for all steps.

    As successive halving, but what a rung spends is training: `num_batches` counts batches that a child is trained on,
    from the weights that it inherits, or as a table's learning curves tell. Late starters fall out.

    Args:
        task: As every search.
        min_steps: For how many steps children are trained first.
        max_steps: For how many the last ones are.
        reduction: By which factor children become fewer and steps more.
        bracket_size: Children at the beginning of a bracket.

    Raises:
        ValueError: If no rung lies below the last, or a number is out of range.
    """

    name = "trained_halving"
    hyperparameters = {
        "min_steps": Hyperparameter("Steps for which children are trained first, from inherited weights."),
        "max_steps": Hyperparameter("Steps for which the last ones are.", at_least=2),
        "reduction": Hyperparameter("By which factor children become fewer and steps more.", at_least=2),
    }

    @classmethod
    def check(cls, **values: Any) -> None:
        """Refuse hyper-parameters that are out of their range, and a first rung that is no shorter than the last."""
        super().check(**values)
        if values["max_steps"] <= values["min_steps"]:
            raise ValueError(
                f"max_steps={values['max_steps']} must be above min_steps={values['min_steps']}: there is nothing to "
                "save between them"
            )

    def __init__(
        self,
        task: SearchTask,
        *,
        min_steps: int = 6,
        max_steps: int = 96,
        reduction: int = 4,
        bracket_size: int = 64,
    ) -> None:
        self.check(min_steps=min_steps, max_steps=max_steps, reduction=reduction)
        self.min_steps, self.max_steps = min_steps, max_steps
        super().__init__(
            task, total_batches=max_steps, min_batches=min_steps, reduction=reduction, bracket_size=bracket_size
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What this search is, as plain JSON."""
        return {name: value for name, value in super().settings.items() if name != "total_batches"}
