"""Fit stand-alone models to tasks with `Trainer`: sentence tasks with labels, and continued masked-LM pre-training."""

from hf_nasbert.finetuning.glue import GLUE_TASKS, GlueMetric
from hf_nasbert.finetuning.labelled import LabelledTask, load_files, load_glue, load_packaged
from hf_nasbert.finetuning.pretraining import PretrainChildArguments, dev_loss, pretrain_child
from hf_nasbert.finetuning.sentences import FinetuneArguments, FinetuneResult, finetune

__all__ = [
    "GLUE_TASKS",
    "FinetuneArguments",
    "FinetuneResult",
    "GlueMetric",
    "LabelledTask",
    "PretrainChildArguments",
    "dev_loss",
    "finetune",
    "load_files",
    "load_glue",
    "load_packaged",
    "pretrain_child",
]
