"""What all fine-tuning tasks share: settings, one `Trainer` run and one record per seed, the spread over seeds."""

import logging
import math
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    set_seed,
)
from transformers.trainer_utils import PredictionOutput

from hf_nasbert.data.examples import example_of
from hf_nasbert.data.foreign_tokenizers import open_tokenizer
from hf_nasbert.data.packaged import model_folder
from hf_nasbert.data.tokenization import tokenizer_digest
from hf_nasbert.data.vocabulary import tell_unknown
from hf_nasbert.finetuning import runs
from hf_nasbert.finetuning.arguments import TaskArguments
from hf_nasbert.finetuning.checkpoints import SealingTrainer
from hf_nasbert.finetuning.lengths import LengthGroupingTrainer, SortedSplit
from hf_nasbert.processes import on_main_process
from hf_nasbert.records import Record, versions
from hf_nasbert.records import append as append_record
from hf_nasbert.records import read as read_records

logger = logging.getLogger(__name__)

_NUM_TRIED = 200  # held-out inputs among which a short one is looked for


class Task(ABC):
    """One task: its checked data, its model class, its inputs, and what its predictions are worth.

    Attributes:
        auto_class: transformers' Auto class of the model with the task's head.
        hub_task: The Hub's name of such tasks, for cards.
        tokenizer_options: What the tokenizer is loaded with.
        name: Names the results.
        text_columns: Names of the texts that make one input.
        splits: Checked rows by split: `train` first, then what is evaluated; the first of these selects.
    """

    auto_class: ClassVar[Any]
    hub_task: ClassVar[str]
    tokenizer_options: ClassVar[dict[str, Any]] = {}
    name: str
    text_columns: tuple[str, ...]
    splits: dict[str, Dataset]

    @property
    def evaluated(self) -> list[str]:
        """The splits that are evaluated; the first one selects the best weights, the others select nothing."""
        return [split for split in self.splits if split != "train"]

    @abstractmethod
    def digest(self) -> str:
        """A hash of all that the data holds, to tell whether a finished run saw this very data."""

    @abstractmethod
    def configure(self, config: PreTrainedConfig) -> None:
        """Write what the labels are into a model's configuration."""

    @abstractmethod
    def encode(self, split: str, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """A split as the model's inputs and labels, unpadded."""

    @abstractmethod
    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """What makes a batch of these inputs, padded to the longest among them."""

    @abstractmethod
    def compute_metrics(self, split: str) -> Callable[[EvalPrediction], dict[str, float]]:
        """`Trainer`'s metric function for a split; its `score`, the larger the better, selects."""

    def texts(self, split: str, most: int) -> list[tuple[str, ...]]:
        """The texts of a split's first inputs, one or two of each; none of inputs that are no short texts."""
        return []

    def doubts(self, found: PredictionOutput) -> str | None:
        """What is wrong with predictions though their metrics may look well, and which setting to change, or None."""
        return None

    def write_predictions(self, split: str, folder: Path) -> None:  # noqa: B027 - most tasks write none
        """Keep the predictions that `compute_metrics` last saw of a split, if the task has a file format for them."""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (None for a single value) of one metric over `n` seeds."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class FinetuneResult:
    """The records of all seeds of one task, their summary, and a short input of the split that selects, for cards."""

    task: str
    model: str
    records: list[Record]
    example: tuple[str, ...] = ()

    def summary(self) -> dict[str, dict[str, Spread]]:
        """Split → metric → spread over the seeds. A seed whose metric is undefined (None) does not count."""
        spreads: dict[str, dict[str, Spread]] = {}
        for split, metrics in self.records[0]["metrics"].items():
            for name in metrics:
                # A seed of an earlier version may lack a metric of today.
                values = [record["metrics"][split].get(name) for record in self.records]
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


def load_tokenizer(arguments: TaskArguments, commit: str | None, **options: Any) -> PreTrainedTokenizerBase:
    """The tokenizer that the arguments name: by default the model's own."""
    revision = None if arguments.tokenizer_name else commit
    return open_tokenizer(
        arguments.tokenizer_name or model_folder(arguments.model),
        revision=revision,
        trust_remote_code=arguments.trust_remote_code,
        **options,
    )


def sample_splits(arguments: TaskArguments, splits: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """Every split, cut to the size that the arguments ask for.

    The random part does not depend on the run's seed, so that all seeds and models see the same rows.
    """
    limits = dict.fromkeys(splits, arguments.max_eval_samples) | {"train": arguments.max_train_samples}
    cut = {}
    for split, rows in splits.items():
        limit = limits[split]
        cut[split] = rows if limit is None or limit >= len(rows) else rows.shuffle(seed=0).select(range(limit))
    return cut


def check_finite(name: str, *predictions: np.ndarray) -> None:
    """Refuse predictions of a model that training has broken.

    Raises:
        ValueError: If one is not a finite number.
    """
    if not all(np.isfinite(numbers).all() for numbers in predictions):
        raise ValueError(f"the predictions on {name} are not finite: training diverged; lower learning_rate")


def run_seeds(arguments: TaskArguments, task: Task, callbacks: Sequence[TrainerCallback] = ()) -> FinetuneResult:
    """Fine-tune a model on a task once per seed and append one record per seed.

    Called again with the same arguments, finished seeds are read from their records and an interrupted one continues
    from its last checkpoint. The first evaluated split is the one that early stopping looks at; the others are
    evaluated once, at the end, and select nothing.

    Raises:
        FileNotFoundError: If the model is missing.
        ValueError: If model, tokenizer, data and settings do not fit each other, or training diverged.
        WriteError: If no record can be added to the file of records; nothing is trained then.
    """
    commit, identity = runs.identify_model(arguments)
    config = runs.load_config(
        arguments,
        commit,
        hidden_dropout_prob=arguments.hidden_dropout_prob,
        classifier_dropout=arguments.classifier_dropout,
    )
    task.configure(config)
    tokenizer = load_tokenizer(arguments, commit, **task.tokenizer_options)
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
        runs.check_records(arguments)
        run.encode()
    for seed in pending:
        done[seed] = run.train_seed(seed)
    example = _example(task, tokenizer, arguments.max_seq_length)
    return FinetuneResult(task.name, arguments.model, [done[seed] for seed in arguments.seeds], example)


def _example(task: Task, tokenizer: PreTrainedTokenizerBase, max_seq_length: int) -> tuple[str, ...]:
    """The first held-out input of short texts that fits, or the first words of the first; empty where none does."""
    texts = task.texts(task.evaluated[0], _NUM_TRIED) if task.evaluated else []
    return example_of(texts, lambda given: len(tokenizer(*given, verbose=False)["input_ids"]) <= max_seq_length)


class _Run:
    """One model on one task: what its seeds share."""

    def __init__(
        self,
        arguments: TaskArguments,
        task: Task,
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
        self.sorted: dict[str, SortedSplit] = {}  # what is evaluated, where inputs are grouped by length

    def finished(self) -> dict[int, Record]:
        """The records of the seeds that an earlier call brought to an end, under these very settings.

        A file of records may be shared, and models may not have been kept: a model that is wanted must be there.
        """
        file = self.arguments.records_file
        found = read_records(file) if file.exists() else []
        return {
            record["seed"]: record
            for record in found
            if record.get("run") == self.digest
            and not (self.arguments.save_models and not (self.folder(record["seed"]) / "config.json").is_file())
        }

    def folder(self, seed: int) -> Path:
        """Where a seed's model lies."""
        return self.arguments.model_folder(self.task.name, seed)

    def encode(self) -> None:
        """Turn every split into inputs."""
        self.inputs = {split: self.task.encode(split, self.tokenizer) for split in self.task.splits}
        if self.arguments.group_by_length:
            self.sorted = {split: SortedSplit(self.inputs[split]) for split in self.task.evaluated}
        name = self.arguments.tokenizer_name or self.arguments.model
        tell_unknown(self.inputs.values(), self.tokenizer, name, is_labelled=True)

    def train_seed(self, seed: int) -> Record:
        """Train, evaluate, save and record one seed."""
        started = time.perf_counter()
        folder = self.folder(seed)
        settings = {**self.settings, "seed": seed}
        runs.check_folder(folder, settings)
        trainer = self._trainer(folder, seed)
        # Claimed only now: a setting or a model that is refused must not stand in the way of the corrected one.
        with runs.opened(trainer, folder, settings) as checkpoint:
            # Another process may have brought it to its end while this one was loading.
            done = on_main_process(trainer.accelerator, lambda: self.finished().get(seed))
            return done or self._train(trainer, folder, seed, checkpoint, started)

    def _train(
        self, trainer: SealingTrainer, folder: Path, seed: int, checkpoint: Path | None, started: float
    ) -> Record:
        """Train, evaluate, save and record one seed in a folder that this run holds."""
        arguments = self.arguments
        runs.train(trainer, checkpoint)
        metrics = {split: self._metrics(trainer, split) for split in self.task.evaluated}
        model = trainer.accelerator.unwrap_model(trainer.model)
        record = {
            "kind": "finetune",
            "task": self.task.name,
            "hub_task": self.task.hub_task,
            "text_columns": list(self.task.text_columns),
            "model": arguments.model,
            "revision": self.commit,
            "seed": seed,
            "metrics": metrics,
            "selected_on": self.task.evaluated[0] if arguments.early_stopping_patience else None,
            "best_step": trainer.state.best_global_step,
            "num_steps": trainer.state.global_step,
            "num_samples": {split: len(rows) for split, rows in self.task.splits.items()},
            "num_inputs": {split: len(rows) for split, rows in self.inputs.items()},
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
            for split in self.task.evaluated:
                self.task.write_predictions(split, folder)
            if arguments.save_models:
                runs.save_model(model, self.tokenizer, folder)
            append_record(arguments.records_file, record)
            runs.close_run(folder)
        return record

    def _trainer(self, folder: Path, seed: int) -> SealingTrainer:
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
        selecting = self.task.evaluated[0]
        model = runs.load_model(self.task.auto_class, arguments, self.commit, self.config)
        runs.check_length(arguments.max_seq_length, model, arguments.model)
        made = LengthGroupingTrainer if arguments.group_by_length else SealingTrainer
        return made(
            model=model,
            args=runs.trainer_arguments(
                arguments,
                folder,
                seed,
                num_train_epochs=arguments.num_train_epochs,
                max_steps=arguments.max_steps or -1,
                per_device_eval_batch_size=arguments.per_device_eval_batch_size,
                eval_strategy=interval,
                save_strategy=interval,
                load_best_model_at_end=bool(arguments.early_stopping_patience),
                metric_for_best_model="score" if arguments.early_stopping_patience else None,
                greater_is_better=True,
                **options,
            ),
            train_dataset=self.inputs["train"],
            eval_dataset=self._evaluated(selecting),
            processing_class=self.tokenizer,
            data_collator=self.task.collator(self.tokenizer),
            compute_metrics=self._compute_metrics(selecting),
            callbacks=callbacks,
        )

    def _metrics(self, trainer: Trainer, split: str) -> dict[str, float | None]:
        """The task's metrics, its score and the loss on one split; None where a metric is undefined."""
        trainer.compute_metrics = self._compute_metrics(split)
        output = trainer.predict(self._evaluated(split), metric_key_prefix=split)
        doubts = self.task.doubts(output)
        if doubts is not None and trainer.is_world_process_zero():
            logger.warning("%s, seed %d, %s split: %s", self.task.name, trainer.args.seed, split, doubts)
        found = output.metrics or {}
        names = {name.removeprefix(f"{split}_"): value for name, value in found.items()}
        speed = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
        return {name: None if math.isnan(value) else value for name, value in names.items() if name not in speed}

    def _evaluated(self, split: str) -> Dataset:
        """A split in the order in which it is evaluated."""
        return self.sorted[split].inputs if self.sorted else self.inputs[split]

    def _compute_metrics(self, split: str) -> Callable[[EvalPrediction], dict[str, float]]:
        """The task's metrics of predictions in that order."""
        compute = self.task.compute_metrics(split)
        return self.sorted[split].unsorted(compute) if self.sorted else compute
