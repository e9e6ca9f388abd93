"""Training a super-net: arguments, loop, checkpoints."""

from typing import TYPE_CHECKING

from hf_nasbert.lazy import load_on_first_use

if TYPE_CHECKING:
    from hf_nasbert.training.arguments import SupernetArguments, SupernetTrainingArguments
    from hf_nasbert.training.checkpoints import DamagedCheckpointError, find_checkpoint, list_checkpoints
    from hf_nasbert.training.journal import read_log
    from hf_nasbert.training.loop import DivergenceError, SupernetTrainer, TrainingOutput, train_supernet
    from hf_nasbert.training.machine import make_accelerator, tune_allocator
    from hf_nasbert.training.pretrain import pretrain_supernet

__getattr__, __dir__, __all__ = load_on_first_use(__name__)
