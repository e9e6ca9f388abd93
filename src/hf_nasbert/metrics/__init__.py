"""Numbers in, numbers out: how well one ranking of children agrees with another, and how sure that is."""

from hf_nasbert.metrics.calibration import calibration_error as calibration_error
from hf_nasbert.metrics.checks import Array as Array
from hf_nasbert.metrics.intervals import Interval as Interval
from hf_nasbert.metrics.intervals import PairedDifference as PairedDifference
from hf_nasbert.metrics.intervals import cluster_interval as cluster_interval
from hf_nasbert.metrics.intervals import cluster_mean_interval as cluster_mean_interval
from hf_nasbert.metrics.intervals import mean_of_known as mean_of_known
from hf_nasbert.metrics.intervals import means_of_known as means_of_known
from hf_nasbert.metrics.intervals import paired_difference as paired_difference
from hf_nasbert.metrics.intervals import percentile_interval as percentile_interval
from hf_nasbert.metrics.rankings import Bucket as Bucket
from hf_nasbert.metrics.rankings import best_rank_at as best_rank_at
from hf_nasbert.metrics.rankings import bucketed_tau as bucketed_tau
from hf_nasbert.metrics.rankings import kendall_tau as kendall_tau
from hf_nasbert.metrics.rankings import mean_bucketed_tau as mean_bucketed_tau
from hf_nasbert.metrics.rankings import pearson as pearson
from hf_nasbert.metrics.rankings import precision_at_top as precision_at_top
from hf_nasbert.metrics.rankings import relative_improvement as relative_improvement
from hf_nasbert.metrics.rankings import size_buckets as size_buckets
from hf_nasbert.metrics.rankings import sparse_kendall_tau as sparse_kendall_tau
from hf_nasbert.metrics.rankings import spearman as spearman
from hf_nasbert.metrics.rankings import supernet_gap as supernet_gap
from hf_nasbert.metrics.rankings import top_tau as top_tau
from hf_nasbert.metrics.rankings import worst_rank_at as worst_rank_at
from hf_nasbert.metrics.redraws import Redraws as Redraws
from hf_nasbert.metrics.redraws import draw as draw
