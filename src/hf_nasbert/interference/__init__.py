"""Interference: how alike a shared operator's gradients are under different children, measured and summarised.

MAGIC (Xu et al., 2022, https://arxiv.org/abs/2108.12821, section on the analysis of interference) compares the
gradients of operators that two children share; GM-NAS splits a super-net where the gradients of the candidates differ
most.
"""

from hf_nasbert.interference.gradients import (
    OperatorGradients,
    draw_pairs,
    gradient_similarity,
    measure_blocks,
    measure_pairs,
    operator_gradients,
    shared_gradients,
    state_similarity,
)
from hf_nasbert.interference.summaries import (
    Split,
    associations,
    best_split,
    block_splits,
    gain_over,
    mean_similarity,
    measurements,
    pair_rows,
    refuse_duplicates,
    similarity_bins,
)
from hf_nasbert.interference.tables import FIGURES, as_markdown

__all__ = [
    "FIGURES",
    "OperatorGradients",
    "Split",
    "as_markdown",
    "associations",
    "best_split",
    "block_splits",
    "draw_pairs",
    "gain_over",
    "gradient_similarity",
    "mean_similarity",
    "measure_blocks",
    "measure_pairs",
    "measurements",
    "operator_gradients",
    "pair_rows",
    "refuse_duplicates",
    "shared_gradients",
    "similarity_bins",
    "state_similarity",
]
