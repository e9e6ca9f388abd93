"""A super-net's folder and text in, scored children out: score given ones, or search for the best under a budget."""

import math
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm

from hf_nasbert import records
from hf_nasbert.costs import Budget, LatencyTable, cost_function
from hf_nasbert.data import DataArguments
from hf_nasbert.extraction import load_supernet
from hf_nasbert.foreign import printable
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.native import native_space
from hf_nasbert.paths import expand_paths
from hf_nasbert.pipeline.confirm import confirm_latency, front_of, measure_here
from hf_nasbert.pipeline.inputs import load_dev_batches, weights_digest
from hf_nasbert.pipeline.report import SearchReportArguments, report_search
from hf_nasbert.pipeline.team import announce, lead
from hf_nasbert.pipeline.trained_on import say
from hf_nasbert.processes import join, leave_world
from hf_nasbert.recipe_arguments import Choice
from hf_nasbert.records import Record
from hf_nasbert.scored import ScoredChild, begin_scores, read_scores
from hf_nasbert.scoring import ScoringReport, score_with_report
from hf_nasbert.search import (
    SEARCHES,
    SETTINGS,
    GradientBoostedSearch,
    Search,
    SearchTask,
    largest_bracket,
    run_search,
)
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.stopping import StopRequest, leave
from hf_nasbert.writing import check_apart, check_unless_there, check_writable, write_text

SearchName = Literal["random", "size_matched", "evolution", "nsga2", "halving", "gbdt", "shrinking"]
_CHUNK = 1000  # children between two writes: what a killed run has to repeat
_MAX_ENUMERATED = 1_000_000


@dataclass(kw_only=True)
class ScoringArguments:
    """What children are scored with: a super-net's weights, on how much of the held-out text.

    Raises:
        ValueError: If a number lies outside its range.
    """

    supernet: str = field(metadata={"help": "Folder of the super-net."})
    output: str = field(metadata={"help": "File of records; an interrupted run continues from it."})
    num_dev_batches: int = field(default=4, metadata={"help": "Fixed batches of held-out text."})
    dev_batch_size: int = field(default=16, metadata={"help": "Sequences in each of them."})
    seed: int = field(default=0, metadata={"help": "Seed of the draw of children."})
    native_only: bool = field(
        default=False, metadata={"help": "Only children that are a stock BERT, which need no code of ours."}
    )
    latency_table: str | None = field(
        default=None, metadata={"help": "File of a table from `hf-nasbert latency`: children then have a latency_ms."}
    )
    latency_batch_size: int | None = field(
        default=None, metadata={"help": "Which of the file's tables, if it holds several: that of this batch size,"}
    )
    latency_sequence_length: int | None = field(default=None, metadata={"help": "and of this sequence length."})

    def __post_init__(self) -> None:
        expand_paths(self)
        for name in ("num_dev_batches", "dev_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass(kw_only=True)
class ScoreChildrenArguments(ScoringArguments):
    """Which children to score.

    Raises:
        ValueError: If not exactly one choice of children is given.
    """

    architectures: list[str] | None = field(default=None, metadata={"help": "These children."})
    num_random: int | None = field(default=None, metadata={"help": "So many different children, drawn uniformly."})
    all_children: bool = field(default=False, metadata={"help": "Every child of the space."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum([self.architectures is not None, self.num_random is not None, self.all_children]) != 1:
            raise ValueError("choose children by exactly one of architectures, num_random and all_children")
        if self.num_random is not None and self.num_random < 1:
            raise ValueError(f"num_random={self.num_random} must be at least 1")


@dataclass(kw_only=True)
class SearchChildrenArguments(ScoringArguments):
    """How to search, and within which budget.

    Raises:
        ValueError: If a number lies outside its range, a cap is no quantity, or a setting is of another search.
    """

    choices: ClassVar[dict[str, Choice]] = {"search_settings": Choice("search", lambda: SETTINGS)}
    """Settings of their own that come with a choice."""

    search: SearchName = field(default="evolution", metadata={"help": "How children are chosen."})
    num_evaluations: int = field(default=1000, metadata={"help": "Children to score."})
    objectives: list[str] = field(
        default_factory=lambda: ["num_parameters"],
        metadata={"help": "Costs that the front is of, beside the loss; nsga2 searches for that front."},
    )
    storage: str | None = field(
        default=None,
        metadata={
            "help": "Where nsga2 keeps its study, which optuna-dashboard opens and several machines may share: a "
            "database's URL or the path of a journal; by default a SQLite file beside the output."
        },
    )
    report: str | None = field(
        default=None, metadata={"help": "HTML file to draw the result to, as `hf-nasbert report` does."}
    )
    worker: int = field(default=0, metadata={"help": "This machine's number among those that share the storage."})
    max_parameters: int | str | None = field(
        default=None,
        metadata={
            "help": "Cap on parameters, such as 15M; embeddings count. 0.5x, of any cap: of the largest child's."
        },
    )
    max_flops: int | str | None = field(default=None, metadata={"help": "Cap on FLOPs of one sequence, such as 2.5G."})
    max_latency_ms: float | str | None = field(
        default=None, metadata={"help": "Cap on the latency of the table's batch, in milliseconds (latency_table)."}
    )
    measure_winner: bool = field(
        default=True,
        metadata={
            "help": "Under max_latency_ms: run the winner and the front here before they are returned, and pass over "
            "what is slower than the table says it is. Only on the table's own device."
        },
    )
    max_memory: int | str | None = field(
        default=None,
        metadata={"help": "Cap on the peak of activations of one sequence in float32, in bytes, such as 64M."},
    )
    search_settings: Any = None
    """The search's hyper-parameters: an instance of its class in `SETTINGS`, made of a mapping or of all defaults."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.search_settings = self.choices["search_settings"].settings_of(self.search, self.search_settings)
        if self.num_evaluations < 1:
            raise ValueError(f"num_evaluations={self.num_evaluations} must be at least 1")
        if self.search == "halving" and self.num_dev_batches <= (first := self.search_settings.min_batches):
            raise ValueError(
                f"num_dev_batches={self.num_dev_batches}: there is nothing to save; the search halving scores "
                f"children on a part of the dev batches first, and needs {first + 1} at least"
            )
        if self.search != "nsga2" and (self.storage is not None or self.worker):
            raise ValueError(f"storage and worker are of the search nsga2, not of {self.search}")
        if self.max_latency_ms is not None and self.latency_table is None:
            raise ValueError("max_latency_ms caps what a latency_table says: make one by `hf-nasbert latency`")
        if not self.objectives:
            raise ValueError("a front is of loss against costs: name one or two (objectives)")
        self.budget()

    @property
    def study(self) -> str | Path:
        """Where nsga2 keeps its study: by default a SQLite file of the output's whole name, which no other has."""
        return self.storage or Path(f"{self.output}.db")

    @property
    def study_file(self) -> Path | None:
        """The file in which that lies, if it is one: a database's URL may name a server."""
        scheme, is_url, place = str(self.study).partition("://")
        if not is_url:
            return Path(self.study)
        return Path(place[1:].partition("?")[0]) if scheme.startswith("sqlite") else None

    def budget(self) -> Budget:
        """The caps; shares among them are of the largest child's costs."""
        return Budget.parse(
            max_parameters=self.max_parameters,
            max_flops=self.max_flops,
            max_latency_ms=self.max_latency_ms,
            max_memory=self.max_memory,
        )


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


def children_space(config: SupernetConfig, *, native_only: bool) -> SearchSpace:
    """The space of the children that may be scored: the super-net's, or the stock BERTs in it.

    Raises:
        ValueError: If only stock BERTs are asked for and there is none.
    """
    space: SearchSpace = config.space
    if not native_only:
        return space
    return native_space(space, hidden_size=config.hidden_size, embedding_size=config.word_embedding_size)


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
        self.supernet = load_supernet(arguments.supernet)
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
        self.cost = cost_function(self.config, sequence_length=data.max_seq_length, latency=latency)
        self.settings: dict[str, Any] = {"supernet": weights_digest(arguments.supernet), **about_text}
        """What the scores depend on: losses of other settings do not compare."""
        if latency is not None:
            self.settings["latency_table"] = f"{latency.described}, table {latency.digest}"
        self.supernet.to(PartialState().device)
        self.stop = StopRequest()
        """Whether any process was asked to stop, as all learn with the scores they make together."""

    def __call__(
        self, children: Sequence[Architecture], *, num_batches: int | None = None, progress: bool = False
    ) -> list[float]:
        """The proxy loss of every child, on the first `num_batches` of the dev batches; by default on all.

        Several processes (`accelerate launch`, `torchrun`) share the work: see `team.lead`.
        """
        return _score(self, children, num_batches, progress=progress).losses

    def budget(self, arguments: SearchChildrenArguments) -> Budget:
        """The caps in numbers."""
        return arguments.budget().of(self.cost(self.supernet.largest_architecture))

    def scored(self, child: Architecture, loss: float) -> ScoredChild:
        """One child with its loss and its costs."""
        proxy_loss = loss if math.isfinite(loss) else None
        return ScoredChild(architecture=child, proxy_loss=proxy_loss, cost=self.cost(child))


def _score(
    scorer: ProxyScorer, children: Sequence[Architecture], num_batches: int | None = None, *, progress: bool = False
) -> ScoringReport:
    announce((list(children), num_batches))
    batches, processes = scorer._batches[:num_batches], PartialState()
    report = score_with_report(scorer.supernet, children, batches, progress=progress, processes=processes)
    if processes.num_processes > 1 and any(gather_object([scorer.stop.is_set])):
        scorer.stop.set()
    return report


def _take_part(scorer: ProxyScorer, task: tuple[list[Architecture], int | None]) -> None:
    """Score with the main process what it announced."""
    _score(scorer, *task)


def score_children(arguments: ScoreChildrenArguments, data: DataArguments) -> list[ScoredChild]:
    """Score children, one record each in the output file; those that it holds already are not scored again.

    Returns:
        The chosen children, best first.

    Raises:
        ValueError: If a child is not in the space, or the file holds scores of other settings.
        WriteError: If the output cannot be written; of a full disk, what it held is kept.
        SystemExit: With status 0, if the process was asked to stop (`stopping.STOP_SIGNALS`).
    """
    if join().is_main_process:
        check_unless_there(arguments.output)  # before super-net and text are loaded
    scorer = ProxyScorer(arguments, data)
    with scorer.stop:
        scored = lead(partial(_score_missing, scorer, arguments), partial(_take_part, scorer))
    leave_world()
    return scored


def _operators_file(arguments: ScoringArguments) -> Path:
    return Path(f"{arguments.output.removesuffix('.jsonl')}.operators.md")


def _score_missing(scorer: ProxyScorer, arguments: ScoreChildrenArguments) -> list[ScoredChild]:
    children = choose_children(arguments, scorer.space)
    output = Path(arguments.output)

    def known(written: list[Record]) -> dict[Architecture, ScoredChild]:
        return read_scores(written, scorer.settings, str(output))

    def unwritten(scored: Sequence[ScoredChild], written: list[Record]) -> list[Record]:
        there = known(written)
        new = [child.to_record() for child in scored if child.architecture not in there]
        return new if written else [begin_scores(scorer.settings), *new]

    found = known(records.read(output)) if output.exists() else {}
    missing = [child for child in children if child not in found]
    if missing:
        check_writable(output, is_appended=True)
    report: ScoringReport | None = None
    is_short = len(missing) <= _CHUNK  # then the inner bar is all there is to see
    with tqdm(total=len(missing), unit=" children", disable=is_short, leave=False) as bar:
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            done = _score(scorer, chunk, progress=True)
            scored = [scorer.scored(child, loss) for child, loss in zip(chunk, done.losses, strict=True)]
            # Another process may have begun the file since, with these settings or with others.
            found = known(records.update(output, partial(unwritten, scored)))
            report = done if report is None else report + done
            bar.update(len(chunk))
            num_left = len(missing) - start - len(chunk)
            if scorer.stop.is_set and num_left:
                leave(f"stopped: {output} lacks {num_left:,} children; the same command scores them")
    if report is not None:
        tqdm.write(printable(report), file=sys.stderr)
    return sorted([found[child] for child in children], key=lambda child: child.loss)


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
    with scorer.stop:
        scored = lead(partial(_search, scorer, arguments), partial(_take_part, scorer))
    leave_world()
    return scored


def _search(scorer: ProxyScorer, arguments: SearchChildrenArguments) -> list[ScoredChild]:
    search = _make_search(arguments, scorer)
    ranking = run_search(
        search,
        scorer,
        num_evaluations=arguments.num_evaluations,
        history_path=arguments.output,
        about=scorer.settings,
        progress=True,
        should_stop=lambda: scorer.stop.is_set,
    )
    if scorer.stop.is_set and search.num_evaluations < arguments.num_evaluations:
        done, wanted = search.num_evaluations, arguments.num_evaluations
        leave(f"stopped: {arguments.output} has {done:,.0f} of {wanted:,} children; the same command goes on")
    scored = _confirmed([scorer.scored(child, loss) for child, loss in ranking], scorer, arguments)
    try:
        if isinstance(search, GradientBoostedSearch) and sum(math.isfinite(loss) for _, loss in ranking) > 1:
            write_text(_operators_file(arguments), search.operator_report() + "\n")
        if arguments.report is not None:
            report_search(
                SearchReportArguments(records=arguments.output, output=arguments.report, supernet=arguments.supernet)
            )
    except (OSError, ValueError):
        # What was found is not lost with its page.
        tqdm.write(printable(as_search_report(scored, arguments), sys.maxsize))
        raise
    return scored


def _confirmed(
    scored: list[ScoredChild], scorer: ProxyScorer, arguments: SearchChildrenArguments
) -> list[ScoredChild]:
    """The children that keep to their cap on latency, where that can be measured."""
    table = read_latency_table(arguments)
    if table is None or arguments.max_latency_ms is None or not arguments.measure_winner:
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


def _make_search(arguments: SearchChildrenArguments, scorer: ProxyScorer) -> Search:
    costs = scorer.cost(scorer.space.child_at(0))
    for name in arguments.objectives:
        if name not in costs:
            raise ValueError(f"objective {name} is none of the costs of a child: {', '.join(costs)}")
    further: dict[str, Any] = {}
    if arguments.search == "nsga2":
        Path(arguments.output).parent.mkdir(parents=True, exist_ok=True)
        table = read_latency_table(arguments)
        of_table = "" if table is None else f"-{table.digest}"
        further = {
            "objectives": arguments.objectives,
            "storage": arguments.study,
            # Losses of two super-nets or texts do not mix, nor latencies of two tables.
            "study_name": f"{scorer.settings['supernet']}-{scorer.settings['dev_data']}{of_table}",
            "worker": arguments.worker,
        }
    elif arguments.search == "halving":
        total = arguments.num_dev_batches
        further = {"total_batches": total, "bracket_size": _bracket_size(arguments, total)}
    task = SearchTask(scorer.space, seed=arguments.seed, cost=scorer.cost, budget=scorer.budget(arguments))
    return SEARCHES[arguments.search](task, **asdict(arguments.search_settings), **further)


def _bracket_size(arguments: SearchChildrenArguments, total_batches: int) -> int:
    """What the evaluations pay for; a run that is extended goes on with the smaller brackets it began with."""
    largest = largest_bracket(
        arguments.num_evaluations, total_batches=total_batches, **asdict(arguments.search_settings)
    )
    output = Path(arguments.output)
    head = next(iter(records.read(output)), {}) if output.exists() else {}
    settings = head.get("settings")
    begun = settings.get("bracket_size") if isinstance(settings, Mapping) else None
    return begun if type(begun) is int and 1 <= begun <= largest else largest


def as_search_report(scored: Sequence[ScoredChild], arguments: SearchChildrenArguments, *_: object) -> str:
    """What a search has found, as text: the best children and the front."""
    return f"{as_table(scored)}\n\n{as_front_table(scored, arguments.objectives)}"


def as_front_table(scored: Sequence[ScoredChild], objectives: Sequence[str]) -> str:
    """The front of scored children, those than which none is better in loss and costs at once, as text."""
    front = front_of(scored, objectives)
    size = "1 child" if len(front) == 1 else f"{len(front):,} children"
    return "\n".join([f"the front of loss against {' and '.join(objectives)}, {size}:", *map(_line, front)])


def _line(child: ScoredChild) -> str:
    cost, measured_ms = child.cost, child.measured_latency_ms
    parts = [
        f"{child.loss:.4f}",
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


def choose_children(arguments: ScoreChildrenArguments, space: SearchSpace) -> list[Architecture]:
    """The children to score, in an order in which neighbours share long prefixes."""
    if arguments.architectures is not None:
        return list(dict.fromkeys(space.validate(Architecture.parse(text)) for text in arguments.architectures))
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
