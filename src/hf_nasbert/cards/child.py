"""The card of a child: how to load it, what it is, what it costs, how it was found, what it is worth."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from hf_nasbert.cards.evaluations import evaluation_note, evaluation_table
from hf_nasbert.cards.fields import CardRecord
from hf_nasbert.cards.markdown import (
    Markdown,
    cell,
    check_number,
    code,
    escape,
    label,
    number,
    python_string,
    render,
    table,
)
from hf_nasbert.cards.metadata import TAGS, model_metadata
from hf_nasbert.cards.references import references
from hf_nasbert.modeling.geometry_nasbert import geometry, parse_operator
from hf_nasbert.native import CODE_FILES, CODE_NEEDS
from hf_nasbert.space import SKIP, Architecture, operator_kind, operator_width

_OPERATORS = {
    "attention": "multi-head self-attention",
    "ffn": "feed-forward network",
    "conv3": "depth-wise separable convolution over 3 tokens",
    "conv5": "depth-wise separable convolution over 5 tokens",
    "conv7": "depth-wise separable convolution over 7 tokens",
    "norm": "learned constant added, and the sum normalised",
    SKIP: "no operator",
}
_SIZES = {"attention": "number of heads", "ffn": "inner width"}
_FOREIGN = f"kind of operator that {code('operators_nasbert.py')} defines"
_ENDS = {"fill-mask": "masked LM"}
_LINE = 80  # columns of a drawing


@dataclass(frozen=True, kw_only=True)
class ChildRecord(CardRecord):
    """What there is to say about a child. Only a name and an architecture are required.

    `cost`, `bert_cost`, `supernet`, `search` and `training` map a name to a value and are printed in their order.
    `cost` and `bert_cost` are compared row by row; the entry `name` of `bert_cost` says what it is. `stage_lengths`
    are the blocks of each stage of a space that has several. `example` is a sentence with one mask, like those that it
    was trained on. `task` is what the Hub calls that which it does,
    `auto_class` loads it, `class_name` is what a stock model is. Evaluations of any task but "fill-mask" are those of
    copies that were fine-tuned for it, and the card says so.
    """

    architecture: str
    stage_lengths: tuple[int, ...] | None = None
    native: bool = False
    mask_token: str = "[MASK]"
    example: str | None = None
    task: str = "fill-mask"
    auto_class: str = "AutoModelForMaskedLM"
    class_name: str = "BertForMaskedLM"
    cost: Mapping[str, Any] = field(default_factory=dict)
    bert_cost: Mapping[str, Any] = field(default_factory=dict)
    cost_conditions: str | None = None
    supernet: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    max_logit_difference: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        names = Architecture.parse(self.architecture)
        if self.stage_lengths is not None and sum(self.stage_lengths) != len(names):
            raise ValueError(f"stages of {list(self.stage_lengths)} blocks do not hold {len(names)} operators")
        if self.max_logit_difference is not None:
            check_number(self.max_logit_difference, "max_logit_difference")


def render_child_card(record: ChildRecord | Mapping[str, Any]) -> str:
    """The README.md of a child: Hub metadata, how to load it, what it is, what it costs, how it was found.

    Raises:
        ValueError: If the record has a key that is not a field of `ChildRecord`, a number that is not finite, or a
            name that is not one (of a repository, a license, a file).
    """
    if not isinstance(record, ChildRecord):
        record = ChildRecord.from_dict(record)
    names = Architecture.parse(record.architecture)
    own = [evaluation for evaluation in record.evaluations if evaluation.task == "fill-mask"]
    finetuned = [evaluation for evaluation in record.evaluations if evaluation.task != "fill-mask"]
    return render(
        "child.md",
        record=record,
        metadata=model_metadata(
            record, "transformers", ["bert" if record.native else TAGS[0], *TAGS[1:]], record.evaluations, record.task
        ),
        sentence=_sentence(names, record),
        location=Markdown(python_string(record.hub_id or "path/to/this/folder")),
        trust=Markdown("" if record.native else ", trust_remote_code=True"),
        example=Markdown(python_string(record.example or f"Paris is the capital of {record.mask_token}.")),
        code_files=Markdown(", ".join(f"`{name}`" for name in CODE_FILES)),
        code_needs=Markdown(CODE_NEEDS),
        drawing=Markdown(drawing(names, record.stage_lengths, _ENDS.get(record.task, "states"))),
        operators=operators_in_words(names),
        cost_table=_cost_table(record),
        own_table=evaluation_table(own) if own else None,
        finetuned_table=evaluation_table(finetuned, "After fine-tuning") if finetuned else None,
        evaluation_note=evaluation_note(record.evaluations),
        references=[Markdown(reference) for reference in references(record.supernet.get("method"))],
    )


def drawing(names: Architecture, stage_lengths: tuple[int, ...] | None = None, end: str = "masked LM") -> str:
    """The chain of blocks in plain text; a double bar stands where a stage ends."""
    # A width of 0: the model's, whatever it is.
    blocks = [] if stage_lengths is None else geometry(names, 0, stage_lengths)
    ends = {block.index for before, block in pairwise(blocks) if block.stage != before.stage}
    pieces = ["tokens"]
    for block, name in enumerate(names):
        pieces.append(f"{' ║' if block in ends else ''} ─► [{name}]")
    pieces.append(f" ─► {end}")
    lines = [""]
    for piece in pieces:
        if lines[-1] and len(lines[-1]) + len(piece) > _LINE:
            lines.append("      ")
        lines[-1] += piece
    return "\n".join(lines)


def operators_in_words(names: Architecture) -> Markdown:
    """What the names in an architecture mean, in the order in which they first appear."""
    kinds = list(dict.fromkeys(operator_kind(name) for name in names))
    meanings = [f"{code(kind)} is a {_OPERATORS.get(kind, _FOREIGN)}" for kind in kinds if kind != SKIP]
    if SKIP in kinds:
        meanings.append(f"{code(SKIP)} is a block left out")
    text = "Blocks are read from left to right" + (": " + "; ".join(meanings) if meanings else "") + "."
    sized = dict.fromkeys(operator.kind for operator in map(parse_operator, names) if operator.size is not None)
    if sized:
        said = " and ".join(f"of {code(kind)} is its {_SIZES.get(kind, 'size')}" for kind in sized)
        text += f" The number in the name {said}."
    if any(operator_width(name) for name in names):
        text += " The number after `@` is the block's hidden size."
    return Markdown(text + " Every block adds its input to its output and normalises the sum, as BERT's do.")


def _sentence(names: Architecture, record: ChildRecord) -> Markdown:
    num_real = sum(operator_kind(name) != SKIP for name in names)
    text = f"{num_real} operators, chosen block by block" if num_real > 1 else "one operator"
    if "num_parameters" in record.cost:
        text += f", {number(record.cost['num_parameters'])} parameters"
    return Markdown(text + ".")


def _cost_table(record: ChildRecord) -> Markdown:
    other = {key: value for key, value in record.bert_cost.items() if key != "name"}
    if not other:
        return table(["Cost", "This model"], [(label(key), cell(value)) for key, value in record.cost.items()])
    rows = [(label(key), cell(value), cell(other[key]) if key in other else "") for key, value in record.cost.items()]
    return table(["Cost", "This model", escape(str(record.bert_cost.get("name", "BERT of the same budget")))], rows)
