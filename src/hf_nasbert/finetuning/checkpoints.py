"""Checkpoints of `Trainer`, protected as a super-net's are: whole or not there, sealed, checked, and read safely."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import EarlyStoppingCallback, Trainer, TrainerControl, TrainerState
from transformers.trainer_callback import ExportableState

from hf_nasbert.checkpoint_folders import (
    MANIFEST,
    DamagedCheckpointError,
    files_in,
    find_latest,
    verify,
    write_checkpoint,
)
from hf_nasbert.foreign import printable, read_object
from hf_nasbert.processes import on_main_process
from hf_nasbert.records import is_finite_number
from hf_nasbert.writing import WriteError

ADVICE = "run the same command again"
_STATE = "trainer_state.json"
_REQUIRED = (_STATE, "optimizer.pt", "scheduler.pt")
# The least that each may be; the most is more than any run makes.
_WHOLE_NUMBERS = {
    "logging_steps": 1, "eval_steps": 1, "save_steps": 1, "train_batch_size": 1, "max_steps": 1,
    "num_train_epochs": 0, "num_input_tokens_seen": 0,
}  # fmt: skip
_MOST = 10**12
_PICKLE = "training_args.bin"
_KEPT = 2  # so that there is one before the newest
# What torch says when a file cannot be opened or takes no more bytes: a RuntimeError, as everything of it is.
_REFUSED_WRITES = ("inline_container", "PytorchStreamWriter", "iostream", "Parent directory", "cannot be opened")


def latest_checkpoint(run: Path) -> Path | None:
    """The newest whole checkpoint of a run; damaged ones are named in a warning and passed over.

    Raises:
        DamagedCheckpointError: If there are checkpoints, and none is whole.
    """
    try:
        return find_latest(run, read_state)
    except DamagedCheckpointError as error:
        raise DamagedCheckpointError(f"{error}; put a whole one back, or delete {run} to train anew") from None


def read_state(checkpoint: Path) -> TrainerState:
    """The state of the run in a whole checkpoint, of which every file is checked, and so are the best weights so far.

    Raises:
        DamagedCheckpointError: If it is not what was written, or a file is there that nobody wrote.
    """
    named = verify(checkpoint, _REQUIRED)
    # `Trainer` looks for many files and takes what it finds.
    foreign = [name for name in files_in(checkpoint) if name not in named | {MANIFEST}]
    if foreign:
        raise DamagedCheckpointError(
            f"checkpoint {checkpoint} is damaged: {MANIFEST} does not name {printable(foreign[0], 80)}, which is there"
        )
    for suffix, what in ((".safetensors", "weights"), (".pth", "random state")):
        if not any(name.endswith(suffix) for name in named):
            raise DamagedCheckpointError(f"checkpoint {checkpoint} is damaged: {MANIFEST} names no {what} (*{suffix})")
    state = _parse_state(checkpoint)
    if state.best_global_step not in (None, state.global_step):
        best = checkpoint.with_name(f"checkpoint-{state.best_global_step}")
        try:
            verify(best)
        except DamagedCheckpointError as error:
            raise DamagedCheckpointError(f"checkpoint {checkpoint} lacks its best weights so far: {error}") from None
    return state


def _parse_state(checkpoint: Path) -> TrainerState:
    def refuse(said: object) -> DamagedCheckpointError:
        return DamagedCheckpointError(f"checkpoint {checkpoint} is damaged: {_STATE}: {printable(said, 300)}")

    try:
        state = TrainerState(**read_object(checkpoint / _STATE, _STATE))
        step = state.global_step
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise refuse(f"{type(error).__name__}: {error}") from None
    if type(step) is not int or checkpoint.name != f"checkpoint-{step}":
        raise refuse(f"it is of step {step!r}")
    fault = _fault(state)
    if fault is not None:
        raise refuse(fault)
    return state


def _fault(state: TrainerState) -> str | None:
    """What `Trainer` could not work with in the state of a run, or would take for another run's, in words, or `None`.

    `Trainer` takes a state as it is, its intervals too.
    """
    best, logged = state.best_global_step, state.log_history
    callbacks: Any = state.stateful_callbacks
    for name, least in _WHOLE_NUMBERS.items():
        value = getattr(state, name)
        if not (type(value) is int and least <= value <= _MOST):
            return f"{name} is {value!r}"
    for name in ("epoch", "total_flos"):
        value = getattr(state, name)
        if not (is_finite_number(value) and value >= 0):
            return f"{name} is {value!r}"
    for name in ("is_local_process_zero", "is_world_process_zero", "is_hyper_param_search"):
        if type(getattr(state, name)) is not bool:
            return f"{name} is {getattr(state, name)!r}"
    if not (best is None or (type(best) is int and 0 < best <= state.global_step)):
        return f"best_global_step is {best!r}"
    if not (type(state.best_metric) in (int, float) if best else state.best_metric in (None, math.inf, -math.inf)):
        return f"best_metric is {state.best_metric!r}"
    if state.best_model_checkpoint is not None:  # see `SealingTrainer.find_best`
        return f"best_model_checkpoint is {state.best_model_checkpoint!r}"
    if not (
        isinstance(logged, list) and all(isinstance(one, dict) and type(one.get("step")) is int for one in logged)
    ):
        return "log_history is no list of logged steps"
    if not isinstance(callbacks, dict) or not _fits(callbacks.get("TrainerControl"), TrainerControl()):
        return "TrainerControl is not what Trainer makes of it"
    found = callbacks.get("EarlyStoppingCallback", [])
    for early in found if isinstance(found, list) else [found]:
        if not _fits(early, EarlyStoppingCallback()):
            return "EarlyStoppingCallback is not what Trainer makes of it"
    return None


def _fits(saved: Any, made: ExportableState) -> bool:
    """Whether the saved state of a callback has the entries of one that was just made, each of its kind."""

    def kinds(entries: dict[str, Any]) -> dict[str, type]:
        return {name: float if type(value) is int else type(value) for name, value in entries.items()}

    expected = made.state()
    return isinstance(saved, dict) and all(
        isinstance(saved.get(part), dict) and kinds(saved[part]) == kinds(expected[part])
        for part in ("args", "attributes")
    )


class SealingTrainer(Trainer):
    """`Trainer` whose checkpoints are whole or not there, and which names what it cannot read or write.

    A checkpoint appears under its name when all its files are flushed and named in a manifest; only then are older
    ones deleted. The newest two are kept, and the best. It holds no pickled arguments.
    """

    _place: Path | None = None  # where a checkpoint is being written

    @property
    def run_folder(self) -> Path:
        """Where the checkpoints lie."""
        return Path(str(self.args.output_dir))

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._place is None else str(self._place)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        def write(partial: Path) -> None:
            # Every process writes its own random state: where, the main one tells when the folder is there.
            self._fill(Path(on_main_process(self.accelerator, lambda: str(partial))), model, trial)

        if self.is_world_process_zero():
            best = self.state.best_global_step
            step = self.state.global_step
            write_checkpoint(self.run_folder, step, write, limit=_KEPT, keep=best, advice=ADVICE)
        else:
            write(Path())
        self.accelerator.wait_for_everyone()
        self.find_best()

    def _fill(self, partial: Path, model: nn.Module, trial: Any) -> None:
        """Write all files of a checkpoint into a folder, with `Trainer`'s own code."""
        self._place = partial
        try:
            super()._save_checkpoint(model, trial)
        except RuntimeError as error:
            if not any(words in str(error) for words in _REFUSED_WRITES):
                raise
            reason = printable(str(error).splitlines()[0], 200)
            raise WriteError(partial.name, f"a write failed, as on a full disk: {reason}") from error
        finally:
            self._place = None
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            inner = partial / f"checkpoint-{self.state.global_step}"
            for file in sorted(inner.iterdir()):
                file.rename(partial / file.name)
            inner.rmdir()
            (partial / _PICKLE).unlink(missing_ok=True)  # written and never read
            # No path: the folder may be another one when it is read (see `find_best`).
            self.state.best_model_checkpoint = None
            self.state.save_to_json(str(partial / _STATE))

    def find_best(self) -> None:
        """Tell `Trainer` where the best weights so far lie."""
        best = self.state.best_global_step
        self.state.best_model_checkpoint = None if best is None else str(self.run_folder / f"checkpoint-{best}")

    def _load_callback_state(self) -> None:
        with naming_damage(self.run_folder / f"checkpoint-{self.state.global_step}"):  # callbacks of the caller's
            super()._load_callback_state()  # which is called right after the state of the run
        self.find_best()

    def _load_best_model(self) -> None:
        best = Path(str(self.state.best_model_checkpoint))
        verify(best)
        with naming_damage(best):
            super()._load_best_model()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with naming_damage(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with naming_damage(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with naming_damage(checkpoint):
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with naming_damage(checkpoint):
            super()._load_rng_state(checkpoint)


@contextmanager
def naming_damage(checkpoint: str | Path | None) -> Iterator[None]:
    """Name the checkpoint of which something cannot be read: sealed files may still hold what does not fit.

    Optimizer, schedule and random states are in torch's format and read with `weights_only`: tensors and numbers, no
    code. What asks for more is refused there.

    Raises:
        DamagedCheckpointError: In place of what torch, safetensors and transformers raise.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except UnpicklingError as error:
        reason = printable(str(error).splitlines()[0], 200)
        raise DamagedCheckpointError(
            f"{checkpoint} holds more than tensors, or is damaged ({reason}): remove it"
        ) from None
    except (
        RuntimeError,
        SafetensorError,
        OSError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        reason = printable(" ".join(str(error).split()), 300)
        raise DamagedCheckpointError(
            f"{checkpoint} is damaged ({type(error).__name__}: {reason}): remove it"
        ) from None
