"""Search spaces and their architectures: names, rules of a valid child, exact sizes, order, neighbours."""

from hf_nasbert.modeling.geometry_nasbert import SKIP, operator_kind, operator_width
from hf_nasbert.space.architecture import Architecture, hamming, num_shared_operators
from hf_nasbert.space.candidates import Candidates
from hf_nasbert.space.distribution import Distribution
from hf_nasbert.space.search_space import SearchSpace
from hf_nasbert.space.stages import FreeStage, Stage

__all__ = [
    "SKIP",
    "Architecture",
    "Candidates",
    "Distribution",
    "FreeStage",
    "SearchSpace",
    "Stage",
    "hamming",
    "num_shared_operators",
    "operator_kind",
    "operator_width",
]
