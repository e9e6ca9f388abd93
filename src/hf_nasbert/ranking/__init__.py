"""Does a super-net rank its children as training each of them alone would? Tables of truth, measures and baselines.

The protocol is that of Yu et al. (2020, https://arxiv.org/abs/2003.04276) and Ning et al. (2021,
https://arxiv.org/abs/2008.03064): never one correlation alone, agreement among children of similar size, the noise of
the truth itself beside every figure, and the dull baselines in the same table. The figures of MAGIC (Xu et al., 2022,
https://arxiv.org/abs/2108.12821) that such a table is compared with are 0.36, 0.49 and 0.57 for uniform sampling,
MAGIC-T and (read as) MAGIC-AT on 60 children [secondary source; the metric is not named there].
"""

from hf_nasbert.ranking.agreement import Comparison as Comparison
from hf_nasbert.ranking.agreement import Measured as Measured
from hf_nasbert.ranking.agreement import Ranked as Ranked
from hf_nasbert.ranking.agreement import baselines as baselines
from hf_nasbert.ranking.agreement import compare as compare
from hf_nasbert.ranking.agreement import measures as measures
from hf_nasbert.ranking.agreement import one_training_by_another as one_training_by_another
from hf_nasbert.ranking.agreement import operator_counts as operator_counts
from hf_nasbert.ranking.agreement import rank as rank
from hf_nasbert.ranking.calibration import calibrations as calibrations
from hf_nasbert.ranking.calibration import check_calibration as check_calibration
from hf_nasbert.ranking.scores import by_share as by_share
from hf_nasbert.ranking.scores import last_steps as last_steps
from hf_nasbert.ranking.scores import proxy_losses as proxy_losses
from hf_nasbert.ranking.scores import read_scores as read_scores
from hf_nasbert.ranking.scores import refuse_duplicates as refuse_duplicates
from hf_nasbert.ranking.scores import share_of as share_of
from hf_nasbert.ranking.study import RankingReport as RankingReport
from hf_nasbert.ranking.study import check_baseline as check_baseline
from hf_nasbert.ranking.study import report as report
from hf_nasbert.ranking.table import GroundTruth as GroundTruth
from hf_nasbert.ranking.table import find_table as find_table
from hf_nasbert.ranking.table import load_table as load_table
from hf_nasbert.ranking.worth import Worth as Worth
from hf_nasbert.ranking.worth import operator_worth as operator_worth
