"""Fit stand-alone models to tasks with `Trainer`: sentences, tagged words, questions, and masked-LM pre-training."""

from hf_nasbert.finetuning.glue import GLUE_TASKS, GlueMetric
from hf_nasbert.finetuning.pretraining import PretrainChildArguments, dev_loss, pretrain_child
from hf_nasbert.finetuning.question_answering import FinetuneSquadArguments, finetune_squad
from hf_nasbert.finetuning.question_answering_data import Questions, load_squad_dataset, load_squad_files
from hf_nasbert.finetuning.sequence_classification import FinetuneArguments, finetune
from hf_nasbert.finetuning.sequence_classification_data import LabelledTask, load_files, load_glue, load_packaged
from hf_nasbert.finetuning.squad_metric import SquadMetric
from hf_nasbert.finetuning.tagging_metric import TaggingMetric
from hf_nasbert.finetuning.tasks import FinetuneResult
from hf_nasbert.finetuning.token_classification import FinetuneTokensArguments, finetune_tokens
from hf_nasbert.finetuning.token_classification_data import TaggedWords, load_tagged_dataset, load_tagged_files

__all__ = [
    "GLUE_TASKS",
    "FinetuneArguments",
    "FinetuneResult",
    "FinetuneSquadArguments",
    "FinetuneTokensArguments",
    "GlueMetric",
    "LabelledTask",
    "PretrainChildArguments",
    "Questions",
    "SquadMetric",
    "TaggedWords",
    "TaggingMetric",
    "dev_loss",
    "finetune",
    "finetune_squad",
    "finetune_tokens",
    "load_files",
    "load_glue",
    "load_packaged",
    "load_squad_dataset",
    "load_squad_files",
    "load_tagged_dataset",
    "load_tagged_files",
    "pretrain_child",
]
