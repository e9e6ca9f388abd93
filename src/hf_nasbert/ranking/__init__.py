"""Does a super-net rank its children as training each of them alone would? Tables of truth, measures and baselines.

The protocol is that of Yu et al. (2020, https://arxiv.org/abs/2003.04276) and Ning et al. (2021,
https://arxiv.org/abs/2008.03064): never one correlation alone, agreement among children of similar size, the noise of
the truth itself beside every figure, and the dull baselines in the same table. The figures of MAGIC (Xu et al., 2022,
https://arxiv.org/abs/2108.12821) that such a table is held against are 0.36, 0.49 and 0.57 for uniform sampling,
MAGIC-T and (read as) MAGIC-AT on 60 children [secondary source; the metric is not named there].
"""

from hf_nasbert.ranking.agreement import (
    Comparison,
    Measured,
    Ranked,
    baselines,
    compare,
    measures,
    one_training_by_another,
    operator_counts,
    rank,
)
from hf_nasbert.ranking.calibration import calibrations
from hf_nasbert.ranking.scores import by_share, last_steps, proxy_losses, read_scores, refuse_duplicates, share_of
from hf_nasbert.ranking.study import RankingReport, check_baseline, report
from hf_nasbert.ranking.table import GroundTruth, find_table, load_table
from hf_nasbert.ranking.worth import Worth, operator_worth

__all__ = [
    "Comparison",
    "GroundTruth",
    "Measured",
    "Ranked",
    "RankingReport",
    "Worth",
    "baselines",
    "by_share",
    "calibrations",
    "check_baseline",
    "compare",
    "find_table",
    "last_steps",
    "load_table",
    "measures",
    "one_training_by_another",
    "operator_counts",
    "operator_worth",
    "proxy_losses",
    "rank",
    "read_scores",
    "refuse_duplicates",
    "report",
    "share_of",
]
