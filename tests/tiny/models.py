"""Tiny spaces, configs, models and batches, and what makes two of them the same."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from hf_nasbert.modeling import (
    OPERATOR_KINDS,
    NasBertConfig,
    NasBertForMaskedLM,
    NasBertForMultipleChoice,
    NasBertForQuestionAnswering,
    NasBertForSequenceClassification,
    NasBertForTokenClassification,
    NasBertModel,
    SupernetConfig,
    SupernetForMaskedLM,
    SupernetForQuestionAnswering,
    SupernetForSequenceClassification,
    SupernetForTokenClassification,
    SupernetModel,
)
from hf_nasbert.space import SearchSpace

from .texts import WORDS

# What transformers calls it since 5.23, and before.
CHECKPOINTING = (
    "activation_checkpointing"
    if hasattr(PreTrainedModel, "activation_checkpointing_enable")
    else "gradient_checkpointing"
)
KINDS = OPERATOR_KINDS
REAL_KINDS = tuple(kind for kind in KINDS if kind != "skip")
_OPERATORS = ("attention", "ffn", "conv3", "conv5", "conv7")
SPACES = {
    "chain": SearchSpace.chain(num_choice_blocks=5, operators=_OPERATORS),
    "chain-with-skip": SearchSpace.chain(num_choice_blocks=5, operators=(*_OPERATORS, "skip")),
    "skip-anywhere": SearchSpace.chain(4, ("attention", "ffn", "conv3", "skip"), skip="anywhere"),
    "sized": SearchSpace.staged(
        num_stages=2,
        blocks_per_stage=2,
        operators=("attention", "attention1", "ffn", "ffn40", "skip"),
        widths=(64, 96),
    ),
    "staged": SearchSpace.staged(
        num_stages=2, blocks_per_stage=3, operators=("attention", "ffn", "conv3", "skip"), widths=(32, 64, 96)
    ),
}
VOCAB_SIZE = 50
SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "max_position_embeddings": 24,
    "hidden_dropout_prob": 0.0,  # what is compared must not be drawn
    "attention_probs_dropout_prob": 0.0,
}
STAGED_OPERATORS = ("attention@64", "conv3@64", "conv5@32", "skip", "ffn@96", "skip")
STAGED_SIZES = {"embedding_size": 16, "hidden_size": 32}

HEADS = {
    head.__name__: head
    for head in (
        NasBertModel,
        NasBertForMaskedLM,
        NasBertForSequenceClassification,
        NasBertForTokenClassification,
        NasBertForQuestionAnswering,
        NasBertForMultipleChoice,
    )
}


def chain_config(operators=("attention", "ffn", "conv3", "skip"), **fields) -> NasBertConfig:
    """A child of one width."""
    return NasBertConfig(operators=operators, **{**SIZES, **fields})


def staged_config(**fields) -> NasBertConfig:
    """A child of three stages, of widths 64, 32 (the model's own) and 96, with factorised embeddings."""
    return chain_config(STAGED_OPERATORS, stage_lengths=(2, 2, 2), **{**STAGED_SIZES, **fields})


CHILD_CONFIGS = {"chain": chain_config, "staged": staged_config}


def chain_supernet_config(**fields) -> SupernetConfig:
    """A super-net of one width, with skip."""
    return SupernetConfig(search_space=SearchSpace.chain(3, KINDS), **{**SIZES, **fields})


def staged_supernet_config(**fields) -> SupernetConfig:
    """A super-net of two stages of widths 32 (the model's own) and 64, with factorised embeddings."""
    space = SearchSpace.staged(2, 2, ("attention", "ffn", "conv3", "skip"), widths=(32, 64))
    return SupernetConfig(search_space=space, **{**SIZES, **STAGED_SIZES, **fields})


def nested_supernet_config(**fields) -> SupernetConfig:
    """A super-net of one width whose narrow operators are slices of the wide ones, with skip anywhere."""
    operators = ("attention", "attention1", "ffn", "ffn40", "ffn7", "conv3", "norm", "skip")
    space = SearchSpace.chain(3, operators, skip="anywhere")
    return SupernetConfig(search_space=space, weight_layout="nested", **{**SIZES, "attention_head_size": 8, **fields})


SUPERNET_CONFIGS = {"chain": chain_supernet_config, "staged": staged_supernet_config}

MODELS = {
    **{f"{name}-chain": (head, chain_config) for name, head in HEADS.items()},
    "NasBertForMaskedLM-staged": (NasBertForMaskedLM, staged_config),
    "NasBertForMultipleChoice-staged": (NasBertForMultipleChoice, staged_config),
    "SupernetModel-chain": (SupernetModel, chain_supernet_config),
    "SupernetForMaskedLM-chain": (SupernetForMaskedLM, chain_supernet_config),
    "SupernetForMaskedLM-staged": (SupernetForMaskedLM, staged_supernet_config),
    "SupernetForMaskedLM-nested": (SupernetForMaskedLM, nested_supernet_config),
    "SupernetForSequenceClassification-nested": (SupernetForSequenceClassification, nested_supernet_config),
    "SupernetForTokenClassification-nested": (SupernetForTokenClassification, nested_supernet_config),
    "SupernetForQuestionAnswering-nested": (SupernetForQuestionAnswering, nested_supernet_config),
}
"""Every model class, and every shape of config: name -> (class, function that makes the config)."""

every_model = pytest.mark.parametrize(("model_class", "make_config"), MODELS.values(), ids=MODELS.keys())
every_head = pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())


def randomise_(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter, norms and biases included, weights that differ from each other and from the defaults.

    Fresh norms are ones and fresh biases zeros: models with exchanged or forgotten ones would look equal.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(dict(model.named_parameters()).items()):
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm_weight = name.endswith("LayerNorm.weight")
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
            parameter.copy_(1 + 0.3 * noise if is_norm_weight else noise / max(fan_in, 4) ** 0.5)
    return model


def random_model(model_class: type, config, seed: int = 0):
    """A model in evaluation mode, none of whose parameters has its initial value."""
    return randomise_(model_class(config), seed).eval()


def tiny_supernet(
    space: str | SearchSpace = "chain", seed: int = 0, *, dropout: float = 0.1, **overrides: Any
) -> SupernetForMaskedLM:
    """A randomised super-net of a space, or of one of `SPACES`, in evaluation mode."""
    sizes = {"vocab_size": len(WORDS), "hidden_size": 64, "max_position_embeddings": 32} | overrides
    dropouts = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    search_space = SPACES[space] if isinstance(space, str) else space
    return random_model(SupernetForMaskedLM, SupernetConfig(search_space=search_space, **dropouts | sizes), seed)


def tiny_batch(lengths=(12, 9, 5), seed: int = 0, padding_side: str = "right") -> dict[str, torch.Tensor]:
    """Token ids with padding, its mask, segments; on the left, positions that count real tokens only."""
    generator = torch.Generator().manual_seed(seed)
    num_tokens = max(lengths)
    input_ids = torch.zeros(len(lengths), num_tokens, dtype=torch.long)
    attention_mask, token_type_ids = torch.zeros_like(input_ids), torch.zeros_like(input_ids)
    for row, length in enumerate(lengths):
        real = slice(0, length) if padding_side == "right" else slice(num_tokens - length, num_tokens)
        input_ids[row, real] = torch.randint(5, VOCAB_SIZE, (length,), generator=generator)
        token_type_ids[row, real] = torch.arange(length) // (length // 2 + 1)
        attention_mask[row, real] = 1
    batch = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
    if padding_side == "left":
        batch["position_ids"] = (attention_mask.cumsum(1) - 1).clamp(min=0)
    return batch


def padded_batch(
    vocab_size: int = len(WORDS), seed: int = 0, shape: tuple[int, int] = (3, 11)
) -> dict[str, torch.Tensor]:
    """Sequences of any tokens: the second one padded on the right, the third one on the left; two segments."""
    generator = torch.Generator().manual_seed(seed)
    attention_mask = torch.ones(shape, dtype=torch.long)
    attention_mask[1:2, 2 * shape[1] // 3 :] = 0
    attention_mask[2:3, : 2 * shape[1] // 5] = 0
    return {
        "input_ids": torch.randint(vocab_size, shape, generator=generator),
        "attention_mask": attention_mask,
        "token_type_ids": torch.randint(2, shape, generator=generator),
    }


def mlm_labels(batch: dict[str, torch.Tensor], seed: int = 0, share: float = 0.35) -> torch.Tensor:
    """Labels at about such a share of the real tokens, unevenly spread; none at all in the second sequence."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(batch["input_ids"].shape, generator=generator) < share
    drawn &= batch["attention_mask"].bool()
    drawn[0, 0] = True
    drawn[1:2] = False
    return torch.where(drawn, batch["input_ids"], -100)


def labelled_batch(seed: int = 0, shape: tuple[int, int] = (3, 11), share: float = 0.35) -> dict[str, torch.Tensor]:
    """`padded_batch` with `mlm_labels`."""
    batch = padded_batch(seed=seed, shape=shape)
    return batch | {"labels": mlm_labels(batch, seed, share)}


BATCHES = [labelled_batch(0, (3, 12)), labelled_batch(1, (3, 9)), labelled_batch(2, (1, 12), share=0.9)]


def inputs_for(model_class: type, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch as the model class takes it: multiple choice wants (B, choices, T)."""
    if model_class is NasBertForMultipleChoice:
        return {name: torch.stack([tensor, tensor.flip(0)], dim=1) for name, tensor in batch.items()}
    return batch


def with_labels(model_class: type, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inputs of a model class and the labels that its loss wants (none for a base model)."""
    classes = torch.tensor([0, 1, 1])
    labels = {
        NasBertForMaskedLM: {"labels": mlm_labels(batch)},
        NasBertForSequenceClassification: {"labels": classes},
        NasBertForMultipleChoice: {"labels": classes},
        NasBertForTokenClassification: {"labels": torch.where(mlm_labels(batch) > 0, batch["input_ids"] % 2, -100)},
        NasBertForQuestionAnswering: {"start_positions": classes, "end_positions": classes + 2},
    }
    head = next((head for head in labels if issubclass(model_class, head)), None)
    return inputs_for(model_class, batch) | labels.get(head, {})


def logits_of(model: nn.Module, batch: dict[str, torch.Tensor], **kwargs: Any) -> torch.Tensor:
    """Logits without gradients; the model's mode is the caller's."""
    with torch.no_grad():
        return model(**batch, **kwargs).logits


def trainable_scalar(output: ModelOutput) -> torch.Tensor:
    """The loss, or for a base model something that depends on everything."""
    return output.loss if getattr(output, "loss", None) is not None else output[0].square().mean()


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all gradients there are, by name."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_close(actual, expected, tolerance: float = 1e-5) -> None:
    """Equal up to rounding: differences are measured against the largest expected number, if that is above one."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for name in expected:
            assert_close(actual[name], expected[name], tolerance)
        return
    assert actual.shape == expected.shape
    if not expected.numel():
        return
    assert torch.isfinite(expected).all()
    scale = max(1.0, expected.abs().max().item())
    difference = (actual - expected).abs().max().item()
    assert difference <= tolerance * scale, f"differs by {difference:.1e} at numbers up to {scale:.1f}"


def assert_equal_states(actual: nn.Module, expected: nn.Module) -> None:
    """Bit-equal parameters and buffers, the non-persistent ones included."""
    found = dict(actual.named_parameters()) | dict(actual.named_buffers())
    wanted = dict(expected.named_parameters()) | dict(expected.named_buffers())
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name
