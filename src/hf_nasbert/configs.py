"""The one door for config.json files of others: checked before anything believes, prints or builds what they say."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError, StrictDataclassError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from safetensors import SafetensorError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers.utils.hub import cached_file

from hf_nasbert.foreign import ForeignFileError, printable, read_object
from hf_nasbert.modeling.geometry_nasbert import parse_operator
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.terminal import quiet

OURS = ("nasbert", "nasbert_supernet", "bert")
"""The model types that are built, published and fetched here: child, super-net, and child that is a stock BERT."""

_LARGEST_FILE = 1 << 24  # bytes; a child's config has some 2,000, one of 100,000 labels some 6 million
_MOST_PARAMETERS = 10**11
_MOST_BLOCKS = 1000
_MOST_OPERATORS = 100_000
# The largest value of every field that says how much is built, far above any model that is of use here.
_SIZES = {
    "vocab_size": 10**8, "hidden_size": 10**6, "embedding_size": 10**6, "intermediate_size": 10**7, "ffn_ratio": 10**3,
    "num_conv_layers": 10**3, "attention_head_size": 10**6, "num_hidden_layers": 10**4, "num_attention_heads": 10**5,
    "max_position_embeddings": 10**8, "type_vocab_size": 10**6, "num_labels": 10**6,
}  # fmt: skip
# Fields by which transformers finds code: a kernel of the Hub is loaded where one of these names a repository.
_KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
_MODEL_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_REFERENCE = re.compile(r"[\w./-]{1,300}", re.ASCII)  # module.Class, or owner/repository--module.Class
_WORD = re.compile(r"[\w|]{1,100}", re.ASCII)

# What transformers and torch end in over wrong fields and other sizes of weights; stock configs check little, and
# fail where a field is first used.
_WRONG = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, RuntimeError, StrictDataclassError,
    TypeError, ValueError,
)  # fmt: skip


def read_model_config(content: Path | bytes, name: str) -> dict[str, Any]:
    """The fields of somebody's config.json, checked by `check_config`.

    Args:
        content: The file, or its bytes.
        name: What messages call it.

    Raises:
        FileNotFoundError: If there is no such file.
        ForeignFileError: If it is not what a config may be.
    """
    config = read_object(content, name, largest=_LARGEST_FILE)
    check_config(config, name)
    return config


def check_config(config: Mapping[str, Any], name: str) -> None:
    """Refuse a config of which nothing can be built, or whose names are no names.

    Names are letters, digits and underscores; sizes are whole numbers, and all of them together ask for at most 100
    billion parameters; no field leads to code outside of the model's own repository but by `auto_map`, which is
    followed where the user says `trust_remote_code` only. What is left unchecked is transformers' to check.

    Args:
        config: The fields.
        name: What messages call the file.

    Raises:
        ForeignFileError: For the first field that is wrong, with its value.
    """
    model_type = config.get("model_type")
    if model_type is not None and not _fits(_MODEL_TYPE, model_type):
        raise _wrong(name, "model_type", model_type, "a name of letters, digits, _ . and -")
    classes = config.get("architectures")
    if classes is not None and not (_is_short_list(classes) and all(_fits(_IDENTIFIER, one) for one in classes)):
        raise _wrong(name, "architectures", classes, "a list of class names: letters, digits and underscores")
    _check_code(config, name)
    _check_labels(config, name)
    for field, most in _SIZES.items():
        value = config.get(field)
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if isinstance(value, int) and abs(value) > most:
            raise _wrong(name, field, value, f"at most {most:,}")
        if model_type in OURS and value is not None and not (is_whole and value >= 1):
            raise _wrong(name, field, value, "a whole number of at least 1")
    _check_blocks(config, name)
    num_parameters = _num_parameters(config)
    if num_parameters > _MOST_PARAMETERS:
        sizes = ", ".join(f"{field}={config[field]}" for field in _SIZES if isinstance(config.get(field), int))
        raise ForeignFileError(
            f"{name} asks for a model of some {num_parameters:.1e} parameters ({sizes}); "
            f"at most {_MOST_PARAMETERS:.0e} are built"
        )


def load_config(model: str, *, revision: str | None = None, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The config of a folder or Hub model, checked before transformers believes it.

    Args:
        model: Folder, or name on the Hub.
        revision: Branch, tag or commit on the Hub.
        trust_remote_code: Whether a config class of the repository's own may be run.

    Raises:
        ForeignFileError: If its config.json is not what a config may be, naming the model.
        ValueError: If a revision is asked of a folder.
        OSError: If there is no such model, or it has no config.json.
    """
    check_model(model, revision)
    with fetching(model):
        file = cached_file(model, "config.json", revision=revision)
    with loading_errors(model):
        fields = read_model_config(Path(str(file)), f"config.json of {printable(model, 200)}")
        model_type = fields.get("model_type")
        is_known = model_type in CONFIG_MAPPING or model_type in OURS
        if fields.get("auto_map") and not is_known and not trust_remote_code:
            raise ForeignFileError(
                f"{printable(model, 200)} is a {model_type!r} that comes with code of its own: pass trust_remote_code "
                "(--trust_remote_code) to run it, if you trust it"
            )
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            model, revision=revision, trust_remote_code=trust_remote_code
        )
    return config


def check_model(model: str, revision: str | None = None) -> None:
    """Refuse what is neither a folder nor a name on the Hub, and a revision of a folder, without asking the Hub.

    Raises:
        ValueError: If a revision is asked of a folder.
        OSError: If there is no such folder, and no model on the Hub can be called so.
    """
    _check_place(model)
    check_revision(model, revision)


def check_revision(model: str | Path, revision: str | None) -> None:
    """Refuse a branch, tag or commit of a folder, which would be passed over.

    Raises:
        ValueError: If there is one.
    """
    if revision is not None and Path(model).is_dir():
        raise ValueError(
            f"revision={printable(revision, 100)} is of a model on the Hub, and {printable(model, 200)} is a folder: "
            "leave it out, or name the model on the Hub"
        )


@contextmanager
def fetching(model: str) -> Iterator[None]:
    """Name a model in the error of its files that cannot be fetched, and say nothing of requests that are repeated.

    Raises:
        OSError: In place of one that does not name it.
    """
    try:
        with quiet("huggingface_hub.utils._http"):  # requests are tried again; the last error says so in one line
            yield
    except OSError as error:
        if model in str(error):
            raise
        raise OSError(f"the model {printable(model, 200)} cannot be loaded: {_one_line(error)}") from error


def _check_place(model: str) -> None:
    """Refuse what is neither a folder nor a name on the Hub, which nobody needs to ask."""
    shown = printable(model, 200)
    if Path(model).is_file():
        raise NotADirectoryError(f"{shown} is a file: expected a model's folder, or its name on the Hub")
    if not Path(model).is_dir():
        try:
            validate_repo_id(model)
        except HFValidationError:
            raise FileNotFoundError(f"there is no folder {shown}, and no model on the Hub can be called so") from None


@contextmanager
def loading_errors(name: object) -> Iterator[None]:
    """Turn whatever transformers raises over a wrong config or weights that do not fit into one error.

    Args:
        name: The folder or model, which the error names.

    Raises:
        ForeignFileError: For a field of the wrong type or value, weights of other sizes, or damaged weights.
    """
    shown = printable(name, 200)
    try:
        yield
    except ForeignFileError:
        raise
    except SafetensorError as error:
        raise ForeignFileError(
            f"the weights of {shown} are damaged ({_one_line(error)}): fetch or make them again"
        ) from error
    except _WRONG as error:
        raise ForeignFileError(
            f"{shown} does not load: its config.json or its weights are wrong ({_one_line(error)})"
        ) from error


def _check_code(config: Mapping[str, Any], name: str) -> None:
    """Refuse fields that lead to code and are no references, and those that lead to code of a third repository."""
    auto_map = config.get("auto_map")
    if auto_map is not None:
        entries = auto_map.items() if isinstance(auto_map, dict) else [(None, None)]
        for auto_class, reference in entries:
            references = reference if isinstance(reference, list) and len(reference) <= 2 else [reference]
            if not _fits(_IDENTIFIER, auto_class) or not all(
                one is None or _fits(_REFERENCE, one) for one in references
            ):
                raise _wrong(name, "auto_map", auto_map, "an object of class names and modules, module.Class")
    parts: list[Mapping[str, Any]] = [config]  # a config may hold others
    for part in parts:
        parts += [value for value in part.values() if isinstance(value, dict)]
        for field in _KERNELS:
            value = part.get(field)
            for one in value.values() if isinstance(value, dict) else [value]:
                if one is not None and not _fits(_WORD, one):
                    raise _wrong(name, field, value, "a word such as 'sdpa': kernels of the Hub are code")


def _check_labels(config: Mapping[str, Any], name: str) -> None:
    for field in ("id2label", "label2id"):
        labels = config.get(field)
        if labels is not None and not (isinstance(labels, dict) and len(labels) <= _SIZES["num_labels"]):
            raise _wrong(name, field, labels, f"an object of at most {_SIZES['num_labels']:,} labels")
    names = list((config.get("id2label") or {}).values())
    odd = next((label for label in names if not isinstance(label, str | int | float)), None)
    if odd is not None:
        raise _wrong(name, "id2label", odd, "texts")


def _check_blocks(config: Mapping[str, Any], name: str) -> None:
    """Refuse operators and search spaces that are none; the message of the space says why."""
    model_type = config.get("model_type")
    try:
        if model_type == "nasbert" and "operators" in config:
            operators = config["operators"]
            if not isinstance(operators, list) or not 1 <= len(operators) <= _MOST_BLOCKS:
                raise _wrong(name, "operators", operators, f"a list of 1 to {_MOST_BLOCKS} operator names")
            Architecture(operators)
        if model_type == "nasbert_supernet":
            if not isinstance(config.get("search_space"), dict):
                raise _wrong(name, "search_space", config.get("search_space"), "an object")
            space = SearchSpace.from_dict(config["search_space"])
            num_blocks = sum(stage.num_blocks for stage in space.stages)
            num_operators = sum(
                max(1, len(stage.widths)) * len(kinds) for stage in space.stages for kinds in stage.blocks
            )
            if num_blocks > _MOST_BLOCKS or num_operators > _MOST_OPERATORS:
                raise ValueError(
                    f"search_space has {num_blocks:,} choice blocks of {num_operators:,} operators; at most "
                    f"{_MOST_BLOCKS:,} of {_MOST_OPERATORS:,} are built"
                )
    except ForeignFileError:
        raise
    except ValueError as error:
        raise ForeignFileError(f"{name}: {_one_line(error)}") from error
    lengths = config.get("stage_lengths")
    if model_type == "nasbert" and lengths is not None:
        if not _is_short_list(lengths) or not all(type(length) is int for length in lengths):
            raise _wrong(name, "stage_lengths", lengths, "a list of whole numbers")


def _num_parameters(config: Mapping[str, Any]) -> float:
    """Roughly how many parameters a checked config asks for; of unknown families by the usual names of sizes."""

    def size(field: str, default: float) -> float:
        value = config.get(field)
        return float(value) if isinstance(value, int) else default

    width = size("hidden_size", 256)
    embedding = size("embedding_size", width)
    rows = sum(size(field, 0) for field in ("vocab_size", "max_position_embeddings", "type_vocab_size"))
    outside = rows * embedding + embedding * width + size("num_labels", 0) * width
    blocks: list[str] = []
    if config.get("model_type") == "nasbert":
        blocks = config.get("operators") or []
    elif config.get("model_type") == "nasbert_supernet":
        blocks = [name for names in SearchSpace.from_dict(config["search_space"]).blocks for name in names]
    inner = size("ffn_ratio", 4)
    ours = 0.0
    for name in map(parse_operator, blocks):
        wide = name.width or width
        ours += wide**2 * (2 * inner + 4 + 8 * size("num_conv_layers", 2))
        heads = size("attention_head_size", 64) if name.kind == "attention" else 1
        ours += 4 * wide * heads * (name.size or 0)
    layer = 4 * width**2 + 2 * width * size("intermediate_size", 4 * width)
    return outside + (ours if blocks else layer * size("num_hidden_layers", 12))


def _fits(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_short_list(value: object) -> bool:
    return isinstance(value, list) and len(value) <= _MOST_BLOCKS


def _wrong(name: str, field: str, value: object, expected: str) -> ForeignFileError:
    return ForeignFileError(f"{name}: {field} is {printable(repr(value), 100)}; expected {expected}")


def _one_line(error: BaseException) -> str:
    return printable(" ".join(str(error).split()), 600) or type(error).__name__
