"""Many objectives at once: NSGA-II over loss and costs, kept in an Optuna study that several machines may share."""

import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_nasbert.searching.base import Search, refuse_other_settings
from hf_nasbert.searching.evolution import mutated
from hf_nasbert.searching.storage import name_of, open_storage, storage_errors
from hf_nasbert.settings import setting
from hf_nasbert.space import Architecture

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial


def pareto_front(values: Sequence[Sequence[float]]) -> list[int]:
    """Which points no other beats: none is at most as large in every value and smaller in one.

    Args:
        values: Points, smaller is better in every value. Those with a value that is not finite are on no front.

    Returns:
        The places of the front's points, by their first value; of equal points, all.
    """
    finite = [i for i, point in enumerate(values) if all(abs(value) < float("inf") for value in point)]
    front: list[int] = []
    # In lexicographic order whatever beats a point stands before it, and on the front stands one that beats it.
    for i in sorted(finite, key=lambda i: tuple(values[i])):
        if not any(_dominates(values[j], values[i]) for j in front):
            front.append(i)
    return front


@dataclass(eq=False, repr=False, kw_only=True)
class ParetoSearch(Search):
    """Search for the whole front of loss against one or two costs: NSGA-II, over Optuna's sampler and storage.

    Optuna keeps the study and selects each generation's parents by rank and crowding distance (NSGA-II: Deb et al.,
    2002, https://doi.org/10.1109/4235.996017). The offspring are our space's own: parents by binary tournament,
    crossed over and mutated without ever leaving the space, drawn again where they are over the budget or known.

    In a storage the study survives, and is what the search goes on from; a search with a storage needs no
    `load_state_dict`. Any number of workers may share one, each under a number of its own: they see each other's
    children. One worker alone resumes exactly, killed at any moment. `optuna-dashboard` opens the storage.

    Args:
        task: As every search; its `cost` is always needed.
        objectives: The costs to keep low beside the loss.
        storage: Where the study is kept: a database's URL such as `sqlite:///search.db`, a `pathlib.Path` of a SQLite
            file, the path of a journal file as text, or a storage of Optuna's. None: in memory.
        study_name: The study's name in the storage.
        worker: This worker's number, among those that share the study.

    Raises:
        ImportError: If Optuna, or the driver of the storage's database, is not installed.
        ValueError: If an objective is no cost, the storage is none, or it holds a study of that name with other
            settings.
        OSError: If the storage cannot be opened or written, here or later: in one line, as on a full disk.
    """

    name = "nsga2"
    needs = ("optuna", "NSGA-II")
    incidental = Search.incidental | {"storage", "study_name", "worker"}

    objectives: Sequence[str] = ("num_parameters",)
    population_size: int = setting(50, "Children of a generation; the first one is random.", at_least=2)
    crossover_share: float = setting(
        0.9, "The probability that an offspring has two parents.", at_least=0, at_most=1
    )  # and 50 children: Optuna's defaults
    max_changes: int = setting(2, "The most choice blocks that a mutation changes.", at_least=1)
    storage: "str | Path | BaseStorage | None" = None
    study_name: str = "search"
    worker: int = 0

    def __post_init__(self) -> None:
        self.check_installed()
        import optuna

        super().__post_init__()
        task = self.task
        if task.cost is None or not self.objectives:
            raise ValueError("a front is of loss against costs: give `cost`, and names of costs as objectives")
        self.objectives = task.check_objectives(self.objectives)
        self._cost_of = task.cost
        self._elsewhere: set[Architecture] = set()  # asked by other workers, not told yet
        self._number_of: dict[Architecture, int] = {}  # of the trial of each pending child
        self._num_drawn = 0  # batches of this worker
        self._states = optuna.trial.TrialState
        self._create_trial = optuna.trial.create_trial
        self._distributions: dict[str, Any] = {
            f"block_{block:02d}": optuna.distributions.CategoricalDistribution(names)
            for block, names in enumerate(self.space.blocks)
        }
        self._news = _News()
        self._sampler = _make_sampler(self.population_size)
        with storage_errors(self.storage):
            self._open_study(optuna, self.study_name)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if the search had never stopped, in plain JSON types.

        Raises:
            ValueError: If the study is in a storage: it is the state.
        """
        if self.storage is not None:
            raise ValueError("the state of this search is in its storage: make the search again with the same one")
        return super().state_dict()

    def _open_study(self, optuna: Any, name: str) -> None:
        """Make the study, or go on with the one that is there."""
        self._study: Study = optuna.create_study(
            study_name=name,
            storage=open_storage(self.storage),
            sampler=self._sampler,
            directions=["minimize"] * (1 + len(self.objectives)),
            load_if_exists=True,
        )
        theirs = self._study.user_attrs.get("settings")
        if theirs is None and not self._trials():
            with warnings.catch_warnings():  # experimental since Optuna 3.2; names the axes of the dashboard
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._study.set_metric_names(["proxy_loss", *self.objectives])
            self._study.set_user_attr("settings", self.settings)
            return
        where = f"{name_of(self.storage)}: the study {name!r}"
        if not isinstance(theirs, Mapping):
            raise ValueError(f"{where} was not made by this search: name another storage")
        refuse_other_settings(self.settings, dict(theirs), where, "name another storage")
        self._go_on()

    def _next_batch(self) -> None:
        with storage_errors(self.storage):
            self._learn()
            self._draw_batch()
            self._write(self._pending)

    def _draw_batch(self) -> None:
        # Of each batch its own generator: drawn again after a kill, it is the same.
        self._rng = random.Random(f"{self.task.seed}/{self.worker}/{self._num_drawn}")
        self._draw(self.task.batch_size)
        self._num_drawn += 1

    def _write(self, children: Sequence[Architecture]) -> None:
        """Add pending children to the study, as running trials; each in one piece, so that a kill tears none."""
        about = {
            "generation": self._sampler.next_generation(self._study),
            "worker": self.worker,
            "batch": self._num_drawn - 1,
            "batch_size": len(self._pending),
        }
        for child in children:
            self._study.add_trial(self._trial(child, self._states.RUNNING, None, about))
        self._learn()

    def _take(self, children: list[Architecture], scores: list[float], num_batches: int | None) -> None:
        first: dict[Architecture, float] = {}
        for child, score in zip(children, scores, strict=True):
            if child not in self._scores:
                first.setdefault(child, score)
        with storage_errors(self.storage):
            self._tell(first)
        super()._take(children, scores, num_batches)

    def _tell(self, scores: dict[Architecture, float]) -> None:
        """Write the scores of children that had none into the study."""
        for child, score in scores.items():
            values = [score, *(float(self._cost_of(child)[name]) for name in self.objectives)]
            state = self._states.COMPLETE if score < float("inf") else self._states.FAIL
            number = self._number_of.pop(child, None)
            told = values if state == self._states.COMPLETE else None
            if number is None:  # a child that was told without having been asked
                about = {"generation": self._sampler.next_generation(self._study)}
                self._study.add_trial(self._trial(child, state, told, about))
            else:
                self._study.tell(number, told, state=state)

    def _trial(
        self, child: Architecture, state: Any, values: Sequence[float] | None, about: dict[str, int]
    ) -> "FrozenTrial":
        trial: FrozenTrial = self._create_trial(
            state=state,
            values=values,
            params=dict(zip(self._distributions, child, strict=True)),
            distributions=self._distributions,
            user_attrs={"architecture": str(child), **about},
        )
        return trial

    def _trials(self) -> "list[FrozenTrial]":
        return self._study.get_trials(deepcopy=False)

    def _learn(self) -> None:
        """Take from the study what is new: told by other workers or by this one before it was killed, or running."""
        self._elsewhere = set()
        for trial in self._news.of(self._study):
            child = _child_of(trial)
            if self.task.why_not(child) is not None:  # within the budget by the costs of then, not by those of now
                continue
            if trial.state == self._states.COMPLETE:
                self._scores.setdefault(child, trial.values[0])
            elif trial.state == self._states.FAIL:
                self._scores.setdefault(child, float("inf"))
            elif trial.user_attrs.get("worker") == self.worker:
                self._number_of[child] = trial.number
            else:
                self._elsewhere.add(child)

    def _go_on(self) -> None:
        """Take up the study where this worker left it: its last batch is pending, as far as it was not told."""
        self._learn()
        mine = [trial for trial in self._trials() if trial.user_attrs.get("worker") == self.worker]
        if not mine:
            return
        self._num_drawn = mine[-1].user_attrs["batch"] + 1
        last = [trial for trial in mine if trial.user_attrs["batch"] == self._num_drawn - 1]
        running = [_child_of(trial) for trial in last if trial.state == self._states.RUNNING]
        running = [child for child in running if self.task.why_not(child) is None]
        if len(last) == last[0].user_attrs["batch_size"]:
            self._pending = running
            self._write([])
        else:  # killed while it was written: draw it again, and write the rest
            self._num_drawn -= 1
            self._draw_batch()
            drawn, self._pending = self._pending, [*dict.fromkeys([*running, *self._pending])]
            self._write([child for child in drawn if child not in running])

    def _propose(self) -> Iterator[Architecture]:
        generation = self._sampler.next_generation(self._study)
        # Optuna gives them by rank when it selects them, and by number when it finds them selected: before a kill.
        found = self._sampler.get_parent_population(self._study, generation)
        parents = sorted(found, key=lambda trial: trial.number)
        while True:
            if not parents:
                yield self._sample()
                continue
            child = self._winner(parents)
            if self._rng.random() < self.crossover_share:
                child = self.space.crossover(child, self._winner(parents), self._rng)
            yield mutated(self.space, child, self._rng, self.max_changes)

    def _winner(self, parents: "Sequence[FrozenTrial]") -> Architecture:
        """The better of two, if one is better."""
        first, second = self._rng.choice(parents), self._rng.choice(parents)
        return _child_of(second if _dominates(second.values, first.values) else first)

    def _is_new(self, child: Architecture) -> bool:
        return child not in self._elsewhere and super()._is_new(child)


def _child_of(trial: "FrozenTrial") -> Architecture:
    return Architecture.parse(trial.user_attrs["architecture"])


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return tuple(a) != tuple(b) and all(x <= y for x, y in zip(a, b, strict=True))


class _News:
    """Trials of a study that are new, or were running when they were last read: one that has ended never changes."""

    def __init__(self) -> None:
        self._num_read = 0
        self._running: list[int] = []

    def of(self, study: "Study") -> "list[FrozenTrial]":
        """Those trials, by number."""
        trials = study.get_trials(deepcopy=False)
        found = [trials[number] for number in (*self._running, *range(self._num_read, len(trials)))]
        self._num_read = len(trials)
        self._running = [trial.number for trial in found if not trial.state.is_finished()]
        return found


def _make_sampler(population_size: int) -> Any:
    """Optuna's NSGA-II, which here selects parents only; the generation of a trial is one of its attributes."""
    from optuna.samplers import NSGAIISampler
    from optuna.trial import TrialState

    class Sampler(NSGAIISampler):
        def __init__(self) -> None:
            super().__init__(population_size=population_size)
            self._news = _News()
            self._generations: dict[int, list[FrozenTrial]] = {}  # of complete trials

        def _read(self, study: "Study") -> None:
            for trial in self._news.of(study):
                if trial.state == TrialState.COMPLETE:
                    self._generations.setdefault(trial.user_attrs["generation"], []).append(trial)

        def next_generation(self, study: "Study") -> int:
            """The youngest generation, or the one after it where it is complete."""
            self._read(study)
            youngest = max(self._generations, default=0)
            return youngest + (len(self._generations.get(youngest, [])) >= population_size)

        def get_population(self, study: "Study", generation: int) -> "list[FrozenTrial]":
            self._read(study)
            return sorted(self._generations.get(generation, []), key=lambda trial: trial.number)

    return Sampler()
