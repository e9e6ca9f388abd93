"""The rooms joined: from a folder and text to scores, to a child, and the whole way from text to a published child."""

from hf_nasbert.pipeline.extract import Extracted, ExtractionArguments, extract
from hf_nasbert.pipeline.finetuned import describe_finetuned, finetune_with_cards
from hf_nasbert.pipeline.interference import (
    InterferenceArguments,
    InterferenceReportArguments,
    measure_interference,
    report_interference,
)
from hf_nasbert.pipeline.latency import LatencyArguments, measure_latency
from hf_nasbert.pipeline.ranking import RankChildrenArguments, RankingReportArguments, rank_children, report_ranking
from hf_nasbert.pipeline.report import SearchReportArguments, report_search
from hf_nasbert.pipeline.scores import (
    ProxyScorer,
    ScoreChildrenArguments,
    SearchChildrenArguments,
    score_children,
    search_children,
)
from hf_nasbert.pipeline.stages import StageResult
from hf_nasbert.pipeline.supernet_card import describe_supernet, write_supernet_card
from hf_nasbert.pipeline.trained_on import trained_on
from hf_nasbert.pipeline.whole import Pipeline, PipelineArguments, ask_in_fresh_process, run_pipeline

__all__ = [
    "Extracted",
    "ExtractionArguments",
    "InterferenceArguments",
    "InterferenceReportArguments",
    "LatencyArguments",
    "Pipeline",
    "PipelineArguments",
    "ProxyScorer",
    "RankChildrenArguments",
    "RankingReportArguments",
    "ScoreChildrenArguments",
    "SearchChildrenArguments",
    "SearchReportArguments",
    "StageResult",
    "ask_in_fresh_process",
    "describe_finetuned",
    "describe_supernet",
    "extract",
    "finetune_with_cards",
    "measure_interference",
    "measure_latency",
    "rank_children",
    "report_interference",
    "report_ranking",
    "report_search",
    "run_pipeline",
    "score_children",
    "search_children",
    "trained_on",
    "write_supernet_card",
]
