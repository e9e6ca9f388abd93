"""The super-net's training loop: draws children, steps, logs, evaluates, saves, resumes.

One file, for it is one object: a step, a checkpoint and a resumption write and read the same state.
"""

import json
import logging
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator, PartialState
from transformers import PreTrainedTokenizerBase

from hf_nasbert import records
from hf_nasbert.data import digest_of
from hf_nasbert.data.vocabulary import save_tokenizer
from hf_nasbert.elastic.distance import Pooling
from hf_nasbert.foreign import printable
from hf_nasbert.locking import locked
from hf_nasbert.methods.base import misnamed
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.processes import broadcast_weights, on_main_process
from hf_nasbert.samplers import UpdateCounter
from hf_nasbert.scoring import score_architectures
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.stopping import StopRequest
from hf_nasbert.teachers import BaseModelTeacher
from hf_nasbert.training import checkpoints, copying, folders, sharding
from hf_nasbert.training.arguments import SupernetTrainingArguments
from hf_nasbert.training.distillation import Distillation, with_teacher
from hf_nasbert.training.feeding import fetched, from_workers, naming_data_faults
from hf_nasbert.training.journal import LOG, Journal, Window, read_log, shortened, trackable
from hf_nasbert.training.listener import Listener
from hf_nasbert.training.machine import make_accelerator
from hf_nasbert.training.step import Batch, TrainingStep, compile_operators, make_optimizer, narrowed
from hf_nasbert.training.suitable import check_combination, make_method

logger = logging.getLogger(__name__)


_SHOWN = 32  # sequences in a message
_LEFT_OUT = {"weight_layout": "separate", "copies": None}  # of a config as it is written, where it has this value
_HOW_TO_GO_ON = "the same command with --resume_from_checkpoint latest goes on from there"


class TrainingBatches(Protocol):
    """What the loop wants of its data (`data.MaskedBatches` is it): every batch a function of its step alone."""

    batch_size: int

    def describe(self) -> dict[str, Any]:
        """All that the batches depend on, in plain JSON types."""

    def loader(self, start_step: int, num_steps: int, *, rows: slice, num_workers: int) -> Iterable[Batch]:
        """The given rows of the batches of `num_steps` steps from `start_step` on."""

    def sample_ids(self, step: int) -> Iterable[Any]:
        """The numbers of the sequences of a step, over all processes."""


class DivergenceError(FloatingPointError):
    """A loss, a gradient or a weight is no finite number; names the step, the architecture and the samples."""


@dataclass(frozen=True)
class TrainingOutput:
    """What a training run ends with.

    Args:
        global_step: Optimizer steps that the super-net has taken.
        method: What the method says of its state at the end.
        evaluation: The evaluated children and their losses, if the run came to its end.
        is_finished: False if the run was asked to stop (`stopping.STOP_SIGNALS`) and wants to be resumed.
    """

    global_step: int
    method: dict[str, str]
    evaluation: list[tuple[Architecture, float]]
    is_finished: bool

    def __str__(self) -> str:
        if self.is_finished:
            return f"super-net of {self.global_step} steps"
        return f"stopped at step {self.global_step}, all of it saved; {_HOW_TO_GO_ON}"


def train_supernet(supernet: SupernetPreTrainedModel, *arguments: Any, **options: Any) -> TrainingOutput:
    """Train a super-net; takes what a `SupernetLoop` takes."""
    return SupernetLoop(supernet, *arguments, **options).train()


class SupernetLoop:
    """Trains a super-net on any number of processes, by any of `methods.METHODS`, from wherever it was interrupted.

    One optimizer step: the method draws the children, the same ones on every process with no communication;
    `TrainingStep` computes their gradient; it is clipped; AdamW moves the operators that have one. The method then
    learns what the children's losses were.

    Data, children, dropout and learning rate are functions of the step and the seeds. So a checkpoint holds no random
    state, a resumed run equals an uninterrupted one to the bit (same machine, same number of threads), and a run may
    go on with another number of processes for the same global batch.

    Args:
        supernet: The super-net; it is trained in place.
        arguments: How to train.
        batches: The training data, with `arguments.train_batch_size(num_processes)` sequences per step.
        dev_batches: Fixed batches, to evaluate children on.
        tokenizer: Saved beside the final super-net.
        accelerator: By default `make_accelerator(arguments)`.
        text: What the log says of the text behind the batches (`DataArguments.describe_split`), so that whoever
            measures the super-net later can hold out the same part of it.
        base_model: The encoder that the super-net was made of, to learn from it (`arguments.teacher`) or to be
            aligned to it. It is not saved, and has to be given again to go on.
        pooling: How a teacher's vector of a sequence is made.
        listener: Is told what the run does.

    Raises:
        ValueError: If data, method and arguments do not fit each other, or the world is not the one asked for.
    """

    def __init__(
        self,
        supernet: SupernetPreTrainedModel,
        arguments: SupernetTrainingArguments,
        batches: TrainingBatches,
        dev_batches: Sequence[Batch] = (),
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        accelerator: Accelerator | None = None,
        text: Mapping[str, Any] | None = None,
        base_model: BaseModelTeacher | None = None,
        pooling: Pooling = "mean",
        listener: Listener | None = None,
    ) -> None:
        self.accelerator = make_accelerator(arguments) if accelerator is None else accelerator
        if arguments.mixed_precision == "auto":  # log and checkpoints say what it came to
            arguments = replace(arguments, mixed_precision=self.accelerator.mixed_precision)
        arguments = with_teacher(arguments, has_base_model=base_model is not None)
        self.supernet, self.arguments, self.batches, self.tokenizer = supernet, arguments, batches, tokenizer
        self.text = text
        self.listener = Listener() if listener is None else listener
        self.space: SearchSpace = supernet.space
        self.output_dir = Path(arguments.output_dir)
        self.method = make_method(supernet, arguments)
        self.distillation: Distillation | None = None
        if base_model is not None:
            size = arguments.train_batch_size(self.accelerator.num_processes)
            self.distillation = Distillation(supernet, base_model, arguments, num_sequences=size, pooling=pooling)
        self._check(dev_batches)
        copying.lay_out(supernet, self.method)
        self.counter = UpdateCounter(self.space)
        if arguments.activation_checkpointing:
            # So called since transformers 5.23, where the older name warns.
            new, old = "activation_checkpointing_enable", "gradient_checkpointing_enable"
            getattr(supernet, new if hasattr(supernet, new) else old)()
        if arguments.torch_compile:
            compile_operators(supernet, arguments.torch_compile_backend)
        # Placed, and wrapped for mixed precision but not in DistributedDataParallel: the step adds up gradients.
        self.model = self.accelerator.prepare_model(supernet.to(self.accelerator.device), evaluation_mode=True)
        # Outside of this loop the super-net computes in its own precision, as any model does.
        self._mixed_forward = supernet.__dict__.pop("forward", None)
        broadcast_weights(self.accelerator, supernet)
        if sharding.is_wanted():
            sharding.shard(supernet, self.accelerator)
        self.optimizer = self.accelerator.prepare_optimizer(make_optimizer(supernet, arguments))
        self.step = TrainingStep(supernet, self.model, self.accelerator, arguments, self.method, self.distillation)
        device = self.accelerator.device
        self.dev_batches = [{key: value.to(device) for key, value in batch.items()} for batch in dev_batches]
        self._dev_digest = digest_of(dev_batches)
        self.global_step = 0
        self._window = Window()
        self._num_skipped = 0
        self._stop = StopRequest()  # to this process, at any moment
        self._is_stopping = False  # agreed by all, at the end of a step

    def train(self) -> TrainingOutput:
        """Train to `max_steps`, or until a signal (`stopping.STOP_SIGNALS`), from the start or from a checkpoint.

        Whatever ends it, the last checkpoint is whole, and a run that goes on from it is the same to the bit.

        Raises:
            ValueError: If the output folder holds or is used by another run, or the checkpoint belongs to another one.
            DivergenceError: If a loss, a gradient or a weight is not finite, and `max_skipped_steps` are skipped.
                Nothing is saved then.
            OSError: If nothing can be written, as on a full disk; or data stalls (TimeoutError) or its worker dies
                (ChildProcessError).
        """
        with ExitStack() as stack:
            lock = locked(self.output_dir)
            on_main_process(self.accelerator, lambda: stack.enter_context(lock))
            stack.enter_context(self._stop)
            stack.enter_context(self._in_mixed_precision())
            try:
                return self._train()
            finally:
                self._stop.clear()  # what was asked of this call is not of the next one
                self._is_stopping = False

    def _train(self) -> TrainingOutput:
        arguments = self.arguments
        is_resumed = self._resume_or_start()
        copying.lay_out(self.supernet, self.method)
        self.accelerator.init_trackers("supernet", config=trackable(arguments.to_dict()))
        self.journal = Journal(
            self.accelerator,
            self.output_dir,
            max_steps=arguments.max_steps,
            initial_step=self.global_step,
            description=arguments.method,
            show_progress=not arguments.disable_tqdm,
        )
        self.journal.record(
            "resume" if is_resumed else "start",
            step=self.global_step,
            num_processes=self.accelerator.num_processes,
            arguments=arguments.to_dict(),
            config=self._identity()["config"],
            search_space=self.space.to_dict(),
            data=self.batches.describe(),
            **({} if self.text is None else {"text": self.text}),
            **({} if self.distillation is None else {"base_model": self.distillation.describe()}),
            versions=records.versions(),
        )
        evaluation: list[tuple[Architecture, float]] = []
        # The main process alone starts the tracker and the log: the others' patience with a step begins after that.
        self.accelerator.wait_for_everyone()
        try:
            self.listener.begins(self.global_step)
            with naming_data_faults(lambda: self.global_step):
                self._run_steps()
            is_finished = self.global_step >= arguments.max_steps
            if is_finished:
                evaluation = self._finish()
            self.listener.ends(self.global_step)
        finally:
            self.journal.close()
        return TrainingOutput(self.global_step, self.method.shown(), evaluation, is_finished)

    def request_stop(self) -> None:
        """Let `train` save a checkpoint and return, at the end of the next step at the latest."""
        self._stop.set()

    @contextmanager
    def _in_mixed_precision(self) -> Iterator[None]:
        """With the forward pass that Accelerate made of the super-net's, where `mixed_precision` asks for one."""
        if self._mixed_forward is None or "forward" in self.supernet.__dict__:
            yield
            return
        self.supernet.__dict__["forward"] = self._mixed_forward
        try:
            yield
        finally:
            del self.supernet.__dict__["forward"]

    def _finish(self) -> list[tuple[Architecture, float]]:
        """Evaluate and save the final super-net, but for what a killed run had come to do."""

        def find() -> list[dict[str, Any]]:
            return [record for record in read_log(self.output_dir) if record.get("step") == self.global_step]

        done = {record["event"]: record for record in on_main_process(self.accelerator, find)}
        evaluation = []
        for child in done.get("eval", {"children": []})["children"]:
            evaluation.append((Architecture.parse(child["architecture"]), float(child["loss"])))
        if [child for child, _ in evaluation] != self._eval_children():
            evaluation = self.evaluate()
        self.save_model()
        if "finish" not in done:
            self.journal.record("finish", step=self.global_step)
        return evaluation

    def eval_losses(self) -> list[tuple[Architecture, float]]:
        """The fixed children and their losses on the dev batches, with the weights of this moment."""
        if not self.dev_batches or not self.arguments.num_eval_children:
            return []
        children = self._eval_children()
        with self._in_mixed_precision():
            losses = self._losses_of(children, self.dev_batches, PartialState())
        return list(zip(children, losses, strict=True))

    def evaluate(self) -> list[tuple[Architecture, float]]:
        """Score the fixed children, and tell log, tracker and listener."""
        with self.journal.pause():
            scored = self.eval_losses()
        if not scored:
            return []
        for child, loss in scored:
            self._refuse(f"dev loss of {child}", loss)
        losses = [loss for _, loss in scored]
        mean, best = sum(losses) / len(losses), min(losses)
        described = [{"architecture": str(child), "loss": loss} for child, loss in scored]
        self.journal.record("eval", step=self.global_step, loss=mean, children=described)
        self.journal.track(self.global_step, {"eval_loss": mean, "eval_loss_best": best})
        self.journal.say(f"step {self.global_step}: {len(losses)} children, mean loss {mean:.4f}, best {best:.4f}")
        self.listener.evaluates(self.global_step, losses)
        return scored

    def save_model(self, folder: str | Path | None = None) -> None:
        """Save super-net and tokenizer in a folder, by default the output folder, each file whole or not at all."""
        supernet = self._whole_supernet()

        def write(folder: Path) -> None:
            checkpoints.save_model(supernet, folder)
            if self.tokenizer is not None:
                save_tokenizer(self.tokenizer, folder, supernet.config.max_position_embeddings)

        # Not of the accelerator: whoever makes `TrainingArguments` after the training takes its state away.
        on_main_process(PartialState(), lambda: checkpoints.replace_files(Path(folder or self.output_dir), write))

    def save_checkpoint(self) -> None:
        """Save everything that the rest of the run depends on.

        Raises:
            DivergenceError: If a weight is no finite number.
            OSError: If the checkpoint cannot be written; those that were there still are.
        """
        supernet, optimizer = self._whole()

        def write(folder: Path) -> None:
            checkpoints.save_model(supernet, folder)
            checkpoints.save_optimizer(optimizer, supernet, folder)
            checkpoints.save_tensors(self.method.tensors(), folder)
            checkpoints.write_json(folder / checkpoints.STATE, self._state())

        def save() -> None:
            for name, parameter in supernet.named_parameters():
                self._refuse(f"sum of {name}", float(parameter.detach().sum()))
            limit = self.arguments.save_total_limit
            checkpoints.write_checkpoint(self.output_dir, self.global_step, write, limit=limit)

        with self.journal.pause():
            on_main_process(self.accelerator, save)
        self.listener.saves(self.global_step)

    def _run_steps(self) -> None:
        arguments = self.arguments
        batches = self.batches.loader(
            self.global_step,
            arguments.max_steps - self.global_step,
            rows=self.step.rows,
            num_workers=arguments.dataloader_num_workers,
        )
        batches = from_workers(batches) if arguments.dataloader_num_workers else fetched(batches)
        self.model.train()
        with nullcontext() if self.distillation is None else self.distillation.teaching():
            self._train_on(batches)

    def _train_on(self, batches: Iterable[Batch]) -> None:
        arguments, listener = self.arguments, self.listener
        for batch in batches:
            listener.step_begins(self.global_step)
            children = self._take_step(batch)
            step, is_last = self.global_step, self.global_step == arguments.max_steps
            listener.step_ends(step)
            if (step % arguments.logging_steps == 0 or is_last or listener.wants("log")) and self._window.num_steps:
                shown = {"architecture": str(children[-1]), **self.method.shown()}
                measured = self.journal.measure(step, self._window.means(), **shown)
                self._window = Window()
                listener.logs(step, measured)
            is_due = arguments.eval_steps and step % arguments.eval_steps == 0
            if (is_due or listener.wants("evaluate")) and not is_last:
                self.evaluate()
            if not is_last and listener.wants("stop"):
                self.request_stop()
                # Several processes learn of it together, in the next step.
                self._is_stopping |= self.accelerator.num_processes == 1
            if step % arguments.save_steps == 0 or is_last or self._is_stopping or listener.wants("save"):
                self.save_checkpoint()
            if self._is_stopping:
                self.journal.say(f"stopped at step {step}: {_HOW_TO_GO_ON}")
                return

    def _take_step(self, batch: Batch) -> tuple[Architecture, ...]:
        """Train one step's children on one batch, and return them."""
        arguments, accelerator = self.arguments, self.accelerator
        if self.method.before_step(self.global_step, self._find_split):
            copying.begin_anew(self.supernet, self.optimizer.optimizer)
        copying.lay_out(self.supernet, self.method, is_training=True)
        children = self.method.chosen_on(
            self.method.children(), lambda candidates: self.step.losses(self.global_step, candidates, batch)
        )
        learning_rate = self._learning_rate(children)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        losses = self.step.backward(self.global_step, children, batch, is_stopping=self._stop.is_set)
        self._is_stopping = losses.is_anyone_stopping
        is_made = False
        with narrowed(self.optimizer, losses.trained):
            if self._is_finite("loss", losses.masked_lm + sum(losses.terms.values()), children):
                self.method.read_gradients(children, losses.terms, self.supernet)
                most = (
                    arguments.max_grad_norm or math.inf
                )  # the norm is wanted without clipping too: it shows divergence
                norm = float(accelerator.clip_grad_norm_(losses.trained, most))
                # fp16 expects infinite gradients: it skips the step and scales down.
                if accelerator.scaler is not None or self._is_finite("gradient's norm", norm, children):
                    self.optimizer.step()
                    self.counter.update(children)
                    self._window.add(losses.masked_lm, losses.terms, norm, learning_rate)
                    is_made = True
            self.optimizer.zero_grad(set_to_none=True)
        self.global_step += 1
        if is_made:
            event = self.method.after_step(
                self.global_step, children, losses.of_children, self._score, self._whole_supernet
            )
            fault = misnamed(self.method, self.method.shown(), event)
            if fault is not None:
                raise ValueError(f"method {self.method.name} {fault}")
            if event is not None:
                self.journal.record(**{**event, "step": self.global_step})
        copying.lay_out(self.supernet, self.method)
        shown = {name: shortened(text) for name, text in self.method.shown().items()}
        self.journal.advance(losses.num_tokens, loss=f"{losses.masked_lm:.4f}", **shown)
        return children

    def _find_split(self, num_settings: int, seed: int) -> tuple[int, tuple[tuple[str, ...], ...]]:
        """The split of the super-net by its gradients on the dev batches: measured once, for all processes."""
        supernet: Any = self.supernet
        return on_main_process(
            self.accelerator, lambda: copying.find_split(supernet, self.dev_batches, num_settings, seed)
        )

    def _learning_rate(self, children: Sequence[Architecture]) -> float:
        """That of the next step, which trains these children."""
        return self.arguments.learning_rate_at(self.global_step, self.method.decay_exponent(children))

    def _score(self, children: Sequence[Architecture], num_batches: int) -> list[float]:
        """Losses of children on the first dev batches: computed once, for all processes."""
        batches = self.dev_batches[:num_batches]
        if self.distillation is not None and self.distillation.is_used:
            return on_main_process(self.accelerator, lambda: self._losses_of(children, batches))
        supernet: Any = self._whole_supernet()
        return on_main_process(
            self.accelerator, lambda: [float(loss) for loss in score_architectures(supernet, children, batches)]
        )

    def _losses_of(
        self, children: Sequence[Architecture], batches: Sequence[Batch], processes: PartialState | None = None
    ) -> list[float]:
        """Losses of children on dev batches, with the weights of this moment: by the teacher where one teaches."""
        if self.distillation is not None and self.distillation.is_used:
            return self.distillation.score(children, batches, processes)
        supernet: Any = self._whole_supernet()
        return score_architectures(supernet, children, batches, processes=processes)

    def _is_finite(self, what: str, value: float, children: Sequence[Architecture]) -> bool:
        """Whether a number of this step is one. If not the step is to be left without effect, if that is allowed."""
        if math.isfinite(value):
            return True
        most, step = self.arguments.max_skipped_steps, self.global_step + 1
        samples = [int(number) for number in self.batches.sample_ids(self.global_step)]
        is_skipped = self._num_skipped < most
        self.journal.record(
            "skip" if is_skipped else "divergence",
            step=step,
            reason=f"{what} {value}",
            architectures=[str(child) for child in children],
            samples=samples,
        )
        shown = ", ".join(map(str, samples[:_SHOWN])) + (f", ... ({LOG} has all)" if len(samples) > _SHOWN else "")
        message = (
            f"the {what} of step {step} is {value}, training {', '.join(map(str, children))} at a learning rate of "
            f"{self._learning_rate(children):.3g} on the sequences {shown}"
        )
        if not is_skipped:
            raise DivergenceError(f"{message}. {self._advice()}")
        self._num_skipped += 1
        logger.warning("%s: skipped, %d of at most %d", message, self._num_skipped, most)
        return False

    def _refuse(self, what: str, value: float) -> None:
        """End the run if a number is not finite after its last step."""
        if not math.isfinite(value):
            raise DivergenceError(f"the {what} after step {self.global_step} is {value}. {self._advice()}")

    def _advice(self) -> str:
        kept = checkpoints.list_checkpoints(self.output_dir)
        skipping = f"have more than {self._num_skipped} such steps skipped by max_skipped_steps"
        return (
            f"Nothing of this was saved: the last checkpoint is {kept[-1].name if kept else 'none yet'}. Lower "
            f"learning_rate or max_grad_norm, turn off mixed_precision, or {skipping}."
        )

    def _whole(self) -> tuple[SupernetPreTrainedModel, torch.optim.Optimizer]:
        """Super-net and optimizer to read; all processes have to ask together."""
        return sharding.whole(self.supernet, self.optimizer.optimizer, self.arguments)

    def _whole_supernet(self) -> Any:
        """The super-net to read; all processes have to ask together."""
        return sharding.whole_supernet(self.supernet)

    def _eval_children(self) -> list[Architecture]:
        """The largest child and distinct random ones: the same in every evaluation and on every process."""
        rng = random.Random(f"evaluation {self.arguments.seed}")
        children = [self.supernet.largest_architecture]
        while len(children) < min(self.arguments.num_eval_children, self.space.num_children):
            child = self.space.sample(rng, "children")
            if child not in children:
                children.append(child)
        return children

    def _check(self, dev_batches: Sequence[Batch]) -> None:
        arguments, num_processes = self.arguments, self.accelerator.num_processes
        expected = arguments.train_batch_size(num_processes)
        if self.batches.batch_size != expected:
            raise ValueError(
                f"the batches hold {self.batches.batch_size} sequences a step, but {num_processes} process(es) with "
                f"per_device_train_batch_size={arguments.per_device_train_batch_size}, gradient_accumulation_steps="
                f"{arguments.gradient_accumulation_steps} and global_batch_size={arguments.global_batch_size} take "
                f"{expected}"
            )
        check_combination(self.method, self.supernet, arguments, has_base_model=self.distillation is not None)
        if len(dev_batches) < self.method.num_dev_batches:
            raise ValueError(
                f"method={arguments.method} scores children on {self.method.num_dev_batches} dev batches, "
                f"but there are {len(dev_batches)}: raise num_eval_batches, or give more text"
            )

    # Checkpoints

    def _resume_or_start(self) -> bool:
        """Restore a checkpoint if that was asked for, else make sure that nothing of an earlier run is in the way."""
        asked = self.arguments.resume_from_checkpoint
        folder = None
        if asked is not None:
            folder = on_main_process(self.accelerator, lambda: checkpoints.find_checkpoint(self.output_dir, asked))
        if folder is None:
            on_main_process(self.accelerator, lambda: folders.clear(self.arguments))
            self.method.begin(self._whole_supernet, {})
            return False
        if folder.resolve().parent == self.output_dir.resolve():
            on_main_process(self.accelerator, lambda: folders.leave_behind(self.output_dir, folder))
        else:  # another run's checkpoint: what this folder holds is none of its past
            on_main_process(self.accelerator, lambda: folders.clear(self.arguments))
        self._restore(folder)
        return True

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to belong to this run."""
        volatile = ("transformers_version", "dtype", "architectures", "_name_or_path", "search_space")
        config = _LEFT_OUT | json.loads(self.supernet.config.to_json_string(use_diff=False))
        if self.method.copies(is_training=False) is not None:  # they follow from method, settings and state
            config["copies"] = None
        arguments = self.arguments
        return {
            "search_space": self.space.to_dict(),
            **{name: getattr(arguments, name) for name in ("method", "seed", "mixed_precision")},
            **asdict(arguments.method_settings),
            "config": {key: value for key, value in config.items() if key not in volatile},
            "data": self.batches.describe(),
            "dev_data": self._dev_digest,
            **({} if self.distillation is None else {"base_model": self.distillation.describe()}),
        }

    def _state(self) -> dict[str, Any]:
        scaler = self.accelerator.scaler
        return {
            "step": self.global_step,
            "identity": self._identity(),
            "method": self.method.state_dict(),
            "update_counter": self.counter.state_dict(),
            "num_skipped": self._num_skipped,
            "window": asdict(self._window),
            "scaler": None if scaler is None else scaler.state_dict(),
            "arguments": self.arguments.to_dict(),
            "num_processes": self.accelerator.num_processes,
            "versions": records.versions(),
        }

    def _restore(self, folder: Path) -> None:
        state = checkpoints.read_state(folder)
        identity = self._identity()
        saved_data = state["identity"].get("data")
        if isinstance(saved_data, dict) and "content" in identity["data"] and "content" not in saved_data:
            logger.warning(
                "checkpoint %s is of a version that knew its text by 64 sequences: the others are not compared, so "
                "make sure that the text is unchanged",
                folder,
            )
            del identity["data"]["content"]
        saved = self.arguments.method_settings.as_now(state["identity"])
        if isinstance(saved.get("config"), dict):
            saved["config"] = _LEFT_OUT | saved["config"]
        difference = checkpoints.first_difference(saved, identity)
        if difference is not None:
            raise ValueError(f"checkpoint {folder} belongs to another run: {difference}")
        for name, value in self.arguments.to_dict().items():
            if name.startswith(("learning_rate", "weight_decay", "adam_", "warmup_", "lr_", "min_lr_", "max_")):
                # What an earlier version did not have yet, it did as the default does now.
                saved = state["arguments"].get(name, getattr(SupernetTrainingArguments, name, None))
                if saved != value:
                    was = printable(saved, 200)
                    logger.warning("resuming %s with %s=%s; it was made with %s", folder.name, name, value, was)
        supernet, optimizer = self._whole()
        checkpoints.load_model(supernet, folder)
        checkpoints.load_optimizer(optimizer, supernet, folder)
        sharding.cut_again(self.supernet, self.optimizer.optimizer, supernet, optimizer)
        try:
            self._restore_state(state)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise checkpoints.DamagedCheckpointError(
                f"checkpoint {folder} is damaged: {checkpoints.STATE} "
                f"({type(error).__name__}: {printable(error, 500)})"
            ) from error
        tensors = checkpoints.load_tensors(folder)
        try:
            self.method.begin(self._whole_supernet, tensors)
        except ValueError as error:
            raise checkpoints.DamagedCheckpointError(
                f"checkpoint {folder} is damaged: {checkpoints.TENSORS} ({printable(error, 500)})"
            ) from error

    def _restore_state(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state["method"])
        self.counter.load_state_dict(state["update_counter"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        window = Window(**state["window"])
        if not set(window.terms) <= set(self.method.terms):
            raise ValueError(f"its window has means of {', '.join(window.terms)}, which {self.method.name} has not")
        self._window = window
        self._num_skipped = state["num_skipped"]
        self.global_step = state["step"]
