"""Families of stock encoders that children come from and turn into, with equal outputs."""

from transformers import PreTrainedModel

from .base import Family, build_like
from .bert import BERT
from .distilbert import DISTILBERT
from .electra import ELECTRA
from .roberta import ROBERTA

FAMILIES: dict[str, Family] = {"bert": BERT, "roberta": ROBERTA, "electra": ELECTRA, "distilbert": DISTILBERT}
"""Families by the `model_type` of their configs."""


def from_stock(model: PreTrainedModel, model_class: type[PreTrainedModel] | None = None) -> PreTrainedModel:
    """Turn a stock encoder, alone or with any head, into the child that it is, with equal outputs.

    Args:
        model: What an Auto class gives for a model of one of `FAMILIES`.
        model_class: The class of the child; by default the one with the same head. What that has and the model has
            not is made new: a warning of this package's logger says what.

    Raises:
        ValueError: If no family has such a model, or its sizes are none a child can have.
    """
    model_type = model.config.model_type
    if model_type not in FAMILIES:
        raise ValueError(f"cannot turn a {model_type!r} into a child: known are {', '.join(FAMILIES)}")
    return FAMILIES[model_type].from_stock(model, model_class)


def from_bert(bert: PreTrainedModel) -> PreTrainedModel:
    """Turn a stock BERT, alone or with any head, into the child that it is: attention and ffn in turn.

    The way back, `to_bert`, gives the same weights bit for bit.

    Raises:
        ValueError: If the model is not a plain BERT encoder, or its sizes are none a child can have.
    """
    return BERT.from_stock(bert)


def to_bert(child: PreTrainedModel) -> PreTrainedModel:
    """Turn a child that alternates attention and ffn into the stock BERT that it is, with equal outputs.

    Skips are left out. Every head becomes BERT's own: `NasBertForMaskedLM` a `BertForMaskedLM`, and so on. The result
    needs no code of ours.

    Raises:
        ValueError: If the child is no BERT, naming the first block in the way, or its embeddings, and why.
    """
    return BERT.to_stock(child)


def native_form(child: PreTrainedModel) -> tuple[PreTrainedModel, str | None]:
    """The stock BERT that a child is, if it is one; otherwise the child itself, and the reason why it is none.

    Returns:
        `(a Bert... model, None)`, which anybody loads without `trust_remote_code`, or `(child, reason)`. A model that
        is a stock BERT already comes back as it is.
    """
    if type(child) in BERT.heads.values():
        return child, None
    try:
        return to_bert(child), None
    except ValueError as error:
        return child, str(error)


__all__ = ["FAMILIES", "Family", "build_like", "from_bert", "from_stock", "native_form", "to_bert"]
