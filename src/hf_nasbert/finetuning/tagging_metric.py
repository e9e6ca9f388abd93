"""How taggings of words are judged: entities by precision, recall and F1, single tags by accuracy and macro F1."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

_BEGINS, _CONTINUES, _ENDS = "BSU", "IEL", "ESLU"  # BIO, and what BIOES and BILOU add to it


class TaggingMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """What taggings of sentences are worth, by entity or by word.

    "entities": precision, recall and F1 of whole entities, which count only with both ends and the type right, over
    all sentences together, as CoNLL's script counts them (Tjong Kim Sang and De Meulder, 2003,
    https://aclanthology.org/W03-0419); and the accuracy of the words. "tags": the accuracy of the words, and the mean
    of the F1 of every tag that occurs (macro F1).

    Args:
        kind: "entities" or "tags".
        options: Passed to `evaluate.Metric`, for instance `keep_in_memory=True`.

    Raises:
        ValueError: If there is no such kind.

    Example:
        >>> right, found = [["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "O", "O"]]
        >>> TaggingMetric("entities").compute(predictions=found, references=right)["recall"]
        0.5
    """

    def __init__(self, kind: str, **options: Any) -> None:
        if kind not in ("entities", "tags"):
            raise ValueError(f"no metric of taggings is called {kind!r}; choose entities or tags")
        super().__init__(config_name=kind, **options)

    def _info(self) -> Any:
        return evaluate.MetricInfo(
            description="Quality of taggings of sentences.",
            citation="https://aclanthology.org/W03-0419",
            inputs_description="predictions and references: the tags of every sentence.",
            features=datasets.Features(
                {name: datasets.List(datasets.Value("string")) for name in ("predictions", "references")}
            ),
        )

    def _compute(self, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, float]:
        pairs = [
            pair
            for found, right in zip(predictions, references, strict=True)
            for pair in zip(found, right, strict=True)
        ]
        accuracy = sum(found == right for found, right in pairs) / max(len(pairs), 1)
        if self.config_name == "tags":
            return {"accuracy": accuracy, "macro_f1": _macro_f1(pairs)}
        found, right = (
            {(row, *entity) for row, tags in enumerate(sentences) for entity in entities(tags)}
            for sentences in (predictions, references)
        )
        num_right = len(found & right)
        precision, recall = num_right / max(len(found), 1), num_right / max(len(right), 1)
        f1 = 2 * num_right / max(len(found) + len(right), 1)
        return {"precision": precision, "recall": recall, "f1": f1, "accuracy": accuracy}


def mark_spans(label_names: Sequence[str]) -> bool:
    """Whether tags of these names mark spans (BIO, BIOES or BILOU) rather than single words."""
    marks = [name.partition("-") for name in label_names if name != "O"]
    return all(len(prefix) == 1 and prefix in _BEGINS + _CONTINUES and kind for prefix, _, kind in marks)


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """The entities that a sentence's tags mark, as (type, first word, word after the last).

    Read as leniently as CoNLL's script reads them: an `I-` that continues nothing of its type begins an entity.
    """
    found = set()
    kind, start, is_ended = None, 0, False
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        if kind is not None and (is_ended or prefix not in _CONTINUES or name != kind):
            found.add((kind, start, place))
            kind = None
        if kind is None and tag != "O":
            kind, start = name, place
        is_ended = prefix in _ENDS
    return found


def _macro_f1(pairs: Sequence[tuple[str, str]]) -> float:
    found, right = (Counter(pair[side] for pair in pairs) for side in (0, 1))
    both = Counter(one for one, other in pairs if one == other)
    scores = [2 * both[tag] / (found[tag] + right[tag]) for tag in {*found, *right}]
    return sum(scores) / max(len(scores), 1)
