"""Interference: how similar a shared operator's gradients are under different children, measured and summarised.

MAGIC (Xu et al., 2022, https://arxiv.org/abs/2108.12821, section on the analysis of interference) compares the
gradients of operators that two children share; GM-NAS splits a super-net where the gradients of the candidates differ
most.
"""

from hf_nasbert.interference.gradients import OperatorGradients as OperatorGradients
from hf_nasbert.interference.gradients import draw_pairs as draw_pairs
from hf_nasbert.interference.gradients import gradient_similarity as gradient_similarity
from hf_nasbert.interference.gradients import measure_blocks as measure_blocks
from hf_nasbert.interference.gradients import measure_pairs as measure_pairs
from hf_nasbert.interference.gradients import operator_gradients as operator_gradients
from hf_nasbert.interference.gradients import shared_gradients as shared_gradients
from hf_nasbert.interference.gradients import state_similarity as state_similarity
from hf_nasbert.interference.summaries import Split as Split
from hf_nasbert.interference.summaries import associations as associations
from hf_nasbert.interference.summaries import best_split as best_split
from hf_nasbert.interference.summaries import block_splits as block_splits
from hf_nasbert.interference.summaries import gain_over as gain_over
from hf_nasbert.interference.summaries import mean_similarity as mean_similarity
from hf_nasbert.interference.summaries import measurements as measurements
from hf_nasbert.interference.summaries import pair_rows as pair_rows
from hf_nasbert.interference.summaries import refuse_duplicates as refuse_duplicates
from hf_nasbert.interference.summaries import similarity_bins as similarity_bins
from hf_nasbert.interference.tables import as_markdown as as_markdown
