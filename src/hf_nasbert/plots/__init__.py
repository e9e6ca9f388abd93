"""Figures from records; they compute and invent nothing.

Every function returns a matplotlib `Figure` of its own: no pyplot state, no changed backend, and the user's settings
are neither read nor written. `save_figure` writes it as PNG and SVG, byte for byte the same for the same records.
"""

from hf_nasbert.plots.children import plot_architecture as plot_architecture
from hf_nasbert.plots.children import plot_operator_frequency as plot_operator_frequency
from hf_nasbert.plots.children import plot_pareto_front as plot_pareto_front
from hf_nasbert.plots.children import plot_training as plot_training
from hf_nasbert.plots.interference import plot_gradient_similarity as plot_gradient_similarity
from hf_nasbert.plots.interference import plot_similarity_by_block as plot_similarity_by_block
from hf_nasbert.plots.ranking import plot_proxy_against_truth as plot_proxy_against_truth
from hf_nasbert.plots.ranking import plot_tau_by_method as plot_tau_by_method
from hf_nasbert.plots.ranking import plot_tau_over_steps as plot_tau_over_steps
from hf_nasbert.plots.search import plot_regret as plot_regret
from hf_nasbert.plots.style import OPERATOR_COLOURS as OPERATOR_COLOURS
from hf_nasbert.plots.style import save_figure as save_figure
