"""The YAML at the top of a card: written and checked by huggingface_hub, which quotes what YAML would misread."""

import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_nasbert.cards.evaluations import Evaluation, as_eval_result
from hf_nasbert.cards.fields import CardRecord
from hf_nasbert.cards.markdown import Markdown, one_line
from hf_nasbert.foreign import ForeignFileError, printable
from hf_nasbert.yaml_files import load_yaml

if TYPE_CHECKING:
    from huggingface_hub import CardData

TAGS = ("nasbert", "neural-architecture-search", "one-shot-nas", "efficient-transformers")
REQUIRED = ("library_name", "pipeline_tag", "tags")
FOR_PUBLISHING = (*REQUIRED, "license", "language")
"""What the Hub lets a model be found and used by; only its owner can say the last two."""

# https://huggingface.co/docs/hub/repositories-licenses
LICENSES = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
    eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research
    intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit
    mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openmdw-1.0 openmdw-1.1 openrail openrail++ osl-3.0 other pddl postgresql
    unknown unlicense wtfpl zlib
    """.split()
)
"""The identifiers of licenses that the Hub knows."""
_LANGUAGE = re.compile(r"[a-z]{2,3}|multilingual|code")  # ISO 639-1, -2, -3, and the Hub's own
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_RELATIONS = ("adapter", "finetune", "merge", "quantized")  # that the Hub knows
_TASK = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def model_metadata(
    record: CardRecord,
    library: str,
    tags: list[str],
    evaluations: Sequence[Evaluation],
    task: str = "fill-mask",
    relation: str | None = None,
) -> Markdown:
    """The metadata of a model. Its task is one of the Hub's names of them, and so is its relation to its base model.

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
        base_model_relation=relation if record.base_model else None,
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
        raise ValueError("the card says nothing after its metadata")
    data = content.data
    missing = [name for name in required if not data.get(name)]
    if missing:
        raise ValueError(f"the card's metadata lack {', '.join(missing)}: say them in the record it is made from")
    for result in data.get("eval_results") or []:
        value = result.metric_value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"the card's {result.metric_type} on {result.dataset_name} is {value!r}, not a number")
    return data


def with_metadata(card: str, **fields: str | None) -> str:
    """A card whose metadata also say these fields; those that are None stay as they are.

    Args:
        card: The text of README.md.
        **fields: Such as `license="apache-2.0"`.
    """
    from huggingface_hub import ModelCard

    content = ModelCard(card, ignore_metadata_errors=False)
    for name, value in fields.items():
        if value is not None:
            setattr(content.data, name, value)
    return str(content)


def unsaid_of(card: str) -> list[str]:
    """Those of `FOR_PUBLISHING` that only the owner of a model knows and that its card does not say.

    Args:
        card: The text of README.md, which `metadata_problems` finds nothing wrong with.
    """
    from huggingface_hub import ModelCard

    data = ModelCard(card, ignore_metadata_errors=False).data
    return [name for name in FOR_PUBLISHING if name not in REQUIRED and not data.get(name)]


def read_card(content: Path | bytes, name: str) -> str:
    """The text of a card.

    Raises:
        ForeignFileError: If it is no UTF-8.
    """
    try:
        return (content if isinstance(content, bytes) else content.read_bytes()).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ForeignFileError(f"{name} is not UTF-8 ({error.reason} at byte offset {error.start})") from None


def metadata_problems(card: str) -> list[str]:
    """For what the Hub would refuse a card: types, licenses, languages, names, results.

    The Hub's own check needs the network and is made when a card is sent; this one says so before. A card without
    metadata is fine.

    Args:
        card: The text of README.md.

    Returns:
        One line for every field that is wrong, beginning with its name.
    """
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    block = REGEX_YAML_BLOCK.search(card)
    if block is None:
        opened, *others = card.splitlines() or [""]
        is_open = opened.rstrip() == "---" and not any(line.rstrip() == "---" for line in others)
        return ["metadata: the block that --- opens does not end"] if is_open else []
    try:
        data = load_yaml(block[2])
    except ValueError as error:
        return [f"metadata: no YAML ({printable(error, 300)})"]
    if data is None:
        return []
    if not isinstance(data, dict):
        return [f"metadata: a {type(data).__name__}; expected lines of `field: value`"]
    problems = []
    for field, value in data.items():
        if field in _FIELDS and value is not None:
            are_lists, is_item, expected = _FIELDS[field]
            items = value if isinstance(value, list) and are_lists != "one" else [value]
            if (are_lists == "list" and not isinstance(value, list)) or not all(map(is_item, items)):
                problems.append(
                    f"{field} is {printable(repr(value), 100)}; expected {expected}{_nearest(field, value)}"
                )
    if not problems:
        try:
            ModelCard(card, ignore_metadata_errors=False)
        except Exception as error:  # whatever its parser of results stumbles over
            problems.append(f"model-index: {printable(' '.join(str(error).split()), 300) or type(error).__name__}")
    return problems


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _matches(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


# Whether a field is one value, a list, or either; what its values must be; how that is said.
_FIELDS: dict[str, tuple[str, Callable[[Any], bool], str]] = {
    "license": ("either", lambda value: value in LICENSES if _is_text(value) else False,
                "an identifier of the Hub such as apache-2.0, or `other` with license_name and license_link"),
    "language": ("either", _matches(_LANGUAGE), "ISO 639 codes of two or three letters such as en"),
    "tags": ("list", _is_text, "a list of texts"),
    "datasets": ("either", _matches(_REPOSITORY), "names of data sets on the Hub"),
    "metrics": ("list", _is_text, "a list of texts"),
    "base_model": ("either", _matches(_REPOSITORY), "names of models on the Hub"),
    "base_model_relation": ("one", lambda value: isinstance(value, str) and value in _RELATIONS,
                            f"one of {', '.join(_RELATIONS)}"),
    "pipeline_tag": ("one", _matches(_TASK), "a task of the Hub such as fill-mask"),
    "library_name": ("one", _is_text, "a text"),
    "license_name": ("one", _is_text, "a text"),
    "license_link": ("one", _is_text, "a text"),
    "model_name": ("one", _is_text, "a text"),
    "thumbnail": ("one", _is_text, "a text"),
    "widget": ("list", lambda value: isinstance(value, dict), "a list of objects"),
    "model-index": ("list", lambda value: isinstance(value, dict), "a list of objects with a name and results"),
}  # fmt: skip


def _nearest(field: str, value: Any) -> str:
    """The license that was perhaps meant: `Apache 2.0` is apache-2.0."""
    if field != "license" or not isinstance(value, str):
        return ""
    near = difflib.get_close_matches(re.sub(r"[\s_]+", "-", value[:80].strip().lower()), LICENSES, n=1, cutoff=0.8)
    return f"; did you mean {near[0]}?" if near else ""
