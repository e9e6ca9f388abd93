"""Training a super-net: arguments, loop, checkpoints."""

from typing import TYPE_CHECKING

from hf_nasbert.lazy import load_on_first_use

if TYPE_CHECKING:
    from hf_nasbert.training.arguments import SupernetArguments as SupernetArguments
    from hf_nasbert.training.arguments import SupernetTrainingArguments as SupernetTrainingArguments
    from hf_nasbert.training.checkpoints import DamagedCheckpointError as DamagedCheckpointError
    from hf_nasbert.training.checkpoints import find_checkpoint as find_checkpoint
    from hf_nasbert.training.checkpoints import list_checkpoints as list_checkpoints
    from hf_nasbert.training.journal import read_log as read_log
    from hf_nasbert.training.listener import Listener as Listener
    from hf_nasbert.training.loop import DivergenceError as DivergenceError
    from hf_nasbert.training.loop import SupernetLoop as SupernetLoop
    from hf_nasbert.training.loop import TrainingOutput as TrainingOutput
    from hf_nasbert.training.loop import train_supernet as train_supernet
    from hf_nasbert.training.machine import chosen_precision as chosen_precision
    from hf_nasbert.training.machine import make_accelerator as make_accelerator
    from hf_nasbert.training.machine import tune_allocator as tune_allocator
    from hf_nasbert.training.pretrain import Pretraining as Pretraining
    from hf_nasbert.training.pretrain import prepare_pretraining as prepare_pretraining
    from hf_nasbert.training.pretrain import pretrain_supernet as pretrain_supernet

__getattr__, __dir__, __all__ = load_on_first_use(__name__)
