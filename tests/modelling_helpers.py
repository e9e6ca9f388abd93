"""What tests of models share: weights that hide nothing, tiny super-nets of every space, a batch, a tokenizer."""

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BertTokenizer

from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.space import SearchSpace

OPERATORS = ("attention", "ffn", "conv3", "conv5", "conv7")
SPACES = {
    "chain": SearchSpace.chain(num_choice_blocks=5, operators=OPERATORS),
    "chain-with-skip": SearchSpace.chain(num_choice_blocks=5, operators=(*OPERATORS, "skip")),
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
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the film was good bad long short and not very . , a plot".split()


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


def tiny_supernet(shape: str = "chain", seed: int = 0, **overrides: Any) -> SupernetForMaskedLM:
    """A randomised super-net of one of `SPACES`, in evaluation mode."""
    sizes = {"vocab_size": len(WORDS), "hidden_size": 64, "max_position_embeddings": 32} | overrides
    supernet = SupernetForMaskedLM(SupernetConfig(search_space=SPACES[shape], **sizes))
    randomise_(supernet, seed)
    return supernet.eval()


def padded_batch(vocab_size: int = len(WORDS), seed: int = 0) -> dict[str, torch.Tensor]:
    """Three sequences: full, padded on the right, padded on the left; two segments."""
    generator = torch.Generator().manual_seed(seed)
    attention_mask = torch.ones(3, 11, dtype=torch.long)
    attention_mask[1, 7:] = 0
    attention_mask[2, :4] = 0
    return {
        "input_ids": torch.randint(vocab_size, (3, 11), generator=generator),
        "attention_mask": attention_mask,
        "token_type_ids": torch.randint(2, (3, 11), generator=generator),
    }


def tiny_tokenizer(words: Sequence[str] = WORDS) -> BertTokenizer:
    """A BERT tokenizer of these words."""
    return BertTokenizer(vocab={word: index for index, word in enumerate(words)}, model_max_length=32)


def save_tokenizer_with_padding_at_one(folder: Path) -> str:
    """Write a tokenizer whose first token begins sentences and whose second one is padding, as RoBERTa's.

    It knows every Latin letter, so that it can cut any English text.
    """
    first = ["[CLS]", "[PAD]"]
    letters = [letter for letter in string.ascii_lowercase if letter not in WORDS]
    pieces = [*letters, *(f"##{letter}" for letter in string.ascii_lowercase)]
    tiny_tokenizer([*first, *(word for word in WORDS if word not in first), *pieces]).save_pretrained(folder)
    return str(folder)


def logits_of(model: nn.Module, batch: dict[str, torch.Tensor], **kwargs: Any) -> torch.Tensor:
    """Logits without gradients; the model's mode is the caller's."""
    with torch.no_grad():
        return model(**batch, **kwargs).logits
