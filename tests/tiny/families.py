"""Tiny stock encoders of every family, batches that they and children read alike, what they say at real tokens."""

import torch
import transformers

from .models import padded_batch, randomise_

SIZES = {"vocab_size": 30, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 40, "max_position_embeddings": 24}
CONFIGS = {
    "Bert": lambda: transformers.BertConfig(**SIZES),
    "Roberta": lambda: transformers.RobertaConfig(**SIZES, type_vocab_size=1, layer_norm_eps=1e-5),
    "Electra": lambda: transformers.ElectraConfig(**SIZES, embedding_size=16),
    "DistilBert": lambda: transformers.DistilBertConfig(
        vocab_size=30, dim=32, n_layers=2, n_heads=4, hidden_dim=40, max_position_embeddings=24
    ),
}


def stock(name):
    family = next(family for family in CONFIGS if name.startswith(family))
    return randomise_(getattr(transformers, name)(CONFIGS[family]())).eval()


def batch_for(model):
    """Padded on the right: RoBERTa counts real tokens, a child all of them."""
    batch = padded_batch(29)
    batch["attention_mask"][2] = 1
    batch["attention_mask"][2, 8:] = 0
    ids = batch["input_ids"] + 1
    pad = model.config.pad_token_id
    batch["input_ids"] = torch.where(batch["attention_mask"].bool(), torch.where(ids == pad, 7, ids), pad)
    segments = getattr(model.config, "type_vocab_size", 1) > 1
    return batch if segments else {name: batch[name] for name in ("input_ids", "attention_mask")}


def at_tokens(output, batch):
    """All that a model says, at real tokens."""
    real = batch["attention_mask"].bool()
    found = {name: value for name, value in output.items() if isinstance(value, torch.Tensor)}
    return {name: value[real] if value.shape[:2] == real.shape else value for name, value in found.items()}
