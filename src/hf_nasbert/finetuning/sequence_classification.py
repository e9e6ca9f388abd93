"""Fine-tune any sequence classifier on a sentence task (GLUE, packaged sets, files), over several seeds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    TrainerCallback,
)
from transformers.trainer_utils import PredictionOutput

from hf_nasbert.finetuning.arguments import FinetuneArguments
from hf_nasbert.finetuning.glue import GlueMetric, glue_score
from hf_nasbert.finetuning.sequence_classification_data import (
    Columns,
    LabelledTask,
    load_files,
    load_glue,
    load_named,
    load_packaged,
)
from hf_nasbert.finetuning.splits import with_validation
from hf_nasbert.finetuning.tasks import FinetuneResult, Task, check_finite, run_seeds, sample_splits
from hf_nasbert.foreign import printable
from hf_nasbert.metrics import calibration_error


def load_task(arguments: FinetuneArguments) -> LabelledTask:
    """The labelled data that the arguments name, cut to the sizes they ask for."""
    columns: Columns = {
        "label_column": arguments.label_column,
        "text_columns": arguments.text_columns,
        "problem_type": arguments.problem_type,
    }
    cache_dir = arguments.cache_dir
    if arguments.task:
        task = load_glue(arguments.task, source=arguments.glue_source, cache_dir=cache_dir)
    elif arguments.packaged:
        task = load_packaged(arguments.packaged)
    elif arguments.dataset_name:
        task = load_named(arguments.dataset_name, arguments.dataset_config, cache_dir=cache_dir, **columns)
    else:
        files = (str(arguments.train_file), arguments.validation_file, arguments.test_file)
        task = load_files(*files, cache_dir=cache_dir, **columns)
        splits = with_validation(
            task.name, task.splits, task.text_columns, arguments.validation_fraction, arguments.data_seed
        )
        task = replace(task, train=splits["train"], validation={"validation": splits["validation"]})
    cut = sample_splits(arguments, task.splits)
    validation = {name: cut[name] for name in task.validation}
    return replace(task, train=cut["train"], validation=validation, test=cut.get("test"))


def finetune(arguments: FinetuneArguments, *, callbacks: Sequence[TrainerCallback] = ()) -> FinetuneResult:
    """Fine-tune a model on a sentence task once per seed and append one record per seed; see `run_seeds`.

    The validation split is the one that early stopping looks at and the one to report where a test split has no
    public labels; a labelled test split is evaluated once, at the end, and selects nothing.

    Args:
        arguments: Model, task and settings.
        callbacks: Further callbacks for every `Trainer`, for instance to prune trials.

    Raises:
        FileNotFoundError: If the model or a file is missing.
        ValueError: If model, tokenizer, data and settings do not fit each other, or training diverged.
    """
    return run_seeds(arguments, SentenceTask(load_task(arguments), arguments.max_seq_length), callbacks)


class SentenceTask(Task):
    """One text or a pair of them to a class or a number."""

    auto_class = AutoModelForSequenceClassification
    hub_task = "text-classification"

    def __init__(self, data: LabelledTask, max_seq_length: int) -> None:
        self.data, self.max_seq_length = data, max_seq_length
        self.name, self.text_columns, self.splits = data.name, data.text_columns, data.splits

    def digest(self) -> str:
        """A hash of all texts and labels."""
        return self.data.digest()

    def configure(self, config: PreTrainedConfig) -> None:
        """Name the classes, or make it a regression."""
        if self.data.label_names:
            config.id2label = dict(enumerate(self.data.label_names))
            config.label2id = {name: index for index, name in enumerate(self.data.label_names)}
            config.problem_type = "single_label_classification"
        else:
            config.num_labels = 1
            config.problem_type = "regression"

    def encode(self, split: str, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Token ids, cut to the longest input."""
        columns = list(self.text_columns)

        def encode(batch: dict[str, list[str]]) -> Any:
            return tokenizer(*(batch[column] for column in columns), truncation=True, max_length=self.max_seq_length)

        return self.splits[split].map(encode, batched=True, remove_columns=columns, desc=f"Tokenizing {split}")

    def texts(self, split: str, most: int) -> list[tuple[str, ...]]:
        """The texts of the first rows."""
        rows = self.splits[split][:most]
        return list(zip(*(rows[column] for column in self.text_columns), strict=True))

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """Pads each batch to its own longest text."""
        return DataCollatorWithPadding(tokenizer)

    def doubts(self, found: PredictionOutput) -> str | None:
        """Whether all examples of a split with several classes get one class: accuracy alone does not show it."""
        if not self.data.label_names or found.label_ids is None:
            return None
        logits = found.predictions[0] if isinstance(found.predictions, tuple) else found.predictions
        predicted, labels = np.unique(logits.argmax(axis=-1)), np.unique(found.label_ids)
        if len(predicted) > 1 or len(labels) < 2:
            return None
        name = printable(self.data.label_names[predicted[0]], 40)
        return (
            f"the model predicts {name} for every example, though they have {len(labels)} labels: it has not learnt "
            "the task; train longer (--num_train_epochs), with another --learning_rate or on more examples"
        )

    def compute_metrics(self, split: str) -> Callable[[EvalPrediction], dict[str, float]]:
        """The same for every split: GLUE's metrics."""
        return make_compute_metrics(self.data)


def make_compute_metrics(task: LabelledTask) -> Callable[[EvalPrediction], dict[str, float]]:
    """`Trainer`'s metric function of a task: its GLUE metrics, `score`, their mean, and how well calibrated it is."""
    metric = GlueMetric(task.metric, keep_in_memory=True)

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
        check_finite(task.name, logits)
        chosen = logits.argmax(axis=-1) if task.label_names else logits.reshape(-1)
        metrics = metric.compute(predictions=chosen, references=prediction.label_ids)
        beside = {"calibration_error": calibration_error(logits, prediction.label_ids)} if task.label_names else {}
        return {**metrics, "score": glue_score(metrics), **beside}

    return compute
