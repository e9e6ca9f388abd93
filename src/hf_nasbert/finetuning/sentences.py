"""Fine-tune any sequence classifier on a sentence task (GLUE, packaged sets, files), over several seeds."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    set_seed,
)

from hf_nasbert.data.tokenization import tokenizer_digest
from hf_nasbert.finetuning import runs
from hf_nasbert.finetuning.glue import GlueMetric, glue_score
from hf_nasbert.finetuning.labelled import LabelledTask, load_files, load_glue, load_packaged
from hf_nasbert.records import Record, versions
from hf_nasbert.records import append as append_record
from hf_nasbert.records import read as read_records


@dataclass(kw_only=True)
class FinetuneArguments(runs.RunArguments):
    """What to fine-tune on which sentence task, and how. Exactly one of task, packaged and train_file is given.

    Raises:
        ValueError: If the task is not given exactly once, or a setting does not fit the others.
    """

    incidental: ClassVar[frozenset[str]] = runs.RunArguments.incidental | {
        "cache_dir", "eval_batch_size", "glue_source", "label_column", "max_eval_samples", "max_train_samples",
        "packaged", "problem_type", "save_models", "seeds", "test_file", "text_columns", "tokenizer_name",
        "train_file", "validation_file",
    }  # fmt: skip

    task: Literal["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"] | None = field(
        default=None, metadata={"help": "A GLUE task from the Hub."}
    )
    packaged: str | None = field(
        default=None,
        metadata={"help": "A labelled set inside an installed wheel, needing no network: stsb, rotten_tomatoes."},
    )
    train_file: str | None = field(default=None, metadata={"help": "Labelled csv, tsv, json or jsonl file."})
    validation_file: str | None = field(default=None, metadata={"help": "The same for validation."})
    test_file: str | None = field(default=None, metadata={"help": "The same for a last test, which selects nothing."})
    label_column: str = field(default="label", metadata={"help": "Column of the labels in these files."})
    text_columns: list[str] | None = field(
        default=None, metadata={"help": "One or two text columns; found if not given."}
    )
    problem_type: Literal["classification", "regression"] | None = field(
        default=None, metadata={"help": "By default regression for labels with a decimal point, else classification."}
    )
    glue_source: str = field(
        default="nyu-mll/glue", metadata={"help": "GLUE on the Hub, or a folder with a copy of it."}
    )
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "Folder or Hub name; by default the model's own."}
    )
    max_seq_length: int = field(default=128, metadata={"help": "Longer inputs are cut."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on a random part only."})
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Evaluate on a random part of each split only."}
    )
    num_train_epochs: float = field(default=3.0, metadata={"help": "Passes over the training split."})
    max_steps: int | None = field(default=None, metadata={"help": "Optimizer steps, instead of epochs."})
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

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in ("task", "packaged", "train_file") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of task, packaged and train_file is needed, got {' and '.join(given) or 'none'}"
            )
        if self.train_file and not self.validation_file:
            raise ValueError("train_file needs a validation_file: results on the training texts say nothing")
        if not self.train_file and (self.validation_file or self.test_file):
            raise ValueError(f"validation_file and test_file go with train_file, not with {given[0]}")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds={self.seeds} must be one or more different numbers")
        for name in ("max_steps", "eval_steps", "early_stopping_patience", "max_train_samples", "max_eval_samples"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (None for a single value) of one metric over `n` seeds."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class FinetuneResult:
    """The records of all seeds of one task, and their summary."""

    task: str
    model: str
    records: list[Record]

    def summary(self) -> dict[str, dict[str, Spread]]:
        """Split → metric → spread over the seeds. A seed whose metric is undefined (None) does not count."""
        spreads: dict[str, dict[str, Spread]] = {}
        for split, metrics in self.records[0]["metrics"].items():
            for name in metrics:
                values = [record["metrics"][split][name] for record in self.records]
                values = [value for value in values if value is not None]
                if values:
                    sd = statistics.stdev(values) if len(values) > 1 else None
                    spreads.setdefault(split, {})[name] = Spread(statistics.fmean(values), sd, len(values))
        return spreads

    def table(self) -> str:
        """The summary as a Markdown table."""
        lines = [
            f"{self.task}: {self.model}",
            "",
            "| split | metric | mean ± sd | seeds |",
            "| --- | --- | --- | --- |",
        ]
        for split, metrics in self.summary().items():
            for name, spread in metrics.items():
                sd = "" if spread.sd is None else f" ± {spread.sd:.4f}"
                lines.append(f"| {split} | {name} | {spread.mean:.4f}{sd} | {spread.n} |")
        return "\n".join(lines)


def load_task(arguments: FinetuneArguments) -> LabelledTask:
    """The labelled data that the arguments name, cut to the sizes they ask for."""
    if arguments.task:
        task = load_glue(arguments.task, source=arguments.glue_source, cache_dir=arguments.cache_dir)
    elif arguments.packaged:
        task = load_packaged(arguments.packaged)
    else:
        task = load_files(
            str(arguments.train_file),
            str(arguments.validation_file),
            arguments.test_file,
            label_column=arguments.label_column,
            text_columns=arguments.text_columns,
            problem_type=arguments.problem_type,
            cache_dir=arguments.cache_dir,
        )
    validation = {name: _sample(rows, arguments.max_eval_samples) for name, rows in task.validation.items()}
    test = None if task.test is None else _sample(task.test, arguments.max_eval_samples)
    return replace(task, train=_sample(task.train, arguments.max_train_samples), validation=validation, test=test)


def finetune(arguments: FinetuneArguments, *, callbacks: Sequence[TrainerCallback] = ()) -> FinetuneResult:
    """Fine-tune a model once per seed and append one record per seed.

    Called again with the same arguments, finished seeds are read from their records and an interrupted one continues
    from its last checkpoint. The validation split is the one that early stopping looks at and the one to report
    where a test split has no public labels; a labelled test split is evaluated once, at the end, and selects nothing.

    Args:
        arguments: Model, task and settings.
        callbacks: Further callbacks for every `Trainer`, for instance to prune trials.

    Raises:
        FileNotFoundError: If the model or a file is missing.
        ValueError: If model, tokenizer, data and settings do not fit each other, or training diverged.
    """
    commit, identity = runs.identify_model(arguments)
    task = load_task(arguments)
    config = runs.load_config(
        arguments,
        commit,
        hidden_dropout_prob=arguments.hidden_dropout_prob,
        classifier_dropout=arguments.classifier_dropout,
    )
    _set_labels(config, task)
    tokenizer = _load_tokenizer(arguments, commit)
    runs.check_vocabulary(tokenizer, config, arguments.model)
    runs.check_length(arguments.max_seq_length, config, arguments.model)
    settings = {
        **arguments.settings(),
        "task": task.name,
        "model": identity,
        "tokenizer": tokenizer_digest(tokenizer),
        "data": task.digest(),
    }
    run = _Run(arguments, task, config, commit, tokenizer, settings, list(callbacks))
    done = run.finished()
    pending = [seed for seed in arguments.seeds if seed not in done]
    if pending:
        run.tokenize()
    for seed in pending:
        done[seed] = run.train_seed(seed)
    return FinetuneResult(task.name, arguments.model, [done[seed] for seed in arguments.seeds])


class _Run:
    """One model on one task: what its seeds share."""

    def __init__(
        self,
        arguments: FinetuneArguments,
        task: LabelledTask,
        config: PreTrainedConfig,
        commit: str | None,
        tokenizer: PreTrainedTokenizerBase,
        settings: dict[str, Any],
        callbacks: list[TrainerCallback],
    ) -> None:
        self.arguments, self.task, self.config, self.commit = arguments, task, config, commit
        self.tokenizer, self.settings, self.callbacks = tokenizer, settings, callbacks
        self.digest = runs.digest_of(settings)
        self.inputs: dict[str, Dataset] = {}

    def finished(self) -> dict[int, Record]:
        """The records of the seeds that an earlier call brought to an end, under these very settings."""
        file = self.arguments.records_file
        found = read_records(file) if file.exists() else []
        return {record["seed"]: record for record in found if record.get("run") == self.digest}

    def tokenize(self) -> None:
        """Turn every split's texts into token ids, unpadded: the collator pads each batch to its own longest text."""
        columns = list(self.task.text_columns)

        def encode(batch: dict[str, list[str]]) -> Any:
            texts = [batch[column] for column in columns]
            return self.tokenizer(*texts, truncation=True, max_length=self.arguments.max_seq_length)

        for split, rows in self.task.splits.items():
            self.inputs[split] = rows.map(encode, batched=True, remove_columns=columns, desc=f"Tokenizing {split}")

    def train_seed(self, seed: int) -> Record:
        """Train, evaluate, save and record one seed."""
        started = time.perf_counter()
        arguments = self.arguments
        folder = Path(arguments.output_dir) / self.task.name / f"seed-{seed}"
        checkpoint = runs.open_run(folder, {**self.settings, "seed": seed})
        trainer = self._trainer(folder, seed)
        runs.train(trainer, checkpoint)
        evaluated = [*self.task.validation, *(["test"] if self.task.test is not None else [])]
        metrics = {split: self._metrics(trainer, split) for split in evaluated}
        model = trainer.accelerator.unwrap_model(trainer.model)
        record = {
            "kind": "finetune",
            "task": self.task.name,
            "model": arguments.model,
            "revision": self.commit,
            "seed": seed,
            "metrics": metrics,
            "selected_on": next(iter(self.task.validation)) if arguments.early_stopping_patience else None,
            "best_step": trainer.state.best_global_step,
            "num_steps": trainer.state.global_step,
            "num_samples": {split: len(rows) for split, rows in self.task.splits.items()},
            "num_parameters": model.num_parameters(),
            "scores": runs.learning_curve(trainer, "eval_score"),
            "losses": runs.learning_curve(trainer, "loss"),
            "seconds": round(time.perf_counter() - started, 3),
            "resumed_from": None if checkpoint is None else checkpoint.name,
            "settings": self.settings,
            "run": self.digest,
            "versions": versions(),
        }
        if trainer.is_world_process_zero():
            if arguments.save_models:
                runs.save_model(model, self.tokenizer, folder)
            append_record(arguments.records_file, record)
            runs.close_run(folder)
        return record

    def _trainer(self, folder: Path, seed: int) -> Trainer:
        arguments = self.arguments
        interval = "epoch" if arguments.eval_steps is None else "steps"
        options = (
            {}
            if arguments.eval_steps is None
            else {"eval_steps": arguments.eval_steps, "save_steps": arguments.eval_steps}
        )
        callbacks = list(self.callbacks)
        if arguments.early_stopping_patience:
            callbacks.append(EarlyStoppingCallback(arguments.early_stopping_patience))
        set_seed(seed)  # draws the head, or all weights from scratch
        return Trainer(
            model=runs.load_model(AutoModelForSequenceClassification, arguments, self.commit, self.config),
            args=runs.trainer_arguments(
                arguments,
                folder,
                seed,
                num_train_epochs=arguments.num_train_epochs,
                max_steps=arguments.max_steps or -1,
                per_device_eval_batch_size=arguments.eval_batch_size,
                eval_strategy=interval,
                save_strategy=interval,
                load_best_model_at_end=bool(arguments.early_stopping_patience),
                metric_for_best_model="score" if arguments.early_stopping_patience else None,
                greater_is_better=True,
                **options,
            ),
            train_dataset=self.inputs["train"],
            eval_dataset=self.inputs[next(iter(self.task.validation))],
            processing_class=self.tokenizer,
            data_collator=DataCollatorWithPadding(self.tokenizer),
            compute_metrics=make_compute_metrics(self.task),
            callbacks=callbacks,
        )

    def _metrics(self, trainer: Trainer, split: str) -> dict[str, float | None]:
        """The task's metrics, its score and the loss on one split; None where a metric is undefined."""
        found = trainer.predict(self.inputs[split], metric_key_prefix=split).metrics or {}
        names = {name.removeprefix(f"{split}_"): value for name, value in found.items()}
        speed = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
        return {name: None if math.isnan(value) else value for name, value in names.items() if name not in speed}


def make_compute_metrics(task: LabelledTask) -> Callable[[EvalPrediction], dict[str, float]]:
    """`Trainer`'s metric function of a task: its GLUE metrics, and `score`, their mean."""
    metric = GlueMetric(task.metric, keep_in_memory=True)

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
        if not np.isfinite(logits).all():
            raise ValueError(f"the predictions on {task.name} are not finite: training diverged; lower learning_rate")
        chosen = logits.argmax(axis=-1) if task.label_names else logits.reshape(-1)
        metrics = metric.compute(predictions=chosen, references=prediction.label_ids)
        return {**metrics, "score": glue_score(metrics)}

    return compute


def _set_labels(config: PreTrainedConfig, task: LabelledTask) -> None:
    if task.label_names:
        config.id2label = dict(enumerate(task.label_names))
        config.label2id = {name: index for index, name in enumerate(task.label_names)}
        config.problem_type = "single_label_classification"
    else:
        config.num_labels = 1
        config.problem_type = "regression"


def _load_tokenizer(arguments: FinetuneArguments, commit: str | None) -> PreTrainedTokenizerBase:
    revision = None if arguments.tokenizer_name else commit
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        arguments.tokenizer_name or arguments.model, revision=revision, trust_remote_code=arguments.trust_remote_code
    )
    return tokenizer


def _sample(rows: Dataset, limit: int | None) -> Dataset:
    """A random part that does not depend on the run's seed, so that all seeds and models see the same rows."""
    return rows if limit is None or limit >= len(rows) else rows.shuffle(seed=0).select(range(limit))
