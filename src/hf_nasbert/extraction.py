"""From super-net to child: inherited weights, and the proof of equal logits."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from hf_nasbert.configs import loading_errors, read_model_config
from hf_nasbert.foreign import ForeignFileError
from hf_nasbert.modeling import NasBertConfig, NasBertForMaskedLM, SupernetConfig, SupernetForMaskedLM
from hf_nasbert.modeling.configuration_nasbert import NasBertShapeConfig
from hf_nasbert.modeling.families import build_like

TOLERANCE = 1e-6
"""Largest difference of logits that other kernels for the same mathematics may cause in float32."""


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
    child = build_like(NasBertForMaskedLM, config, like=supernet)
    child.load_state_dict(supernet.state_of(operators), strict=True)
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
