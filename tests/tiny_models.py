"""Tiny configs, models and batches for the tests of the model family."""

import pytest
import torch
from modelling_helpers import randomise_
from torch import nn
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

KINDS = OPERATOR_KINDS
REAL_KINDS = tuple(kind for kind in KINDS if kind != "skip")
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


def random_model(model_class: type, config, seed: int = 0):
    """A model in evaluation mode, none of whose parameters has its initial value."""
    return randomise_(model_class(config), seed).eval()


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


def mlm_labels(batch: dict[str, torch.Tensor], seed: int = 0) -> torch.Tensor:
    """Labels at about a third of the real tokens, unevenly spread; none at all in the second sequence."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(batch["input_ids"].shape, generator=generator) < 0.35
    drawn &= batch["attention_mask"].bool()
    drawn[0, 0] = True
    drawn[1] = False
    return torch.where(drawn, batch["input_ids"], -100)


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
