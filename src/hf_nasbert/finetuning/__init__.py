"""Fit stand-alone models to tasks with `Trainer`: sentences, tagged words, questions, and masked-LM pre-training."""

from typing import TYPE_CHECKING

from hf_nasbert.lazy import load_on_first_use

if TYPE_CHECKING:
    from hf_nasbert.finetuning.arguments import FinetuneArguments as FinetuneArguments
    from hf_nasbert.finetuning.arguments import FinetuneSquadArguments as FinetuneSquadArguments
    from hf_nasbert.finetuning.arguments import FinetuneTokensArguments as FinetuneTokensArguments
    from hf_nasbert.finetuning.arguments import PretrainChildArguments as PretrainChildArguments
    from hf_nasbert.finetuning.glue import GLUE_TASKS as GLUE_TASKS
    from hf_nasbert.finetuning.glue import GlueMetric as GlueMetric
    from hf_nasbert.finetuning.pretraining import dev_loss as dev_loss
    from hf_nasbert.finetuning.pretraining import pretrain_child as pretrain_child
    from hf_nasbert.finetuning.question_answering import finetune_squad as finetune_squad
    from hf_nasbert.finetuning.question_answering_data import Questions as Questions
    from hf_nasbert.finetuning.question_answering_data import load_squad_dataset as load_squad_dataset
    from hf_nasbert.finetuning.question_answering_data import load_squad_files as load_squad_files
    from hf_nasbert.finetuning.sequence_classification import finetune as finetune
    from hf_nasbert.finetuning.sequence_classification_data import LabelledTask as LabelledTask
    from hf_nasbert.finetuning.sequence_classification_data import load_files as load_files
    from hf_nasbert.finetuning.sequence_classification_data import load_glue as load_glue
    from hf_nasbert.finetuning.sequence_classification_data import load_packaged as load_packaged
    from hf_nasbert.finetuning.squad_metric import SquadMetric as SquadMetric
    from hf_nasbert.finetuning.tagging_metric import TaggingMetric as TaggingMetric
    from hf_nasbert.finetuning.tasks import FinetuneResult as FinetuneResult
    from hf_nasbert.finetuning.token_classification import finetune_tokens as finetune_tokens
    from hf_nasbert.finetuning.token_classification_data import TaggedWords as TaggedWords
    from hf_nasbert.finetuning.token_classification_data import load_tagged_dataset as load_tagged_dataset
    from hf_nasbert.finetuning.token_classification_data import load_tagged_files as load_tagged_files

__getattr__, __dir__, __all__ = load_on_first_use(__name__)
