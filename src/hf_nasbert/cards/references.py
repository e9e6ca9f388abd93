"""The papers that a card cites."""

from typing import Any

_NAS_BERT = (
    "Xu et al. (2021), NAS-BERT: Task-Agnostic and Adaptive-Size BERT Compression with Neural Architecture Search, "
    "KDD 2021, <https://arxiv.org/abs/2105.14444> (the operators)"
)
_MAGIC = (
    "Xu et al. (2022), Analyzing and Mitigating Interference in Neural Architecture Search, ICML 2022, "
    "<https://arxiv.org/abs/2108.12821> (MAGIC, how the super-net was trained)"
)
_SPOS = (
    "Guo et al. (2020), Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV 2020, "
    "<https://arxiv.org/abs/1904.00420> (how the super-net was trained)"
)
_FAIRNAS = (
    "Chu et al. (2021), FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture Search, "
    "ICCV 2021, <https://arxiv.org/abs/1907.01845> (how the super-net was trained)"
)
_METHODS = {"uniform": _SPOS, "fair": _FAIRNAS, "magic_t": _MAGIC, "magic_a": _MAGIC, "magic_at": _MAGIC}


def references(method: Any) -> list[str]:
    """The papers of the operators and of the method that trained the super-net, as Markdown."""
    paper = _METHODS.get(method) if isinstance(method, str) else None
    return [_NAS_BERT] + ([paper] if paper else [])
