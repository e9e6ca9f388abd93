"""Choosing among architectures by what they score and what they cost; knows no model.

A search is asked for children and told their scores. Everything it will ever ask follows from its seed and from what
it was told, so a search that was interrupted goes on from the record of its scores as if it had not been.
"""

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from tqdm import tqdm

from hf_nasbert import records
from hf_nasbert.costs import Budget, Cost, cheapest
from hf_nasbert.space import Architecture, SearchSpace

Score = Callable[[Sequence[Architecture]], Sequence[float]]
"""Scores children, lower is better: what a search minimises."""

_NUM_DRAWS = 200  # draws for one child before a new one is looked for in another way:
_NUM_ENUMERATED = 50_000  # in spaces up to this size among all children,
_NUM_STEPS = 200  # in larger ones by a random walk of so many steps


class Scored(NamedTuple):
    """A child and its score; a score that was not finite is infinite, worse than every other."""

    architecture: Architecture
    score: float


class Search(ABC):
    """What every search promises.

    - `ask` names children of the space, within the budget, none of them twice. It names the same ones again until all
      of them have been told; an empty list says that no unseen child is left.
    - `tell` takes scores, lower is better, of any children within the budget, also such as were never asked. Scores
      that are not finite rank last.
    - `best` is the best child ever told.
    - The same seed, asked and told alike, asks the same; `state_dict` is plain JSON and resumes exactly.

    Args:
        space: Where to search.
        seed: Seed of this search's own generator. The global `random` state is neither read nor written.
        cost: The costs of a child; needed where there is a budget. Each is to be a sum over stages and blocks (see
            `costs.cheapest`), as parameters, FLOPs and tabled latencies are.
        budget: Caps on the costs.
        batch_size: How many children to ask for at a time.

    Raises:
        ValueError: If no child is within the budget; the message names the cheapest and its cost.
    """

    name: ClassVar[str]

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        cost: Callable[[Architecture], Cost] | None = None,
        budget: Budget | None = None,
        batch_size: int = 50,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        budget = Budget() if budget is None else budget
        if budget.caps and cost is None:
            raise ValueError(f"a budget that caps {', '.join(budget.caps)} needs the costs of a child: give `cost`")
        self.space = space
        self.seed = seed
        self.cost = cost
        self.budget = budget
        self.batch_size = batch_size
        self._rng = random.Random(seed)
        self._scores: dict[Architecture, float] = {}  # in the order told
        self._pending: list[Architecture] = []  # asked, not yet told
        self._affordable: list[Architecture] | None = None  # of a small space, shuffled, once draws run dry
        self._start = self._affordable_child()

    @property
    def settings(self) -> dict[str, Any]:
        """What this search is, as plain JSON: two searches of equal settings ask for the same children."""
        return {
            "search": self.name,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "budget": self.budget.caps,
            "space": self.space.to_dict(),
        }

    @property
    def history(self) -> list[Scored]:
        """Every child told, in that order."""
        return [Scored(architecture, score) for architecture, score in self._scores.items()]

    def ranking(self) -> list[Scored]:
        """Every child told, best first; of equals the one told first."""
        return sorted(self.history, key=lambda scored: scored.score)

    def best(self) -> Scored | None:
        """The best child told so far, or None if none has a finite score."""
        best = min(self.history, key=lambda scored: scored.score, default=None)
        return best if best is not None and best.score < math.inf else None

    def ask(self) -> list[Architecture]:
        """The children to score next: up to `batch_size`, fewer or none when the space is exhausted."""
        if not self._pending:
            proposals = self._propose()
            while len(self._pending) < self.batch_size:
                child = self._next_new(proposals)
                if child is None:
                    proposals = iter(())  # they have run dry: not tried again in this batch
                    child = self._any_new()
                if child is None:
                    break
                self._pending.append(child)
        return list(self._pending)

    def tell(self, architectures: Sequence[Sequence[str]], scores: Sequence[float]) -> None:
        """Take the scores of some children. A child that is told twice keeps its first score.

        Raises:
            ValueError: If the numbers of children and scores differ, or a child is outside the space or the budget.
        """
        if len(architectures) != len(scores):
            raise ValueError(f"{len(architectures)} architectures were told with {len(scores)} scores")
        children = [self.space.validate(architecture) for architecture in architectures]
        for child in children:
            reason = self._why_not_affordable(child)
            if reason is not None:
                raise ValueError(f"{child} is over the budget: {reason}")
        for child, score in zip(children, scores, strict=True):
            self._scores.setdefault(child, float(score) if math.isfinite(score) else math.inf)
        self._pending = [child for child in self._pending if child not in self._scores]

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if the search had never stopped, in plain JSON types."""
        version, internal, gauss = self._rng.getstate()
        return {
            "settings": self.settings,
            "rng": [version, list(internal), gauss],
            "scores": [[str(child), _finite_or_none(score)] for child, score in self._scores.items()],
            "pending": [str(child) for child in self._pending],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` described.

        Raises:
            ValueError: If it describes another search: names what differs.
        """
        _refuse_other_settings(self.settings, state["settings"], "the saved state")
        version, internal, gauss = state["rng"]
        self._rng.setstate((version, tuple(internal), gauss))
        self._scores = {Architecture.parse(child): _finite_or_inf(score) for child, score in state["scores"]}
        self._pending = [Architecture.parse(child) for child in state["pending"]]

    @abstractmethod
    def _propose(self) -> Iterator[Architecture]:
        """Endless proposals for the next batch; those that are seen or over the budget are passed over."""

    def _why_not_affordable(self, child: Architecture) -> str | None:
        return None if self.cost is None or not self.budget.caps else self.budget.why_not(self.cost(child))

    def _is_new(self, child: Architecture) -> bool:
        return child not in self._scores and child not in self._pending and self._why_not_affordable(child) is None

    def _next_new(self, proposals: Iterator[Architecture]) -> Architecture | None:
        """The next proposal that is new and within the budget, if it comes in reasonable time."""
        return next(filter(self._is_new, islice(proposals, _NUM_DRAWS)), None)

    def _any_new(self) -> Architecture | None:
        """Any child that is new and within the budget, None if there is none (or, in large spaces, none near)."""
        if self.space.num_children > _NUM_ENUMERATED:
            return self._walk_to_new()
        if self._affordable is None:
            self._affordable = [c for c in self.space.enumerate() if self._why_not_affordable(c) is None]
            # From a generator of its own: the order is the same whenever it is made, also after resuming.
            random.Random(self.seed).shuffle(self._affordable)
        while self._affordable:
            child = self._affordable[-1]
            if self._is_new(child):
                return child
            self._affordable.pop()  # seen once, seen for ever
        return None

    def _walk_to_new(self) -> Architecture | None:
        """Step from neighbour to neighbour within the budget, from the best child known, until one is new."""
        best = self.best()
        child = self._start if best is None else best.architecture
        if self._is_new(child):
            return child
        for _ in range(_NUM_STEPS):
            steps = [step for step in self.space.neighbours(child) if self._why_not_affordable(step) is None]
            new = [step for step in steps if self._is_new(step)]
            if new:
                return self._rng.choice(new)
            if not steps:
                return None
            child = self._rng.choice(steps)
        return None

    def _affordable_child(self) -> Architecture:
        """Some child within the budget, found without scoring anything; where walks begin."""
        cost, caps = self.cost, self.budget.caps
        if cost is None or not caps:
            return self.space.child_at(0)
        self.budget.why_not(cost(self.space.child_at(0)))  # names a capped cost that is not measured
        corners = []
        for name, cap in caps.items():
            corner = cheapest(self.space, partial(_one_cost, cost, name))
            least = cost(corner)[name]
            if not least <= cap:
                raise ValueError(
                    f"no child is within the budget: {name} may be at most {cap:,}, "
                    f"but that of the smallest child, {corner}, is {least:,}"
                )
            corners.append(corner)

        def excess(child: Architecture) -> float:
            costs = cost(child)
            return max(costs[name] / cap for name, cap in caps.items())

        # Each cap alone can be met. To meet them together, go downhill from the corners.
        child = min(corners, key=excess)
        while excess(child) > 1:
            step = min(self.space.neighbours(child), key=excess, default=child)
            if excess(step) >= excess(child):
                break
            child = step
        if excess(child) > 1 and self.space.num_children <= _NUM_ENUMERATED:
            child = min(self.space.enumerate(), key=excess)
        if excess(child) > 1:
            raise ValueError(f"found no child within the budget {caps}: the nearest, {child}, costs {cost(child)}")
        return child


class RandomSearch(Search):
    """Draw children uniformly among all within the budget: the baseline that any other search has to beat.

    In a space too large to enumerate, under a budget that fewer than about one child in two hundred meets, they come
    from a random walk instead, and are no longer uniform.

    (Li and Talwalkar, 2019, https://arxiv.org/abs/1902.07638; Yu et al., 2020, https://arxiv.org/abs/1902.08142.)
    """

    name = "random"

    def _propose(self) -> Iterator[Architecture]:
        while True:
            yield self.space.sample(self._rng, uniform_over="children")


class EvolutionarySearch(Search):
    """Mutate and cross over the best children found so far.

    The first children are random. Then each batch holds offspring of the best `num_parents`: a share of them crossed
    over from two parents, all with up to `max_changes` choice blocks changed. The proportions are those of HAT (Wang
    et al., 2020, https://arxiv.org/abs/2005.14187: population 125, parents 25, half of the offspring crossed over),
    the numbers smaller, for about a thousand evaluations rather than its three thousand. Scores of a super-net carry
    no noise, so the best stay parents as long as they are the best; nothing ages.

    Args:
        space: As every search.
        seed: As every search.
        cost: As every search.
        budget: As every search.
        batch_size: Offspring per generation.
        population_size: Random children before the first generation.
        num_parents: How many of the best have offspring.
        crossover_share: The probability that an offspring has two parents.
        max_changes: The most choice blocks that a mutation changes; how many is drawn uniformly.
    """

    name = "evolutionary"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        cost: Callable[[Architecture], Cost] | None = None,
        budget: Budget | None = None,
        batch_size: int = 50,
        population_size: int = 50,
        num_parents: int = 10,
        crossover_share: float = 0.5,
        max_changes: int = 2,
    ) -> None:
        for what, value in {
            "population_size": population_size,
            "num_parents": num_parents,
            "max_changes": max_changes,
        }.items():
            if value < 1:
                raise ValueError(f"{what} must be at least 1, not {value}")
        if not 0 <= crossover_share <= 1:
            raise ValueError(f"crossover_share must lie between 0 and 1, not {crossover_share}")
        super().__init__(space, seed=seed, cost=cost, budget=budget, batch_size=batch_size)
        self.population_size = population_size
        self.num_parents = num_parents
        self.crossover_share = crossover_share
        self.max_changes = max_changes

    @property
    def settings(self) -> dict[str, Any]:
        """What this search is, as plain JSON."""
        return super().settings | {
            "population_size": self.population_size,
            "num_parents": self.num_parents,
            "crossover_share": self.crossover_share,
            "max_changes": self.max_changes,
        }

    def _propose(self) -> Iterator[Architecture]:
        ranking = [scored.architecture for scored in self.ranking() if scored.score < math.inf]
        num_told = len(self._scores)
        while True:
            if num_told + len(self._pending) < self.population_size or not ranking:
                yield self.space.sample(self._rng, uniform_over="children")
            else:
                yield self._offspring(ranking[: self.num_parents])

    def _offspring(self, parents: list[Architecture]) -> Architecture:
        child = self._rng.choice(parents)
        if self._rng.random() < self.crossover_share:
            child = self.space.crossover(child, self._rng.choice(parents), self._rng)
        most = min(self.max_changes, self.space.max_changes(child))
        return self.space.mutate(child, self._rng, num_changes=self._rng.randint(1, most)) if most else child


def run_search(
    search: Search,
    score: Score,
    *,
    num_evaluations: int,
    history_path: str | Path | None = None,
    about: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> list[Scored]:
    """Ask, score and tell until enough children are scored or none is left; returns all, best first.

    With a history, every score is on the disk before the search learns of it. A search that was killed is started
    again with the same settings and the same file: it is told what it had been told, scores nothing twice, and ends
    as it would have without the interruption.

    Args:
        search: A search that has not been asked yet, or, without a history, any.
        score: Scores children, lower is better. Called with one batch at a time.
        num_evaluations: How many children to have scored in the end, those of the history included.
        history_path: A file of records, made if missing.
        about: What the scores depend on (super-net, dev set), as plain JSON: it is written into the history, and a
            history of something else is refused.
        progress: Whether to show a bar with the best score so far.

    Raises:
        ValueError: If the history is that of another search, or `score` returns the wrong number of scores.
    """
    known = {} if history_path is None else _open_history(Path(history_path), search, about)
    with tqdm(total=num_evaluations, unit=" children", disable=not progress, leave=False) as bar:
        while (num_left := num_evaluations - len(search.history)) > 0:
            children = search.ask()[:num_left]
            if not children:
                break
            new = [child for child in children if child not in known]
            scores = list(score(new)) if new else []
            if len(scores) != len(new):
                raise ValueError(f"score returned {len(scores)} scores for {len(new)} architectures")
            values = dict(zip(new, map(float, scores), strict=True))
            if history_path is not None:
                records.extend(history_path, [_record(search, child, value) for child, value in values.items()])
            known |= values
            search.tell(children, [known[child] for child in children])
            best = search.best()
            bar.update(len(children))
            bar.set_postfix(best="none" if best is None else f"{best.score:.4f}")
    return search.ranking()


def _record(search: Search, child: Architecture, score: float) -> records.Record:
    cost = {} if search.cost is None else {"cost": search.cost(child)}
    return {"record": "child", "architecture": str(child), "score": _finite_or_none(score), **cost}


def _open_history(path: Path, search: Search, about: Mapping[str, Any] | None) -> dict[Architecture, float]:
    """The scores on file; a new file begins with the search's settings, which an old one must agree with."""
    settings = search.settings | {"about": None if about is None else dict(about)}
    found = records.read(path) if path.exists() else []
    if not found:
        records.append(path, {"record": "search", "settings": settings, "versions": records.versions()})
        return {}
    if found[0].get("record") != "search":
        raise ValueError(f"{path} is not the history of a search: its first record is {str(found[0])[:80]}")
    _refuse_other_settings(settings, found[0]["settings"], str(path))
    return {Architecture.parse(record["architecture"]): _finite_or_inf(record["score"]) for record in found[1:]}


def _refuse_other_settings(mine: dict[str, Any], theirs: dict[str, Any], where: str) -> None:
    different = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    if different:
        pairs = ", ".join(f"{key} ({theirs.get(key)} there, {mine.get(key)} here)" for key in different)
        raise ValueError(f"{where} is of another search: it differs in {pairs}")


def _one_cost(cost: Callable[[Architecture], Cost], name: str, child: Architecture) -> float:
    return cost(child)[name]


def _finite_or_none(score: float) -> float | None:
    return score if math.isfinite(score) else None


def _finite_or_inf(score: float | None) -> float:
    return math.inf if score is None else score
