"""What a user may say to scoring and to searches: dataclasses, without torch."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from hf_nasbert.costs import Budget
from hf_nasbert.costs.budget import LARGEST_CHILD, parse_quantity
from hf_nasbert.paths import expanded
from hf_nasbert.recipe_arguments import Choice
from hf_nasbert.scored import COSTS
from hf_nasbert.searching import SETTINGS, Prices
from hf_nasbert.settings import setting
from hf_nasbert.training.arguments import AdaptationArguments

SearchName = Literal[
    "random", "size_matched", "evolution", "nsga2", "halving", "gbdt", "shrinking", "learned", "trained_halving",
    "pnas", "linas", "knapsack", "gradient_mixture",
]  # fmt: skip
_TRAINING = {"trained_halving"}  # searches that train what they ask for


@dataclass(kw_only=True)
class ScoringArguments(AdaptationArguments):
    """What children are scored with: a super-net's weights, on how much of the held-out text."""

    supernet: str = field(metadata={"help": "Folder of the super-net."})
    output: str = field(metadata={"help": "File of records; an interrupted run continues from it."})
    num_dev_batches: int = setting(4, "Fixed batches of held-out text.", at_least=1)
    dev_batch_size: int = setting(16, "Sequences in each of them.", at_least=1)
    seed: int = setting(0, "Seed of the draw of children.")
    native_only: bool = setting(False, "Only children that are a stock BERT, which need no code of ours.")
    stage_errors: int | None = setting(
        None,
        "Score a child by the errors of so many stages, each alone on the largest child's states, and not by its "
        "loss: for super-nets of method blockwise.",
        at_least=1,
    )
    latency_table: str | None = setting(
        None, "File of a table from `hf-nasbert latency`: children then have a latency_ms."
    )
    latency_batch_size: int | None = setting(
        None, "Which of the file's tables, if it holds several: that of this batch size,"
    )
    latency_sequence_length: int | None = setting(None, "and of this sequence length.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stage_errors is not None and self.adapt_steps:
            raise ValueError("stage_errors and adapt_steps are two ways to score children: give one of them")


@dataclass(kw_only=True)
class ScoreChildrenArguments(ScoringArguments):
    """Which children to score.

    Raises:
        ValueError: If not exactly one choice of children is given, or adapted children were to be filtered.
    """

    architectures: list[str] | None = setting(None, "These children.")
    num_random: int | None = setting(None, "So many different children, drawn uniformly.", at_least=1)
    all_children: bool = setting(False, "Every child of the space.")
    exact_share: float | None = setting(
        None,
        "Score this share of the children exactly, such as 0.1: those that a filter finds best. It takes the likely "
        "words exactly and the others as if their logits were normal, and orders all children in about half the time. "
        "By default every child is scored exactly.",
        above=0,
        below=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum([self.architectures is not None, self.num_random is not None, self.all_children]) != 1:
            raise ValueError("choose children by exactly one of architectures, num_random and all_children")
        if self.exact_share is not None and self.stage_errors is not None:
            raise ValueError(f"exact_share={self.exact_share} filters by losses, and stage_errors scores by none")
        if self.exact_share is not None and self.adapt_steps:
            raise ValueError(
                f"exact_share={self.exact_share}: an additive model (adapt_steps) predicts all losses at no cost: "
                "leave it out"
            )


@dataclass(kw_only=True)
class SearchChildrenArguments(ScoringArguments):
    """How to search, and within which budget.

    Raises:
        ValueError: If a number lies outside its range, a cap is no quantity, or a setting is of another search.
    """

    choices: ClassVar[dict[str, Choice]] = {"search_settings": Choice("search", lambda: SETTINGS)}
    """Settings of their own that come with a choice."""

    search: SearchName = setting("evolution", "How children are chosen; --help beside it lists its settings too.")
    num_evaluations: int = setting(1000, "Children to score.", at_least=1)
    objectives: list[str] = setting(
        lambda: ["num_parameters"],
        "Costs that the front is of, beside the loss; nsga2 and linas search for that front.",
    )
    dev_files: list[str] | None = setting(
        None,
        "Further dev sets, each as name=path of a file of text: every child is scored on them too, and each has a "
        "front of its own. The search itself goes by the held-out text.",
    )
    storage: str | None = setting(
        None,
        "Where nsga2 keeps its study, which optuna-dashboard opens and several machines may share: a database's URL "
        "or the path of a journal; by default a SQLite file beside the output.",
    )
    report: str | None = setting(None, "HTML file to draw the result to, as `hf-nasbert report` does.")
    worker: int = setting(0, "This machine's number among those that share the storage.")
    max_parameters: int | str | None = setting(
        None, "Cap on parameters, embeddings included, such as 15M, or a share of the largest child's, such as 0.5x."
    )
    max_flops: int | str | None = setting(None, "Cap on FLOPs of one sequence, such as 2.5G, or a share such as 0.5x.")
    max_latency: float | str | None = setting(
        None, "Cap on milliseconds of the batch of latency_table, such as 12.5ms, or a share such as 0.5x."
    )
    measure_winner: bool = setting(
        True,
        "Under max_latency: run the winner and the front here before they are returned, and pass over what is "
        "slower than the table says it is. Only on the table's own device.",
    )
    max_memory: int | str | None = setting(
        None, "Cap on peak bytes of activations of one sequence in float32, such as 64M, or a share such as 0.5x."
    )
    compute_budget: str | None = setting(
        None,
        "Compute to spend, in place of adapt_steps: passes of a training batch, such as 20K, or trainings of a "
        "child, such as 5x. The search decides itself between scoring, adapting and training children.",
    )
    child_steps: int = setting(1200, "Steps of one training of a child under compute_budget.")
    child_learning_rate: float | None = setting(
        None, "Its highest learning rate; by default 2e-3, 5e-4 where a base model teaches."
    )
    search_settings: Any = None
    """The search's hyper-parameters: an instance of its class in `SETTINGS`, made of a mapping or of all defaults."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.search_settings = self.choices["search_settings"].settings_of(self.search, self.search_settings)
        if self.search == "halving" and self.num_dev_batches <= (first := self.search_settings.min_batches):
            raise ValueError(
                f"num_dev_batches={self.num_dev_batches}: there is nothing to save; the search halving scores "
                f"children on a part of the dev batches first, and needs {first + 1} at least"
            )
        if self.adapt_steps and self.search in _TRAINING | {"halving"}:
            raise ValueError(
                f"adapt_steps={self.adapt_steps}: an additive model predicts no loss on a part of the dev batches "
                f"or after some steps, as {self.search} asks for it; choose another search"
            )
        if self.stage_errors is not None and (
            self.search in _TRAINING | {"halving"} or self.compute_budget is not None
        ):
            raise ValueError(
                f"stage_errors={self.stage_errors} scores children on all dev batches at once, and trains none: "
                "choose another search than halving and trained_halving, and leave compute_budget out"
            )
        if self.compute_budget is not None:
            self._check_compute()
        is_other = self.adapt_steps or self.stage_errors is not None or self.compute_budget is not None
        if self.dev_sets and (is_other or self.search in _TRAINING):
            raise ValueError(
                "dev_files scores children by their losses with the weights that they inherit: leave adapt_steps, "
                "stage_errors and compute_budget out, and choose another search than trained_halving"
            )
        if self.search != "nsga2" and (self.storage is not None or self.worker):
            raise ValueError(f"storage and worker are of the search nsga2, not of {self.search}")
        if self.max_latency is not None and self.latency_table is None:
            raise ValueError(
                "max_latency caps what a table of latencies says: make one by `hf-nasbert latency`, and give it "
                "(--latency_table)"
            )
        if not self.objectives:
            raise ValueError("a front is of loss against costs: name one or two (objectives)")
        sizes = {"size": self.search_settings.size} if self.search == "size_matched" else {}
        for given, name in (*(("objectives", name) for name in self.objectives), *sizes.items()):
            if name not in COSTS:
                raise ValueError(f"{given}: {name} is none of the costs of a child: {', '.join(COSTS)}")
        self.budget()

    def _check_compute(self) -> None:
        if self.adapt_steps:
            raise ValueError("compute_budget decides how long children are adapted: leave adapt_steps out")
        if self.search in _TRAINING | {"halving", "nsga2", "gradient_mixture"}:
            raise ValueError(f"compute_budget divides its compute itself, and so does search={self.search}")
        if self.child_steps < 1:
            raise ValueError(f"child_steps={self.child_steps} must be at least 1")
        if self.child_learning_rate is not None and not 0 < self.child_learning_rate < math.inf:
            raise ValueError(f"child_learning_rate={self.child_learning_rate} must be a positive number")
        self.passes(Prices(1.0, 1.0, 1.0, 1.0))

    @property
    def dev_sets(self) -> dict[str, str]:
        """The file of every further dev set, by its name.

        Raises:
            ValueError: If one has no name or no file, or two have one name.
        """
        found: dict[str, str] = {}
        for given in self.dev_files or ():
            name, _, path = given.partition("=")
            if not (name.isidentifier() and path) or name in found:
                raise ValueError(f"dev_files: expected name=path, a letter first and no name twice, found {given!r}")
            found[name] = expanded(path)
        return found

    def passes(self, prices: Prices) -> float:
        """The compute budget in passes.

        Raises:
            ValueError: If it is none.
        """
        text = str(self.compute_budget).strip()
        try:
            trainings = text.lower().endswith("x")
            found = parse_quantity(text[:-1]) * prices.training if trainings else float(parse_quantity(text))
        except ValueError as error:
            raise ValueError(f"compute_budget: {error}, or 5x for five trainings of a child") from None
        if not 0 < found < math.inf:
            raise ValueError(f"compute_budget={text} must be above 0")
        return found

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
            share_of=LARGEST_CHILD,
            max_parameters=self.max_parameters,
            max_flops=self.max_flops,
            max_latency=self.max_latency,
            max_memory=self.max_memory,
        )
