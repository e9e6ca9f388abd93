"""The nine GLUE tasks: which columns they read, and how they are judged without a network."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate
import numpy as np

from hf_nasbert.lazy import check_extra

_SENTENCE = ("sentence",)
_SENTENCES = ("sentence1", "sentence2")


@dataclass(frozen=True)
class GlueTask:
    """Where a task of `nyu-mll/glue` keeps its texts, and on which splits it is validated.

    The test splits carry no labels, so results are those of the validation splits, as in the papers. The first one
    is the one that selects.
    """

    text_columns: tuple[str, ...]
    validation_splits: tuple[str, ...] = ("validation",)


GLUE_TASKS: dict[str, GlueTask] = {
    "cola": GlueTask(_SENTENCE),
    "sst2": GlueTask(_SENTENCE),
    "mrpc": GlueTask(_SENTENCES),
    "stsb": GlueTask(_SENTENCES),
    "qqp": GlueTask(("question1", "question2")),
    "mnli": GlueTask(("premise", "hypothesis"), ("validation_matched", "validation_mismatched")),
    "qnli": GlueTask(("question", "sentence")),
    "rte": GlueTask(_SENTENCES),
    "wnli": GlueTask(_SENTENCES),
}

_NEED_SKLEARN = ("cola", "mrpc", "qqp")
_METRIC_NAMES = (*GLUE_TASKS, "mnli_matched", "mnli_mismatched", "hans")


def check_metric(task: str) -> None:
    """Refuse a GLUE task whose metric cannot be computed here.

    Raises:
        ImportError: If it needs scikit-learn, and that is not installed.
    """
    if task in _NEED_SKLEARN:
        check_extra(f"the metric of {task!r}", "glue", "sklearn")


class GlueMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """GLUE's metrics as `evaluate.load("glue", task)` defines them, without downloading its script.

    CoLA: Matthews correlation. STS-B: Pearson and Spearman. MRPC and QQP: accuracy and F1 of label 1. All others:
    accuracy. A correlation with a constant is undefined and comes back as `nan`, as it does from `evaluate`.

    Args:
        task: A GLUE task, or one of `evaluate`'s further names (`mnli_matched`, `mnli_mismatched`, `hans`).
        options: Passed to `evaluate.Metric`, for instance `keep_in_memory=True`.

    Raises:
        ValueError: If the task is unknown.
        ImportError: If the task's metric needs scikit-learn and it is not installed.

    Example:
        >>> GlueMetric("mrpc").compute(predictions=[1, 1, 0, 0], references=[1, 0, 0, 0])["accuracy"]
        0.75
    """

    def __init__(self, task: str, **options: Any) -> None:
        if task not in _METRIC_NAMES:
            raise ValueError(f"no GLUE metric for {task!r}; choose one of {', '.join(_METRIC_NAMES)}")
        # Asked for here rather than in `_compute`, which runs for the first time after an epoch of training.
        check_metric(task)
        super().__init__(config_name=task, **options)

    def _info(self) -> Any:
        kind = "float32" if self.config_name == "stsb" else "int64"
        return evaluate.MetricInfo(
            description="The metric of a GLUE task (Wang et al., 2018, https://arxiv.org/abs/1804.07461).",
            citation="https://arxiv.org/abs/1804.07461",
            inputs_description="predictions and references: label indices, or similarity scores for stsb.",
            features=datasets.Features({name: datasets.Value(kind) for name in ("predictions", "references")}),
            format="numpy",
        )

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        with warnings.catch_warnings():
            # scipy and scikit-learn warn of constant inputs; the nan or 0 they return says it, and every child
            # passes through that state in its first steps.
            warnings.simplefilter("ignore")
            return self._scores(predictions, references)

    def scores(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """What `compute` gives, of arrays as they are: a bootstrap asks for it some hundred times."""
        return self._compute(predictions, references)

    def _scores(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        if self.config_name == "stsb":
            from scipy.stats import pearsonr, spearmanr

            pearson, spearman = pearsonr(predictions, references)[0], spearmanr(predictions, references)[0]
            return {"pearson": float(pearson), "spearmanr": float(spearman)}
        if self.config_name == "cola":
            from sklearn.metrics import matthews_corrcoef

            return {"matthews_correlation": float(matthews_corrcoef(references, predictions))}
        scores = {"accuracy": float((predictions == references).mean())}
        if self.config_name in ("mrpc", "qqp"):
            from sklearn.metrics import f1_score

            scores["f1"] = float(f1_score(y_true=references, y_pred=predictions))
        return scores


def glue_score(metrics: Mapping[str, float]) -> float:
    """One number per task: the mean of its metrics, as GLUE's leaderboard averages them.

    An undefined correlation (constant predictions rank nothing) counts as 0, which is also what scikit-learn makes
    of an undefined Matthews correlation.
    """
    values = [0.0 if np.isnan(value) else value for value in metrics.values()]
    return sum(values) / len(values)
