"""What each stage of the whole way says of what it made: the content of its record, one class for each."""

from dataclasses import dataclass
from typing import TypeVar

from hf_nasbert import records


@dataclass(frozen=True)
class PackedText:
    """Of the stage `text`: tokens of the vocabulary and of a sequence, sequences to train on and held out."""

    vocab_size: int
    num_sequences: int
    num_dev_sequences: int
    sequence_length: int


@dataclass(frozen=True)
class TrainedSupernet:
    """Of the stage `super-net`: children of its space, and what it was trained on."""

    num_children: int
    num_steps: int
    num_tokens: int


@dataclass(frozen=True)
class Latencies:
    """Of the stage `latency`: what the operators were timed on, and how far sums of them are from real children."""

    measured_on: str
    error_percent: float


@dataclass(frozen=True)
class Scores:
    """Of the stage `scores`: how children were chosen, how many, within which caps, and the best one.

    `latency_ms` is the best one's, timed whole, under a cap on latency.
    """

    how: str
    num_scored: int
    num_within_budget: int
    caps: dict[str, float]
    winner: str
    proxy_loss: float
    latency_ms: float | None = None


@dataclass(frozen=True)
class Extraction:
    """Of the stage `extraction`: the largest difference of the child's logits from the super-net's."""

    max_logit_difference: float


@dataclass(frozen=True)
class Pretraining:
    """Of the stage `pre-training`: the winner's dev loss before and after, and what it was trained on between."""

    dev_loss_before: float
    dev_loss_after: float
    num_steps: int
    num_tokens: int


@dataclass(frozen=True)
class Control:
    """Of the stage `control`: a plain BERT as large as the child, trained on as many tokens, and its fine-tuning."""

    architecture: str
    num_parameters: int
    num_steps: int
    num_tokens: int
    dev_loss: float
    finetuned: list[records.Record]


@dataclass(frozen=True)
class Finetuning:
    """Of the stage `fine-tuning`: a record per seed, of the child and of the same architecture from scratch."""

    child: list[records.Record]
    from_scratch: list[records.Record]


@dataclass(frozen=True)
class Card:
    """Of the stage `card`: the names of the drawn files."""

    figures: list[str]


@dataclass(frozen=True)
class Answers:
    """Of the stage `fresh process`: for every masked sentence the likeliest words and their probabilities."""

    answers: dict[str, list[tuple[str, float]]]


Content = TypeVar(
    "Content",
    PackedText,
    Latencies,
    TrainedSupernet,
    Scores,
    Extraction,
    Pretraining,
    Finetuning,
    Control,
    Card,
    Answers,
)


@dataclass(frozen=True)
class StageResult:
    """What a stage made, where it lies, how long that took, and what it says of it, in a class of its own."""

    name: str
    made: str
    where: str
    seconds: float
    is_reused: bool
    content: (
        PackedText
        | Latencies
        | TrainedSupernet
        | Scores
        | Extraction
        | Pretraining
        | Finetuning
        | Control
        | Card
        | Answers
    )


def as_table(results: list[StageResult]) -> str:
    """What was made, where it lies, and how long each stage took."""
    rows = [("stage", "made", "lies in", "seconds")]
    for result in results:
        note = " (made earlier)" if result.is_reused else ""
        rows.append((result.name, result.made, result.where, f"{result.seconds:.0f}{note}"))
    rows.append(("all", "", "", f"{sum(result.seconds for result in results if not result.is_reused):.0f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=False)] for row in rows]
    lines = ["  ".join([*cells, row[3]]) for cells, row in zip(padded, rows, strict=True)]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
