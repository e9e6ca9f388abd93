"""The commands: from a folder and text to scores, to a child, and the whole way from text to a published child."""

from typing import TYPE_CHECKING

from hf_nasbert.lazy import load_on_first_use

if TYPE_CHECKING:
    from hf_nasbert.pipeline.arguments import ExtractionArguments as ExtractionArguments
    from hf_nasbert.pipeline.arguments import InterferenceArguments as InterferenceArguments
    from hf_nasbert.pipeline.arguments import InterferenceReportArguments as InterferenceReportArguments
    from hf_nasbert.pipeline.arguments import LatencyArguments as LatencyArguments
    from hf_nasbert.pipeline.arguments import PipelineArguments as PipelineArguments
    from hf_nasbert.pipeline.arguments import PlanArguments as PlanArguments
    from hf_nasbert.pipeline.arguments import RankChildrenArguments as RankChildrenArguments
    from hf_nasbert.pipeline.arguments import RankingReportArguments as RankingReportArguments
    from hf_nasbert.pipeline.arguments import SearchReportArguments as SearchReportArguments
    from hf_nasbert.pipeline.arguments import ShrinkSpaceArguments as ShrinkSpaceArguments
    from hf_nasbert.pipeline.extraction import Extracted as Extracted
    from hf_nasbert.pipeline.extraction import extract as extract
    from hf_nasbert.pipeline.finetuned import describe_finetuned as describe_finetuned
    from hf_nasbert.pipeline.finetuned import finetune_with_cards as finetune_with_cards
    from hf_nasbert.pipeline.fresh_process import ask_in_fresh_process as ask_in_fresh_process
    from hf_nasbert.pipeline.interference import measure_interference as measure_interference
    from hf_nasbert.pipeline.interference import report_interference as report_interference
    from hf_nasbert.pipeline.latency import measure_latency as measure_latency
    from hf_nasbert.pipeline.plan import SearchPlan as SearchPlan
    from hf_nasbert.pipeline.plan import plan_search as plan_search
    from hf_nasbert.pipeline.ranking import rank_children as rank_children
    from hf_nasbert.pipeline.ranking import report_ranking as report_ranking
    from hf_nasbert.pipeline.report import report_search as report_search
    from hf_nasbert.pipeline.scores import ProxyScorer as ProxyScorer
    from hf_nasbert.pipeline.scores import score_children as score_children
    from hf_nasbert.pipeline.scores import search_children as search_children
    from hf_nasbert.pipeline.scoring_arguments import ScoreChildrenArguments as ScoreChildrenArguments
    from hf_nasbert.pipeline.scoring_arguments import SearchChildrenArguments as SearchChildrenArguments
    from hf_nasbert.pipeline.shrinking import shrink_space as shrink_space
    from hf_nasbert.pipeline.stages import StageResult as StageResult
    from hf_nasbert.pipeline.supernet_card import describe_supernet as describe_supernet
    from hf_nasbert.pipeline.supernet_card import write_supernet_card as write_supernet_card
    from hf_nasbert.pipeline.text_settings import trained_on as trained_on
    from hf_nasbert.pipeline.whole import Pipeline as Pipeline
    from hf_nasbert.pipeline.whole import run_pipeline as run_pipeline

__getattr__, __dir__, __all__ = load_on_first_use(__name__)
