"""Folders of tiny base models with their tokenizers, and text in their language."""

import random
import string

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
)

from hf_nasbert.modeling.sentence_transformer import SentenceModules

from .models import randomise_
from .texts import WORDS, tiny_tokenizer

_LETTERS = [letter for letter in string.ascii_lowercase if letter not in WORDS]
_WORDS = [word for word in WORDS if word.isalpha()]
MODULES = SentenceModules(("mean",), normalize=True, max_seq_length=20, prompts={"query": "a film"})


def save_base(folder, head=BertModel, modules=MODULES, tokenizer=True, more=(), **fields):
    """A random BERT of three layers, of two heads of 16 and 64 neurons each; knows all Latin letters, and `more`."""
    known = tiny_tokenizer([*WORDS, *more, *_LETTERS, *(f"##{letter}" for letter in string.ascii_lowercase)])
    config = BertConfig(
        vocab_size=len(known), hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=24, **fields,
    )  # fmt: skip
    randomise_(head(config)).eval().save_pretrained(folder)
    if tokenizer:
        known.save_pretrained(folder)
    if modules is not None and head is BertModel:
        modules.write(folder, 32)
    return folder


def classifier_base(folder, **options):
    """The same with a classifier of three labels."""
    return save_base(folder, BertForSequenceClassification, id2label={0: "bad", 1: "good", 2: "long"}, **options)


def label_by(base, texts, every=6):
    """Rows of texts and of what a classifier calls them, but every so many have the next label."""
    model = AutoModelForSequenceClassification.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    with torch.no_grad():
        found = model(**tokenizer(texts, padding=True, truncation=True, max_length=24, return_tensors="pt")).logits
    names, places = model.config.id2label, found.argmax(-1).tolist()
    places = [(place + (number % every == 0)) % len(names) for number, place in enumerate(places)]
    return [(text, names[place]) for text, place in zip(texts, places, strict=True)]


def write_csv(path, head, rows):
    """Write rows of texts without quotes or commas."""
    path.write_text("\n".join(",".join(map(str, row)) for row in [head, *rows]) + "\n")
    return str(path)


def documents(number=600, seed=0):
    """Sentences of the words that the tokenizer knows whole."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(_WORDS, k=rng.randint(6, 14))) + "." for _ in range(number)]
