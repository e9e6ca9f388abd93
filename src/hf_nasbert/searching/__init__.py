"""Choosing among architectures by what they score and what they cost; knows no model.

Every search is asked for children and told their scores (`Search`); `run_search` does so until enough are scored, and
survives being killed. Optuna and LightGBM, which two of them need, are the extra `search` and load when first used.
"""

from hf_nasbert.searching.base import Scored as Scored
from hf_nasbert.searching.base import Search as Search
from hf_nasbert.searching.baselines import RandomSearch as RandomSearch
from hf_nasbert.searching.baselines import SizeMatchedRandomSearch as SizeMatchedRandomSearch
from hf_nasbert.searching.boosting import GradientBoostedSearch as GradientBoostedSearch
from hf_nasbert.searching.compute import ComputePlan as ComputePlan
from hf_nasbert.searching.compute import Hands as Hands
from hf_nasbert.searching.compute import Prices as Prices
from hf_nasbert.searching.compute import plan_compute as plan_compute
from hf_nasbert.searching.compute import plan_for as plan_for
from hf_nasbert.searching.compute import random_children as random_children
from hf_nasbert.searching.compute import search_under_compute as search_under_compute
from hf_nasbert.searching.evolution import RegularizedEvolution as RegularizedEvolution
from hf_nasbert.searching.gradients import GradientMixtureSearch as GradientMixtureSearch
from hf_nasbert.searching.halving import SuccessiveHalving as SuccessiveHalving
from hf_nasbert.searching.halving import TrainedHalving as TrainedHalving
from hf_nasbert.searching.halving import largest_bracket as largest_bracket
from hf_nasbert.searching.inner import InnerFrontSearch as InnerFrontSearch
from hf_nasbert.searching.knapsack import Choice as Choice
from hf_nasbert.searching.knapsack import Item as Item
from hf_nasbert.searching.knapsack import best_choices as best_choices
from hf_nasbert.searching.learned import LearnedDistributionSearch as LearnedDistributionSearch
from hf_nasbert.searching.pareto import ParetoSearch as ParetoSearch
from hf_nasbert.searching.pareto import pareto_front as pareto_front
from hf_nasbert.searching.predictors import OperatorRidge as OperatorRidge
from hf_nasbert.searching.predictors import Predict as Predict
from hf_nasbert.searching.predictors import calibrated as calibrated
from hf_nasbert.searching.predictors import shared_ridge as shared_ridge
from hf_nasbert.searching.prefixes import PrefixBeamSearch as PrefixBeamSearch
from hf_nasbert.searching.programming import KnapsackSearch as KnapsackSearch
from hf_nasbert.searching.runs import Score as Score
from hf_nasbert.searching.runs import check_history as check_history
from hf_nasbert.searching.runs import run_search as run_search
from hf_nasbert.searching.shrinking import ProgressiveShrinking as ProgressiveShrinking
from hf_nasbert.searching.task import SearchTask as SearchTask

SEARCHES: dict[str, type[Search]] = {
    search.name: search
    for search in (
        RandomSearch,
        SizeMatchedRandomSearch,
        RegularizedEvolution,
        ParetoSearch,
        SuccessiveHalving,
        GradientBoostedSearch,
        ProgressiveShrinking,
        LearnedDistributionSearch,
        TrainedHalving,
        PrefixBeamSearch,
        InnerFrontSearch,
        KnapsackSearch,
        GradientMixtureSearch,
    )
}

SETTINGS: dict[str, type] = {name: search.settings_class() for name, search in SEARCHES.items()}
"""The hyper-parameters of every search, as a dataclass of flags."""
