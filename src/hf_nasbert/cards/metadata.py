"""The YAML at the top of a card: written and checked by huggingface_hub, which quotes what YAML would misread."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hf_nasbert.cards.evaluations import Evaluation, as_eval_result
from hf_nasbert.cards.fields import CardRecord
from hf_nasbert.cards.markdown import Markdown, one_line

if TYPE_CHECKING:
    from huggingface_hub import CardData

TAGS = ("nasbert", "neural-architecture-search", "one-shot-nas", "efficient-transformers")
REQUIRED = ("library_name", "pipeline_tag", "tags")
FOR_PUBLISHING = (*REQUIRED, "license", "language")
"""What the Hub lets a model be found and used by; only its owner can say the last two."""


def model_metadata(
    record: CardRecord, library: str, tags: list[str], evaluations: Sequence[Evaluation], task: str = "fill-mask"
) -> Markdown:
    """The metadata of a model, of which the task is one of the Hub's names of them.

    Its `model-index` are the evaluations on that task: weights that do another one had to be fine-tuned first, and are
    not those of the repository.
    """
    from huggingface_hub import ModelCardData

    own = [evaluation for evaluation in evaluations if evaluation.task == task]

    data = ModelCardData(
        library_name=library,
        pipeline_tag=task,
        tags=[*tags, *map(one_line, record.tags)],
        license=record.license,
        language=record.language,
        datasets=list(record.datasets) or None,
        base_model=record.base_model,
        model_name=one_line(record.name) if own else None,
        eval_results=[as_eval_result(evaluation) for evaluation in own] or None,
    )
    return Markdown(data.to_yaml(line_break="\n"))


def check_card(card: str, required: tuple[str, ...] = REQUIRED) -> "CardData":
    """Read a model card as the Hub's own library does, and refuse one that lacks something.

    Args:
        card: The text of README.md.
        required: The fields that must be there; `FOR_PUBLISHING` are what a public model ought to say.

    Returns:
        The metadata.

    Raises:
        ValueError: If there is no valid metadata, a field of it is missing, or a result has no task, data or number.
    """
    from huggingface_hub import ModelCard

    content = ModelCard(card, ignore_metadata_errors=False)
    if not content.text.strip():
        raise ValueError("the card says nothing behind its metadata")
    data = content.data
    missing = [name for name in required if not data.get(name)]
    if missing:
        raise ValueError(f"the card's metadata lack {', '.join(missing)}: say them in the record it is made from")
    for result in data.get("eval_results") or []:
        value = result.metric_value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"the card's {result.metric_type} on {result.dataset_name} is {value!r}, not a number")
    return data
