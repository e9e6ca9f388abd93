"""What a user may say to the commands of this package, but for scoring and search: dataclasses, without torch."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hf_nasbert.costs import Budget, Share, parse_cap
from hf_nasbert.costs.budget import LARGEST_CHILD
from hf_nasbert.settings import Settings, parse_shape, setting
from hf_nasbert.tolerances import EXTRACTION
from hf_nasbert.training.arguments import AdaptationArguments

_MOST_CHILDREN = 100_000  # of a latency table's check: each is run many times


@dataclass
class PipelineArguments(Settings):
    """What happens after the super-net's training: scoring, budget, the winner's further training.

    Raises:
        ValueError: If a number lies outside its range, or a cap is no quantity.
    """

    output_dir: str = field(metadata={"help": "Folder of everything that the pipeline makes."})
    num_evaluations: int = setting(
        5000, "Children to score: all of a space that has no more, else by evolution.", at_least=1
    )
    num_dev_batches: int = setting(2, "Fixed dev batches that children are scored on.", at_least=1)
    dev_batch_size: int = setting(16, "Sequences in each of them.", at_least=1)
    max_parameters: int | str | None = setting(
        None,
        "Budget: parameters, embeddings included, such as 1.5M, or 0.5x of the largest child's. By default those of a "
        "BERT of the space's depth and width.",
    )
    max_flops: int | str | None = setting(
        None, "Budget: FLOPs of one sequence, such as 2.5G, or a share such as 0.5x."
    )
    max_latency: float | str | None = setting(
        None,
        "Budget: milliseconds here for a batch of latency_shape, such as 12.5ms, or 0.5x of the largest child's. "
        "The operators are timed first, and the winner is timed before it is chosen.",
    )
    latency_shape: str = setting("1x128", "Batch for max_latency: sequences x tokens.")
    native_only: bool = setting(False, "Look only at children that are a stock BERT, which need no code of ours.")
    child_steps: int = setting(1500, "Steps of the winner's continued pre-training.", at_least=1)
    child_batch_size: int = setting(32, "Sequences of each of these steps.", at_least=1)
    child_learning_rate: float = setting(1e-3, "Its highest learning rate.", above=0)
    finetune_packaged: Literal["rotten_tomatoes", "stsb"] = setting(
        "rotten_tomatoes", "Packaged labelled set to fine-tune on: rotten_tomatoes, stsb."
    )
    train_file: str | None = setting(
        None, "Labelled texts of your own to fine-tune on in its place, as `finetune` reads them."
    )
    validation_file: str | None = setting(None, "The same for validation; without it a tenth of them is held out.")
    test_file: str | None = setting(None, "The same for a last test.")
    label_column: str = setting("label", "Column of their labels.")
    text_columns: list[str] | None = setting(None, "One or two text columns of them; found if not given.")
    control: bool = setting(
        False,
        "Also train the control: a plain BERT as large as the child, from random weights, on as many tokens as "
        "super-net and child together, fine-tuned the same way. It says whether the search was worth it.",
    )
    finetune_epochs: float = setting(3.0, "Passes over the labelled training split.", above=0)
    finetune_learning_rate: float = setting(3e-4, "Highest learning rate of fine-tuning.", above=0)
    finetune_seeds: list[int] = setting(lambda: [0, 1], "One run per seed.")
    card: str | None = setting(
        None, "JSON file with what else the child's card shall say, such as its license: cards.ChildRecord."
    )
    mask_examples: list[str] = setting(
        lambda: ["The movie was [MASK].", "I did not [MASK] this film at all."],
        "Sentences that the finished child completes, each with one [MASK], whatever the tokenizer's is.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.finetune_seeds or len(set(self.finetune_seeds)) != len(self.finetune_seeds):
            raise ValueError(f"finetune_seeds={self.finetune_seeds} must be one or more different numbers")
        if not self.train_file and (self.validation_file or self.test_file):
            raise ValueError("validation_file and test_file go with train_file, the labelled texts to train on")
        _ = self.budget
        _ = self.latency_batch

    @property
    def budget(self) -> Budget:
        """The caps that are given; shares among them are of the largest child's costs."""
        return Budget.parse(
            share_of=LARGEST_CHILD,
            max_parameters=self.max_parameters,
            max_flops=self.max_flops,
            max_latency=self.max_latency,
        )

    @property
    def latency_batch(self) -> tuple[int, int]:
        """Sequences and tokens of the batch that latency is measured on.

        Raises:
            ValueError: If `latency_shape` is none.
        """
        return parse_shape("latency_shape", self.latency_shape)


@dataclass(kw_only=True)
class PlanArguments(Settings):
    """For which budget and how much time to plan a super-net from text, its search and its best child's training.

    Raises:
        ValueError: If a number lies outside its range, or max_parameters is no number: no share has a meaning here.
    """

    max_parameters: int | str = field(
        metadata={"help": "Budget of the child: parameters, embeddings included, such as 1.5M."}
    )
    minutes: float = setting(15.0, "Minutes for all of it on this machine.", above=0, at_most=1e6)
    train_files: list[str] | None = setting(None, "Your text, for the commands that are printed; it is not read.")
    vocab_size: int = setting(8192, "Tokens of the vocabulary.", at_least=10, at_most=10**6)
    max_seq_length: int = setting(128, "Tokens of a sequence.", at_least=4, at_most=10**5)
    per_device_train_batch_size: int = setting(32, "Sequences of a step.", at_least=1, at_most=10**5)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.cap

    @property
    def cap(self) -> int:
        """Most parameters of the child."""
        found = parse_cap("max_parameters", self.max_parameters)
        assert not isinstance(found, Share)
        return math.floor(found)


@dataclass(kw_only=True)
class SearchReportArguments(Settings):
    """Which records to report on, and where to."""

    records: str = field(
        metadata={"help": "File that a search or the scoring of children wrote, or the summary.json of compress."}
    )
    output: str = field(metadata={"help": "HTML file to write; it is replaced."})
    supernet: str | None = setting(
        None, "Folder of the super-net that the children are of, for the commands to extract; compress needs none."
    )
    other: str | None = setting(
        None, "Another file of that kind to compare with: scored on the same text, or made of the same base model."
    )
    other_supernet: str | None = setting(None, "Its super-net, where that is another one.")


@dataclass(kw_only=True)
class ShrinkSpaceArguments(Settings):
    """Which space to make smaller, by which children.

    Raises:
        ValueError: If not exactly one of records and table is given, or a number lies outside its range.
    """

    alternatives: ClassVar[tuple[str, ...]] = ("records", "table")

    supernet: str = field(metadata={"help": "Folder of a super-net of the space; only its config.json is read."})
    output: str = field(metadata={"help": "YAML file to write the smaller space to, for `pretrain --config`."})
    records: str | None = setting(None, "File that the scoring of random children, or a search, wrote.")
    table: str | None = setting(None, "Instead: children trained alone, by the name or the file of their table.")
    min_candidates: int = setting(2, "Operators that every choice block keeps.", at_least=1)
    max_dropped: int | None = setting(None, "Drop no more operators, over all choice blocks.", at_least=1)
    num_resamples: int = setting(1000, "Redraws of children behind every interval.", at_least=1)
    seed: int = setting(0, "Seed of these redraws and of the trees.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.records is None) == (self.table is None):
            raise ValueError("give the scored children by exactly one of records and table")


@dataclass(kw_only=True)
class ExtractionArguments(Settings):
    """Which child of which super-net, and where to put it.

    Raises:
        ValueError: If the child is not named in exactly one way, or a number lies outside its range.
    """

    alternatives: ClassVar[tuple[str, ...]] = ("architecture", "best", "rank")

    supernet: str = field(metadata={"help": "Folder of the super-net."})
    output_dir: str = field(metadata={"help": "Folder to write the child to."})
    architecture: str | None = setting(None, "The child, such as attention-ffn-conv3-skip.")
    search: str | None = setting(None, "Or the file that `search` or `score` wrote, to take a child of:")
    best: bool = setting(False, "its best child,")
    rank: int | None = setting(None, "or the one of this rank, from 1.", at_least=1)
    tokenizer_name: str | None = setting(None, "Folder of the tokenizer; by default the super-net's.")
    native: Literal["auto", "always", "never"] = setting(
        "auto",
        "Write a stock BertForMaskedLM, which needs no code of ours: where the child is one (auto), or else fail "
        "(always); or write the child's own class (never).",
    )
    tolerance: float = setting(EXTRACTION, "Largest difference of logits that the proof allows.")
    latency_table: str | None = setting(
        None, "File of a latency table (hf-nasbert latency): the card then gives latencies."
    )
    max_seq_length: int | None = setting(
        None,
        "Tokens of the sequence whose FLOPs and memory the card gives; by default as many as the super-net was "
        "trained on, if its folder says that, else 128.",
        at_least=1,
    )
    card: str | None = setting(None, "JSON file with what else the card shall say: fields of cards.ChildRecord.")
    overwrite: bool = setting(False, "Replace a model that lies in output_dir.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum([self.architecture is not None, self.best, self.rank is not None]) != 1:
            raise ValueError(
                "which child? Give exactly one of architecture (--architecture attention-ffn), best and rank; the "
                "last two go with the file of a search (--search found.jsonl --best)"
            )
        if (self.search is None) == (self.architecture is None):
            raise ValueError("search is the file that best and rank are of: give it with one of these, else leave it")


@dataclass(kw_only=True)
class LatencyArguments(Settings):
    """Whose operators to measure, where and on which batch: what a table holds for, and nothing else.

    Raises:
        ValueError: If a number lies outside its range, or the clock does not fit the device.
    """

    supernet: str = field(metadata={"help": "Folder of the super-net; only its config.json is read."})
    output: str = field(metadata={"help": "File of records that the table and its check are added to."})
    batch_size: int = setting(8, "Sequences in the batch.", at_least=1)
    max_seq_length: int = setting(128, "Tokens of each, all of them real.", at_least=1)
    device: Literal["cpu", "cuda"] = setting("cpu", "Where children will run.")
    dtype: Literal["float32", "bfloat16", "float16"] = setting("float32", "Their precision.")
    num_threads: int = setting(1, "Torch's threads on a CPU.")
    clock: Literal["auto", "cpu", "wall"] = setting(
        "auto",
        "cpu: the time of the thread itself, which neighbours on the machine hardly change; wall: all that passes. "
        "By default cpu for one thread on a CPU, else wall.",
    )
    from_table: str | None = setting(
        None,
        "File of a table that another device was measured for, on this batch: it is carried to this one by the "
        "latencies of num_children children here (ten do), a factor for each kind of operator.",
    )
    num_visits: int = setting(100, "Forwards in which each operator is timed at least.", at_least=1)
    num_children: int = setting(30, "Random children to check the table against.", at_least=2, at_most=_MOST_CHILDREN)
    num_rounds: int = setting(10, "How often each of them is visited.", at_least=1)
    seed: int = setting(0, "Seed of the draws.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.from_table is not None and self.num_children < 3:
            raise ValueError(f"num_children={self.num_children}: a table is carried by at least 3")


@dataclass(kw_only=True)
class RankingReportArguments(Settings):
    """Which records to compare with which table, and where the outcome goes."""

    table: str = field(
        metadata={"help": "Children trained alone: the name of a table, or the file of hf-nasbert train-children."}
    )
    scores: str = field(metadata={"help": "File of records, one per scored super-net."})
    containing: str | None = setting(None, "Rank only the children that hold this operator.")
    name: str = setting("ranking", "Name of the page's table, and what the figures' names begin with.")
    page: str | None = setting(None, "Markdown page whose table of that name (`ranking, conv3`) is made anew.")
    figures: str | None = setting(None, "Folder to draw the figures into.")
    baseline: str | None = setting(
        None, "The method that the others are compared with, seed by seed; by default the first."
    )
    num_resamples: int = setting(1000, "Redraws of children behind every interval.", at_least=1)
    resampling_seed: int = setting(0, "Seed of these redraws and of random baselines.")
    calibrate: int = setting(
        0,
        "Calibrated ranking: take so many children of the table as trained, and rank the others by one ridge on "
        "operators and super-net losses that is fitted to these few; 0: none.",
        at_least=0,
    )

    @property
    def table_name(self) -> str:
        """What the page's table is marked by."""
        return ", ".join(filter(None, (self.name, self.containing)))


@dataclass(kw_only=True)
class RankChildrenArguments(RankingReportArguments, AdaptationArguments):
    """Which super-nets to score, beside what a report needs; those that the records hold are not scored again.

    Raises:
        ValueError: If a number lies outside its range, or there is no super-net.
    """

    supernets: list[str] = field(metadata={"help": "Folders of super-nets, of finished runs or their checkpoints."})
    label: str | None = setting(None, "What the super-nets are ranked as; by default the method that trained them.")
    num_dev_batches: int = setting(
        16, "Dev batches that children are scored on, the first ones of the table's.", at_least=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.supernets:
            raise ValueError("no super-net to score: name their folders (supernets)")


@dataclass(kw_only=True)
class InterferenceArguments(Settings):
    """Which super-nets to measure, and on how much.

    Raises:
        ValueError: If a number lies outside its range.
    """

    supernets: list[str] = field(metadata={"help": "Folders of super-nets: of finished runs, or their checkpoints."})
    output: str = field(
        metadata={"help": "File of records, one per super-net; those it holds are not measured again."}
    )
    untrained: bool = setting(False, "Measure each run's super-net before its first step too, made anew by its seed.")
    num_children: int = setting(32, "Base children; each meets one child at every distance.", at_least=1)
    max_distance: int | None = setting(None, "Most choice blocks in which two may differ.", at_least=1)
    num_settings: int = setting(16, "Random children in which each block's candidates are compared.", at_least=1)
    num_dev_batches: int = setting(4, "Fixed batches of held-out text.", at_least=1)
    dev_batch_size: int = setting(16, "Sequences in each of them.", at_least=1)
    seed: int = setting(0, "Seed of the draw of children.")
    label: str | None = setting(
        None, "What these super-nets are called in tables and figures; by default the method that trained them."
    )
    figures: str | None = setting(None, "Folder to draw the records' figures into.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.supernets:
            raise ValueError("no super-net to measure: name their folders (supernets)")


@dataclass(kw_only=True)
class InterferenceReportArguments(Settings):
    """Which records to turn into tables and figures."""

    measured: str = field(
        metadata={"help": "File of records of measure-interference: .jsonl, .jsonl.gz or .jsonl.xz."}
    )
    page: str | None = setting(None, "Markdown page whose marked tables are made anew.")
    figures: str | None = setting(None, "Folder to draw the figures into.")
