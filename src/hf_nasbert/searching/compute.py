"""A search that is given compute, not a number of children: it divides it among scoring, adapting and training.

The rules come from replays on our table of children trained alone (docs/search.md): an additive model of thirty
children adapted for 25 steps ranks as eleven really trained ones do, at the price of less than one, and the best of
its first three or four is one of the best there are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hf_nasbert.searching.base import Scored
from hf_nasbert.searching.baselines import RandomSearch
from hf_nasbert.searching.predictors import OperatorRidge, Predict, calibrated
from hf_nasbert.searching.task import SearchTask
from hf_nasbert.space import Architecture

NUM_ADAPTED, LEAST_ADAPTED = 30, 15
"""Children that are adapted for an additive model, and those without which there is none."""
SHORTEST, LONGEST = 25, 100
"""Steps of an adaptation: fewer say little, and more say hardly more."""
NUM_DRAWN = 15
"""Children trained at random from which a ridge on them ranks better than adaptation; such a ridge on the best of a
ranking alone ranks worse than none."""


class Prices(NamedTuple):
    """What things take, in passes: forwards of a child over one training batch, of which a backward counts two.

    Attributes:
        score: Scoring a child with inherited weights.
        step: One step of an adaptation.
        judge: The dev loss of an adapted child.
        training: Training a child alone, its dev loss included.
    """

    score: float
    step: float
    judge: float
    training: float

    def adaptation(self, num_steps: int) -> float:
        """Adapting a child for so many steps."""
        return num_steps * self.step + self.judge


@dataclass(frozen=True)
class ComputePlan:
    """How a budget of compute is divided.

    Args:
        budget: The budget, in passes.
        prices: What things take.
        num_scored: Children to score, where it pays for nothing better.
        num_adapted: Children to adapt.
        num_steps: Steps of each adaptation.
        num_drawn: Children to train alone that are drawn at random, to calibrate.
        num_best: Further ones to train, the best of what was predicted.
    """

    budget: float
    prices: Prices
    num_scored: int = 0
    num_adapted: int = 0
    num_steps: int = 0
    num_drawn: int = 0
    num_best: int = 0

    @property
    def passes(self) -> float:
        """What it takes at most."""
        prices, num_trained = self.prices, self.num_drawn + self.num_best
        adaptations = self.num_adapted * prices.adaptation(self.num_steps) if self.num_adapted else 0.0
        return self.num_scored * prices.score + adaptations + num_trained * prices.training

    def __str__(self) -> str:
        prices, parts = self.prices, []
        if self.num_scored:
            parts.append(f"score {self.num_scored:,} children ({self._share(self.num_scored * prices.score)})")
        if self.num_adapted:
            share = self._share(self.num_adapted * prices.adaptation(self.num_steps))
            parts.append(f"adapt {self.num_adapted} children for {self.num_steps} steps ({share})")
        for count, words in ((self.num_drawn, "drawn at random"), (self.num_best, "predicted best")):
            if count:
                parts.append(f"train {count} children alone, {words} ({self._share(count * prices.training)})")
        trainings = self.budget / prices.training
        return f"{self.budget:,.0f} passes ({trainings:,.2f} trainings of a child): {', then '.join(parts)}"

    def _share(self, passes: float) -> str:
        return f"{100 * passes / self.budget:.0f} %"


def plan_compute(budget: float, prices: Prices, *, num_children: int) -> ComputePlan:
    """Divide a budget.

    - Where it pays for less than 15 adaptations of 25 steps, all of it goes into scores.
    - Where it pays for 30 such adaptations (or else for 15) and two trainings, the rest trains the predicted best
      alone: the first of a prediction is seldom the best, but one of the first three often is. Where it pays for 30
      trainings, 15 drawn children go first, to calibrate.
    - Else 30 children are adapted, or as many as it pays for.
    - What is over lengthens the adaptations, to 100 steps at most.

    Args:
        budget: In passes.
        prices: What things take.
        num_children: How many children there are to choose from.

    Raises:
        ValueError: If it pays for no child's score.
    """
    if budget < prices.score:
        raise ValueError(f"a compute budget of {budget:g} passes scores no child, which takes {prices.score:g}")
    shortest = prices.adaptation(SHORTEST)
    if budget < LEAST_ADAPTED * shortest or num_children < LEAST_ADAPTED:
        return ComputePlan(budget, prices, num_scored=min(num_children, int(budget / prices.score)))
    for num_adapted in (min(NUM_ADAPTED, num_children), LEAST_ADAPTED):
        num_trained = min(int((budget - num_adapted * shortest) / prices.training), num_children)
        if num_trained >= 2:
            break
    else:
        num_adapted, num_trained = min(NUM_ADAPTED, num_children, int(budget / shortest)), 0
    left = budget - num_trained * prices.training
    num_steps = max(SHORTEST, min(LONGEST, int((left / num_adapted - prices.judge) / prices.step)))
    num_drawn = NUM_DRAWN if num_trained >= 2 * NUM_DRAWN else 0
    return ComputePlan(
        budget,
        prices,
        num_adapted=num_adapted,
        num_steps=num_steps,
        num_drawn=num_drawn,
        num_best=num_trained - num_drawn,
    )


def plan_for(task: SearchTask, budget: float, prices: Prices) -> ComputePlan:
    """`plan_compute` for the children within a task's budget of costs.

    Raises:
        ValueError: If it pays for no child's score.
    """
    num_children = task.space.num_children
    if task.budget.caps:  # no more of them are counted than may be used
        plan = plan_compute(budget, prices, num_children=num_children)
        most = max(NUM_ADAPTED, plan.num_scored, plan.num_drawn + plan.num_best)
        num_children = len(random_children(task, most))
    return plan_compute(budget, prices, num_children=num_children)


class Hands(Protocol):
    """What does the work: in life a farm, in a replay a table. What they made before they find again."""

    def adapt(self, children: Sequence[Architecture], num_steps: int) -> Sequence[float]:
        """The dev losses of children trained alone for so many steps from inherited weights."""

    def train(self, children: Sequence[Architecture]) -> Sequence[float]:
        """The dev losses of children trained alone to the end."""


def search_under_compute(
    task: SearchTask, plan: ComputePlan, hands: Hands, explore: Callable[[Predict], list[Scored]]
) -> tuple[list[Scored], int]:
    """Adapt, rank, train, and rank again.

    Everything follows from the task, the plan and the losses: hands that keep what they made make it go on where it
    was killed.

    Args:
        task: Where to search, within which budget of costs.
        plan: With children to adapt.
        hands: Do it.
        explore: Looks for the best children by a prediction, which is free; returns many of them, best first.

    Returns:
        Children, best first: those that were trained with what they reached, then others as predicted; and how many
        were trained.
    """
    sample = random_children(task, plan.num_adapted)
    model = OperatorRidge(task.space.blocks).fit(sample, hands.adapt(sample, plan.num_steps))
    trained: dict[Architecture, float] = {}

    def train(children: Sequence[Architecture]) -> None:
        new = [child for child in children if child not in trained]
        trained.update(zip(new, hands.train(new), strict=True) if new else ())

    predict: Predict = model.predict
    if plan.num_drawn:
        train(random_children(task, plan.num_drawn))
        # Some drawn children were adapted too: what the model makes of those is no test of it.
        predict = calibrated(task.space.blocks, trained, model.predict_left_out, sample)
    found = explore(predict)
    best = [scored.architecture for scored in found if scored.architecture not in trained]
    train(best[: plan.num_best])
    reached = sorted((Scored(child, loss) for child, loss in trained.items()), key=lambda scored: scored.score)
    return [*reached, *(one for one in found if one.architecture not in trained)], len(trained)


def random_children(task: SearchTask, number: int) -> list[Architecture]:
    """So many different children within the budget, drawn uniformly, or all there are; always the same of one seed."""
    search = RandomSearch(task)
    children: list[Architecture] = []
    while len(children) < number and (asked := search.ask()):
        children += asked
        search.tell(asked, [0.0] * len(asked))
    return children[:number]
