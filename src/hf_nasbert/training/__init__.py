"""Training a super-net: arguments, loop, checkpoints."""

from hf_nasbert.training.arguments import SupernetArguments, SupernetTrainingArguments
from hf_nasbert.training.checkpoints import DamagedCheckpointError, find_checkpoint, list_checkpoints
from hf_nasbert.training.journal import read_log
from hf_nasbert.training.loop import DivergenceError, SupernetTrainer, TrainingOutput, train_supernet
from hf_nasbert.training.machine import make_accelerator, tune_allocator
from hf_nasbert.training.pretrain import pretrain_supernet

__all__ = [
    "DamagedCheckpointError",
    "DivergenceError",
    "SupernetArguments",
    "SupernetTrainer",
    "SupernetTrainingArguments",
    "TrainingOutput",
    "find_checkpoint",
    "list_checkpoints",
    "make_accelerator",
    "pretrain_supernet",
    "read_log",
    "train_supernet",
    "tune_allocator",
]
