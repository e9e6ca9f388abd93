"""What the tests of fine-tuning share: a tokenizer, a stock BERT and a child of ours, all tiny."""

from pathlib import Path

import torch
from transformers import BertConfig, BertForMaskedLM

from hf_nasbert.data import train_tokenizer
from hf_nasbert.modeling import NasBertConfig, NasBertForMaskedLM


def save_models(home: Path, text: str, vocab_size: int = 200) -> None:
    """Write `bert` and `child`, each with a tokenizer trained on the text, into a folder."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer([text] * 3, vocab_size)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "max_position_embeddings": 64}
    bert = BertConfig(num_hidden_layers=1, num_attention_heads=1, intermediate_size=64, **sizes)
    child = NasBertConfig(operators=["attention", "conv3", "ffn"], **sizes)
    for name, model in (("bert", BertForMaskedLM(bert)), ("child", NasBertForMaskedLM(child))):
        model.save_pretrained(home / name)
        tokenizer.save_pretrained(home / name)
