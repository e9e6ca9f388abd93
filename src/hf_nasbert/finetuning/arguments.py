"""What a user may say to fine-tuning and to the pre-training of one model: dataclasses, without torch."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from hf_nasbert.settings import Settings, setting

Distillation = Literal["auto", "logits", "hidden", "relations"]
_SPECIAL = 4  # most special tokens of a pair: <s> question </s></s> passage </s>


@dataclass(kw_only=True)
class RunArguments(Settings):
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
        metadata={
            "help": "Folder or Hub name of the model: a child, a BERT, any that the Auto class knows; or "
            "packaged:all-MiniLM-L6-v2."
        }
    )
    output_dir: str = field(metadata={"help": "Folder of the models and records; an interrupted run continues in it."})
    revision: str | None = setting(None, "Branch, tag or commit of a Hub model.")
    trust_remote_code: bool = setting(False, "Run model code that comes with the model.")
    from_scratch: bool = setting(False, "Fresh random weights of the same configuration.")
    learning_rate: float = setting(5e-5, "Highest learning rate of AdamW.", above=0)
    weight_decay: float = setting(0.01, "Weight decay of AdamW.", at_least=0)
    warmup_steps: float = setting(0.06, "Steps of rising learning rate; below 1, a share of all.", at_least=0)
    lr_scheduler_type: str = setting("linear", "Any of transformers' schedules.")
    max_grad_norm: float = setting(1.0, "Gradients are clipped to this norm.", at_least=0)
    batch_size: int = setting(
        32, "Sequences of one optimizer step, over all devices and accumulated parts.", at_least=1
    )
    gradient_accumulation_steps: int = setting(1, "Parts that a step's batch is cut into.", at_least=1)
    bf16: bool = setting(False, "Mixed precision in bfloat16.")
    fp16: bool = setting(False, "Mixed precision in float16.")
    records: str | None = setting(None, "File that results are appended to; by default records.jsonl in output_dir.")
    report_to: str = setting("none", "A tracker that transformers knows, e.g. tensorboard.")
    logging_steps: int = setting(50, "Steps between two logged losses.", at_least=1)
    disable_tqdm: bool = setting(False, "No progress bar.")

    def __post_init__(self) -> None:
        super().__post_init__()
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

    learning_rate: float = setting(5e-4, "Highest learning rate of AdamW.", above=0)
    max_steps: int = setting(1000, "Optimizer steps.", at_least=1)
    save_steps: int = setting(500, "Steps between two checkpoints to resume from.", at_least=1)
    num_dev_batches: int = setting(8, "Fixed batches of the dev set for the loss before and after.", at_least=1)
    dev_batch_size: int = setting(32, "Sequences in each of them.", at_least=1)
    seed: int = setting(0, "Seed of dropout, and of the weights from scratch.")
    teacher: str | None = setting(None, "Folder or Hub name of an encoder to learn from as well.")
    teacher_revision: str | None = setting(None, "Branch, tag or commit of a Hub teacher.")
    distillation: Distillation = setting(
        "auto",
        "What to learn from it: logits at masked positions, hidden states, or attention relations; auto takes logits "
        "where the teacher has a masked-LM head and the model's vocabulary, hidden otherwise. With another "
        "vocabulary, states and relations are those of whole words, and logits are refused.",
    )
    distillation_weight: float = setting(
        0.5, "The teacher's share of the loss; the masked-LM loss has the rest.", above=0, at_most=1
    )
    temperature: float = setting(2.0, "Softens both distributions of logits.", above=0)
    num_relation_heads: int = setting(8, "Heads that relations are cut into.", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
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
        "cache_dir", "per_device_eval_batch_size", "max_eval_samples", "max_train_samples", "save_models", "seeds",
        "tokenizer_name",
    }  # fmt: skip

    tokenizer_name: str | None = setting(None, "Folder or Hub name; by default the model's own.")
    max_seq_length: int = setting(128, "Tokens of the longest input.")
    max_train_samples: int | None = setting(None, "Train on a random part only.", at_least=1)
    max_eval_samples: int | None = setting(None, "Evaluate on a random part of each split only.", at_least=1)
    num_train_epochs: float = setting(3.0, "Passes over the training split.")
    max_steps: int | None = setting(None, "Optimizer steps, instead of epochs.", at_least=1)
    group_by_length: bool = setting(
        True, "Batches of inputs of like length, which need less padding, instead of mixed ones."
    )
    per_device_eval_batch_size: int = setting(64, "Sequences evaluated at once on each device.")
    eval_steps: int | None = setting(
        None, "Steps between evaluations and checkpoints; by default one epoch.", at_least=1
    )
    early_stopping_patience: int | None = setting(
        None, "Stop after so many evaluations without a better score, and keep the best weights.", at_least=1
    )
    hidden_dropout_prob: float | None = setting(None, "Dropout in place of the model's own.")
    classifier_dropout: float | None = setting(None, "Dropout before the classifier likewise.")
    seeds: list[int] = setting(lambda: [0], "One run each; the table shows their spread.")
    save_models: bool = setting(True, "Keep the fine-tuned model of every seed.")
    cache_dir: str | None = setting(None, "Folder of the Arrow files of the data.")

    def model_folder(self, task: str, seed: int) -> Path:
        """Where the model of one seed of a task lies."""
        return Path(self.output_dir) / task / f"seed-{seed}"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds={self.seeds} must be one or more different numbers")


@dataclass(kw_only=True)
class DataTaskArguments(TaskArguments):
    """How to fine-tune, and on which data: exactly one of `sources` is given.

    Raises:
        ValueError: If the data are not given exactly once, or a setting makes no sense.
    """

    incidental: ClassVar[frozenset[str]] = TaskArguments.incidental | {
        "data_seed", "dataset_config", "dataset_name", "test_file", "train_file", "validation_file",
        "validation_fraction",
    }  # fmt: skip
    sources: ClassVar[tuple[str, ...]] = ("dataset_name", "train_file")

    dataset_name: str | None = setting(
        None, "Data set of the Hub, or a folder that `save_to_disk` wrote: train, validation, maybe test."
    )
    dataset_config: str | None = setting(None, "Configuration of that data set.")
    train_file: str | None = setting(
        None,
        "File to train on, a folder of such files, or a pattern: .json, .jsonl, .parquet (also .csv, .tsv where rows "
        "are flat), each also with .gz.",
    )
    validation_file: str | None = setting(
        None, "The same for validation; without it a part of train_file is held out."
    )
    validation_fraction: float = setting(
        0.1, "Share of the different examples of train_file that is held out then.", above=0, below=1
    )
    data_seed: int = setting(0, "Seed of that part.", at_least=0)
    test_file: str | None = setting(None, "The same for a last test, which selects nothing.")

    @property
    def is_held_out(self) -> bool:
        """Whether validation is by a part of the training file."""
        return self.train_file is not None and self.validation_file is None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in self.sources if getattr(self, name)]
        if len(given) != 1:
            named = f"{', '.join(self.sources[:-1])} and {self.sources[-1]}"
            raise ValueError(f"exactly one of {named} is needed, got {' and '.join(given) or 'none'}")
        if not self.train_file and (self.validation_file or self.test_file):
            raise ValueError(f"validation_file and test_file go with train_file, not with {given[0]}")
        if self.dataset_config and not self.dataset_name:
            raise ValueError(f"dataset_config goes with dataset_name, not with {given[0]}")


@dataclass(kw_only=True)
class FinetuneArguments(DataTaskArguments):
    """What to fine-tune on which sentence task, and how.

    Exactly one of task, packaged, dataset_name and train_file is given.
    """

    incidental: ClassVar[frozenset[str]] = DataTaskArguments.incidental | {
        "glue_source", "label_column", "packaged", "problem_type", "text_columns",
    }  # fmt: skip
    sources: ClassVar[tuple[str, ...]] = ("task", "packaged", *DataTaskArguments.sources)

    task: Literal["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"] | None = setting(
        None, "A GLUE task from the Hub."
    )
    packaged: str | None = setting(
        None, "A labelled set inside an installed wheel, needing no network: stsb, rotten_tomatoes, boolq."
    )
    label_column: str = setting("label", "Column of the labels in a file or data set.")
    text_columns: list[str] | None = setting(None, "One or two text columns; found if not given.")
    problem_type: Literal["classification", "regression"] | None = setting(
        None, "By default regression for numbers that are not all whole, else classification."
    )
    glue_source: str = setting("nyu-mll/glue", "GLUE on the Hub, or a folder with a copy of it.")


@dataclass(kw_only=True)
class FinetuneSquadArguments(DataTaskArguments):
    """What to fine-tune on which questions, and how. Exactly one of dataset_name and train_file is given.

    Raises:
        ValueError: If the data are not given exactly once, or a setting does not fit the others.
    """

    incidental: ClassVar[frozenset[str]] = DataTaskArguments.incidental | {"drop_misaligned"}

    drop_misaligned: bool = setting(False, "Leave out training questions whose answers do not stand where they say.")
    max_seq_length: int = setting(384, "Tokens of a window: question and a part of the text.")
    max_question_length: int = setting(64, "Longer questions are cut to so many tokens.", at_least=1)
    doc_stride: int = setting(128, "Tokens that neighbouring windows of a text share.")
    max_answer_length: int = setting(30, "Tokens of the longest answer to consider.", at_least=1)
    n_best_size: int = setting(20, "Starts and ends to combine, and answers to keep.", at_least=1)
    no_answer_threshold: float = setting(
        0.5, "With unanswerable questions: withhold an answer if none is likelier than this.", at_least=0, at_most=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        room = self.max_seq_length - self.max_question_length - _SPECIAL
        if not 0 <= self.doc_stride < room:
            raise ValueError(
                f"doc_stride={self.doc_stride} must lie below {room}, the room for text beside a question of "
                f"max_question_length={self.max_question_length} in max_seq_length={self.max_seq_length}: windows "
                "must move on"
            )


@dataclass(kw_only=True)
class FinetuneTokensArguments(DataTaskArguments):
    """What to fine-tune on which tagged words, and how. Exactly one of dataset_name and train_file is given."""

    incidental: ClassVar[frozenset[str]] = DataTaskArguments.incidental | {"tags_column", "tokens_column"}

    tokens_column: str = setting("tokens", "Column of the lists of words.")
    tags_column: str = setting("tags", "Column of their tags, e.g. ner_tags.")
