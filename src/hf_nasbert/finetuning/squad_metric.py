"""SQuAD's metrics, exact match and F1 of answers, without a network."""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import evaluate
import numpy as np
from datasets import Features, Value

from hf_nasbert.finetuning.question_answering_data import FEATURES


class SquadMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """Exact match and F1 of answers in percent, as `evaluate.load("squad")` and `("squad_v2")` define them.

    Both compare words in lower case without punctuation and articles, and take the best of a question's right answers
    (Rajpurkar et al., 2016, https://arxiv.org/abs/1606.05250, section 6.1). In v2 (Rajpurkar et al., 2018,
    https://arxiv.org/abs/1806.03822) a question may have none: an answer then counts only if it is withheld, that is
    empty or more likely absent (`no_answer_probability`) than `no_answer_threshold`. `best_exact` and `best_f1` are
    what the best thresholds on these very questions give: an upper bound, since they have seen the answers.

    Args:
        version: "v1" or "v2".
        options: Passed to `evaluate.Metric`, for instance `keep_in_memory=True`.

    Raises:
        ValueError: If there is no such version.

    Example:
        >>> found = [{"id": "1", "prediction_text": "the Denver Broncos!"}]
        >>> right = [{"id": "1", "answers": {"text": ["Denver Broncos"], "answer_start": [177]}}]
        >>> SquadMetric("v1").compute(predictions=found, references=right)
        {'exact_match': 100.0, 'f1': 100.0}
    """

    def __init__(self, version: str, **options: Any) -> None:
        if version not in ("v1", "v2"):
            raise ValueError(f"no metric of SQuAD {version!r}; choose v1 or v2")
        super().__init__(config_name=version, **options)

    def _info(self) -> Any:
        predictions = {"id": Value("string"), "prediction_text": Value("string")}
        if self.config_name == "v2":
            predictions["no_answer_probability"] = Value("float64")
        references = {"id": Value("string"), "answers": FEATURES["answers"]}
        return evaluate.MetricInfo(
            description="Exact match and F1 of SQuAD.",
            citation="https://arxiv.org/abs/1806.03822",
            inputs_description="predictions: id, prediction_text (v2: and no_answer_probability); references: id, "
            "answers with text and answer_start.",
            features=Features({"predictions": predictions, "references": references}),
        )

    def _compute(
        self,
        predictions: Sequence[Mapping[str, Any]],
        references: Sequence[Mapping[str, Any]],
        no_answer_threshold: float = 1.0,
    ) -> dict[str, float]:
        found = {prediction["id"]: prediction for prediction in predictions}
        missing = [reference["id"] for reference in references if reference["id"] not in found]
        if missing:
            raise ValueError(f"{len(missing)} questions have no prediction, the first is {missing[0]!r}")
        scores = np.array(
            [_exact_and_f1(found[one["id"]]["prediction_text"], one["answers"]["text"]) for one in references]
        )  # (questions, 2)
        if self.config_name == "v1":
            exact, f1 = 100 * scores.mean(axis=0)
            return {"exact_match": float(exact), "f1": float(f1)}
        is_answerable = np.array([any(map(normalize_answer, one["answers"]["text"])) for one in references])
        absent = np.array([found[one["id"]]["no_answer_probability"] for one in references])
        withheld = (~is_answerable).astype(float)[:, None]  # what each question is worth if it is not answered
        chosen = np.where((absent > no_answer_threshold)[:, None], withheld, scores)
        result = dict(zip(("exact", "f1"), map(float, 100 * chosen.mean(axis=0)), strict=True))
        for part, mask in (("HasAns", is_answerable), ("NoAns", ~is_answerable)):
            if mask.any():
                exact, f1 = 100 * chosen[mask].mean(axis=0)
                result |= {f"{part}_exact": float(exact), f"{part}_f1": float(f1)}
        for column, name in enumerate(("exact", "f1")):
            best, threshold = _best_threshold(scores[:, column], withheld[:, 0], absent)
            result |= {f"best_{name}": 100 * best, f"best_{name}_thresh": threshold}
        return result


def normalize_answer(text: str) -> str:
    """Lower case, without punctuation, articles and superfluous space."""
    text = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _exact_and_f1(text: str, answers: Sequence[str]) -> tuple[float, float]:
    """The best over the right answers; a question without any wants no answer."""
    right = [answer for answer in map(normalize_answer, answers) if answer] or [""]
    found = normalize_answer(text)
    return float(found in right), max(_f1(found.split(), answer.split()) for answer in right)


def _f1(found: list[str], right: list[str]) -> float:
    if not found or not right:
        return float(found == right)
    num_common = sum((Counter(found) & Counter(right)).values())
    return 2 * num_common / (len(found) + len(right))


def _best_threshold(answered: np.ndarray, withheld: np.ndarray, absent: np.ndarray) -> tuple[float, float]:
    """The best mean over all thresholds, and the lowest that gives it, where questions above it are not answered."""
    order = np.argsort(absent, kind="stable")
    totals = withheld.sum() + np.cumsum((answered - withheld)[order])  # the first so many are answered
    is_last = np.append(absent[order][1:] != absent[order][:-1], True)  # equal ones are answered together
    totals = np.where(is_last, totals, -np.inf)
    best = int(totals.argmax())
    if withheld.sum() >= totals[best]:
        return float(withheld.mean()), 0.0
    return float(totals[best] / len(answered)), float(absent[order][best])
