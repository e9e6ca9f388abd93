"""From super-net to child: inherited weights, the proof of equal logits, stock BERT, and a folder that leaves home."""

import dataclasses
import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from hf_nasbert.configs import loading_errors, read_model_config
from hf_nasbert.data.vocabulary import save_tokenizer, vocabulary_size
from hf_nasbert.foreign import ForeignFileError
from hf_nasbert.modeling import (
    NasBertConfig,
    NasBertForMaskedLM,
    NasBertForMultipleChoice,
    NasBertForQuestionAnswering,
    NasBertForSequenceClassification,
    NasBertForTokenClassification,
    NasBertModel,
    SupernetConfig,
    SupernetForMaskedLM,
    modeling_nasbert,
)
from hf_nasbert.modeling.configuration_nasbert import AUTO_MAP, NasBertShapeConfig
from hf_nasbert.native import CODE_FILES, bert_blocks
from hf_nasbert.space import Architecture
from hf_nasbert.writing import check_whole_folder, whole_folder

TOLERANCE = 1e-6
"""Largest difference of logits that other kernels for the same mathematics may cause in float32."""

_STOCK_OF: dict[type[PreTrainedModel], type[PreTrainedModel]] = {
    NasBertModel: BertModel,
    NasBertForMaskedLM: BertForMaskedLM,
    NasBertForSequenceClassification: BertForSequenceClassification,
    NasBertForTokenClassification: BertForTokenClassification,
    NasBertForQuestionAnswering: BertForQuestionAnswering,
    NasBertForMultipleChoice: BertForMultipleChoice,
}
"""Every class of a child, and the stock class of the same head."""

# Beginnings of a stock BERT's weight names, and of the same weights' names in a child, where they differ.
_NAMES_OUTSIDE_LAYERS = {
    "bert.": "nasbert.",
    "cls.predictions.transform.": "lm_head.",
    "cls.predictions.": "lm_head.",
}
_SHARED_WITH_BERT = (
    "vocab_size",
    "hidden_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
    "tie_word_embeddings",
)
# What belongs to a saved model and is replaced together with it; anything else in its folder is somebody's.
_MODEL_FILE = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens)\.json|vocab\.txt|README\.md"
    r"|(model|pytorch_model).*\.(safetensors|bin|json)|(operators|configuration|modeling)_nasbert\.py"
)

_Model = TypeVar("_Model", bound=PreTrainedModel)


def load_supernet_config(folder: str | Path) -> SupernetConfig:
    """The config of the super-net in a folder.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no super-net, or a config.json that is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"super-net {folder}: no such folder")
    try:
        config = read_model_config(folder / "config.json", f"{folder}/config.json")
    except FileNotFoundError:
        raise ValueError(f"{folder} is not a super-net: it has no config.json") from None
    except ForeignFileError as error:
        raise ForeignFileError(f"{folder} is not a super-net: {error}") from error
    if config.get("model_type") != SupernetConfig.model_type:
        raise ValueError(
            f"{folder} is not a super-net: its config.json says model_type {config.get('model_type')!r}, "
            f"expected {SupernetConfig.model_type!r}; name the folder that super-net training wrote"
        )
    with loading_errors(folder):
        return SupernetConfig.from_pretrained(folder, local_files_only=True)


def load_supernet(folder: str | Path) -> SupernetForMaskedLM:
    """Load a super-net from a folder, every weight of it from the file.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no super-net, a damaged one, or weights of another space.
    """
    config = load_supernet_config(folder)
    with loading_errors(folder):
        supernet, loading = SupernetForMaskedLM.from_pretrained(
            folder,
            config=config,
            output_loading_info=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,  # no pickle, whatever lies there
        )
    # transformers fills what is missing with fresh random weights and goes on.
    problems = {name: sorted(map(str, keys)) for name, keys in loading.items() if name.endswith("_keys") and keys}
    if problems:
        shown = "; ".join(f"{name.replace('_', ' ')}: {', '.join(keys[:3])}" for name, keys in problems.items())
        raise ValueError(f"the weights of {folder} do not belong to its config.json ({shown})")
    return supernet


def extract_child(supernet: SupernetForMaskedLM, architecture: Sequence[str] | str) -> NasBertForMaskedLM:
    """Make a child of a super-net into a model of its own, with copies of the weights it had there.

    The super-net is left as it is: its weights, its training mode, the global random state. The child comes on the
    same device in the same precision, and, as everything that is loaded, in evaluation mode. `prove_equal_logits`
    shows that it computes what the super-net computes.

    Args:
        supernet: The super-net.
        architecture: Operator names, one per choice block, or their text form.

    Raises:
        ValueError: If the architecture is not in the super-net's space; names block, operator and candidates.
    """
    operators = supernet.space.validate(architecture)
    shared = {
        field.name: getattr(supernet.config, field.name)
        for field in dataclasses.fields(NasBertShapeConfig)
        if field.name not in {inherited.name for inherited in dataclasses.fields(PreTrainedConfig)}
    }
    slices = supernet.space.stage_slices
    config = NasBertConfig(
        **{**shared, "sparse_prediction": False},  # users of a child expect logits at every position
        operators=operators,
        stage_lengths=[stage.stop - stage.start for stage in slices] if len(slices) > 1 else None,
    )
    child = _build(NasBertForMaskedLM, config, like=supernet)
    child.load_state_dict(_child_state(supernet, child, operators), strict=True)
    return child


def prove_equal_logits(
    supernet: SupernetForMaskedLM,
    architecture: Sequence[str] | str,
    child: PreTrainedModel,
    batch: Mapping[str, torch.Tensor] | None = None,
    *,
    tolerance: float = TOLERANCE,
) -> float:
    """Show that a child computes what its architecture computes in the super-net, or raise.

    Both run without dropout; their training modes and the global random state are left alone.

    Args:
        supernet: The super-net.
        architecture: The child's architecture.
        child: Any masked-LM model with the same inputs: an extracted child, or its `to_bert`.
        batch: Inputs of both models, without labels. By default random tokens of a fixed seed, in sequences of
            different lengths with padding on the right and on the left, and both segments where there are two.
        tolerance: Largest absolute difference allowed. The same kernels on the same device give 0.

    Returns:
        The largest absolute difference of logits.

    Raises:
        ValueError: If the logits differ by more, or are not finite.
    """
    architecture = supernet.space.validate(architecture)
    batch = _proof_batch(supernet) if batch is None else {name: batch[name] for name in batch if name != "labels"}
    with torch.inference_mode(), _evaluation_mode(supernet, child):
        expected = supernet(**batch, architecture=architecture).logits  # (B, T, V)
        actual = child(**batch).logits
    if actual.shape != expected.shape:
        raise ValueError(f"logits of shape {tuple(actual.shape)}, but the super-net's are {tuple(expected.shape)}")
    difference = float((actual.float() - expected.float()).abs().max())
    if not difference <= tolerance:  # not "greater": NaN must fail
        raise ValueError(
            f"the child's logits differ from the super-net's by up to {difference:.3g}, allowed are {tolerance:.3g}: "
            f"it is not {architecture}, or one of the two was trained after the extraction"
        )
    return difference


def to_bert(child: PreTrainedModel) -> PreTrainedModel:
    """Turn a child that alternates attention and ffn into the stock BERT that it is, with equal outputs.

    Skips are left out. Every head becomes BERT's own: `NasBertForMaskedLM` a `BertForMaskedLM`, and so on. The result
    needs no code of ours.

    Raises:
        ValueError: If the child is no BERT, naming the first block in the way, or its embeddings, and why.
    """
    config = child.config
    stock = next((theirs for ours, theirs in _STOCK_OF.items() if isinstance(child, ours)), None)
    if stock is None or not isinstance(config, NasBertConfig):
        raise ValueError(f"expected a child of one of the classes NasBert..., got a {type(child).__name__}")
    blocks = bert_blocks(config.operators, config.hidden_size)
    if config.word_embedding_size != config.hidden_size:
        raise ValueError(
            f"this child is no BERT: its embeddings are {config.word_embedding_size} wide and its blocks "
            f"{config.hidden_size}, and BERT's embeddings are as wide as its layers"
        )
    # BERT asks for two labels where answers have a start and an end.
    labels = () if stock is BertForQuestionAnswering else ("id2label", "label2id", "problem_type")
    bert_config = BertConfig(
        **{name: getattr(config, name) for name in (*_SHARED_WITH_BERT, *labels)},
        num_hidden_layers=len(blocks) // 2,
        num_attention_heads=config.hidden_size // config.head_size(config.hidden_size),
        intermediate_size=config.ffn_ratio * config.hidden_size,
    )
    make = partial(BertModel, add_pooling_layer=child.pooler is not None) if stock is BertModel else stock
    bert = _build(make, bert_config, like=child)
    state = child.state_dict()
    if stock is BertForMaskedLM:
        # Untied, BERT still has this second bias, which nothing reads.
        state.setdefault("lm_head.bias", state["lm_head.decoder.bias"])
    bert.load_state_dict({name: state[_child_name(name, blocks)] for name in bert.state_dict()}, strict=True)
    return bert


def native_form(child: PreTrainedModel) -> tuple[PreTrainedModel, str | None]:
    """The stock BERT that a child is, if it is one; otherwise the child itself, and the reason why it is none.

    Returns:
        `(a Bert... model, None)`, which anybody loads without `trust_remote_code`, or `(child, reason)`. A model that
        is a stock BERT already comes back as it is.
    """
    if type(child) in _STOCK_OF.values():
        return child, None
    try:
        return to_bert(child), None
    except ValueError as error:
        return child, str(error)


def from_bert(bert: BertForMaskedLM) -> NasBertForMaskedLM:
    """Turn a stock BERT into the child that it is: attention and ffn in turn, with equal logits.

    The way back, `to_bert`, gives the same weights bit for bit.

    Raises:
        ValueError: If the model is not a plain BERT encoder, or its sizes are none a child can have.
    """
    config = bert.config
    if not isinstance(bert, BertForMaskedLM):
        raise ValueError(f"expected a BertForMaskedLM, got a {type(bert).__name__}")
    if config.is_decoder or config.add_cross_attention:
        raise ValueError("this BERT is a decoder: a child's attention sees every token")
    if config.intermediate_size % config.hidden_size:
        raise ValueError(
            f"intermediate_size {config.intermediate_size} is no whole multiple of hidden_size {config.hidden_size}: "
            "a child's ffn widens by a whole ffn_ratio"
        )
    child_config = NasBertConfig(
        **{name: getattr(config, name) for name in _SHARED_WITH_BERT},
        operators=("attention", "ffn") * config.num_hidden_layers,
        ffn_ratio=config.intermediate_size // config.hidden_size,
        attention_head_size=config.hidden_size // config.num_attention_heads,
    )
    child = _build(NasBertForMaskedLM, child_config, like=bert)
    blocks = bert_blocks(child_config.operators, child_config.hidden_size)
    state = {_child_name(name, blocks): tensor for name, tensor in bert.state_dict().items()}
    if not config.tie_word_embeddings:
        del state["lm_head.bias"]  # nothing reads it there
    child.load_state_dict(state, strict=True)
    return child


def save_child(
    child: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    card: str | None = None,
    *,
    attachments: Sequence[str | Path] = (),
    overwrite: bool = False,
) -> Path:
    """Write a child's folder: config, safetensors, tokenizer, its three code files, the card and files of yours.

    The folder appears whole or not at all. With its code beside it, it loads where this package is not installed:
    `AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)`, and so with every other head.

    Args:
        child: A child with any head, or a stock model from `to_bert`, which needs no code files. `native_form` turns
            a child into one where it can.
        tokenizer: The tokenizer the child was trained with.
        folder: Where to write; its parents are made.
        card: Text of README.md (`cards.render_child_card`).
        attachments: Files to copy beside it: figures, records.
        overwrite: Replace a model that is there. Files in that folder that are none of a model stay in it.

    Returns:
        The folder.

    Raises:
        FileExistsError: If the folder holds something, and `overwrite` is not given or what it holds is no model.
        ValueError: If the tokenizer has tokens that the child has no embedding for.
        WriteError: If the folder cannot be written; a model that is there stays as it was.
    """
    folder = Path(folder).resolve()  # a link to a folder stays a link
    if (size := vocabulary_size(tokenizer)) > child.config.vocab_size:
        raise ValueError(
            f"the tokenizer has {size} tokens, the child {child.config.vocab_size} embeddings: "
            "save it with the tokenizer it was trained with"
        )
    files = [Path(path) for path in attachments]
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"no such file to put beside the child: {path}")
        if _MODEL_FILE.fullmatch(path.name) or [other.name for other in files].count(path.name) > 1:
            raise ValueError(f"cannot put {path} beside the child: another file there has that name")
    check_place(folder, overwrite)
    with whole_folder(folder, move_into_place) as staging:
        child.save_pretrained(staging)
        save_tokenizer(tokenizer, staging, child.config.max_position_embeddings)
        if card is not None:
            (staging / "README.md").write_text(card, encoding="utf-8")
        for path in files:
            shutil.copyfile(path, staging / path.name)
        if child.config.model_type == NasBertConfig.model_type:
            _pack_code(staging)
    return folder


def _build(
    model_class: Callable[[PreTrainedConfig], _Model], config: PreTrainedConfig, like: PreTrainedModel
) -> _Model:
    """A model on the device, in the precision and with the attention kernels of another, to be filled with weights."""
    config._attn_implementation = like.config._attn_implementation
    with torch.random.fork_rng(devices=[]):  # its random weights are thrown away: nobody's draws may depend on them
        model = model_class(config)
    nn.Module.to(model, device=like.device, dtype=like.dtype)
    model.train(False)
    return model


def _child_state(
    supernet: SupernetForMaskedLM, child: NasBertForMaskedLM, architecture: Architecture
) -> dict[str, torch.Tensor]:
    """The super-net's weights under the names they have in the child."""
    state = supernet.state_dict()
    widths = [width for _, width, _ in child.config.block_widths()]

    def name_in_supernet(name: str) -> str:
        match = re.fullmatch(
            r"(nasbert\.encoder\.blocks\.(\d+)\.)(operator|input_projection|output_projection)\.(.+)", name
        )
        if match is None:
            return name  # embeddings and head are shared by all children
        prefix, block, module, rest = match.groups()
        key = architecture[int(block)] if module == "operator" else widths[int(block)]
        return f"{prefix}{module}s.{key}.{rest}"

    return {name: state[name_in_supernet(name)] for name in child.state_dict()}


def _child_name(name: str, blocks: Sequence[int]) -> str:
    """Where a child keeps the weight that BERT calls `name`."""
    match = re.fullmatch(r"(bert\.)?encoder\.layer\.(\d+)\.(.+)", name)
    if match:
        prefix, layer, part = "nasbert." if match[1] else "", int(match[2]), match[3]
        attention = part.startswith("attention.")
        block = blocks[2 * layer + (0 if attention else 1)]
        return f"{prefix}encoder.blocks.{block}.operator.{part.removeprefix('attention.')}"
    for theirs, ours in _NAMES_OUTSIDE_LAYERS.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name  # heads are named alike


@contextmanager
def _evaluation_mode(*models: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and back to its own mode afterwards (parts of a model may differ)."""
    modes = {module: module.training for model in models for module in model.modules()}
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _proof_batch(supernet: SupernetForMaskedLM) -> dict[str, torch.Tensor]:
    config = supernet.config
    generator = torch.Generator().manual_seed(0)
    num_tokens = min(16, config.max_position_embeddings)
    shape = (4, num_tokens)
    attention_mask = torch.ones(shape, dtype=torch.long)
    attention_mask[1, (num_tokens + 1) // 2 :] = 0
    attention_mask[2, 1:] = 0
    attention_mask[3, : num_tokens // 3] = 0
    batch = {
        "input_ids": torch.randint(config.vocab_size, shape, generator=generator),
        "attention_mask": attention_mask,
        "token_type_ids": torch.randint(config.type_vocab_size, shape, generator=generator),
    }
    return {name: tensor.to(supernet.device) for name, tensor in batch.items()}


def check_place(folder: Path, overwrite: bool, sign: str = "config.json") -> None:
    """Refuse a place where something would be lost, before anything is written.

    Args:
        folder: Where to write.
        overwrite: Whether what is there may be replaced.
        sign: Name or pattern of the file without which it is none of ours, and is never replaced.

    Raises:
        FileExistsError: If the place is taken.
        WriteError: If nothing can be written there.
    """
    check_whole_folder(folder)  # the folder is made beside its place, then renamed
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: name a folder to write to")
    if not any(folder.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(
            f"{folder} is not empty: name another folder, or pass overwrite to replace the model in it"
        )
    if not any(folder.glob(sign)):
        raise FileExistsError(f"{folder} holds no model (no {sign}): it is left as it is; name another folder")


def _pack_code(folder: Path) -> None:
    """Put the three code files and the names of all heads into a child's folder, whatever class was saved.

    transformers copies the code of registered classes only, and a child that was itself loaded from the Hub keeps
    pointing there for all heads but its own.
    """
    package = Path(modeling_nasbert.__file__).parent
    for name in CODE_FILES:
        shutil.copyfile(package / name, folder / name)
    file = folder / "config.json"
    config = {**json.loads(file.read_text(encoding="utf-8")), "auto_map": AUTO_MAP}
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def move_into_place(staging: Path, folder: Path) -> None:
    """Rename the finished folder to its name. Of a model that is there, the other files of its folder are kept."""
    if not folder.exists() or not any(folder.iterdir()):
        staging.replace(folder)
        return
    old = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.replaced")  # a name that nobody can foresee
    folder.rename(old)
    try:
        staging.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    for path in old.iterdir():
        if not _MODEL_FILE.fullmatch(path.name) and not (folder / path.name).exists():
            path.rename(folder / path.name)
    shutil.rmtree(old)
