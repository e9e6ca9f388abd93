"""The commands: from a folder and text to scores, to a child, and the whole way from text to a published child."""

from typing import TYPE_CHECKING

from hf_nasbert.lazy import load_on_first_use

if TYPE_CHECKING:
    from hf_nasbert.pipeline.arguments import (
        ExtractionArguments,
        InterferenceArguments,
        InterferenceReportArguments,
        LatencyArguments,
        PipelineArguments,
        RankChildrenArguments,
        RankingReportArguments,
        SearchReportArguments,
        ShrinkSpaceArguments,
    )
    from hf_nasbert.pipeline.extraction import Extracted, extract
    from hf_nasbert.pipeline.finetuned import describe_finetuned, finetune_with_cards
    from hf_nasbert.pipeline.fresh_process import ask_in_fresh_process
    from hf_nasbert.pipeline.interference import measure_interference, report_interference
    from hf_nasbert.pipeline.latency import measure_latency
    from hf_nasbert.pipeline.ranking import rank_children, report_ranking
    from hf_nasbert.pipeline.report import report_search
    from hf_nasbert.pipeline.scores import ProxyScorer, score_children, search_children
    from hf_nasbert.pipeline.scoring_arguments import ScoreChildrenArguments, SearchChildrenArguments
    from hf_nasbert.pipeline.shrinking import shrink_space
    from hf_nasbert.pipeline.stages import StageResult
    from hf_nasbert.pipeline.supernet_card import describe_supernet, write_supernet_card
    from hf_nasbert.pipeline.text_settings import trained_on
    from hf_nasbert.pipeline.whole import Pipeline, run_pipeline

__getattr__, __dir__, __all__ = load_on_first_use(__name__)
