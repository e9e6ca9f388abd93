"""The studies of benchmarks/minilm_*.py on a tiny base model."""

import importlib
import sys
from contextlib import contextmanager
from pathlib import Path

from datasets import Dataset

from hf_nasbert.space import SearchSpace

from .bases import documents, save_base

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SPACE = SearchSpace.of_blocks(["attention,attention6,skip", "ffn,ffn8,norm"] * 3, skip="anywhere")
"""Of made-up tables."""


@contextmanager
def benchmark(name):
    """A benchmark as a module, which workers can import too; it and what it stands on are forgotten behind that."""
    before = set(sys.modules)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))
        for found in set(sys.modules) - before:
            if found.startswith("minilm_"):
                del sys.modules[found]


def prepare_tiny(folder, num_documents=300, **settings):
    """What the studies stand on, within `benchmark`; `settings` replace those of the tiny table."""
    children = importlib.import_module("minilm_children")
    asked = {
        "base_model": str(save_base(folder / "base")), "heads": (1,), "ffn": (32,), "kernels": (3,),
        "bands": (0.5, 0.75), "tolerance": 0.12, "num_children": 6, "num_pilot": 3, "num_repeated": 3, "num_steps": 8,
        "batch_size": 16, "max_length": 12, "num_sentences": 64,
    }  # fmt: skip
    lines = documents(40)
    pairs = Dataset.from_dict(
        {"sentence1": lines[:20], "sentence2": lines[20:], "score": [float(number % 5) for number in range(20)]}
    )
    texts = Dataset.from_dict({"text": documents(num_documents)})
    return children.prepare(children.Settings(**(asked | settings)), folder / "work", texts, pairs, "words", 1)
