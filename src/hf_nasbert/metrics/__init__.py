"""Numbers in, numbers out: how well one ranking of children agrees with another, and how sure that is."""

from hf_nasbert.metrics.calibration import calibration_error
from hf_nasbert.metrics.checks import Array
from hf_nasbert.metrics.intervals import (
    Interval,
    PairedDifference,
    cluster_interval,
    cluster_mean_interval,
    mean_of_known,
    means_of_known,
    paired_difference,
    percentile_interval,
)
from hf_nasbert.metrics.rankings import (
    Bucket,
    best_rank_at,
    bucketed_tau,
    kendall_tau,
    mean_bucketed_tau,
    pearson,
    precision_at_top,
    relative_improvement,
    size_buckets,
    sparse_kendall_tau,
    spearman,
    supernet_gap,
    top_tau,
    worst_rank_at,
)
from hf_nasbert.metrics.redraws import Redraws, draw

__all__ = [
    "Array",
    "Bucket",
    "Interval",
    "PairedDifference",
    "Redraws",
    "best_rank_at",
    "bucketed_tau",
    "calibration_error",
    "cluster_interval",
    "cluster_mean_interval",
    "draw",
    "kendall_tau",
    "mean_bucketed_tau",
    "mean_of_known",
    "means_of_known",
    "paired_difference",
    "pearson",
    "percentile_interval",
    "precision_at_top",
    "relative_improvement",
    "size_buckets",
    "sparse_kendall_tau",
    "spearman",
    "supernet_gap",
    "top_tau",
    "worst_rank_at",
]
