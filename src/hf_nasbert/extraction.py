"""From super-net to child: inherited weights, and the proof of equal logits."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from hf_nasbert.configs import loading_errors, read_model_config
from hf_nasbert.foreign import ForeignFileError, read_object
from hf_nasbert.modeling import NasBertConfig, NasBertForMaskedLM, SupernetConfig, SupernetForMaskedLM, SupernetModel
from hf_nasbert.modeling.elastic import pooler_options, shared_fields
from hf_nasbert.modeling.families import build_like
from hf_nasbert.modeling.modeling_nasbert import NasBertPreTrainedModel
from hf_nasbert.modeling.modeling_supernet import SUPERNETS, SupernetPreTrainedModel
from hf_nasbert.tolerances import EXTRACTION

_Supernet = TypeVar("_Supernet", bound=SupernetPreTrainedModel)


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


@overload
def load_supernet(folder: str | Path) -> SupernetForMaskedLM: ...


@overload
def load_supernet(folder: str | Path, model_class: type[_Supernet]) -> _Supernet: ...


@overload
def load_supernet(folder: str | Path, model_class: None) -> SupernetPreTrainedModel: ...


def load_supernet(
    folder: str | Path, model_class: type[SupernetPreTrainedModel] | None = SupernetForMaskedLM
) -> SupernetPreTrainedModel:
    """Load a super-net from a folder, every weight of it from the file.

    Args:
        folder: The folder.
        model_class: The class that it must be of; `None` takes any.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no super-net, one with another head, a damaged one, or weights of another space.
    """
    config = load_supernet_config(folder)
    name = next(iter(config.architectures or ()), "")
    found = SUPERNETS.get(name, SupernetForMaskedLM)
    if model_class is not None and found is not model_class:
        raise ValueError(f"super-net {folder} is a {found.__name__}, expected a {model_class.__name__}")
    options: dict[str, Any] = {}
    with loading_errors(folder):
        if found is SupernetModel and not _has_pooler(Path(folder)):
            options["add_pooling_layer"] = False
        loaded: Any = found.from_pretrained(
            folder,
            config=config,
            output_loading_info=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,  # no pickle, whatever lies there
            **options,
        )
    supernet: SupernetPreTrainedModel
    supernet, loading = loaded
    # transformers fills what is missing with fresh random weights and goes on.
    problems = {name: sorted(map(str, keys)) for name, keys in loading.items() if name.endswith("_keys") and keys}
    if problems:
        shown = "; ".join(f"{name.replace('_', ' ')}: {', '.join(keys[:3])}" for name, keys in problems.items())
        raise ValueError(f"the weights of {folder} do not belong to its config.json ({shown})")
    return supernet


def _has_pooler(folder: Path) -> bool:
    """Whether an encoder without a head was saved with BERT's pooler: no config says it."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return "pooler.dense.weight" in read_object(index, str(index)).get("weight_map", {})
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return "pooler.dense.weight" in file.keys()


@overload
def extract_child(supernet: SupernetForMaskedLM, architecture: Sequence[str] | str) -> NasBertForMaskedLM: ...


@overload
def extract_child(supernet: SupernetPreTrainedModel, architecture: Sequence[str] | str) -> NasBertPreTrainedModel: ...


def extract_child(supernet: SupernetPreTrainedModel, architecture: Sequence[str] | str) -> NasBertPreTrainedModel:
    """Make a child of a super-net into a model of its own, with copies of the weights it had there.

    The super-net is left as it is: its weights, its training mode, the global random state. The child has its head and
    its labels. It comes on the same device in the same precision, and, as everything that is loaded, in evaluation
    mode. `prove_equal_logits` shows that it computes what the super-net computes.

    Args:
        supernet: The super-net.
        architecture: Operator names, one per choice block, or their text form.

    Raises:
        ValueError: If the architecture is not in the super-net's space; names block, operator and candidates.
    """
    operators = supernet.space.validate(architecture)
    slices = supernet.space.stage_slices
    config = NasBertConfig(
        **{**shared_fields(supernet), "sparse_prediction": False},  # users of a child expect logits at every position
        operators=operators,
        stage_lengths=[stage.stop - stage.start for stage in slices] if len(slices) > 1 else None,
    )
    options = pooler_options(supernet)
    child = build_like(lambda config: supernet.child_class(config, **options), config, like=supernet)
    child.load_state_dict(supernet.state_of(operators), strict=True)
    child.extracted_from = supernet.name_or_path  # type: ignore[assignment]  # where its tokenizer lies
    return child


def prove_equal_logits(
    supernet: SupernetPreTrainedModel,
    architecture: Sequence[str] | str,
    child: PreTrainedModel,
    batch: Mapping[str, torch.Tensor] | None = None,
    *,
    tolerance: float = EXTRACTION,
) -> float:
    """Show that a child computes what its architecture computes in the super-net, or raise.

    Both run without dropout; their training modes and the global random state are left alone.

    Args:
        supernet: The super-net.
        architecture: The child's architecture.
        child: Any model with the same inputs and the same head: an extracted child, or its `to_bert`.
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
        expected = _told(supernet(**batch, architecture=architecture))
        actual = _told(child(**batch))
    if actual.shape != expected.shape:
        raise ValueError(f"logits of shape {tuple(actual.shape)}, but the super-net's are {tuple(expected.shape)}")
    difference = float((actual.float() - expected.float()).abs().max())
    if not difference <= tolerance:  # not "greater": NaN must fail
        raise ValueError(
            f"the child's logits differ from the super-net's by up to {difference:.3g}, allowed are {tolerance:.3g}: "
            f"it is not {architecture}, or one of the two was trained after the extraction"
        )
    return difference


def _told(output: ModelOutput) -> torch.Tensor:
    """What a model is for: its logits, (B, T, V) of a masked LM; of answers both; the states of an encoder alone."""
    parts = [output[name] for name in ("logits", "start_logits", "end_logits") if name in output]
    return torch.stack(parts) if parts else output["last_hidden_state"]


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


def _proof_batch(supernet: SupernetPreTrainedModel) -> dict[str, torch.Tensor]:
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
