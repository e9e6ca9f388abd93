"""What is compressed: a tiny base model as the child it is, a space of its variants, batches."""

import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from hf_nasbert.compression.states import target_of
from hf_nasbert.elastic.importance import importance, sort_by_importance
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.modeling.elastic import elastic_space, elastic_supernet
from hf_nasbert.modeling.families import from_stock
from hf_nasbert.space import SearchSpace

from .models import randomise_

VOCAB_SIZE = 60
BLOCKS = ["attention,attention1,skip", "ffn,ffn24,skip"] * 3


def base_model(head=BertModel, seed=0):
    """A random BERT of three layers, of two heads of 16 and 64 neurons each."""
    config = BertConfig(
        vocab_size=VOCAB_SIZE, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=24,
    )  # fmt: skip
    return randomise_(head(config), seed).eval()


def full_child(classifier=False, seed=0):
    return from_stock(base_model(BertForSequenceClassification if classifier else BertModel, seed))


def plain_supernet(seed=0):
    """A super-net of separate weights over the blocks of a base model: random, so no child is near another."""
    space = SearchSpace.of_blocks(BLOCKS, skip="anywhere")
    config = SupernetConfig(
        search_space=space, vocab_size=VOCAB_SIZE, hidden_size=32, attention_head_size=16, ffn_ratio=2,
        max_position_embeddings=24,
    )  # fmt: skip
    return randomise_(SupernetForMaskedLM(config), seed).eval()


def batches(lengths=((9, 7, 7, 3), (12, 12, 5)), seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for rows in lengths:
        mask = torch.stack([torch.arange(max(rows)) < length for length in rows]).long()
        input_ids = torch.randint(5, VOCAB_SIZE, mask.shape, generator=generator) * mask
        made.append({"input_ids": input_ids, "attention_mask": mask})
    return made


def targets(teacher, of_batches):
    return [target_of(teacher, batch) for batch in of_batches]


def elastic(classifier=False, seed=0, sorted_on=None, **options):
    """A super-net of the base model's own weights, its heads and neurons sorted first where batches are given."""
    child = full_child(classifier, seed)
    if sorted_on is not None:
        sort_by_importance(child, importance(child, sorted_on))
    return elastic_supernet(child, elastic_space(child, **options))
