"""What a user may say to fine-tuning and to the pre-training of one model: dataclasses, without torch."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from hf_nasbert.paths import expand_paths

Distillation = Literal["auto", "logits", "hidden", "relations"]
_SPECIAL = 4  # most special tokens of a pair: <s> question </s></s> passage </s>


@dataclass(kw_only=True)
class RunArguments:
    """Model and optimization of one run.

    Raises:
        ValueError: If a number lies outside its range.
    """

    # What may differ between a run and its resumption: it decides where things lie or what is shown, not what comes
    # out. Model and data are told apart by their content, not by their names.
    incidental: ClassVar[frozenset[str]] = frozenset(
        {
            "disable_tqdm",
            "logging_steps",
            "model",
            "output_dir",
            "records",
            "report_to",
            "revision",
            "trust_remote_code",
        }
    )

    model: str = field(
        metadata={"help": "Folder or Hub name of the model: a child, a BERT, any that the Auto class knows."}
    )
    output_dir: str = field(metadata={"help": "Folder of the models and records; an interrupted run continues in it."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a Hub model."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run model code that comes with the model."})
    from_scratch: bool = field(default=False, metadata={"help": "Fresh random weights of the same configuration."})
    learning_rate: float = field(default=5e-5, metadata={"help": "Highest learning rate of AdamW."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of AdamW."})
    warmup_steps: float = field(
        default=0.06, metadata={"help": "Steps of rising learning rate; below 1, a share of all."}
    )
    lr_scheduler_type: str = field(default="linear", metadata={"help": "Any of transformers' schedules."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradients are clipped to this norm."})
    batch_size: int = field(
        default=32, metadata={"help": "Sequences of one optimizer step, over all devices and accumulated parts."}
    )
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Parts that a step's batch is cut into."})
    bf16: bool = field(default=False, metadata={"help": "Mixed precision in bfloat16."})
    fp16: bool = field(default=False, metadata={"help": "Mixed precision in float16."})
    records: str | None = field(
        default=None, metadata={"help": "File that results are appended to; by default records.jsonl in output_dir."}
    )
    report_to: str = field(default="none", metadata={"help": "A tracker that transformers knows, e.g. tensorboard."})
    logging_steps: int = field(default=50, metadata={"help": "Steps between two logged losses."})
    disable_tqdm: bool = field(default=False, metadata={"help": "No progress bar."})

    def __post_init__(self) -> None:
        expand_paths(self)
        for name in ("batch_size", "gradient_accumulation_steps", "logging_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate={self.learning_rate} must be above 0, and finite")
        for name in ("weight_decay", "warmup_steps", "max_grad_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more, and finite")
        if self.batch_size % self.gradient_accumulation_steps:
            raise ValueError(
                f"batch_size={self.batch_size} cannot be cut into gradient_accumulation_steps="
                f"{self.gradient_accumulation_steps} equal parts"
            )

    @property
    def records_file(self) -> Path:
        """Where results are appended."""
        return Path(self.records) if self.records else Path(self.output_dir) / "records.jsonl"

    def settings(self) -> dict[str, Any]:
        """Every setting that decides the result, but for the contents of model and data."""
        return {name: value for name, value in asdict(self).items() if name not in self.incidental}


@dataclass(kw_only=True)
class PretrainChildArguments(RunArguments):
    """Which model to pre-train for how long, and by which teacher, if any.

    Raises:
        ValueError: If a number lies outside its range.
    """

    incidental: ClassVar[frozenset[str]] = RunArguments.incidental | {"teacher_revision"}

    learning_rate: float = field(default=5e-4, metadata={"help": "Highest learning rate of AdamW."})
    max_steps: int = field(default=1000, metadata={"help": "Optimizer steps."})
    save_steps: int = field(default=500, metadata={"help": "Steps between two checkpoints to resume from."})
    num_dev_batches: int = field(
        default=8, metadata={"help": "Fixed batches of the dev set for the loss before and after."}
    )
    dev_batch_size: int = field(default=32, metadata={"help": "Sequences in each of them."})
    seed: int = field(default=0, metadata={"help": "Seed of dropout, and of the weights from scratch."})
    teacher: str | None = field(
        default=None,
        metadata={"help": "Folder or Hub name of an encoder to learn from as well."},
    )
    teacher_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a Hub teacher."})
    distillation: Distillation = field(
        default="auto",
        metadata={
            "help": "What to learn from it: logits at masked positions, hidden states, or attention relations; auto "
            "takes logits where the teacher has a masked-LM head and the model's vocabulary, hidden otherwise. With "
            "another vocabulary, states and relations are those of whole words, and logits are refused."
        },
    )
    distillation_weight: float = field(
        default=0.5, metadata={"help": "The teacher's share of the loss; the masked-LM loss has the rest."}
    )
    temperature: float = field(default=2.0, metadata={"help": "Softens both distributions of logits."})
    num_relation_heads: int = field(default=8, metadata={"help": "Heads that relations are cut into."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_steps", "save_steps", "num_dev_batches", "dev_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 < self.distillation_weight <= 1:
            raise ValueError(f"distillation_weight={self.distillation_weight} must lie in (0, 1]")
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature} must be above 0")
        if self.num_relation_heads < 1:
            raise ValueError(f"num_relation_heads={self.num_relation_heads} must be at least 1")
        if self.teacher is None and self.distillation != "auto":
            raise ValueError(f"distillation={self.distillation!r} needs a teacher")

    def settings(self) -> dict[str, Any]:
        """Every setting that decides the result; without a teacher, none of distillation."""
        of_teacher = ("teacher", "distillation", "distillation_weight", "temperature", "num_relation_heads")
        found = super().settings()
        return found if self.teacher else {name: value for name, value in found.items() if name not in of_teacher}


@dataclass(kw_only=True)
class TaskArguments(RunArguments):
    """How to fine-tune, whatever the task.

    Raises:
        ValueError: If a setting makes no sense.
    """

    incidental: ClassVar[frozenset[str]] = RunArguments.incidental | {
        "cache_dir", "eval_batch_size", "max_eval_samples", "max_train_samples", "save_models", "seeds",
        "tokenizer_name",
    }  # fmt: skip

    tokenizer_name: str | None = field(
        default=None, metadata={"help": "Folder or Hub name; by default the model's own."}
    )
    max_seq_length: int = field(default=128, metadata={"help": "Tokens of the longest input."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on a random part only."})
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Evaluate on a random part of each split only."}
    )
    num_train_epochs: float = field(default=3.0, metadata={"help": "Passes over the training split."})
    max_steps: int | None = field(default=None, metadata={"help": "Optimizer steps, instead of epochs."})
    group_by_length: bool = field(
        default=True,
        metadata={"help": "Batches of inputs of like length, which need less padding, instead of mixed ones."},
    )
    eval_batch_size: int = field(default=64, metadata={"help": "Sequences evaluated at once on each device."})
    eval_steps: int | None = field(
        default=None, metadata={"help": "Steps between evaluations and checkpoints; by default one epoch."}
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after so many evaluations without a better score, and keep the best weights."},
    )
    hidden_dropout_prob: float | None = field(default=None, metadata={"help": "Dropout in place of the model's own."})
    classifier_dropout: float | None = field(
        default=None, metadata={"help": "Dropout before the classifier likewise."}
    )
    seeds: list[int] = field(
        default_factory=lambda: [0], metadata={"help": "One run each; the table shows their spread."}
    )
    save_models: bool = field(default=True, metadata={"help": "Keep the fine-tuned model of every seed."})
    cache_dir: str | None = field(default=None, metadata={"help": "Folder of the Arrow files of the data."})

    def model_folder(self, task: str, seed: int) -> Path:
        """Where the model of one seed of a task lies."""
        return Path(self.output_dir) / task / f"seed-{seed}"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds={self.seeds} must be one or more different numbers")
        for name in ("max_steps", "eval_steps", "early_stopping_patience", "max_train_samples", "max_eval_samples"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass(kw_only=True)
class DataTaskArguments(TaskArguments):
    """How to fine-tune, and on which data: exactly one of `sources` is given.

    Raises:
        ValueError: If the data are not given exactly once, or a setting makes no sense.
    """

    incidental: ClassVar[frozenset[str]] = TaskArguments.incidental | {
        "dataset_config", "dataset_name", "test_file", "train_file", "validation_file",
    }  # fmt: skip
    sources: ClassVar[tuple[str, ...]] = ("dataset_name", "train_file")

    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "Data set of the Hub, or a folder that `save_to_disk` wrote: train, validation, maybe test."
        },
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of that data set."})
    train_file: str | None = field(
        default=None,
        metadata={
            "help": "File to train on, a folder of such files, or a pattern: .json, .jsonl, .parquet (also .csv, .tsv "
            "where rows are flat), each also with .gz."
        },
    )
    validation_file: str | None = field(default=None, metadata={"help": "The same for validation."})
    test_file: str | None = field(default=None, metadata={"help": "The same for a last test, which selects nothing."})

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in self.sources if getattr(self, name)]
        if len(given) != 1:
            named = f"{', '.join(self.sources[:-1])} and {self.sources[-1]}"
            raise ValueError(f"exactly one of {named} is needed, got {' and '.join(given) or 'none'}")
        if self.train_file and not self.validation_file:
            raise ValueError("train_file needs a validation_file: results on the training texts say nothing")
        if not self.train_file and (self.validation_file or self.test_file):
            raise ValueError(f"validation_file and test_file go with train_file, not with {given[0]}")
        if self.dataset_config and not self.dataset_name:
            raise ValueError(f"dataset_config goes with dataset_name, not with {given[0]}")


@dataclass(kw_only=True)
class FinetuneArguments(DataTaskArguments):
    """What to fine-tune on which sentence task, and how.

    Exactly one of task, packaged, dataset_name and train_file is given.

    Raises:
        ValueError: If the task is not given exactly once, or a setting does not fit the others.
    """

    incidental: ClassVar[frozenset[str]] = DataTaskArguments.incidental | {
        "glue_source", "label_column", "packaged", "problem_type", "text_columns",
    }  # fmt: skip
    sources: ClassVar[tuple[str, ...]] = ("task", "packaged", *DataTaskArguments.sources)

    task: Literal["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"] | None = field(
        default=None, metadata={"help": "A GLUE task from the Hub."}
    )
    packaged: str | None = field(
        default=None,
        metadata={
            "help": "A labelled set inside an installed wheel, needing no network: stsb, rotten_tomatoes, boolq."
        },
    )
    label_column: str = field(default="label", metadata={"help": "Column of the labels in a file or data set."})
    text_columns: list[str] | None = field(
        default=None, metadata={"help": "One or two text columns; found if not given."}
    )
    problem_type: Literal["classification", "regression"] | None = field(
        default=None,
        metadata={"help": "By default regression for numbers that are not all whole, else classification."},
    )
    glue_source: str = field(
        default="nyu-mll/glue", metadata={"help": "GLUE on the Hub, or a folder with a copy of it."}
    )


@dataclass(kw_only=True)
class FinetuneSquadArguments(DataTaskArguments):
    """What to fine-tune on which questions, and how. Exactly one of dataset_name and train_file is given.

    Raises:
        ValueError: If the data are not given exactly once, or a setting does not fit the others.
    """

    incidental: ClassVar[frozenset[str]] = DataTaskArguments.incidental | {"drop_misaligned"}

    drop_misaligned: bool = field(
        default=False,
        metadata={"help": "Leave out training questions whose answers do not stand where they say."},
    )
    max_seq_length: int = field(default=384, metadata={"help": "Tokens of a window: question and a part of the text."})
    max_question_length: int = field(default=64, metadata={"help": "Longer questions are cut to so many tokens."})
    doc_stride: int = field(default=128, metadata={"help": "Tokens that neighbouring windows of a text share."})
    max_answer_length: int = field(default=30, metadata={"help": "Tokens of the longest answer to consider."})
    n_best_size: int = field(default=20, metadata={"help": "Starts and ends to combine, and answers to keep."})
    no_answer_threshold: float = field(
        default=0.5,
        metadata={"help": "With unanswerable questions: withhold an answer if none is likelier than this."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_question_length", "max_answer_length", "n_best_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        room = self.max_seq_length - self.max_question_length - _SPECIAL
        if not 0 <= self.doc_stride < room:
            raise ValueError(
                f"doc_stride={self.doc_stride} must lie below {room}, the room for text beside a question of "
                f"max_question_length={self.max_question_length} in max_seq_length={self.max_seq_length}: windows "
                "must move on"
            )
        if not 0 <= self.no_answer_threshold <= 1:
            raise ValueError(f"no_answer_threshold={self.no_answer_threshold} must lie in [0, 1]")


@dataclass(kw_only=True)
class FinetuneTokensArguments(DataTaskArguments):
    """What to fine-tune on which tagged words, and how. Exactly one of dataset_name and train_file is given.

    Raises:
        ValueError: If the data are not given exactly once, or a setting does not fit the others.
    """

    incidental: ClassVar[frozenset[str]] = DataTaskArguments.incidental | {"tags_column", "tokens_column"}

    tokens_column: str = field(default="tokens", metadata={"help": "Column of the lists of words."})
    tags_column: str = field(default="tags", metadata={"help": "Column of their tags, e.g. ner_tags."})
