"""The papers that a card cites."""

from typing import Any

from hf_nasbert.methods import METHODS

_NAS_BERT = (
    "Xu et al. (2021), NAS-BERT: Task-Agnostic and Adaptive-Size BERT Compression with Neural Architecture Search, "
    "KDD 2021, <https://arxiv.org/abs/2105.14444> (the operators)"
)

PUZZLE = (
    "Bercovich et al. (2025), Puzzle: Distillation-Based NAS for Inference-Optimized LLMs, "
    "<https://arxiv.org/abs/2411.19146> (lone replacements, chosen by an integer program)"
)


def references(method: Any) -> list[str]:
    """The papers of the operators and of the method that trained the super-net, as Markdown."""
    paper = METHODS[method].paper if isinstance(method, str) and method in METHODS else None
    if paper is None:
        return [_NAS_BERT]
    return [_NAS_BERT, f"{paper.reference}, <{paper.url}> (how the super-net was trained)"]
