"""Choosing among architectures by what they score and what they cost; knows no model.

Every search is asked for children and told their scores (`Search`); `run_search` does so until enough are scored, and
survives being killed. Optuna and LightGBM, which two of them need, are the extra `search` and load when first used.
"""

from hf_nasbert.search.base import Scored, Search
from hf_nasbert.search.baselines import RandomSearch, SizeMatchedRandomSearch
from hf_nasbert.search.boosting import GradientBoostedSearch
from hf_nasbert.search.compute import (
    ComputePlan,
    Hands,
    Prices,
    plan_compute,
    random_children,
    search_under_compute,
)
from hf_nasbert.search.evolution import RegularizedEvolution
from hf_nasbert.search.gradients import GradientMixtureSearch
from hf_nasbert.search.halving import SuccessiveHalving, TrainedHalving, largest_bracket
from hf_nasbert.search.inner import InnerFrontSearch
from hf_nasbert.search.knapsack import Choice, Item, best_choices
from hf_nasbert.search.learned import LearnedDistributionSearch
from hf_nasbert.search.pareto import ParetoSearch, pareto_front
from hf_nasbert.search.predictors import OperatorRidge, Predict, calibrated
from hf_nasbert.search.prefixes import PrefixBeamSearch
from hf_nasbert.search.programming import KnapsackSearch
from hf_nasbert.search.runs import Score, run_search
from hf_nasbert.search.shrinking import ProgressiveShrinking
from hf_nasbert.search.task import SearchTask

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

__all__ = [
    "SEARCHES",
    "SETTINGS",
    "Choice",
    "ComputePlan",
    "GradientBoostedSearch",
    "GradientMixtureSearch",
    "Hands",
    "InnerFrontSearch",
    "Item",
    "KnapsackSearch",
    "LearnedDistributionSearch",
    "OperatorRidge",
    "ParetoSearch",
    "Predict",
    "PrefixBeamSearch",
    "Prices",
    "ProgressiveShrinking",
    "RandomSearch",
    "RegularizedEvolution",
    "Score",
    "Scored",
    "Search",
    "SearchTask",
    "SizeMatchedRandomSearch",
    "SuccessiveHalving",
    "TrainedHalving",
    "best_choices",
    "calibrated",
    "largest_bracket",
    "pareto_front",
    "plan_compute",
    "random_children",
    "run_search",
    "search_under_compute",
]
