"""What each stage of a compression says of what it made: the content of its record, one class for each."""

from dataclasses import dataclass
from typing import Any

from hf_nasbert.records import Record


@dataclass(frozen=True)
class Costs:
    """Of the stage `costs`: the base model's own, the caps of every budget, and the latencies of operators here."""

    base_model: dict[str, float]
    caps: dict[str, dict[str, float]]
    latency_table: Record | None


@dataclass(frozen=True)
class Text:
    """Of the stage `text`: batches and real tokens of every part."""

    num_batches: dict[str, int]
    num_tokens: dict[str, int]


@dataclass(frozen=True)
class Vocabulary:
    """Of the stage `vocabulary`: pieces kept, pieces that the tokenizer has, what became of held-out sentences.

    `cut_otherwise` is the share of them that is cut into other pieces than before.
    """

    num_pieces: int
    num_before: int
    cut_otherwise: float


@dataclass(frozen=True)
class Taught:
    """Of the stage `base model`: how far its child is from it, tokens that it read, and whether bfloat16 pays here."""

    difference: float
    num_tokens: int
    bf16: bool


@dataclass(frozen=True)
class Variants:
    """Of the stage `variants`: importances by which heads and neurons are sorted, and what each variant misses."""

    importance: list[list[float]]
    errors: dict[str, float]


@dataclass(frozen=True)
class WarmedUp:
    """Of the stage `warm-up`: what each variant misses of its block's output on batches that trained none of them."""

    errors: dict[str, float]


@dataclass(frozen=True)
class Replacements:
    """Of the stage `lone replacements`: what every variant costs alone."""

    table: list[dict[str, Any]]


@dataclass(frozen=True)
class Additive:
    """Of the stage `additivity`: how far sums of lone replacements are from real distances, by space."""

    spaces: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class TrainedSupernet:
    """Of the stage `super-net`: children of the screened space, and their mean distance before and after."""

    num_children: int
    num_tokens: int
    before: float
    after: float


@dataclass(frozen=True)
class Chosen:
    """Of the stage `search`: what chose, the best sums with their scores, and the winner.

    `choices` are the architecture, the sum of lone replacements, the distance, the task's metric where that ranks, and
    the costs of each; where a latency is capped, `measured_ms` are the winner's and the base model's, measured side by
    side.
    """

    scorer: str
    choices: list[dict[str, Any]]
    winner: str
    measured_ms: list[float] | None


@dataclass(frozen=True)
class ByHand:
    """Of the stage `by hand`: for every budget what people would choose, its loss without training, and its cost."""

    children: list[dict[str, Any]]
    missing: list[str]


@dataclass(frozen=True)
class Recovered:
    """Of the stage `recovery`: the child's distance on text that chooses, before and after, and what it is worth.

    `start` says whose weights it began with: the base model's (`inherited`), or those of the trained super-net.
    `kept_step` is the step after which it had the weights that it keeps: 0 where its start was best. `metric` is the
    task's on the examples that choose, where that ranks.
    """

    start: str
    num_tokens: int
    num_steps: int
    kept_step: int
    before: float
    after: float
    metric: float | None
    judged: dict[str, Any]


@dataclass(frozen=True)
class Proof:
    """Of the stage `proof`: the rows of the table."""

    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Written:
    """Of the stage `folder`: for every budget the folder's name within the output, class, and size in bytes."""

    models: list[dict[str, Any]]


@dataclass(frozen=True)
class OnnxFile:
    """Of the stages `onnx` and `int8`: a file that was written and compared with the model, within the output."""

    file: str
    bytes: int


@dataclass(frozen=True)
class Runtimes:
    """Of the stage `runtimes`: the rows of the table of what computes a smaller model."""

    rows: list[dict[str, Any]]
