"""Search spaces and their architectures: names, rules of a valid child, exact sizes, order, neighbours."""

from hf_nasbert.modeling.geometry_nasbert import SKIP as SKIP
from hf_nasbert.modeling.geometry_nasbert import operator_kind as operator_kind
from hf_nasbert.modeling.geometry_nasbert import operator_width as operator_width
from hf_nasbert.space.architecture import Architecture as Architecture
from hf_nasbert.space.architecture import hamming as hamming
from hf_nasbert.space.architecture import num_shared_operators as num_shared_operators
from hf_nasbert.space.candidates import Candidates as Candidates
from hf_nasbert.space.distribution import Distribution as Distribution
from hf_nasbert.space.search_space import SearchSpace as SearchSpace
from hf_nasbert.space.search_space import settings_of_blocks as settings_of_blocks
from hf_nasbert.space.stages import FreeStage as FreeStage
from hf_nasbert.space.stages import Stage as Stage
