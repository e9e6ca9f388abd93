"""Figures from records; they compute and invent nothing.

Every function returns a matplotlib `Figure` of its own: no pyplot state, no changed backend, and the user's settings
are neither read nor written. `save_figure` writes it as PNG and SVG, byte for byte the same for the same records.
"""

from hf_nasbert.plots.children import plot_architecture, plot_operator_frequency, plot_pareto_front, plot_training
from hf_nasbert.plots.interference import plot_gradient_similarity, plot_similarity_by_block
from hf_nasbert.plots.ranking import plot_proxy_against_truth, plot_tau_by_method, plot_tau_over_steps
from hf_nasbert.plots.search import plot_regret
from hf_nasbert.plots.style import OPERATOR_COLOURS, save_figure

__all__ = [
    "OPERATOR_COLOURS",
    "plot_architecture",
    "plot_gradient_similarity",
    "plot_operator_frequency",
    "plot_pareto_front",
    "plot_proxy_against_truth",
    "plot_regret",
    "plot_similarity_by_block",
    "plot_tau_by_method",
    "plot_tau_over_steps",
    "plot_training",
    "save_figure",
]
