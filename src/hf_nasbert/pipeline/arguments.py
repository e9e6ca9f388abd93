"""What a user may say to the commands of this package, but for scoring and search: dataclasses, without torch."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hf_nasbert.costs import Budget
from hf_nasbert.paths import expand_paths
from hf_nasbert.tolerances import EXTRACTION
from hf_nasbert.training.arguments import AdaptationArguments

_MOST_CHILDREN = 100_000  # of a latency table's check: each is run many times


@dataclass
class PipelineArguments:
    """What happens behind the super-net's training: scoring, budget, the winner's further training.

    Raises:
        ValueError: If a number lies outside its range, or a cap is no quantity.
    """

    output_dir: str = field(metadata={"help": "Folder of everything that the pipeline makes."})
    num_scored: int = field(
        default=5000, metadata={"help": "Children to score: all of a space that has no more, else by evolution."}
    )
    num_dev_batches: int = field(default=2, metadata={"help": "Fixed dev batches that children are scored on."})
    dev_batch_size: int = field(default=16, metadata={"help": "Sequences in each of them."})
    max_parameters: int | str | None = field(
        default=None, metadata={"help": "Budget, such as 1.5M; by default a BERT of the space's depth and width."}
    )
    max_flops: int | str | None = field(default=None, metadata={"help": "Budget of FLOPs for one sequence."})
    native_only: bool = field(
        default=False, metadata={"help": "Look only at children that are a stock BERT, which need no code of ours."}
    )
    child_steps: int = field(default=1500, metadata={"help": "Steps of the winner's continued pre-training."})
    child_batch_size: int = field(default=32, metadata={"help": "Sequences of each of these steps."})
    child_learning_rate: float = field(default=1e-3, metadata={"help": "Its highest learning rate."})
    finetune_packaged: Literal["rotten_tomatoes", "stsb"] = field(
        default="rotten_tomatoes", metadata={"help": "Packaged labelled set to fine-tune on: rotten_tomatoes, stsb."}
    )
    finetune_epochs: float = field(default=3.0, metadata={"help": "Passes over its training split."})
    finetune_learning_rate: float = field(default=3e-4, metadata={"help": "Highest learning rate of fine-tuning."})
    finetune_seeds: list[int] = field(default_factory=lambda: [0, 1], metadata={"help": "One run per seed."})
    card: str | None = field(
        default=None,
        metadata={
            "help": "JSON file with what else the child's card shall say, such as its license: cards.ChildRecord."
        },
    )
    mask_examples: list[str] = field(
        default_factory=lambda: ["The movie was [MASK].", "I did not [MASK] this film at all."],
        metadata={
            "help": "Sentences that the finished child completes, each with one [MASK], whatever the tokenizer's is."
        },
    )

    def __post_init__(self) -> None:
        expand_paths(self)
        for name in ("num_scored", "num_dev_batches", "dev_batch_size", "child_steps", "child_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("child_learning_rate", "finetune_learning_rate", "finetune_epochs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        if not self.finetune_seeds or len(set(self.finetune_seeds)) != len(self.finetune_seeds):
            raise ValueError(f"finetune_seeds={self.finetune_seeds} must be one or more different numbers")
        _ = Budget.parse(max_parameters=self.max_parameters, max_flops=self.max_flops).caps  # refuses shares


@dataclass(kw_only=True)
class SearchReportArguments:
    """Which records to report on, and where to."""

    records: str = field(metadata={"help": "File that a search or the scoring of children wrote."})
    output: str = field(metadata={"help": "HTML file to write; it is replaced."})
    supernet: str = field(metadata={"help": "Folder of the super-net that they are of, for the commands to extract."})

    def __post_init__(self) -> None:
        expand_paths(self)


@dataclass(kw_only=True)
class ShrinkSpaceArguments:
    """Which space to make smaller, by which children.

    Raises:
        ValueError: If not exactly one of records and table is given, or a number lies outside its range.
    """

    alternatives: ClassVar[tuple[str, ...]] = ("records", "table")

    supernet: str = field(metadata={"help": "Folder of a super-net of the space; only its config.json is read."})
    output: str = field(metadata={"help": "YAML file to write the smaller space to, for `pretrain --config`."})
    records: str | None = field(
        default=None, metadata={"help": "File that the scoring of random children, or a search, wrote."}
    )
    table: str | None = field(
        default=None, metadata={"help": "Instead: children trained alone, by the name or the file of their table."}
    )
    min_candidates: int = field(default=2, metadata={"help": "Operators that every choice block keeps."})
    max_dropped: int | None = field(default=None, metadata={"help": "Drop no more operators, over all choice blocks."})
    num_resamples: int = field(default=1000, metadata={"help": "Redraws of children behind every interval."})
    seed: int = field(default=0, metadata={"help": "Seed of these redraws and of the trees."})

    def __post_init__(self) -> None:
        expand_paths(self)
        if (self.records is None) == (self.table is None):
            raise ValueError("give the scored children by exactly one of records and table")
        for name in ("min_candidates", "max_dropped", "num_resamples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")


@dataclass
class ExtractionArguments:
    """Which child of which super-net, and where to put it."""

    supernet: str = field(metadata={"help": "Folder of the super-net."})
    architecture: str = field(metadata={"help": "The child, such as attention-ffn-conv3-skip."})
    output_dir: str = field(metadata={"help": "Folder to write the child to."})
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "Folder of the tokenizer; by default the super-net's."}
    )
    native: Literal["auto", "always", "never"] = field(
        default="auto",
        metadata={
            "help": "Write a stock BertForMaskedLM, which needs no code of ours: where the child is one (auto), or "
            "else fail (always); or write the child's own class (never)."
        },
    )
    tolerance: float = field(
        default=EXTRACTION, metadata={"help": "Largest difference of logits that the proof allows."}
    )
    latency_table: str | None = field(
        default=None, metadata={"help": "File of a latency table (hf-nasbert latency): the card then tells latencies."}
    )
    max_seq_length: int | None = field(
        default=None,
        metadata={
            "help": "Tokens of the sequence whose FLOPs and memory the card tells; by default as many as the "
            "super-net was trained on, if its folder says that, else 128."
        },
    )
    card: str | None = field(
        default=None, metadata={"help": "JSON file with what else the card shall say: fields of cards.ChildRecord."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace a model that lies in output_dir."})

    def __post_init__(self) -> None:
        expand_paths(self)
        if self.max_seq_length is not None and self.max_seq_length < 1:
            raise ValueError(f"max_seq_length={self.max_seq_length} must be at least 1")


@dataclass(kw_only=True)
class LatencyArguments:
    """Whose operators to measure, where and on which batch: what a table holds for, and nothing else.

    Raises:
        ValueError: If a number lies outside its range, or the clock does not fit the device.
    """

    supernet: str = field(metadata={"help": "Folder of the super-net; only its config.json is read."})
    output: str = field(metadata={"help": "File of records that the table and its check are added to."})
    batch_size: int = field(default=8, metadata={"help": "Sequences in the batch."})
    sequence_length: int = field(default=128, metadata={"help": "Tokens of each, all of them real."})
    device: Literal["cpu", "cuda"] = field(default="cpu", metadata={"help": "Where children will run."})
    dtype: Literal["float32", "bfloat16", "float16"] = field(default="float32", metadata={"help": "Their precision."})
    num_threads: int = field(default=1, metadata={"help": "Torch's threads on a CPU."})
    clock: Literal["auto", "cpu", "wall"] = field(
        default="auto",
        metadata={
            "help": "cpu: the time of the thread itself, which neighbours on the machine hardly change; wall: all "
            "that passes. By default cpu for one thread on a CPU, else wall."
        },
    )
    from_table: str | None = field(
        default=None,
        metadata={
            "help": "File of a table that another device was measured for, on this batch: it is carried to this one "
            "by the latencies of num_children children here (ten do), a factor for each kind of operator."
        },
    )
    num_visits: int = field(default=100, metadata={"help": "Forwards in which each operator is timed at least."})
    num_children: int = field(default=30, metadata={"help": "Random children to check the table against."})
    num_rounds: int = field(default=10, metadata={"help": "How often each of them is visited."})
    seed: int = field(default=0, metadata={"help": "Seed of the draws."})

    def __post_init__(self) -> None:
        expand_paths(self)
        for name in ("num_visits", "num_rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        least = 2 if self.from_table is None else 3
        if self.num_children < least:
            raise ValueError(f"num_children={self.num_children} must be at least {least}: they are to be compared")
        if self.num_children > _MOST_CHILDREN:
            raise ValueError(f"num_children={self.num_children}: at most {_MOST_CHILDREN:,} are run")


@dataclass(kw_only=True)
class RankingReportArguments:
    """Which records to hold against which table, and where the outcome goes.

    Raises:
        ValueError: If a number lies outside its range.
    """

    table: str = field(
        metadata={"help": "Children trained alone: the name of a table, or the file of hf-nasbert train-children."}
    )
    scores: str = field(metadata={"help": "File of records, one per scored super-net."})
    containing: str | None = field(default=None, metadata={"help": "Rank only the children that hold this operator."})
    name: str = field(
        default="ranking", metadata={"help": "Name of the page's table, and what the figures' names begin with."}
    )
    page: str | None = field(
        default=None, metadata={"help": "Markdown page whose table of that name (`ranking, conv3`) is made anew."}
    )
    figures: str | None = field(default=None, metadata={"help": "Folder to draw the figures into."})
    baseline: str | None = field(
        default=None,
        metadata={"help": "The method that the others are compared with, seed by seed; by default the first."},
    )
    num_resamples: int = field(default=1000, metadata={"help": "Redraws of children behind every interval."})
    resampling_seed: int = field(default=0, metadata={"help": "Seed of these redraws and of random baselines."})
    calibrate: int = field(
        default=0,
        metadata={
            "help": "Calibrated ranking: take so many children of the table as trained, and rank the others by one "
            "ridge on operators and super-net losses that is fitted to these few; 0: none."
        },
    )

    def __post_init__(self) -> None:
        expand_paths(self)
        if self.calibrate < 0:
            raise ValueError(f"calibrate={self.calibrate} must be at least 0")
        if self.num_resamples < 1:
            raise ValueError(f"num_resamples={self.num_resamples} must be at least 1")

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
    label: str | None = field(
        default=None, metadata={"help": "What the super-nets are ranked as; by default the method that trained them."}
    )
    num_score_batches: int = field(
        default=16, metadata={"help": "Dev batches that children are scored on, the first ones of the table's."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        AdaptationArguments.__post_init__(self)
        if self.num_score_batches < 1:
            raise ValueError(f"num_score_batches={self.num_score_batches} must be at least 1")
        if not self.supernets:
            raise ValueError("no super-net to score: name their folders (supernets)")


@dataclass(kw_only=True)
class InterferenceArguments:
    """Which super-nets to measure, and on how much.

    Raises:
        ValueError: If a number lies outside its range.
    """

    supernets: list[str] = field(metadata={"help": "Folders of super-nets: of finished runs, or their checkpoints."})
    output: str = field(
        metadata={"help": "File of records, one per super-net; those it holds are not measured again."}
    )
    untrained: bool = field(
        default=False,
        metadata={"help": "Measure each run's super-net before its first step too, made anew by its seed."},
    )
    num_children: int = field(default=32, metadata={"help": "Base children; each meets one child at every distance."})
    max_distance: int | None = field(default=None, metadata={"help": "Most choice blocks in which two may differ."})
    num_settings: int = field(
        default=16, metadata={"help": "Random children in which each block's candidates are compared."}
    )
    num_dev_batches: int = field(default=4, metadata={"help": "Fixed batches of held-out text."})
    dev_batch_size: int = field(default=16, metadata={"help": "Sequences in each of them."})
    seed: int = field(default=0, metadata={"help": "Seed of the draw of children."})
    label: str | None = field(
        default=None,
        metadata={"help": "What these super-nets are told of as; by default the method that trained them."},
    )
    figures: str | None = field(default=None, metadata={"help": "Folder to draw the records' figures into."})

    def __post_init__(self) -> None:
        expand_paths(self)
        for name in ("num_children", "max_distance", "num_settings", "num_dev_batches", "dev_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if not self.supernets:
            raise ValueError("no super-net to measure: name their folders (supernets)")


@dataclass(kw_only=True)
class InterferenceReportArguments:
    """Which records to turn into tables and figures."""

    measured: str = field(metadata={"help": "File of records of measure-interference, .jsonl or .jsonl.gz."})
    page: str | None = field(default=None, metadata={"help": "Markdown page whose marked tables are made anew."})
    figures: str | None = field(default=None, metadata={"help": "Folder to draw the figures into."})

    def __post_init__(self) -> None:
        expand_paths(self)
