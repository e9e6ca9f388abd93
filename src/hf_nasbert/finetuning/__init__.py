"""Fit stand-alone models to tasks with `Trainer`: sentences, tagged words, questions, and masked-LM pre-training."""

from typing import TYPE_CHECKING

from hf_nasbert.lazy import load_on_first_use

if TYPE_CHECKING:
    from hf_nasbert.finetuning.arguments import (
        FinetuneArguments,
        FinetuneSquadArguments,
        FinetuneTokensArguments,
        PretrainChildArguments,
    )
    from hf_nasbert.finetuning.glue import GLUE_TASKS, GlueMetric
    from hf_nasbert.finetuning.pretraining import dev_loss, pretrain_child
    from hf_nasbert.finetuning.question_answering import finetune_squad
    from hf_nasbert.finetuning.question_answering_data import Questions, load_squad_dataset, load_squad_files
    from hf_nasbert.finetuning.sequence_classification import finetune
    from hf_nasbert.finetuning.sequence_classification_data import LabelledTask, load_files, load_glue, load_packaged
    from hf_nasbert.finetuning.squad_metric import SquadMetric
    from hf_nasbert.finetuning.tagging_metric import TaggingMetric
    from hf_nasbert.finetuning.tasks import FinetuneResult
    from hf_nasbert.finetuning.token_classification import finetune_tokens
    from hf_nasbert.finetuning.token_classification_data import TaggedWords, load_tagged_dataset, load_tagged_files

__getattr__, __dir__, __all__ = load_on_first_use(__name__)
