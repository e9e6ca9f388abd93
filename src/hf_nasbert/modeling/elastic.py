"""Elastic super-nets: choice blocks whose operators are all cut from one encoder's own weights."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from hf_nasbert.configs import load_config, loading_errors
from hf_nasbert.space import SKIP, FreeStage, SearchSpace

from .configuration_nasbert import NasBertConfig, NasBertShapeConfig
from .configuration_supernet import SupernetConfig
from .families import FAMILIES, build_like, from_stock
from .geometry_nasbert import OPERATOR_KINDS, SIZED_KINDS, inner_width, parse_operator
from .modeling_nasbert import (
    NasBertEncoder,
    NasBertForMaskedLM,
    NasBertForQuestionAnswering,
    NasBertForSequenceClassification,
    NasBertForTokenClassification,
    NasBertModel,
    NasBertPreTrainedModel,
)
from .modeling_supernet import SUPERNETS, SupernetPreTrainedModel
from .operators_nasbert import build_operator

AUTO_CLASSES = {
    NasBertModel: AutoModel,
    NasBertForMaskedLM: AutoModelForMaskedLM,
    NasBertForSequenceClassification: AutoModelForSequenceClassification,
    NasBertForTokenClassification: AutoModelForTokenClassification,
    NasBertForQuestionAnswering: AutoModelForQuestionAnswering,
}
# What may be kept of heads and of neurons by default, in twenty-fourths. With halves and quarters alone the children
# next to half of the parameters are a percent too large or too small for that.
_HEADS, _WIDTHS = (18, 12, 6), (18, 14, 12, 10, 6, 3)
SUPPORTED = f"supported are the encoders {', '.join(sorted(FAMILIES))}, and children"
_LABELS = ("id2label", "label2id", "problem_type")


def load_full_child(
    base_model: str | Path | PreTrainedModel,
    child_class: type[NasBertPreTrainedModel],
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    may_draw_head: bool = True,
) -> NasBertPreTrainedModel:
    """A pretrained encoder as the child that it is, with equal outputs; in float32 and in evaluation mode.

    Args:
        base_model: Folder, name on the Hub, or the model itself; it is left as it is.
        child_class: The head that is wanted: `NasBertModel` is none.
        revision: Branch, tag or commit on the Hub.
        trust_remote_code: Whether code of the repository's own may be run.
        may_draw_head: Whether weights of the head that the folder lacks, or has in other sizes, are drawn at random.

    Raises:
        ValueError: If it is no encoder that children can be made of, or its weights are damaged or incomplete.
        OSError: If there is no such model.
    """
    if isinstance(base_model, PreTrainedModel):
        _check_supported(base_model.config, f"this {type(base_model).__name__}")
        child = _as_child(base_model, child_class)
        child = copy.deepcopy(child) if child is base_model else child  # sorting heads and neurons would move its own
        return child.float().eval()
    name = str(base_model)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = load_config(name, **options)
    _check_supported(config, f"base model {name}")
    with loading_errors(name):
        model, report = AUTO_CLASSES[child_class].from_pretrained(
            name,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    body = "" if model.base_model is model else f"{model.base_model_prefix}."
    absent = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    lost = sorted(key for key in absent if key.startswith(body) and not key.startswith(f"{body}pooler."))
    if lost:
        raise ValueError(f"base model {name} lacks {len(lost)} weights, such as {lost[0]}: it is incomplete")
    of_head = sorted(key for key in absent if body and not key.startswith(body))
    if of_head and not may_draw_head:
        raise ValueError(
            f"base model {name} lacks {len(of_head)} weights of its head, such as {of_head[0]}: train them first, or "
            "name in its config.json (architectures) what it has"
        )
    if child_class is NasBertModel and any(key.startswith("pooler.") for key in absent):
        model.pooler = None  # drawn by transformers, not of the model
    return _as_child(model.eval(), child_class)


def _as_child(model: PreTrainedModel, child_class: type[NasBertPreTrainedModel]) -> NasBertPreTrainedModel:
    if isinstance(model, child_class):
        return model
    if isinstance(model, NasBertPreTrainedModel):
        raise ValueError(
            f"this base model is a {type(model).__name__}, expected a {child_class.__name__}: use the super-net "
            "class with the same head"
        )
    near = FAMILIES[model.config.model_type].near.get(type(model))
    if near is not None and near is not child_class and child_class is not NasBertModel:
        raise ValueError(
            f"the head of a {type(model).__name__} is none that a child has: use SupernetModel, the encoder alone"
        )
    return cast(NasBertPreTrainedModel, from_stock(model, child_class))


def _check_supported(config: PreTrainedConfig, what: str) -> None:
    """Refuse what is no encoder of a known family, and say why."""
    model_type = config.model_type
    if model_type == SupernetConfig.model_type:
        raise ValueError(f"{what} is a super-net: give the encoder that is to be made smaller, or one of its children")
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"{what} is a {model_type!r}, an encoder with a decoder; {SUPPORTED}")
    is_causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING
    if is_causal or getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        raise ValueError(f"{what} is a {model_type!r}, a decoder: its tokens see only those before them; {SUPPORTED}")
    if model_type not in (*FAMILIES, NasBertConfig.model_type):
        raise ValueError(
            f"{what} is a {model_type!r}, whose layers are not known to be BERT's, attention and feed-forward with "
            f"normalisation after each; {SUPPORTED}"
        )


def elastic_space(
    full_child: NasBertPreTrainedModel,
    *,
    heads: Sequence[int] | None = None,
    ffn: Sequence[int] | None = None,
    kernels: Sequence[int] = (),
    skip: bool = True,
) -> SearchSpace:
    """The space of what can be cut from a child: each block's own operator, narrower ones of its kind, and none.

    Args:
        full_child: The child that all others are cut from. Its skips are no blocks of the space.
        heads: Numbers of heads that an attention may keep; by default three quarters, a half and a quarter of the most
            there are.
        ffn: Inner widths that an ffn may keep; by default nine, seven, six, five, three twelfths and an eighth of the
            largest there is.
        kernels: Sizes of the convolutions that may stand for an attention, where that is the larger one.
        skip: Whether a block may be left out: as `skip`, and as `norm`, by its mean output.

    Raises:
        ValueError: If a size is more than there is, naming it, or the child has stages of other widths.
    """
    config: NasBertConfig = full_child.config
    wide = next((name for name in config.operators if parse_operator(name).width), None)
    if wide is not None:
        raise ValueError(f"operator {wide!r} of the base model has a width of its own: only children of one width")
    have = {kind: [0] for kind in SIZED_KINDS}
    for name in config.operators:
        if parse_operator(name).kind in have:
            have[parse_operator(name).kind].append(_size(config, name))
    most = {kind: max(sizes) for kind, sizes in have.items()}
    asked = {
        "attention": _checked("heads", heads, most["attention"], _HEADS, "heads"),
        "ffn": _checked("ffn", ffn, most["ffn"], _WIDTHS, "neurons"),
    }
    sizes = [kind.removeprefix("conv") for kind in OPERATOR_KINDS if kind.startswith("conv")]
    odd = next((kernel for kernel in kernels if str(kernel) not in sizes), None)
    if odd is not None:
        raise ValueError(f"kernels has {odd!r}: expected {', '.join(sizes)}, the sizes of convolutions that there are")
    config = _with_convolutions(config)
    blocks = []
    for name, _ in _real_blocks(full_child):
        kind = parse_operator(name).kind
        names, own = [name], _weights(config, name)
        if kind in asked:
            names += [f"{kind}{size}" for size in asked[kind] if size < _size(config, name)]
        if kind == "attention":
            names += [other for other in (f"conv{kernel}" for kernel in kernels) if _weights(config, other) < own]
        if skip:
            names += [other for other in ("norm", SKIP) if other not in names]
        blocks.append(tuple(names))
    return SearchSpace((FreeStage(tuple(blocks)),))


def _checked(what: str, asked: Sequence[int] | None, most: int, shares: Sequence[int], unit: str) -> list[int]:
    """Sizes from large to small."""
    if asked is None:
        return sorted({most * share // 24 for share in shares} - {0}, reverse=True)
    for size in asked:
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= most:
            raise ValueError(f"{what} has {size!r}: expected numbers from 1 to {most}, the {unit} of the base model")
    return sorted(set(asked), reverse=True)


def _size(config: NasBertShapeConfig, name: str) -> int:
    """Heads of an attention, neurons of an ffn."""
    inner = inner_width(config, name)
    return inner // config.head_size(config.hidden_size) if parse_operator(name).kind == "attention" else inner


def _with_convolutions(config: NasBertConfig) -> NasBertConfig:
    """The child's config, whose convolutions, where it has none, are one sub-layer: it stands for one."""
    if any(parse_operator(name).kind.startswith("conv") for name in config.operators):
        return config
    config = copy.copy(config)
    config.num_conv_layers = 1
    return config


def _weights(config: NasBertConfig, name: str) -> int:
    """The number of weights of an operator."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_operator(config, name).parameters())


def elastic_supernet(full_child: NasBertPreTrainedModel, space: SearchSpace) -> SupernetPreTrainedModel:
    """Make a super-net of a child: every operator of the space is cut from the child's operator in the same block.

    `attentionN` keeps the first N heads and `ffnN` the first N neurons, both with the child's bias and normalisation:
    sort them by importance before. `norm` keeps neither. A convolution begins as the sum of its input and nothing,
    normalised. The child is left as it is; it is the super-net's largest one where the space has all its operators.

    Args:
        full_child: A child of one width: encoder alone, masked LM, or a classifier of sequences, tokens or answers.
        space: A space of as many blocks, such as `elastic_space` makes.

    Returns:
        A super-net with the child's head, on its device, in its precision, in evaluation mode.

    Raises:
        ValueError: If the space has an operator that cannot be cut from the child's, naming block and operator.
    """
    config: NasBertConfig = full_child.config
    supernet_class = next((one for one in SUPERNETS.values() if one.child_class is type(full_child)), None)
    if supernet_class is None:
        raise ValueError(f"there is no super-net with the head of a {type(full_child).__name__}")
    fulls = _real_blocks(full_child)
    _check_space(config, [name for name, _ in fulls], space)
    fields = shared_fields(full_child)
    del fields["sparse_prediction"]
    fields["num_conv_layers"] = _with_convolutions(config).num_conv_layers
    supernet_config = SupernetConfig(search_space=space, weight_layout="nested", **fields)
    options = pooler_options(full_child)
    supernet = build_like(lambda config: supernet_class(config, **options), supernet_config, like=full_child)
    whole = tuple(name for name, _ in fulls)
    if whole in space and supernet.largest_architecture != whole:
        odd = next(pair for pair in zip(supernet.largest_architecture, whole, strict=True) if pair[0] != pair[1])
        raise ValueError(
            f"{odd[0]!r} has more weights than the base model's {odd[1]!r}, and takes its place: leave it out"
        )
    state = full_child.state_dict()
    rest = {name: tensor for name, tensor in state.items() if not name.startswith(supernet._inside)}
    supernet.load_state_dict(rest, strict=False)
    for block, (full_name, full) in zip(supernet._encoder.blocks, fulls, strict=True):
        full_kind = parse_operator(full_name).kind
        for name in block.operators.candidates:
            state, kind = block.operators.state_of(name), parse_operator(name).kind
            block.operators.load_state_of(name, _cut(state, kind, full.get_submodule("operator"), full_kind))
    return supernet


def shared_fields(model: NasBertPreTrainedModel) -> dict[str, Any]:
    """The fields of a super-net's config that its children's have too, and the other way round: sizes and labels."""
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    names = [field.name for field in dataclasses.fields(NasBertShapeConfig) if field.name not in inherited]
    names += _LABELS if hasattr(model, "classifier") else ()
    return {name: getattr(model.config, name) for name in names}


def pooler_options(model: NasBertPreTrainedModel) -> dict[str, bool]:
    """What the class of an encoder without a head must be told to make one like this."""
    return {"add_pooling_layer": model.pooler is not None} if hasattr(model, "pooler") else {}


def _real_blocks(full_child: NasBertPreTrainedModel) -> list[tuple[str, nn.Module]]:
    """The names and modules of its blocks that are no skips: those of all children cut from it."""
    encoder = cast(NasBertEncoder, full_child.base_model.encoder)
    blocks = zip(full_child.config.operators, encoder.blocks, strict=True)
    return [(name, block) for name, block in blocks if name != SKIP]


def _check_space(config: NasBertConfig, operators: Sequence[str], space: SearchSpace) -> None:
    if space.num_choice_blocks != len(operators):
        raise ValueError(f"the space has {space.num_choice_blocks} blocks, the base model {len(operators)}")
    for block, (full, candidates) in enumerate(zip(operators, space.blocks, strict=True)):
        kind = parse_operator(full).kind
        for name in candidates:
            operator = parse_operator(name)
            is_sized = operator.kind in SIZED_KINDS
            if is_sized and (operator.kind != kind or _size(config, name) > _size(config, full)):
                raise ValueError(f"choice block {block}: {name!r} cannot be cut from the base model's {full!r}")


def _cut(state: Mapping[str, torch.Tensor], kind: str, full: nn.Module, full_kind: str) -> dict[str, torch.Tensor]:
    """What an operator, whose weights `state` has the names and the shapes of, keeps of the full one of its block."""
    theirs = full.state_dict()
    if kind == full_kind:
        return {name: theirs[name][tuple(map(slice, tensor.shape))] for name, tensor in state.items()}
    found = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    for name, tensor in found.items():
        if name.endswith("depthwise.weight"):
            tensor[..., tensor.shape[-1] // 2] = 1  # every token as it is
        for part in ("weight", "bias"):
            if name.endswith(f"LayerNorm.{part}"):
                last = [theirs[key] for key in theirs if key.endswith(f"LayerNorm.{part}")][-1:]
                tensor.copy_(last[0]) if last else tensor.fill_(part == "weight")
    if kind == "norm" and "output.dense.bias" in theirs:
        found["bias"] = theirs["output.dense.bias"]  # all that is left without heads and neurons
    return found
