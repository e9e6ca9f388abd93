"""Fit stand-alone models to tasks with `Trainer`: sentences, tagged words, questions, and masked-LM pre-training."""

from hf_nasbert.finetuning.glue import GLUE_TASKS, GlueMetric
from hf_nasbert.finetuning.labelled import LabelledTask, load_files, load_glue, load_packaged
from hf_nasbert.finetuning.pretraining import PretrainChildArguments, dev_loss, pretrain_child
from hf_nasbert.finetuning.questions import FinetuneSquadArguments, finetune_squad
from hf_nasbert.finetuning.sentences import FinetuneArguments, finetune
from hf_nasbert.finetuning.squad import Questions, SquadMetric, load_squad_dataset, load_squad_files
from hf_nasbert.finetuning.tagged import TaggedWords, TaggingMetric, load_tagged_dataset, load_tagged_files
from hf_nasbert.finetuning.tasks import FinetuneResult
from hf_nasbert.finetuning.tokens import FinetuneTokensArguments, finetune_tokens

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
