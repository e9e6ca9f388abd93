"""What every search promises: asked for children, told their scores, never over the budget, resumed by replaying.

Everything a search will ever ask follows from its settings and from what it was told, so that its state is the list of
what it was told, and a search that was interrupted goes on from there as if it had not been.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import Field, dataclass, field, fields, make_dataclass
from itertools import islice
from typing import Any, ClassVar, NamedTuple

from hf_nasbert.lazy import check_extra
from hf_nasbert.searching.task import MAX_ENUMERATED, SearchTask
from hf_nasbert.settings import Settings, check_fields
from hf_nasbert.space import Architecture

_NUM_DRAWS = 200  # draws for one child before a new one is looked for in another way: among all children
_NUM_STEPS = 200  # of a small space, in a large one by a random walk of so many steps


class Scored(NamedTuple):
    """A child and its score; a score that was not finite is infinite, worse than every other."""

    architecture: Architecture
    score: float


@dataclass(eq=False, repr=False)
class Search:
    """What every search promises.

    - `ask` names children of the space, within the budget, none of them twice. It names the same ones again until all
      of them have been told; an empty list says that no unseen child is left.
    - `num_batches` says on how many of the dev batches, counted from the first, those children are to be scored; None
      means on all. Only a search that saves on scoring ever asks for fewer, and for the same child again then.
    - `tell` takes scores, lower is better, of any children within the budget, also such as were never asked. Scores
      that are not finite rank last.
    - `best` is the best child ever told, of those that were scored on all dev batches.
    - The same settings, asked and told the same things, ask the same; `state_dict` is plain JSON and resumes exactly.

    A search is a dataclass: its fields with a help are its hyper-parameters, settings of a command where it is chosen.

    Args:
        task: Where to search, and what no search may leave.

    Raises:
        ValueError: If a hyper-parameter is out of its range.
    """

    name: ClassVar[str]
    incidental: ClassVar[frozenset[str]] = frozenset({"task"})
    """Fields that do not decide which children are asked for; the task says itself what it is."""
    needs: ClassVar[tuple[str, str] | None] = None
    """A package of the extra `search` that it cannot do without, and how the message that it is missing begins."""

    task: SearchTask

    @classmethod
    def check_installed(cls) -> None:
        """Ask for the package that the search needs, before anything is loaded for it.

        Raises:
            ImportError: If it is not installed; says how to get it.
        """
        if cls.needs is not None:
            check_extra(cls.needs[1], "search", cls.needs[0])

    @classmethod
    def hyperparameters(cls) -> "dict[str, Field[Any]]":
        """The fields that are settings, by name."""
        return {one.name: one for one in fields(cls) if "help" in one.metadata}

    @classmethod
    def settings_class(cls) -> type[Settings]:
        """A dataclass of the hyper-parameters; it refuses what they may not be."""
        own = [
            (name, one.type, field(default=one.default, metadata=one.metadata))
            for name, one in cls.hyperparameters().items()
        ]

        def check(settings: Settings) -> None:
            Settings.__post_init__(settings)
            cls.check(settings)

        name, namespace = f"{cls.__name__}Settings", {"__post_init__": check}
        return make_dataclass(name, own, bases=(Settings,), namespace=namespace, kw_only=True)

    @staticmethod
    def check(settings: Any) -> None:
        """Refuse hyper-parameters that do not fit each other: attributes of a search, or of its settings.

        Raises:
            ValueError: If they do not.
        """

    def __post_init__(self) -> None:
        check_fields(self)
        self.check(self)
        self.space = self.task.space
        self._rng = random.Random(self.task.seed)
        self._scores: dict[Architecture, float] = {}  # in the order told
        self._pending: list[Architecture] = []  # asked, not yet told
        self._events: list[dict[str, Any] | None] = []  # what was told, and None where a new batch was drawn
        self._affordable: list[Architecture] | None = None  # of a small space, shuffled, once draws run dry

    @property
    def settings(self) -> dict[str, Any]:
        """What this search is, as plain JSON: two searches of equal settings ask for the same children."""
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in self.incidental}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}
        return {"search": self.name, **self.task.described, **plain}

    @property
    def num_batches(self) -> int | None:
        """On how many dev batches the children of `ask` are to be scored; None: on all."""
        return None

    @property
    def num_evaluations(self) -> float:
        """How many children were scored; scorings on a part of the dev batches count as that part."""
        return len(self._scores)

    @property
    def cost_of_one(self) -> float:
        """What scoring one of the children of `ask` adds to `num_evaluations`."""
        return 1.0

    @property
    def history(self) -> list[Scored]:
        """Every child told, in that order."""
        return [Scored(architecture, score) for architecture, score in self._scores.items()]

    def ranking(self) -> list[Scored]:
        """Every child told, best first; of equals the one told first."""
        return sorted(self.history, key=lambda scored: scored.score)

    def best(self) -> Scored | None:
        """The best child told so far, or None if none has a finite score."""
        best = min(self._scores, key=self._scores.__getitem__, default=None)
        return None if best is None or self._scores[best] == math.inf else Scored(best, self._scores[best])

    def ask(self) -> list[Architecture]:
        """The children to score next: up to `batch_size`, fewer or none when the space is exhausted."""
        if not self._pending:
            self._events.append(None)
            self._next_batch()
        return list(self._pending)

    def tell(
        self, architectures: Sequence[Sequence[str]], scores: Sequence[float], *, num_batches: int | None = None
    ) -> None:
        """Take the scores of some children. A child that is told twice keeps its first score.

        Args:
            architectures: The children.
            scores: One for each of them.
            num_batches: On how many dev batches they were scored, where that was not all: what `num_batches` said.

        Raises:
            ValueError: If the numbers of children and scores differ, a child is outside the space or the budget, or
                scores on so many batches were not asked for.
        """
        if len(architectures) != len(scores):
            raise ValueError(f"{len(architectures)} architectures came back with {len(scores)} scores")
        children = [self.space.validate(architecture) for architecture in architectures]
        for child in children:
            reason = self.task.why_not(child)
            if reason is not None:
                raise ValueError(f"{child} is over the budget: {reason}")
        if num_batches is not None and num_batches != self.num_batches:
            asked = "all" if self.num_batches is None else self.num_batches
            raise ValueError(f"scores on {num_batches} dev batches were given, but {asked} were asked for")
        finite = [float(score) if math.isfinite(score) else math.inf for score in scores]
        pairs = [[str(child), finite_or_none(score)] for child, score in zip(children, finite, strict=True)]
        self._events.append({"num_batches": num_batches, "scores": pairs})
        self._take(children, finite, num_batches)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if the search had never stopped, in plain JSON types."""
        return {"settings": self.settings, "events": list(self._events)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` described, by asking and telling all of it again.

        Raises:
            ValueError: If it describes another search (names what differs), or this one is not new.
        """
        refuse_other_settings(self.settings, state["settings"], "the saved state")
        if self._events:
            raise ValueError("this search has begun: load the saved state into a new one")
        for event in state["events"]:
            if event is None:
                self.ask()
            else:
                children = [Architecture.parse(child) for child, _ in event["scores"]]
                scores = [finite_or_inf(score) for _, score in event["scores"]]
                self.tell(children, scores, num_batches=event["num_batches"])

    def _take(self, children: list[Architecture], scores: list[float], num_batches: int | None) -> None:
        """Remember what was told."""
        for child, score in zip(children, scores, strict=True):
            self._scores.setdefault(child, score)
        self._pending = [child for child in self._pending if child not in self._scores]

    def _next_batch(self) -> None:
        """Make the children of the next batch pending."""
        self._draw(self.task.batch_size)

    def _draw(self, count: int) -> None:
        """Make so many proposals pending, or as many new children as there are."""
        proposals = self._propose()
        for _ in range(count):
            child = self._next_new(proposals)
            if child is None:
                proposals = iter(())  # they have run dry: not tried again in this batch
                child = self._any_new()
            if child is None:
                break
            self._pending.append(child)

    def _propose(self) -> Iterator[Architecture]:
        """Endless proposals for the next batch, at random; those that are seen or over the budget are passed over."""
        while True:
            yield self._sample()

    def _sample(self) -> Architecture:
        """Any child of the space, each as likely as any other."""
        return self.space.child_at(self._rng.randrange(self.space.num_children))

    def _is_new(self, child: Architecture) -> bool:
        return child not in self._scores and child not in self._pending and self.task.why_not(child) is None

    def _next_new(self, proposals: Iterator[Architecture]) -> Architecture | None:
        """The next proposal that is new and within the budget, if it comes in reasonable time."""
        return next(filter(self._is_new, islice(proposals, _NUM_DRAWS)), None)

    def _any_new(self) -> Architecture | None:
        """Any child that is new and within the budget, None if there is none (or, in large spaces, none near)."""
        if self.space.num_children > MAX_ENUMERATED:
            return self._walk_to_new()
        if self._affordable is None:
            self._affordable = [c for c in self.space.enumerate() if self.task.why_not(c) is None]
            # From a generator of its own: the order is the same whenever it is made, also after resuming.
            random.Random(self.task.seed).shuffle(self._affordable)
        while self._affordable:
            child = self._affordable[-1]
            if self._is_new(child):
                return child
            self._affordable.pop()  # seen once, seen for ever
        return None

    def _walk_to_new(self) -> Architecture | None:
        """Step from neighbour to neighbour within the budget, from the best child known, until one is new."""
        best = self.best()
        child = self.task.start if best is None else best.architecture
        if self._is_new(child):
            return child
        for _ in range(_NUM_STEPS):
            steps = [step for step in self.space.neighbours(child) if self.task.why_not(step) is None]
            new = [step for step in steps if self._is_new(step)]
            if new:
                return self._rng.choice(new)
            if not steps:
                return None
            child = self._rng.choice(steps)
        return None


def refuse_other_settings(mine: dict[str, Any], theirs: dict[str, Any], where: str, advice: str = "") -> None:
    """Refuse what was written by a search of other settings, naming those that differ."""
    different = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    if different:
        pairs = ", ".join(
            f"{key} ({str(theirs.get(key))[:200]} there, {str(mine.get(key))[:200]} here)" for key in different
        )
        raise ValueError(f"{where} is of another search: it differs in {pairs}{advice and ': '}{advice}")


def finite_or_none(score: float) -> float | None:
    """A score as JSON has a word for it."""
    return score if math.isfinite(score) else None


def finite_or_inf(score: float | None) -> float:
    """A score as it is compared."""
    return math.inf if score is None else score
