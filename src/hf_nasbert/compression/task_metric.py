"""What predictions are worth by a task's own metric, and how sure the difference of two models is."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from hf_nasbert.compression.sentences import LABELS, Batch
from hf_nasbert.finetuning import GlueMetric
from hf_nasbert.finetuning.glue import glue_score

_NUM_REDRAWS = 400  # of the examples: the standard error is known to a twenty-eighth
_OF_TWO_LABELS = ("mrpc", "qqp")
MACRO_F1 = "macro_f1"
"""Told beside accuracy, of which it says how it is spread over the classes; it ranks nothing."""
Predictions = Sequence[float]
"""A class, by the base model's number, or a value of every example."""


class Difference(NamedTuple):
    """How much better a model is than another one by the task's metric, and the standard error of that.

    The error is that of drawing other examples to judge by, the same ones for both models.
    """

    mean: float
    standard_error: float


class TaskMetric:
    """The metric of a task for a base model that may number its labels in another order than the data.

    Args:
        name: A GLUE task, whose metrics apply.
        label_names: What the data's labels are called; none where numbers are predicted.
        places: The base model's number of each.
        num_classes: How many labels the base model has.

    Raises:
        ValueError: If the metric is of two labels, and the data or the model has more or fewer.
        ModuleNotFoundError: If the metric needs a library that is not installed.
    """

    def __init__(self, name: str, label_names: Sequence[str], places: Sequence[int], num_classes: int) -> None:
        if name in _OF_TWO_LABELS and (len(label_names), num_classes) != (2, 2):
            raise ValueError(
                f"the metric of {name} is of two labels; the data has {len(label_names)}, the base model {num_classes}"
            )
        self.name, self.is_regression = name, not label_names
        self._metric = GlueMetric(name, keep_in_memory=True)
        self._index = {place: index for index, place in enumerate(places)}

    def predictions(self, logits: torch.Tensor) -> list[float]:
        """What a model says of examples, from its logits (B, C)."""
        found = logits.float().flatten() if self.is_regression else logits.argmax(-1)
        return [float(one) for one in found.tolist()]

    def __call__(self, predictions: Predictions, labels: Predictions) -> dict[str, float]:
        """The metrics by name: accuracy and macro F1, or F1; Matthews correlation; Pearson and Spearman.

        An undefined correlation is 0.
        """
        ours, truth = self._in_data(predictions), self._in_data(labels)
        found = self._metric.scores(ours, truth)
        if list(found) == ["accuracy"]:
            found |= {MACRO_F1: _macro_f1(ours, truth)}
        return {name: 0.0 if np.isnan(value) else value for name, value in found.items()}

    def is_one_class(self, predictions: Predictions, labels: Predictions) -> bool:
        """Whether all examples are given one class, though their labels are several; never of numbers."""
        return not self.is_regression and len(set(predictions)) == 1 < len(set(labels))

    def score(self, predictions: Predictions, labels: Predictions) -> float:
        """One number, the larger the better: the mean of the metrics that rank."""
        return score_of(self(predictions, labels))

    def difference(
        self, ours: Sequence[Predictions], theirs: Sequence[Predictions], labels: Predictions
    ) -> Difference:
        """How much better one model is than another, by `score`, means over the seeds of each.

        The standard error is a bootstrap's: the examples are redrawn with replacement, the same way for both models.

        Args:
            ours: Predictions of one model, for every seed.
            theirs: Those of the other one.
            labels: What is right.
        """
        arrays = [self._in_data(one) for one in (*ours, *theirs)]
        truth = self._in_data(labels)

        def measure(rows: NDArray[np.int64] | slice) -> float:
            scores = [glue_score(self._metric.scores(one[rows], truth[rows])) for one in arrays]
            return float(np.mean(scores[: len(ours)]) - np.mean(scores[len(ours) :]))

        rng = np.random.default_rng(0)
        redrawn = [measure(rng.integers(len(truth), size=len(truth))) for _ in range(_NUM_REDRAWS)]
        return Difference(measure(slice(None)), float(np.std(redrawn, ddof=1)))

    def _in_data(self, values: ArrayLike) -> NDArray[np.float64]:
        """Classes as the data numbers them; those that the data does not have share one number."""
        found = np.asarray(values, dtype=np.float64)
        if self.is_regression:
            return found
        other = len(self._index)
        return np.array([self._index.get(int(place), other) for place in found], dtype=np.float64)


def labels_of(batches: Sequence[Batch]) -> list[float]:
    """The labels of all examples, in the batches' order."""
    return [float(label) for batch in batches for label in batch[LABELS].tolist()]


def means_of(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every metric over seeds."""
    return {name: float(np.mean([one[name] for one in metrics])) for name in (metrics[0] if metrics else ())}


def ranking_names(metrics: Iterable[str]) -> list[str]:
    """The names of the metrics that rank: all but the one that is reported beside them."""
    return [name for name in metrics if name != MACRO_F1]


def score_of(metrics: Mapping[str, float]) -> float:
    """The mean of the metrics that rank."""
    return glue_score({name: metrics[name] for name in ranking_names(metrics)})


def _macro_f1(predictions: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """The mean F1 of all classes that the labels have."""
    scores = []
    for one in np.unique(labels):
        ours, theirs = predictions == one, labels == one
        scores.append(2 * float((ours & theirs).sum()) / float(ours.sum() + theirs.sum()))
    return float(np.mean(scores))
