"""A super-net's folder and text in, scored children out: score given ones, or search for the best under a budget.

One file, for a search is nothing but the scoring of the children that it asks for, by whatever they are scored.
"""

import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor, nn
from tqdm import tqdm

from hf_nasbert import records
from hf_nasbert.costs import Budget, LatencyTable, cost_function
from hf_nasbert.data import DataArguments
from hf_nasbert.extraction import load_supernet
from hf_nasbert.foreign import printable
from hf_nasbert.methods.blockwise import stages_of
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.native import native_children
from hf_nasbert.pipeline.arguments import SearchReportArguments
from hf_nasbert.pipeline.confirm import confirm_latency, front_of, measure_here
from hf_nasbert.pipeline.inputs import load_dev_batches, supernet_digest
from hf_nasbert.pipeline.largest_child import LargestChild
from hf_nasbert.pipeline.mixture import Mixture, check_same_weights
from hf_nasbert.pipeline.report import report_search
from hf_nasbert.pipeline.scoring_arguments import ScoreChildrenArguments, ScoringArguments, SearchChildrenArguments
from hf_nasbert.pipeline.team import announce, lead
from hf_nasbert.pipeline.text_settings import say
from hf_nasbert.pipeline.trainings import ChildTrainings
from hf_nasbert.processes import be_alone, join, leave_world
from hf_nasbert.records import Record
from hf_nasbert.scored import (
    BERT,
    CONTROL,
    LARGEST,
    ScoredChild,
    begin_scores,
    filtered_record,
    read_filtered,
    read_scores,
    scored_children,
)
from hf_nasbert.scoring import LIKELY_SHARE, LikelyWords, ScoringReport, score_with_report
from hf_nasbert.searching import (
    SEARCHES,
    ComputePlan,
    GradientBoostedSearch,
    OperatorRidge,
    Predict,
    Score,
    Scored,
    Search,
    SearchTask,
    check_history,
    largest_bracket,
    plan_for,
    random_children,
    run_search,
    search_under_compute,
)
from hf_nasbert.space import Architecture, Candidates, SearchSpace
from hf_nasbert.stopping import StopRequest, leave
from hf_nasbert.teachers import StageErrors
from hf_nasbert.training.machine import tune_allocator
from hf_nasbert.writing import check_apart, check_unless_there, check_writable, write_text

CHUNK = 1000
"""Children between two writes: what a killed run has to repeat."""
_MAX_ENUMERATED = 1_000_000
_FILTER = f"{LIKELY_SHARE:.2%} of the words exactly, the others as a normal distribution"
_Known = TypeVar("_Known")
_WHOLE = 1 - 1e-9  # of a further dev set all documents are held out, but for the one that must be left


class DevSet(NamedTuple):
    """Fixed batches, and how children are scored on them where no head predicts masked words."""

    batches: list[dict[str, Tensor]]
    against_largest: LargestChild | None


def read_latency_table(arguments: ScoringArguments) -> LatencyTable | None:
    """The latency table that the arguments name, if they do.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no such table, or several.
    """
    if arguments.latency_table is None:
        return None
    return LatencyTable.read(
        arguments.latency_table,
        batch_size=arguments.latency_batch_size,
        sequence_length=arguments.latency_sequence_length,
    )


def children_space(config: SupernetConfig, *, native_only: bool) -> Candidates:
    """The children that may be scored: all of the super-net's, or the stock BERTs among them.

    Raises:
        ValueError: If only stock BERTs are asked for and there is none.
    """
    if not native_only:
        whole: SearchSpace = config.space
        return whole
    return native_children(config.space, hidden_size=config.hidden_size, embedding_size=config.word_embedding_size)


class _Task(NamedTuple):
    """What all processes score together."""

    children: list[Architecture]
    num_batches: int | None
    dev_set: str | None
    is_filter: bool


class ProxyScorer:
    """Scores children of a super-net's folder on fixed batches of held-out text, and knows what they cost.

    Args:
        arguments: The super-net, and how much text.
        data: The text; without `tokenizer_name` the super-net's own tokenizer cuts it.

    Raises:
        FileNotFoundError: If the super-net or a file of the text is missing.
        ValueError: If super-net, tokenizer and text do not fit each other, or no child is a stock BERT and only such
            ones are asked for.
    """

    def __init__(self, arguments: ScoringArguments, data: DataArguments) -> None:
        tune_allocator()  # a batch's states are freed and asked for again, child after child
        self.supernet = load_supernet(arguments.supernet, None)
        self.config = self.supernet.config
        self.space = children_space(self.config, native_only=arguments.native_only)
        self._batches, about_text = load_dev_batches(
            self.config,
            arguments.supernet,
            data,
            num_batches=arguments.num_dev_batches,
            batch_size=arguments.dev_batch_size,
        )
        latency = read_latency_table(arguments)
        self.cost = cost_function(
            self.config,
            sequence_length=data.max_seq_length,
            latency=latency,
            head_parameters=self.supernet.head_parameters,
        )
        self.settings: dict[str, Any] = {"supernet": supernet_digest(arguments.supernet), **about_text}
        """What the scores depend on: losses of other settings do not compare."""
        if latency is not None:
            self.settings["latency_table"] = f"{latency.described}, table {latency.digest}"
        nn.Module.to(self.supernet, PartialState().device)
        self.against_largest: LargestChild | None = None
        """How children are scored where no head predicts masked words: by their distance from the largest child."""
        if not isinstance(self.supernet, SupernetForMaskedLM):
            self.settings["loss"] = "distance from the largest child"
            self.against_largest = LargestChild(self.supernet, self._batches)
        self.predict: Predict | None = None
        """What gives the losses of children in place of their inherited weights."""
        if arguments.stage_errors is not None:
            self._judge_stages(arguments.stage_errors)
        self.trainings = ChildTrainings(
            arguments, self.supernet, arguments.supernet, self.settings["supernet"], data, self._batches,
            arguments.output,
        )  # fmt: skip
        self.further: dict[str, DevSet] = {}
        """Further dev sets, by name."""
        self.filter: LikelyWords | None = None
        """What estimates losses, once it was asked to."""
        self._batch_losses: dict[Architecture, tuple[float, ...]] = {}  # of the children scored last
        self.stop = StopRequest()
        """Whether any process was asked to stop, as all learn with the scores they make together."""

    def _judge_stages(self, number: int) -> None:
        """Have all children scored by the errors of their stages."""
        supernet: Any = self.supernet
        check_same_weights(supernet, f"stage_errors={number} runs a stage without the rest of its child, and")
        stages = stages_of(self.config.space, number)
        self.settings["loss"] = f"errors of {len(stages)} stages"
        judge = cache(lambda: StageErrors(supernet, self._batches, stages))
        self.predict = lambda children: judge()(children)

    def add_dev_sets(self, arguments: SearchChildrenArguments, data: DataArguments) -> None:
        """Load the further dev sets.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If one is too short, or of the text that the super-net was trained on.
        """
        for name, path in arguments.dev_sets.items():
            its = replace(data, dataset_name=None, packaged=None, train_files=[path], validation_fraction=_WHOLE)
            batches, about = load_dev_batches(
                self.config,
                arguments.supernet,
                its,
                num_batches=arguments.num_dev_batches,
                batch_size=arguments.dev_batch_size,
            )
            largest = None if self.against_largest is None else LargestChild(self.supernet, batches)
            self.further[name] = DevSet(batches, largest)
            self.settings.setdefault("dev_files", {})[name] = about["dev_data"]

    def dev_losses(self, children: Sequence[Architecture]) -> list[dict[str, float]]:
        """The finite losses of every child on the further dev sets, by name."""
        found = {name: _score(self, children, dev_set=name).losses for name in self.further}
        return [
            {name: losses[place] for name, losses in found.items() if math.isfinite(losses[place])}
            for place in range(len(children))
        ]

    def __call__(
        self, children: Sequence[Architecture], *, num_batches: int | None = None, progress: bool = False
    ) -> list[float]:
        """The proxy loss of every child, on the first `num_batches` of the dev batches; by default on all.

        Several processes (`accelerate launch`, `torchrun`) share the work: see `team.lead`.
        """
        report = _score(self, children, num_batches, progress=progress)
        self._batch_losses = _by_batch(children, report) if num_batches is None else {}
        return report.losses

    def by_batch(self, child: Architecture) -> tuple[float, ...]:
        """The loss of a child that was scored last, on each of the dev batches; nothing where it is not known."""
        return self._batch_losses.get(child, ())

    def budget(self, arguments: SearchChildrenArguments) -> Budget:
        """The caps in numbers."""
        return arguments.budget().of(self.cost(self.supernet.largest_architecture))

    def controls(self, budget: Budget) -> dict[str, Architecture]:
        """What the children of a search are compared with: the largest one, and the largest BERT within the budget."""
        named = {LARGEST: self.supernet.largest_architecture}
        width = self.config.hidden_size
        try:  # of BERT's blocks, whatever the width of the embeddings before them
            berts = native_children(self.config.space, hidden_size=width, embedding_size=width)
        except ValueError:  # none, or too many to list
            return named
        within = [child for child in berts.enumerate() if budget.admits(self.cost(child))]
        if within:
            named[BERT] = max(within, key=lambda child: self.cost(child)["num_parameters"])
        return named

    def scored(self, child: Architecture, loss: float, batch_losses: tuple[float, ...] = ()) -> ScoredChild:
        """One child with its loss and its costs."""
        return ScoredChild(
            architecture=child,
            proxy_loss=loss if math.isfinite(loss) else None,
            cost=self.cost(child),
            batch_losses=batch_losses,
        )


def _by_batch(children: Sequence[Architecture], report: ScoringReport) -> dict[Architecture, tuple[float, ...]]:
    """The losses batch by batch of children that have finite ones, to seven digits."""
    return {
        child: tuple(float(f"{loss:.7g}") for loss in losses)
        for child, losses in zip(children, report.batch_losses, strict=bool(report.batch_losses))
        if all(map(math.isfinite, losses))
    }


def _score(
    scorer: ProxyScorer,
    children: Sequence[Architecture],
    num_batches: int | None = None,
    dev_set: str | None = None,
    *,
    is_filter: bool = False,
    progress: bool = False,
) -> ScoringReport:
    if scorer.predict is not None:
        start, losses = time.perf_counter(), list(scorer.predict(children))
        return ScoringReport(losses, len(losses), 0, 0, time.perf_counter() - start, 0, 0)
    announce(_Task(list(children), num_batches, dev_set, is_filter))
    own = DevSet(scorer._batches, scorer.against_largest) if dev_set is None else scorer.further[dev_set]
    batches, processes = own.batches[:num_batches], PartialState()
    if own.against_largest is None:
        supernet: Any = scorer.supernet
        if is_filter and scorer.filter is None:
            scorer.filter = LikelyWords(supernet, batches)
        head = scorer.filter if is_filter else None
        report = score_with_report(supernet, children, batches, progress=progress, processes=processes, head=head)
    else:
        report = own.against_largest.score(children, num_batches, progress=progress, processes=processes)
    if processes.num_processes > 1 and any(gather_object([scorer.stop.is_set])):
        scorer.stop.set()
    return report


def _take_part(scorer: ProxyScorer, task: _Task) -> None:
    """Score with the main process what it announced."""
    _score(scorer, task.children, task.num_batches, task.dev_set, is_filter=task.is_filter)


def score_children(arguments: ScoreChildrenArguments, data: DataArguments) -> list[ScoredChild]:
    """Score children, one record each in the output file; those that it holds already are not scored again.

    With `exact_share` a filter orders the chosen children first, and only its best are scored. What it makes of each
    is in the file too, as a record of another kind (`scored.filtered_record`).

    Returns:
        The chosen children, best first; of filtered ones those that were scored.

    Raises:
        ValueError: If a child is not in the space, the file holds scores of other settings or another filter's, or a
            super-net that predicts no words was to be filtered.
        WriteError: If the output cannot be written; of a full disk, what it held is kept.
        SystemExit: With status 0, if the process was asked to stop (`stopping.STOP_SIGNALS`).
    """
    if arguments.adapt_steps:
        be_alone("training children")
    if join().is_main_process:
        check_unless_there(arguments.output)  # before super-net and text are loaded
    scorer = ProxyScorer(arguments, data)
    if arguments.exact_share is not None and scorer.against_largest is not None:
        raise ValueError(
            f"exact_share={arguments.exact_share}: the filter saves words of a vocabulary, and {arguments.supernet} "
            "predicts none: leave it out"
        )
    if arguments.adapt_steps:
        _adapt(scorer, arguments, SearchTask(scorer.space, seed=arguments.seed))
    with scorer.stop:
        scored = lead(partial(_score_missing, scorer, arguments), partial(_take_part, scorer))
    leave_world()
    return scored


def _adapt(scorer: ProxyScorer, arguments: ScoringArguments, task: SearchTask) -> None:
    """Have all children scored by the additive model of a sample that is adapted, as soon as a score is asked for.

    Not before: an output of other settings is refused first, and one that is complete needs no model.
    """
    children = random_children(task, arguments.num_adapted)
    recipe = asdict(scorer.trainings.recipe(arguments.adapt_steps))
    scorer.settings["adapted"] = {"children": len(children), "recipe": recipe, "drawn_by": task.described}
    fitted = cache(lambda: scorer.trainings.fit(OperatorRidge(scorer.space.blocks), children).predict)
    scorer.predict = lambda asked: fitted()(asked)


def _operators_file(arguments: ScoringArguments) -> Path:
    return Path(f"{arguments.output.removesuffix('.jsonl')}.operators.md")


def _score_missing(scorer: ProxyScorer, arguments: ScoreChildrenArguments) -> list[ScoredChild]:
    children = choose_children(arguments, scorer.space)
    output = Path(arguments.output)

    def known(written: list[Record]) -> dict[Architecture, ScoredChild]:
        return read_scores(written, scorer.settings, str(output))

    def scored(child: Architecture, loss: float, batch_losses: tuple[float, ...]) -> Record:
        return scorer.scored(child, loss, batch_losses).to_record()

    if arguments.exact_share is not None:
        children = _best_by_filter(scorer, children, output, known, arguments.exact_share)
    found = _complete(scorer, children, output, known, scored)
    return sorted([found[child] for child in children], key=lambda child: child.loss)


def _best_by_filter(
    scorer: ProxyScorer,
    children: list[Architecture],
    output: Path,
    known_exactly: Callable[[list[Record]], object],
    share: float,
) -> list[Architecture]:
    """The share of the children that a filter finds best, in the order given; what it makes of all is written."""

    def known(written: list[Record]) -> dict[Architecture, float]:
        known_exactly(written)  # refuses what was scored with other settings
        return read_filtered(written, _FILTER, str(output))

    def filtered(child: Architecture, loss: float, _: tuple[float, ...]) -> Record:
        return filtered_record(child, loss, _FILTER)

    num_best = max(1, round(share * len(children)))
    losses = _complete(scorer, children, output, known, filtered, is_filter=True, num_to_come=num_best)
    say(f"the best {num_best:,} of {len(children):,} children, as a filter orders them, are scored exactly")
    best = set(sorted(children, key=losses.__getitem__)[:num_best])
    return [child for child in children if child in best]


def _complete(
    scorer: ProxyScorer,
    children: Sequence[Architecture],
    output: Path,
    known: Callable[[list[Record]], dict[Architecture, _Known]],
    to_record: Callable[[Architecture, float, tuple[float, ...]], Record],
    *,
    is_filter: bool = False,
    num_to_come: int = 0,
) -> dict[Architecture, _Known]:
    """Score the children that the output lacks, and write them, chunk by chunk.

    Args:
        scorer: What scores them.
        children: Those that it is to hold.
        output: The file.
        known: What it says of children; refuses a file of other settings.
        to_record: What is written of a child, its loss, and that on each dev batch.
        is_filter: Whether losses are estimated.
        num_to_come: How many children are scored after these, for the message to those who stop.

    Returns:
        What the file says of children in the end.
    """

    def unwritten(scored: Mapping[Architecture, Record], written: list[Record]) -> list[Record]:
        there = known(written)
        new = [record for child, record in scored.items() if child not in there]
        return new if written else [begin_scores(scorer.settings), *new]

    found = known(records.read(output)) if output.exists() else {}
    missing = [child for child in children if child not in found]
    if missing:
        check_writable(output, is_appended=True)
    report: ScoringReport | None = None
    is_short = len(missing) <= CHUNK  # then the inner bar is all there is to see
    with tqdm(total=len(missing), unit=" children", disable=is_short, leave=False) as bar:
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            done = _score(scorer, chunk, is_filter=is_filter, progress=True)
            by_batch = _by_batch(chunk, done)
            scored = {
                child: to_record(child, loss, by_batch.get(child, ()))
                for child, loss in zip(chunk, done.losses, strict=True)
            }
            # Another process may have begun the file since, with these settings or with others.
            found = known(records.update(output, partial(unwritten, scored)))
            report = done if report is None else report + done
            bar.update(len(chunk))
            num_left = len(missing) - start - len(chunk) + num_to_come
            if scorer.stop.is_set and num_left:
                leave(f"stopped: {output} lacks {num_left:,} children; the same command scores them")
    if report is not None and scorer.predict is None:
        tqdm.write(printable(f"{'filter: ' if is_filter else ''}{report}"), file=sys.stderr)
    return found


def search_children(arguments: SearchChildrenArguments, data: DataArguments) -> list[ScoredChild]:
    """Search for the best child within a budget; the output file is the search's history, from which it resumes.

    A GBDT-guided search leaves its report on operators beside it, as `.operators.md`.

    Returns:
        All scored children, best first; under a cap on latency without those that were measured above
        it (see `confirm_latency`).

    Raises:
        ImportError: If the search needs a package that is not installed.
        ValueError: If no child is within the budget or an objective is no cost, before anything is scored; or if the
            file holds another search.
        WriteError: If an output cannot be written: before anything is scored where that is known then; on a full disk
            later, and what the history held is kept.
        SystemExit: With status 0, if the process was asked to stop (`stopping.STOP_SIGNALS`).
    """
    SEARCHES[arguments.search].check_installed()
    if arguments.adapt_steps or arguments.compute_budget is not None or arguments.search == "trained_halving":
        be_alone("training children")
    if arguments.search == "gradient_mixture":
        be_alone("mixing operators")
    if join().is_main_process:
        check_unless_there(arguments.output)  # before super-net and text are loaded
        check_apart(
            output=arguments.output,
            latency_table=arguments.latency_table,
            report=arguments.report,
            storage=arguments.study_file if arguments.search == "nsga2" else None,
        )
        if arguments.report is not None:
            check_writable(arguments.report)
        if arguments.search == "gbdt":
            check_writable(_operators_file(arguments))
    scorer = ProxyScorer(arguments, data)
    scorer.add_dev_sets(arguments, data)
    with scorer.stop:
        scored = lead(partial(_search, scorer, arguments), partial(_take_part, scorer))
    leave_world()
    return scored


def _search(scorer: ProxyScorer, arguments: SearchChildrenArguments) -> list[ScoredChild]:
    if arguments.compute_budget is not None:
        trainings = replace(
            scorer.trainings,
            child_steps=arguments.child_steps,
            child_learning_rate=arguments.child_learning_rate,
        )
        budget = arguments.passes(trainings.prices)
        plan = plan_for(_task(arguments, scorer), budget, trainings.prices)
        say(f"compute budget: {plan}")
        if not plan.num_scored:
            return _search_under_compute(scorer, arguments, trainings, plan)
        arguments = replace(arguments, num_evaluations=plan.num_scored, compute_budget=None)
    search = _make_search(arguments, scorer)
    if arguments.adapt_steps:
        _adapt(scorer, arguments, search.task)
    score: Score = scorer
    if arguments.search == "trained_halving":
        longest = arguments.search_settings.max_steps
        scorer.settings["adapted"] = {"recipe": asdict(scorer.trainings.recipe(longest))}

        def score(children: Sequence[Architecture], num_batches: int = longest) -> list[float]:
            return scorer.trainings.adapt(children, num_batches)

    ranking = run_search(
        search,
        score,
        num_evaluations=arguments.num_evaluations,
        history_path=arguments.output,
        about=scorer.settings,
        progress=True,
        should_stop=lambda: scorer.stop.is_set,
        further=scorer.dev_losses if scorer.further else None,
        by_batch=scorer.by_batch if score is scorer else None,
    )
    if scorer.stop.is_set and search.num_evaluations < arguments.num_evaluations:
        done, wanted = search.num_evaluations, arguments.num_evaluations
        leave(f"stopped: {arguments.output} has {done:,.0f} of {wanted:,} children; the same command goes on")
    scored = [scorer.scored(child, loss) for child, loss in ranking]
    if scorer.further:
        kept = scored_children(records.read(arguments.output), arguments.output)
        losses = {child.architecture: child.dev_losses for child in kept}
        scored = [replace(child, dev_losses=losses.get(child.architecture, {})) for child in scored]
    scored = _confirmed(scored, scorer, arguments)
    if score is scorer and scorer.predict is None:
        _add_controls(scorer, arguments)
    with _shown_if_unwritten(scored, arguments):
        if isinstance(search, GradientBoostedSearch) and sum(math.isfinite(loss) for _, loss in ranking) > 1:
            write_text(_operators_file(arguments), search.operator_report() + "\n")
        _write_report(arguments)
    return scored


@contextmanager
def _shown_if_unwritten(scored: Sequence[ScoredChild], arguments: SearchChildrenArguments) -> Iterator[None]:
    """Print what was found where a page of it cannot be written: it is not lost with its page."""
    try:
        yield
    except (OSError, ValueError):
        tqdm.write(printable(as_search_report(scored, arguments), sys.maxsize))
        raise


def _write_report(arguments: SearchChildrenArguments) -> None:
    if arguments.report is not None:
        report_search(
            SearchReportArguments(records=arguments.output, output=arguments.report, supernet=arguments.supernet)
        )


def _add_controls(scorer: ProxyScorer, arguments: SearchChildrenArguments) -> None:
    """Score what the children are compared with, where the history does not hold it yet."""
    found = records.read(arguments.output)
    known = {record["name"] for record in found if record.get("record") == CONTROL}
    missing = {name: child for name, child in scorer.controls(scorer.budget(arguments)).items() if name not in known}
    if missing:
        losses = scorer(list(missing.values()))
        scored = [
            scorer.scored(child, loss, scorer.by_batch(child))
            for child, loss in zip(missing.values(), losses, strict=True)
        ]
        told = [
            {**child.to_record(), "record": CONTROL, "name": name} for name, child in zip(missing, scored, strict=True)
        ]
        records.extend(arguments.output, told)


def _search_under_compute(
    scorer: ProxyScorer, arguments: SearchChildrenArguments, trainings: ChildTrainings, plan: ComputePlan
) -> list[ScoredChild]:
    """Adapt, train and choose; the output holds the trained children, or where none is, those of predicted loss."""
    task = _task(arguments, scorer)
    output = Path(arguments.output)
    settings = {"search": arguments.search, **task.described, "compute_budget": str(plan)}
    recipe = asdict(trainings.recipe(plan.num_steps))
    settings["about"] = scorer.settings | {"recipe": recipe, "child_learning_rate": arguments.child_learning_rate}
    head = {"record": "search", "settings": settings, "versions": records.versions()}

    def unless_there(found: list[Record], new: Sequence[Record]) -> Sequence[Record]:
        check_history(output, found, settings)
        return [] if found else new

    unless_there(records.read(output) if output.exists() else [], [])

    # A prediction is free: no fewer are looked through than are to be trained.
    num_explored = max(arguments.num_evaluations, plan.num_drawn + plan.num_best)

    def explore(predict: Predict) -> list[Scored]:
        return run_search(_make_search(arguments, scorer), predict, num_evaluations=num_explored)

    ranking, num_trained = search_under_compute(task, plan, trainings, explore)
    found = ranking[:num_trained] or ranking
    scored = [scorer.scored(child, loss) for child, loss in found]
    records.update(output, lambda there: unless_there(there, [head, *(child.to_record() for child in scored)]))
    how = f"{num_trained} children were trained" if num_trained else "losses are predicted"
    say(f"{how}; {Path(arguments.output).stem}.*.jsonl beside {arguments.output} hold what was trained")
    scored = _confirmed(scored, scorer, arguments)
    with _shown_if_unwritten(scored, arguments):
        _write_report(arguments)
    return scored


def _confirmed(
    scored: list[ScoredChild], scorer: ProxyScorer, arguments: SearchChildrenArguments
) -> list[ScoredChild]:
    """The children that keep to their cap on latency, where that can be measured."""
    table = read_latency_table(arguments)
    if table is None or arguments.max_latency is None or not arguments.measure_winner:
        return scored
    measure = measure_here(table, scorer.config)
    if measure is None:
        say(f"latencies are the table's, not measured again: it is of another device ({table.described})")
        return scored
    return confirm_latency(
        scored,
        cap=scorer.budget(arguments).caps["latency_ms"],
        objectives=arguments.objectives,
        measure=measure,
        history=arguments.output,
    )


def _task(arguments: SearchChildrenArguments, scorer: ProxyScorer) -> SearchTask:
    task = SearchTask(scorer.space, seed=arguments.seed, cost=scorer.cost, budget=scorer.budget(arguments))
    task.check_objectives(arguments.objectives)
    return task


def _make_search(arguments: SearchChildrenArguments, scorer: ProxyScorer) -> Search:
    task = _task(arguments, scorer)
    further: dict[str, Any] = {}
    if arguments.search == "nsga2":
        Path(arguments.output).parent.mkdir(parents=True, exist_ok=True)
        table = read_latency_table(arguments)
        of_kind = "" if table is None else f"-{table.digest}"
        if arguments.stage_errors is not None:
            of_kind += f"-{arguments.stage_errors} stages"
        if arguments.adapt_steps:
            of_kind += f"-{arguments.num_adapted} adapted for {arguments.adapt_steps}"
        further = {
            "objectives": arguments.objectives,
            "storage": arguments.study,
            # Losses of two super-nets or texts do not mix, nor scores of two kinds or latencies of two tables.
            "study_name": f"{scorer.settings['supernet']}-{scorer.settings['dev_data']}{of_kind}",
            "worker": arguments.worker,
        }
    elif arguments.search == "linas":
        further = {"objectives": arguments.objectives}
    elif arguments.search == "halving":
        total, rungs = arguments.num_dev_batches, asdict(arguments.search_settings)
        further = {"total_batches": total, "bracket_size": _bracket_size(arguments, total, **rungs)}
    elif arguments.search == "trained_halving":
        steps = arguments.search_settings
        size = _bracket_size(arguments, steps.max_steps, min_batches=steps.min_steps, reduction=steps.reduction)
        further = {"bracket_size": size}
    elif arguments.search == "gradient_mixture":
        mixture, asked, output = Mixture(scorer.supernet, scorer.space), arguments.search_settings, arguments.output
        scorer.settings["mixture_passes"] = round(asked.mixture_steps * mixture.passes, 3)
        # Refused now, not when the parameters are learned.
        unlearned = SEARCHES[arguments.search](task, **asdict(asked)).settings | {"about": scorer.settings}
        found = records.read(output) if Path(output).exists() else []
        check_history(Path(output), found, unlearned, but=("logits",))
        further = {"logits": mixture.learn(scorer._batches, asked.mixture_steps, asked.mixture_rate)}
    return SEARCHES[arguments.search](task, **asdict(arguments.search_settings), **further)


def _bracket_size(arguments: SearchChildrenArguments, total_batches: int, **rungs: int) -> int:
    """What the evaluations pay for; a run that is extended goes on with the smaller brackets it began with."""
    largest = largest_bracket(arguments.num_evaluations, total_batches=total_batches, **rungs)
    output = Path(arguments.output)
    head = next(iter(records.read(output)), {}) if output.exists() else {}
    settings = head.get("settings")
    begun = settings.get("bracket_size") if isinstance(settings, Mapping) else None
    return begun if type(begun) is int and 1 <= begun <= largest else largest


def as_search_report(scored: Sequence[ScoredChild], arguments: SearchChildrenArguments, *_: object) -> str:
    """What a search has found, as text: the best children, and the front of every dev set."""
    fronts = [as_front_table(scored, arguments.objectives, name) for name in (None, *arguments.dev_sets)]
    return "\n\n".join([as_table(scored), *fronts])


def as_front_table(scored: Sequence[ScoredChild], objectives: Sequence[str], dev_set: str | None = None) -> str:
    """The front of scored children, those than which none is better in loss and costs at once, as text."""
    front = front_of(scored, objectives, dev_set)
    size = "1 child" if len(front) == 1 else f"{len(front):,} children"
    loss = "loss" if dev_set is None else f"loss on {dev_set}"
    lines = [_line(child, None if dev_set is None else child.dev_losses[dev_set]) for child in front]
    return "\n".join([f"the front of {loss} against {' and '.join(objectives)}, {size}:", *lines])


def _line(child: ScoredChild, loss: float | None = None) -> str:
    cost, measured_ms = child.cost, child.measured_latency_ms
    parts = [
        f"{child.loss if loss is None else loss:.4f}",
        f"{cost['num_parameters']:>12,} parameters",
        f"{cost['flops'] / 1e6:>10,.1f} MFLOPs",
    ]
    if "latency_ms" in cost:
        parts.append(
            f"{cost['latency_ms']:>8.2f} ms" + ("" if measured_ms is None else f" ({measured_ms:.2f} measured)")
        )
    if "peak_activation_bytes" in cost:
        parts.append(f"{cost['peak_activation_bytes'] / 1e6:>7.2f} MB")
    return "  ".join([*parts, str(child.architecture)])


def as_table(scored: Sequence[ScoredChild], limit: int = 10) -> str:
    """The first of some children, as text."""
    finite = [child for child in scored if child.proxy_loss is not None]
    lines = [f"{len(scored):,} children scored, {len(scored) - len(finite):,} without a finite loss; the best:"]
    return "\n".join([*lines, *map(_line, finite[:limit])])


def choose_children(arguments: ScoreChildrenArguments, space: Candidates) -> list[Architecture]:
    """The children to score, in an order in which neighbours share long prefixes."""
    if arguments.architectures is not None:
        return sorted({space.validate(text) for text in arguments.architectures})
    if arguments.all_children or (arguments.num_random or 0) >= space.num_children:
        if space.num_children > _MAX_ENUMERATED:
            raise ValueError(f"the space has {space.num_children:,} children: score some of them with num_random")
        return list(space.enumerate())
    if (arguments.num_random or 0) > _MAX_ENUMERATED:
        raise ValueError(f"num_random={arguments.num_random}: at most {_MAX_ENUMERATED:,} children are scored at once")
    rng, indices = random.Random(arguments.seed), set[int]()
    while len(indices) < (arguments.num_random or 0):
        indices.add(rng.randrange(space.num_children))
    return [space.child_at(index) for index in sorted(indices)]
